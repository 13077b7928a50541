"""A verifier on disk: made whole or not at all, had by one process at a time, read while it serves."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent
from weighbridge.verifier import anchors
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORIGIN: Final = "ledger.example/test"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Deployment.create(tmp_path / "state", origin=ORIGIN, hosts=("localhost",), at=AT)
    return tmp_path / "state"


def code_of(directory: Path) -> Code:
    with pytest.raises(EnvironmentFault) as fault, Deployment.open(directory):
        pass
    return fault.value.code


def test_it_is_made_whole(state: Path) -> None:
    assert {path.name for path in state.iterdir()} == {
        "anchors.json",
        "content",
        "keys",
        "ledger",
        "origin",
        "sessions.sqlite",
        "tls",
        "turns",
    }
    assert state.stat().st_mode & 0o777 == 0o700
    with Deployment.open(state) as opened:
        assert opened.archive.ledger.size == 0
        assert opened.archive.ledger.key.name == ORIGIN
        tls = opened.tls
        assert all(path.is_file() for path in (tls.key, tls.certificate, tls.client_ca))
        own = {anchor.purpose: anchor for anchor in anchors.load((state / "anchors.json").read_bytes()).anchors}
        assert own["verifier"].sha256 == opened.keys.thumbprint.hex()
        assert own["ledger"].name == ORIGIN


def test_it_is_not_made_twice(state: Path) -> None:
    before = (state / "keys" / "signing.pem").read_bytes()
    with pytest.raises(EnvironmentFault) as fault:
        Deployment.create(state, origin=ORIGIN, hosts=("localhost",), at=AT)
    assert fault.value.code is Code.FILE_UNWRITABLE
    assert (state / "keys" / "signing.pem").read_bytes() == before


def _failing_at(step: int, number: int) -> Callable[[int], None]:
    """An fsync that fails once, at its ``step``-th call."""
    count, sync = 0, os.fsync

    def failing(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    return failing


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, Code.DISK_FULL), (errno.EIO, Code.FILE_UNWRITABLE)], ids=["full", "broken"]
)
def test_a_disk_that_fails_at_any_step_leaves_all_or_nothing(tmp_path: Path, number: int, code: Code) -> None:
    step, failed = 0, True
    while failed:
        step += 1
        directory = tmp_path / str(step)
        directory.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.fsync", _failing_at(step, number))
            try:
                Deployment.create(directory / "state", origin=ORIGIN, hosts=("localhost",), at=AT)
                failed = False
            except EnvironmentFault as fault:
                assert fault.code is code, step  # noqa: PT017 - the last step does not fail
        if [path.name for path in directory.iterdir()]:
            with Deployment.open(directory / "state") as opened:
                assert opened.archive.ledger.size == 0
        else:
            assert failed
    assert step > 20


def test_an_attempt_that_was_cut_off_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".state.new" / "keys").mkdir(parents=True)
    Deployment.create(tmp_path / "state", origin=ORIGIN, hosts=("localhost",), at=AT)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_several_have_it_open_and_write_in_turns(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.verifier.leadership.PATIENCE", 0.01)
    note = Record.note("junk", session=bytes(16), seq=None, received_ns=0, verdict=b"{}")
    with Deployment.open(state) as one, Deployment.open(state) as other:
        with one.archive.turn():
            with pytest.raises(EnvironmentFault) as caught:
                other.archive.commit(note, None)
            assert caught.value.code is Code.LEDGER_LOCKED
            # So does whoever opens it: what is half done is not looked at.
            assert code_of(state) is Code.LEDGER_LOCKED
            one.archive.commit(note, None)
        assert other.archive.commit(note, None).index == 1
        assert one.archive.records.record(1) == note
        with one.archive.turn():
            assert one.archive.ledger.size == 2
        with pytest.raises(RuntimeError, match="not in a turn"):
            one.archive.commit_all([(note, None)])
        with one.archive.turn(), pytest.raises(RuntimeError, match="nest"), one.archive.turn():
            pass


def test_it_is_read_while_it_serves(state: Path) -> None:
    note = Record.note("junk", session=bytes(16), seq=None, received_ns=0, verdict=b"{}")
    with Deployment.open(state) as serving:
        serving.archive.commit(note, None)
        with Deployment.reading(state) as (records, reader):
            assert reader.checkpoint.size == 1
            assert records.record(0) == note


@pytest.mark.parametrize("directory", ["", "nowhere"])
def test_elsewhere_is_no_verifier(tmp_path: Path, directory: str) -> None:
    assert code_of(tmp_path / directory) is Code.FILE_UNREADABLE
    with pytest.raises(EnvironmentFault), Deployment.reading(tmp_path / directory):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_others_can_read_is_not_used(state: Path) -> None:
    (state / "keys" / "signing.pem").chmod(0o644)
    assert code_of(state) is Code.KEY_EXPOSED


def test_a_name_that_is_no_text(state: Path) -> None:
    (state / "origin").write_bytes(b"\xff")
    assert code_of(state) is Code.FILE_UNREADABLE


def test_its_ledger_is_not_opened_in_an_earlier_state(state: Path, tmp_path: Path) -> None:
    """Else an operator's command would add to it, and sign a second history."""
    shutil.copytree(state / "ledger", tmp_path / "old")
    with Deployment.open(state) as opened, opened.store.transaction() as tx:
        _ = opened.archive.ledger.append([b"an entry"])
        tx.progress.settle(1, opened.archive.ledger.reader().checkpoint)
    with Deployment.open(state) as opened:
        assert opened.archive.ledger.size == 1
    shutil.rmtree(state / "ledger")
    shutil.copytree(tmp_path / "old", state / "ledger")
    for _ in range(2):
        # Again: what was opened has been let go of.
        with pytest.raises(LedgerInconsistent) as refused, Deployment.open(state):
            pass
        assert refused.value.code is Code.LEDGER_ROLLBACK
