"""What a session tells whoever watches it, window by window. For people and scripts; nothing here is evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.attester.losses import Lost
    from weighbridge.attester.refusal import DenialNotice
    from weighbridge.attester.telemetry.power_seen import PowerSeen
    from weighbridge.proto import strict
    from weighbridge.proto.workload import WorkSummary

__all__ = ["Notice", "NoticeKind", "Observer", "SessionSummary", "WindowReport", "WindowStatus"]

WindowStatus = Literal["affirmed", "held", "indeterminate", "denied", "spooled", "lost"]
NoticeKind = Literal[
    "emulated",
    "delivering",
    "delivered",
    "set-aside",
    "no-session",
    "waiting",
    "loaded",
    "enrolled",
    "line-cut",
    "line-restored",
    "throttled",
    "unheard",
    "spool-filling",
    "spool-full",
    "disk-full",
    "lost",
    "token",
    "work-late",
    "spot-failed",
    "boot-logs",
    "gpus",
    "clock",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowReport:
    """One window's fate. A window that was ``spooled`` is reported again when its verdict arrives.

    ``indeterminate`` says that its samples do not suffice, so that nothing is said of it: no gate opens, and the
    session goes on. ``lost`` says that there was no room for the window: it was never sealed, and has no number of
    its own. ``work`` and ``power`` are known for the newest windows of this run only; ``verdict`` is the verifier's
    document.
    """

    session: bytes
    seq: int
    status: WindowStatus
    work: WorkSummary | None
    denials: tuple[DenialNotice, ...]
    token_expires: datetime | None
    backlog: int
    verdict: strict.JsonObject | None
    power: tuple[PowerSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth a line that is not a window."""

    kind: NoticeKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """How a session ended in good order. ``verifier`` is the verifier's own summary, ``None`` when it had no line.

    ``lost`` is how many windows there was no room for, ``losses`` from when to when.
    """

    session: bytes
    sealed: int
    affirmed: int
    held: int
    indeterminate: int
    lost: int
    backlog: int
    verifier: strict.JsonObject | None
    losses: tuple[Lost, ...] = ()


class Observer(Protocol):
    """Watches a session. Called in the event loop; must not block."""

    def window(self, report: WindowReport) -> None:
        """A window's fate became known."""
        ...

    def notice(self, notice: Notice) -> None:
        """Something else happened."""
        ...
