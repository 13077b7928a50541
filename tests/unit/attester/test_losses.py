"""The list of what was not sealed or not delivered: bounded, kept, and shown."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.cli import main
from weighbridge.attester.durable import write_fault
from weighbridge.attester.losses import KEPT, Losses, Lost
from weighbridge.attester.sealing import SealedWindow
from weighbridge.attester.spool import Spools
from weighbridge.attester.spool_files import DiskStorage
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode

SESSION = bytes(range(16))
NOON = 1_780_315_200_000_000_000
SECOND = 1_000_000_000


def lost(number: int, *, windows: int = 1, session: bytes | None = SESSION) -> Lost:
    start = NOON + number * 10 * SECOND
    return Lost("spool-full", session, start, start + 10 * SECOND, windows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "losses"


def test_windows_one_after_the_other_are_one_span(path: Path) -> None:
    losses = Losses.open(path, DiskStorage())
    for number in (0, 1, 2, 7):
        losses.note(lost(number))
    losses.note(lost(8, session=bytes(16)))
    spans = Losses.open(path, DiskStorage()).spans
    assert [(span.from_ns - NOON, span.windows) for span in spans] == [(0, 3), (70 * SECOND, 1), (80 * SECOND, 1)]
    assert str(spans[0]) == "2026-06-01T12:00:00Z to 2026-06-01T12:00:30Z: 3 windows; the spool was full"
    assert str(spans[1]).split(": ")[1] == "1 window; the spool was full"


def test_it_is_bounded_and_says_how_many_are_not_told(path: Path) -> None:
    losses = Losses.open(path, DiskStorage())
    for number in range(KEPT + 5):
        losses.note(lost(2 * number, windows=3))
    again = Losses.open(path, DiskStorage())
    assert (len(again.spans), again.forgotten, again.forgotten_windows) == (KEPT, 5, 15)
    assert again.spans == losses.spans
    assert path.stat().st_size < 32 * 1024


class FullDisk:
    def write(self, path: Path, data: bytes) -> None:
        assert data
        raise write_fault(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def remove(self, path: Path) -> None:
        raise AssertionError(path)

    def space(self, path: Path) -> tuple[int, int]:
        raise AssertionError(path)


def test_what_could_not_be_written_is_written_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Losses.open(path, FullDisk())
    losses.note(lost(0))
    assert not path.exists()
    monkeypatch.setattr(FullDisk, "write", lambda _, path, data: DiskStorage().write(path, data))
    losses.flush()
    assert Losses.open(path, DiskStorage()).spans == (lost(0),)


@given(data=st.data())
def test_the_reader_is_total(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any bytes give spans or ``STATE_CORRUPT`` with the path."""
    path = tmp_path_factory.mktemp("total") / "losses"
    Losses.open(path, DiskStorage()).note(lost(0))
    valid = path.read_bytes()
    mutated = st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)).map(
        lambda change: valid[: change[0]] + bytes([change[1]]) + valid[change[0] + 1 :]
    )
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=64), mutated)))
    found: EnvironmentFault | None = None
    try:
        Losses.open(path, DiskStorage())
    except EnvironmentFault as error:
        found = error
    assert found is None or (found.code, found.where) == (Code.STATE_CORRUPT, str(path))


def test_a_damaged_list_ends_nothing(tmp_path: Path) -> None:
    """It is for people; nothing that is sealed depends on it."""
    root = tmp_path / "spool"
    Spools(root).losses.note(lost(0))
    (root / "losses").write_bytes(b"?")
    assert Spools(root).losses.spans == ()
    assert (root / "losses.damaged").read_bytes() == b"?"


def test_the_command_shows_what_waits_and_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spools = Spools(tmp_path / "spool")
    _, spool = (
        spools.create(session, b"terms", prev=bytes(32), challenge=bytes(32)) for session in (SESSION, bytes(16))
    )
    for each in (spools.open(path) for path in spools.paths()):
        for seq in range(3):
            each.begin(b"header")
            each.commit(SealedWindow(seq=seq, evidence=b"x" * 2000, digest=sha256(b""), qualifying_data=bytes(32)))
    spool = spools.open(spool.path)
    spool.record(0, challenge=None)
    spool.save()
    spools.set_aside(tmp_path / "spool" / SESSION.hex(), "damaged")
    spools.losses.note(lost(0))
    arguments = ["spool", "--state", str(tmp_path)]
    assert main([*arguments, "--json"]) == ExitCode.AFFIRMED
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["windows"]) == ("weighbridge/attester-spool/v1", 2)
    shown = [(item["state"], item["windows"], item["first"], item["last"]) for item in document["sessions"]]
    assert shown == [("waiting", 2, 1, 2), ("damaged", 3, 0, 2)]
    assert 10_000 < document["bytes"] < 11_000
    # What cannot be read has the time at which it was written.
    assert all(item["from"] <= item["until"] for item in document["sessions"])
    assert document["losses"] == [
        {
            "reason": "spool-full",
            "session": SESSION.hex(),
            "from": "2026-06-01T12:00:00Z",
            "until": "2026-06-01T12:00:10Z",
            "windows": 1,
        }
    ]
    assert main(arguments) == ExitCode.AFFIRMED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 windows waiting, 10.3 KiB on the disk"
    assert lines[1] == f"waiting  session {'00' * 16}: 2 windows, 4.1 KiB"
    assert lines[-1] == f"lost     {lost(0)}"


def test_the_command_without_a_spool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", "--state", str(tmp_path)]) == ExitCode.AFFIRMED
    assert capsys.readouterr().out == "0 windows waiting, 0 B on the disk\n"
    assert main(["spool", "--state", str(tmp_path / "none")]) == ExitCode.ENVIRONMENT
    assert "FILE_UNREADABLE" in capsys.readouterr().err
