"""What a session is: its states, what was proven at enrolment, and where its chain of windows stands.

States and legal transitions; from ``enrolled`` on, every state is durable before the answer that announces it::

    opened ──► enrolled ──► measured ──► running ──► closed
       │           │            │            │
       └───────────┴─────┬──────┴────────────┘
                         ▼
                 failed, interrupted        (both final; ``failed`` latches, and sticks to the AK and the GPUs)

``opened``: an enrolment challenge is out; in memory only, so an attester whose verifier restarts opens again.
``enrolled``: terms are signed. ``measured``: a window showed the declared model loaded, but none was admitted yet.
``running``: a fresh window was admitted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import binding
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.telemetry.state import TelemetryState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.terms import SignedTerms, Terms
    from weighbridge.verifier.boot.facts import BootFacts
    from weighbridge.verifier.boot.runtime import RuntimeLog
    from weighbridge.verifier.enrolment import VerifiedEnrolment
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.tpm.ak import VerifiedAk
    from weighbridge.verifier.tpm.certify import VerifiedTelemetryKey
    from weighbridge.verifier.tpm.quote import VerifiedQuote
    from weighbridge.verifier.weights import LogState

__all__ = ["Enrolled", "Position", "SessionState", "ledgered_log"]


class SessionState(StrEnum):
    """Where a session stands."""

    OPENED = "opened"
    ENROLLED = "enrolled"
    MEASURED = "measured"
    RUNNING = "running"
    CLOSED = "closed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def final(self) -> bool:
        """Whether no window can change it any more."""
        return self in _FINAL

    def to(self, following: SessionState) -> SessionState:
        """``following``, if that is a legal step.

        Raises:
            RuntimeError: for an illegal step: a bug, never an attacker's input.
        """
        if following not in _STEPS[self]:
            raise RuntimeError(f"illegal session step {self.value} -> {following.value}")
        return following


_FINAL: Final = frozenset({SessionState.CLOSED, SessionState.FAILED, SessionState.INTERRUPTED})
_ENDS: Final = frozenset({SessionState.FAILED, SessionState.INTERRUPTED, SessionState.CLOSED})
_STEPS: Final[Mapping[SessionState, frozenset[SessionState]]] = {
    SessionState.OPENED: frozenset({SessionState.ENROLLED, *_ENDS}),
    SessionState.ENROLLED: frozenset({SessionState.MEASURED, SessionState.RUNNING, *_ENDS}),
    SessionState.MEASURED: frozenset({SessionState.MEASURED, SessionState.RUNNING, *_ENDS}),
    SessionState.RUNNING: frozenset({SessionState.RUNNING, *_ENDS}),
    SessionState.CLOSED: frozenset(),
    SessionState.FAILED: frozenset(),
    SessionState.INTERRUPTED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The facts proven when the session was enrolled. They hold until it ends; a change of any ends it.

    ``boot`` is what the logs of the boot say, if they were demanded; ``log_from_reset`` whether the measurement log
    began on a register that nobody had extended since a reset.
    """

    signed_terms: SignedTerms
    ak: VerifiedAk
    telemetry_key: VerifiedTelemetryKey
    quote: VerifiedQuote
    gpus: tuple[VerifiedGpuReport, ...]
    boot: BootFacts | None
    log_from_reset: bool

    @property
    def terms(self) -> Terms:
        """The content of the signed terms."""
        return self.signed_terms.terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the chain stands after the last recorded window: what the next one must continue.

    ``window`` is H of the last window, ``None`` before the first; ``gpus`` are the latest verified reports,
    ``wall_end_ns`` the end of the last interval by the host's clock, ``held`` the number of held windows since the last
    fresh one, ``held_since_ns`` where the first of them begins, ``spot_seq`` the last fresh window that passed a spot
    check, ``spot_owed`` whether a policy obliged the host to one and no fresh window has passed it since, ``runtime``
    the kernel's list of measured files so far, ``telemetry`` what the appraisal of samples carries from window to
    window.
    """

    seq: int
    prev: bytes
    window: bytes | None
    quote: VerifiedQuote
    log: LogState
    manifests: Mapping[bytes, Manifest]
    gpus: tuple[VerifiedGpuReport, ...]
    wall_end_ns: int
    held: int
    held_since_ns: int | None
    spot_seq: int | None
    spot_owed: bool
    runtime: RuntimeLog | None
    telemetry: TelemetryState

    @classmethod
    def start(cls, enrolled: Enrolled, verified: VerifiedEnrolment) -> Self:
        """Before the first window."""
        return cls(
            seq=0,
            prev=enrolled.terms.prev,
            window=None,
            quote=enrolled.quote,
            log=verified.log,
            manifests=verified.manifests,
            gpus=enrolled.gpus,
            wall_end_ns=0,
            held=0,
            held_since_ns=None,
            spot_seq=None,
            spot_owed=False,
            runtime=verified.runtime,
            telemetry=TelemetryState(),
        )

    def after(self, window: VerifiedWindow, *, obliged: bool, telemetry: TelemetryState) -> Self:
        """Behind ``window``, which has been recorded.

        Args:
            window: verified at this position.
            obliged: its verdict demands a spot check.
            telemetry: as the appraisal of its samples leaves it; as it was, for whoever looks at no telemetry.
        """
        span = window.header.interval
        passed = window.spot is not None and not window.held
        since = span.wall_start_ns if self.held_since_ns is None else self.held_since_ns
        return replace(
            self,
            seq=self.seq + 1,
            prev=binding.link(window.digest, window.qualifying_data),
            window=window.digest,
            quote=window.quote,
            log=window.log,
            manifests={**self.manifests, **window.manifests},
            gpus=window.gpus or self.gpus,
            wall_end_ns=span.wall_end_ns,
            held=self.held + 1 if window.held else 0,
            held_since_ns=since if window.held else None,
            spot_seq=window.header.seq if passed else self.spot_seq,
            spot_owed=obliged or (self.spot_owed and not passed),
            runtime=window.runtime,
            telemetry=telemetry,
        )

    def spot_due(self, terms: Terms) -> bool:
        """Whether a spot check is due in the next window: its challenge comes with a spot challenge, if one is left.

        Every ``spot_every`` windows, and when a policy obliged the host to one; and until a fresh window passes it, in
        every window. So no fresh window evades it, whatever arrives late or under an earlier challenge before that one.
        """
        if self.spot_owed:
            return True
        if not terms.spot_every:
            return False
        last = self.seq - self.seq % terms.spot_every
        return self.spot_seq is None or self.spot_seq < last


def ledgered_log(verified: VerifiedEnrolment | VerifiedWindow) -> LedgeredLog:
    """Where the measurement log stands, to be compared with when this AK enrols again."""
    log = verified.log
    return LedgeredLog(reset_count=verified.quote.reset_count, length=len(log.records), head=log.head)
