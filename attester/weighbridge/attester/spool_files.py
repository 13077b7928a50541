"""The files of a spool: their encodings, read strictly, and the operations that write them.

A file that is damaged, of another version or in another's place is ``STATE_CORRUPT``, with its path: a spool holds what
was promised to be kept, so nothing of it is guessed.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.attester.durable import read_file, write_fault, write_file
from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.spot import SpotChallenge

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "FILE_MAX",
    "SESSION_NAME",
    "DiskStorage",
    "Progress",
    "SpoolStorage",
    "SpooledWindow",
    "corrupt",
    "encode_header",
    "encode_progress",
    "encode_session",
    "encode_window",
    "read_progress",
    "read_session",
    "read_window",
    "window_files",
    "window_name",
]

FILE_MAX: Final = limits.EVIDENCE_MAX + 1024
SESSION_NAME: Final = re.compile(r"[0-9a-f]{32}")
_WINDOW_NAME: Final = re.compile(r"window-([0-9]{16})")

_SESSION: Final = "weighbridge/v1/spool-session"
_PROGRESS: Final = "weighbridge/v1/spool-progress"
_HEADER: Final = "weighbridge/v1/spool-header"
_WINDOW: Final = "weighbridge/v1/spool-window"
_SEQ_MAX: Final = 2**53


class SpoolStorage(Protocol):
    """The operations that change a spool, each done whole or not at all; tests break each of them."""

    def write(self, path: Path, data: bytes) -> None:
        """Replace ``path`` by ``data``, durably."""
        ...

    def remove(self, path: Path) -> None:
        """Delete ``path`` if it is there. Nobody relies on it being durable."""
        ...

    def space(self, path: Path) -> tuple[int, int]:
        """Size of the file system that holds ``path``, and what we may still write to it, bytes."""
        ...


@final
class DiskStorage:
    """:class:`SpoolStorage` on a local file system."""

    __slots__ = ()

    def write(self, path: Path, data: bytes) -> None:
        """See :meth:`SpoolStorage.write`."""
        write_file(path, data)

    def remove(self, path: Path) -> None:
        """See :meth:`SpoolStorage.remove`."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_fault(path, error) from error

    def space(self, path: Path) -> tuple[int, int]:
        """See :meth:`SpoolStorage.space`."""
        try:
            system = os.statvfs(path)
        except OSError as error:
            raise write_fault(path, error) from error
        return system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize


@dataclass(frozen=True, slots=True)
class Progress:
    """What the verifier has recorded: every window before ``seq``; ``prev`` is what window ``seq`` continues.

    ``challenge`` (32 bytes) is the newest one received, ``None`` once the session has failed. It is for window ``seq``,
    and so is ``spot``, which came with it.
    """

    seq: int
    prev: bytes
    challenge: bytes | None
    spot: SpotChallenge | None = None


@dataclass(frozen=True, slots=True)
class SpooledWindow:
    """A sealed window as it lies in the spool: its number, what the next one continues, and its evidence."""

    seq: int
    next_prev: bytes
    evidence: bytes


def encode_session(session: bytes, terms: bytes) -> bytes:
    """The file that names a session (16 bytes) and holds its signed terms."""
    return cbor.encode({0: _SESSION, 1: session, 2: terms})


def encode_header(seq: int, header: bytes) -> bytes:
    """The file of the header about to be sealed as window ``seq``."""
    return cbor.encode({0: _HEADER, 1: seq, 2: header})


def encode_progress(progress: Progress) -> bytes:
    """The file that says what the verifier has recorded."""
    spot = None if progress.spot is None else progress.spot.encode()
    return cbor.encode({0: _PROGRESS, 1: progress.seq, 2: progress.prev, 3: progress.challenge, 4: spot})


def encode_window(window: SpooledWindow) -> bytes:
    """The file of one sealed window, with a digest that shows damage."""
    return cbor.encode({0: _WINDOW, 1: window.seq, 2: window.next_prev, 3: sha256(window.evidence), 4: window.evidence})


def read_session(path: Path) -> tuple[bytes, bytes]:
    """The session's identifier, which the directory's name repeats, and its signed terms.

    Raises:
        EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
    """
    fields = _read(path, _SESSION)
    try:
        session, terms = fields.octets(1, size=16), fields.octets(2, limit=limits.TERMS_MAX)
        fields.end()
    except MalformedEvidence as error:
        raise corrupt(path, str(error)) from error
    if session.hex() != path.parent.name:
        raise corrupt(path, "it belongs to another session")
    return session, terms


def read_progress(path: Path) -> Progress:
    """What the verifier has recorded.

    Raises:
        EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
    """
    fields = _read(path, _PROGRESS)
    try:
        seq, prev = fields.uint(1, limit=_SEQ_MAX), fields.digest(2)
        challenge = fields.optional_octets(3, size=limits.NONCE_SIZE)
        spot = fields.optional_octets(4, limit=limits.SPOT_CHALLENGE_MAX)
        progress = Progress(seq, prev, challenge, None if spot is None else SpotChallenge.parse(spot))
        fields.end()
    except MalformedEvidence as error:
        raise corrupt(path, str(error)) from error
    return progress


def read_window(path: Path, seq: int) -> SpooledWindow:
    """Sealed window ``seq``.

    Raises:
        EnvironmentFault: ``STATE_CORRUPT`` or ``FILE_UNREADABLE``.
    """
    fields = _read(path, _WINDOW)
    try:
        window = SpooledWindow(seq=fields.uint(1, limit=_SEQ_MAX), next_prev=fields.digest(2), evidence=b"")
        digest, evidence = fields.digest(3), fields.octets(4)
        fields.end()
    except MalformedEvidence as error:
        raise corrupt(path, str(error)) from error
    if window.seq != seq or sha256(evidence) != digest:
        raise corrupt(path, "its content is not the window that was sealed")
    return SpooledWindow(window.seq, window.next_prev, evidence)


def window_name(seq: int) -> str:
    """The name of the file of window ``seq``."""
    return f"window-{seq:016d}"


def window_files(path: Path) -> list[tuple[int, int]]:
    """Number and size, in bytes, of the windows that lie in the directory ``path``, by number. Reads none of them.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
    """
    found: list[tuple[int, int]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                match = _WINDOW_NAME.fullmatch(entry.name)
                # Whoever looks at another process's spool may see a file go.
                with contextlib.suppress(FileNotFoundError):
                    if match is not None:
                        seq = int(match[1])  # lenient: the pattern admits sixteen ASCII digits only
                        found.append((seq, entry.stat().st_size))
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnvironmentFault(Code.FILE_UNREADABLE, f"cannot read the spool: {reason}", where=str(path)) from error
    return sorted(found)


def corrupt(path: Path, reason: str) -> EnvironmentFault:
    """The fault of a damaged or missing file."""
    return EnvironmentFault(
        Code.STATE_CORRUPT,
        f"the spool is damaged: {reason}",
        where=str(path),
        hint="check the disk; move the session's directory away to start without what it holds",
    )


def _read(path: Path, version: str) -> cbor.Reader:
    try:
        data = read_file(path, limit=FILE_MAX, what=path.name)
        return cbor.read_versioned(data, version=version, limit=FILE_MAX, what=path.name)
    except MalformedEvidence as error:
        raise corrupt(path, str(error)) from error
