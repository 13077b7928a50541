"""Recorded runs judged: the word is the verifier's own, the units beside it say where it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.runs import GPU, SCOPE, record_run
from weighbridge.proto.digest import sha256
from weighbridge.proto.recording import RecordedWindow
from weighbridge.verifier.telemetry.study.fitting import Settings, fit
from weighbridge.verifier.telemetry.study.judging import judge, why_foreign
from weighbridge.verifier.telemetry.study.readings import summarise

if TYPE_CHECKING:
    from weighbridge.proto.profile import Profile
    from weighbridge.proto.recording import Recording

BASELINE = sha256(b"a set")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return fit([record_run(seed) for seed in range(1, 13)], GPU, Settings())


def spoiled(run: Recording, number: int, **channels: tuple[int | None, ...] | None) -> Recording:
    """``run`` with one window's sensors changed: a channel's values, or nothing of it."""
    window = run.windows[number]
    telemetry = window.readings()
    source = telemetry.sources[0]
    made = dict(source.channels)
    for name, values in channels.items():
        made[name] = replace(made[name], values=values)
    other = replace(telemetry, sources=(replace(source, channels=made),)).encode()
    windows: list[RecordedWindow] = [*run.windows]
    windows[number] = replace(window, telemetry=other)
    return replace(run, windows=tuple(windows))


def test_a_genuine_run_is_in_its_baseline(profile: Profile) -> None:
    found = judge(record_run(40), profile, baseline=BASELINE)
    assert found.appraisal.verdict == "in_baseline"
    assert found.appraisal.baseline == BASELINE.hex()
    assert len(found.units) == len(found.scored) == 12
    assert {unit.verdict for unit in found.units} == {"in_baseline"}
    assert found.alarm is None
    assert found.power_w.size == found.times.size == 1200
    assert all(abs(scored.score.residual_mw) < 6_000 for scored in found.scored)


def test_hidden_work_is_out_of_it_from_the_unit_of_the_alarm_on(profile: Profile) -> None:
    found = judge(record_run(41, extra_w=40, since=4), profile, baseline=BASELINE)
    assert found.appraisal.verdict == "out_of_baseline"
    assert found.alarm is not None
    assert found.alarm >= 4
    words = [unit.verdict for unit in found.units]
    assert set(words[: found.alarm]) == {"in_baseline"}
    assert set(words[found.alarm :]) == {"out_of_baseline"}
    assert found.scored[4].score.residual_mw > 35_000


def test_physics_come_before_the_baseline(profile: Profile) -> None:
    run = record_run(42)
    read = run.windows[3].readings().sources[0].channels["energy"].values
    energy = [value for value in read or () if value is not None]
    halved = tuple(energy[0] + (value - energy[0]) // 2 for value in energy)
    found = judge(spoiled(run, 3, energy=halved), profile, baseline=BASELINE)
    assert found.appraisal.verdict == "implausible"
    assert "implausible" in {unit.verdict for unit in found.units}


def test_a_unit_without_its_channel_has_no_score(profile: Profile) -> None:
    found = judge(spoiled(record_run(43), 11, power=None), profile, baseline=BASELINE)
    assert found.appraisal.verdict == "unusable"
    assert len(found.scored) == 11


@pytest.mark.parametrize(
    ("changes", "why"), [({"driver": "999.1"}, "driver 580"), ({"model": sha256(b"x")}, "manifest")]
)
def test_another_stack_has_no_baseline(profile: Profile, changes: dict[str, str | bytes], why: str) -> None:
    run = replace(record_run(44), scope=replace(SCOPE, **changes))  # type: ignore[arg-type]  # by name
    assert why in why_foreign(run, profile)
    found = judge(run, profile, baseline=BASELINE)
    assert found.appraisal.verdict == "no_baseline"
    assert not found.units


def test_samples_that_come_too_seldom_are_no_reason_to_fail(profile: Profile) -> None:
    run = record_run(45, windows=2)
    windows = list(run.windows)
    for number, window in enumerate(windows):
        telemetry = window.readings()
        source = telemetry.sources[0]
        kept = [at for at in range(100) if at % 4]
        channels = {
            name: replace(channel, values=tuple(channel.values[at] for at in kept))
            for name, channel in source.channels.items()
            if channel.values is not None
        }
        # Every fourth is missing, and the others are spread: no gap, and too few.
        offsets = tuple(at * 10_000_000_000 // len(kept) for at in range(len(kept)))
        sources = (replace(source, offsets=offsets, channels=channels),)
        windows[number] = replace(window, telemetry=replace(telemetry, sources=sources).encode())
    found = judge(replace(run, windows=tuple(windows)), profile, baseline=BASELINE)
    assert found.appraisal.verdict == "unusable"
    assert not found.scored


def test_a_profile_of_no_gpu_judges_nothing(profile: Profile) -> None:
    with pytest.raises(ValueError, match="no GPU"):
        _ = judge(record_run(46), replace(profile, device=None), baseline=BASELINE)
    with pytest.raises(ValueError, match="window"):
        _ = judge(replace(record_run(46), windows=()), profile, baseline=BASELINE)


def test_a_summary_says_what_there_is_and_what_is_broken() -> None:
    (found,) = summarise(record_run(47, windows=3))
    assert (found.device, found.units, found.unit_ns, found.period_ns) == (GPU, 3, 10**10, 10**8)
    assert found.mean_mw is not None
    assert 420_000 < found.mean_mw < 490_000
    assert not found.defects
    values = record_run(47, windows=3).windows[1].readings().sources[0].channels["power"].values
    assert values is not None
    broken = spoiled(record_run(47, windows=3), 1, power=(0, *values[1:]))
    (found,) = summarise(broken)
    assert found.units == 2
    assert found.defects == {"sentinel": 1}
