"""Row A59: readings that no GPU gave, signed like any other; and forgeries that nothing here tells from the truth.

What contradicts physics is judged without a baseline: nothing else could have refused it. What physics has nothing
against is judged by the production policy, which demands a baseline.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

from corpus.telemetry import SERVING, UNIT, admitted_though, answers, baselined, sensing
from support.sensors import Sensors, reading
from support.world import PERIOD_NS
from weighbridge.proto.telemetry import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.core import Answer

    Change = Callable[[Source], Source]

_HOUR: Final = 3600
_KNOWN_WINDOWS: Final = 2 * UNIT
# What units are judged in, together: docs/baseline.md.
_BLOCK: Final = 6 * UNIT
# As many readings one after the other are found again: docs/baseline.md.
_COPIED: Final = 59
# A second's samples at 10 Hz.
_SAMPLES: Final = 10


def serving(arena: Arena, windows: int = 2) -> World:
    """As many good windows of GPUs at work into a session, under a policy that asks for no baseline."""
    world = arena.world()
    world.host.work = SERVING
    world.open_session()
    for _ in range(windows):
        assert world.window().verdict.opens
    return world


def _cannot_be(world: World, change: Change, *, check: str, most: int = 2 * UNIT) -> Answer:
    """The window in which a check whose name begins with ``check`` contradicts what the sensors of a GPU read."""
    answer = answers(world, most, change)[-1]
    assert answer.verdict.telemetry == "implausible"
    assert answer.verdict.physical is not None
    found = {item.check for device in answer.verdict.physical.devices for item in device.findings}
    assert any(name.startswith(check) for name in found), found
    return answer


def _of_no_use(arena: Arena, change: Change, *, why: str) -> Answer:
    """The last window of three units, from the session's beginning: none of them was admitted."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    found = answers(world, 3 * UNIT, change)
    assert not any(answer.verdict.opens or answer.token for answer in found)
    verdict = found[-1].verdict
    assert verdict.telemetry == "unusable"
    assert verdict.physical is not None
    assert all(why in device.why for device in verdict.physical.devices)
    return found[-1]


def scaled(share: float, *channels: str) -> Change:
    """These channels, times ``share``."""
    return lambda source: reading(source, **dict.fromkeys(channels, lambda _, value: value * share))


class _Counted:
    """Power that is made up, and an energy counter that advances by it."""

    def __init__(self, power: Callable[[Source], Sequence[float]]) -> None:
        self._power = power
        self._energy: dict[bytes | None, float] = {}

    def __call__(self, source: Source) -> Source:
        power = self._power(source)
        at = self._energy.get(source.device)
        if at is None:
            at = _values(source, "energy")[0] - power[0] / _SAMPLES
        energy = [at := at + value / _SAMPLES for value in power]
        self._energy[source.device] = at
        return reading(
            source,
            power=lambda place, _: power[place],
            power_instant=lambda place, _: power[place],
            energy=lambda place, _: energy[place],
        )


class _Repeated:
    """The power that each GPU reads in the first windows, over and over."""

    def __init__(self, *, windows: int) -> None:
        self._windows = windows
        self._known: dict[bytes | None, list[list[int]]] = {}

    def __call__(self, source: Source) -> Sequence[float]:
        known = self._known.setdefault(source.device, [])
        known.append(_values(source, "power") if len(known) < self._windows else known[-self._windows])
        return known[-1]


def _values(source: Source, name: str) -> list[int]:
    return [value or 0 for value in source.channels[name].values or ()]


class _Played:
    """What was read in another session, window by window, with the names and times of this one."""

    def __init__(self, windows: list[dict[bytes, Source]], *, dither_mw: int = 0) -> None:
        self._windows = windows
        self._dither = dither_mw
        self._random = Random(59)
        self._at: dict[bytes | None, int] = {}

    def __call__(self, source: Source) -> Source:
        at = self._at.get(source.device, 0)
        self._at[source.device] = at + 1
        old = self._windows[at][source.device or b""]
        played = replace(old, device=source.device, name=source.name, start_wall_ns=source.start_wall_ns)
        if not self._dither:
            return played
        noise = [self._random.randint(-self._dither, self._dither) for _ in old.offsets]
        return reading(played, power=lambda place, value: value + noise[place])


def _seen(world: World, windows: int = _KNOWN_WINDOWS, change: Change | None = None) -> list[dict[bytes, Source]]:
    """What the GPUs read in the next windows, by GPU; their session is closed then, and an hour goes by."""
    session, first = world.host.session, world.host.seq
    assert all(answer.verdict.outcome in {"affirmed", "indeterminate"} for answer in answers(world, windows, change))
    read = [world.host.sampled[session, seq] for seq in range(first, first + windows)]
    world.verifier.close(session, peer=world.host.peer)
    world.clock.advance(_HOUR)
    world.host.wall_ns += _HOUR * PERIOD_NS
    world.open_session()
    return [{source.device or b"": source for source in sources} for sources in read]


# -- physics -----------------------------------------------------------------------------------------------------------


def case_001_power_scaled(arena: Arena) -> Answer:
    return _cannot_be(serving(arena), scaled(0.95, "power", "power_instant"), check="energy_")


def case_002_flat_power(arena: Arena) -> Answer:
    def flat(source: Source) -> Source:
        return reading(source, power=lambda *_: 410_000, power_instant=lambda *_: 410_000)

    return _cannot_be(serving(arena, 0), flat, check="energy_")


def case_003_noise_around_a_declared_mean(arena: Arena) -> Answer:
    random = Random(59)

    def noise(source: Source) -> Source:
        return reading(
            source, power=lambda *_: random.gauss(400_000, 2_000), power_instant=lambda *_: random.gauss(400_000, 2_000)
        )

    return _cannot_be(serving(arena, 0), noise, check="energy_")


def case_004_power_over_its_limit(arena: Arena) -> Answer:
    random = Random(59)

    def over(source: Source) -> list[float]:
        return [random.gauss(820_000, 3_000) for _ in source.offsets]

    return _cannot_be(serving(arena, 0), _Counted(over), check="power_cap")


def case_005_heat_faster_than_its_mass(arena: Arena) -> Answer:
    def hotter(source: Source) -> Source:
        return reading(source, temperature=lambda at, value: value + (25_000 if at >= _SAMPLES // 2 else 0))

    return _cannot_be(serving(arena, 0), hotter, check="temperature_rate")


def case_006_energy_counter_set_back(arena: Arena) -> Answer:
    return _cannot_be(
        serving(arena),
        lambda source: reading(source, energy=lambda _, value: value - 1_000_000),
        check="energy_",
    )


def case_007_work_hidden_between_windows(arena: Arena) -> Answer:
    return _cannot_be(
        serving(arena),
        lambda source: reading(source, energy=lambda _, value: value + 400_000),
        check="energy_",
    )


def case_008_periodic_copy(arena: Arena) -> Answer:
    """Two seconds of honest readings over and over, and a counter that agrees with them."""
    return _cannot_be(serving(arena, 3), _Counted(_Repeated(windows=2)), check="power_repeated")


def case_009_samples_of_an_earlier_session(arena: Arena) -> Answer:
    world = serving(arena, 0)
    return _cannot_be(world, _Played(_seen(world)), check="replay")


def case_010_samples_of_another_gpu(arena: Arena) -> Answer:
    """What each GPU read is played again, an hour later, as the other's."""
    world = serving(arena, 0)
    one, other = world.host.gpus.identities()
    crossed = [{one: read[other], other: read[one]} for read in _seen(world)]
    return _cannot_be(world, _Played(crossed), check="replay")


def case_011_spliced_in_mid_session(arena: Arena) -> Answer:
    """From the third window on what was recorded on another day, all channels of it."""
    world = serving(arena)
    devices = world.host.gpus.identities()
    recorded = Sensors(devices, run=59)
    windows = [
        {
            source.device or b"": source
            for source in recorded.window(start_wall_ns=0, duration_ns=PERIOD_NS, work=SERVING)
        }
        for _ in range(2 * UNIT)
    ]
    return _cannot_be(world, _Played(windows), check="energy_")


def case_012_gpus_exchanged_mid_session(arena: Arena) -> Answer:
    """Each GPU's true readings under the other's name. One of them has counted for longer than the other."""
    world = serving(arena, 0)
    one, other = world.host.gpus.identities()
    names = {one: other, other: one}

    def counted(source: Source) -> Source:
        return reading(source, energy=lambda _, value: value + (10**9 if source.device == one else 0))

    for _ in range(2):
        sensing(world, counted)
        assert world.window().verdict.opens
    return _cannot_be(
        world, lambda source: replace(counted(source), device=names[source.device or b""]), check="energy_"
    )


def case_026_played_again_one_sample_a_window(arena: Arena) -> Answer:
    """An earlier session, sampled once a second, in windows of a second: none has more than one reading of it."""
    world = serving(arena, 0)
    return _cannot_be(world, _Played(_seen(world, _COPIED, _once_a_window)), check="replay", most=_COPIED)


def _once_a_window(source: Source) -> Source:
    """The first sample of a window of a second, as of a source that takes one."""
    channels = {
        name: replace(channel, values=None if channel.values is None else channel.values[:1])
        for name, channel in source.channels.items()
    }
    return replace(source, period_ns=PERIOD_NS, offsets=source.offsets[:1], channels=channels, events=())


# -- of no use: never admitted, and nobody is accused ------------------------------------------------------------------


def case_013_flat_power_and_its_energy(arena: Arena) -> Answer:
    """A sensor that is stuck reads so as well."""
    flat = _Counted(lambda source: [430_000.0] * len(source.offsets))
    return _of_no_use(arena, flat, why="power_constant")


def case_014_power_left_out(arena: Arena) -> Answer:
    return _of_no_use(arena, _without("power"), why="power is not sampled")


def case_015_energy_left_out(arena: Arena) -> Answer:
    return _of_no_use(arena, _without("energy"), why="energy is not sampled")


def case_016_temperature_left_out(arena: Arena) -> Answer:
    return _of_no_use(arena, _without("temperature"), why="temperature is not sampled")


def case_017_a_reading_left_out_now_and_then(arena: Arena) -> Answer:
    def sparse(source: Source) -> Source:
        power = source.channels["power"]
        assert power.values is not None
        values = tuple(None if at == _SAMPLES // 2 else value for at, value in enumerate(power.values))
        return replace(source, channels={**source.channels, "power": replace(power, values=values)})

    return _of_no_use(arena, sparse, why="power")


def case_018_readings_beyond_sense(arena: Arena) -> Answer:
    return _of_no_use(arena, lambda source: reading(source, power=lambda *_: 10_000_000_000), why="physical_range")


def case_019_times_that_go_back(arena: Arena) -> Answer:
    """Every window's samples are said to be of the one before."""
    return _of_no_use(
        arena, lambda source: replace(source, start_wall_ns=source.start_wall_ns - PERIOD_NS), why="clock_step"
    )


def case_020_energy_left_out_once_admitted(arena: Arena) -> Answer:
    """The gate shuts with the unit in which it is missing, not before; and then it is said what is missing."""
    world = baselined(arena, work=SERVING)
    found = answers(world, 3 * UNIT, _without("energy"))
    assert all(answer.verdict.opens for answer in found[: UNIT - 1])
    assert not any(answer.verdict.opens for answer in found[UNIT - 1 :])
    physical = found[UNIT - 1].verdict.physical
    assert physical is not None
    assert all("energy" in device.why for device in physical.devices), [device.why for device in physical.devices]
    return found[-1]


def case_021_idle_power_at_full_utilisation(arena: Arena) -> Answer:
    random = Random(59)
    return _of_no_use(
        arena,
        _Counted(lambda source: [random.gauss(118_000, 300) for _ in source.offsets]),
        why="power_utilisation",
    )


def _without(name: str) -> Change:
    """The device is said not to have the sensor."""
    return lambda source: replace(source, channels={**source.channels, name: Channel(source.channels[name].unit, None)})


# -- what agrees with itself: left to the baseline, as far as it sees --------------------------------------------------


def case_022_power_and_energy_scaled_by_a_fifth(arena: Arena) -> Answer:
    return _scaled_together(arena, 0.8)


def case_023_power_and_energy_scaled_by_a_twentieth(arena: Arena) -> Answer:
    return _scaled_together(arena, 0.95)


def case_024_power_and_energy_scaled_by_a_hundredth(arena: Arena) -> Answer:
    """A ceiling: all channels agree, and the change is smaller than what the baseline says it sees."""
    return admitted_though(_scaled_together(arena, 0.99))


def case_025_full_replay_with_a_dither(arena: Arena) -> Answer:
    """A ceiling: all channels of an earlier session, power changed by up to 0.1 W so that none repeats exactly."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    return admitted_though(answers(world, _KNOWN_WINDOWS, _Played(_seen(world), dither_mw=100))[-1])


def _scaled_together(arena: Arena, share: float) -> Answer:
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    return answers(world, _BLOCK, scaled(share, "power", "power_instant", "energy"))[-1]
