"""The ledger on disk: what it returns, what it refuses, and that its auditor and its reader agree with it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.broken_files import FaultyFiles
from weighbridge.proto import merkle, note, tlog
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, NotAuthentic, WeighbridgeError
from weighbridge.verifier import ledger as package
from weighbridge.verifier.files import PosixFiles
from weighbridge.verifier.ledger import Ledger, LedgerReader, audit
from weighbridge.verifier.ledger.storage import DirectoryStorage

ORIGIN = "ledger.example/windows"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOTE_KEY = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw())


def entries(count: int, *, first: int = 0) -> list[bytes]:
    return [b"entry %d" % number for number in range(first, first + count)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(directory: Path) -> Iterator[Ledger]:
    with Ledger.create(directory, origin=ORIGIN, key=KEY) as created:
        yield created


def reopen(directory: Path) -> Ledger:
    return Ledger.open(directory, origin=ORIGIN, key=KEY)


def test_exports() -> None:
    assert all(hasattr(package, name) for name in package.__all__)


def test_a_new_ledger_is_empty_and_says_so(ledger: Ledger, directory: Path) -> None:
    assert (ledger.size, ledger.root) == (0, merkle.EMPTY_ROOT)
    assert (directory / "checkpoint").read_bytes() == ledger.checkpoint()
    assert audit(directory, NOTE_KEY, ORIGIN).size == 0


def test_append(ledger: Ledger, directory: Path) -> None:
    first = ledger.append(entries(3))
    second = ledger.append(entries(2, first=3))
    assert (first.first_index, first.size, second.first_index, second.size) == (0, 3, 3, 5)
    assert second.leaf_hashes == tuple(map(merkle.leaf_hash, entries(2, first=3)))
    assert second.root == ledger.root == merkle.root([merkle.leaf_hash(entry) for entry in entries(5)])
    assert second.checkpoint_note == ledger.checkpoint() == (directory / "checkpoint").read_bytes()
    assert [ledger.entry(index) for index in range(5)] == entries(5)
    assert ledger.key == NOTE_KEY


@settings(max_examples=15)
@given(batches=st.lists(st.integers(1, 700), min_size=1, max_size=4), data=st.data())
def test_any_batches_give_one_tree(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], data: st.DataObject
) -> None:
    """However entries are batched and the ledger reopened: the RFC's tree, every proof of it, and a clean audit."""
    directory = tmp_path_factory.mktemp("ledger") / "l"
    ledger = Ledger.create(directory, origin=ORIGIN, key=KEY)
    notes = [ledger.checkpoint()]
    for batch in batches:
        notes.append(ledger.append(entries(batch, first=ledger.size)).checkpoint_note)
        ledger.close()
        ledger = reopen(directory)
    size = sum(batches)
    leaves = [merkle.leaf_hash(entry) for entry in entries(size)]
    assert ledger.root == merkle.root(leaves)
    reader = LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN)
    for index in data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5)):
        assert reader.entry(index) == ledger.entry(index) == entries(1, first=index)[0]
        assert reader.leaf_hash(index) == leaves[index]
        proof = ledger.inclusion_proof(index)
        assert proof == merkle.inclusion_proof(index, size, merkle.nodes_of(leaves))
        tlog.verify_entry(reader.proof(index), leaves[index], NOTE_KEY, origin=ORIGIN)
    for earlier in notes:
        assert audit(directory, NOTE_KEY, ORIGIN, earlier=earlier).size == size
        old = tlog.open_checkpoint(earlier, NOTE_KEY, origin=ORIGIN)
        proof = ledger.consistency_proof(old.size, size)
        merkle.verify_consistency(proof, old=old.size, old_root=old.root, new=size, new_root=ledger.root)
    ledger.close()


def test_partial_tiles_go_when_the_full_one_is_there(ledger: Ledger, directory: Path) -> None:
    """A reader whose checkpoint needs a partial tile finds the beginning of the full one."""
    ledger.append(entries(200))
    before = LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN)
    note_before = ledger.checkpoint()
    ledger.append(entries(100, first=200))
    assert not (directory / "tile/0/000.p").exists()
    assert not (directory / "tile/entries/000.p").exists()
    assert before.entry(199) == b"entry 199"
    assert before.inclusion_proof(7) == merkle.inclusion_proof(
        7, 200, merkle.nodes_of([merkle.leaf_hash(entry) for entry in entries(200)])
    )
    # The same for an auditor who was slow: it reads the old checkpoint and the new tiles.
    (directory / "checkpoint").write_bytes(note_before)
    assert audit(directory, NOTE_KEY, ORIGIN).size == 200


def test_files_are_those_of_the_specification(ledger: Ledger, directory: Path) -> None:
    ledger.append(entries(600))
    found = {str(path.relative_to(directory)) for path in (directory / "tile").rglob("*") if path.is_file()}
    assert found == {
        *("tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"),
        *("tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"),
    }
    assert list((directory / "writer/staging").iterdir()) == []


def test_full_tiles_only(ledger: Ledger, directory: Path) -> None:
    """No partial tile and no partial bundle at the lowest level: nothing is left over, and nothing is missing."""
    ledger.append(entries(256))
    assert audit(directory, NOTE_KEY, ORIGIN).tiles == 2
    ledger.close()
    with reopen(directory) as again:
        assert again.append([b"next"]).first_index == 256
    assert audit(directory, NOTE_KEY, ORIGIN).tiles == 3


def test_two_have_it_open_and_each_takes_up_what_the_other_has_appended(ledger: Ledger, directory: Path) -> None:
    with reopen(directory) as other:
        ledger.append(entries(300))
        with pytest.raises(EnvironmentFault) as caught:
            other.append([b"too late"])
        assert (caught.value.code, other.size) == (Code.LEDGER_LOCKED, 0)
        # What is in the ledger can be read all the same.
        assert other.published().entry(299) == b"entry 299"
        other.take_up()
        assert other.append([b"in turn"]).first_index == 300
        ledger.take_up()
        assert (ledger.size, ledger.root, ledger.entry(300)) == (301, other.root, b"in turn")
        assert ledger.append([b"in turn again"]).first_index == 301
    ledger.close()
    ledger.close()
    assert audit(directory, NOTE_KEY, ORIGIN).size == 302


def test_whoever_takes_up_a_few_entries_knows_what_the_other_knows(ledger: Ledger, directory: Path) -> None:
    """Up to the end of a tile, over it, and more than a tile: the last of these by all that is stored."""
    with reopen(directory) as other:
        for count in (1, 254, 1, 3, 255, 300, 256):
            ledger.append(entries(count, first=ledger.size))
            other.take_up()
            assert other._state.edge == ledger._state.edge
            assert (other.checkpoint(), other.last()) == (ledger.checkpoint(), ledger.entry(ledger.size - 1))
        assert other.append([b"next"]).first_index == ledger.size
    assert audit(directory, NOTE_KEY, ORIGIN).size == 1071


@pytest.mark.parametrize("entry", [b"entry 1", b"entry 3"], ids=["known", "new"])
def test_entries_that_were_altered_are_not_taken_up(ledger: Ledger, directory: Path, entry: bytes) -> None:
    ledger.append(entries(2))
    with reopen(directory) as other:
        ledger.append(entries(2, first=2))
        path = directory / "tile/entries/000.p/4"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(entry, b"another"))
        with pytest.raises(LedgerInconsistent) as caught:
            other.take_up()
        assert (caught.value.code, other.size) == (Code.LEDGER_INCONSISTENT, 2)


def test_what_another_process_committed_and_did_not_publish_is_published(ledger: Ledger, directory: Path) -> None:
    before = (directory / "checkpoint").read_bytes()
    with reopen(directory) as other:
        other.append([b"a"])
    (directory / "checkpoint").write_bytes(before)
    ledger.take_up()
    assert (directory / "checkpoint").read_bytes() == (directory / HEAD).read_bytes() == ledger.checkpoint()


def test_a_ledger_that_was_put_back_under_the_writer(ledger: Ledger, directory: Path) -> None:
    old = (directory / HEAD).read_bytes()
    ledger.append([b"a"])
    (directory / HEAD).write_bytes(old)
    with pytest.raises(LedgerInconsistent) as caught:
        ledger.take_up()
    assert caught.value.code is Code.LEDGER_ROLLBACK


def test_nobody_writes_beside_a_writer(ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.verifier.ledger.storage.PATIENCE", 0.01)
    with DirectoryStorage(directory, PosixFiles()).exclusive():
        for write in (lambda: ledger.append([b"x"]), ledger.settle, lambda: reopen(directory)):
            with pytest.raises(EnvironmentFault) as caught:
                write()
            assert caught.value.code is Code.LEDGER_LOCKED
    assert ledger.append([b"x"]).size == 1


def test_closed_is_closed(ledger: Ledger) -> None:
    ledger.close()
    for wrong in (lambda: ledger.append([b"x"]), ledger.settle, ledger.__enter__):
        with pytest.raises(RuntimeError, match="closed"):
            wrong()


def test_create_never_starts_over(ledger: Ledger, directory: Path) -> None:
    """A second history under the same key would be a fork; a lost head is no reason to begin one."""
    ledger.append([b"x"])
    ledger.close()
    for name in ("writer/head", "checkpoint"):
        with pytest.raises(EnvironmentFault) as caught:
            Ledger.create(directory, origin=ORIGIN, key=KEY)
        assert caught.value.code is Code.FILE_UNWRITABLE
        (directory / name).unlink()
    with pytest.raises(EnvironmentFault, match="there is a ledger"):
        Ledger.create(directory, origin=ORIGIN, key=KEY)


def test_open_needs_a_ledger(directory: Path) -> None:
    wrongs: list[Callable[[], object]] = [
        lambda: reopen(directory),
        lambda: LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN),
        lambda: audit(directory, NOTE_KEY, ORIGIN),
    ]
    for wrong in wrongs:
        with pytest.raises(EnvironmentFault) as caught:
            wrong()
        assert caught.value.code is Code.FILE_UNREADABLE


def test_an_unpublished_creation_is_healed(ledger: Ledger, directory: Path) -> None:
    """Power failed between the commit and the publication."""
    ledger.append([b"x"])
    ledger.close()
    (directory / "checkpoint").unlink()
    with reopen(directory) as again:
        assert (directory / "checkpoint").read_bytes() == again.checkpoint()


def test_misuse(ledger: Ledger, directory: Path) -> None:
    ledger.append([b""])
    for wrong in (
        lambda: ledger.append([]),
        lambda: ledger.append([bytes(65_536)]),
        lambda: ledger.entry(1),
        lambda: ledger.inclusion_proof(-1),
        lambda: ledger.consistency_proof(0, 2),
        lambda: Ledger.create(directory, origin="with space", key=KEY),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is not the contract
            wrong()
    assert ledger.append([bytes(65_535)]).first_index == 1


def test_another_key_or_origin(ledger: Ledger, directory: Path) -> None:
    ledger.close()
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for key, origin in ((other, ORIGIN), (KEY, "ledger.example/other")):
        with pytest.raises(NotAuthentic) as caught:
            Ledger.open(directory, origin=origin, key=key)
        assert caught.value.code is Code.LEDGER_SIGNATURE
    reopen(directory).close()


HEAD = "writer/head"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("tile/0/001.p/44", None, Code.LEDGER_INCONSISTENT),
        ("tile/0/001.p/44", bytes(44 * 32), Code.LEDGER_INCONSISTENT),
        ("tile/0/001.p/44", b"short", Code.LEDGER_MALFORMED),
        ("tile/1/000.p/1", bytes(32), Code.LEDGER_INCONSISTENT),
        ("tile/entries/001.p/44", None, Code.LEDGER_INCONSISTENT),
        ("tile/entries/001.p/44", tlog.encode_bundle([b"x"] * 44), Code.LEDGER_INCONSISTENT),
        (HEAD, b"", Code.LEDGER_MALFORMED),
        ("checkpoint", b"junk", Code.LEDGER_MALFORMED),
    ],
)
def test_open_refuses_a_damaged_edge(
    ledger: Ledger, directory: Path, name: str, data: bytes | None, code: Code
) -> None:
    ledger.append(entries(300))
    ledger.close()
    if data is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(data)
    with pytest.raises(LedgerInconsistent) as caught:
        reopen(directory)
    assert caught.value.code is code


def test_open_refuses_a_head_that_was_put_back(ledger: Ledger, directory: Path) -> None:
    """A71: what readers were shown was never committed, as far as the writer knows."""
    ledger.append([b"a"])
    head = (directory / HEAD).read_bytes()
    ledger.append([b"b"])
    ledger.close()
    (directory / HEAD).write_bytes(head)
    with pytest.raises(LedgerInconsistent, match="never committed"):
        reopen(directory)


def test_open_refuses_a_published_fork(ledger: Ledger, directory: Path) -> None:
    """A71: the published checkpoint is signed, but of another tree."""
    ledger.append(entries(5))
    ledger.close()
    other = tlog.Checkpoint(ORIGIN, 3, merkle.root([merkle.leaf_hash(b"other")] * 3))
    (directory / "checkpoint").write_bytes(note.sign(other.encode(), key=NOTE_KEY, signer=KEY.sign))
    with pytest.raises(LedgerInconsistent) as caught:
        reopen(directory)
    assert caught.value.code is Code.LEDGER_PROOF


def test_append_notices_another_writer(ledger: Ledger, directory: Path, tmp_path: Path) -> None:
    """Somebody worked on a copy without the lock and put its head back: nothing is signed on top of that."""
    ledger.append([b"a"])
    shutil.copytree(directory, tmp_path / "copy")
    with reopen(tmp_path / "copy") as copy:
        copy.append([b"b"])
    (directory / HEAD).write_bytes((tmp_path / "copy" / HEAD).read_bytes())
    before = (directory / "checkpoint").read_bytes()
    with pytest.raises(EnvironmentFault, match="somebody else"):
        ledger.append([b"c"])
    with pytest.raises(LedgerInconsistent):
        ledger.take_up()
    (directory / HEAD).unlink()
    with pytest.raises(LedgerInconsistent, match="missing"):
        ledger.append([b"c"])
    assert (directory / "checkpoint").read_bytes() == before


def tiles(directory: Path) -> Sequence[str]:
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and "writer" not in path.parts
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("large") / "ledger"
    with Ledger.create(directory, origin=ORIGIN, key=KEY) as ledger:
        ledger.append(entries(700))
    return directory


@settings(max_examples=60)
@given(data=st.data())
def test_audit_finds_one_flipped_bit_anywhere(large: Path, data: st.DataObject) -> None:
    """A71: any bit of any file that readers are given."""
    name = data.draw(st.sampled_from(tiles(large)))
    good = (large / name).read_bytes()
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    changed = bytearray(good)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        (large / name).write_bytes(changed)
        with pytest.raises(WeighbridgeError):
            audit(large, NOTE_KEY, ORIGIN)
    finally:
        (large / name).write_bytes(good)


def test_audit_finds_missing_and_cut_files(large: Path, tmp_path: Path) -> None:
    for number, name in enumerate(tiles(large)):
        for content in (None, b"", b"cut"):
            copy = tmp_path / f"{number}-{content!r}"
            shutil.copytree(large, copy)
            (copy / name).unlink()
            if content is not None:
                (copy / name).write_bytes(content)
            with pytest.raises(WeighbridgeError) as caught:
                audit(copy, NOTE_KEY, ORIGIN)
            if name != "checkpoint":
                expected = Code.LEDGER_INCONSISTENT if content is None else Code.LEDGER_MALFORMED
                assert caught.value.code is expected


def test_audit_against_a_kept_checkpoint(ledger: Ledger, directory: Path, tmp_path: Path) -> None:
    """A71: a whole ledger rewritten with the right key and consistent in itself is found by who kept a checkpoint."""
    for count in (5, 300):
        ledger.append(entries(count, first=ledger.size))
        kept = ledger.checkpoint()
        other = tmp_path / str(count)
        with Ledger.create(other, origin=ORIGIN, key=KEY) as rewritten:
            rewritten.append([b"rewritten", *entries(400, first=1)])
        assert audit(other, NOTE_KEY, ORIGIN).size == 401
        with pytest.raises(LedgerInconsistent, match="not that of the entries"):
            audit(other, NOTE_KEY, ORIGIN, earlier=kept)
    shorter = tmp_path / "shorter"
    with Ledger.create(shorter, origin=ORIGIN, key=KEY) as rolled_back:
        rolled_back.append(entries(300))
    with pytest.raises(LedgerInconsistent, match="shorter"):
        audit(shorter, NOTE_KEY, ORIGIN, earlier=ledger.checkpoint())
    assert audit(directory, NOTE_KEY, ORIGIN, earlier=ledger.checkpoint()).consistent_with == 305


def test_reader_refuses_altered_tiles(ledger: Ledger, directory: Path) -> None:
    ledger.append(entries(300))
    reader = LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN)
    for name, data, code in (
        ("tile/entries/000", tlog.encode_bundle([b"x"] * 256), Code.LEDGER_PROOF),
        ("tile/entries/000", b"junk", Code.LEDGER_MALFORMED),
        ("tile/0/000", bytes(8192), Code.LEDGER_PROOF),
        ("tile/0/000", b"junk", Code.LEDGER_MALFORMED),
        ("tile/0/000", None, Code.LEDGER_INCONSISTENT),
    ):
        good = (directory / name).read_bytes()
        (directory / name).unlink()
        if data is not None:
            (directory / name).write_bytes(data)
        with pytest.raises(LedgerInconsistent) as caught:
            reader.entry(3)
        assert caught.value.code is code
        (directory / name).write_bytes(good)
    assert reader.entry(3) == b"entry 3"
    # A directory where a file should be: the environment's fault, not the ledger's.
    (directory / "tile/entries/000").unlink()
    (directory / "tile/entries/000").mkdir()
    assert reader.entry(4) == b"entry 4"  # a snapshot: what was proven is not read again
    with pytest.raises(EnvironmentFault) as fault:
        LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN).entry(3)
    assert fault.value.code is Code.FILE_UNREADABLE


def test_reader_proves_the_entries_of_a_tile_one_by_one(ledger: Ledger, directory: Path) -> None:
    """Where one was altered, its neighbours are still what the tree has; and the last tile is proven as it grows."""
    ledger.append(entries(300))
    path = directory / "tile/entries/000"
    altered = [b"entry %d" % number for number in range(256)]
    altered[7] = b"another"
    path.chmod(0o644)
    path.write_bytes(tlog.encode_bundle(altered))
    reader = LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN)
    for _ in range(2):
        with pytest.raises(LedgerInconsistent) as caught:
            reader.entry(7)
        assert caught.value.code is Code.LEDGER_PROOF
        assert [reader.entry(index) for index in (6, 8, 299)] == [b"entry 6", b"entry 8", b"entry 299"]
    for index in (-1, 300):
        with pytest.raises(ValueError, match="no entry"):
            reader.entry(index)


def test_disk_full_for_real(ledger: Ledger, directory: Path) -> None:
    """The kernel refuses to write: nothing half-written is visible, and the next append works."""
    ledger.append(entries(3))
    before = {name: (directory / name).read_bytes() for name in tiles(directory)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EnvironmentFault) as caught:
            ledger.append([bytes(30_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code is Code.DISK_FULL
    assert {name: (directory / name).read_bytes() for name in tiles(directory)} == before
    assert list((directory / "writer/staging").iterdir()) == []
    assert ledger.append([bytes(30_000)]).first_index == 3
    assert audit(directory, NOTE_KEY, ORIGIN).size == 4


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault) as caught:
        Ledger.create(tmp_path / "file", origin=ORIGIN, key=KEY)
    assert caught.value.code is Code.FILE_UNWRITABLE
    with pytest.raises(EnvironmentFault) as caught:
        Ledger.create(tmp_path / "a" / "b", origin=ORIGIN, key=KEY)
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_a_lock_that_cannot_be_made(ledger: Ledger, directory: Path) -> None:
    ledger.close()
    lock = directory / "writer/lock"
    lock.unlink()
    lock.symlink_to(os.devnull)
    with pytest.raises(EnvironmentFault) as caught:
        reopen(directory)
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_a_file_system_without_locks(ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_: int, __: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    ledger.close()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(EnvironmentFault) as caught:
        reopen(directory)
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_failed_creation_can_be_repeated(tmp_path: Path) -> None:
    """Broken at any operation, create can be called again, or the ledger is there and can be opened."""
    files = FaultyFiles()
    Ledger.create(tmp_path / "whole", origin=ORIGIN, key=KEY, files=files).close()
    for at in range(1, files.count + 1):
        directory = tmp_path / str(at)
        with pytest.raises(EnvironmentFault):
            Ledger.create(directory, origin=ORIGIN, key=KEY, files=FaultyFiles(at=at, number=errno.EIO))
        start = Ledger.open if (directory / HEAD).exists() else Ledger.create
        with start(directory, origin=ORIGIN, key=KEY) as ledger:
            ledger.append([b"x"])
        assert audit(directory, NOTE_KEY, ORIGIN).size == 1
