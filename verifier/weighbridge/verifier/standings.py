"""How sessions stand, for whoever is told: read from the store, by any thread; and who is told that something changed.

Reading waits for nobody: not for the thread that judges, and not for the store's write lock. What is read is what was
durable. One thing is known before: that a session ends, or a fresh window of it did not open. If the disk then fails,
the store would go on saying that its gate is open until the last result expires; so it is withheld here first.

Between processes nothing is told: whoever watches asks for :meth:`Standings.versions` now and then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, final

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from weighbridge.verifier.results import Begun, Version
    from weighbridge.verifier.standing import Shut, Standing
    from weighbridge.verifier.store import Store

__all__ = ["Kept", "Listener", "Standings"]

Listener = Callable[[frozenset[bytes]], None]
"""Told which sessions may stand otherwise now, in the thread that changed them: it returns at once and never fails."""


class Kept(NamedTuple):
    """Why a gate is shut before the store says so, and the number of the window that the session waited for then.

    The window that is to blame may have an older number: a fork has.
    """

    shut: Shut
    awaited: int


@final
class Standings:
    """Reads how sessions stand; tells listeners of changes by this process. Used from several threads."""

    __slots__ = ("_listeners", "_lock", "_store", "_withheld")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._withheld: dict[bytes, Kept] = {}

    def of(self, session: bytes) -> Standing:
        """How ``session`` stands.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``.
            EnvironmentFault: the store cannot be read.
        """
        # Before the row is read: what is withheld is given back only after the row says so itself.
        withheld = self._withheld.get(session)
        with self._store.reading() as tx:
            standing = tx.results.standing(session)
        if standing is None:
            raise unknown(session)
        if withheld is None:
            return standing
        affirmed = standing.affirmed
        if affirmed is not None and affirmed.claims.seq >= withheld.awaited:
            # That window came again, to another process, which knows better.
            with self._lock:
                # Unless it was withheld anew meanwhile.
                if self._withheld.get(session) is withheld:
                    del self._withheld[session]
            return standing
        return replace(standing, affirmed=None, shut=withheld.shut)

    def versions(self, sessions: Sequence[bytes]) -> Mapping[bytes, Version]:
        """For each session that there is, what changes when its standing does, whichever process has changed it.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        with self._store.reading() as tx:
            return tx.results.versions(sessions)

    def begun(self, *, after: int, at_most: int) -> Sequence[Begun]:
        """As :meth:`.Results.begun`.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        with self._store.reading() as tx:
            return tx.results.begun(after=after, at_most=at_most)

    @contextlib.contextmanager
    def told(self, listener: Listener) -> Generator[None]:
        """Tell ``listener`` of every change by this process while the block lasts."""
        with self._lock:
            self._listeners = [*self._listeners, listener]
        try:
            yield
        finally:
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not listener]

    @contextlib.contextmanager
    def withholding(self, shut: Mapping[bytes, Kept]) -> Generator[None]:
        """Let these sessions be shut from now on, until :meth:`changed`; while the block tells the store of it.

        If the block fails, listeners are told.
        """
        with self._lock:
            self._withheld.update(shut)
        try:
            yield
        except BaseException:
            self._tell(shut)
            raise

    def changed(self, sessions: Iterable[bytes]) -> None:
        """The store knows, durably, how these sessions stand."""
        named = frozenset(sessions)
        with self._lock:
            for session in named:
                self._withheld.pop(session, None)
        self._tell(named)

    def _tell(self, sessions: Iterable[bytes]) -> None:
        if named := frozenset(sessions):
            for listener in self._listeners:
                listener(named)


def unknown(session: bytes) -> NotAuthentic:
    """The refusal of a session that there is not, or not for whoever asks."""
    return NotAuthentic(Code.SESSION_UNKNOWN, "no such session", where="session", got=session)
