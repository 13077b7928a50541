"""The line to the verifier: one long-lived gRPC stream over mutual TLS, one answer to each request, in order.

Requests are sent one at a time, but for windows: of those as many may be under way as the verifier gives credit for.

:class:`Transport` and :class:`Line` are what a session needs; tests and in-process runs bring their own. A line that
was cut, or did not answer in time, is of no further use: the caller connects again and resumes, and the verifier says
what it has recorded. Messages are converted here and travel no further in.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

import grpc
import grpc.aio

from weighbridge.attester.refusal import refusal_error
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, shorten
from weighbridge.proto.spot import SpotChallenge
from weighbridge.proto.v1 import attestation_pb2, attestation_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from weighbridge.attester.keys import ChannelKey

__all__ = ["Answer", "GrpcTransport", "Line", "Opened", "Resumed", "Timeouts", "Transport"]

_T = TypeVar("_T")
_SEQ_MAX: Final = 2**53
_KEEPALIVE_MS: Final = 10_000
# Whatever a verifier offers: so many windows hide the way there and back.
_CREDIT_MAX: Final = 64
# A name with several addresses: each attester begins with another one. Not those of this machine, which are one
# verifier's, if all of them are: of the last that was tried it is told why it failed, and that is better not by chance.
_SHUFFLED: Final = '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'
_IN_ORDER: Final = '{"loadBalancingConfig": [{"pick_first": {}}]}'
# What gRPC's client says when a line ends before what is being written has left, whatever it ended with: with many that
# connect at once, that they took longer than a verifier waits for them.
_CUT_WHILE_SENDING: Final = "Internal error from Core"
_NOT_LET_IN: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


@dataclass(frozen=True, slots=True)
class Opened:
    """Enrolment succeeded. ``terms`` are signed and not verified yet; ``challenge`` is for window 0, 32 bytes.

    ``spot`` is to be answered in the window that ``challenge`` is for. ``credit`` is how many windows may be under way.
    """

    terms: bytes
    challenge: bytes
    spot: SpotChallenge | None = None
    credit: int = 1


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where the verifier's record stands: the next window that it wants, the challenge for it, the others as before."""

    next_seq: int
    challenge: bytes
    spot: SpotChallenge | None = None
    credit: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one window. ``verdict`` is JSON; ``challenge`` is ``None`` once the session has failed.

    ``spot`` is to be answered in the window that ``challenge`` is for.
    """

    seq: int
    verdict: bytes
    token: str | None
    challenge: bytes | None
    spot: SpotChallenge | None = None


class Line(Protocol):
    """One connected stream. Every method sends one request and waits for its answer; one at a time, but for windows.

    Each raises :class:`~weighbridge.proto.errors.EnvironmentFault` ``PEER_UNREACHABLE`` when the line is cut or silent,
    :class:`~weighbridge.attester.refusal.Throttled` when the verifier wants to be asked later, any other
    :class:`~weighbridge.proto.errors.WeighbridgeError` that it refuses with, and
    :class:`~weighbridge.proto.errors.MalformedEvidence` for an answer that is not one.
    """

    async def open(self, opening: bytes) -> bytes:
        """Send an opening; the enrolment challenge."""
        ...

    async def prove(self, proof: bytes) -> Opened:
        """Send the enrolment's proof; the session's terms and first challenge."""
        ...

    async def resume(self, session: bytes) -> Resumed:
        """Take up ``session`` (16 bytes) again."""
        ...

    async def window(self, evidence: bytes) -> Answer:
        """Send one window; its verdict. Not while others are under way."""
        ...

    async def send_window(self, evidence: bytes) -> None:
        """Send one window; :meth:`next_answer` returns its verdict. Not more at a time than there is credit for."""
        ...

    async def next_answer(self) -> Answer:
        """The verdict on the first window that was sent and not answered. A refusal is that window's answer as well."""
        ...

    async def close_session(self, session: bytes) -> bytes:
        """End ``session`` in good order; its summary as JSON."""
        ...

    async def lost(self) -> EnvironmentFault:
        """Wait, beside no request, until the line is known to be cut; why."""
        ...

    async def disconnect(self) -> None:
        """Let the line go. Never raises; calling it again does nothing."""
        ...


class Transport(Protocol):
    """How a line comes about."""

    async def connect(self) -> Line:
        """A new line.

        Raises:
            EnvironmentFault: ``PEER_UNREACHABLE`` or ``PEER_REFUSED``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for a connection, and for the answer to one request."""

    connect: float = 10.0
    answer: float = 30.0


@final
class GrpcTransport:
    """Lines over gRPC with mutual TLS.

    Args:
        target: ``HOST:PORT``; the host must be named in the verifier's certificate.
        authority: PEM certificates of who may certify the verifier.
        channel: the attester's own key and certificate.
        timeouts: how long to wait.
    """

    def __init__(self, target: str, *, authority: bytes, channel: ChannelKey, timeouts: Timeouts | None = None) -> None:
        self._target = target
        self._timeouts = timeouts or Timeouts()
        self._credentials = grpc.ssl_channel_credentials(
            root_certificates=authority, private_key=channel.key, certificate_chain=channel.certificate
        )

    async def connect(self) -> Line:
        """See :meth:`Transport.connect`."""
        channel = grpc.aio.secure_channel(
            self._target,
            self._credentials,
            options=[
                ("grpc.max_receive_message_length", limits.MESSAGE_MAX),
                ("grpc.max_send_message_length", limits.MESSAGE_MAX),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
                # Reconnecting is ours to do: it has to resume the session.
                ("grpc.enable_retries", 0),
                ("grpc.service_config", _IN_ORDER if self._target.startswith("localhost:") else _SHUFFLED),
            ],
        )
        line = _GrpcLine(channel, self._target, self._timeouts.answer)
        try:
            await line.connected(self._timeouts.connect)
        except BaseException:
            await line.disconnect()
            raise
        return line


@final
class _GrpcLine:
    def __init__(self, channel: grpc.aio.Channel, target: str, patience: float) -> None:
        self._channel = channel
        self._target = target
        self._patience = patience
        self._call = attestation_pb2_grpc.AttestationServiceStub(channel).Attest()

    async def connected(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._call.wait_for_connection()
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {patience:g} s") from error
        except grpc.aio.AioRpcError as error:
            if error.code() in _NOT_LET_IN:
                raise self._status(error.code(), error.details()) from error
            raise self._unreachable(error.details() or error.code().name) from error

    async def open(self, opening: bytes) -> bytes:
        response = await self._ask(attestation_pb2.AttestRequest(opening=opening), "challenge")
        return response.challenge

    async def prove(self, proof: bytes) -> Opened:
        opened = (await self._ask(attestation_pb2.AttestRequest(proof=proof), "opened")).opened
        _require(opened.HasField("terms") and opened.HasField("challenge"), "opened")
        spot = SpotChallenge.parse(opened.spot) if opened.HasField("spot") else None
        return Opened(opened.terms, _challenge(opened.challenge), spot, _credit(opened.credit))

    async def resume(self, session: bytes) -> Resumed:
        request = attestation_pb2.AttestRequest(resume=attestation_pb2.Resume(session=session))
        resumed = (await self._ask(request, "resumed")).resumed
        _require(resumed.HasField("next_seq") and resumed.HasField("challenge"), "resumed")
        spot = SpotChallenge.parse(resumed.spot) if resumed.HasField("spot") else None
        return Resumed(_seq(resumed.next_seq), _challenge(resumed.challenge), spot, _credit(resumed.credit))

    async def window(self, evidence: bytes) -> Answer:
        await self.send_window(evidence)
        return await self.next_answer()

    async def send_window(self, evidence: bytes) -> None:
        await self._write(attestation_pb2.AttestRequest(window=evidence))

    async def next_answer(self) -> Answer:
        answer = (await self._read("answer")).answer
        _require(answer.HasField("seq") and answer.HasField("verdict"), "answer")
        return Answer(
            seq=_seq(answer.seq),
            verdict=answer.verdict,
            token=answer.token if answer.HasField("token") else None,
            challenge=_challenge(answer.challenge) if answer.HasField("challenge") else None,
            spot=SpotChallenge.parse(answer.spot) if answer.HasField("spot") else None,
        )

    async def close_session(self, session: bytes) -> bytes:
        request = attestation_pb2.AttestRequest(close=attestation_pb2.Close(session=session))
        closed = (await self._ask(request, "closed")).closed
        _require(closed.HasField("summary"), "closed")
        return closed.summary

    async def lost(self) -> EnvironmentFault:
        code = await self._call.code()
        return self._status(code, await self._call.details())

    async def disconnect(self) -> None:
        self._call.cancel()
        await self._channel.close()

    async def _ask(self, request: attestation_pb2.AttestRequest, expected: str) -> attestation_pb2.AttestResponse:
        await self._write(request)
        return await self._read(expected)

    async def _write(self, request: attestation_pb2.AttestRequest) -> None:
        await self._patiently(self._call.write(request))

    async def _read(self, expected: str) -> attestation_pb2.AttestResponse:
        response = await self._patiently(self._call.read())
        if not isinstance(response, attestation_pb2.AttestResponse):
            raise self._status(await self._call.code(), await self._call.details())
        kind = response.WhichOneof("response")
        if kind == "refusal":
            refusal = response.refusal
            raise refusal_error(refusal.exit_code, refusal.error, retry_after_ms=refusal.retry_after_ms)
        _require(kind == expected, expected)
        return response

    async def _patiently(self, operation: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._patience):
                return await operation
        except TimeoutError as error:
            # The answer may still come and would be taken for that to the next request.
            self._call.cancel()
            raise self._cut(f"no answer within {self._patience:g} s") from error
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and error.details() == _CUT_WHILE_SENDING:
                raise self._cut("it ended while a request was being sent") from error
            raise self._status(error.code(), error.details()) from error
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise self._cut("the line is closed") from error

    def _status(self, code: grpc.StatusCode | None, details: str | None) -> EnvironmentFault:
        if code in _NOT_LET_IN:
            return EnvironmentFault(
                Code.PEER_REFUSED,
                f"the verifier refuses this attester: {details}",
                where=self._target,
                hint="is the channel certificate made by the authority that the verifier expects?",
            )
        return self._cut(
            f"{'ended' if code is None else code.name.lower().replace('_', ' ')}: {details or 'no reason'}"
        )

    def _unreachable(self, reason: str) -> EnvironmentFault:
        return EnvironmentFault(
            Code.PEER_UNREACHABLE,
            f"cannot connect to the verifier: {_plain(reason)}",
            where=self._target,
            hint="is it running, is the port right, and do both certificates have the authority the other expects?",
        )

    def _cut(self, reason: str) -> EnvironmentFault:
        return EnvironmentFault(
            Code.PEER_UNREACHABLE,
            f"the line to the verifier is cut: {reason}",
            where=self._target,
            hint="windows are kept and delivered when it is back",
        )


def _plain(details: str) -> str:
    """What gRPC's account of a failed connection comes to: its last words, but for those that are its own."""
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "its certificate is not from the authority that is expected"
    if "Hostname Verification Check failed" in details:
        return "its certificate has other names than this one (`weighbridge init --host` gives them)"
    words = [part for part in details.rstrip("]").split(": ") if part not in {"", "OK"}]
    return shorten(words[-1] if words else "no reason", 120)


def _require(condition: bool, expected: str) -> None:  # noqa: FBT001 - it is what must hold
    if not condition:
        raise MalformedEvidence(
            Code.FIELD_MISSING, "the verifier's answer is not the expected one", where="answer", expected=expected
        )


def _challenge(value: bytes) -> bytes:
    if len(value) != limits.NONCE_SIZE:
        raise MalformedEvidence(
            Code.NONCE_LENGTH, "wrong length", where="challenge", expected=limits.NONCE_SIZE, got=len(value)
        )
    return value


def _credit(value: int) -> int:
    """Absent and 0 are 1."""
    return min(max(value, 1), _CREDIT_MAX)


def _seq(value: int) -> int:
    if value > _SEQ_MAX:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "out of range", where="answer.seq", expected=f"<= {_SEQ_MAX}", got=value
        )
    return value
