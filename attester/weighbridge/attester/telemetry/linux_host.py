"""The host's own sensors as a source of telemetry: energy and power of its processors, temperatures, fans, clocks.

No GPU is named by it: the device is ``None``. In a virtual machine there is mostly nothing to be found; on a server it
is a second path beside the GPUs' driver, though in the hands of the same host.

Counters of energy are told as totals that do not wrap: where one began anew is an event (*wrap*). One that fell where
it cannot have wrapped, since no processor takes so much, is a *fault*, and goes on from what it said. A sensor that
does not answer is missing, each time; one that this user may not read is *not reported*.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.telemetry.interface import Options
from weighbridge.attester.telemetry.sampler import Sampler, SystemSampleClock
from weighbridge.attester.telemetry.sysfs import Found, find, read_number
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import VALUE_MAX, EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.attester.telemetry.interface import HostFacts
    from weighbridge.attester.telemetry.sampler import SampleClock, Tick
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["NAME", "LinuxHost", "open_linux_host"]

NAME: Final = "linux-host"
SYSFS: Final = Path("/sys")
_CLOCKS: Final = ("cpufreq.min", "cpufreq.mean", "cpufreq.max")
_CLOCK_UNIT: Final = "kHz"
# No socket takes 10 kW: what a counter would have gained by a wrap must be less than this times the time since.
_POWER_MAX_W: Final = 10_000
_NS_PER_US: Final = 1000


@final
class LinuxHost:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of what was found.

    Args:
        found: sensors to be read.
        period_ns: between samples.
        clock: of the sampler, the host's by default.
    """

    def __init__(self, found: Found, *, period_ns: int, clock: SampleClock | None = None) -> None:
        self._sensors = found.sensors
        self._clocks = found.clocks
        self._clock = clock or SystemSampleClock()
        names = [sensor.name for sensor in found.sensors]
        units = [sensor.unit for sensor in found.sensors]
        if found.clocks:
            names += _CLOCKS
            units += [_CLOCK_UNIT] * len(_CLOCKS)
        self._names, self._units = tuple(names), tuple(units)
        self._refused = frozenset(sensor.name for sensor in found.sensors if sensor.refused)
        self._counters = {
            number: _Counter(sensor.wraps_at)
            for number, sensor in enumerate(found.sensors)
            if sensor.wraps_at is not None and not sensor.refused
        }
        self.sampler = Sampler(self.read, columns=len(names), period_ns=period_ns, clock=self._clock)

    def read(self, tick: Tick) -> None:
        """Read every sensor once into ``tick``."""
        for number, sensor in enumerate(self._sensors):
            if sensor.refused:
                continue
            value = read_number(sensor.path)
            if value is None:
                tick.note(EventKind.FAULT, number)
                continue
            counter = self._counters.get(number)
            if counter is not None:
                value, happened = counter.total(value, self._clock.monotonic_ns())
                if happened is not None:
                    tick.note(happened, number)
            tick.row[number] = value
        if self._clocks:
            self._read_clocks(tick)

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`."""
        _ = work
        samples = self.sampler.take(start_wall_ns=start_wall_ns, duration_ns=duration_ns)
        return [
            samples.source(device=None, name=NAME, columns=self._names, units=self._units, absent=self._refused),
        ]

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`."""
        self.sampler.close()

    def _read_clocks(self, tick: Tick) -> None:
        read = [value for path in self._clocks if (value := read_number(path)) is not None]
        first = len(self._sensors)
        if not read:
            for number in range(len(_CLOCKS)):
                tick.note(EventKind.FAULT, first + number)
            return
        tick.row[first], tick.row[first + 1], tick.row[first + 2] = min(read), sum(read) // len(read), max(read)


@final
class _Counter:
    """A counter of microjoules that wraps at ``modulus``, as a total that does not."""

    def __init__(self, modulus: int) -> None:
        self._modulus = modulus
        self._base = 0
        self._last: tuple[int, int] | None = None

    def total(self, value: int, at_ns: int) -> tuple[int, EventKind | None]:
        """The total at ``at_ns`` where the counter says ``value``, and what happened to the counter."""
        last, self._last = self._last, (value, at_ns)
        if last is None or value >= last[0]:
            return min(self._base + value, VALUE_MAX), None
        before, then = last
        gained = self._modulus - before + value
        if gained > (at_ns - then) * _POWER_MAX_W // _NS_PER_US:
            self._base = 0
            return value, EventKind.FAULT
        self._base += self._modulus
        return min(self._base + value, VALUE_MAX), EventKind.WRAP


def open_linux_host(options: Mapping[str, str], host: HostFacts) -> LinuxHost:
    """The plug-in ``linux-host``, sampling already. Option: ``root=DIR`` instead of ``/sys``.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE``: no sensor is found, or an option will not do.
    """
    given = Options(NAME, options)
    root = Path(given.text("root", default=str(SYSFS)))
    given.end()
    found = find(root)
    if not found.clocks and all(sensor.refused for sensor in found.sensors):
        raise EnvironmentFault(
            Code.TELEMETRY_SOURCE,
            "this host shows no sensor of its own",
            where=f"--telemetry {NAME}",
            expected=f"powercap, hwmon or cpufreq in {root}",
            got=_said(found),
            hint="virtual machines have none; RAPL counters need root" if not found.sensors else "run as root",
        )
    source = LinuxHost(found, period_ns=host.period_ns)
    source.sampler.start()
    return source


def _said(found: Found) -> str:
    return f"{len(found.sensors)} that only root may read" if found.sensors else "nothing"
