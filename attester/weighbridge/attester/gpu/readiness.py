"""Has the GPUs take work once a verifier has affirmed a window of theirs: sets the driver's ready state, if asked to.

In confidential computing a driver keeps work away from its GPUs until somebody sets the ready state: they are to be
attested first, before they are shown a weight or a prompt. Whoever wants that to rest on the verifier's word starts the
attester with ``--set-ready``, and a server that measures its model first and uses the GPUs when they take work. It is
set once, and never taken back: what is on the GPUs by then is not kept from them any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from weighbridge.attester.report import Notice
from weighbridge.proto.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.attester.report import Observer, WindowReport

__all__ = ["ReadyWhenAffirmed"]


@final
class ReadyWhenAffirmed:
    """An :class:`~weighbridge.attester.report.Observer` that passes everything on to ``observer``.

    Args:
        observer: is told what happens, and what became of this.
        accept_work: sets the ready state; may block. If it fails, the next affirmed window tries it again.
    """

    def __init__(self, observer: Observer, accept_work: Callable[[], None]) -> None:
        self._observer = observer
        self._accept_work = accept_work
        self._task: asyncio.Task[bool] | None = None

    def window(self, report: WindowReport) -> None:
        """See :meth:`Observer.window`."""
        self._observer.window(report)
        task = self._task
        failed = task is not None and task.done() and not task.cancelled() and not task.result()
        if report.status == "affirmed" and (task is None or failed):
            self._task = asyncio.get_running_loop().create_task(self._set())

    def notice(self, notice: Notice) -> None:
        """See :meth:`Observer.notice`."""
        self._observer.notice(notice)

    async def _set(self) -> bool:
        try:
            await asyncio.to_thread(self._accept_work)
        except EnvironmentFault as fault:
            self._observer.notice(Notice("gpus", f"the ready state cannot be set: {fault}"))
            return False
        self._observer.notice(Notice("gpus", "the GPUs take work: their ready state was set"))
        return True
