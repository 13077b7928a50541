"""The benchmarks run, and print figures that a program can read. What the figures are is nobody's test."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock

import performance_figures
import pytest

from support.untraced import untraced
from weighbridge.attester.refusal import Throttled
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.telemetry.detector import gross

FIELDS = {"name", "value", "unit", "floor", "peer", "ratio"}


def bench(root: Path, *arguments: str, name: str = "window") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-s", f"scripts/benchmarks/{name}.py", *arguments]
    return subprocess.run(command, cwd=root, env=untraced(), capture_output=True, text=True, timeout=120, check=False)


def test_window_prints_figures_that_the_document_has_a_place_for(root: Path) -> None:
    done = bench(root, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(figure.keys() == FIELDS for figure in figures)
    names = [figure["name"] for figure in figures]
    assert len(set(names)) == len(names)
    for label in ("1gpu", "1gpu_no_report", "8gpu", "8gpu_no_report"):
        whole = next(figure for figure in figures if figure["name"] == f"window_vs_floor_{label}")
        assert whole["unit"] == "µs"
        assert whole["ratio"] == whole["value"] / whole["floor"] > 1
    for label in ("telemetry_ms_1gpu", "telemetry_ms_8gpu"):
        (figure,) = (figure for figure in figures if figure["name"] == label)
        assert (figure["unit"], figure["ratio"]) == ("ms", figure["value"] / figure["floor"])
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert filled.count("**verified and appraised**") == 2
    assert filled.count("| `telemetry_ms_") == 2


def test_window_refuses_what_it_does_not_know(root: Path) -> None:
    done = bench(root, "--fast")
    assert done.returncode == 2
    assert "--fast" in done.stderr
    assert done.stdout == ""


def test_the_document_has_the_recorded_figures() -> None:
    document = performance_figures.DOCUMENT.read_text()
    assert performance_figures.fill(document, performance_figures.recorded()) == document


def test_measure_prints_figures_that_the_document_has_a_place_for(root: Path, tmp_path: Path) -> None:
    done = bench(root, "--quick", "--json", "--dir", str(tmp_path), name="measure")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for name in ("sha256_warm_vs_floor", "sha256_cold_vs_read", "blake3_warm_vs_read"):
        assert figures[name]["ratio"] == figures[name]["value"] / figures[name]["floor"] > 0
    assert figures["sha256_vs_sha256sum"]["ratio"] > 0
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `sha256_warm_vs_floor` |" in filled
    assert "| measure, BLAKE3 |" in filled
    assert list(tmp_path.iterdir()) == []


def test_measure_needs_room_for_its_model(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "scripts" / "benchmarks"))
    measuring = importlib.import_module("measure")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**9))
    assert measuring._command(["--dir", str(tmp_path)]) == 8
    assert list(tmp_path.iterdir()) == []


def test_spot_prints_the_figures_of_the_small_model(root: Path) -> None:
    command = [sys.executable, "-s", "scripts/benchmarks/spot.py", "--quick", "--json"]
    done = subprocess.run(command, cwd=root, env=untraced(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for state in ("warm", "cold"):
        answered = figures[f"{state}: spot_check_ms, 90 MB"]
        assert answered["unit"] == "ms"
        assert answered["value"] > 0
        assert answered["floor"] > 0


def test_gpu_prints_figures_that_the_document_has_a_place_for(root: Path) -> None:
    done = bench(root, "--quick", "--json", name="gpu")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for name in ("report_warm_vs_signature", "report_first_vs_signature", "report_rim_ms"):
        assert figures[name]["ratio"] == figures[name]["value"] / figures[name]["floor"] > 0
    if (root / ".peers" / "nvidia").exists():
        for name in ("cold_vs_nvidia", "warm_vs_nvidia", "uncached_vs_nvidia"):
            assert figures[name]["ratio"] == pytest.approx(figures[name]["peer"] / figures[name]["value"])
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `report_warm_vs_signature` |" in filled
    assert "| report, device seen before |" in filled


def test_tpm_prints_figures_that_the_document_has_a_place_for(root: Path) -> None:
    done = bench(root, "--quick", "--json", name="tpm")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for name in ("quote_warm_vs_signature", "quote_cold_vs_signature"):
        assert figures[name]["ratio"] == figures[name]["value"] / figures[name]["floor"] > 0
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `quote_warm_vs_signature` |" in filled
    assert "| quote, log replayed before |" in filled


def test_policy_prints_figures_that_the_document_has_a_place_for(root: Path) -> None:
    done = bench(root, "--quick", "--json", name="policy")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for name, unit in (
        ("production_one_gpu_ms_p50", "ms"),
        ("production_eight_gpu_ms_p50", "ms"),
        ("reference_load_s", "s"),
        ("worker_start_ms", "ms"),
    ):
        assert figures[name]["unit"] == unit
        assert figures[name]["ratio"] == figures[name]["value"] / figures[name]["floor"] > 0
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `production_one_gpu_ms_p50` |" in filled
    assert "| a policy of two lines decided |" in filled


def test_baseline_prints_figures_that_the_document_has_a_place_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIGHBRIDGE_TELEMETRY", raising=False)
    done = bench(root, "--quick", "--json", name="baseline")
    assert done.returncode == 0, done.stderr
    assert "skipped mlperf_*: WEIGHBRIDGE_TELEMETRY" in done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    assert (figures["score_ms"]["unit"], figures["fit_s"]["unit"]) == ("ms", "s")
    assert 1000 < figures["baselines: profile of 12 runs"]["value"] < 12_000
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `score_ms` |" in filled
    assert "| profile of 12 runs |" in filled


def test_ledger_prints_figures_that_the_document_has_a_place_for(root: Path, tmp_path: Path) -> None:
    done = bench(root, "--quick", "--json", "--dir", str(tmp_path), name="ledger")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for name, unit in (
        ("append_durable_per_s", "per second"),
        ("append_p99_ms", "ms"),
        ("open_10m_s", "s"),
        ("inclusion_ms", "ms"),
        ("bundle_1h_verify_s", "s"),
        ("bundle_1h_mb", "MB"),
    ):
        assert figures[name]["unit"] == unit
    assert 0 < figures["append_durable_per_s"]["ratio"] < 1
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `append_durable_per_s` |" in filled
    assert "| one sync |" in filled
    assert list(tmp_path.iterdir()) == []


def test_service_prints_figures_that_the_document_has_a_place_for(root: Path, tmp_path: Path) -> None:
    done = bench(root, "--quick", "--json", "--dir", str(tmp_path), name="service")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    for name, unit in (
        ("cpu_vs_signature_floor", "ms"),
        ("windows_per_s_p99_250ms", "per second"),
        ("p99_ms_half_load", "ms"),
        ("service: memory without any", "MiB"),
    ):
        assert figures[name]["unit"] == unit
        assert figures[name]["value"] > 0
    # So few sessions take less than memory varies by: a line through them leads anywhere.
    assert figures["open_sessions_10k_mib"]["unit"] == "MiB"
    cost = figures["cpu_vs_signature_floor"]
    assert cost["ratio"] == cost["value"] / cost["floor"] > 1
    filled = performance_figures.fill(performance_figures.DOCUMENT.read_text(), done.stdout)
    assert "| `windows_per_s_p99_250ms` |" in filled
    assert "| CPU for a window of 2 GPUs |" in filled
    assert list(tmp_path.iterdir()) == []


def test_systems_are_split_as_their_names_say(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document was written before anything was fitted; code and document still say the same."""
    monkeypatch.syspath_prepend(str(root / "scripts" / "benchmarks"))
    split = importlib.import_module("_mlperf")
    sides = split.split()
    document = (root / "docs" / "baseline-evaluation.md").read_text()
    for family, side in sides.items():
        row = f"| {family} | {len(split.FAMILIES[family])} | {split.LABELS[family]} | {side} |"
        assert row in document
    systems = [system for of_family in split.FAMILIES.values() for system in of_family]
    assert len(systems) == len(set(systems)) == 29
    assert sides.keys() == split.FAMILIES.keys() == split.LABELS.keys()


@pytest.mark.skipif("WEIGHBRIDGE_TELEMETRY" not in os.environ, reason="WEIGHBRIDGE_TELEMETRY names the recordings")
def test_the_frozen_limit_is_what_development_systems_gave(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "scripts" / "benchmarks"))
    detection = importlib.import_module("_detection")
    logs = Path(os.environ["WEIGHBRIDGE_TELEMETRY"]) / "mlperf_power"
    genuine = [one.statistic for one in detection.sessions(logs, "development") if one.kind == "genuine"]
    assert len(genuine) == 186
    limit = detection.limit_of(genuine, claim_ppm=detection.FROZEN_CLAIM_PPM)
    assert limit == pytest.approx(detection.FROZEN_LIMIT, rel=2e-3)


@pytest.mark.skipif("WEIGHBRIDGE_TELEMETRY" not in os.environ, reason="WEIGHBRIDGE_TELEMETRY names the recordings")
def test_the_limits_of_the_early_look_are_what_all_systems_gave(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of all genuine sessions, rounded up to a whole per cent; more than three units stray no more."""
    monkeypatch.syspath_prepend(str(root / "scripts" / "benchmarks"))
    detection = importlib.import_module("_detection")
    logs = Path(os.environ["WEIGHBRIDGE_TELEMETRY"]) / "mlperf_power"
    genuine = [
        one.strays
        for side in ("development", "held-out")
        for one in detection.sessions(logs, side)
        if one.kind == "genuine"
    ]
    assert len(genuine) == gross.RUNS
    furthest = [max(column) for column in zip(*map(gross.largest, genuine), strict=True)]
    assert tuple(-(-off // 10) * 10 for off in furthest) == gross.LIMITS
    for size in range(4, 21):
        stretches = (gross.off_by(one[:end], size) for one in genuine for end in range(size, len(one) + 1))
        assert max(map(abs, stretches)) <= furthest[-1] + 1
    assert -(-max(map(gross.upper, genuine)) // 10) * 10 == gross.UPPER


def test_sampler_prints_what_eight_gpus_cost(root: Path) -> None:
    done = bench(root, "--quick", "--json", name="sampler")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}
    cost = figures["sampler_cpu_8gpu"]
    assert cost["unit"] == "% of a core"
    assert 0 < cost["floor"] < cost["value"]
    assert figures["window of 8 GPUs: channels"]["value"] == 8 * 24


class Hasty(selectors.SelectSelector):
    """Nobody waits for real: where nothing else is left to do, it is later."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time is the selector's."""

    def __init__(self) -> None:
        self.hasty = Hasty()
        super().__init__(self.hasty)

    def time(self) -> float:
        return self.hasty.now


class Played:
    """Stands for a host of the overload's load: its first answers, and then no more but good ones."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.sealed = self.sent = 0

    def seal(self) -> None:
        self.sealed += 1

    async def send(self) -> None:
        self.sent += 1
        await asyncio.sleep(0.01)
        if self.answers:
            raise self.answers.pop(0)


def test_overload_counts_what_was_answered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are due evenly; who is refused comes again when it was told to; who is answered otherwise, no more."""
    monkeypatch.syspath_prepend(str(root / "scripts" / "benchmarks"))
    overload = importlib.import_module("overload")
    fault = EnvironmentFault(Code.RATE_LIMITED, "more than can be judged")
    steady = Played()
    refused = Played(*(Throttled(fault, retry_after_ns=150_000_000) for _ in range(2)))
    broken = Played(RuntimeError("a line that is cut"))
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        monkeypatch.setattr(overload, "time", SimpleNamespace(perf_counter=loop.time))
        # Three hosts at 30 windows in a second: each is due ten times, the second one 33 ms behind the first.
        seen = runner.run(overload._load(SimpleNamespace(attesters=[steady, refused, broken]), 30, 0.5))
    assert (steady.sent, broken.sent) == (5, 1)
    # Sent and refused after 43 and 203 ms, and again from 353 ms on, every 100 ms.
    assert refused.sent == 4
    assert seen.refused == pytest.approx([0.0433, 0.2033], abs=1e-3)
    assert [host.sealed for host in (steady, refused, broken)] == [5, 4, 1]
    assert seen.waited == pytest.approx([0.01] * 7, abs=1e-3)
    assert seen.other == {"RuntimeError: a line that is cut": 1}


def test_overload_prints_what_it_measured(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(root / "scripts" / "benchmarks"))
    overload = importlib.import_module("overload")
    loads: list[tuple[float, float]] = []
    over = overload._Seen([0.002 * n for n in range(1, 101)], [0.5, 1.0, 1.5], Counter({"MalformedEvidence: what": 2}))
    calm = overload._Seen([0.003], [0.25, 0.75])

    async def load(_fleet: object, rate: float, seconds: float) -> object:
        loads.append((rate, seconds))
        return over if len(loads) == 1 else calm

    monkeypatch.setattr(overload, "_load", load)
    monkeypatch.setattr(overload, "Fleet", lambda _: AsyncMock(race=AsyncMock(side_effect=[1.0, 40.0])))
    used = iter([SimpleNamespace(memory=200.0), SimpleNamespace(memory=210.0)])
    figures = asyncio.run(overload._measure(SimpleNamespace(use=lambda: next(used)), 600, 20.0))
    # Three times what was reached, then half of it for half as long.
    assert loads == [(120.0, 20.0), (20.0, 10.0)]
    overload.report(figures, as_json=True)
    told = capsys.readouterr()
    printed = {figure["name"]: figure for figure in map(json.loads, told.out.splitlines())}
    assert all(figure.keys() == FIELDS for figure in printed.values())
    assert {name: figure["value"] for name, figure in printed.items()} == {
        "overload: hosts": 600,
        "overload: windows a second without it": 40.0,
        "overload_affirmed_per_s": 5.0,
        "overload: refused with RATE_LIMITED": 0.15,
        "overload_other": 2,
        "overload: p50 of the affirmed": pytest.approx(102.0),
        "overload_p99_ms": pytest.approx(200.0),
        "overload: memory before": 200.0,
        "overload: memory after": 210.0,
        "overload_recovers_s": 0.75,
        "overload: p99 at half the load, afterwards": pytest.approx(3.0),
    }
    assert printed["overload_affirmed_per_s"]["peer"] == 40.0
    assert told.err == "other: 2 x MalformedEvidence: what\n"
    assert overload._percentile([], 99) == 0.0
