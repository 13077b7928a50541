"""Real GPUs' sensors as a source: windows, what is dear beside what is quick, lost devices, drivers that hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.nvml_shim import LOST, ShimHost, build, loaded
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.gpu.nvml import NvmlGpus
from weighbridge.attester.telemetry import nvml_dear, nvml_quick
from weighbridge.attester.telemetry import sampler as sampling
from weighbridge.attester.telemetry.interface import HostFacts, TelemetrySource
from weighbridge.attester.telemetry.nvml import NvmlTelemetry, _places, open_nvml, unattested_identity
from weighbridge.attester.telemetry.samples import MISSING
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

MS = 1_000_000
ENERGY, TEMPERATURE = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetTemperature"
QUICKLY = HostFacts(period_ns=10 * MS)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def host(library: Path) -> Iterator[ShimHost]:
    with loaded(ShimHost.emulated(library, EmulatedGpus.create(2))) as running:
        yield running


@pytest.fixture
def source(host: ShimHost) -> Iterator[NvmlTelemetry]:
    assert host.devices
    opened = NvmlTelemetry.open(QUICKLY, dear_ns=50 * MS)
    yield opened
    opened.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Windows:
    """Takes one window after the other."""

    def __init__(self, source: TelemetrySource) -> None:
        self._source = source
        self._until = time.time_ns()

    def next(self) -> list[Source]:
        start, self._until = self._until, time.time_ns()
        sources = self._source.window(
            start_wall_ns=start, duration_ns=max(1, self._until - start), work=WorkSummary.empty()
        )
        sent = Telemetry(session=bytes(16), seq=0, sources=tuple(sources)).encode()
        assert Telemetry.parse(sent).sources == tuple(sources)
        return sources


def test_windows_of_every_device(host: ShimHost, source: NvmlTelemetry) -> None:
    with_gpus = NvmlGpus.open(timeout_s=5)
    windows = Windows(source)
    begun = host.count(ENERGY)
    wait_for(lambda: host.count(ENERGY) >= begun + 8)
    first = windows.next()
    wait_for(lambda: host.count(ENERGY) >= begun + 16)
    second = windows.next()
    assert tuple(item.device for item in first) == with_gpus.identities()
    with_gpus.close()
    for before, after in zip(first, second, strict=True):
        assert (before.name, before.period_ns) == ("nvml", 10 * MS)
        assert before.channels.keys() == {*nvml_quick.COLUMNS, *nvml_dear.COLUMNS}
        assert before.start_wall_ns + before.offsets[-1] < after.start_wall_ns + after.offsets[0]
        assert set(before.channels["power_instant"].values or ()) == {79_146}
        assert before.channels["power_instant"].window_ns == 25 * MS
        for found in (before, after):
            energy, at = found.channels["energy"].values, found.channels["energy_at"].values
            assert energy is not None
            assert at is not None
            read = [(offset, moment) for offset, moment in zip(found.offsets, at, strict=True) if moment is not None]
            assert len(read) >= 2
            assert [value is None for value in energy] == [moment is None for moment in at]
            # From the tick that was nearest to the beginning of that reading.
            assert all(abs(moment) < 2000 * MS for _, moment in read)
        # Once in a window; for the first it may have been read before that began.
        limits = [value for value in after.channels["power_limit"].values or () if value is not None]
        assert limits == [700_000]


def test_the_sessions_devices_by_their_uuids(host: ShimHost) -> None:
    uuids = {device.uuid: bytes([number]) * 32 for number, device in enumerate(host.devices, start=1)}
    host.order.reverse()
    before = host.count("nvmlDeviceGetConfComputeGpuCertificate")
    facts = HostFacts(devices=tuple(uuids.values()), uuids=uuids, period_ns=10 * MS)
    opened = NvmlTelemetry.open(facts)
    windows = Windows(opened)
    assert [item.device for item in windows.next()] == [b"\1" * 32, b"\2" * 32]
    # Who they are was found when the session was opened.
    assert host.count("nvmlDeviceGetConfComputeGpuCertificate") == before
    opened.close()


def test_a_device_of_the_session_that_is_not_shown(host: ShimHost) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        NvmlTelemetry.open(HostFacts(devices=(bytes(32),)))
    assert caught.value.code is Code.TELEMETRY_SOURCE
    assert caught.value.expected == bytes(32).hex()
    assert host.calls[-1][0] == "nvmlShutdown"


def test_devices_that_show_no_certificate_are_known_by_their_uuids(host: ShimHost) -> None:
    host.feature = 0
    opened = NvmlTelemetry.open(QUICKLY)
    expected = sorted(unattested_identity(device.uuid) for device in host.devices)
    assert [item.device for item in Windows(opened).next()] == expected
    assert len(set(expected)) == 2
    opened.close()


def test_a_lost_device_ends_nothing(host: ShimHost, source: NvmlTelemetry) -> None:
    windows = Windows(source)
    for name in (TEMPERATURE, ENERGY, "nvmlDeviceGetFieldValues", "nvmlDeviceGetClockInfo", "nvmlGpmSampleGet"):
        host.errors[name, 1] = LOST
    before = host.count(TEMPERATURE)
    wait_for(lambda: host.count(TEMPERATURE) > before + 4)
    windows.next()
    wait_for(lambda: host.count(ENERGY) > before + 20)
    lost = {host.devices[1].uuid}
    for found in windows.next():
        gone = found.device in {identity for uuid, identity in identities().items() if uuid in lost}
        assert len(found.offsets) > 2
        assert set(found.channels["temperature"].values or ()) == ({None} if gone else {39_000})
        faults = {event.channel for event in found.events if event.kind is EventKind.FAULT}
        assert ("temperature" in faults, "energy" in faults) == (gone, gone)


def identities() -> dict[str, bytes]:
    gpus = NvmlGpus.open(timeout_s=5)
    found = gpus.uuids()
    gpus.close()
    return found


def test_a_driver_that_hangs(host: ShimHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_JOIN_S", 0.05)
    opened = NvmlTelemetry.open(QUICKLY)
    windows = Windows(opened)
    host.delays[TEMPERATURE, 0] = 3600
    before = host.count(TEMPERATURE)
    wait_for(lambda: host.count(TEMPERATURE) > before)
    time.sleep(0.03)
    for _ in range(2):
        began = time.monotonic()
        sources = windows.next()
        assert time.monotonic() - began < 5
        # In the second as in the first, though what was sampled before may lie in that.
        assert all(EventKind.STALL in {event.kind for event in found.events} for found in sources)
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 5
    # It is left as it is.
    assert host.count("nvmlShutdown") == 0


def test_a_slow_energy_counter_holds_nothing_up(host: ShimHost) -> None:
    host.delays[ENERGY] = 0.15
    opened = NvmlTelemetry.open(QUICKLY, dear_ns=100 * MS)
    windows = Windows(opened)
    before = host.count(ENERGY)
    wait_for(lambda: host.count(ENERGY) >= before + 4)
    (found, _) = windows.next()
    opened.close()
    # Each reading of energy would have held up all but one sample.
    assert len(found.offsets) > 6
    told = {(event.kind, event.channel) for event in found.events}
    # A reading of the two takes 300 ms, and passes two that were due.
    assert {(EventKind.STALL, "energy"), (EventKind.GAP, "energy")} <= told


def test_without_a_driver(host: ShimHost) -> None:
    host.errors["nvmlInit"] = 9
    with pytest.raises(EnvironmentFault) as caught:
        NvmlTelemetry.open(QUICKLY)
    assert caught.value.code is Code.GPU_ABSENT


def test_without_the_library() -> None:
    def load() -> object:
        raise ImportError("pynvml")

    with pytest.raises(EnvironmentFault) as caught:
        NvmlTelemetry.open(QUICKLY, load=load)
    assert caught.value.code is Code.TOOL_MISSING


@pytest.mark.parametrize("options", [{"counters": "99"}, {"counters": "60001"}, {"counters": "1s"}, {"rate": "10"}])
def test_options_that_will_not_do(host: ShimHost, options: dict[str, str]) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        open_nvml(options, QUICKLY)
    assert caught.value.code is Code.TELEMETRY_SOURCE
    assert host.calls == []


def test_the_plug_in(host: ShimHost) -> None:
    opened = open_nvml({"counters": "100"}, QUICKLY)
    assert len(Windows(opened).next()) == len(host.devices)
    opened.close()
    assert host.calls[-1][0] == "nvmlShutdown"


@given(
    quick=st.lists(st.integers(1000, 2000), unique=True, max_size=20).map(sorted),
    dear=st.lists(st.integers(900, 2100) | st.just(MISSING), unique=True, max_size=30).map(sorted),
)
def test_what_is_dear_stands_at_ticks_in_its_order(quick: list[int], dear: list[int]) -> None:
    places = _places(quick, dear)
    assert all(low[0] < high[0] and low[1] < high[1] for low, high in pairwise(places))
    assert all(0 <= index < len(quick) for _, index in places)
    # None is left out before another, but those that are missing.
    there = [number for number, at in enumerate(dear) if at != MISSING]
    assert [number for number, _ in places] == there[: len(places)]
    if len(there) == 1 and quick:
        ((number, index),) = places
        assert abs(quick[index] - dear[number]) == min(abs(at - dear[number]) for at in quick)


def test_energy_stands_at_the_sample_nearest_to_its_reading(host: ShimHost) -> None:
    """The second device's is read well behind the tick at which the first one's was begun."""
    host.delays[ENERGY, 0] = 0.06
    opened = NvmlTelemetry.open(QUICKLY, dear_ns=200 * MS)
    windows = Windows(opened)
    before = host.count(ENERGY)
    wait_for(lambda: host.count(ENERGY) >= before + 6)
    for found in windows.next():
        moved = [value for value in found.channels["energy_at"].values or () if value is not None]
        assert len(moved) >= 2
        # Nearer than the tick at which its reading was due, also on a busy machine.
        assert min(abs(value) for value in moved) < 50 * MS
    opened.close()
