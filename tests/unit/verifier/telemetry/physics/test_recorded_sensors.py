"""The checks on what real sensors read: logs of nvidia-smi beside an external meter (arXiv 2312.02741, MIT licence).

The logs hold power, temperature, clock and utilisation, but no energy counter and no power limit: what is checked is
slew, cap, agreement of both power sensors, clocks, utilisation, heat, repetition and standstill.
"""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from weighbridge.proto.telemetry import Channel, Source
from weighbridge.verifier.telemetry.physics import Carried, Finding, Limits, check_unit, check_window
from weighbridge.verifier.telemetry.samples.series import Series, join
from weighbridge.verifier.telemetry.samples.units import Unit
from weighbridge.verifier.telemetry.samples.work import DeclaredWork

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS: Final = {
    "power.draw [W]": ("power", "mW", 1000),
    "power.draw.instant [W]": ("power_instant", "mW", 1000),
    "temperature.gpu": ("temperature", "m°C", 1000),
    "clocks.current.sm [MHz]": ("sm_clock", "MHz", 1),
    "utilization.gpu [%]": ("utilisation", "‰", 10),
}
# Log, the board's limit in W, whether its power.draw is the mean of a second (seen in the steps of these logs), units.
# The limit is the maker's, but for the 3090: that board holds 419 W in its log.
LOGS: Final = (
    ("plotting__data__5050__3090__gpudata", 420, True, 1),
    ("plotting__data__5050__A100__gpudata", 400, False, 1),
    ("plotting__data__Transient_Response__3090_TR__gpudata", 420, True, 1),
    ("plotting__data__Transient_Response__4090_TR__gpudata", 450, False, 1),
    ("plotting__data__Transient_Response__A100_TR__gpudata", 400, False, 1),
    ("plotting__data__Transient_Response__A5000_TR__gpudata", 230, True, 1),
    ("plotting__data__Transient_Response__K40m_TR__gpudata", 235, False, 1),
    ("plotting__data__pwr_update_freq__3090_gpudata", 420, True, 21),
    ("plotting__data__pwr_update_freq__A100_gpudata", 400, False, 20),
    ("plotting__data__pwr_update_freq__V100_gpudata", 300, False, 20),
)


def thinned(path: Path, *, averages: bool) -> Series:
    """The log at 10 Hz, as a sampler would have asked: the first row in each tenth of a second."""
    with gzip.open(path, "rt") as file:
        head, *rows = csv.reader(file, skipinitialspace=True)
    offsets: list[int] = []
    kept: list[list[str]] = []
    start = 0
    for row in rows:
        when = datetime.strptime(row[0], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC)
        at = round(when.timestamp() * 1000) * 1_000_000
        start = start or at
        if len(row) == len(head) and at - start >= len(kept) * 100_000_000:
            offsets.append(at - start)
            kept.append(row)
    channels: dict[str, Channel] = {}
    for place, title in enumerate(head):
        if title in CHANNELS and not kept[0][place].startswith("["):
            name, unit, factor = CHANNELS[title]
            window = {"power": 10**9 if averages else None, "power_instant": 25_000_000}.get(name)
            values = tuple(round(float(row[place].split()[0]) * factor) for row in kept)
            channels[name] = Channel(unit, values, window)
    source = Source(
        device=bytes(32),
        name="nvidia-smi",
        start_wall_ns=start,
        period_ns=100_000_000,
        offsets=tuple(offsets),
        channels=channels,
    )
    series, _ = join([source])
    assert series is not None
    return series


def check(series: Series, limits: Limits) -> tuple[int, list[Finding]]:
    found: list[Finding] = []
    carried, units = Carried(), 0
    for first in range(0, len(series) - 99, 100):
        part = series.cut(first, first + 100)
        unit = Unit(series=part, work=DeclaredWork(duration_ns=10**10), first_seq=0, last_seq=0)
        between, carried = check_window(part, carried, limits)
        found += [*check_unit(unit, limits), *between]
        units += 1
    return units, found


@pytest.mark.parametrize(("name", "limit", "averages", "units"), LOGS, ids=[row[0].split("__", 2)[2] for row in LOGS])
def test_working_sensors_pass(telemetry_dir: Path, name: str, limit: int, averages: bool, units: int) -> None:
    series = thinned(telemetry_dir / "nvml_pmd_yang" / f"{name}.csv.gz", averages=averages)
    assert check(series, Limits(power_limit_mw=limit * 1000)) == (units, [])


def test_a_dead_sensor_is_unusable_and_no_lie(telemetry_dir: Path) -> None:
    # A cloud's A100 that reads 46.19 W while it warms from 32 to 62 degrees.
    series = thinned(telemetry_dir / "nvml_pmd_yang" / "tests__MLPerf__data.csv.gz", averages=False)
    units, found = check(series, Limits(power_limit_mw=400_000))
    assert units == 69
    assert {(item.check, item.verdict) for item in found} == {("power_constant", "unusable")}
    assert len(found) == units
