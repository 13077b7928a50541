"""The spool: nothing sealed is lost, no number is used twice, whatever fails and wherever power is cut (A55, A56)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.durable import write_fault
from weighbridge.attester.sealing import SealedWindow
from weighbridge.attester.spool import DEFAULT_MAX_BYTES, Spool, Spools
from weighbridge.attester.spool_files import (
    FILE_MAX,
    DiskStorage,
    Progress,
    SpooledWindow,
    SpoolStorage,
    encode_progress,
    encode_session,
    encode_window,
    read_progress,
    read_session,
    read_window,
)
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent
from weighbridge.proto.spot import SpotChallenge, SpotRange

SESSION = bytes(range(16))
TERMS = b"signed terms"
PREV = sha256(b"before")
CHALLENGE = sha256(b"challenge")
SPOT = SpotChallenge(
    id=bytes(range(16)), manifest=sha256(b"model"), key=sha256(b"key"), ranges=(SpotRange("model.safetensors", 0, 1),)
)


def sealed(seq: int, text: bytes = b"evidence") -> SealedWindow:
    return SealedWindow(seq=seq, evidence=b"%s %d" % (text, seq), digest=sha256(b"%d" % seq), qualifying_data=bytes(32))


def fill(spool: Spool, count: int) -> None:
    for _ in range(count):
        spool.begin(b"header %d" % spool.next_seq)
        spool.commit(sealed(spool.next_seq))


def create(
    tmp_path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, storage: SpoolStorage | None = None
) -> tuple[Spools, Spool]:
    spools = Spools(tmp_path / "spool", max_bytes=max_bytes, storage=storage)
    return spools, spools.create(SESSION, TERMS, prev=PREV, challenge=CHALLENGE)


def reopen(tmp_path: Path) -> Spool:
    (spool,) = Spools(tmp_path / "spool").pending()
    return spool


def room(spool: Spool) -> bool:
    return spool.full() is None


def contents(spool: Spool) -> list[int]:
    """The numbers in the spool, oldest first, by delivering all of it."""
    found: list[int] = []
    while (window := spool.oldest()) is not None:
        assert window.evidence == sealed(window.seq).evidence
        found.append(window.seq)
        spool.record(window.seq, challenge=CHALLENGE)
    return found


def test_windows_come_out_in_the_order_in_which_they_went_in(tmp_path: Path) -> None:
    spools, spool = create(tmp_path)
    fill(spool, 3)
    assert (spool.next_seq, spool.backlog, spool.prev) == (3, 3, sealed(2).next_prev)
    assert contents(spool) == [0, 1, 2]
    assert spool.progress == Progress(3, sealed(2).next_prev, CHALLENGE)
    spools.remove(spool)
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_opened_spool_goes_on_where_the_last_process_stopped(tmp_path: Path) -> None:
    _, spool = create(tmp_path)
    fill(spool, 3)
    spool.record(0, challenge=None)
    spool.save()
    again = reopen(tmp_path)
    assert (again.session, again.terms) == (SESSION, TERMS)
    assert (again.next_seq, again.prev, again.backlog) == (3, sealed(2).next_prev, 2)
    assert again.progress == Progress(1, sealed(0).next_prev, None)
    fill(again, 1)
    assert contents(again) == [1, 2, 3]


def test_what_the_challenge_asks_of_the_files_survives_with_it(tmp_path: Path) -> None:
    spools = Spools(tmp_path / "spool")
    spool = spools.create(SESSION, TERMS, prev=PREV, challenge=CHALLENGE, spot=SPOT)
    assert reopen(tmp_path).progress == Progress(0, PREV, CHALLENGE, SPOT)
    fill(spool, 2)
    spool.record(0, challenge=PREV, spot=replace(SPOT, id=bytes(16)))
    spool.save()
    assert reopen(tmp_path).progress.spot == replace(SPOT, id=bytes(16))
    spool.record(1, challenge=PREV)
    assert reopen(tmp_path).progress.spot is None
    fill(spool, 1)
    spool.skip_to(3, challenge=CHALLENGE, spot=SPOT)
    assert reopen(tmp_path).progress == Progress(3, sealed(2).next_prev, CHALLENGE, SPOT)


def test_a_header_without_its_window_was_never_released(tmp_path: Path) -> None:
    _, spool = create(tmp_path)
    fill(spool, 1)
    spool.begin(b"never sealed")
    assert (spool.path / "header").exists()
    again = reopen(tmp_path)
    assert not (spool.path / "header").exists()
    assert again.next_seq == 1


def test_no_two_windows_of_one_number(tmp_path: Path) -> None:
    _, spool = create(tmp_path)
    fill(spool, 1)
    for seq in (0, 2):
        with pytest.raises(RuntimeError, match="not the next"):
            spool.commit(sealed(seq))
    with pytest.raises(RuntimeError, match="not the oldest"):
        spool.record(1, challenge=CHALLENGE)


def test_what_the_verifier_has_already_is_forgotten(tmp_path: Path) -> None:
    _, spool = create(tmp_path)
    fill(spool, 4)
    assert spool.skip_to(3, challenge=PREV) == 3
    assert spool.progress == Progress(3, sealed(2).next_prev, PREV)
    assert spool.skip_to(3, challenge=CHALLENGE) == 0
    assert contents(spool) == [3]


@pytest.mark.parametrize("seq", [0, 4])
def test_a_verifier_that_lost_its_place_is_not_followed(tmp_path: Path, seq: int) -> None:
    _, spool = create(tmp_path)
    fill(spool, 3)
    spool.record(0, challenge=CHALLENGE)
    with pytest.raises(LedgerInconsistent) as caught:
        spool.skip_to(seq, challenge=CHALLENGE)
    assert caught.value.code is Code.WINDOW_SEQ
    assert spool.backlog == 2


def test_the_bound_holds_over_all_sessions(tmp_path: Path) -> None:
    spools, first = create(tmp_path, max_bytes=FILE_MAX + 300)
    while room(first):
        fill(first, 1)
    with pytest.raises(RuntimeError, match="full"):
        first.begin(b"header")
    second = spools.create(bytes(16), TERMS, prev=PREV, challenge=CHALLENGE)
    assert not room(second)
    assert contents(first)[0] == 0
    assert room(first)


def test_a_spool_for_less_than_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one window"):
        Spools(tmp_path, max_bytes=FILE_MAX - 1)


def test_one_spool_per_session(tmp_path: Path) -> None:
    spools, spool = create(tmp_path)
    with pytest.raises(RuntimeError, match="there is a spool"):
        spools.create(SESSION, TERMS, prev=PREV, challenge=CHALLENGE)
    fill(spool, 1)
    with pytest.raises(RuntimeError, match="still holds"):
        spools.remove(spool)


def test_a_refused_session_is_kept_and_not_read_again(tmp_path: Path) -> None:
    spools, spool = create(tmp_path)
    fill(spool, 2)
    place = spools.set_aside(spool.path, "refused")
    assert (place / "window-0000000000000001").exists()
    assert spools.pending() == ()


class How(Enum):
    NOT_DONE = "not persisted"
    DONE = "persisted but reported failed"


class BreakingStorage:
    """Fails at operation number ``at``, before or after its effect."""

    def __init__(self, at: int, how: How, number: int = errno.EIO) -> None:
        self._disk = DiskStorage()
        self._at, self._how, self._number = at, how, number
        self.count = 0

    def write(self, path: Path, data: bytes) -> None:
        self._do(path, lambda: self._disk.write(path, data))

    def remove(self, path: Path) -> None:
        self._do(path, lambda: self._disk.remove(path))

    def space(self, path: Path) -> tuple[int, int]:
        return self._disk.space(path)

    def _do(self, path: Path, operation: Callable[[], None]) -> None:
        self.count += 1
        if self.count != self._at:
            operation()
            return
        if self._how is How.DONE:
            operation()
        raise write_fault(path, OSError(self._number, os.strerror(self._number)))


def _operations(tmp_path: Path) -> int:
    storage = BreakingStorage(0, How.DONE)
    witnessed(tmp_path / "count", storage, Witness())
    return storage.count


def test_every_write_broken_twice(tmp_path: Path) -> None:
    """At each operation, before and after its effect: what was committed is there, what was recorded is not, no gap."""
    total = _operations(tmp_path)
    assert total > 20
    for at, how in itertools.product(range(1, total + 1), How):
        root = tmp_path / f"{at}-{how.name}"
        storage = BreakingStorage(at, how)
        witness = Witness()
        with pytest.raises(EnvironmentFault) as caught:
            witnessed(root, storage, witness)
        assert caught.value.code is Code.FILE_UNWRITABLE
        spools = Spools(root).pending()
        if not spools:
            assert witness.committed == []
            assert list(root.iterdir()) == []
            continue
        (spool,) = spools
        first, last = spool.progress.seq, spool.next_seq
        # What the verifier has may be noted later than it was said.
        assert first <= len(witness.recorded) + 1
        assert last in {len(witness.committed), len(witness.committed) + 1}
        assert contents(spool) == list(range(first, last))


def test_a_disk_without_space_is_waited_for_at_every_write(tmp_path: Path) -> None:
    """At each operation, and the host goes on: a window is sealed later, or waits in memory, and none is lost."""
    for at, how in itertools.product(range(4, _operations(tmp_path) + 3), How):
        storage = BreakingStorage(at, how, errno.ENOSPC)
        _, spool = create(tmp_path / f"{at}-{how.name}", storage=storage)
        delivered: list[int] = []
        for step in "cccrcrkcrr":
            if step != "c":
                if not spool.backlog:
                    continue
                delivered.append(spool.progress.seq)
                if step == "r":
                    spool.record(spool.progress.seq, challenge=CHALLENGE)
                else:
                    spool.skip_to(spool.progress.seq + 1, challenge=CHALLENGE)
                continue
            assert spool.full() is None
            with contextlib.suppress(EnvironmentFault):
                spool.begin(b"header %d" % spool.next_seq)
                spool.commit(sealed(spool.next_seq))
        assert spool.full() is None
        assert delivered + contents(spool) == list(range(spool.next_seq))
        assert spool.next_seq in {4, 5}
        spool.save()
        assert contents(reopen(tmp_path / f"{at}-{how.name}")) == []


class NearlyFull(BreakingStorage):
    """A file system of 100 MiB with so much space left."""

    free = 100 << 20

    def space(self, path: Path) -> tuple[int, int]:
        assert path.is_dir()
        return 100 << 20, self.free


def test_a_backlog_leaves_space_to_others(tmp_path: Path) -> None:
    """A twentieth of the file system; the few windows that are on their way may take that, too."""
    disk = NearlyFull(0, How.DONE)
    _, spool = create(tmp_path, storage=disk)
    disk.free = FILE_MAX
    fill(spool, 4)
    assert spool.full() == "disk-full"
    disk.free = FILE_MAX + (5 << 20)
    assert spool.full() is None
    disk.free -= 1
    assert spool.full() == "disk-full"
    contents(spool)
    assert spool.full() is None
    disk.free = FILE_MAX - 1
    assert spool.full() == "disk-full"


def test_what_the_verifier_has_is_noted_for_every_window_or_every_sixteenth_of_a_backlog(tmp_path: Path) -> None:
    _, spool = create(tmp_path)
    fill(spool, 1)
    assert contents(spool) == [0]
    assert read_progress(spool.path / "progress").seq == 1
    fill(spool, 40)
    for seq in range(1, 41):
        spool.record(seq, challenge=CHALLENGE)
        noted = read_progress(spool.path / "progress").seq
        assert seq + 1 - noted < 16
        # What is not noted is still there: a crash sends it again.
        assert [int(path.name[-16:]) for path in sorted(spool.path.glob("window-*"))] == list(range(noted, 41))
    assert (spool.size, spool.backlog) == (0, 0)


class Witness:
    def __init__(self) -> None:
        self.committed: list[int] = []
        self.recorded: list[int] = []


def witnessed(root: Path, storage: SpoolStorage, witness: Witness) -> None:
    spools = Spools(root, storage=storage)
    spool = spools.create(SESSION, TERMS, prev=PREV, challenge=CHALLENGE)
    for step in "cccrcrkcrr":
        if step == "c":
            spool.begin(b"header %d" % spool.next_seq)
            spool.commit(sealed(spool.next_seq))
            witness.committed.append(spool.next_seq - 1)
        elif step == "r":
            spool.record(spool.progress.seq, challenge=CHALLENGE)
            witness.recorded.append(spool.progress.seq - 1)
        else:
            spool.skip_to(spool.progress.seq + 1, challenge=CHALLENGE)
            witness.recorded.append(spool.progress.seq - 1)


def test_after_a_failed_write_nothing_more_is_written(tmp_path: Path) -> None:
    storage = BreakingStorage(5, How.NOT_DONE)
    _, spool = create(tmp_path, storage=storage)
    spool.begin(b"header 0")
    with pytest.raises(EnvironmentFault):
        spool.commit(sealed(0))
    before = storage.count
    for write in (lambda: spool.begin(b"other"), lambda: spool.commit(sealed(0, b"other")), spool.full):
        with pytest.raises(EnvironmentFault, match="FILE_UNWRITABLE"):
            write()
    assert storage.count == before
    assert contents(reopen(tmp_path)) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The real thing: a file system that has no space for the next window."""
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        # Without the right to mount, the limit of this process for the size of files has the same effect.
        _full_by_limit(tmp_path)
        return
    try:
        spools = Spools(mount / "spool")
        spool = spools.create(SESSION, TERMS, prev=PREV, challenge=CHALLENGE)
        fill_large(spool)
        assert spool.full() == "disk-full"
        committed = spool.next_seq
        (again,) = Spools(mount / "spool").pending()
        assert again.next_seq == committed > 0
        assert not [path for path in again.path.iterdir() if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def fill_large(spool: Spool) -> None:
    with contextlib.suppress(EnvironmentFault):
        while not spool.late:
            spool.begin(b"header")
            spool.commit(
                SealedWindow(seq=spool.next_seq, evidence=bytes(40_000), digest=bytes(32), qualifying_data=bytes(32))
            )


def _full_by_limit(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from weighbridge.attester.sealing import SealedWindow
from weighbridge.attester.spool import Spools
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
spool = Spools(Path({str(tmp_path / "limited")!r})).create(bytes(16), b"t", prev=bytes(32), challenge=bytes(32))
spool.begin(b"h")
print(spool.commit(SealedWindow(seq=0, evidence=bytes(40_000), digest=bytes(32), qualifying_data=bytes(32))))
print(spool.full())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "disk-full"]
    (again,) = Spools(tmp_path / "limited").pending()
    assert again.next_seq == 0
    assert sorted(path.name for path in again.path.iterdir()) == ["progress", "session"]


SEALER = """
import sys
from pathlib import Path
from weighbridge.attester.sealing import SealedWindow
from weighbridge.attester.spool import Spools
from weighbridge.proto.digest import sha256
spool = Spools(Path(sys.argv[1])).create(bytes(range(16)), b"t", prev=bytes(32), challenge=bytes(32))
while True:
    seq = spool.next_seq
    spool.begin(b"header %d" % seq)
    name = b"%d" % seq
    spool.commit(SealedWindow(seq=seq, evidence=b"evidence " + name, digest=sha256(name), qualifying_data=bytes(32)))
    print(seq, flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_kill_9_of_a_sealing_process_loses_nothing_it_had_sealed(tmp_path: Path, after: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SEALER, str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = after + len(process.stdout.read().split())
    spool = reopen(tmp_path)
    assert spool.next_seq in {said, said + 1}
    assert contents(spool) == list(range(spool.next_seq))


@pytest.mark.parametrize("name", ["session", "progress", "window-0000000000000001", "window-0000000000000002"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "exchange"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    """When the spool is opened, or, of a window that is not the newest, when it is read."""
    _, spool = create(tmp_path)
    fill(spool, 3)
    path = spool.path / name
    data = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "truncate":
            path.write_bytes(data[: len(data) // 2])
        case "exchange":
            path.write_bytes((spool.path / "window-0000000000000000").read_bytes())
        case _:
            path.unlink()
    if (name, damage) == ("session", "delete"):
        # Without it the directory is what a crash leaves of a session that had not begun.
        assert Spools(tmp_path / "spool").pending() == ()
        return
    if (name, damage) == ("session", "flip"):
        # The terms' own signature shows it; the spool only keeps them.
        return
    if (name[-1], damage) == ("2", "delete"):
        # A crash before it was committed leaves the same: nothing of it was released.
        assert contents(reopen(tmp_path)) == [0, 1]
        return
    with pytest.raises(EnvironmentFault) as caught:
        contents(reopen(tmp_path))
    assert caught.value.code in {Code.STATE_CORRUPT, Code.FILE_UNREADABLE}
    assert caught.value.where == str(path)


def test_a_spool_in_anothers_directory_is_refused(tmp_path: Path) -> None:
    _, spool = create(tmp_path)
    spool.path.rename(spool.path.with_name("ff" * 16))
    with pytest.raises(EnvironmentFault) as caught:
        reopen(tmp_path)
    assert caught.value.code is Code.STATE_CORRUPT


READERS: dict[str, Callable[[Path], object]] = {
    "session": read_session,
    "progress": read_progress,
    "window": lambda path: read_window(path, 1),
}
VALID = {
    "session": encode_session(SESSION, TERMS),
    "progress": encode_progress(Progress(3, PREV, CHALLENGE, SPOT)),
    "window": encode_window(SpooledWindow(1, PREV, b"evidence")),
}


@pytest.mark.parametrize("kind", sorted(READERS))
@given(data=st.data())
def test_readers_are_total(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    """Any bytes give a value or ``STATE_CORRUPT`` with the path."""
    valid = VALID[kind]
    mutated = st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)).map(
        lambda change: valid[: change[0]] + bytes([change[1]]) + valid[change[0] + 1 :]
    )
    content = data.draw(st.one_of(st.binary(max_size=64), mutated))
    folder = tmp_path_factory.mktemp("total") / SESSION.hex()
    folder.mkdir()
    path = folder / kind
    path.write_bytes(content)
    found: EnvironmentFault | None = None
    try:
        READERS[kind](path)
    except EnvironmentFault as error:
        found = error
    assert found is None or (found.code, found.where) == (Code.STATE_CORRUPT, str(path))
