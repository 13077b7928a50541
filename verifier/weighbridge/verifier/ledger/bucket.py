"""A bucket of object storage, as far as ledgers and contents need one: nothing is overwritten but by its tag.

:class:`Objects` is what a service offers, one request for each call; :class:`Bucket` asks again where a request has no
answer, and finds out what became of it. There are two ways to write. :meth:`Bucket.create` takes a name that nothing
has yet; :meth:`Bucket.replace` takes the place of the very object that was read, by its tag. So whoever was paused in
the middle of a write, and goes on when others have written, changes nothing of theirs.

What was written is durable when the service says so. A request without an answer may have been carried out, or may
still be: it counts as failed, and whoever reads the object again sees whether it was.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

__all__ = [
    "NOTE",
    "PRIVATE",
    "TILE",
    "Bucket",
    "Object",
    "Objects",
    "Patience",
    "Refused",
    "Served",
    "Unanswered",
    "require_conditions",
]

_Answer = TypeVar("_Answer")
# Requests at once: an append writes a handful of objects, each as slow as the way there and back.
_AT_ONCE: Final = 16
# Partial tiles are deleted once they are full, while somebody who comes late makes them again.
_ENSURE_TRIES: Final = 8
_PROBE: Final = "writer/probe"
_NO_TAG: Final = f'"{"0" * 32}"'


@dataclass(frozen=True, slots=True)
class Served:
    """What a public bucket says of an object over HTTP."""

    content_type: str
    cache_control: str


TILE: Final = Served("application/octet-stream", "public, max-age=31536000, immutable")
"""A tile or entry bundle: never another content under its name, partial ones too."""
NOTE: Final = Served("text/plain; charset=utf-8", "no-cache")
"""A checkpoint: asked for anew each time."""
PRIVATE: Final = Served("application/octet-stream", "no-store")
"""What is nobody else's business."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object as it was read: what is in it, and the tag by which it can be replaced."""

    data: bytes
    tag: str


class Refused(Exception):
    """The condition of a request does not hold: something else is there, or nothing is."""


class Unanswered(Exception):
    """The service has not said what became of a request: it was carried out, or was not, or will be."""


class Objects(Protocol):
    """One bucket of a service, below a prefix: each call is one request, tried once.

    All raise :class:`Unanswered`, and :class:`EnvironmentFault` for what another try does not change:
    ``STORAGE_FORBIDDEN``, ``STORAGE_ABSENT``, ``STORAGE_UNFIT``, ``STORAGE_UNREACHABLE`` or ``DISK_FULL``.
    """

    def place(self, name: str) -> str:
        """Where object ``name`` is, for people."""
        ...

    def get(self, name: str, *, limit: int, unless: str | None = None) -> Object | None:
        """Object ``name``, or ``None`` where there is none.

        Raises:
            Refused: it has the tag ``unless``.
            MalformedEvidence: ``TOO_LARGE``: it has more than ``limit`` bytes.
        """
        ...

    def create(self, name: str, data: bytes, served: Served) -> str:
        """Make object ``name``; returns its tag.

        Raises:
            Refused: there is one.
        """
        ...

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        """Put ``data`` in the place of the object ``name`` that has ``tag``; returns the new tag.

        Raises:
            Refused: it has another, or there is none.
        """
        ...

    def names(self, prefix: str, *, after: str, limit: int) -> Sequence[str]:
        """The first ``limit`` names that begin with ``prefix``, which ends with a slash, and sort behind ``after``."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete these objects, as far as they are there."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request without an answer is tried, and for how many seconds all in all."""

    tries: int = 5
    seconds: float = 20.0
    first_pause: float = 0.1
    longest_pause: float = 2.0


@final
class Bucket:
    """A bucket, asked as often as ``patience`` allows. May be used from several threads."""

    def __init__(
        self, objects: Objects, *, patience: Patience | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._objects = objects
        self._patience = patience or Patience()
        self._sleep = sleep
        self._threads = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="bucket")

    def place(self, name: str) -> str:
        """Where object ``name`` is, for people."""
        return self._objects.place(name)

    def get(self, name: str, *, limit: int, known: Object | None = None) -> Object | None:
        """Object ``name``, or ``None`` where there is none: ``known`` itself where that is what is there.

        Raises:
            MalformedEvidence: ``TOO_LARGE``.
            EnvironmentFault: as :class:`Objects`.
        """
        unless = None if known is None else known.tag
        try:
            return self._patiently(lambda: self._objects.get(name, limit=limit, unless=unless), name)
        except Refused:
            return known

    def create(self, name: str, data: bytes, served: Served) -> str | None:
        """Make object ``name``, whole and durably; its tag, or ``None`` where there is one already.

        Raises:
            EnvironmentFault: as :class:`Objects`. It may be there by now, or later.
        """
        return self._written(lambda: self._objects.create(name, data, served), name, data)

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str | None:
        """Put ``data`` in the place of what has ``tag``; its tag, or ``None`` where something else is by now.

        Raises:
            EnvironmentFault: as :class:`Objects`. It may have been replaced by now, or later.
        """
        return self._written(lambda: self._objects.replace(name, data, served, tag=tag), name, data)

    def ensure(self, name: str, data: bytes, served: Served) -> None:
        """See to it that object ``name`` is ``data``, durably, whoever made it.

        Raises:
            LedgerInconsistent: ``LEDGER_INCONSISTENT``: it is something else, which stays.
            EnvironmentFault: as :class:`Objects`.
        """
        for _ in range(_ENSURE_TRIES):
            if self.create(name, data, served) is not None:
                return
            found = self._patiently(lambda: self._found(name, limit=len(data)), name)
            if found is not None and found.data == data:
                return
            if found is not None:
                break
            # Somebody has deleted it since.
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "something else lies there that was never written by this ledger",
            where=self.place(name),
            hint="give each ledger a prefix of its own, and let nobody else write there",
        )

    def ensure_all(self, contents: Mapping[str, bytes], served: Served) -> None:
        """:meth:`ensure` several objects at once.

        Raises:
            LedgerInconsistent: as there.
            EnvironmentFault: as there; some of them may be there.
        """
        _ = self.at_once([partial(self.ensure, name, data, served) for name, data in contents.items()])

    def at_once(self, tasks: Sequence[Callable[[], _Answer]]) -> list[_Answer]:
        """What ``tasks`` return, carried out together, once all have ended; or raise what the first has that failed."""
        if len(tasks) == 1:
            return [tasks[0]()]
        running = [self._threads.submit(task) for task in tasks]
        _ = wait(running)
        return [future.result() for future in running]

    def names(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """The first ``limit`` names that begin with ``prefix``, which ends with a slash, and sort behind ``after``.

        Raises:
            EnvironmentFault: as :class:`Objects`.
        """
        return self._patiently(lambda: self._objects.names(prefix, after=after, limit=limit), prefix)

    def delete(self, names: Sequence[str]) -> None:
        """Delete these objects, as far as they are there.

        Raises:
            EnvironmentFault: as :class:`Objects`; some may be gone.
        """
        if names:
            self._patiently(lambda: self._objects.delete(names), names[0])

    def close(self) -> None:
        """Let go of what is held; closing twice is allowed."""
        self._threads.shutdown(wait=True)
        self._objects.close()

    def _written(self, write: Callable[[], str], name: str, data: bytes) -> str | None:
        unsure = False

        def once() -> str | None:
            nonlocal unsure
            try:
                return write()
            except Unanswered:
                unsure = True
                raise
            except Refused:
                # The try before, which had no answer, may have been what is in the way.
                found = self._found(name, limit=len(data)) if unsure else None
                return found.tag if found is not None and found.data == data else None

        return self._patiently(once, name)

    def _found(self, name: str, *, limit: int) -> Object | None:
        """What lies there; something else than any of ``limit`` bytes where it is longer."""
        try:
            return self._objects.get(name, limit=limit)
        except MalformedEvidence:
            return Object(bytes(limit + 1), "")

    def _patiently(self, request: Callable[[], _Answer], name: str) -> _Answer:
        reason = ""
        for _ in self._tries():
            try:
                return request()
            except Unanswered as error:
                reason = str(error)
        raise EnvironmentFault(
            Code.STORAGE_UNREACHABLE, f"object storage does not answer: {reason}", where=self.place(name)
        )

    def _tries(self) -> Generator[None]:
        """As many turns as there are tries, with pauses that grow and that no two processes share."""
        began = time.monotonic()
        for number in range(self._patience.tries):
            yield
            longest = min(self._patience.longest_pause, self._patience.first_pause * 2**number)
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - nothing rests on it being unforeseen
            if time.monotonic() - began + pause > self._patience.seconds:
                return
            if number + 1 < self._patience.tries:
                self._sleep(pause)


def require_conditions(bucket: Bucket) -> None:
    """Return if ``bucket`` keeps to the conditions of writes; else two verifiers would overwrite one another's ledger.

    Raises:
        EnvironmentFault: ``STORAGE_UNFIT``, or as :class:`.bucket.Objects`: what cannot be reached is found here, too.
    """
    name = f"{_PROBE}-{os.urandom(8).hex()}"
    tag = bucket.create(name, b"one", PRIVATE)
    try:
        if tag is None or bucket.create(name, b"two", PRIVATE) is not None:
            raise _unfit(bucket, "If-None-Match")
        if bucket.replace(name, b"three", PRIVATE, tag=_NO_TAG) is not None:
            raise _unfit(bucket, "If-Match")
        if bucket.replace(name, b"four", PRIVATE, tag=tag) is None:
            raise _unfit(bucket, "If-Match")
    finally:
        with contextlib.suppress(EnvironmentFault):
            bucket.delete([name])


def _unfit(bucket: Bucket, condition: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.STORAGE_UNFIT,
        f"object storage does not write on the condition that it is given: {condition}",
        where=bucket.place(_PROBE),
    )
