"""Many files are synced at the same time, by threads that are kept: none is given up, and no failure is lost."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from weighbridge.verifier.files import PosixFiles

# More than there are threads.
_CONTENTS = 12


@pytest.mark.parametrize("failing", [0, 1, _CONTENTS], ids=["first", "beside it", "directory"])
def test_a_failed_sync_is_told_once_all_others_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    bad = tmp_path if failing == _CONTENTS else tmp_path / str(failing)
    synced: set[int] = set()
    sync = os.fsync

    def slow(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if inode == bad.stat().st_ino:
            raise OSError(errno.EIO, "broken on purpose")
        time.sleep(0.01)
        sync(descriptor)
        synced.add(inode)

    monkeypatch.setattr(os, "fsync", slow)
    contents = {tmp_path / str(number): b"%d" % number for number in range(_CONTENTS)}
    with pytest.raises(OSError, match="broken on purpose"):
        PosixFiles().write_all(contents, mode=0o600, directories=[tmp_path])
    assert synced == {path.stat().st_ino for path in (*contents, tmp_path) if path != bad}


def test_threads_are_kept_from_one_write_to_the_next_and_end_with_the_object(tmp_path: Path) -> None:
    before, files = set(threading.enumerate()), PosixFiles()
    contents = {tmp_path / str(number): b"" for number in range(_CONTENTS)}
    for _ in range(3):
        files.write_all(contents, mode=0o600)
    kept = set(threading.enumerate()) - before
    assert 0 < len(kept) < _CONTENTS
    del files
    for thread in kept:
        thread.join(10)
    assert not any(thread.is_alive() for thread in kept)
