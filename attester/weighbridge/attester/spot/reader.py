"""Answers spot challenges from the files of the model that was loaded.

Reading is bounded by the challenge, stays below the model's directory, and takes regular files only. What is read is
what lies there now: that is the question.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.attester.spot.directories import ModelDirectories
    from weighbridge.proto.spot import SpotAnswer, SpotChallenge, SpotRange

__all__ = ["SpotReader", "read_answer"]

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a FIFO of that name would keep us waiting for a writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@final
class SpotReader:
    """Finds the model that a challenge is about, and answers from its files."""

    __slots__ = ("_directories",)

    def __init__(self, directories: ModelDirectories) -> None:
        self._directories = directories

    def answer(self, challenge: SpotChallenge) -> SpotAnswer:
        """The answer. Blocks for as long as the disk takes.

        Raises:
            EnvironmentFault: ``WEIGHTS_UNREADABLE`` naming the path, or as :meth:`ModelDirectories.find`.
        """
        directory = self._directories.find(challenge.manifest)
        if directory is None:
            raise _unreadable(
                challenge.manifest.hex(), "no model with this manifest was loaded here", hint="load the declared model"
            )
        return read_answer(challenge, directory)


def read_answer(challenge: SpotChallenge, directory: Path) -> SpotAnswer:
    """The answer to ``challenge`` from the files below ``directory``.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE`` for a file that is not there, is too short, is no regular file, or
            leads out of the directory.
    """
    with contextlib.ExitStack() as stack:
        opened: dict[str, int] = {}
        for part in challenge.ranges:
            if part.path not in opened:
                opened[part.path] = handle = _open(directory, part.path)
                stack.callback(os.close, handle)
            # All are asked for before the first is waited for: a disk that is not warm reads them together.
            os.posix_fadvise(opened[part.path], part.offset, part.length, os.POSIX_FADV_WILLNEED)
        return challenge.answer(_read(opened[part.path], part) for part in challenge.ranges)


def _open(directory: Path, path: str) -> int:
    """A file below ``directory``; links are followed while they stay below it, as measuring does."""
    try:
        root = directory.resolve(strict=True)
        real = (root / path).resolve(strict=True)
        if not real.is_relative_to(root):
            raise _unreadable(path, "symbolic link out of the directory")
        *folders, name = real.relative_to(root).parts or (".",)
        # What was resolved has no link in it: should one appear meanwhile, opening fails.
        handle = os.open(root, _DIRECTORY)
        try:
            for folder in folders:
                following = os.open(folder, _DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = following
            file = os.open(name, _FILE, dir_fd=handle)
        finally:
            os.close(handle)
    # RuntimeError: how pathlib reports a loop of links before Python 3.13.
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _unreadable(path, reason) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _unreadable(path, "not a regular file")
    return file


def _read(file: int, part: SpotRange) -> bytes:
    pieces: list[bytes] = []
    done = 0
    while done < part.length:
        try:
            piece = os.pread(file, part.length - done, part.offset + done)
        except OSError as error:
            raise _unreadable(part.path, error.strerror or str(error)) from error
        if not piece:
            raise _unreadable(part.path, f"it ends before byte {part.offset + part.length}")
        pieces.append(piece)
        done += len(piece)
    return b"".join(pieces)


def _unreadable(path: str, reason: str, *, hint: str = "") -> EnvironmentFault:
    shown = path if path.isprintable() else ascii(path)
    return EnvironmentFault(Code.WEIGHTS_UNREADABLE, f"cannot answer a spot check: {reason}", where=shown, hint=hint)
