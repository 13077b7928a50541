"""Who waits for which sessions to change, within one event loop.

A change by this process is told at once (:meth:`Watches.touch`); one by another process is found by asking the store
once a second (:meth:`Watches.poll`). A watch holds which of its sessions may have changed, and not how: whoever reads
slowly finds the newest state and no queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence

    from weighbridge.verifier.results import Version
    from weighbridge.verifier.standings import Standings

    Ask = Callable[[Callable[[], Mapping[bytes, Version]]], Awaitable[Mapping[bytes, Version]]]

__all__ = ["Watch", "Watches"]

_POLL_S: Final = 1.0


@final
class Watch:
    """One stream's: which of its sessions may stand otherwise than when it looked last. All of them, at first."""

    __slots__ = ("_changed", "_event", "_fault", "sessions")

    def __init__(self, sessions: Sequence[bytes]) -> None:
        self.sessions: Final = tuple(sessions)
        self._changed: set[bytes] = set(sessions)
        self._event = asyncio.Event()
        self._fault: EnvironmentFault | None = None

    async def wait(self, seconds: float) -> frozenset[bytes]:
        """The sessions that may have changed since the last call; none, when nothing has for ``seconds``.

        Raises:
            EnvironmentFault: nobody can say what has changed any more.
        """
        if not self._changed and self._fault is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._event.wait()
        self._event.clear()
        if self._fault is not None:
            raise self._fault
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def touch(self, session: bytes) -> None:
        """``session``, one of its own, may have changed."""
        self._changed.add(session)
        self._event.set()

    def fail(self, fault: EnvironmentFault) -> None:
        """Nobody can say what has changed any more."""
        self._fault = fault
        self._event.set()


@final
class Watches:
    """All watches of one event loop.

    Args:
        standings: of the verifier.
        ask: calls a function that waits for the disk, in a thread that may.
    """

    __slots__ = ("_ask", "_by_session", "_polled", "_standings")

    def __init__(self, standings: Standings, ask: Ask) -> None:
        self._standings = standings
        self._ask = ask
        self._by_session: dict[bytes, set[Watch]] = {}
        self._polled = time.monotonic()

    @contextlib.contextmanager
    def watch(self, sessions: Sequence[bytes]) -> Generator[Watch]:
        """Watch ``sessions`` while the block lasts."""
        watch = Watch(sessions)
        for session in watch.sessions:
            self._by_session.setdefault(session, set()).add(watch)
        try:
            yield watch
        finally:
            for session in watch.sessions:
                watching = self._by_session[session]
                watching.discard(watch)
                if not watching:
                    del self._by_session[session]

    def touch(self, sessions: Iterable[bytes]) -> None:
        """These sessions may have changed."""
        for session in sessions:
            for watch in self._by_session.get(session, ()):
                watch.touch(session)

    @property
    def age(self) -> float:
        """For how many seconds changes by other processes may have gone unnoticed."""
        return time.monotonic() - self._polled

    async def poll(self) -> None:
        """Look for changes by other processes once a second, for as long as the task runs."""
        seen: Mapping[bytes, Version] = {}
        while True:
            await asyncio.sleep(_POLL_S)
            sessions = tuple(self._by_session)
            began = time.monotonic()
            try:
                found = await self._ask(partial(self._standings.versions, sessions))
            except EnvironmentFault as fault:
                for watch in {watch for watching in self._by_session.values() for watch in watching}:
                    watch.fail(fault)
                continue
            self._polled = began
            self.touch(session for session in sessions if found.get(session) != seen.get(session))
            seen = found
