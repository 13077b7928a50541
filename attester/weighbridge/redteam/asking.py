"""Asks a verifier how a session stands, in whatever name: as somebody else, with any token, or with none."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import grpc
import grpc.aio

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.v1 import results_pb2, results_pb2_grpc
from weighbridge.redteam.attack import Seen

__all__ = ["CALL_S", "asked", "seen"]

CALL_S: Final = 10.0
"""Nobody is waited for longer."""


async def asked(
    address: str,
    credentials: grpc.ChannelCredentials,
    session: bytes,
    *,
    bearer: str | None = None,
    audience: str | None = None,
) -> results_pb2.Result | Seen:
    """What whoever has these ``credentials`` is told of ``session``; or how it is refused.

    Args:
        address: ``HOST:PORT``.
        credentials: of the channel.
        session: 16 bytes.
        bearer: shown as the token that says who asks; ``None``: none is shown.
        audience: whom the result token is to be for; ``None``: the first that whoever asks may ask for.

    Raises:
        EnvironmentFault: ``PEER_UNREACHABLE``: it did not say.
    """
    metadata = () if bearer is None else (("authorization", f"Bearer {bearer}"),)
    request = results_pb2.GetResultRequest(session=session, audience=audience)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub = results_pb2_grpc.ResultServiceStub(channel)
        try:
            return await stub.GetResult(request, timeout=CALL_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return _refusal(error, address)


def seen(answer: results_pb2.Result | Seen) -> Seen:
    """What ``answer`` comes to: whoever is told anything of a session that is not over has been let in."""
    if isinstance(answer, Seen):
        return answer
    over = answer.state == results_pb2.STATE_ENDED and not answer.token
    message = answer.reason if over else "it was told how the session stands"
    return Seen(admitted=not over, codes=(answer.code,) if over else (), message=message)


def _refusal(error: grpc.aio.AioRpcError, address: str) -> Seen:
    details = error.details() or ""
    with suppress(MalformedEvidence):
        document = strict.json_decode(details.encode(), what="status", limit=limits.TERMS_MAX)
        if isinstance(document, dict) and isinstance(document.get("code"), str):
            return Seen(admitted=False, codes=(str(document["code"]),), message=str(document.get("message", "")))
    raise EnvironmentFault(
        Code.PEER_UNREACHABLE, f"it did not answer: {error.code().name.lower()}: {details}", where=address
    )
