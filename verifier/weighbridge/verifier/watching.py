"""Who waits for which sessions to change, within one event loop.

A change by this process is told at once (:meth:`Watches.touch`); one by another process is found by asking the store
once a second (:meth:`Watches.poll`), and so are the sessions of a model that is watched (:mod:`.model_sessions`). A
watch holds which of its sessions may have changed, and not how: whoever reads slowly finds the newest state and no
queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

from weighbridge.proto.errors import EnvironmentFault
from weighbridge.verifier.model_sessions import ModelSessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping

    from weighbridge.verifier.results import Version
    from weighbridge.verifier.standings import Standings
    from weighbridge.verifier.told import Model

__all__ = ["Ask", "Watch", "Watches"]

_T = TypeVar("_T")

_POLL_S: Final = 1.0


class Ask(Protocol):
    """Calls a function that waits for the disk, in a thread that may; one at a time."""

    def __call__(self, call: Callable[[], _T], /) -> Awaitable[_T]:
        """What ``call`` returns."""
        ...


@final
class Watch:
    """One stream's: which of its sessions may stand otherwise than when it looked last. All of them, at first."""

    __slots__ = ("_changed", "_event", "_fault", "grows", "over", "sessions")

    def __init__(self, sessions: Iterable[bytes], *, grows: bool = False) -> None:
        self.sessions: Final = set(sessions)
        self.grows: Final = grows
        # Of what may come again, what it was told the end of.
        self.over: set[bytes] = set()
        self._changed: set[bytes] = set(self.sessions)
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

    def wake(self) -> None:
        """Let whoever waits look up."""
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

    __slots__ = ("_ask", "_by_model", "_by_session", "_finding", "_found_at", "_models", "_polled", "_standings")

    def __init__(self, standings: Standings, ask: Ask) -> None:
        self._standings = standings
        self._ask = ask
        self._models = ModelSessions(standings)
        self._by_session: dict[bytes, set[Watch]] = {}
        self._by_model: dict[Model, set[Watch]] = {}
        self._polled = time.monotonic()
        self._finding = asyncio.Lock()
        self._found_at = -_POLL_S

    @contextlib.contextmanager
    def watch(self, sessions: Iterable[bytes], *, grows: bool = False) -> Generator[Watch]:
        """Watch ``sessions`` while the block lasts; with ``grows``, others may come to them."""
        watch = Watch(sessions, grows=grows)
        for session in watch.sessions:
            self._by_session.setdefault(session, set()).add(watch)
        try:
            yield watch
        finally:
            for session in [*watch.sessions]:
                self.drop(watch, session)

    @contextlib.contextmanager
    def watch_model(self, model: Model) -> Generator[Watch]:
        """Watch the sessions of ``model`` while the block lasts: those found by now, and later ones as they are."""
        with self.watch(self._models.of(model), grows=True) as watch:
            self._by_model.setdefault(model, set()).add(watch)
            try:
                yield watch
            finally:
                self._by_model[model].discard(watch)
                if not self._by_model[model]:
                    del self._by_model[model]

    async def find_lately(self) -> None:
        """Have found what there was a second ago: whoever opens a watch of a model shares one look with all others.

        Raises:
            EnvironmentFault: as :meth:`find`.
        """
        async with self._finding:
            if time.monotonic() - self._found_at >= _POLL_S:
                await self.find()

    async def find(self) -> None:
        """Find the sessions of models, where any is watched or is about to be.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        began = time.monotonic()
        found = await self._ask(self._models.find)
        self._found_at = began
        for model, sessions in found.items():
            for watch in self._by_model.get(model, ()):
                # What is not found any more does not come again.
                watch.over &= sessions
                for session in sessions - watch.sessions - watch.over:
                    watch.sessions.add(session)
                    self._by_session.setdefault(session, set()).add(watch)
                    watch.touch(session)

    def drop(self, watch: Watch, session: bytes) -> None:
        """``watch`` is not told of ``session`` any more, also where its model is watched."""
        watch.sessions.discard(session)
        if watch.grows:
            watch.over.add(session)
        watching = self._by_session.get(session, set())
        watching.discard(watch)
        if not watching:
            self._by_session.pop(session, None)

    def touch(self, sessions: Iterable[bytes]) -> None:
        """These sessions may have changed."""
        for session in sessions:
            for watch in self._by_session.get(session, ()):
                watch.touch(session)

    def touch_all(self) -> None:
        """Wake whoever waits."""
        for watch in self._all():
            watch.wake()

    def _all(self) -> set[Watch]:
        every = (*self._by_session.values(), *self._by_model.values())
        return {watch for watching in every for watch in watching}

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
                if self._by_model:
                    await self.find()
            except EnvironmentFault as fault:
                for watch in self._all():
                    watch.fail(fault)
                continue
            self._polled = began
            self.touch(session for session in sessions if found.get(session) != seen.get(session))
            seen = found
