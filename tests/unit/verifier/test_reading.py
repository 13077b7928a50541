"""A stream that is over is over, also for an attester that has more to say."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from weighbridge.proto.v1 import attestation_pb2
from weighbridge.verifier.quotas import Quotas
from weighbridge.verifier.reading import Ended, Reader, Received
from weighbridge.verifier.service_limits import Limits

pytestmark = pytest.mark.asyncio


async def without_end() -> attestation_pb2.AttestRequest:
    return attestation_pb2.AttestRequest(resume=attestation_pb2.Resume(session=bytes(16)))


async def test_what_was_read_ahead_does_not_keep_a_stream_past_its_end() -> None:
    old = Ended(grpc.StatusCode.UNAVAILABLE, "the stream is old", within=-1.0)
    with Quotas(Limits()).visit(b"peer") as visit:
        async with Reader.reading(without_end, visit) as reader:
            first = await reader.next(Ended(grpc.StatusCode.OK, within=5))
            assert isinstance(first, Received)
            reader.answered(first, credit=4)
            # Time enough for the credit to be used up.
            for _ in range(20):
                await asyncio.sleep(0)
            assert await reader.next(old) is old
            assert isinstance(await reader.next(Ended(grpc.StatusCode.OK, within=5)), Received)
