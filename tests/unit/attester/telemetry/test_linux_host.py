"""The host's own sensors, from a made-up sysfs: found within bounds, never through links that lead out."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weighbridge.attester.telemetry import linux_host, sysfs
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.attester.telemetry.linux_host import LinuxHost, open_linux_host
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source, Telemetry
from weighbridge.proto.workload import WorkSummary

PERIOD = 100_000_000
SECOND = 1_000_000_000
RAPL = "powercap.intel-rapl:0.package-0"
RANGE = 262_143_328_850


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 10 * SECOND

    def wall_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        raise AssertionError(monotonic_ns, stop)


class Tree:
    """A sysfs as the kernel builds it: devices, and classes that link to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.links = 0

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def link(self, kind: str, name: str, device: str) -> None:
        directory = self.root / "class" / kind
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).symlink_to(f"../../{device}")

    def powercap(self, zone: str, label: str, energy: int, *, wraps_at: int = RANGE) -> Path:
        device = f"devices/virtual/powercap/intel-rapl/{zone}"
        self.write(f"{device}/name", f"{label}\n")
        self.write(f"{device}/max_energy_range_uj", f"{wraps_at}\n")
        self.link("powercap", zone, device)
        return self.write(f"{device}/energy_uj", f"{energy}\n")

    def hwmon(self, number: int, name: str, files: dict[str, str]) -> Path:
        device = f"devices/platform/{name}/hwmon/hwmon{number}"
        self.write(f"{device}/name", f"{name}\n")
        for file, text in files.items():
            self.write(f"{device}/{file}", text)
        self.link("hwmon", f"hwmon{number}", device)
        return self.root / device

    def clock(self, number: int, khz: str) -> Path:
        return self.write(f"devices/system/cpu/cpufreq/policy{number}/scaling_cur_freq", khz)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "sys").mkdir()
    return Tree(tmp_path / "sys")


@pytest.fixture
def server(tree: Tree) -> Tree:
    tree.powercap("intel-rapl:0", "package-0", 1_000_000)
    tree.powercap("intel-rapl:0:0", "dram", 77)
    # The control type itself has no counter.
    tree.write("devices/virtual/powercap/intel-rapl/enabled", "1\n")
    tree.link("powercap", "intel-rapl", "devices/virtual/powercap/intel-rapl")
    tree.hwmon(
        1,
        "coretemp",
        {"temp1_input": "41000\n", "temp1_label": "Package id 0\n", "temp1_max": "100000\n", "temp2_input": "-5000\n"},
    )
    tree.hwmon(2, "psu", {"power1_average": "350000000\n", "fan1_input": "7200\n", "in1_input": "12010\n"})
    tree.clock(0, "2000000\n")
    tree.clock(1, "3500000\n")
    tree.clock(10, "3500000\n")
    return tree


def opened(tree: Tree) -> tuple[LinuxHost, FakeClock]:
    clock = FakeClock()
    return LinuxHost(sysfs.find(tree.root), period_ns=PERIOD, clock=clock), clock


def sampled(host: LinuxHost, clock: FakeClock, ticks: int = 1) -> Source:
    for _ in range(ticks):
        host.sampler.tick()
        clock.now += PERIOD
    (source,) = host.window(
        start_wall_ns=clock.now - ticks * PERIOD, duration_ns=ticks * PERIOD, work=WorkSummary.empty()
    )
    return source


def test_what_a_server_shows(server: Tree) -> None:
    host, clock = opened(server)
    source = sampled(host, clock, 2)
    assert (source.device, source.name, source.period_ns, source.events) == (None, "linux-host", PERIOD, ())
    assert source.channels == {
        RAPL: Channel("µJ", (1_000_000,) * 2),
        "powercap.intel-rapl:0:0.dram": Channel("µJ", (77,) * 2),
        "hwmon2.psu.power1_average": Channel("µW", (350_000_000,) * 2),
        "hwmon1.coretemp.temp1_input.Package_id_0": Channel("m°C", (41_000,) * 2),
        "hwmon1.coretemp.temp2_input": Channel("m°C", (-5_000,) * 2),
        "hwmon2.psu.fan1_input": Channel("rpm", (7_200,) * 2),
        "hwmon2.psu.in1_input": Channel("mV", (12_010,) * 2),
        "cpufreq.min": Channel("kHz", (2_000_000,) * 2),
        "cpufreq.mean": Channel("kHz", (3_000_000,) * 2),
        "cpufreq.max": Channel("kHz", (3_500_000,) * 2),
    }
    sent = Telemetry(session=bytes(16), seq=0, sources=(source,)).encode()
    assert Telemetry.parse(sent).sources == (source,)


def test_a_counter_that_wraps_goes_on(tree: Tree) -> None:
    file = tree.powercap("intel-rapl:0", "package-0", RANGE - 50)
    host, clock = opened(tree)
    totals: list[int | None] = []
    for value in (RANGE - 50, 30, 100, RANGE - 10, 5):
        # Between the third and the fourth it takes minutes.
        clock.now += 100 * SECOND if value == RANGE - 10 else 0
        file.write_text(f"{value}\n")
        source = sampled(host, clock)
        totals += source.channels[RAPL].values or ()
        assert [(event.kind, event.channel) for event in source.events if event.kind is EventKind.WRAP] == (
            [(EventKind.WRAP, RAPL)] if value in {30, 5} else []
        )
    assert totals == [RANGE - 50, RANGE + 30, RANGE + 100, 2 * RANGE - 10, 2 * RANGE + 5]


def test_a_counter_that_was_set_back_is_a_fault_and_no_wrap(tree: Tree) -> None:
    """No processor takes 262 kJ in a tenth of a second."""
    file = tree.powercap("intel-rapl:0", "package-0", 5_000)
    host, clock = opened(tree)
    sampled(host, clock)
    file.write_text("10\n")
    source = sampled(host, clock)
    assert source.channels[RAPL].values == (10,)
    assert source.events == (Event(0, EventKind.FAULT, RAPL),)


def test_a_sensor_that_disappears_and_comes_back(server: Tree) -> None:
    host, clock = opened(server)
    file = server.root / "devices/platform/psu/hwmon/hwmon2/power1_average"
    sampled(host, clock)
    file.unlink()
    gone = sampled(host, clock, 3)
    name = "hwmon2.psu.power1_average"
    assert gone.channels[name].values == (None,) * 3
    # Said once: the missing readings show the rest.
    assert gone.events == (Event(0, EventKind.FAULT, name),)
    assert gone.channels[RAPL].values == (1_000_000,) * 3
    file.write_text("1\n")
    assert sampled(host, clock).channels[name].values == (1,)


def test_what_only_root_may_read_is_not_reported(server: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: str, flags: int) -> int:
        if path.endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", refusing)
    host, clock = opened(server)
    source = sampled(host, clock)
    assert source.channels[RAPL] == Channel("µJ", None)
    assert source.events == ()
    assert source.channels["cpufreq.max"].values == (3_500_000,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "nan\n",
        "inf\n",
        "1e30\n",
        "1.5\n",
        "0x10\n",
        "+1\n",
        " 1\n",
        "1 2\n",
        "9" * 19,
        "9" * 64,
        "²\n",
        "1\x00",
    ],
)
def test_what_is_no_number_is_missing(tree: Tree, text: str) -> None:
    tree.hwmon(0, "chip", {"temp1_input": "1\n", "power1_input": text})
    host, clock = opened(tree)
    source = sampled(host, clock)
    assert source.channels["hwmon0.chip.power1_input"].values == (None,)
    assert source.channels["hwmon0.chip.temp1_input"].values == (1,)


def test_links_that_lead_out_are_not_followed(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "name").write_text("secret")
    (outside / "temp1_input").write_text("1")
    (outside / "energy_uj").write_text("1")
    for kind in ("hwmon", "powercap"):
        directory = tree.root / "class" / kind
        directory.mkdir(parents=True)
        (directory / "hwmon7").symlink_to(outside)
        (directory / "dangling").symlink_to("nowhere")
        (directory / "loop").symlink_to("loop")
    inside = tree.hwmon(0, "chip", {"temp2_input": "2\n"})
    (inside / "temp3_input").symlink_to(outside / "temp1_input")
    tree.write("devices/system/cpu/cpufreq/policy0/scaling_min_freq", "1\n")
    (tree.root / "devices/system/cpu/cpufreq/policy1").symlink_to(outside)
    host, clock = opened(tree)
    channels = sampled(host, clock).channels
    assert {name: channel.values for name, channel in channels.items()} == {
        "hwmon0.chip.temp2_input": (2,),
        "hwmon0.chip.temp3_input": (None,),
        **dict.fromkeys(("cpufreq.min", "cpufreq.mean", "cpufreq.max"), (None,)),
    }


def test_files_that_would_block_are_missing(tree: Tree) -> None:
    place = tree.hwmon(0, "chip", {"temp1_input": "1\n"})
    os.mkfifo(place / "power1_input")
    (place / "fan1_input").mkdir()
    host, clock = opened(tree)
    channels = sampled(host, clock).channels
    assert channels["hwmon0.chip.power1_input"].values == (None,)
    assert channels["hwmon0.chip.fan1_input"].values == (None,)


def test_channels_are_bounded_and_the_important_come_first(tree: Tree) -> None:
    tree.hwmon(0, "many", {f"in{number}_input": "1\n" for number in range(200)})
    tree.powercap("intel-rapl:0", "package-0", 1)
    tree.clock(0, "1\n")
    for number in range(1, 200):
        tree.clock(number, f"{number}\n")
    found = sysfs.find(tree.root)
    assert (len(found.sensors), found.left_out, len(found.clocks)) == (60, 141, 64)
    assert found.sensors[0].name == RAPL
    host, clock = opened(tree)
    assert len(sampled(host, clock).channels) == 63 <= limits.TELEMETRY_CHANNELS_MAX


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(label=st.binary(max_size=200), number=st.integers(0, 10**9))
def test_any_label_gives_a_channel_that_can_be_sent(
    tmp_path_factory: pytest.TempPathFactory, label: bytes, number: int
) -> None:
    tree = Tree(tmp_path_factory.mktemp("sys"))
    place = tree.hwmon(0, "chip", {"temp1_input": f"{number}\n"})
    (place / "temp1_label").write_bytes(label)
    host, clock = opened(tree)
    source = sampled(host, clock)
    assert Telemetry.parse(Telemetry(session=bytes(16), seq=0, sources=(source,)).encode()).sources == (source,)
    assert all(name.isprintable() and name.isascii() for name in source.channels)


class TestPlugIn:
    def test_it_samples(self, server: Tree) -> None:
        source = open_linux_host({"root": str(server.root)}, HostFacts(period_ns=1_000_000))
        read, waited = None, threading.Event()
        for _ in range(500):
            (read,) = source.window(start_wall_ns=0, duration_ns=SECOND, work=WorkSummary.empty())
            if read.offsets:
                break
            waited.wait(0.01)
        source.close()
        assert read is not None
        assert set(read.channels[RAPL].values or ()) == {1_000_000}

    def test_a_host_without_sensors(self, tree: Tree) -> None:
        with pytest.raises(EnvironmentFault) as caught:
            open_linux_host({"root": str(tree.root / "none")}, HostFacts())
        assert (caught.value.code, caught.value.got) == (Code.TELEMETRY_SOURCE, "nothing")
        assert "virtual machines" in caught.value.hint

    def test_a_host_whose_sensors_are_roots(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        tree.powercap("intel-rapl:0", "package-0", 1)
        monkeypatch.setattr(sysfs, "_is_refused", lambda _: True)
        with pytest.raises(EnvironmentFault) as caught:
            open_linux_host({"root": str(tree.root)}, HostFacts())
        assert caught.value.hint == "run as root"

    def test_an_unknown_option(self) -> None:
        with pytest.raises(EnvironmentFault) as caught:
            open_linux_host({"roots": "/sys"}, HostFacts())
        assert caught.value.code is Code.TELEMETRY_SOURCE

    def test_this_machine(self) -> None:
        """Whatever it has."""
        found = sysfs.find(linux_host.SYSFS)
        assert len(found.sensors) <= sysfs.SENSORS_MAX
        assert all(sensor.path.startswith("/sys/") for sensor in found.sensors)
