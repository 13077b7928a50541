"""A window on its way to a judgement, stage by stage, and the judgement, which nobody knows of yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, final

from weighbridge.proto.digest import sha256
from weighbridge.verifier.challenge import preimage_of
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.traces import Beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.errors import EnvironmentFault, NotAuthentic
    from weighbridge.proto.spot import SpotExpectation
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.bench import Bench
    from weighbridge.verifier.ledger.content import Content
    from weighbridge.verifier.live import Live, Recalled
    from weighbridge.verifier.procedure import AuthenticWindow, VerifiedWindow
    from weighbridge.verifier.stood import Stood
    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["AT_ONCE", "Asked", "Hearing", "Judged", "Sent"]

AT_ONCE: Final = 16
"""So many windows are judged together: a few, and most of what that saves is saved; and the first waits for them."""


class Sent(NamedTuple):
    """A window as it came: over the channel of ``peer``, for a session."""

    session: bytes
    data: bytes
    peer: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What the memory of GPUs was asked about a window, and what it said.

    Attributes:
        traces: what the window brings, and GPUs' samples are remembered by.
        wanted: GPUs that it is the first to judge by a profile, with its digest.
        recalled: the answer.
    """

    traces: Sequence[Trace]
    wanted: Sequence[tuple[bytes, bytes]]
    recalled: Recalled


@final
@dataclass(slots=True)
class Hearing:
    """A window that is its session's and in its place. Each stage adds what it finds.

    Attributes:
        sent: as it came.
        at: its receipt time.
        live: its session.
        bench: by what that is judged.
        window: authenticated.
        forked: another window of its number is recorded.
        held: whether it comes too late to count as fresh.
        spot: what it was asked together with its challenge.
        verified: what verification proved; ``None`` where that refuses the window, or has not come to it.
        asked: what it is judged by of what is remembered of GPUs.
        verdict: the judgement, or why this machine comes to none.
    """

    sent: Sent
    at: datetime
    live: Live
    bench: Bench
    window: AuthenticWindow
    forked: NotAuthentic | None
    held: bool = field(init=False)
    spot: SpotExpectation | None = None
    verified: VerifiedWindow | None = None
    asked: Asked | None = None
    verdict: Verdict | EnvironmentFault | None = None

    def __post_init__(self) -> None:
        """Say whether it is held: a challenge serves one window, which comes in time."""
        terms, issued, header = self.live.terms, self.live.issued, self.window.header
        allowed = timedelta(microseconds=(terms.period_ns + terms.lateness_ns) // 1000)
        fresh = (
            header.challenge == issued.digest
            and header.seq == issued.seq
            and self.at - moment(issued.issued_ns) <= allowed
        )
        self.held = not fresh

    def record(self, verdict: Verdict) -> Record:
        """What is to be recorded of it."""
        live = self.live
        return Record(
            kind="window",
            session=live.terms.session,
            seq=verdict.seq,
            received_ns=nanoseconds(self.at),
            held=verdict.held,
            preimage=None if verdict.held else preimage_of(live.issued),
            opening=None,
            terms=None,
            secret=None,
            window=self.window.digest,
            evidence=sha256(self.sent.data),
            policy=NO_DIGEST if verdict.decision is None else verdict.decision.policy_digest,
            reference=verdict.reference or NO_DIGEST,
            requirements=None,
            verdict=verdict.encode(),
            spot=self.spot,
            collateral=verdict.collateral or NO_DIGEST,
            history=None if verdict.physical is None else verdict.physical.history,
            previous=live.position.window,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judgement on a window, which nobody knows of yet. Made by :meth:`.Judge.judge`.

    Attributes:
        live: its session.
        stood: where that stood when the window was judged.
        peer: from whose channel it came.
        verified: the window; ``None`` where its verification refused it.
        asked: what it was judged by of what is remembered of GPUs; ``None`` as well then.
        verdict: the judgement.
        random: drawn for the challenge that leaves with the answer.
        record: what is to be recorded of it.
        evidence: the window as received.
        at: its receipt time.
    """

    live: Live
    stood: Stood
    peer: bytes
    verified: VerifiedWindow | None
    asked: Asked | None
    verdict: Verdict
    random: bytes
    record: Record
    evidence: Content
    at: datetime

    @property
    def session(self) -> bytes:
        """The session of which it is a window."""
        return self.record.session

    @property
    def traces(self) -> Sequence[Trace]:
        """What GPUs' samples are remembered by."""
        return () if self.asked is None else self.asked.traces

    @property
    def goes_on(self) -> bool:
        """Whether its session does, with this window in its chain."""
        return self.verified is not None and self.verdict.physical is not None and self.verdict.outcome != "denied"

    @property
    def shuts(self) -> bool:
        """Whether its session's gate is shut from now on: a held window that is not denied changes nothing there."""
        return not (self.verdict.opens or (self.goes_on and self.verdict.held))

    @property
    def beside(self) -> Beside:
        """What windows that are settled behind it are compared with."""
        return Beside(self.record.session, self.verdict.seq, self.traces)
