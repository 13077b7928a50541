"""What a session does with the verifier's answers: the token's file, the counts, and the word to whoever watches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, final

from weighbridge.attester.refusal import Throttled
from weighbridge.attester.report import Notice, WindowReport
from weighbridge.attester.wording import counted
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.attester.client import Answer
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.refusal import VerdictNotice
    from weighbridge.attester.report import NoticeKind, Observer
    from weighbridge.attester.spool import Spool
    from weighbridge.attester.telemetry.power_seen import PowerSeen
    from weighbridge.attester.token_file import TokenFile
    from weighbridge.attester.windows import WindowLoop
    from weighbridge.proto.workload import WorkSummary

__all__ = ["Answering"]


@final
class Answering:
    """Told by couriers what came over the line.

    Args:
        token: where the newest token is kept.
        offload: for the disk.
        observer: told what happens.

    Attributes:
        counts: answers by outcome, of windows of this run.
        work: what windows were about, by number, until they are reported.
        power: likewise.
        windows: of this run; ``None`` before it has a session.
    """

    def __init__(self, token: TokenFile, offload: Offload, observer: Observer) -> None:
        self._token = token
        self._offload = offload
        self._observer = observer
        self.counts: Counter[str] = Counter()
        self.work: dict[int, WorkSummary] = {}
        self.power: dict[int, tuple[PowerSeen, ...]] = {}
        self.windows: WindowLoop | None = None

    async def answered(self, spool: Spool, notice: VerdictNotice, answer: Answer) -> None:
        """The verdict on a window of ``spool`` came and is recorded."""
        expires = None
        if notice.outcome == "affirmed" and answer.token is not None:
            expires = await self._put(answer.token)
        elif notice.outcome == "denied":
            await self._offload(self._token.remove)
        if self.windows is not None:
            self.windows.heard(notice.received)
            self.counts[notice.outcome] += 1
        report = WindowReport(
            session=spool.session,
            seq=notice.seq,
            status=notice.outcome,
            work=self.work.pop(notice.seq, None),
            denials=notice.denials,
            token_expires=expires,
            backlog=spool.backlog,
            verdict=notice.document,
            power=self.power.pop(notice.seq, ()),
        )
        self._observer.window(report)

    def line(self, fault: EnvironmentFault | None) -> None:
        """The line was cut, or is of use again."""
        if fault is None:
            self._notice("line-restored", "the session is resumed")
        elif isinstance(fault, Throttled):
            self._notice("throttled", str(fault))
        else:
            self._notice("line-cut", str(fault))

    def unheard(self, count: int) -> None:
        """So many windows are recorded, and the answers to them were lost."""
        what = "the answer to 1 window was" if count == 1 else f"the answers to {counted(count, 'window')} were"
        self._notice("unheard", f"{what} lost with the line; the verifier has recorded what it judged")

    async def _put(self, token: str) -> datetime | None:
        """When it expires; ``None`` where the disk has no space for it. The one before goes when its time is over."""
        try:
            return await self._offload(lambda: self._token.put(token))
        except EnvironmentFault as fault:
            if fault.code is not Code.DISK_FULL:
                raise
            self._notice("token", f"the newest token is not in its file: {fault}")
            return None

    def _notice(self, kind: NoticeKind, message: str) -> None:
        self._observer.notice(Notice(kind, message))
