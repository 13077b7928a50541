"""The benchmarks run, and print figures that a program can read. What the figures are is nobody's test."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import performance_figures
import pytest

from support.untraced import untraced
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
        ("open_sessions_10k_mib", "MiB"),
    ):
        assert figures[name]["unit"] == unit
        assert figures[name]["value"] > 0
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
