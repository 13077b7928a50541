"""What others than a session's own host can do: relays, thieves, floods."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from weighbridge.attester.refusal import Throttled
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.proto.v1 import attestation_pb2, attestation_pb2_grpc
from weighbridge.redteam.asking import CALL_S, asked, seen
from weighbridge.redteam.attack import Attack, NotShown, Seen, answered, refused
from weighbridge.verifier.result.verifying import verify_any

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.attester.keys import ChannelKey
    from weighbridge.redteam.field import Field, Guest, Target
    from weighbridge.verifier.result.verifying import ResultToken

    _Call = grpc.aio.StreamStreamCall[attestation_pb2.AttestRequest, attestation_pb2.AttestResponse]

__all__ = ["FLOODS", "OPENINGS_MAX", "PEER_ATTACKS", "STREAMS_MAX"]

OPENINGS_MAX: Final = 64
"""So many openings a flood has at most; by default a peer may have 40 at once."""
STREAMS_MAX: Final = 32
"""So many streams a flood has at most; by default a peer may have 16."""
_LONG_AFTER: Final = timedelta(days=1)


# -- relays ------------------------------------------------------------------------------------------------------------


async def _relay(field: Field) -> Seen:
    """Each has a session; the one sends the window that the other sealed."""
    guest, other = await field.guest(), await field.guest()
    sealed = guest.rogue.seal()
    told = await answered(other.rogue.line.window(sealed.evidence))
    await guest.unharmed()
    await other.unharmed()
    return told


async def _relay_session(field: Field) -> Seen:
    guest = await field.guest()
    line = await field.line(_another(field, guest.channel))
    try:
        await line.resume(guest.rogue.session)
    except WeighbridgeError as error:
        told = refused(error)
    else:
        return Seen(admitted=True, codes=(), message="the session was resumed over another channel")
    await guest.unharmed()
    return told


async def _relay_enrolment(field: Field) -> Seen:
    guest = await field.guest()
    line = await field.line(_another(field, guest.channel))
    field.openings += 1
    try:
        await line.open(field.opening(guest.channel, field.kit.tpm()).encode())
    except WeighbridgeError as error:
        return refused(error)
    return Seen(admitted=True, codes=(), message="an opening that names one channel was taken over another")


# -- stolen tokens -----------------------------------------------------------------------------------------------------


async def _asked_for(field: Field) -> Seen:
    guest = await field.guest()
    told = await _ask(field.target, _another(field, guest.channel), guest.rogue.session)
    await guest.unharmed()
    return told


async def _shown(field: Field) -> Seen:
    guest = await field.guest()
    return await _ask(field.target, _another(field, guest.channel), guest.rogue.session, bearer=guest.issued())


async def _elsewhere(field: Field) -> Seen:
    return await _believed(field, lambda token, _: _verified(field, token, audience="somebody.else.invalid"))


async def _upstream(field: Field) -> Seen:
    def another_server(token: str, guest: Guest) -> None:
        _verified(field, token).require_upstream(sha256(b"the key of another server than " + guest.cnf))

    return await _believed(field, another_server)


async def _kept(field: Field) -> Seen:
    return await _believed(field, lambda token, _: _verified(field, token, at=datetime.now(UTC) + _LONG_AFTER))


async def _believed(field: Field, steal: Callable[[str, Guest], object]) -> Seen:
    """What a relying party says to a token that was issued for another one, another server or another time."""
    guest = await field.guest()
    token = guest.issued()
    try:
        _verified(field, token).require_upstream(guest.cnf)
    except WeighbridgeError as error:
        raise NotShown("the token where it belongs", str(error), error.code.value) from error
    try:
        steal(token, guest)
    except WeighbridgeError as error:
        return refused(error)
    return Seen(admitted=True, codes=(), message="the token was believed")


# -- floods ------------------------------------------------------------------------------------------------------------


async def _openings(field: Field) -> Seen:
    bystander = await _bystander(field)
    line = await field.line(_not_of(field, bystander))
    for number in range(1, OPENINGS_MAX + 1):
        field.openings += 1
        try:
            # An empty map: nothing is opened by it.
            await line.open(b"\xa0")
        except Throttled as throttled:
            await _served(bystander)
            return Seen(admitted=False, codes=(Code.RATE_LIMITED.value,), message=f"no. {number}: {throttled.message}")
        except WeighbridgeError as error:
            refused(error)
    raise NotShown("its bounds", f"{OPENINGS_MAX} openings at once are within this deployment's limit")


async def _streams(field: Field) -> Seen:
    bystander = await _bystander(field)
    async with _connected(field.target, _not_of(field, bystander)) as connected:
        stub = attestation_pb2_grpc.AttestationServiceStub(connected)
        # Each is held until all are done with.
        calls = [stub.Attest() for _ in range(STREAMS_MAX)]
        for number, call in enumerate(calls, 1):
            ended = await _ended(call)
            if ended is not None and Code.RATE_LIMITED.value in ended:
                await _served(bystander)
                return Seen(admitted=False, codes=(Code.RATE_LIMITED.value,), message=f"no. {number}: {ended}")
    raise NotShown("its bounds", f"{STREAMS_MAX} streams are within this deployment's limit")


async def _ended(call: _Call) -> str | None:
    """With what words a stream ends at once; ``None`` where it is served."""
    try:
        async with asyncio.timeout(CALL_S):
            await call.write(attestation_pb2.AttestRequest())
            if isinstance(await call.read(), attestation_pb2.AttestResponse):
                return None
            return await call.details()
    except grpc.aio.AioRpcError as error:
        return error.details()
    except (asyncio.InvalidStateError, grpc.aio.UsageError):
        # It was over before anything was written.
        return await call.details()


async def _bystander(field: Field) -> Guest | None:
    """A host that behaves, if the deployment lets one in: a flood can be seen to be refused without it."""
    try:
        return await field.guest()
    except NotShown:
        return None


def _not_of(field: Field, bystander: Guest | None) -> ChannelKey:
    return field.channels.take() if bystander is None else _another(field, bystander.channel)


async def _served(bystander: Guest | None) -> None:
    if bystander is not None:
        await bystander.unharmed()


PEER_ATTACKS: Final = (
    Attack(
        name="relay",
        rows=("A74",),
        does="sends another attester's fresh window on a session of its own",
        expected=(Code.TELEMETRY_KEY_MISMATCH, Code.WINDOW_SESSION, Code.WINDOW_PEER),
        play=_relay,
    ),
    Attack(
        name="relay-session",
        rows=("A74", "A68"),
        does="resumes another attester's session over its own channel",
        expected=(Code.WINDOW_PEER,),
        play=_relay_session,
    ),
    Attack(
        name="relay-enrolment",
        rows=("A74", "A68"),
        does="opens a session in the name of another attester's channel",
        expected=(Code.WINDOW_PEER,),
        play=_relay_enrolment,
    ),
    Attack(
        name="stolen-session",
        rows=("A34",),
        does="asks, as another attester, how a session stands and for its token",
        expected=(Code.RELYING_PARTY_UNKNOWN,),
        play=_asked_for,
    ),
    Attack(
        name="stolen-token",
        rows=("A34",),
        does="shows a session's token as if it said who asks",
        expected=(Code.RELYING_PARTY_UNKNOWN,),
        play=_shown,
    ),
    Attack(
        name="stolen-token-audience",
        rows=("A34",),
        does="shows a token to another relying party than it was issued for",
        expected=(Code.TOKEN_AUDIENCE,),
        play=_elsewhere,
        by="relying party",
    ),
    Attack(
        name="stolen-token-upstream",
        rows=("A34", "A73"),
        does="shows a token for a server that has another key than the attested one",
        expected=(Code.UPSTREAM_KEY,),
        play=_upstream,
        by="relying party",
    ),
    Attack(
        name="stolen-token-kept",
        rows=("A67",),
        does="shows a token a day later",
        expected=(Code.TOKEN_EXPIRED,),
        play=_kept,
        by="relying party",
    ),
)

FLOODS: Final = (
    Attack(
        name="flood-streams",
        rows=(),
        does=f"opens streams until one is refused, {STREAMS_MAX} at most",
        expected=(Code.RATE_LIMITED,),
        play=_streams,
    ),
    Attack(
        name="flood-openings",
        rows=(),
        does=f"opens enrolments until one is refused, {OPENINGS_MAX} at most, one after the other",
        expected=(Code.RATE_LIMITED,),
        play=_openings,
    ),
)


def _another(field: Field, channel: ChannelKey) -> ChannelKey:
    """Somebody else's channel."""
    while (other := field.channels.take()).peer == channel.peer:
        pass
    return other


def _verified(field: Field, token: str, *, audience: str | None = None, at: datetime | None = None) -> ResultToken:
    """A token as a relying party takes it."""
    target = field.target
    audiences = (audience or target.audience,)
    return verify_any(token.encode("ascii"), target.tokens, audiences=audiences, at=at or datetime.now(UTC))


async def _ask(target: Target, channel: ChannelKey, session: bytes, *, bearer: str | None = None) -> Seen:
    """What whoever holds ``channel`` is told of ``session``."""
    return seen(await asked(target.address, _credentials(target, channel), session, bearer=bearer))


def _connected(target: Target, channel: ChannelKey) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(target.address, _credentials(target, channel))


def _credentials(target: Target, channel: ChannelKey) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=target.authority, private_key=channel.key, certificate_chain=channel.certificate
    )
