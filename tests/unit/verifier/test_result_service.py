"""A watch of many sessions is told of the first before the last are looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from weighbridge.proto.v1 import results_pb2
from weighbridge.verifier.result_service import ResultService
from weighbridge.verifier.told import GateState, Told
from weighbridge.verifier.watching import Watch

pytestmark = pytest.mark.asyncio

MANY = 200


async def test_results_are_told_in_parts() -> None:
    looked: list[bytes] = []

    def result(session: bytes, _: object) -> object:
        looked.append(session)
        told = Told(state=GateState.WAITING, at_ns=0, expires_ns=None, code=None, reason="", seq=None)
        return SimpleNamespace(session=session, told=told, token=None)

    source = SimpleNamespace(standings=mock.Mock(), now_ns=lambda: 0, result=result)
    service = ResultService(cast("Any", source), cast("Any", SimpleNamespace(listed=object())), cast("Any", None))
    watch = Watch(number.to_bytes(16, "big") for number in range(MANY))
    told = service._told(watch, cast("Any", None), cast("Any", None))
    try:
        first = await anext(told)
        assert first.result.state == results_pb2.STATE_WAITING
        assert len(looked) < MANY
        for _ in range(MANY - 1):
            await anext(told)
        assert len(looked) == len(set(looked)) == MANY
    finally:
        await told.aclose()
        service.close()
