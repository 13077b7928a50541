"""Says when there is no room for windows, and for how long: in the log when it begins and ends, and in the losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.losses import Lost
from weighbridge.attester.report import Notice
from weighbridge.attester.wording import counted, lasting, moment, size_of

if TYPE_CHECKING:
    from weighbridge.attester.losses import Losses
    from weighbridge.attester.report import NoticeKind, Observer
    from weighbridge.attester.spool import FullReason, Spool
    from weighbridge.proto.window import Interval

__all__ = ["Room"]

# Told once when so much of the spool is taken, and again after so little was.
_FILLING, _EMPTIED = 0.8, 0.5


@final
class Room:
    """Of one session's spool.

    Args:
        spool: the session's.
        losses: where it is noted what was not sealed.
        observer: told.
        period_ns: a window's length, nanoseconds.
    """

    def __init__(self, spool: Spool, losses: Losses, observer: Observer, *, period_ns: int) -> None:
        self._spool = spool
        self._losses = losses
        self._observer = observer
        self._period_ns: Final = period_ns
        self._noted: Lost | None = None
        self._losing: Lost | None = None
        self._filling = False

    def note(self, full: FullReason, span: Interval) -> None:
        """For want of room nothing was sealed of ``span``. Writes to the disk."""
        lost = Lost(full, self._spool.session, span.wall_start_ns, span.wall_end_ns, 1)
        self._noted = self._losses.note(lost)

    def tell(self) -> None:
        """Say, after :meth:`note`, that nothing is sealed any more, if that was not so before."""
        before, lost = self._losing, self._noted
        self._losing = lost
        if lost is None or lost.windows > 1:
            return
        if before is not None:
            self._over(before)
        since = f"nothing is sealed from {moment(lost.from_ns)} on"
        if lost.reason == "disk-full":
            self._notice("disk-full", f"{since}: the disk of the spool is full. It goes on when there is space")
            return
        what = f"{counted(self._spool.backlog, 'window')} of this session wait in {size_of(self._spool.size)}"
        self._notice("spool-full", f"{since}: the spool is full (--spool-max). {what}; the oldest are kept")

    def found(self) -> None:
        """A window was sealed, or the session ends."""
        if self._losing is not None:
            self._over(self._losing)
            self._losing = None

    def tell_filling(self) -> None:
        """Say once that the spool will be full, and when."""
        spool = self._spool
        taken = spool.size / spool.allowance if spool.allowance > 0 else 1.0
        if self._filling:
            self._filling = taken > _EMPTIED
        elif taken > _FILLING and spool.backlog:
            self._filling = True
            left = (spool.allowance - spool.size) * spool.backlog // max(1, spool.size)
            self._notice(
                "spool-filling",
                f"{counted(spool.backlog, 'window')} wait for the verifier in {size_of(spool.size)} of "
                f"{size_of(spool.allowance)}; in {lasting(left * self._period_ns)} there is no more room, and nothing "
                "will be sealed",
            )

    def tell_late(self, seq: int) -> None:
        """Window ``seq`` is sealed, and there was no space for it after all."""
        self._notice("disk-full", f"window {seq} is sealed and waits in memory for space on the disk")

    def _over(self, lost: Lost) -> None:
        self._notice("lost", f"nothing was sealed from {lost}")

    def _notice(self, kind: NoticeKind, message: str) -> None:
        self._observer.notice(Notice(kind, message))
