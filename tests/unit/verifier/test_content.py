"""The content store: what was put stays, what is got has been hashed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.broken_files import Broken, FaultyFiles, VolatileFiles
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, Indeterminate, LedgerInconsistent
from weighbridge.verifier.ledger import ContentStore


def stored(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_put_and_get(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content")
    digest = store.put(b"evidence")
    assert digest == sha256(b"evidence")
    assert store.has(digest)
    assert store.get(digest) == b"evidence"
    assert ContentStore(tmp_path / "content").get(digest) == b"evidence"
    assert stored(tmp_path)[0].relative_to(tmp_path / "content").parts == (digest.hex()[:3], digest.hex())


def test_putting_twice_writes_once(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content")
    store.put(b"x")
    before = stored(tmp_path)[0].stat()
    store.put(b"x")
    assert (stored(tmp_path)[0].stat().st_ino, stored(tmp_path)[0].stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    assert len(stored(tmp_path)) == 1


def test_absent(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content")
    assert not store.has(bytes(32))
    with pytest.raises(Indeterminate) as caught:
        store.get(bytes(32))
    assert caught.value.code is Code.EVIDENCE_ABSENT


def test_altered(tmp_path: Path) -> None:
    """A changed file is found when it is read, and is not taken for the same content when it is put again."""
    store = ContentStore(tmp_path / "content")
    digest = store.put(b"x")
    stored(tmp_path)[0].write_bytes(b"y")
    acts: list[Callable[[], bytes]] = [lambda: store.get(digest), lambda: store.put(b"x")]
    for act in acts:
        with pytest.raises(LedgerInconsistent) as caught:
            act()
        assert caught.value.code is Code.LEDGER_INCONSISTENT


def test_misuse(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content")
    with pytest.raises(ValueError, match="32 bytes"):
        store.get(b"short")
    with pytest.raises(ValueError, match="content of"):
        store.put(bytes(limits.CONTENT_MAX + 1))


@pytest.mark.parametrize("how", Broken)
def test_every_write_broken(tmp_path: Path, how: Broken) -> None:
    """Reported, nothing half-written visible, and putting it again works."""
    at, done = 0, False
    while not done:
        at += 1
        files = FaultyFiles(how=how)
        directory = tmp_path / str(at)
        store = ContentStore(directory, files=files)
        files.arm(at)
        try:
            store.put(b"evidence")
            done = True
        except EnvironmentFault as error:
            assert error.code is Code.DISK_FULL  # noqa: PT017 - the end of the loop is the put that succeeds
        files.arm(0)
        assert all(path.read_bytes() == b"evidence" for path in stored(directory))
        assert store.get(store.put(b"evidence")) == b"evidence"
        assert len(stored(directory)) == 1
    assert at > 5


@pytest.mark.parametrize("how", [None, *Broken])
def test_power_cut_after_a_put(tmp_path: Path, how: Broken | None) -> None:
    """What was acknowledged survives with synced names only, also when an earlier put of it had failed half-way."""
    for at in range(1, 9):
        root = tmp_path / f"{at}"
        root.mkdir()
        disk = VolatileFiles(root)
        files = FaultyFiles(how=how or Broken.NOT_DONE, inner=disk)
        store = ContentStore(root / "content", files=files)
        if how is not None:
            files.arm(at)
            with contextlib.suppress(EnvironmentFault):
                store.put(b"evidence")
            files.arm(0)
        digest = store.put(b"evidence")
        disk.survive(tmp_path / f"found-{at}", lambda _: False)
        assert ContentStore(tmp_path / f"found-{at}" / "content").get(digest) == b"evidence"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault) as caught:
        ContentStore(tmp_path / "file")
    assert caught.value.code is Code.FILE_UNWRITABLE
