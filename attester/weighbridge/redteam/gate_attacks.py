"""Requests that a gate must not let through: by another way than its routes, and when its session is over.

The gate is asked as Envoy asks it (``envoy.service.auth.v3``). Its file has to lead a route to the red team's sessions:
whichever there are of the kit's model, with no serving key to compare, since no server stands behind them.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import grpc.aio
from google.protobuf import json_format

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.redteam.asking import CALL_S
from weighbridge.redteam.attack import Attack, NotShown, Seen, answered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.redteam.field import Door, Field, Guest

__all__ = ["GATE_ATTACKS"]

_POLL_S: Final = 0.05
# A gate is told of a first affirmed window within a moment; until then windows go on, at this pace.
_HEARD_S: Final = 10.0
_PACE_S: Final = 0.25
# What two clocks of a deployment may differ by, and a busy machine may take.
_SLACK_S: Final = 2.0
_FORGED: Final = {"x-weighbridge-session": "forged", "X_Weighbridge_Status": "affirming"}


@dataclass(frozen=True, slots=True)
class _Said:
    """What a gate said to one request: whether it is let through, why not, to whose server, and until when."""

    allowed: bool
    code: str
    reason: str
    cnf: str
    expires_s: float


async def _off_route(field: Field) -> Seen:
    async with _Asking(_door(field)) as asking:
        await asking.opened(await field.guest())
        door = asking.door
        return _seen(await asking.ask(path=f"{door.path.rstrip('/')}/../", headers=_FORGED))


async def _failed(field: Field) -> Seen:
    async with _Asking(_door(field)) as asking:
        guest = await field.guest()
        said = await asking.opened(guest)
        others = field.kit.gpus(field.target.gpus)
        failed = await answered(guest.rogue.window(by=guest.rogue.sealer(gpus=others)))
        if failed.admitted:
            raise NotShown("a failure", "the session did not fail")
        guest.failed = True
        return await asking.shut(said.expires_s)


async def _ended(field: Field) -> Seen:
    async with _Asking(_door(field)) as asking:
        guest = await field.guest()
        said = await asking.opened(guest)
        await guest.rogue.line.close_session(guest.rogue.session)
        return await asking.shut(said.expires_s)


async def _silent(field: Field) -> Seen:
    async with _Asking(_door(field)) as asking:
        said = await asking.opened(await field.guest())
        return await asking.shut(said.expires_s)


class _Asking:
    """A line to a gate. An async context manager."""

    def __init__(self, door: Door) -> None:
        self.door = door

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self.door.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def ask(self, *, path: str | None = None, headers: Mapping[str, str] | None = None) -> _Said:
        """What the gate says to a request for ``path``, or for the one that it is to let through.

        Raises:
            EnvironmentFault: ``PEER_UNREACHABLE``: nothing that can be read.
        """
        from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc  # noqa: PLC0415 - Envoy's messages: only here

        request = external_auth_pb2.CheckRequest()
        http = request.attributes.request.http
        http.method, http.host, http.path = "GET", self.door.host, path or self.door.path
        for name, value in (headers or {}).items():
            http.headers[name] = value
        stub = external_auth_pb2_grpc.AuthorizationStub(self._channel)
        try:
            response = await stub.Check(request, timeout=CALL_S)
            told: dict[str, Any] = json_format.MessageToDict(response.dynamic_metadata)
            expires = strict.time_decode(str(told["expires"]), what="expires") if told.get("open") else None
        except grpc.aio.AioRpcError as error:
            said = f"{error.code().name.lower()}: {error.details()}"
            raise EnvironmentFault(
                Code.PEER_UNREACHABLE, f"the gate did not answer: {said}", where=self.door.address
            ) from error
        except (MalformedEvidence, KeyError) as error:
            raise EnvironmentFault(
                Code.PEER_UNREACHABLE, f"what the gate answered cannot be read: {error}", where=self.door.address
            ) from error
        return _Said(
            response.status.code == 0,
            str(told.get("code", "")),
            str(told.get("reason", "")),
            str(told.get("cnf", "")),
            0.0 if expires is None else expires.timestamp(),
        )

    async def opened(self, guest: Guest) -> _Said:
        """The answer that lets a request through to ``guest``, whose windows go on until then.

        Raises:
            NotShown: there is none.
        """
        until = time.monotonic() + _HEARD_S
        while True:
            said = await self.ask()
            if said.allowed and said.cnf == guest.cnf.hex():
                return said
            if said.allowed:
                raise NotShown("a route of the red team's own", "it is open to another host than the red team's")
            if time.monotonic() > until:
                raise NotShown("a request to an open session", said.reason, said.code or None)
            await asyncio.sleep(_PACE_S)
            await guest.settle(1)

    async def shut(self, expires_s: float) -> Seen:
        """The first answer that lets nothing through, which has to come by ``expires_s`` (seconds since 1970)."""
        while True:
            said = await self.ask()
            if not said.allowed or time.time() > expires_s + _SLACK_S:
                return _seen(said)
            await asyncio.sleep(_POLL_S)


def _seen(said: _Said) -> Seen:
    if said.allowed:
        return Seen(admitted=True, codes=(), message="the request was let through")
    return Seen(admitted=False, codes=(said.code,), message=said.reason)


def _door(field: Field) -> Door:
    door = field.target.gate
    if door is None:
        raise RuntimeError("no gate was named")
    return door


GATE_ATTACKS: Final = (
    Attack(
        name="gate-off-route",
        rows=(),
        does="asks for a path that leads out of an open route by dots, with the gate's own headers",
        expected=(Code.GATE_ROUTE,),
        play=_off_route,
        by="gate",
        needs="gate",
    ),
    Attack(
        name="gate-failed",
        rows=("A67", "A72"),
        does="goes on asking after the session has failed",
        expected=(Code.GPU_UNEXPECTED,),
        play=_failed,
        by="gate",
        needs="gate",
    ),
    Attack(
        name="gate-ended",
        rows=("A67",),
        does="goes on asking after the session was closed",
        expected=(Code.SESSION_STATE,),
        play=_ended,
        by="gate",
        needs="gate",
    ),
    Attack(
        name="gate-silent",
        rows=("A67",),
        does="goes on asking while the host sends no window any more",
        expected=(Code.TOKEN_EXPIRED,),
        play=_silent,
        by="gate",
        needs="gate",
    ),
)
