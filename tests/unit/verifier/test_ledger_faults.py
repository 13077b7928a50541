"""Every write of an append broken, in every way, and power cut between any two: the ledger stays one history."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.broken_files import Broken, FaultyFiles, PowerCut, VolatileFiles
from weighbridge.proto import merkle, note, tlog
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.ledger import Ledger, LedgerReader, audit

ORIGIN = "ledger.example/windows"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOTE_KEY = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw())

# Sizes before the broken append of ten: nothing, within a tile, and one where it completes a tile.
STARTS = (0, 3, 250)


def batch(tag: str, count: int = 10) -> list[bytes]:
    return [f"{tag} {number}".encode() for number in range(count)]


def check(directory: Path, shown: set[bytes], promised: list[tuple[int, list[bytes]]]) -> tlog.VerifiedCheckpoint:
    """The whole tree holds, extends every checkpoint that anybody saw, and has all that was promised."""
    for earlier in shown:
        audit(directory, NOTE_KEY, ORIGIN, earlier=earlier)
    reader = LedgerReader.open(directory, key=NOTE_KEY, origin=ORIGIN)
    for first, entries in promised:
        # The audit has shown that entries and tree agree, so the two ends will do.
        assert reader.entry(first) == entries[0]
        assert reader.entry(first + len(entries) - 1) == entries[-1]
    return reader.checkpoint


@pytest.mark.parametrize("how", Broken)
@pytest.mark.parametrize("start", STARTS)
def test_every_write_broken(tmp_path: Path, start: int, how: Broken) -> None:
    """After the fault: reported as this machine's, storage whole, and both going on and starting again work."""
    at = 0
    while True:
        at += 1
        directory = tmp_path / str(at)
        files = FaultyFiles(how=how)
        ledger = Ledger.create(directory, origin=ORIGIN, key=KEY, files=files)
        promised: list[tuple[int, list[bytes]]] = []
        shown = {ledger.checkpoint()}
        if start:
            promised.append((ledger.append(batch("before", start)).first_index, batch("before", start)))
            shown.add(ledger.checkpoint())
        files.arm(at)
        try:
            ledger.append(batch("broken"))
        except EnvironmentFault as error:
            assert error.code is Code.DISK_FULL  # noqa: PT017 - the end of the loop is the append that succeeds
        else:
            ledger.close()
            break
        shown.add((directory / "checkpoint").read_bytes())
        size = check(directory, shown, promised).size
        assert size in {start, start + 10}
        # A reported failure may have been a commit; the disk says which.
        ledger.settle()
        assert ledger.size in {start, start + 10}
        if at % 2:
            ledger.close()
            ledger = Ledger.open(directory, origin=ORIGIN, key=KEY)
        shown.add(ledger.checkpoint())
        for tag in ("after", "later"):
            appended = ledger.append(batch(tag))
            promised.append((appended.first_index, batch(tag)))
            shown.add(appended.checkpoint_note)
        check(directory, shown, promised)
        ledger.close()
    # Two files of tiles, the head and the checkpoint are the least that an append writes.
    assert at > 8


def test_a_failed_append_that_was_committed_is_found(tmp_path: Path) -> None:
    """The commit was reported as failed, yet it is on disk: the writer goes on from it and never signs beside it."""
    files = FaultyFiles(how=Broken.DONE)
    ledger = Ledger.create(tmp_path / "l", origin=ORIGIN, key=KEY, files=files)
    ledger.append([b"first"])
    outcomes: set[int] = set()
    for at in range(1, 13):
        files.arm(at)
        before = ledger.size
        try:
            ledger.append([b"x"])
        except EnvironmentFault:
            ledger.settle()
            outcomes.add(ledger.size - before)
    assert outcomes == {0, 1}
    ledger.close()


def test_settling_may_fail_and_be_repeated(tmp_path: Path) -> None:
    files = FaultyFiles(how=Broken.DONE)
    ledger = Ledger.create(tmp_path / "l", origin=ORIGIN, key=KEY, files=files)
    ledger.append([b"x"])
    for at in range(1, 7):
        files.arm(1)
        with pytest.raises(EnvironmentFault):
            ledger.append([b"y"])
        # The next append settles first; that fails as well, and nothing is lost.
        files.arm(at)
        with pytest.raises(EnvironmentFault):
            ledger.append([b"y"])
    assert ledger.append([b"z"]).size == 2
    ledger.close()


@pytest.mark.parametrize("start", STARTS)
def test_power_cut_anywhere(tmp_path: Path, start: int) -> None:
    """Unsynced names survive or not, each for itself; whatever the disk is found with, it opens and is one history."""
    chance = random.Random(start)
    cut = 0
    while True:
        root = tmp_path / str(cut)
        shown: set[bytes] = set()

        def watch(root: Path = root, shown: set[bytes] = shown) -> None:
            if (root / "checkpoint").exists():
                shown.add((root / "checkpoint").read_bytes())

        # The parent's names are modelled too: the ledger's own directory has to be synced into it.
        files = VolatileFiles(tmp_path, watch=watch)
        ledger = Ledger.create(root, origin=ORIGIN, key=KEY, files=files)
        promised: list[tuple[int, list[bytes]]] = []
        if start:
            promised.append((ledger.append(batch("before", start)).first_index, batch("before", start)))
        files.cut_after = files.count + cut
        done = False
        try:
            promised.append((ledger.append(batch("cut")).first_index, batch("cut")))
            done = True
        except PowerCut:
            pass
        ledger.close()
        choices: list[Callable[[Path], bool]] = [lambda _: False, lambda _: True, lambda _: chance.random() < 0.5]
        for number, kept in enumerate(choices):
            found = tmp_path.parent / f"found-{start}-{cut}-{number}"
            files.survive(found, kept)
            directory = found / str(cut)
            with Ledger.open(directory, origin=ORIGIN, key=KEY) as again:
                assert again.size in {start, start + 10}
                check(directory, shown, promised)
                shown_again = shown | {again.checkpoint()}
                after = again.append(batch("after"))
                check(directory, shown_again, [*promised, (after.first_index, batch("after"))])
        if done:
            break
        cut += 1
    assert cut > 8


@pytest.mark.parametrize("how", Broken)
def test_fault_and_then_power_cut(tmp_path: Path, how: Broken) -> None:
    """An append that follows a failed one is durable by itself: it relies on no name that the other left behind."""
    at, done = 0, False
    while not done:
        at += 1
        root = tmp_path / str(at)
        root.mkdir()
        disk = VolatileFiles(root)
        files = FaultyFiles(how=how, inner=disk)
        ledger = Ledger.create(root / "l", origin=ORIGIN, key=KEY, files=files)
        files.arm(at)
        try:
            ledger.append(batch("broken"))
            done = True
        except EnvironmentFault:
            pass
        files.arm(0)
        appended = ledger.append(batch("after"))
        ledger.close()
        disk.survive(tmp_path / f"found-{at}", lambda _: False)
        with Ledger.open(tmp_path / f"found-{at}" / "l", origin=ORIGIN, key=KEY) as again:
            assert again.checkpoint() == appended.checkpoint_note
        check(tmp_path / f"found-{at}" / "l", {appended.checkpoint_note}, [(appended.first_index, batch("after"))])
    assert at > 8


WRITER = """
import sys
from collections.abc import Callable
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from weighbridge.verifier.ledger import Ledger

key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ledger = Ledger.create(Path(sys.argv[1]), origin=sys.argv[2], key=key)
while True:
    appended = ledger.append([b"entry %d" % (ledger.size + at) for at in range(100)])
    print(appended.size, flush=True)
"""


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """kill -9 while it appends: what was acknowledged is there, and its lock does not outlive the process."""
    directory = tmp_path / "ledger"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), ORIGIN], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert writer.stdout is not None
    with writer.stdout as lines:
        acknowledged = 0
        for line in lines:
            acknowledged = int(line)
            if acknowledged >= 2000:
                break
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, lines)])
    writer.wait()
    with Ledger.open(directory, origin=ORIGIN, key=KEY) as ledger:
        assert ledger.size in {acknowledged, acknowledged + 100}
        expected = [b"entry %d" % number for number in range(ledger.size)]
        assert ledger.root == merkle.root([merkle.leaf_hash(entry) for entry in expected])
        ledger.append([b"after"])
    assert audit(directory, NOTE_KEY, ORIGIN).size == len(expected) + 1
