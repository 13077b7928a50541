"""Puts recorded figures into docs/performance.md, as tables.

Usage:
    scripts/bench window --json > docs/performance.jsonl
    scripts/bench measure --json > docs/performance-measure.jsonl
    scripts/bench gpu --json > docs/performance-gpu.jsonl
    scripts/bench tpm --json > docs/performance-tpm.jsonl
    scripts/bench policy --json > docs/performance-policy.jsonl
    scripts/bench baseline --json > docs/performance-baseline.jsonl
    scripts/bench ledger --json > docs/performance-ledger.jsonl
    scripts/bench service --json > docs/performance-service.jsonl
    .venv/bin/python scripts/performance_figures.py

The recordings lie beside the document, and a test holds one to the other: no figure there was written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "performance.md"
RECORDINGS: Final = tuple(
    ROOT / "docs" / f"performance{of}.jsonl"
    for of in ("", "-measure", "-gpu", "-tpm", "-policy", "-baseline", "-ledger", "-service")
)

_BLOCK: Final = re.compile(
    r"(<!-- figures:(?P<name>[a-z]+):begin -->\n)(?P<body>.*?)(<!-- figures:\2:end -->\n)", re.DOTALL
)
_WHOLE: Final = re.compile(r"window_vs_floor_(?P<label>.+?)(?P<cpu>_cpu)?")
_VERIFIED: Final = "**verified and appraised**"
# Of each table: the label that a figure's name begins with, and the column's title.
_TABLES: Final = {
    "machine": {"machine": "machine"},
    "window": {
        "1gpu": "1 GPU",
        "1gpu_no_report": "1 GPU, no report",
        "8gpu": "8 GPUs",
        "8gpu_no_report": "8 GPUs, no report",
    },
    "telemetry": {"1gpu telemetry": "1 GPU", "8gpu telemetry": "8 GPUs"},
    "telemetryratios": {"telemetry ratio": "figure"},
    "recording": {
        "1gpu recorded": "1 GPU",
        "1gpu recorded, CPU": "1 GPU, CPU",
        "8gpu recorded": "8 GPUs",
        "8gpu recorded, CPU": "8 GPUs, CPU",
    },
    "sealing": {"sealing": "wall clock", "sealing, CPU": "CPU"},
    "measuring": {"warm": "warm", "cold": "cold"},
    "ratios": {"ratio": "ratio"},
    "measurer": {"measuring": "machine"},
    "gpus": {"GPU": "ours", "GPU, CPU": "ours, CPU", "NVIDIA": "NVIDIA's", "NVIDIA, CPU": "NVIDIA's, CPU"},
    "gpuratios": {"GPU ratio": "ratio"},
    "gpumachine": {"gpus": "machine"},
    "tpm": {"TPM": "wall clock", "TPM, CPU": "CPU"},
    "tpmratios": {"TPM ratio": "ratio"},
    "tpmmachine": {"tpms": "machine"},
    "policies": {"policy, one": "1 GPU", "policy, eight": "8 GPUs"},
    "policyratios": {"policy ratio": "figure"},
    "policymachine": {"policies": "machine"},
    "detection": {"frozen": "held out", "widened": "all systems"},
    "early": {"early": "all systems"},
    "baselineratios": {"baseline ratio": "figure"},
    "baselinemachine": {"baselines": "machine"},
    "ledgerratios": {"ledger ratio": "figure"},
    "ledgermachine": {"ledger": "during the run"},
    "serviceratios": {"service ratio": "figure"},
    "servicemachine": {"service": "during the run; times in µs"},
}
# What the rows' figures are in, where it is not said with each.
_FIRST: Final = {
    "measuring": "GB/s",
    "ratios": "figure",
    "measurer": "during the run",
    "telemetryratios": "figure",
    "gpuratios": "figure",
    "gpumachine": "during the run",
    "tpmratios": "figure",
    "tpmmachine": "during the run",
    "policyratios": "figure",
    "policymachine": "during the run",
    "detection": "share",
    "early": "early look",
    "baselineratios": "figure",
    "baselinemachine": "during the run",
    "ledgerratios": "figure",
    "ledgermachine": "ledger",
    "serviceratios": "figure",
    "servicemachine": "service",
}
# Figures that are ratios, by what they are of; all others without a column are of models.
_RATIOS: Final = {
    "telemetry ratio": re.compile(r"telemetry_ms_.+"),
    "GPU ratio": re.compile(r"report_.+|.+_vs_nvidia"),
    "TPM ratio": re.compile(r"quote_.+"),
    "baseline ratio": re.compile(r"mlperf_.+|score_ms|evidence_ms|fit_s"),
    "ledger ratio": re.compile(r"append_.+|open_10m_s|inclusion_ms|bundle_1h_.+"),
    "service ratio": re.compile(r"cpu_vs_signature_floor|windows_per_s_.+|p99_ms_.+|open_sessions_.+"),
    "policy ratio": re.compile(r"production_.+|reference_load_s|worker_start_ms"),
    "ratio": re.compile(r".+"),
}


@dataclass(frozen=True, slots=True)
class _Cell:
    """One figure in its place: a column's label and a row's title."""

    column: str
    row: str
    text: str


def fill(document: str, recording: str) -> str:
    """``document`` with a table of the figures of ``recording`` (one JSON object a line) between each pair of marks.

    Raises:
        ValueError: a mark names no table, or a figure belongs into none.
    """
    cells = [_cell(json.loads(line)) for line in recording.splitlines()]
    known = {column for columns in _TABLES.values() for column in columns}
    if strangers := sorted({cell.column for cell in cells} - known):
        raise ValueError(f"no table has a column for {', '.join(strangers)}")
    return _BLOCK.sub(lambda match: match[1] + _table(match["name"], cells) + match[4], document)


def recorded() -> str:
    """All recordings there are, one behind the other."""
    return "".join(recording.read_text() for recording in RECORDINGS if recording.exists())


def _cell(figure: dict[str, object]) -> _Cell:
    name, unit, ratio = str(figure["name"]), str(figure["unit"]), figure["ratio"]
    if ": " not in name and not _WHOLE.fullmatch(name):
        text = f"{ratio:.2f}x" if isinstance(ratio, float) else "-"
        if unit in {"ms", "s", "%"}:
            text = f"{figure['value']:.2f} {unit}" + (f" ({text})" if isinstance(ratio, float) else "")
        elif unit in {"MB", "MiB", "per second"}:
            text = f"{_number(figure['value'])} {unit}" + (f" ({text})" if isinstance(ratio, float) else "")
        column = next(column for column, names in _RATIOS.items() if names.fullmatch(name))
        return _Cell(column, f"`{name}`", text)
    if unit == "GB/s":
        text = f"{figure['value']:.2f}"
    else:
        text = _number(figure["value"]) + ("" if unit == "µs" else f" {unit}")
    if isinstance(ratio, float):
        text += f" ({ratio:.2f}x)"
    if whole := _WHOLE.fullmatch(name):
        return _Cell(whole["label"], f"{_VERIFIED}, CPU" if whole["cpu"] else _VERIFIED, text)
    column, _, row = name.partition(": ")
    if row.endswith(", CPU"):
        return _Cell(f"{column}, CPU", row.removesuffix(", CPU"), text)
    return _Cell(column, row, text)


def _number(value: object) -> str:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no figure")
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004


def _table(name: str, cells: list[_Cell]) -> str:
    columns = _TABLES[name]
    found = {(cell.row, cell.column): cell.text for cell in cells if cell.column in columns}
    lines = [[_FIRST.get(name, "µs"), *columns.values()], ["---", *("---:" for _ in columns)]]
    lines += [
        [row, *(found.get((row, column), "-") for column in columns)] for row in dict.fromkeys(row for row, _ in found)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Fill the document. Returns the exit status."""
    DOCUMENT.write_text(fill(DOCUMENT.read_text(), recorded()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
