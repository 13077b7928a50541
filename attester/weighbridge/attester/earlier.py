"""The sessions of earlier runs: what they left in the spool is delivered before a new session begins.

The old session ends at the verifier as interrupted when the new one is enrolled. Between the last window that was
sealed and the first of the new session there is nobody who could seal: no session, no challenge, no key. That is said
when it ends, and kept among the losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from weighbridge.attester.losses import Lost
from weighbridge.attester.spool_files import window_files
from weighbridge.attester.spool_view import span_of, survey, view_of
from weighbridge.attester.wording import counted, moment, size_of
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weighbridge.attester.courier import Courier
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.reaching import Reaching
    from weighbridge.attester.report import NoticeKind
    from weighbridge.attester.spool import Spool, Spools

__all__ = ["EarlierSessions"]


@final
class EarlierSessions:
    """Delivers what earlier runs left.

    Args:
        spools: where it lies.
        courier: makes one for a spool.
        offload: for the disk.
        reaching: asks the verifier, again where that helps.
        notice: told what happens.
    """

    def __init__(
        self,
        spools: Spools,
        *,
        courier: Callable[[Spool], Courier],
        offload: Offload,
        reaching: Reaching,
        notice: Callable[[NoticeKind, str], None],
    ) -> None:
        self._spools = spools
        self._courier = courier
        self._offload = offload
        self._reaching = reaching
        self._notice = notice
        self._sealed_until: int | None = None

    @property
    def spools(self) -> Spools:
        """Where it lies."""
        return self._spools

    async def deliver(self) -> None:
        """Deliver each, or set it aside where nobody can or will take it.

        Raises:
            EnvironmentFault: the verifier cannot be reached, or this host's disk is at fault: nothing is lost.
        """
        views = await self._offload(lambda: survey(self._spools.root))
        aside = sum(view.size for view in views if view.state != "waiting")
        if aside:
            self._notice(
                "set-aside",
                f"windows that were set aside earlier take {size_of(aside)} of the spool: "
                "`weighbridge-attester spool` shows them; remove them when nobody needs them",
            )
        for path in await self._offload(self._spools.paths):
            await self._deliver(path)

    async def begin(self, wall_ns: int) -> None:
        """A session begins at ``wall_ns``, by the host's clock: from now on windows are sealed again."""
        since, self._sealed_until = self._sealed_until, None
        if since is None:
            return
        lost = Lost("no-session", None, since, max(since, wall_ns), 0)
        await self._offload(lambda: self._spools.losses.note(lost))
        self._notice("lost", f"nothing was sealed from {lost}")

    async def _deliver(self, path: Path) -> None:
        try:
            spool = await self._offload(lambda: self._open(path))
        except EnvironmentFault as fault:
            if fault.code is not Code.STATE_CORRUPT:
                raise
            await self._set_aside(path, "damaged", fault)
            return
        if spool.backlog:
            session = f"session {spool.session.hex()}"
            self._notice("delivering", f"{counted(spool.backlog, 'window')} of {session}")
            try:
                await self._reaching(self._courier(spool).deliver_once)
            except EnvironmentFault as fault:
                if fault.code is not Code.STATE_CORRUPT:
                    self._notice(
                        "no-session",
                        f"{counted(spool.backlog, 'window')} of {session} wait for the verifier; until there is a new "
                        f"session nothing is sealed: nothing was since {moment(self._sealed_until or 0)}",
                    )
                    raise
                await self._offload(spool.save)
                await self._set_aside(path, "damaged", fault)
                return
            except WeighbridgeError as error:
                # Denied, unknown or unreadable there: that ends the old session and says nothing of the new one.
                if spool.backlog:
                    await self._offload(spool.save)
                    await self._set_aside(path, "refused", error)
                    return
                self._notice("delivered", f"{session}: {error}")
            else:
                self._notice("delivered", session)
        await self._offload(lambda: self._spools.remove(spool))

    def _open(self, path: Path) -> Spool:
        _, until = span_of(path, window_files(path))
        self._sealed_until = max(self._sealed_until or 0, until)
        return self._spools.open(path)

    async def _set_aside(self, path: Path, why: Literal["refused", "damaged"], error: WeighbridgeError) -> None:
        lost, place = await self._offload(lambda: self._put_aside(path, why))
        self._notice("set-aside", f"session {path.name}: {error}; kept in {place}")
        self._notice("lost", f"the verifier gets no window from {lost}")

    def _put_aside(self, path: Path, why: Literal["refused", "damaged"]) -> tuple[Lost, Path]:
        view = view_of(path)
        written = span_of(path, ())
        start, end = view.from_ns or written[0], view.until_ns or written[1]
        session = strict.hex_decode(path.name, what="session")
        lost = self._spools.losses.note(Lost(why, session, start, end, view.windows))
        return lost, self._spools.set_aside(path, why)
