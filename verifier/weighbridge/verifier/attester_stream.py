"""One stream of an attester, as the verifier's thread sees it: its session, its requests, and what each comes to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

import grpc

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.v1 import attestation_pb2
from weighbridge.verifier.hearing import Sent
from weighbridge.verifier.quotas import Limited
from weighbridge.verifier.reading import Ended

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.core import Verifier
    from weighbridge.verifier.hearing import Judged
    from weighbridge.verifier.peers import Admitted
    from weighbridge.verifier.quotas import Visit
    from weighbridge.verifier.service_limits import Limits

__all__ = ["Requested", "Stream"]

_SESSION_SIZE: Final = 16
# However short a session's windows are.
_IDLE_LEAST: Final = 30.0
_SECOND_NS: Final = 1_000_000_000


@final
class Stream:
    """One attester's stream: which session it speaks for, and for how long it may be silent.

    The thread of the verifier calls :meth:`handle` and :meth:`judge`, the event loop all else, never at once.
    """

    def __init__(self, verifier: Verifier, admitted: Admitted, visit: Visit, limits: Limits) -> None:
        self._verifier = verifier
        self._limits = limits
        self.peer: Final = admitted.key
        self._certificate = admitted.certificate
        self.visit: Final = visit
        self._terms: Terms | None = None
        self._came = time.monotonic()
        good_for = (admitted.until - datetime.now(UTC)).total_seconds()
        # Not all at once, if all came at once.
        spread = 0.8 + 0.2 * (admitted.key[0] / 255)
        self._old = self._came + min(good_for, limits.stream_age * spread)

    @property
    def sender(self) -> Hashable:
        """The session that it speaks for: another stream may, too, that has taken its place."""
        return id(self) if self._terms is None else self._terms.session

    @property
    def credit(self) -> int:
        """How many windows may be under way."""
        return 1 if self._terms is None else self._limits.credit

    @property
    def patience(self) -> Ended:
        """With what it ends, and in how many seconds, if nothing comes."""
        now = time.monotonic()
        if self._terms is None:
            ended = Ended(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"no session within {self._limits.enrolment:g} s",
                within=self._came + self._limits.enrolment - now,
            )
        else:
            idle = (self._terms.period_ns * self._limits.idle_periods + self._terms.lateness_ns) / _SECOND_NS
            idle = max(idle, _IDLE_LEAST)
            ended = Ended(grpc.StatusCode.DEADLINE_EXCEEDED, f"no request within {idle:g} s", within=idle)
        if self._old - now < ended.within:
            return Ended(grpc.StatusCode.UNAVAILABLE, "the stream is old: connect again", within=self._old - now)
        return ended

    def settle(self) -> None:
        """Count the stream for the session that it speaks for by now.

        Raises:
            Limited: there is no room for it.
        """
        if self._terms is None:
            self._came = time.monotonic() if self.visit.leaves(ended=True) else self._came
            return
        try:
            self.visit.joins(self._terms.session, self._terms.tenant)
        except Limited:
            self._terms = None
            raise

    def handle(self, request: attestation_pb2.AttestRequest) -> attestation_pb2.AttestResponse:
        """The response to anything but a window."""
        match request.WhichOneof("request"):
            case "opening":
                challenge = self._verifier.open(request.opening, peer=self.peer, certificate=self._certificate)
                return attestation_pb2.AttestResponse(challenge=challenge.encode())
            case "proof":
                opened = self._verifier.prove(request.proof, peer=self.peer)
                self._terms = opened.terms.terms
                message = attestation_pb2.Opened(
                    terms=opened.terms.raw, challenge=opened.challenge, spot=opened.spot, credit=self.credit
                )
                return attestation_pb2.AttestResponse(opened=message)
            case "resume":
                session = _session_of(request.resume)
                resumed = self._verifier.resume(session, peer=self.peer)
                self._terms = resumed.terms
                state = attestation_pb2.Resumed(
                    next_seq=resumed.next_seq, challenge=resumed.challenge, spot=resumed.spot, credit=self.credit
                )
                return attestation_pb2.AttestResponse(resumed=state)
            case "close":
                session = _session_of(request.close)
                if session != self._own():
                    raise NotAuthentic(
                        Code.WINDOW_SESSION, "this stream has another session", where="close.session", got=session
                    )
                summary = self._verifier.close(session, peer=self.peer)
                self._terms = None
                return attestation_pb2.AttestResponse(
                    closed=attestation_pb2.Closed(summary=strict.json_encode(summary))
                )
            case _:
                raise MalformedEvidence(
                    Code.FIELD_MISSING, "the request is empty or of a later version", where="request"
                )

    def sent(self, window: bytes) -> Sent:
        """``window``, for the stream's own session.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``: it has none.
        """
        return Sent(self._own(), window, self.peer)

    def judge(self, window: bytes, beside: Sequence[Judged]) -> Judged:
        """As :meth:`.Verifier.judge`, for the stream's own session."""
        session, data, peer = self.sent(window)
        return self._verifier.judge(session, data, peer=peer, beside=beside)

    def _own(self) -> bytes:
        if self._terms is None:
            raise NotAuthentic(
                Code.SESSION_UNKNOWN, "this stream has no session", where="stream", hint="enrol or resume first"
            )
        return self._terms.session


@dataclass(frozen=True, slots=True)
class Requested:
    """A request, and the stream that it came over."""

    stream: Stream
    request: attestation_pb2.AttestRequest


def _session_of(message: attestation_pb2.Resume | attestation_pb2.Close) -> bytes:
    if len(message.session) != _SESSION_SIZE:
        where = f"{type(message).__name__.lower()}.session"
        raise MalformedEvidence(Code.FIELD_RANGE, "a session has 16 bytes", where=where, got=len(message.session))
    return message.session
