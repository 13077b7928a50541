"""What one reading of a GPU's sensors puts into a row, over the library that stands for NVML's."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.nvml_shim import GPM_SAMPLE, LOST, NOT_SUPPORTED, ShimHost, build, loaded
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.gpu.nvml_calls import Nvml
from weighbridge.attester.telemetry import nvml_dear, nvml_layout, nvml_quick
from weighbridge.attester.telemetry.nvml_dear import DearReader
from weighbridge.attester.telemetry.nvml_quick import QuickReader
from weighbridge.attester.telemetry.sampler import MISSING, Tick
from weighbridge.proto.telemetry import UNITS, VALUE_MAX, EventKind

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
FIELDS = "nvmlDeviceGetFieldValues"
UINT, ULONG, SINT, DOUBLE = 1, 3, 5, 0
Noted = set[tuple[EventKind, str]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def host(library: Path) -> Iterator[ShimHost]:
    with loaded(ShimHost.emulated(library, EmulatedGpus.create(1))) as running:
        yield running


@pytest.fixture
def nvml(host: ShimHost) -> Iterator[Nvml]:
    assert host.devices
    with Nvml(pynvml) as opened:
        yield opened


def quick(nvml: Nvml) -> QuickReader:
    return QuickReader(nvml.function, nvml.call("nvmlDeviceGetHandleByIndex", 0))


def dear(nvml: Nvml) -> DearReader:
    return DearReader(nvml.function, nvml.call("nvmlDeviceGetHandleByIndex", 0))


def read(reader: QuickReader | DearReader) -> tuple[dict[str, int], Noted]:
    """What was read, by channel, without what is missing; and what was noted."""
    columns = nvml_quick.COLUMNS if isinstance(reader, QuickReader) else nvml_dear.COLUMNS
    tick = Tick(3 + len(columns))
    if isinstance(reader, QuickReader):
        reader.read(tick, 3)
    else:
        reader.read_energy(tick, 3)
        reader.read_others(tick, 3)
    assert list(tick.row[:3]) == [MISSING] * 3
    row = {name: value for name, value in zip(columns, tick.row[3:], strict=True) if value != MISSING}
    return row, {(kind, columns[(column or 0) - 3]) for kind, column in tick.noted()}


def test_what_is_quick(nvml: Nvml) -> None:
    reader = quick(nvml)
    row, noted = read(reader)
    assert abs(row.pop("read_at") - time.time_ns()) < 10 * 10**9
    assert row == {
        "power_instant": 79_146,
        "power": 80_000,
        "temperature": 39_000,
        "memory_temperature": 41_000,
        "sm_clock": 885,
        "memory_clock": 885,
        "utilisation": 370,
        "memory_utilisation": 120,
        "clock_reasons": 1,
    }
    assert (noted, reader.absent) == (set(), frozenset())


def test_the_power_fields_come_in_one_call(host: ShimHost, nvml: Nvml) -> None:
    reader = quick(nvml)
    before = len(host.calls)
    read(reader)
    # The library asks its host for each of three fields; five more calls are one question each.
    assert [name for name, _ in host.calls[before:]].count(FIELDS) == 3
    assert len(host.calls) - before == 8


def test_what_is_dear(nvml: Nvml) -> None:
    reader = dear(nvml)
    began = time.monotonic_ns()
    row, noted = read(reader)
    assert began < row.pop("energy_at") < time.monotonic_ns()
    # GPM has nothing to compare its first sample with.
    assert row == {"energy": 5_143_635, "power_limit": 700_000, "pcie_tx": 1000, "pcie_rx": 2000}
    assert (noted, reader.absent) == (set(), frozenset())
    time.sleep(0.1)
    row, noted = read(reader)
    assert {row[name] for name in nvml_layout.GPM_METRICS} == {125_000}
    # Once in a window.
    assert "power_limit" not in row
    reader.limit_due = True
    assert read(reader)[0]["power_limit"] == 700_000
    reader.close()


@pytest.mark.parametrize(
    ("call", "absent"),
    [
        (FIELDS, {"power_instant", "power", "memory_temperature", "read_at"}),
        ("nvmlDeviceGetTemperature", {"temperature"}),
        ("nvmlDeviceGetClockInfo", {"sm_clock", "memory_clock"}),
        ("nvmlDeviceGetUtilizationRates", {"utilisation", "memory_utilisation"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"clock_reasons"}),
    ],
)
def test_what_is_quick_and_not_supported_is_absent(host: ShimHost, nvml: Nvml, call: str, absent: set[str]) -> None:
    host.errors[call] = NOT_SUPPORTED
    reader = quick(nvml)
    assert reader.absent == absent
    before = len(host.calls)
    row, noted = read(reader)
    assert row.keys() == set(nvml_quick.COLUMNS) - absent
    assert noted == set()
    assert call not in {name for name, _ in host.calls[before:]}


@pytest.mark.parametrize(
    ("call", "absent"),
    [
        (FIELDS, {"pcie_tx", "pcie_rx"}),
        (ENERGY, {"energy", "energy_at"}),
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit"}),
        ("nvmlGpmQueryDeviceSupport", set(nvml_layout.GPM_METRICS)),
    ],
)
def test_what_is_dear_and_not_supported_is_absent(host: ShimHost, nvml: Nvml, call: str, absent: set[str]) -> None:
    host.errors[call] = NOT_SUPPORTED
    reader = dear(nvml)
    assert reader.absent == absent
    row, noted = read(reader)
    assert not row.keys() & absent
    assert noted == set()


def test_one_field_that_is_not_supported(host: ShimHost, nvml: Nvml) -> None:
    del host.devices[0].fields[185]
    reader = quick(nvml)
    assert reader.absent == {"power"}
    row, noted = read(reader)
    assert (row["power_instant"], row["memory_temperature"], noted) == (79_146, 41_000, set())


def test_a_device_without_gpm(host: ShimHost, nvml: Nvml) -> None:
    host.devices[0].gpm = None
    assert dear(nvml).absent == set(nvml_layout.GPM_METRICS)


def test_a_lost_device_is_missing_and_no_error(host: ShimHost, nvml: Nvml) -> None:
    readers = quick(nvml), dear(nvml)
    read(readers[1])
    for call in (FIELDS, ENERGY, "nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo", GPM_SAMPLE):
        host.errors[call, 0] = LOST
    for call in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetCurrentClocksEventReasons"):
        host.errors[call, 0] = LOST
    time.sleep(0.1)
    row, noted = read(readers[0])
    assert (row, noted) == ({}, {(EventKind.FAULT, name) for name in nvml_quick.COLUMNS})
    row, noted = read(readers[1])
    # The limit was read for this window already, and of an energy that is not there no time is told.
    told = set(nvml_dear.COLUMNS) - {"power_limit", "energy_at"}
    assert (row, noted) == ({}, {(EventKind.FAULT, name) for name in told})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (UINT, 0xFFFF_FFFF),
        (ULONG, 0xFFFF_FFFF_FFFF_FFFF),
        (SINT, -1),
        (ULONG, VALUE_MAX + 1),
        (DOUBLE, struct.unpack("=Q", struct.pack("=d", float("nan")))[0]),
        (DOUBLE, struct.unpack("=Q", struct.pack("=d", float("-inf")))[0]),
        (DOUBLE, struct.unpack("=Q", struct.pack("=d", 1e30))[0]),
    ],
)
def test_a_value_that_stands_for_none(host: ShimHost, nvml: Nvml, kind: int, value: int) -> None:
    host.devices[0].fields[186] = kind, value
    row, noted = read(quick(nvml))
    assert "power_instant" not in row
    assert noted == {(EventKind.SENTINEL, "power_instant")}
    assert row["power"] == 80_000


@pytest.mark.parametrize(
    ("call", "value", "channel"),
    [
        ("nvmlDeviceGetTemperature", 0xFFFF_FFFF, "temperature"),
        ("nvmlDeviceGetCurrentClocksEventReasons", 0xFFFF_FFFF_FFFF_FFFF, "clock_reasons"),
    ],
)
def test_all_ones_stand_for_none(host: ShimHost, nvml: Nvml, call: str, value: int, channel: str) -> None:
    host.devices[0].readings[call] = value
    row, noted = read(quick(nvml))
    assert channel not in row
    assert noted == {(EventKind.SENTINEL, channel)}


def test_a_driver_that_stamps_nothing(host: ShimHost, nvml: Nvml) -> None:
    host.devices[0].stamp = 0
    row, noted = read(quick(nvml))
    assert "read_at" not in row
    assert noted == {(EventKind.SENTINEL, "read_at")}


def test_a_failed_reading_of_energy_has_no_time(host: ShimHost, nvml: Nvml) -> None:
    reader = dear(nvml)
    host.devices[0].readings[ENERGY] = 0xFFFF_FFFF_FFFF_FFFF
    row, noted = read(reader)
    assert not row.keys() & {"energy", "energy_at"}
    assert noted == {(EventKind.SENTINEL, "energy")}


def test_a_counter_that_begins_anew_goes_on(host: ShimHost, nvml: Nvml) -> None:
    # The first is read when the device is asked what it supports.
    host.devices[0].fields[197] = UINT, [5, 2**32 - 100, 50, 50, 2**32 - 1, 60]
    reader = dear(nvml)
    seen = [read(reader) for _ in range(4)]
    assert [row.get("pcie_tx") for row, _ in seen] == [2**32 - 100, 2**32 + 50, 2**32 + 50, None]
    assert [noted for _, noted in seen] == [
        set(),
        {(EventKind.WRAP, "pcie_tx")},
        set(),
        # 2**32 - 1 is what stands for none: it is left out, and the counter goes on behind it.
        {(EventKind.SENTINEL, "pcie_tx")},
    ]
    assert read(reader)[0]["pcie_tx"] == 2**32 + 60


def test_gpm_is_not_asked_too_soon(host: ShimHost, nvml: Nvml) -> None:
    """From samples less than 100 ms apart it would make NaN, as the driver does, and as this library does."""
    reader = dear(nvml)
    read(reader)
    row, noted = read(reader)
    assert not row.keys() & nvml_layout.GPM_METRICS.keys()
    assert noted == set()
    assert host.count(GPM_SAMPLE) == 1


@pytest.mark.parametrize("percent", [float("nan"), float("inf"), -0.5, 1e9])
def test_a_share_that_is_none(host: ShimHost, nvml: Nvml, percent: float) -> None:
    reader = dear(nvml)
    read(reader)
    assert host.devices[0].gpm is not None
    host.devices[0].gpm[5] = percent
    time.sleep(0.1)
    row, noted = read(reader)
    assert "gpm_tensor" not in row
    assert noted == {(EventKind.SENTINEL, "gpm_tensor")}
    assert row["gpm_sm"] == 125_000


def test_a_metric_that_fails(host: ShimHost, nvml: Nvml) -> None:
    reader = dear(nvml)
    read(reader)
    host.errors["nvmlGpmMetricsGet"] = [0, 999]
    time.sleep(0.1)
    row, noted = read(reader)
    assert noted == {(EventKind.FAULT, "gpm_sm")}
    assert row["gpm_graphics"] == 125_000


def test_only_questions_are_handed_out(nvml: Nvml) -> None:
    for name in ("nvmlDeviceSetPowerManagementLimit", "nvmlGpmSetStreamingEnabled", "nvmlShutdown"):
        with pytest.raises(ValueError, match=name):
            nvml.function(name)


def test_a_driver_that_knows_none_of_the_calls() -> None:
    handle = ctypes.c_void_p(1)

    def nothing(name: str) -> Callable[..., int] | None:
        assert name.startswith("nvml")
        return None

    assert QuickReader(nothing, handle).absent == set(nvml_quick.COLUMNS)
    assert DearReader(nothing, handle).absent == set(nvml_dear.COLUMNS)


def test_structures_are_those_of_the_driver() -> None:
    for ours, theirs in (
        (nvml_layout.FieldValue, pynvml.c_nvmlFieldValue_t),
        (nvml_layout.GpmSupport, pynvml.c_nvmlGpmSupport_t),
    ):
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
    assert ctypes.sizeof(nvml_layout.FieldValue) == nvml_layout.fields_layout(1).size
    metrics, wanted = nvml_layout.GpmMetrics, pynvml.c_nvmlGpmMetricsGet_t
    assert ctypes.sizeof(metrics) >= ctypes.sizeof(wanted)
    for name in ("version", "numMetrics", "sample1", "sample2", "metrics"):
        assert getattr(metrics, name).offset == getattr(wanted, name).offset
    assert ctypes.sizeof(metrics) - metrics.metrics.offset == 512 * ctypes.sizeof(pynvml.c_nvmlGpmMetric_t)
    assert nvml_layout.POWER_INSTANT == pynvml.NVML_FI_DEV_POWER_INSTANT
    assert nvml_layout.POWER_AVERAGE == pynvml.NVML_FI_DEV_POWER_AVERAGE
    assert nvml_layout.MEMORY_TEMPERATURE == pynvml.NVML_FI_DEV_MEMORY_TEMP
    assert (nvml_layout.PCIE_TX, nvml_layout.PCIE_RX) == (
        pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
        pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
    )
    assert pynvml.NVML_GPM_METRICS_GET_VERSION == pynvml.NVML_GPM_SUPPORT_VERSION == 1


def test_every_channel_has_a_unit() -> None:
    assert {*nvml_quick.COLUMNS, *nvml_dear.COLUMNS} <= UNITS.keys()


@given(kind=st.integers(0, 9), bits=st.integers(0, 2**64 - 1))
def test_any_answer_is_a_number_that_can_be_sent_or_none(kind: int, bits: int) -> None:
    value = nvml_layout.number_of(kind, bits)
    assert value is None or abs(value) <= VALUE_MAX


@given(st.floats())
def test_any_share_is_parts_per_million_or_none(percent: float) -> None:
    value = nvml_layout.share_ppm(percent)
    assert value is None or 0 <= value <= 10_000_000
