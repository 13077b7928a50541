"""Asks a verifier how sessions stand, over gRPC with mutual TLS. Messages are converted here and travel no further in.

What is answered is believed as far as the line goes: nothing of it is signed but the token, which is not verified here.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, final

import grpc
import grpc.aio

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
    WeighbridgeError,
    shorten,
)
from weighbridge.proto.v1 import results_pb2, results_pb2_grpc
from weighbridge.verifier.result.serialisation import Serialisation
from weighbridge.verifier.told import GateState, Told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

__all__ = ["Answered", "Bearer", "Credentials", "ResultClient"]

_CONNECT_S: Final = 10.0
# Three heartbeats.
_SILENCE_S: Final = 15.0
_KEEPALIVE_MS: Final = 10_000
_SESSION_SIZE: Final = 16
_TIME_MAX: Final = 2**63
_SEQ_MAX: Final = 2**53
_CODE_MAX: Final = 64
_REASON_MAX: Final = 4096
_STATES: Final = {
    results_pb2.STATE_WAITING: GateState.WAITING,
    results_pb2.STATE_OPEN: GateState.OPEN,
    results_pb2.STATE_CLOSED: GateState.CLOSED,
    results_pb2.STATE_ENDED: GateState.ENDED,
}
_SERIALISATIONS: Final = {
    Serialisation.EAR_04: results_pb2.SERIALISATION_EAR_04_JWT,
    Serialisation.EAR_04_CWT: results_pb2.SERIALISATION_EAR_04_CWT,
    Serialisation.VERAISON_2023: results_pb2.SERIALISATION_VERAISON_2023_JWT,
}
_ERRORS: Final[Mapping[int, type[WeighbridgeError]]] = {
    error.exit_code: error
    for error in (MalformedEvidence, NotAuthentic, PolicyDenied, Indeterminate, LedgerInconsistent, EnvironmentFault)
}
_NOT_LET_IN: Final = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM: who may certify the verifier, our own key, and our certificate."""

    authority: bytes
    key: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who may certify the verifier, PEM, and a token that says who we are, in the place of a certificate."""

    authority: bytes
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a verifier answered for one session. ``token``, not verified, is there exactly where it is open."""

    session: bytes
    told: Told
    token: bytes | None


@final
class ResultClient:
    """A channel to a verifier. An async context manager; on leaving it, the channel is closed.

    Args:
        target: ``HOST:PORT``; the host must be named in the verifier's certificate.
        credentials: of the channel.
    """

    def __init__(self, target: str, credentials: Credentials | Bearer) -> None:
        self._target = target
        self._credentials = credentials
        self._metadata: tuple[tuple[str, str], ...] = ()
        if isinstance(credentials, Bearer):
            self._metadata = (("authorization", f"Bearer {credentials.token}"),)
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        given = self._credentials
        own = given if isinstance(given, Credentials) else None
        self._channel = grpc.aio.secure_channel(
            self._target,
            grpc.ssl_channel_credentials(
                root_certificates=given.authority,
                private_key=None if own is None else own.key,
                certificate_chain=None if own is None else own.certificate,
            ),
            options=[
                ("grpc.max_receive_message_length", limits.MESSAGE_MAX),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
                ("grpc.enable_retries", 0),
            ],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def get(
        self,
        session: bytes,
        *,
        audience: str | None = None,
        serialisation: Serialisation = Serialisation.EAR_04,
        certificate: bytes | None = None,
    ) -> Answered:
        """How ``session`` stands now.

        Args:
            session: 16 bytes.
            audience: whom the token is for; ``None``: the first that we may ask for.
            serialisation: of the token.
            certificate: DER, that the session's server presents: the token then names its key in other ways as well.

        Raises:
            WeighbridgeError: what the verifier refuses with.
            EnvironmentFault: ``PEER_UNREACHABLE`` or ``PEER_REFUSED``.
            MalformedEvidence: the answer is not one.
        """
        request = results_pb2.GetResultRequest(
            session=session,
            audience=audience,
            serialisation=_SERIALISATIONS[serialisation],
            certificate=certificate,
        )
        try:
            answer = await self._stub().GetResult(request, timeout=_CONNECT_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, self._target) from error
        return _answered(answer, {session})

    async def token_keys(self) -> bytes:
        """The keys that tokens are verified by, as the verifier names them: untrusted, a JSON Web Key Set.

        Raises:
            WeighbridgeError: as :meth:`get`.
        """
        try:
            answer = await self._stub().GetTokenKeys(
                results_pb2.GetTokenKeysRequest(), timeout=_CONNECT_S, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise _failure(error, self._target) from error
        if not answer.HasField("jwks"):
            raise _malformed(Code.FIELD_MISSING, "no key set, or of a later version", "token_keys.jwks")
        return answer.jwks

    async def watch(
        self,
        sessions: Sequence[bytes],
        *,
        audience: str | None = None,
        serialisation: Serialisation = Serialisation.EAR_04,
    ) -> AsyncGenerator[Answered | None]:
        """How ``sessions`` stand: each at once, and at each change; ``None`` says that nothing has changed.

        Ends when the verifier ends it in good order; whoever goes on watching asks again.

        Raises:
            WeighbridgeError: as :meth:`get`; ``PEER_UNREACHABLE`` also when nothing is heard for 15 s.
        """
        request = results_pb2.WatchResultsRequest(
            sessions=sessions, audience=audience, serialisation=_SERIALISATIONS[serialisation]
        )
        async with aclosing(self._watch(request, set(sessions))) as told:
            async for answered in told:
                yield answered

    async def watch_model(
        self,
        tenant: str,
        digest: bytes,
        *,
        audience: str | None = None,
        serialisation: Serialisation = Serialisation.EAR_04,
    ) -> AsyncGenerator[Answered | None]:
        """How all sessions of a model stand, as :meth:`watch`: those that there are, and those that come.

        Args:
            tenant: whose they are.
            digest: of the model's manifest, 32 bytes.
            audience: as for :meth:`watch`.
            serialisation: as for :meth:`watch`.

        Raises:
            WeighbridgeError: as :meth:`watch`.
        """
        request = results_pb2.WatchResultsRequest(
            model=results_pb2.Model(tenant=tenant, digest=digest),
            audience=audience,
            serialisation=_SERIALISATIONS[serialisation],
        )
        async with aclosing(self._watch(request, None)) as told:
            async for answered in told:
                yield answered

    async def _watch(
        self, request: results_pb2.WatchResultsRequest, asked: set[bytes] | None
    ) -> AsyncGenerator[Answered | None]:
        call = self._stub().WatchResults(request, metadata=self._metadata)
        try:
            while (response := await self._next(call)) is not None:
                match response.WhichOneof("response"):
                    case "result":
                        yield _answered(response.result, asked)
                    case "heartbeat":
                        yield None
                    case _:
                        raise _malformed(Code.FIELD_MISSING, "empty, or of a later version", "response")
        finally:
            call.cancel()

    async def _next(
        self, call: grpc.aio.UnaryStreamCall[results_pb2.WatchResultsRequest, results_pb2.WatchResultsResponse]
    ) -> results_pb2.WatchResultsResponse | None:
        try:
            async with asyncio.timeout(_SILENCE_S):
                response = await call.read()
        except TimeoutError as error:
            raise _unreachable(f"nothing was heard for {_SILENCE_S:g} s", self._target) from error
        except grpc.aio.AioRpcError as error:
            raise _failure(error, self._target) from error
        return response if isinstance(response, results_pb2.WatchResultsResponse) else None

    def _stub(self) -> results_pb2_grpc.ResultServiceAsyncStub:
        if self._channel is None:
            raise RuntimeError("the client is used outside of its context")
        return results_pb2_grpc.ResultServiceStub(self._channel)


def _answered(result: results_pb2.Result, asked: set[bytes] | None) -> Answered:
    """What a message says, if it says all that its state demands and nothing that it forbids.

    ``asked`` are the sessions that it may be of; ``None``: any.
    """
    state = _STATES.get(result.state)
    if state is None or not result.HasField("at_ns"):
        raise _malformed(Code.FIELD_MISSING, "no state or no time, or of a later version", "result")
    if len(result.session) != _SESSION_SIZE or (asked is not None and result.session not in asked):
        raise _malformed(Code.FIELD_RANGE, "of a session that nobody asked for", "result.session")
    is_open = state is GateState.OPEN
    for name, wanted in (("expires_ns", is_open), ("token", is_open), ("code", not is_open)):
        if result.HasField(name) != wanted:
            code = Code.FIELD_MISSING if wanted else Code.FIELD_UNKNOWN
            raise _malformed(code, f"{state.value}, and with{'out' if wanted else ''} it", f"result.{name}")
    for name, value, limit in (
        ("token", result.token, limits.TOKEN_MAX),
        ("code", result.code, _CODE_MAX),
        ("reason", result.reason, _REASON_MAX),
    ):
        if len(value) > limit:
            raise _malformed(Code.TOO_LARGE, "too long", f"result.{name}")
    if max(result.at_ns, result.expires_ns) >= _TIME_MAX or result.seq > _SEQ_MAX:
        raise _malformed(Code.FIELD_RANGE, "out of range", "result")
    told = Told(
        state=state,
        at_ns=result.at_ns,
        expires_ns=result.expires_ns if is_open else None,
        code=None if is_open else result.code,
        reason=result.reason,
        seq=result.seq if result.HasField("seq") else None,
    )
    return Answered(session=result.session, told=told, token=result.token if is_open else None)


def _malformed(code: Code, message: str, where: str) -> MalformedEvidence:
    return MalformedEvidence(code, f"the verifier's answer is not the expected one: {message}", where=where)


def _failure(error: grpc.aio.AioRpcError, target: str) -> WeighbridgeError:
    details = error.details() or ""
    refusal = _refusal(details)
    if refusal is not None:
        return refusal
    if error.code() in _NOT_LET_IN:
        return EnvironmentFault(Code.PEER_REFUSED, f"the verifier refuses: {shorten(details, 200)}", where=target)
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return _unreachable("its certificate is not from the authority that is expected", target)
    if "Hostname Verification Check failed" in details:
        return _unreachable(
            "its certificate has other names than this one (`weighbridge init --host` gives them)", target
        )
    words = [part for part in details.rstrip("]").split(": ") if part not in {"", "OK"}]
    return _unreachable(shorten(words[-1] if words else error.code().name.lower(), 120), target)


def _unreachable(reason: str, target: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.PEER_UNREACHABLE,
        f"cannot ask the verifier: {reason}",
        where=target,
        hint="is it running, is the port right (a token alone has one of its own), and do both certificates have the "
        "authority the other expects?",
    )


def _refusal(details: str) -> WeighbridgeError | None:
    """The error whose document a status carries, if it does. A code that is not known here is nobody's."""
    with contextlib.suppress(MalformedEvidence):
        document = strict.json_decode(details.encode(), what="status", limit=limits.TERMS_MAX)
        if isinstance(document, dict):
            kind, code = document.get("exit_code"), document.get("code")
            known = next((item for item in Code if item.value == code), None)
            if known is not None and isinstance(kind, int) and kind in _ERRORS:
                text = {name: value for name, value in document.items() if isinstance(value, str)}
                return _ERRORS[kind](
                    known,
                    text.get("message", "no reason"),
                    where=text.get("where", ""),
                    expected=text.get("expected"),
                    got=text.get("got"),
                    clause=text.get("clause", ""),
                    hint=text.get("hint", ""),
                )
    return None
