"""Units that are lost while a gate may be open: each is counted, and what their power says is not forgotten."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Final

import pytest

from support.runs import GPU, record_run
from weighbridge.proto.telemetry import Channel
from weighbridge.verifier.telemetry.device import Brought, follow
from weighbridge.verifier.telemetry.remains import NO_REMAINS
from weighbridge.verifier.telemetry.samples.series import Sampled
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.state import DeviceState
from weighbridge.verifier.telemetry.study.fitting import Settings, fit

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.proto.recording import Recording
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.telemetry.state import DeviceAppraisal

SECOND: Final = 1_000_000_000
UNIT: Final = 10 * SECOND
# A unit's samples.
UNIT_SAMPLES: Final = 100


@pytest.fixture(scope="module")
def profile() -> Profile:
    return fit([record_run(seed) for seed in range(12)], GPU, Settings())


def part(run: Recording, first: int, last: int) -> tuple[Source, DeclaredWork]:
    """Windows ``first`` up to ``last`` of ``run`` as one."""
    windows = run.windows[first:last]
    sources = [window.readings().sources[0] for window in windows]
    start = sources[0].start_wall_ns
    channels: dict[str, Channel] = {}
    for name, channel in sources[0].channels.items():
        values = tuple(value for source in sources for value in source.channels[name].values or ())
        channels[name] = replace(channel, values=values)
    offsets = tuple(source.start_wall_ns - start + offset for source in sources for offset in source.offsets)
    works = [DeclaredWork.of(window.work, UNIT) for window in windows]
    return replace(sources[0], offsets=offsets, channels=channels), reduce(DeclaredWork.__add__, works)


class Line:
    """One GPU in a session."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.state = DeviceState()
        self.seq = 0

    def brings(self, source: Source, work: DeclaredWork) -> DeviceAppraisal:
        start = source.start_wall_ns
        brought = Brought(
            device=GPU,
            sampled=Sampled.of(source),
            work=work,
            interval=(start, start + work.duration_ns),
            seq=self.seq,
            copy=None,
            profile=self.profile,
            baseline=bytes(32),
            foreign="",
        )
        self.state, said = follow(self.state, brought)
        self.seq += 1
        return said


def opened(profile: Profile, run: Recording) -> Line:
    """A GPU whose gate is open by the first window of ``run``."""
    line = Line(profile)
    assert line.brings(*part(run, 0, 1)).verdict == "in_baseline"
    return line


def long_opened(profile: Profile) -> Line:
    """A GPU whose gate is open, and which has nothing before."""
    line = Line(profile)
    line.state = replace(line.state, profile=profile, usable=True)
    return line


def spoiled(source: Source, *units: int, channel: str = "sm_clock") -> Source:
    """With one reading in each of these units that no sensor gives, of a channel that is added where it is missing."""
    at = {unit * UNIT_SAMPLES + 50 for unit in units}
    found = source.channels.get(channel)
    values = [1_980] * len(source.offsets) if found is None else list(found.values or ())
    made = tuple(10**10 if place in at else value for place, value in enumerate(values))
    unit = "MHz" if found is None else found.unit
    return replace(source, channels={**source.channels, channel: Channel(unit, made)})


def without(source: Source, first: int, count: int) -> Source:
    """With a gap."""
    keep = [place for place in range(len(source.offsets)) if not first <= place < first + count]
    channels = {
        name: replace(channel, values=tuple(channel.values[place] for place in keep))
        for name, channel in source.channels.items()
        if channel.values is not None
    }
    return replace(source, offsets=tuple(source.offsets[place] for place in keep), channels=channels)


def test_the_word_of_a_window_is_that_of_its_worst_unit(profile: Profile) -> None:
    run = record_run(501, windows=8)
    source, work = part(run, 1, 7)
    line = opened(profile, run)
    said = line.brings(spoiled(source, 0, 1, 2, 3, 4), work)
    assert (said.verdict, said.units) == ("unusable", 2)
    assert said.why.startswith("1 of 5 units in a row")
    assert (line.state.lapses, line.state.row) == (5, 1)
    # One lost unit is made good by one, in another window than its own.
    line = opened(profile, run)
    said = line.brings(spoiled(source, 2), work)
    assert (said.verdict, line.state.usable, line.state.lapses) == ("unusable", True, 1)
    assert said.why.startswith("physical_range, sm_clock")
    assert line.brings(*part(run, 7, 8)).verdict == "in_baseline"


@pytest.mark.parametrize(("units", "lapses"), [(1, 1), (6, 6), (30, 20)])
def test_a_window_that_is_lost_counts_as_many_units_as_it_has(profile: Profile, units: int, lapses: int) -> None:
    run = record_run(503, windows=1 + units)
    line = opened(profile, run)
    source, work = part(run, 1, 1 + units)
    assert line.brings(without(source, 20, 5), work).verdict == "unusable"
    assert line.state.lapses == lapses


def test_what_is_lost_while_the_gate_is_closed_counts_nothing(profile: Profile) -> None:
    run, line = record_run(504, windows=7), Line(profile)
    source, work = part(run, 0, 6)
    assert line.brings(spoiled(source, *range(6)), work).verdict == "unusable"
    assert (line.state.lapses, line.state.remains) == (0, NO_REMAINS)
    assert line.brings(*part(run, 6, 7)).verdict == "in_baseline"


def test_hidden_work_in_spoiled_units_is_looked_at(profile: Profile) -> None:
    run = record_run(506, windows=6, extra_w=270.0, busy=(4, 6))
    source, work = part(run, 0, 6)
    line = long_opened(profile)
    said = line.brings(spoiled(source, *range(6)), work)
    assert said.verdict == "out_of_baseline"
    assert "s that no unit has, as sessions ended or samples were lost" in said.why
    # And in one long window with a gap, of which none is a unit.
    line = long_opened(profile)
    assert line.brings(without(source, 320, 5), work).verdict == "out_of_baseline"


def test_honest_power_beside_a_broken_sensor_is_let_go(profile: Profile) -> None:
    run = record_run(507, windows=7)
    line = opened(profile, run)
    source, work = part(run, 1, 7)
    assert line.brings(spoiled(source, *range(6)), work).verdict == "unusable"
    assert (line.state.contradicted, line.state.remains) == ("", NO_REMAINS)


def test_power_that_is_doubted_accuses_nobody(profile: Profile) -> None:
    run = record_run(508, windows=6, extra_w=270.0, busy=(4, 6))
    line = long_opened(profile)
    source, work = part(run, 0, 6)
    assert line.brings(spoiled(source, *range(6), channel="power"), work).verdict == "unusable"
    assert (line.state.lapses, line.state.remains, line.state.contradicted) == (6, NO_REMAINS, "")


def test_work_beyond_what_was_seen_accuses_nobody(profile: Profile) -> None:
    run = record_run(509, windows=6, extra_w=270.0, busy=(4, 6))
    line = long_opened(profile)
    source, work = part(run, 0, 6)
    said = line.brings(source, replace(work, tokens_out=1000 * work.tokens_out, decode_ns=1000 * work.decode_ns))
    assert said.verdict == "unusable"
    assert "outside of what the baseline has seen" in said.why
    assert (line.state.lapses, line.state.remains, line.state.contradicted) == (6, NO_REMAINS, "")


def test_what_had_begun_before_a_gap_is_owed(profile: Profile) -> None:
    run = record_run(510, windows=2)
    line = opened(profile, run)
    source, work = part(run, 1, 2)
    assert line.brings(without(source, 40, 60), replace(work, duration_ns=4 * SECOND)).verdict == "in_baseline"
    rest = without(source, 0, 70)
    begin = rest.offsets[0]
    rest = replace(
        rest, start_wall_ns=source.start_wall_ns + begin, offsets=tuple(offset - begin for offset in rest.offsets)
    )
    assert line.brings(rest, replace(work, duration_ns=3 * SECOND)).verdict == "unusable"
    assert line.state.remains.lasts_ns == 4 * SECOND


def test_of_another_period_nothing_is_kept(profile: Profile) -> None:
    run = record_run(511, windows=4)
    line = opened(profile, run)
    for number in range(1, 4):
        source, work = part(run, number, number + 1)
        said = line.brings(replace(source, period_ns=110_000), work)
        assert said.verdict == "unusable"
        assert "sampled every 0.00011 s, and the baseline's channel every 0.1 s" in said.why
        assert line.state.builder is not None
        assert line.state.builder.begun.samples == 0
    assert line.state.lapses == 1
