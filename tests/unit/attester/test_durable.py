"""Files that are there in whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from weighbridge.attester.durable import make_directory, read_file, write_fault, write_file
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence


def test_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"one")
    write_file(path, b"two", mode=0o644)
    assert read_file(path, limit=3, what="file") == b"two"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(EnvironmentFault) as caught:
        write_file(path, b"new")
    assert (caught.value.code, path.read_bytes()) == (Code.DISK_FULL, b"old")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_faults_name_the_path() -> None:
    fault = write_fault(Path("/x"), OSError(13, "Permission denied"))
    assert (fault.code, fault.where) == (Code.FILE_UNWRITABLE, "/x")
    assert write_fault(Path("/x"), OSError(122, "Disk quota exceeded")).code == Code.DISK_FULL
    assert "odd" in write_fault(Path("/x"), OSError("odd")).message


def test_directories_are_made_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_directory(path)
    make_directory(path)
    assert path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault) as caught:
        make_directory(tmp_path / "file" / "c")
    assert caught.value.code == Code.FILE_UNWRITABLE


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    with pytest.raises(MalformedEvidence) as caught:
        read_file(tmp_path / "file", limit=3, what="file")
    assert caught.value.code == Code.TOO_LARGE
    with pytest.raises(EnvironmentFault) as fault:
        read_file(tmp_path / "none", limit=3, what="file")
    assert fault.value.code == Code.FILE_UNREADABLE
