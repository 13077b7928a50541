"""Fuzzes for as long as one likes, and goes on from where it was: what ``scripts/fuzz`` runs.

Everything is imported, and counted, in one process, which then forks one process for each target: libFuzzer ends the
process that it runs in. Corpora, failures and logs lie in ``.fuzz`` (:class:`Place`). An input for which a property
does not hold is kept, once for each place where it failed, and fuzzing goes on; what ends the process (a time-out,
memory, a crash of native code) is kept by libFuzzer.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fuzz import seeding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuzz.target import Target

__all__ = ["Outcome", "Place", "Slice", "failure_name", "run"]

_SEED_MAX: Final = 64 * 1024
_TIMEOUT_S: Final = 25
_RSS_MAX_MB: Final = 3072
_STATS: Final = re.compile(r"stat::(number_of_executed_units|new_units_added):\s+([0-9]+)")
_COVERED: Final = re.compile(r"#[0-9]+\s+(INITED|NEW|REDUCE|DONE|pulse)\s+cov: ([0-9]+) ft: [0-9]+ corp: ([0-9]+)/")


@dataclass(frozen=True)
class Place:
    """Where corpora, failures and logs of targets lie."""

    root: Path

    def of(self, kind: str, target: str) -> Path:
        """A folder of one target, made where it is not there."""
        folder = self.root / kind / target
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Slice:
    """A target and its time in seconds."""

    target: Target
    seconds: int


@dataclass
class Outcome:
    """What came of one target: inputs tried, branches covered at first and at last, inputs kept, failures."""

    target: str
    seconds: float = 0.0
    executions: int = 0
    covered_before: int = 0
    covered: int = 0
    corpus: int = 0
    crashes: list[str] = field(default_factory=list)

    def read(self, log: str) -> None:
        """Take the figures out of libFuzzer's log."""
        for name, value in _STATS.findall(log):
            if name == "number_of_executed_units":
                self.executions = int(value)
        seen = _COVERED.findall(log)
        if seen:
            self.covered_before, self.covered, self.corpus = int(seen[0][1]), int(seen[-1][1]), int(seen[-1][2])

    def document(self) -> dict[str, object]:
        """As JSON."""
        rate = round(self.executions / self.seconds) if self.seconds else 0
        return {**asdict(self), "seconds": round(self.seconds, 1), "executions_per_second": rate}


def run(slices: Sequence[Slice], place: Place, *, jobs: int, tell: Callable[[Outcome, int], None]) -> list[Outcome]:
    """Fuzz each target for its time, ``jobs`` at once; ``tell`` hears of each that has ended, and how many are left."""
    waiting, running, ended = list(slices), dict[int, tuple[Outcome, float]](), list[Outcome]()
    while waiting or running:
        while waiting and len(running) < jobs:
            chosen = waiting.pop(0)
            running[_started(chosen, place)] = Outcome(chosen.target.name), time.monotonic()
        process, _ = os.wait()
        if process not in running:
            continue
        outcome, began = running.pop(process)
        outcome.seconds = time.monotonic() - began
        outcome.read((place.of("logs", outcome.target) / "log").read_text(errors="replace"))
        outcome.crashes = sorted(str(path) for path in place.of("crashes", outcome.target).iterdir())
        ended.append(outcome)
        tell(outcome, len(waiting) + len(running))
    return ended


def _started(chosen: Slice, place: Place) -> int:
    """The process that fuzzes one target."""
    process = os.fork()
    if process:
        return process
    log = os.open(place.of("logs", chosen.target.name) / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        _fuzz(chosen, place)
    except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent would
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _fuzz(chosen: Slice, place: Place) -> NoReturn:
    atheris: Any = import_module("atheris")  # a peer, that only a long run needs

    target = chosen.target
    corpus, crashes = place.of("corpus", target.name), place.of("crashes", target.name)
    seeding.seed(target, corpus, limit=_SEED_MAX)
    known = {path.name for path in crashes.iterdir()}

    def one(data: bytes) -> None:
        try:
            target.accepts(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            if (name := failure_name(error)) not in known:
                known.add(name)
                (crashes / name).write_bytes(data)

    options = {
        "max_total_time": chosen.seconds,
        "timeout": _TIMEOUT_S,
        "rss_limit_mb": _RSS_MAX_MB,
        "artifact_prefix": f"{crashes}/",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    atheris.Setup(["fuzz", str(corpus), *(f"-{name}={value}" for name, value in options.items())], one)
    atheris.Fuzz()
    raise SystemExit


def failure_name(error: Exception) -> str:
    """The name of a failure: what was raised, and where in our code; one input is kept of each."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/weighbridge/" in frame.filename]
    where = f"{Path(frames[-1].filename).stem}-{frames[-1].lineno}" if frames else str(error)[:48]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{type(error).__name__}-{where}")
