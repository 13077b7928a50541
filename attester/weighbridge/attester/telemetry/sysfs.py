"""The sensors that Linux shows of a host in sysfs: powercap (RAPL), hwmon, cpufreq. Finds them, and reads their files.

Three classes of files, in the kernel's own units (Documentation/power/powercap/powercap.rst,
Documentation/hwmon/sysfs-interface.rst, Documentation/admin-guide/pm/cpufreq.rst):

* ``class/powercap/ZONE/energy_uj``: a counter of microjoules that wraps at ``max_energy_range_uj``. Only root may read
  it since CVE-2020-8694 (2020): such a zone is found, and *not reported*.
* ``class/hwmon/hwmonN/{power,energy,temp,curr,fan,in}M_{input,average}``: microwatts, microjoules, thousandths of a
  degree, milliamperes, revolutions a minute, millivolts.
* ``devices/system/cpu/cpufreq/policyN/scaling_cur_freq``: kilohertz; reported as least, mean and greatest.

Entries of ``class`` are links within sysfs. A link that leads out of the root is not followed, and no file that is a
link is opened. What is found is bounded; what comes first is kept (energy, power, temperature, then the rest). Whether
a sensor is where its name says, and reads what is there, nothing here can know.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.telemetry import VALUE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Found", "Sensor", "find", "read_number"]

# One source carries at most 64 channels (limits.TELEMETRY_CHANNELS_MAX); three of them are for clocks.
SENSORS_MAX: Final = 60
CLOCKS_MAX: Final = 64
_ENTRIES_MAX: Final = 4096
_FILE_MAX: Final = 64
_NAME_MAX: Final = 64
_NUMBER: Final = re.compile(r"(-?)([0-9]{1,19})\n?")
_READING: Final = re.compile(r"(power|energy|temp|curr|fan|in)([0-9]{1,3})_(input|average)")
_UNITS: Final = {
    "energy": "µJ",
    "power": "µW",
    "temp": "m°C",
    "curr": "mA",
    "fan": "rpm",
    "in": "mV",
}
_KINDS: Final = {kind: order for order, kind in enumerate(_UNITS)}
_CLOCK: Final = re.compile(r"policy([0-9]{1,4})")

Kind = Literal["energy", "power", "temp", "curr", "fan", "in", "clock"]


@dataclass(frozen=True, slots=True)
class Sensor:
    """One file to be read.

    Attributes:
        name: of its channel, at most 64 bytes.
        unit: of what the file holds.
        path: of the file; its directory has been resolved, and lies within the root.
        wraps_at: range of a counter that wraps, ``None`` for what is none or does not say.
        refused: this user may not read it.
    """

    name: str
    unit: str
    path: str
    wraps_at: int | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a root shows: sensors, files with the clocks of CPUs, and how many sensors are more than is taken."""

    sensors: tuple[Sensor, ...]
    clocks: tuple[str, ...]
    left_out: int


def find(root: Path) -> Found:
    """The sensors under ``root`` (``/sys``), those that cannot be read now among them. Never raises for what is there.

    A file that cannot be opened for another reason than that this user may not is taken: it may answer later.
    """
    real = os.path.realpath(root)
    sensors = [*_powercap(real), *_hwmon(real)]
    taken = sorted(sensors, key=lambda item: (_order(item), item.path))[:SENSORS_MAX]
    return Found(_distinct(taken), tuple(_clocks(real)), len(sensors) - len(taken))


def read_number(path: str) -> int | None:
    """The whole number in the file; ``None`` where there is no file, it cannot be read, or holds something else."""
    text = _text(path)
    if text is None or not (match := _NUMBER.fullmatch(text)):
        return None
    sign, digits = match.groups()
    try:
        value = strict.decimal(digits, what=path, limit=VALUE_MAX)
    except MalformedEvidence:
        return None
    return -value if sign else value


def _powercap(root: str) -> Iterator[Sensor]:
    for zone, place in _entries(root, "class/powercap"):
        path = os.path.join(place, "energy_uj")  # noqa: PTH118 - plain text: read ten times a second
        if not os.path.lexists(path):
            # A control type, such as intel-rapl itself.
            continue
        label = _text(os.path.join(place, "name")) or ""  # noqa: PTH118 - as above
        wraps = read_number(os.path.join(place, "max_energy_range_uj"))  # noqa: PTH118 - as above
        yield Sensor(
            _named("powercap", zone, label),
            _UNITS["energy"],
            path,
            wraps_at=wraps if wraps is not None and wraps > 0 else None,
            refused=_is_refused(path),
        )


def _hwmon(root: str) -> Iterator[Sensor]:
    for chip, place in _entries(root, "class/hwmon"):
        name = _text(os.path.join(place, "name")) or ""  # noqa: PTH118 - as above
        for file in _listed(place):
            match = _READING.fullmatch(file)
            if match is None:
                continue
            kind, number, _ = match.groups()
            label = _text(os.path.join(place, f"{kind}{number}_label")) or ""  # noqa: PTH118 - as above
            path = os.path.join(place, file)  # noqa: PTH118 - as above
            yield Sensor(_named(chip, name, file, label), _UNITS[kind], path, refused=_is_refused(path))


def _clocks(root: str) -> Iterator[str]:
    base = _within(root, os.path.join(root, "devices/system/cpu/cpufreq"))  # noqa: PTH118 - as above
    if base is None:
        return
    found = [
        (len(name), name, place)
        for name in _listed(base)
        if _CLOCK.fullmatch(name) and (place := _within(root, os.path.join(base, name))) is not None  # noqa: PTH118 - as above
    ]
    for _, _, place in sorted(found)[:CLOCKS_MAX]:
        yield os.path.join(place, "scaling_cur_freq")  # noqa: PTH118 - as above


def _entries(root: str, directory: str) -> Iterator[tuple[str, str]]:
    """Names and resolved places of what is in ``directory``, but for what lies outside of ``root``."""
    base = _within(root, os.path.join(root, directory))  # noqa: PTH118 - as above
    if base is None:
        return
    for name in _listed(base):
        place = _within(root, os.path.join(base, name))  # noqa: PTH118 - as above
        if place is not None:
            yield name, place


def _within(root: str, path: str) -> str | None:
    """``path`` without links, unless it leads out of ``root``."""
    real = os.path.realpath(path)
    return real if real.startswith(root.rstrip("/") + "/") else None


def _listed(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_ENTRIES_MAX), strict=False)]
    except OSError:
        return []
    return sorted(names)


def _text(path: str) -> str | None:
    """The first bytes of a file that is no link, without what would steer a terminal."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.read(handle, _FILE_MAX)
        finally:
            os.close(handle)
        return data.decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _is_refused(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _order(sensor: Sensor) -> int:
    return next(order for kind, order in _KINDS.items() if _UNITS[kind] == sensor.unit)


def _named(*parts: str) -> str:
    """A channel's name: words of letters, digits, ``:``, ``-`` and ``_``, joined by points."""
    words = [re.sub(r"[^0-9A-Za-z:_-]+", "_", part).strip("_") for part in parts]
    return ".".join(word for word in words if word)[:_NAME_MAX]


def _distinct(sensors: list[Sensor]) -> tuple[Sensor, ...]:
    """Without those whose name another one has: cut names may fall together."""
    by_name: dict[str, Sensor] = {}
    for sensor in sensors:
        by_name.setdefault(sensor.name, sensor)
    return tuple(by_name.values())
