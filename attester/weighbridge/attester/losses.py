"""What this host did not seal, or sealed and could not deliver: from when to when, and why. Kept beside the spool.

The windows themselves say it to a verifier: their intervals are signed, and between two of them is what nobody sealed.
This list is for the host's operator: it survives a restart, and is told by ``weighbridge-attester spool``.

It is bounded: the newest :data:`KEPT` spans, and of older ones how many there were. When the disk is full it is written
later; the log has said it then.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Self, cast, final, get_args

from weighbridge.attester.durable import read_file
from weighbridge.attester.wording import counted, moment
from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.spool_files import SpoolStorage
    from weighbridge.proto import strict

__all__ = ["KEPT", "Losses", "Lost", "LostReason"]

LostReason = Literal["spool-full", "disk-full", "no-session", "damaged", "refused"]
KEPT: Final = 256
_REASONS: Final = frozenset(get_args(LostReason))
_VERSION: Final = "weighbridge/v1/spool-losses"
_LIMIT: Final = 64 * 1024
_FIELDS: Final = 5
_UINT_MAX: Final = 2**63 - 1
_WORDS: Final[dict[LostReason, str]] = {
    "spool-full": "the spool was full",
    "disk-full": "the disk was full",
    "no-session": "there was no session with the verifier",
    "damaged": "the spool was damaged",
    "refused": "no verifier took them",
}


@dataclass(frozen=True, slots=True)
class Lost:
    """A span of time of which the verifier gets no window.

    ``session`` is the session's identifier (16 bytes), ``None`` where there was none; ``from_ns`` and ``until_ns`` are
    times of the host's wall clock, nanoseconds since 1970; ``windows`` is how many were not sealed, or not delivered,
    and 0 where nobody could count them.
    """

    reason: LostReason
    session: bytes | None
    from_ns: int
    until_ns: int
    windows: int

    def __str__(self) -> str:
        """One line for people."""
        many = f": {counted(self.windows, 'window')}" if self.windows else ""
        return f"{moment(self.from_ns)} to {moment(self.until_ns)}{many}; {_WORDS[self.reason]}"

    def document(self) -> strict.JsonObject:
        """As JSON."""
        return {
            "reason": self.reason,
            "session": None if self.session is None else self.session.hex(),
            "from": moment(self.from_ns),
            "until": moment(self.until_ns),
            "windows": self.windows,
        }


@final
class Losses:
    """The list at one path. Not safe to use from several threads at once.

    Attributes:
        spans: the newest, oldest first.
        forgotten: how many spans there were before them.
        forgotten_windows: how many windows those had.
    """

    def __init__(self, path: Path, storage: SpoolStorage) -> None:
        """Not for callers: use :meth:`open`."""
        self._path = path
        self._storage = storage
        self._written = True
        self.spans: tuple[Lost, ...] = ()
        self.forgotten = 0
        self.forgotten_windows = 0

    @classmethod
    def open(cls, path: Path, storage: SpoolStorage) -> Self:
        """The list at ``path``; an empty one where there is none.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
        """
        losses = cls(path, storage)
        if path.exists():
            losses._read()
        return losses

    def note(self, lost: Lost) -> Lost:
        """Add ``lost``, to the newest span where it goes on with it; return what that is now."""
        last = self.spans[-1] if self.spans else None
        if (
            last is not None
            and (last.reason, last.session) == (lost.reason, lost.session)
            and (last.until_ns == lost.from_ns)
        ):
            lost = replace(lost, from_ns=last.from_ns, windows=last.windows + lost.windows)
            self.spans = self.spans[:-1]
        self.spans += (lost,)
        for old in self.spans[:-KEPT]:
            self.forgotten += 1
            self.forgotten_windows += old.windows
        self.spans = self.spans[-KEPT:]
        self._written = False
        self.flush()
        return lost

    def flush(self) -> None:
        """Write what could not be written yet. A disk that still takes nothing is no reason to end anything."""
        if self._written:
            return
        with contextlib.suppress(EnvironmentFault):
            self._storage.write(self._path, self._encode())
            self._written = True

    def _encode(self) -> bytes:
        spans: list[cbor.CborValue] = [
            [lost.reason, lost.session, lost.from_ns, lost.until_ns, lost.windows] for lost in self.spans
        ]
        return cbor.encode({0: _VERSION, 1: spans, 2: self.forgotten, 3: self.forgotten_windows})

    def _read(self) -> None:
        try:
            data = read_file(self._path, limit=_LIMIT, what=self._path.name)
            fields = cbor.read_versioned(data, version=_VERSION, limit=_LIMIT, what=self._path.name)
            self.spans = tuple(_lost(item) for item in fields.array(1, limit=KEPT))
            self.forgotten, self.forgotten_windows = (fields.uint(key, limit=_UINT_MAX) for key in (2, 3))
            fields.end()
        except MalformedEvidence as error:
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                f"the list of losses is damaged: {error}",
                where=str(self._path),
                hint="it is for people alone: move it away",
            ) from error


def _lost(value: cbor.CborValue) -> Lost:
    items = cbor.read_array(value, where="losses", limit=_FIELDS, size=_FIELDS)
    fields = cbor.Reader(dict(enumerate(items)), "losses")
    reason = fields.text(0)
    if reason not in _REASONS:
        raise MalformedEvidence(Code.FIELD_RANGE, "unknown reason", where="losses", got=reason)
    lost = Lost(
        cast("LostReason", reason),
        fields.optional_octets(1, size=16),
        fields.uint(2, limit=_UINT_MAX),
        fields.uint(3, limit=_UINT_MAX),
        fields.uint(4, limit=_UINT_MAX),
    )
    fields.end()
    return lost
