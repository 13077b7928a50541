"""What a session has to report: every channel that every run of its baseline had, as often, over the same time."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from support.runs import GPU, record_run
from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.proto.profile import Reported
from weighbridge.proto.recording import Recording
from weighbridge.proto.telemetry import Channel
from weighbridge.verifier.telemetry.detector.reported import lack, reported, unfit
from weighbridge.verifier.telemetry.device import Brought, follow
from weighbridge.verifier.telemetry.samples.series import Sampled, join, source_of
from weighbridge.verifier.telemetry.samples.units import units_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.state import DeviceState
from weighbridge.verifier.telemetry.study.fitting import Settings, fit
from weighbridge.verifier.telemetry.study.judging import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weighbridge.proto.profile import Profile
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.telemetry.samples.series import Series
    from weighbridge.verifier.telemetry.samples.units import Unit
    from weighbridge.verifier.telemetry.state import DeviceAppraisal

    Edit = Callable[[Mapping[str, Channel]], Mapping[str, Channel]]

SECOND = 1_000_000_000
ENERGY = Reported("energy", None, 100)
POWER = Reported("power", SECOND, 100)


@lru_cache(maxsize=1)
def profile() -> Profile:
    return fit([record_run(seed) for seed in range(12)], GPU, Settings())


def edited(recording: Recording, edit: Edit, *, since: int = 0, until: int = 10**6) -> Recording:
    """The windows ``since`` up to ``until`` with other channels."""
    windows = list(recording.windows)
    for number in range(since, min(until, len(windows))):
        telemetry = windows[number].readings()
        sources = tuple(replace(source, channels=edit(source.channels)) for source in telemetry.sources)
        windows[number] = replace(windows[number], telemetry=replace(telemetry, sources=sources).encode())
    return replace(recording, windows=tuple(windows))


def without_energy(channels: Mapping[str, Channel]) -> Mapping[str, Channel]:
    return {name: channel for name, channel in channels.items() if name != "energy"}


def sparse(every: int) -> Edit:
    """Energy at one sample in so many."""

    def edit(channels: Mapping[str, Channel]) -> Mapping[str, Channel]:
        values = channels["energy"].values or ()
        kept = tuple(value if number % every == 0 else None for number, value in enumerate(values))
        return {**channels, "energy": replace(channels["energy"], values=kept)}

    return edit


def over(window_ns: int | None) -> Edit:
    return lambda channels: {**channels, "power": replace(channels["power"], window_ns=window_ns)}


def said_of(recording: Recording, by: Profile | None = None) -> list[DeviceAppraisal]:
    """What a verifier says behind each window."""
    state, by = DeviceState(), by or profile()
    said: list[DeviceAppraisal] = []
    for seq, window in enumerate(recording.windows):
        interval = (window.start_ns, window.end_ns)
        brought = Brought(
            device=GPU,
            sampled=Sampled.of(source_of(window.readings(), GPU, by.source)),
            work=DeclaredWork.of(window.work, window.end_ns - window.start_ns),
            interval=interval,
            seq=seq,
            copy=None,
            profile=by,
            baseline=bytes(32),
            foreign="",
        )
        state, appraisal = follow(state, brought)
        said.append(appraisal)
    return said


def test_a_profile_names_what_all_its_runs_had() -> None:
    assert profile().channels == (ENERGY, POWER)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (without_energy, "energy is not sampled, and the baseline's runs had it"),
        (lambda channels: {**channels, "energy": Channel("mJ", None)}, "energy is not sampled"),
        (
            lambda channels: {**channels, "energy": Channel("mJ", (None,) * 100)},
            "0 readings of energy, and the baseline's runs had 100",
        ),
        (sparse(10), "10 readings of energy, and the baseline's runs had 100"),
        (over(25_000_000), "power is said to be a mean over 0.025 s, and in the baseline's runs over 1 s"),
        (over(None), "power is said to be a mean over no time that is known"),
    ],
)
def test_a_session_that_lacks_some_of_it_is_unusable_and_never_scored(edit: Edit, why: str) -> None:
    """Not even where it would be out of the baseline: its power is what nothing contradicts any more."""
    run = edited(record_run(100, windows=4, extra_w=200.0), edit)
    for said in said_of(run):
        assert (said.verdict, said.units, said.score) == ("unusable", 0, None)
        assert why in said.why
    judged = judge(run, profile(), baseline=bytes(32))
    assert judged.appraisal.verdict == "unusable"
    assert judged.scored == []


def test_what_is_left_out_for_a_while_is_unusable_for_so_long() -> None:
    run = edited(record_run(101, windows=5), without_energy, since=2, until=4)
    assert [said.verdict for said in said_of(run)] == [
        "in_baseline",
        "in_baseline",
        "unusable",
        "unusable",
        "in_baseline",
    ]


def test_a_reading_may_fail_now_and_then_and_more_channels_do_no_harm() -> None:
    def edit(channels: Mapping[str, Channel]) -> Mapping[str, Channel]:
        values = list(channels["energy"].values or ())
        values[3:12] = [None] * 9
        more = Channel("MHz", (1980,) * 100)
        return {**channels, "energy": replace(channels["energy"], values=tuple(values)), "sm_clock": more}

    assert {said.verdict for said in said_of(edited(record_run(102, windows=3), edit))} == {"in_baseline"}


def units(recording: Recording) -> list[Unit]:
    return units_of(recording, GPU, Settings().unit_ns)


def test_what_only_some_runs_have_is_not_asked_for() -> None:
    runs = [units(record_run(1, windows=5)), units(edited(record_run(2, windows=5), without_energy))]
    assert reported(runs, samples=100) == (POWER,)


def test_settings_are_to_be_there_and_no_more() -> None:
    def edit(channels: Mapping[str, Channel]) -> Mapping[str, Channel]:
        limit = Channel("mW", (700_000, *[None] * 99))
        return {**sparse(10)(channels), "power_limit": limit}

    run = units(edited(record_run(3, windows=5), edit))
    channels = reported([run], samples=100)
    assert channels == (Reported("energy", None, 10), POWER, Reported("power_limit", None, 0))
    assert lack(run[0].series, channels) == ""
    assert "power_limit is not sampled" in lack(units(record_run(3, windows=5))[0].series, channels)


def of_source(recording: Recording, *names: str, power: Edit | None = None, since: int = 0) -> Recording:
    """The device's readings under other names, once for each; those of the first with other channels."""
    windows = list(recording.windows)
    for number in range(since, len(windows)):
        telemetry = windows[number].readings()
        (own,) = telemetry.sources
        sources = [replace(own, name=name) for name in names]
        if power is not None:
            sources[0] = replace(sources[0], channels=power(own.channels))
        ordered = tuple(sorted(sources, key=lambda item: item.name))
        windows[number] = replace(windows[number], telemetry=replace(telemetry, sources=ordered).encode())
    return replace(recording, windows=tuple(windows))


def flat(channels: Mapping[str, Channel]) -> Mapping[str, Channel]:
    """As much power as the baseline's runs have on average, whatever the GPU draws."""
    values = channels["power"].values or ()
    return {**channels, "power": replace(channels["power"], values=(450_000,) * len(values))}


def test_a_source_that_another_is_put_before_is_judged_all_the_same() -> None:
    """By name ``aaa`` is before ``model``: it says what the baseline expects, and nobody asks it."""
    assert profile().source == "model"
    honest = of_source(record_run(110, windows=3), "aaa", "model", power=flat)
    assert [said.verdict for said in said_of(honest)] == ["in_baseline"] * 3
    hidden = said_of(of_source(record_run(111, windows=3, extra_w=200.0), "aaa", "model", power=flat))
    assert [said.verdict for said in hidden] == ["in_baseline"] + ["out_of_baseline"] * 2
    assert (hidden[0].residual_mw or 0) > 190_000


def test_a_source_of_another_name_is_not_compared() -> None:
    for said in said_of(of_source(record_run(112, windows=3), "aaa")):
        assert (said.verdict, said.units, said.score) == ("unusable", 0, None)
        assert "sampled by aaa, and the baseline's runs by model" in said.why
    judged = judge(of_source(record_run(112, windows=3), "aaa"), profile(), baseline=bytes(32))
    assert (judged.appraisal.verdict, judged.scored) == ("unusable", [])
    # Whatever comes in its place, from when on: what was begun is dropped.
    words = [said.verdict for said in said_of(of_source(record_run(113, windows=4), "aaa", since=2))]
    assert words == ["in_baseline"] * 2 + ["unusable"] * 2


def test_runs_of_different_sources_are_no_baseline() -> None:
    runs = [record_run(seed) for seed in range(11)]
    with pytest.raises(PolicyDenied) as refusal:
        fit([*runs, of_source(record_run(11), "other")], GPU, Settings())
    assert refusal.value.code is Code.BASELINE_SCOPE
    assert "model, other" in str(refusal.value)
    made = fit([*runs, of_source(record_run(11), "other", since=6)], GPU, Settings())
    assert (made.source, min(len(run.scores) for run in made.runs)) == ("model", 6)


def limited(*values: int | None) -> Edit:
    return lambda channels: {**channels, "power_limit": Channel("mW", (*values, *[None] * (100 - len(values))))}


def test_a_limit_of_power_has_to_be_read_in_every_window() -> None:
    """Else nothing would show that another is in force."""
    made = fit([edited(record_run(seed), limited(700_000)) for seed in range(12)], GPU, Settings())
    assert made.channels[-1] == Reported("power_limit", None, 0)
    run = record_run(114, windows=4)
    read = edited(run, limited(700_000))
    assert [said.verdict for said in said_of(read, made)] == ["in_baseline"] * 4
    for edit in (limited(None), lambda channels: {**channels, "power_limit": Channel("mW", None)}):
        for said in said_of(edited(run, edit), made):
            assert said.verdict == "unusable"
            assert "power_limit is not" in said.why
        late = said_of(edited(read, edit, since=2, until=3), made)
        assert [said.verdict for said in late] == ["in_baseline", "in_baseline", "unusable", "in_baseline"]
        assert late[2].why.startswith("power_limit is not read, and the baseline is for one of 700 W")
    # A baseline for no limit asks for the channel alone, as its runs had it.
    free = replace(made, scope=replace(made.scope, power_limit_mw=None))
    assert [said.verdict for said in said_of(edited(run, limited(None)), free)] == ["in_baseline"] * 4


def test_runs_whose_sensors_differ_are_no_baseline() -> None:
    runs = [record_run(seed) for seed in range(11)]
    with pytest.raises(PolicyDenied) as refusal:
        fit([*runs, edited(record_run(11), over(25_000_000))], GPU, Settings())
    assert refusal.value.code is Code.BASELINE_SCOPE
    assert refusal.value.where == "power"


def test_units_that_lack_a_channel_are_left_out_of_a_fit() -> None:
    runs = [record_run(seed) for seed in range(11)]
    made = fit([*runs, edited(record_run(11), without_energy, since=6)], GPU, Settings())
    assert made.channels == (ENERGY, POWER)
    assert sorted(len(run.scores) for run in made.runs) == [6, *[12] * 11]
    with pytest.raises(Indeterminate) as refusal:
        fit([*runs, edited(record_run(11), without_energy, since=4)], GPU, Settings())
    assert refusal.value.code is Code.BASELINE_RUNS
    assert "energy is not sampled" in (refusal.value.hint or "")


def test_windows_that_say_different_things_of_a_sensor_are_not_joined() -> None:
    run = edited(record_run(103, windows=2), over(5 * SECOND), until=1)
    sources = [source_of(window.readings(), GPU) for window in run.windows]
    series, defects = join([source for source in sources if source is not None])
    assert series is None
    assert [defect.kind for defect in defects] == ["source"]


def cut(series: Series, count: int) -> Series:
    return series.cut(0, count)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda series: replace(series, period_ns=SECOND), "sampled every 1 s, and the baseline's channel every 0.1 s"),
        (lambda series: cut(series, 94), "94 samples, of 100 that are due"),
        (lambda series: replace(series, channels={"energy": series.channels["energy"]}), "about power"),
        (lambda series: replace(series, absent={"power": np.arange(100) == 3}), "readings of power are missing"),
        (lambda series: cut(series, 95), ""),
    ],
)
def test_what_else_cannot_be_scored_is_said(edit: Callable[[Series], Series], why: str) -> None:
    said = unfit(edit(units(record_run(104, windows=1))[0].series), profile())
    assert why in said
    assert bool(why) == bool(said)


def test_the_last_window_of_a_unit_does_not_hide_the_first() -> None:
    """A channel that begins in the middle of a unit has half of its readings."""

    def halved(source: Source, part: slice) -> Source:
        begin = source.offsets[part][0]
        return replace(
            source,
            start_wall_ns=source.start_wall_ns + begin,
            offsets=tuple(offset - begin for offset in source.offsets[part]),
            channels={
                name: replace(channel, values=(channel.values or ())[part]) for name, channel in source.channels.items()
            },
        )

    source = source_of(record_run(105, windows=1).windows[0].readings(), GPU)
    assert source is not None
    first, second = halved(source, slice(0, 50)), halved(source, slice(50, 100))
    series, _ = join([replace(first, channels=without_energy(first.channels)), second])
    assert series is not None
    assert lack(series, profile().channels) == "50 readings of energy, and the baseline's runs had 100"
