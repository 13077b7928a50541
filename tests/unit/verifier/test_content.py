"""The content store: what was put stays, what is got has been hashed, and what contents have in common is kept once."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.broken_files import Broken, FaultyFiles, PowerCut, VolatileFiles
from support.contents import alter, contents, remove, segments
from support.disks import small_disk
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, Indeterminate, LedgerInconsistent, WeighbridgeError
from weighbridge.verifier.ledger import Content, ContentStore, content, segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

_RANDOM = random.Random(8)


def random_bytes(count: int) -> bytes:
    return _RANDOM.randbytes(count)


CHAIN = random_bytes(4000)


def size(store: Path) -> int:
    return sum(path.stat().st_size for path in segments(store))


def code_of(call: Callable[[], object], kind: type[WeighbridgeError] = LedgerInconsistent) -> Code:
    with pytest.raises(kind) as refusal:
        call()
    return refusal.value.code


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment is full after a few contents."""
    monkeypatch.setattr(content, "_SEGMENT_MAX", 1000)


def test_put_and_get(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content")
    digest = store.put(b"evidence")
    assert digest == sha256(b"evidence")
    assert store.has(digest)
    assert store.get(digest) == b"evidence"
    assert ContentStore(tmp_path / "content").get(digest) == b"evidence"


def test_what_another_writer_has_in_the_making_may_vanish(tmp_path: Path) -> None:
    """As a link to nothing does, between being listed and being looked at."""
    _ = ContentStore(tmp_path).put(b"one")
    (tmp_path / "segments" / f"staging-{8 * 'ab'}").symlink_to("gone")
    store = ContentStore(tmp_path)
    assert store.get(store.put(b"two")) == b"two"


def test_putting_twice_writes_once(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.put(b"x")
    before = size(tmp_path)
    store.put(b"x")
    assert size(tmp_path) == before


def test_many_are_put_with_one_sync_and_got_each(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = ContentStore(tmp_path, files=files)
    store.put(b"first")
    files.arm(0)
    many = [random_bytes(3000) for _ in range(300)]
    assert store.put_all([Content(data) for data in many]) == tuple(map(sha256, many))
    assert files.count == 1
    for reader in (store, ContentStore(tmp_path)):
        assert [reader.get(sha256(data)) for data in many] == many


def test_nothing_to_put_writes_nothing(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    assert store.put_all([]) == ()
    assert segments(tmp_path) == []


def test_what_contents_have_in_common_is_kept_once(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    windows = [random_bytes(100) + CHAIN + random_bytes(50) for _ in range(20)]
    for data in windows:
        store.put_all([Content(data, (CHAIN,))])
    assert size(tmp_path) < len(CHAIN) + 20 * 600
    again = ContentStore(tmp_path)
    assert [again.get(sha256(data)) for data in windows] == windows
    assert again.get(sha256(CHAIN)) == CHAIN


def test_it_is_known_after_a_restart_what_they_have_in_common(tmp_path: Path) -> None:
    for number in range(5):
        ContentStore(tmp_path).put(bytes([number]) + CHAIN, (CHAIN,))
    # The second cannot know that what the first had written was synced; it sees to that, and the others rely on it.
    assert size(tmp_path) < 3 * len(CHAIN)


@given(
    st.lists(st.sampled_from([CHAIN, CHAIN[:300], CHAIN[1000:1300], b"", b"short", b"-" * 400]), max_size=6), st.data()
)
@settings(max_examples=60)
def test_any_parts_make_the_same_content(parts: list[bytes], data: st.DataObject) -> None:
    """Whether they are in it or not, in which order, and how often."""
    named = [(sha256(part), part) for part in parts]
    whole = b"".join(data.draw(st.permutations([*parts, b"head", b"between"])))
    recipe = segment.encode_recipe(whole, named)
    if recipe is not None:
        found = dict(named)
        made = [item if isinstance(item, bytes) else found[item[0]] for item in segment.parse_recipe(recipe)]
        assert b"".join(made) == whole


def test_absent(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    assert not store.has(bytes(32))
    assert code_of(lambda: store.get(bytes(32)), Indeterminate) is Code.EVIDENCE_ABSENT


def test_misuse(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with pytest.raises(ValueError, match="32 bytes"):
        store.get(b"short")
    with pytest.raises(ValueError, match="content of"):
        store.put(bytes(limits.CONTENT_MAX + 1))


def test_the_largest(tmp_path: Path) -> None:
    store, data = ContentStore(tmp_path), bytes(limits.CONTENT_MAX)
    assert ContentStore(tmp_path).get(store.put(data)) == data


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert code_of(lambda: ContentStore(tmp_path / "file"), EnvironmentFault) is Code.FILE_UNWRITABLE


# -- altered -----------------------------------------------------------------------------------------------------------


def test_altered(tmp_path: Path) -> None:
    """Every content of the block is named when it is read; putting one again heals it."""
    store = ContentStore(tmp_path)
    store.put_all([Content(b"x"), Content(b"y")])
    alter(tmp_path, sha256(b"x"))
    for reader in (ContentStore(tmp_path), store):
        with pytest.raises(LedgerInconsistent, match=sha256(b"x").hex()) as refusal:
            reader.get(sha256(b"x"))
        assert refusal.value.code is Code.LEDGER_INCONSISTENT
    again = ContentStore(tmp_path)
    again.put(b"x")
    assert ContentStore(tmp_path).get(sha256(b"x")) == b"x"
    assert code_of(lambda: again.get(sha256(b"y"))) is Code.LEDGER_INCONSISTENT


def test_a_part_that_is_gone_or_altered_is_missed_in_what_has_it(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.put(CHAIN)
    digest = store.put(b"a" + CHAIN, (CHAIN,))
    for act in (alter, remove):
        act(tmp_path, sha256(CHAIN))
        reader = ContentStore(tmp_path)
        assert code_of(lambda reader=reader: reader.get(digest)) is Code.LEDGER_INCONSISTENT  # type: ignore[misc]


def test_a_recipe_of_recipes_makes_nothing(tmp_path: Path) -> None:
    """Else a damaged store could have one content take for ever, or all memory."""
    store = ContentStore(tmp_path)
    inner = segment.encode_recipe(CHAIN, [(sha256(CHAIN[:300]), CHAIN[:300])])
    outer = segment.encode_recipe(CHAIN + b"x", [(sha256(CHAIN), CHAIN)])
    assert inner is not None
    assert outer is not None
    rows = [
        (sha256(CHAIN[:300]), CHAIN[:300], segment.PLAIN),
        (sha256(CHAIN), inner, segment.RECIPE),
        (sha256(CHAIN + b"x"), outer, segment.RECIPE),
    ]
    (tmp_path / "segments" / "00000001-00000000").write_bytes(segment.encode_block(rows))
    assert store.get(sha256(CHAIN)) == CHAIN
    assert code_of(lambda: store.get(sha256(CHAIN + b"x"))) is Code.LEDGER_INCONSISTENT


def test_a_recipe_of_too_much_makes_nothing(tmp_path: Path) -> None:
    part = bytes(1 << 20)
    recipe = segment.encode_recipe(part * 20, [(sha256(part), part)] * 20)
    assert recipe is not None
    assert len(recipe) < 1000
    rows = [(sha256(part), part, segment.PLAIN), (sha256(part * 20), recipe, segment.RECIPE)]
    store = ContentStore(tmp_path)
    (tmp_path / "segments" / "00000001-00000000").write_bytes(segment.encode_block(rows))
    assert code_of(lambda: store.get(sha256(part * 20))) is Code.LEDGER_INCONSISTENT


def test_behind_damage_everything_is_found(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    digests = [store.put(bytes([number]) * 500) for number in range(3)]
    (path,) = segments(tmp_path)
    with path.open("rb") as file:
        second = segment.scan(file, 0).blocks[1][0]
    data = bytearray(path.read_bytes())
    data[second + 40] ^= 1
    path.write_bytes(data)
    reader = ContentStore(tmp_path)
    assert [reader.get(digests[0])[0], reader.get(digests[2])[0]] == [0, 2]
    # It is not only absent: something was here.
    assert code_of(lambda: reader.get(digests[1])) is Code.LEDGER_INCONSISTENT
    # Whoever writes on leaves it as it is.
    reader.put(b"more")
    assert code_of(lambda: ContentStore(tmp_path).get(digests[1])) is Code.LEDGER_INCONSISTENT


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("damage", [lambda _: b"", lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_an_index_that_was_damaged_is_not_relied_on(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store, data = ContentStore(tmp_path), random_bytes(2000)
    digest = store.put(data)
    (path,) = (tmp_path / "segments").glob("*.index")
    path.write_bytes(damage(path.read_bytes()))
    assert ContentStore(tmp_path).get(digest) == data


def test_an_index_that_points_elsewhere_is_told_from_absence(tmp_path: Path) -> None:
    ContentStore(tmp_path).put(b"evidence")
    ContentStore(tmp_path).put(b"more")
    (path,) = (tmp_path / "segments").glob("*.index")
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert code_of(lambda: ContentStore(tmp_path).get(sha256(b"evidence"))) is Code.LEDGER_INCONSISTENT


@given(st.binary(max_size=200), st.integers(0, 300))
@settings(max_examples=100)
def test_any_bytes_are_a_segment(tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int) -> None:
    good = segment.encode_block([(sha256(b"evidence"), b"evidence", segment.PLAIN)])
    path = tmp_path_factory.getbasetemp() / "segment"
    path.write_bytes(good + data + good[:at])
    with path.open("rb") as file:
        found = segment.scan(file, 0)
    assert found.blocks[0] == (0, found.blocks[0][1])
    assert found.end <= len(good) * 2 + len(data)


# -- opened ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_segments")
def test_opening_reads_no_segment_that_has_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ContentStore(tmp_path)
    many = [random_bytes(400) for _ in range(20)]
    for data in many:
        store.put(data)
    assert len(segments(tmp_path)) > 5
    scanned: list[int] = []
    scan = segment.scan

    def noted(file: IO[bytes], start: int) -> segment.Scan:
        scanned.append(start)
        return scan(file, start)

    monkeypatch.setattr(segment, "scan", noted)
    again = ContentStore(tmp_path)
    assert len(scanned) <= 1
    assert [again.get(sha256(data)) for data in many] == many
    assert list(contents(tmp_path).values()) == many


@pytest.mark.usefixtures("small_segments")
def test_an_index_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = ContentStore(tmp_path, files=files)
    store.put(b"x")
    files.arm(2)
    data = random_bytes(2000)
    store.put(data)
    assert list((tmp_path / "segments").glob("*.index")) == []
    store.put(b"y")
    assert len(list((tmp_path / "segments").glob("*.index"))) == 1
    assert [ContentStore(tmp_path).get(sha256(item)) for item in (b"x", data, b"y")] == [b"x", data, b"y"]


def test_several_write_to_one_store_and_read_what_the_others_have_put(tmp_path: Path) -> None:
    stores = [ContentStore(tmp_path) for _ in range(3)]
    for number in range(12):
        stores[number % 3].put(bytes([number]) * 500)
    for store in stores:
        assert [store.get(sha256(bytes([number]) * 500))[0] for number in range(12)] == list(range(12))


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", Broken)
def test_every_write_broken(tmp_path: Path, how: Broken) -> None:
    """Reported, nothing half-written is got, what was there before is, and putting it again works, also later."""
    before, batch = random_bytes(500), [random_bytes(600), b"a" + CHAIN, b"b" + CHAIN]
    at, done = 0, False
    while not done:
        at += 1
        files = FaultyFiles(how=how)
        directory = tmp_path / str(at)
        ContentStore(directory).put(before)
        store = ContentStore(directory, files=files)
        files.arm(at)
        try:
            store.put_all([Content(data, (CHAIN,)) for data in batch])
            done = True
        except EnvironmentFault as error:
            assert error.code is Code.DISK_FULL  # noqa: PT017 - the end of the loop is the put that succeeds
        files.arm(0)
        for reader in (ContentStore(directory), store):
            assert reader.get(sha256(before)) == before
            for data in batch:
                with contextlib.suppress(Indeterminate, LedgerInconsistent):
                    assert reader.get(sha256(data)) == data
        # Something shorter takes the place of what was begun.
        store.put(b"other")
        store.put_all([Content(data, (CHAIN,)) for data in batch])
        for reader in (ContentStore(directory), store):
            assert [reader.get(sha256(data)) for data in (before, b"other", *batch)] == [before, b"other", *batch]
    assert at > 5


@pytest.mark.parametrize("how", [None, *Broken])
@pytest.mark.parametrize("keep", [False, True])
def test_power_cut_after_a_put(tmp_path: Path, how: Broken | None, *, keep: bool) -> None:
    """What was acknowledged survives with synced names only, also when an earlier put of it had failed half-way."""
    for at in range(1, 12):
        root = tmp_path / f"{at}"
        root.mkdir()
        disk = VolatileFiles(root)
        files = FaultyFiles(how=how or Broken.NOT_DONE, inner=disk)
        # Somebody was here before; that what he left was synced is known to nobody.
        ContentStore(root / "content", files=disk).put(b"a" + CHAIN, (CHAIN,))
        store = ContentStore(root / "content", files=files)
        files.arm(0 if how is None else at)
        with contextlib.suppress(EnvironmentFault):
            store.put(b"evidence" + CHAIN, (CHAIN,))
        files.arm(0)
        digest = store.put(b"evidence" + CHAIN, (CHAIN,))
        disk.survive(tmp_path / f"found-{at}", lambda _: keep)
        assert ContentStore(tmp_path / f"found-{at}" / "content").get(digest) == b"evidence" + CHAIN


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("keep", [False, True])
def test_power_cut_at_any_moment(tmp_path: Path, *, keep: bool) -> None:
    """What was acknowledged before is all there; the next writer puts the rest, and all of it is read again."""
    many = [random_bytes(400) + CHAIN for _ in range(6)]
    acknowledged: list[bytes] = []
    for cut in range(4, 40):
        root = tmp_path / f"{cut}"
        root.mkdir()
        disk = VolatileFiles(root, cut_after=cut)
        acknowledged = []
        with contextlib.suppress(PowerCut):
            store = ContentStore(root / "content", files=disk)
            for data in many:
                store.put_all([Content(data, (CHAIN,))])
                acknowledged.append(data)
        disk.survive(tmp_path / f"found-{cut}", lambda _: keep)
        found = tmp_path / f"found-{cut}" / "content"
        if found.exists():
            assert [ContentStore(found).get(sha256(data)) for data in acknowledged] == acknowledged
        again = ContentStore(found)
        again.put_all([Content(data, (CHAIN,)) for data in many])
        assert [ContentStore(found).get(sha256(data)) for data in many] == many
    assert len(acknowledged) == len(many)


def test_a_reader_is_not_misled_by_what_a_writer_has_written_over(tmp_path: Path) -> None:
    files = FaultyFiles(how=Broken.DONE)
    store, reader = ContentStore(tmp_path, files=files), ContentStore(tmp_path)
    store.put(b"first")
    files.arm(1)
    assert code_of(lambda: store.put(b"begun" * 300), EnvironmentFault) is Code.DISK_FULL
    assert reader.get(sha256(b"begun" * 300)) == b"begun" * 300
    store.put(b"another")
    store.put(random_bytes(700))
    digest = store.put(b"begun" * 300)
    assert [reader.get(name) for name in (sha256(b"another"), digest)] == [b"another", b"begun" * 300]


def test_nobody_indexes_what_a_living_writer_may_write_over(tmp_path: Path) -> None:
    """The first one's write is there, though reported as failed, when another begins; then it writes over it."""
    faulty = FaultyFiles(how=Broken.DONE)
    one = ContentStore(tmp_path, files=faulty)
    one.put(b"begin")
    faulty.arm(1)
    with pytest.raises(EnvironmentFault):
        one.put(random_bytes(5000))
    faulty.arm(0)
    other = ContentStore(tmp_path)
    other.put(b"another's")
    wanted = [random_bytes(3000), random_bytes(1000)]
    digests = [one.put(data) for data in wanted]
    for reader in (one, other, ContentStore(tmp_path)):
        assert [reader.get(digest) for digest in digests] == wanted
    # Once it is gone, whoever begins next indexes its segment.
    (left, _) = sorted(segments(tmp_path))
    del one
    ContentStore(tmp_path).put(b"a third one's")
    assert left.with_name(f"{left.name}{segment.INDEX_SUFFIX}").exists()
    assert [ContentStore(tmp_path).get(digest) for digest in digests] == wanted


def test_disk_full_for_real(tmp_path: Path) -> None:
    """The kernel refuses to write: what was there is read, and the next put works."""
    with small_disk(tmp_path / "disk") as disk:
        store = ContentStore(disk.path / "content")
        before = store.put(b"before")
        disk.fill(os.getpid())
        try:
            code = code_of(lambda: store.put(random_bytes(100_000)), EnvironmentFault)
            assert store.get(before) == b"before"
            assert ContentStore(disk.path / "content").get(before) == b"before"
        finally:
            disk.free()
        assert code is Code.DISK_FULL
        data = random_bytes(100_000)
        assert store.get(store.put(data)) == ContentStore(disk.path / "content").get(sha256(data)) == data


def test_what_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    """A store on a disk that is read-only, or of another user."""
    digest = ContentStore(tmp_path).put(b"evidence")
    files = FaultyFiles(number=errno.EROFS)
    store = ContentStore(tmp_path, files=files)
    files.arm(1)
    assert code_of(lambda: store.put(b"more"), EnvironmentFault) is Code.FILE_UNWRITABLE
    assert store.get(digest) == b"evidence"
