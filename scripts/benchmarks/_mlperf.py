"""MLPerf's published power logs: which systems are for development, which are held out, and their traces.

The logs (Apache-2.0) are not part of the project: ``WEIGHBRIDGE_TELEMETRY`` names the directory with
``mlperf_power/index.json``. Wall power of whole servers, one reading a second; each label (round, system, benchmark,
scenario) ran twice, as ``ranging`` and as ``run_1``.

The split was written down before anything was fitted to these traces, and rests on names and numbers of labels alone:

1. Systems of one chassis, or of one server with another size of the same GPU, are one family (:data:`FAMILIES`). All
   rounds of all systems of a family are on one side.
2. Families are taken in the order of the SHA-256 of their names; each goes to the side with fewer labels so far, the
   first and every tie to development.

``docs/baseline-evaluation.md`` lists the outcome; a test compares it with this rule.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np

from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["FAMILIES", "LABELS", "Label", "Side", "Trace", "split", "traces"]

Side = Literal["development", "held-out"]

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "NVIDIA A100-PCIe x8": ("A100-PCIe-80GBx8_TRT_MaxQ", "A100-PCIex8_TRT_MaxQ"),
    "NVIDIA A100-PCIe aarch64 x4": ("A100-PCIe-80GB_aarch64x4_TRT_MaxQ",),
    "NVIDIA A100-SXM aarch64 x8": ("A100-SXM-80GB_aarch64x8_TRT_MaxQ",),
    "NVIDIA DGX-A100": ("DGX-A100_A100-SXM-80GBx8_TRT_MaxQ",),
    "NVIDIA DGX-Station-A100": ("DGX-Station-A100_A100-SXM-80GBx4_TRT_MaxQ",),
    "NVIDIA H100-PCIe x8": ("H100-PCIe-80GBx8_TRT_MaxQ",),
    "NVIDIA H200-SXM x8": ("H200-SXM-141GBx8_TRT_MaxQ",),
    "H3C R4900G5": ("A30x3_R4900G5_TRT_MaxQ",),
    "Fujitsu GX2570M6": ("GX2570M6_A100-SXM-80GBx8_TRT_MaxQ", "GX2570M6_A100-SXM4-40GBx8_TRT_MaxQ"),
    "Inspur NE5260M5": ("NE5260M5_A100-PCIe-80GBx2_TRT_MaxQ", "NE5260M5_A100-PCIex2_TRT_MaxQ"),
    "Dell R750xa": ("R750xa_A100-PCIE-40GBx4_TRT_MaxQ",),
    "Dell R7525": ("R7525_A100_PCIe-40GBx3_TRT",),
    "Lenovo SR680a and SR780a": ("SR680a_V3_B200SXMx8_TRT", "SR780a_V3_B200SXMx8_TRT"),
    "Dell XE2420": (
        "XE2420_A10x1_TRT_MaxQ",
        "XE2420_A10x2_TRT_MaxQ",
        "XE2420_A30x1_TRT_MaxQ",
        "XE2420_datacenter_T4x4_TRT",
        "XE2420_edge_T4x4_TRT",
    ),
    "Dell XE8545": (
        "XE8545_A100-SXM-80GBx4_TRT",
        "XE8545_A100_SXM_80GBx4_TRT_MaxQ",
        "XE8545_maxQ_A100_SXM_80GBx4_TRT_MaxQ",
    ),
    "Dell XR12": ("XR12_A2x1_TRT_MaxQ",),
    "Dell XR4520c": ("XR4520c_MaxQ_A2x1_TRT_MaxQ",),
    "Dell XR5610": ("XR5610_L4x1_TRT_MaxQ",),
    "cTuning zen4": ("amd_zen4_workstation-nvidia_original-gpu-tensorrt-v8.5.2.2-default_config",),
}
"""Which systems are near-twins, by chassis or by server."""

LABELS: Final[Mapping[str, int]] = {
    "NVIDIA A100-PCIe x8": 59,
    "NVIDIA A100-PCIe aarch64 x4": 13,
    "NVIDIA A100-SXM aarch64 x8": 13,
    "NVIDIA DGX-A100": 52,
    "NVIDIA DGX-Station-A100": 39,
    "NVIDIA H100-PCIe x8": 13,
    "NVIDIA H200-SXM x8": 21,
    "H3C R4900G5": 9,
    "Fujitsu GX2570M6": 20,
    "Inspur NE5260M5": 29,
    "Dell R750xa": 9,
    "Dell R7525": 2,
    "Lenovo SR680a and SR780a": 11,
    "Dell XE2420": 46,
    "Dell XE8545": 25,
    "Dell XR12": 24,
    "Dell XR4520c": 10,
    "Dell XR5610": 11,
    "cTuning zen4": 11,
}
"""How many labels the logs have of each family, over all rounds."""


def split() -> dict[str, Side]:
    """Each family's side, in the order in which they were taken."""
    sides: dict[str, Side] = {}
    taken: dict[Side, int] = {"development": 0, "held-out": 0}
    for family in sorted(FAMILIES, key=lambda name: hashlib.sha256(name.encode()).digest()):
        side: Side = "development" if taken["development"] <= taken["held-out"] else "held-out"
        sides[family] = side
        taken[side] += LABELS[family]
    return sides


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """What ran where; it ran twice."""

    round: str
    system: str
    benchmark: str
    scenario: str

    @property
    def model(self) -> str:
        """The benchmark without its accuracy target: ``bert-99`` and ``bert-99.9`` run one model."""
        return self.benchmark.partition("-99")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One run: milliwatts at 1 Hz between the benchmark's own begin and end."""

    label: Label
    run: str
    power_mw: Floats


# As the power analyser says it: no reading while it changes its range. A trace with more of them is left out.
_VALID_SHARE: Final = 0.9
_VALID_W: Final = 1.0
# The benchmark's clock and the analyser's differ by up to some seconds.
_EDGE_S: Final = 5.0
_LONGEST: Final = 1800


def traces(directory: Path, side: Side) -> Iterator[Trace]:
    """The traces of one side that can be used; those of the other are not opened.

    Args:
        directory: with ``index.json``.
        side: of the split.
    """
    sides = split()
    family = {system: name for name, systems in FAMILIES.items() for system in systems}
    index = strict.json_decode((directory / "index.json").read_bytes(), what="index.json")
    for row in cast("list[dict[str, str | float | None]]", index):
        if sides[family[str(row["system"])]] != side:
            continue
        begin, end = row["t_begin"], row["t_end"]
        # One label's log does not say when its benchmark began.
        power = None if begin is None or end is None else _power(directory / str(row["file"]), float(begin), float(end))
        if power is not None:
            label = Label(str(row["round"]), str(row["system"]), str(row["benchmark"]), str(row["scenario"]))
            yield Trace(label, str(row["run"]), power)


def _power(file: Path, begin_s: float, end_s: float) -> Floats | None:
    with gzip.open(file, "rt", encoding="ascii") as lines:
        columns = next(lines).strip().split(",")
        time, watts = columns.index("t_s"), columns.index("watts")
        rows = [line.strip().split(",") for line in lines]
    times = np.array([float(row[time]) for row in rows])
    power = np.array([float(row[watts] or "nan") for row in rows])
    power = power[(times >= begin_s + _EDGE_S) & (times <= end_s - _EDGE_S)]
    valid = power > _VALID_W
    if not valid.size or float(valid.mean()) < _VALID_SHARE:
        return None
    kept: Floats = power[valid][:_LONGEST]
    return np.round(kept * 1000)
