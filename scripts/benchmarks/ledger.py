"""What recording costs: windows a second made durable, how long they wait, a log of ten million entries, a bundle.

- `append_durable_per_s`: evidence (10 KB, of which a certificate chain is shared), record and leaf of windows, recorded
  128 at a time by the embedded default (content store and ledger in a directory) until a power failure cannot take them
  away. Floor: the same bytes, appended to one file and synced as often.
- `append_p99_ms`: windows arrive at an even rate, whatever becomes of them; those that wait when the syncs of the last
  turn are done go into the next. How long 99 of 100 wait, from arrival until recorded; at 5,000 windows a second, or at
  four fifths of what was reached, where that is less.
- `open_10m_s`: a writer's opening, the checkpoint verified and the tree's edge with it. The entries are alike, so the
  log's files are made by linking; none of those that opening or proving reads is special.
- `inclusion_ms`: the proof of one entry, found by chance, read, verified under the checkpoint and written down.
- `bundle_1h_...`: a proof bundle of one hour of a host with eight GPUs.

Judging is not in the first two (`scripts/bench window`), nor is the database of sessions. Files lie where temporary
files do (`--dir`); what that disk's sync costs by itself is measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _bundle import bundle_hour
from _figures import Figure, main, median_seconds
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from weighbridge.proto import merkle, note, tlog
from weighbridge.proto.digest import sha256
from weighbridge.verifier.archive import Archive
from weighbridge.verifier.files import PosixFiles
from weighbridge.verifier.leadership import FileLeadership
from weighbridge.verifier.ledger import Content, ContentStore, Ledger, edge
from weighbridge.verifier.ledger.published import CHECKPOINT
from weighbridge.verifier.ledger.storage import HEAD
from weighbridge.verifier.record import ChallengePreimage, Leaf, Record

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

_ORIGIN: Final = "bench.example/windows"
_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
_OFFERED: Final = 5_000
_TURN: Final = 128
_MACHINES: Final = 500
_CHAIN: Final = 4_300
_OWN: Final = 5_900

_Window = tuple[Record, Content]


@dataclass(frozen=True)
class _Effort:
    windows: int
    seconds: float
    entries: int
    runs: int
    bundled: int


_FULL: Final = _Effort(windows=20_000, seconds=8.0, entries=10_000_000, runs=25, bundled=360)
_QUICK: Final = _Effort(windows=512, seconds=0.2, entries=70_000, runs=3, bundled=4)


def measure(effort: _Effort, directory: Path) -> Iterator[Figure]:
    """All figures; ``directory`` is empty."""
    yield Figure("ledger: processors", os.cpu_count() or 0, "cores")
    yield Figure("ledger: load before", os.getloadavg()[0], "processes")
    yield from _disk(directory, effort)
    archive = _archive(directory / "appended")
    chains = [secrets.token_bytes(_CHAIN) for _ in range(_MACHINES)]
    reached = yield from _appended(archive, effort, directory, chains)
    offered = min(_OFFERED, reached * 4 / 5)
    yield Figure("ledger: windows that arrive", offered, "per second")
    yield from _waited(archive, offered, _windows(int(offered * effort.seconds), chains))
    archive.ledger.close()
    shutil.rmtree(directory / "appended")
    yield from _grown(directory / "grown", effort)
    (directory / "bundle").mkdir()
    yield from bundle_hour(directory / "bundle", windows=effort.bundled)
    yield Figure("ledger: load after", os.getloadavg()[0], "processes")


def _disk(directory: Path, effort: _Effort) -> Iterator[Figure]:
    """What a sync costs by itself: of 10 KB at the end of a file, and of a new file with its name."""
    files, path, data = PosixFiles(), directory / "floor", secrets.token_bytes(_OWN + _CHAIN)
    at = 0

    def extend() -> None:
        nonlocal at
        files.extend(path, data, at=at, mode=0o600)
        at += len(data)

    cost = median_seconds(extend, runs=8 * effort.runs)
    path.unlink()
    yield Figure("ledger: the disk's syncs", 1 / cost, "per second")
    yield Figure("ledger: one sync", cost * 1e3, "ms")


def _archive(directory: Path) -> Archive:
    directory.mkdir()
    ledger = Ledger.create(directory / "ledger", origin=_ORIGIN, key=_KEY)
    return Archive(ContentStore(directory / "content"), ledger, FileLeadership(directory / "turns"))


def _commit(archive: Archive, windows: Sequence[_Window]) -> None:
    """As the verifier does: in a turn."""
    with archive.turn():
        _ = archive.commit_all(windows)


def _windows(count: int, chains: Sequence[bytes]) -> list[_Window]:
    """Windows of many machines, each with a chain of its own in all of its evidence."""
    # As long as a verdict, and as much like the others.
    verdict = b"".join(b'"finding %d of a verdict":null,' % number for number in range(100))
    made: list[_Window] = []
    for number in range(count):
        machine = number % len(chains)
        evidence = secrets.token_bytes(_OWN) + chains[machine]
        record = Record(
            kind="window",
            session=machine.to_bytes(16),
            seq=number // len(chains),
            received_ns=number,
            held=False,
            preimage=ChallengePreimage(secrets.token_bytes(32), secrets.token_bytes(32)),
            opening=None,
            terms=None,
            secret=None,
            window=secrets.token_bytes(32),
            evidence=sha256(evidence),
            policy=bytes(32),
            reference=bytes(32),
            requirements=None,
            verdict=verdict + secrets.token_hex(16).encode(),
            spot=None,
            collateral=bytes(32),
            history=None,
            previous=secrets.token_bytes(32),
        )
        made.append((record, Content(evidence, (chains[machine],))))
    return made


def _appended(
    archive: Archive, effort: _Effort, directory: Path, chains: Sequence[bytes]
) -> Generator[Figure, None, float]:
    """As many as can be; returns how many a second that is."""
    windows = _windows(effort.windows, chains)
    # The chains are there from the machines' first windows on.
    _commit(archive, _windows(len(chains), chains))
    before = _size(directory / "appended")
    started, busy = time.perf_counter(), time.process_time()
    for first in range(0, len(windows), _TURN):
        _commit(archive, windows[first : first + _TURN])
    reached = len(windows) / (time.perf_counter() - started)
    busy = (time.process_time() - busy) / len(windows)
    stored = (_size(directory / "appended") - before) / len(windows)
    yield Figure("append_durable_per_s", reached, "per second", floor=_bare(windows, directory))
    yield Figure("ledger: CPU for one of them", busy * 1e6, "microseconds")
    sent = sum(len(record.encode()) + len(content.data) for record, content in windows) / len(windows)
    yield Figure("ledger: a window's evidence and record", sent, "bytes")
    yield Figure("ledger: of these on disk, the ledger with them", stored, "bytes")
    return reached


def _bare(windows: Sequence[_Window], directory: Path) -> float:
    """Windows a second, if all that is to be done were to append their bytes to a file."""
    files, path, at = PosixFiles(), directory / "floor", 0
    turns = [
        b"".join(record.encode() + content.data for record, content in windows[first : first + _TURN])
        for first in range(0, len(windows), _TURN)
    ]
    started = time.perf_counter()
    for data in turns:
        files.extend(path, data, at=at, mode=0o600)
        at += len(data)
    took = time.perf_counter() - started
    path.unlink()
    return len(windows) / took


def _waited(archive: Archive, offered: float, given: Sequence[_Window]) -> Iterator[Figure]:
    """How long windows wait that arrive evenly, ``offered`` in each second."""
    windows = deque(enumerate(given))
    # A service has only those that wait: Python's search for cycles must not go through all that are to come.
    gc.collect()
    gc.freeze()
    waited: list[float] = []
    turns = 0
    started = time.perf_counter()
    while windows:
        now = time.perf_counter() - started
        turn: list[tuple[float, _Window]] = []
        while windows and (arrived := windows[0][0] / offered) <= now and len(turn) < 2 * _TURN:
            turn.append((arrived, windows.popleft()[1]))
        if not turn:
            time.sleep(max(0.0, windows[0][0] / offered - now))
            continue
        _commit(archive, [window for _, window in turn])
        done = time.perf_counter() - started
        waited += [done - arrived for arrived, _ in turn]
        turns += 1
    gc.unfreeze()
    waited.sort()
    yield Figure("append_p99_ms", waited[len(waited) * 99 // 100] * 1e3, "ms")
    yield Figure("append_p50_ms", statistics.median(waited) * 1e3, "ms")
    yield Figure("ledger: windows that share a turn", len(waited) / turns, "windows")


def _grown(directory: Path, effort: _Effort) -> Iterator[Figure]:
    """Opening a log of many entries, and proving some of them."""
    _make_log(directory, effort.entries)

    def opened() -> None:
        Ledger.open(directory, origin=_ORIGIN, key=_KEY).close()

    yield Figure("open_10m_s", median_seconds(opened, runs=effort.runs), "s")
    ledger = Ledger.open(directory, origin=_ORIGIN, key=_KEY)

    def proven() -> None:
        # Another reader each time: nothing is remembered of the proof before.
        _ = ledger.reader().proof(secrets.randbelow(effort.entries)).encode()

    yield Figure("inclusion_ms", median_seconds(proven, runs=40 * effort.runs) * 1e3, "ms")
    yield Figure("ledger: entries of the log that is opened", effort.entries, "entries")
    ledger.close()


def _make_log(directory: Path, size: int) -> None:
    """A ledger of ``size`` entries, all alike: so are its full tiles at each level, and each is written once."""
    Ledger.create(directory, origin=_ORIGIN, key=_KEY).close()
    entry = Leaf.of(Record.note("junk", session=bytes(16), seq=None, received_ns=0, verdict=b"{}")).encode()
    hashed, levels, level = merkle.leaf_hash(entry), list[tuple[bytes, ...]](), 0
    while size >> (tlog.TILE_HEIGHT * level):
        full, rest = divmod(size >> (tlog.TILE_HEIGHT * level), tlog.TILE_WIDTH)
        tile = [hashed] * tlog.TILE_WIDTH
        _link(directory, [tlog.tile_path(level, number) for number in range(full)], tlog.encode_tile(tile))
        if rest:
            _link(directory, [tlog.tile_path(level, full, rest)], tlog.encode_tile(tile[:rest]))
        if level == 0:
            _link(
                directory,
                [tlog.entries_path(number) for number in range(full)],
                tlog.encode_bundle([entry] * tlog.TILE_WIDTH),
            )
            if rest:
                _link(directory, [tlog.entries_path(full, rest)], tlog.encode_bundle([entry] * rest))
        levels.append(tuple(tile[:rest]))
        hashed, level = merkle.root(tile), level + 1
    made = edge.load(
        size,
        lambda level, _, width: tlog.encode_tile(levels[level][:width]),
        lambda _, width: tlog.encode_bundle([entry] * width),
    )
    key = note.NoteKey(_ORIGIN, _KEY.public_key().public_bytes_raw())
    text = tlog.Checkpoint(_ORIGIN, size, made.tree.root).encode()
    signed = note.sign(text, key=key, signer=_KEY.sign)
    for name in (HEAD, CHECKPOINT):
        (directory / name).write_bytes(signed)


def _link(directory: Path, names: Sequence[str], data: bytes) -> None:
    """Files of one content, which is written once."""
    made: set[Path] = set()
    for name in names:
        path = directory / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        if name == names[0]:
            path.write_bytes(data)
        else:
            path.hardlink_to(directory / names[0])


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _command(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench ledger", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="where files are written (default: the temporary directory)")
    parser.add_argument("--quick", action="store_true", help="few windows, a small log: the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    args = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="weighbridge-bench-", dir=args.dir))
    try:
        return main(lambda: measure(_QUICK if args.quick else _FULL, directory), ["--json"] if args.json else [])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
