"""GPU reports verified, and compared with their manifests: beside the bare signature check, and NVIDIA's verifier.

The floor is one P-384 verification by `cryptography` over the same bytes, its key parsed and its signature encoded.
The evidence is that of emulated H100s: NVIDIA's formats byte for byte, accepted by NVIDIA's verifier, under roots of
their own, which both sides are given. A report is verified as a session does it, from its bytes.

- *warm*: the device was seen before, in this session or another.
- *first*: it was not, but one of the same provisioner was: its own two certificates are left to check.
- *with manifests*: all measurements are compared too, with both manifests loaded.

NVIDIA's (`nv-local-gpu-verifier` 2.7.3) judges the same evidence in the same run, in turns with ours, in a process of
its own. It is spared what waits for the network: OCSP is good and manifests are at hand. Its log is silent.

- *warm*: a process that has judged before, call against call. Theirs keeps nothing from one to the next; ours keeps
  chains and manifests, which *uncached* leaves out: there both do everything again.
- *cold*: from the start of an interpreter to its end, with all imports.

Without NVIDIA's verifier (`scripts/setup --peers`) its figures are left out. `--quick` repeats too little for the
figures to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from _figures import Figure, main
from _timing import WARM_UP, in_turns
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from support.second_opinion import ABSENT, PEER, PYTHON, Emulation, NvidiaPeer, Recorded, device
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.verifier.gpu.chain import ChainCache, VerifiedGpuChain, verify_chain
from weighbridge.verifier.gpu.rim import RimSet, compare, verify_rim
from weighbridge.verifier.gpu.set import verify_gpus

_NONCE: Final = b"n" * 32
_UNIT: Final = "µs"
_COLD: Final = Path(__file__).resolve().parent / "_gpu_cold.py"


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often each is repeated."""

    reports: int
    calls: int
    processes: int


FULL: Final = _Effort(reports=1_000, calls=60, processes=15)
QUICK: Final = _Effort(reports=2, calls=1, processes=1)


class _Bench:
    """Two devices of one vendor: evidence of both, and whatever a verifier of it keeps."""

    def __init__(self, folder: Path) -> None:
        self.emulation = Emulation.make(folder, devices=2)
        self.at = datetime.now(UTC)
        self.evidence, self.other = ([item.attest(_NONCE)] for item in self.emulation.devices)
        self.chain = verify_chain(self.evidence[0].chain, self.emulation.trust, at=self.at)
        self.cache = self.new_cache()
        self.verify(self.evidence, self.cache)
        self.rims = self.load()

    def new_cache(self) -> ChainCache:
        """One that has seen the other device."""
        cache = ChainCache()
        self.verify(self.other, cache)
        return cache

    def verify(self, evidence: list[GpuEvidence], cache: ChainCache | None) -> None:
        """As a session does it, but for its enrolled devices."""
        verify_gpus(evidence, nonce=_NONCE, anchors=self.emulation.trust, at=self.at, expected=None, cache=cache)

    def load(self) -> RimSet:
        """Both manifests verified."""
        found = (verify_rim(data, anchors=self.emulation.trust, at=self.at) for data in self.emulation.rims.values())
        return RimSet.of(found)

    def judge(self, cache: ChainCache | None, rims: RimSet) -> None:
        """A report, and its measurements."""
        (report,) = verify_gpus(
            self.evidence, nonce=_NONCE, anchors=self.emulation.trust, at=self.at, expected=None, cache=cache
        )
        if compare(report.report, report.chain, rims.at(self.at)).status != "match":
            raise RuntimeError("the benchmark's own evidence does not match")

    def judge_uncached(self) -> None:
        """The same with nothing kept."""
        self.judge(None, self.load())

    @property
    def question(self) -> dict[str, object]:
        """What NVIDIA's verifier is asked."""
        return {
            "devices": [device(Recorded(item.report, item.chain)) for item in self.evidence],
            "nonce": _NONCE.hex(),
            "rims": {name: data.decode() for name, data in self.emulation.rims.items()},
            "keep": True,
            **self.emulation.roots,
        }


def figures(effort: _Effort) -> Iterator[Figure]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="weighbridge-bench-") as folder:
        bench = _Bench(Path(folder))
        yield Figure("gpus: processors", os.cpu_count() or 0, "cores")
        yield Figure("gpus: load before", os.getloadavg()[0], "processes")
        yield from of_reports(bench, effort.reports)
        if PYTHON.exists():
            yield from warm(bench, effort.calls)
            yield from cold(bench, effort.processes)
        else:
            print(f"bench: {ABSENT}", file=sys.stderr)
        yield Figure("gpus: load after", os.getloadavg()[0], "processes")


def of_reports(bench: _Bench, rounds: int) -> Iterator[Figure]:
    """One report, beside its signature."""
    unseen = iter([bench.new_cache() for _ in range(rounds + WARM_UP)])
    costs = in_turns(
        {
            "bare signature check": _bare(bench.evidence[0], bench.chain),
            "report, device seen before": partial(bench.verify, bench.evidence, bench.cache),
            "report, device's provisioner seen before": lambda: bench.verify(bench.evidence, next(unseen)),
            "report, nothing seen before": partial(bench.verify, bench.evidence, None),
            "report and measurements, device seen before": partial(bench.judge, bench.cache, bench.rims),
            "both manifests loaded": bench.load,
        },
        rounds=rounds,
    )
    bare, seen, first, _, measured, _ = costs.values()
    for row, cost in costs.items():
        yield Figure(f"GPU: {row}", cost.wall, _UNIT, floor=None if cost is bare else bare.wall)
        yield Figure(f"GPU: {row}, CPU", cost.cpu, _UNIT, floor=None if cost is bare else bare.cpu)
    yield Figure("report_warm_vs_signature", seen.wall, _UNIT, floor=bare.wall)
    yield Figure("report_first_vs_signature", first.wall, _UNIT, floor=bare.wall)
    yield Figure("report_rim_ms", measured.wall / 1e3, "ms", floor=bare.wall / 1e3)


def warm(bench: _Bench, rounds: int) -> Iterator[Figure]:
    """Call against call, in processes that have judged before."""
    theirs, cached, uncached = _Times(), _Times(), _Times()
    with NvidiaPeer(clock=False) as peer:
        for number in range(WARM_UP + rounds):
            answer = peer.put(bench.question, at=bench.at)
            if not answer.result:
                raise RuntimeError(f"NVIDIA's verifier refuses the benchmark's evidence: {answer.verdict}")
            took = (
                (answer.seconds, answer.cpu),
                _spent(partial(bench.judge, bench.cache, bench.rims), time.process_time),
                _spent(bench.judge_uncached, time.process_time),
            )
            if number >= WARM_UP:
                for times, spent in zip((theirs, cached, uncached), took, strict=True):
                    times.add(*spent)
    yield from _beside("report and measurements, warm", "warm_vs_nvidia", cached, theirs)
    yield from _beside("report and measurements, warm, nothing kept", "uncached_vs_nvidia", uncached, theirs)


def cold(bench: _Bench, rounds: int) -> Iterator[Figure]:
    """Process against process, and against one that only imports what ours cannot do without."""
    question = json.dumps(bench.question) + "\n"
    ours, theirs, imports = _Times(), _Times(), _Times()
    commands = (
        (ours, [sys.executable, "-s", str(_COLD)], "match"),
        (theirs, [str(PYTHON), "-I", str(PEER)], '"result": true'),
        (imports, [sys.executable, "-s", "-c", "import cryptography.x509, lxml.etree; print('done')"], "done"),
    )
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 + rounds):
            for times, command, expected in commands:
                spent = _spent(partial(_process, command, question, Path(folder), expected), _children)
                if number:
                    times.add(*spent)
    yield from _beside("report and measurements, cold", "cold_vs_nvidia", ours, theirs)
    yield Figure("GPU: of it cryptography and lxml imported", imports.wall, _UNIT)
    yield Figure("GPU: of it cryptography and lxml imported, CPU", imports.cpu, _UNIT)


def _process(command: list[str], question: str, folder: Path, expected: str) -> None:
    done = subprocess.run(command, input=question, text=True, capture_output=True, check=True, cwd=folder)
    if expected not in done.stdout:
        raise RuntimeError(f"refused: {done.stdout}")


class _Times:
    """Seconds of repetitions; medians in microseconds."""

    def __init__(self) -> None:
        self._walls: list[float] = []
        self._cpus: list[float] = []

    def add(self, wall: float, cpu: float) -> None:
        """One more."""
        self._walls.append(wall)
        self._cpus.append(cpu)

    @property
    def wall(self) -> float:
        """On the clock."""
        return statistics.median(self._walls) * 1e6

    @property
    def cpu(self) -> float:
        """Of the processor."""
        return statistics.median(self._cpus) * 1e6


def _beside(row: str, ratio: str, ours: _Times, theirs: _Times) -> Iterator[Figure]:
    yield Figure(f"GPU: {row}", ours.wall, _UNIT)
    yield Figure(f"GPU: {row}, CPU", ours.cpu, _UNIT)
    yield Figure(f"NVIDIA: {row}", theirs.wall, _UNIT)
    yield Figure(f"NVIDIA: {row}, CPU", theirs.cpu, _UNIT)
    yield Figure(ratio, ours.wall / 1e3, "ms", peer=theirs.wall / 1e3, ratio=theirs.wall / ours.wall)


def _spent(work: Callable[[], object], cpu: Callable[[], float]) -> tuple[float, float]:
    started, before = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - started, cpu() - before


def _children() -> float:
    """Seconds of the processor, of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _bare(evidence: GpuEvidence, chain: VerifiedGpuChain) -> Callable[[], None]:
    """The signature's check and nothing else."""
    signed, signature = evidence.report[:-96], evidence.report[-96:]
    encoded = encode_dss_signature(int.from_bytes(signature[:48]), int.from_bytes(signature[48:]))
    return partial(chain.key.verify, encoded, signed, ec.ECDSA(hashes.SHA384()))


def _command(arguments: list[str]) -> int:
    effort = QUICK if "--quick" in arguments else FULL
    return main(lambda: figures(effort), [argument for argument in arguments if argument != "--quick"])


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
