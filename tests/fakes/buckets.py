"""Buckets of object storage in memory, and what can happen to a request on its way."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

from weighbridge.proto import tlog
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.ledger import Ledger
from weighbridge.verifier.ledger.bucket import Bucket, Object, Objects, Patience, Refused, Served, Unanswered
from weighbridge.verifier.ledger.published import CHECKPOINT

_Answer = TypeVar("_Answer")
ONCE = Patience(tries=1)


class MemoryObjects:
    """A bucket as S3 has it: each request is carried out at once and whole, tags are of what is in an object."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.served: dict[str, Served] = {}
        self.requests: list[str] = []
        self._turn = threading.Lock()

    def place(self, name: str) -> str:
        return f"memory://bucket/{name}"

    def get(self, name: str, *, limit: int, unless: str | None = None) -> Object | None:
        with self._turn:
            self.requests.append(f"get {name}")
            if (data := self.objects.get(name)) is None:
                return None
            if _tag(data) == unless:
                raise Refused
        if len(data) > limit:
            raise MalformedEvidence(Code.TOO_LARGE, "too large", where=name)
        return Object(data, _tag(data))

    def create(self, name: str, data: bytes, served: Served) -> str:
        with self._turn:
            self.requests.append(f"create {name}")
            if name in self.objects:
                raise Refused
            self.objects[name], self.served[name] = data, served
        return _tag(data)

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        with self._turn:
            self.requests.append(f"replace {name}")
            if name not in self.objects or _tag(self.objects[name]) != tag:
                raise Refused
            self.objects[name], self.served[name] = data, served
        return _tag(data)

    def names(self, prefix: str, *, after: str, limit: int) -> Sequence[str]:
        with self._turn:
            self.requests.append(f"names {prefix}")
            found = sorted(name for name in self.objects if name.startswith(prefix))
        at = bisect_right(found, after)
        return found[at : at + limit]

    def delete(self, names: Sequence[str]) -> None:
        with self._turn:
            self.requests.append("delete")
            for name in names:
                self.objects.pop(name, None)

    def close(self) -> None:
        pass


class Lost(Enum):
    """What becomes of a request that has no answer."""

    NEVER = "never carried out"
    AT_ONCE = "carried out, the answer lost"
    LATE = "carried out when :meth:`FaultyObjects.arrive` is called"


class FaultyObjects:
    """A bucket whose writing request number ``at`` (counted from 1) has no answer; later ones have one again.

    ``error`` is what the writer sees of it. Where it is another one, it is the writer's end: no later request is
    carried out.
    """

    def __init__(
        self, inner: Objects, *, at: int = 0, how: Lost = Lost.NEVER, error: type[Exception] = Unanswered
    ) -> None:
        self._inner = inner
        self._error = error
        self.how = how
        self.at = at
        self.count = 0
        self.late: list[Callable[[], object]] = []
        self._counting = threading.Lock()

    def arm(self, at: int) -> None:
        """Count from here, and lose request ``at``."""
        self.count, self.at = 0, at

    def arrive(self) -> list[bool]:
        """Whether each of the requests that were under way is carried out now, or refused."""
        return [_carried_out(request) for request in self.late]

    def _write(self, request: Callable[[], _Answer]) -> _Answer:
        with self._counting:
            self.count += 1
            lost = self.count == self.at
            ended = self._error is not Unanswered and 0 < self.at < self.count
        if ended:
            raise self._error("it has ended")
        if not lost:
            return request()
        if self.how is Lost.AT_ONCE:
            _ = _carried_out(request)
        elif self.how is Lost.LATE:
            self.late.append(request)
        raise self._error("lost on purpose")

    def place(self, name: str) -> str:
        return self._inner.place(name)

    def get(self, name: str, *, limit: int, unless: str | None = None) -> Object | None:
        return self._inner.get(name, limit=limit, unless=unless)

    def create(self, name: str, data: bytes, served: Served) -> str:
        return self._write(lambda: self._inner.create(name, data, served))

    def replace(self, name: str, data: bytes, served: Served, *, tag: str) -> str:
        return self._write(lambda: self._inner.replace(name, data, served, tag=tag))

    def names(self, prefix: str, *, after: str, limit: int) -> Sequence[str]:
        return self._inner.names(prefix, after=after, limit=limit)

    def delete(self, names: Sequence[str]) -> None:
        self._inner.delete(names)

    def close(self) -> None:
        self._inner.close()


def shown(ledger: Ledger) -> int:
    """How many entries readers see, once what was committed last is published, or that has failed."""
    data = ledger._storage.read(CHECKPOINT)
    assert data is not None
    return tlog.open_checkpoint(data, ledger.key, origin=ledger.key.name).size


def bucket(objects: Objects, *, patience: Patience = ONCE) -> Bucket:
    """A bucket that does not wait."""
    return Bucket(objects, patience=patience, sleep=lambda _: None)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _carried_out(request: Callable[[], object]) -> bool:
    try:
        _ = request()
    except Refused:
        return False
    return True
