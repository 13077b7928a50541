"""Measuring a model of four files, warm and cold, beside reading it, sha256sum, b3sum and model_signing.

Four safetensors files of 24 tensors of 64 MiB each, 6 GiB in all, are written to a temporary directory. Ours is the
product's `measure`: it walks, parses, hashes by tensor and builds the manifest. Everything is measured in turns, each
first warm (the files are in the page cache) and then cold (synced, then dropped by `posix_fadvise(DONTNEED)`; a disk
of a virtual machine may still have them in its host's memory). Figures are GB/s, the best of the rounds.

The floors: reading the files without looking at them, by as many threads as there are cores; and what one core's
`hashlib` makes of a megabyte that is in its cache, times the cores. A ratio is figure to floor, or figure to peer: more
is better.

The peers: `sha256sum` as one would call it, on all files (one thread; one round); `b3sum`; the hashing of
`model_signing`, by files and by shards, timed by itself within its own interpreter. One that is not installed is left
out.

Last, what answering a spot check costs the host, of this model and of a small one (`scripts/bench spot`).

`--dir DIR` chooses the disk. `--quick` takes four files of 32 MiB and one round: it shows that the benchmark runs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import spot
from _figures import Figure, main

from weighbridge.attester.weights import measure as measure_model
from weighbridge.attester.weights.hashing import cores
from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_FILES: Final = 4
_MIB: Final = 1 << 20
_UNIT: Final = "GB/s"
_READ, _SHA256, _BLAKE3 = "reading the files", "measure, SHA-256", "measure, BLAKE3"
_SHA256SUM, _B3SUM = "sha256sum", "b3sum"
_SIGNING_FILES, _SIGNING_SHARDS = "model_signing, files, SHA-256", "model_signing, shards, SHA-256"
_SIGNING_BLAKE3 = "model_signing, files, BLAKE3"
_CORE: Final = "one core's hashlib, in its cache, times the cores"
# Run by the peer's interpreter: its imports take seconds, and are nobody's hashing.
_SIGNING: Final = """
import pathlib, sys, time
import model_signing.hashing as hashing
path, method, algorithm = sys.argv[1:]
config = hashing.Config()
make = config.use_file_serialization if method == "files" else config.use_shard_serialization
make(hashing_algorithm=algorithm)
started = time.perf_counter()
config.hash(pathlib.Path(path))
print(time.perf_counter() - started)
"""


@dataclass(frozen=True, slots=True)
class _Effort:
    """How large and how often: tensors of a file and their bytes, rounds."""

    tensors: int
    tensor: int
    rounds: int

    @property
    def size(self) -> int:
        return _FILES * self.tensors * self.tensor


_FULL: Final = _Effort(tensors=24, tensor=64 * _MIB, rounds=3)
_QUICK: Final = _Effort(tensors=4, tensor=8 * _MIB, rounds=1)


def measure(effort: _Effort, directory: Path) -> Iterator[Figure]:
    """All figures; ``directory`` is empty, on the disk whose speed is to be measured."""
    yield Figure("measuring: processors", os.cpu_count() or 0, "cores")
    yield Figure("measuring: load before", os.getloadavg()[0], "processes")
    files = [_write(directory / f"model-{number}.safetensors", effort) for number in range(_FILES)]
    size = sum(file.stat().st_size for file in files)
    core: list[float] = []
    warm: dict[str, list[float]] = {}
    cold: dict[str, list[float]] = {}
    for number in range(effort.rounds):
        core.append(_core_rate())
        for name, work in _candidates(directory, files).items():
            if name == _SHA256SUM and number:
                continue
            # The first reading of a round fills the page cache for all.
            if name == _READ:
                _read_all(files)
            warm.setdefault(name, []).append(size / work() / 1e9)
            _drop(files)
            cold.setdefault(name, []).append(size / work() / 1e9)
            _read_all(files)
    floor = max(core) * cores()
    best = {label: {name: max(rates) for name, rates in found.items()} for label, found in _pairs(warm, cold)}
    yield Figure(f"warm: {_CORE}", floor, _UNIT)
    for label, rates in best.items():
        for name, rate in rates.items():
            yield Figure(f"{label}: {name}", rate, _UNIT)
    yield from _ratios(best["warm"], best["cold"], floor)
    for label, model in (("90 MB", spot.minilm()), (f"{size / 1024**3:.3g} GiB", directory)):
        yield from spot.of_model(label, model, spot.FULL if effort is _FULL else spot.QUICK)
    yield Figure("measuring: load after", os.getloadavg()[0], "processes")


def _pairs(
    warm: dict[str, list[float]], cold: dict[str, list[float]]
) -> tuple[tuple[str, dict[str, list[float]]], ...]:
    return ("warm", warm), ("cold", cold)


def _ratios(warm: dict[str, float], cold: dict[str, float], floor: float) -> Iterator[Figure]:
    ours, quick = warm[_SHA256], warm[_BLAKE3]
    yield Figure("sha256_warm_vs_floor", ours, _UNIT, floor=floor)
    yield Figure("sha256_cold_vs_read", cold[_SHA256], _UNIT, floor=cold[_READ])
    yield Figure("blake3_warm_vs_read", quick, _UNIT, floor=warm[_READ])
    yield Figure("blake3_cold_vs_read", cold[_BLAKE3], _UNIT, floor=cold[_READ])
    signing = [warm[name] for name in (_SIGNING_FILES, _SIGNING_SHARDS) if name in warm]
    for name, figure, peer in (
        ("sha256_vs_sha256sum", ours, warm.get(_SHA256SUM)),
        ("sha256_vs_model_signing", ours, max(signing, default=None)),
        ("blake3_vs_b3sum", quick, warm.get(_B3SUM)),
        ("blake3_vs_model_signing", quick, warm.get(_SIGNING_BLAKE3)),
    ):
        if peer is not None:
            yield Figure(name, figure, _UNIT, peer=peer, ratio=figure / peer)


def _candidates(directory: Path, files: Sequence[Path]) -> dict[str, Callable[[], float]]:
    """What hashes the files, and how long it took in seconds: the floor, ours, then the peers there are."""
    found: dict[str, Callable[[], float]] = {
        _READ: lambda: _timed(lambda: _read_all(files)),
        _SHA256: lambda: _timed(lambda: measure_model(directory)),
        _BLAKE3: lambda: _timed(lambda: measure_model(directory, algorithm="blake3")),
    }
    for tool in (_SHA256SUM, _B3SUM):
        program = shutil.which(tool)
        if program is not None:
            found[tool] = _tool(program, files)
    signing = _ROOT / ".peers" / "model-signing" / "bin" / "python"
    if signing.exists():
        found[_SIGNING_FILES] = _signing(signing, directory, "files", "sha256")
        found[_SIGNING_SHARDS] = _signing(signing, directory, "shards", "sha256")
        found[_SIGNING_BLAKE3] = _signing(signing, directory, "files", "blake3")
    return found


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _tool(program: str, files: Sequence[Path]) -> Callable[[], float]:
    command = [program, *map(str, files)]
    return lambda: _timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))


def _signing(python: Path, directory: Path, method: str, algorithm: str) -> Callable[[], float]:
    command = [str(python), "-I", "-c", _SIGNING, str(directory), method, algorithm]
    return lambda: float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _core_rate() -> float:
    """GB/s of SHA-256 by one thread over a megabyte that stays in the cache."""
    data, digest, repeated = bytes(_MIB), hashlib.sha256(), 500
    started = time.perf_counter()
    for _ in range(repeated):
        digest.update(data)
    return repeated * _MIB / (time.perf_counter() - started) / 1e9


def _read_all(files: Sequence[Path]) -> None:
    """Read every file, in 64 MiB stretches, by as many threads as there are cores."""
    stretches = [(file, begin) for file in files for begin in range(0, file.stat().st_size, 64 * _MIB)]

    def work() -> None:
        buffer = memoryview(bytearray(_MIB))
        while True:
            try:
                file, begin = stretches.pop(0)
            except IndexError:
                return
            with file.open("rb", buffering=0) as stream:
                os.posix_fadvise(stream.fileno(), begin, 64 * _MIB, os.POSIX_FADV_WILLNEED)
                for offset in range(begin, begin + 64 * _MIB, _MIB):
                    if not os.preadv(stream.fileno(), [buffer], offset):
                        break

    threads = [threading.Thread(target=work) for _ in range(cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _drop(files: Sequence[Path]) -> None:
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _write(path: Path, effort: _Effort) -> Path:
    """A safetensors file; random bytes, the same in each tensor but for its first ones."""
    size = effort.tensor
    header = {
        f"layer.{index}.weight": {"dtype": "U8", "shape": [size], "data_offsets": [index * size, (index + 1) * size]}
        for index in range(effort.tensors)
    }
    encoded = strict.json_encode(header)
    encoded += b" " * (-len(encoded) % 8)
    block = secrets.token_bytes(size - 32)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _ in range(effort.tensors):
            file.write(secrets.token_bytes(32) + block)
        file.flush()
        os.fsync(file.fileno())
    return path


def _command(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench measure", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="where the model is written (default: the temporary directory)")
    parser.add_argument("--quick", action="store_true", help="a small model, one round: the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    args = parser.parse_args(arguments)
    effort = _QUICK if args.quick else _FULL
    base = Path(args.dir or tempfile.gettempdir())
    needed = effort.size + effort.size // 10
    free = shutil.disk_usage(base).free
    if free < needed:
        print(f"bench: error: {base} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} are needed", file=sys.stderr)
        print("hint: name a directory on another disk with --dir", file=sys.stderr)
        return 8
    directory = Path(tempfile.mkdtemp(prefix="weighbridge-bench-", dir=base))
    try:
        return main(lambda: measure(effort, directory), ["--json"] if args.json else [])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
