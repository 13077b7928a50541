"""Fits: a profile that reads back, that stays quiet about runs like its own, and that says what it would have seen."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from support.runs import GPU, SCOPE, record_run
from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.proto.profile import REGRESSORS, Profile
from weighbridge.verifier.telemetry.detector.calibration import deviation_after
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.gross import LIMITS
from weighbridge.verifier.telemetry.detector.scoring import Scorer
from weighbridge.verifier.telemetry.samples.series import Series
from weighbridge.verifier.telemetry.samples.units import Unit, units_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.study.fitting import RUNS_MIN, Settings, checked, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.recording import Origin, RecordedWindow, Recording

UNIT_NS = Settings().unit_ns


@lru_cache(maxsize=1)
def runs() -> tuple[Recording, ...]:
    return tuple(record_run(seed) for seed in range(RUNS_MIN))


@lru_cache(maxsize=1)
def profile() -> Profile:
    return fit(runs(), GPU, Settings())


def end_of(recording: Recording, by: Profile) -> SessionEvidence:
    scorer, evidence = Scorer(by), SessionEvidence.start()
    for unit in units_of(recording, GPU, UNIT_NS):
        evidence = evidence.after(scorer.score(unit), by)
    return evidence


def test_a_fit_reads_back() -> None:
    assert Profile.parse(profile().encode()) == profile()
    assert len(profile().runs) == RUNS_MIN
    assert {run.recording for run in profile().runs} == {run.digest for run in runs()}


def test_a_fit_does_not_depend_on_the_order_of_its_runs() -> None:
    assert fit(runs()[::-1], GPU, Settings()) == profile()


def test_declared_work_is_explained() -> None:
    """The made-up GPU draws 418 W and 2.1 W for each request; runs differ by 0.8 W."""
    explained = profile().explained
    slopes = dict(zip(REGRESSORS, (term.microwatts for term in explained.terms), strict=True))
    assert explained.base_mw == pytest.approx(418_000, abs=2_000)
    assert slopes["decode"] == pytest.approx(2_100, abs=30)
    assert 300 < explained.uncertainty_mw < 2_000


def test_bounds_say_what_they_rest_on() -> None:
    own, pooled = profile().bounds
    assert profile().gross.assumption == pooled.assumption
    assert (own.basis, own.claimed_ppm, own.runs) == ("runs", 76_924, RUNS_MIN)
    assert (pooled.basis, pooled.claimed_ppm) == ("pooled", 10_000)
    assert own.limit < pooled.limit


def test_a_genuine_run_is_in_the_baseline() -> None:
    for seed in range(100, 110):
        end = end_of(record_run(seed, windows=20), profile())
        assert end.alarm is None
        assert end.units == 20


@pytest.mark.parametrize(("extra_w", "since"), [(15.0, 0), (-15.0, 0), (15.0, 10), (60.0, 0)])
def test_hidden_computation_is_out_of_it(extra_w: float, since: int) -> None:
    end = end_of(record_run(200, windows=40, extra_w=extra_w, since=since), profile())
    assert end.alarm is not None


def test_gross_deviations_are_seen_after_the_first_unit() -> None:
    """Whatever the load: 57 % of what is explained, and not the tenth of a kilowatt that a block of units takes."""
    for seed, extra_w in ((210, 320.0), (211, -320.0), (212, 900.0)):
        end = end_of(record_run(seed, windows=1, extra_w=extra_w), profile())
        assert end.alarm is not None
        assert "in the last unit" in end.alarm


@pytest.mark.parametrize("place", range(5))
def test_what_is_promised_after_so_many_units_is_seen_by_then(place: int) -> None:
    """With twelve runs, one of ten may be missed; here, two of ten are let pass: sizes go in steps of an eighth."""
    seen = profile().deviations[place]
    assert seen.milliwatts is not None
    ends = [
        end_of(record_run(seed, windows=seen.units, extra_w=sign * seen.milliwatts * 1.2 / 1000), profile())
        for seed in range(300, 305)
        for sign in (1, -1)
    ]
    assert sum(end.alarm is not None for end in ends) >= 8
    less = record_run(310, windows=seen.units, extra_w=0.1 * seen.milliwatts / 1000, shift_w=0.0)
    if seen.units < 10:
        less = record_run(310, windows=seen.units, extra_w=0.6 * seen.milliwatts / 1000, shift_w=0.0)
    assert end_of(less, profile()).alarm is None


def test_more_units_see_smaller_changes_up_to_a_block() -> None:
    seen = profile().deviations
    assert [one.units for one in seen] == [1, 2, 3, 5, 10, 12]
    sizes = [one.milliwatts or 10**9 for one in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert 200_000 < sizes[0] < 320_000
    assert 500 < sizes[-1] < 30_000


def test_more_work_than_was_seen_is_not_covered() -> None:
    scorer = Scorer(profile())
    covered = {unit: scorer.score(one).covered for unit, one in enumerate(units_of(record_run(400), GPU, UNIT_NS))}
    assert all(covered.values())
    assert not any(scorer.score(one).covered for one in units_of(record_run(401, busy=(60, 64)), GPU, UNIT_NS))


def test_a_score_says_what_was_measured() -> None:
    unit = units_of(record_run(402, shift_w=0.0), GPU, UNIT_NS)[0]
    score = Scorer(profile()).score(unit)
    mean = round(float(unit.series.channels["power"].mean()))
    assert score.residual_mw + score.explained_mw == pytest.approx(mean, abs=1)
    assert abs(score.residual_mw) < 5_000
    assert score.uncertainty_mw == profile().explained.uncertainty_mw
    assert Scorer(Profile.parse(profile().encode())).score(unit) == score


def test_levels_lead_where_power_moves() -> None:
    unit = units_of(record_run(403, extra_w=40.0, shift_w=0.0), GPU, UNIT_NS)[0]
    leading = Scorer(profile()).score(unit).leading
    assert 0 < len(leading) <= 3
    assert any(name.startswith(("quantile", "mean", "minimum", "maximum")) for name in leading)


def cut(unit: Unit, samples: int) -> Unit:
    series = unit.series
    short = Series(
        device=series.device,
        name=series.name,
        period_ns=series.period_ns,
        times=series.times[:samples],
        channels={name: values[:samples] for name, values in series.channels.items()},
        absent={},
        windows_ns=series.windows_ns,
    )
    return replace(unit, series=short)


def test_units_may_lack_a_sample_and_no_more() -> None:
    scorer, unit = Scorer(profile()), units_of(record_run(404), GPU, UNIT_NS)[0]
    assert scorer.score(cut(unit, 96)).score > 0
    with pytest.raises(ValueError, match="not 100 samples of power"):
        scorer.score(cut(unit, 94))


def test_all_samples_of_a_unit_are_scored() -> None:
    """A unit may have a few more than nominal: what is done in those is seen as well."""
    scorer, unit = Scorer(profile()), units_of(record_run(407), GPU, UNIT_NS)[0]
    power = unit.series.channels["power"]
    hidden = np.concatenate((power, np.full(5, power.mean() + 400_000, dtype=np.int64)))
    longer = replace(unit, series=replace(unit.series, channels={"power": hidden}))
    assert scorer.score(longer).residual_mw - scorer.score(unit).residual_mw > 15_000


def test_extreme_readings_have_a_score() -> None:
    """Whatever a source may send: the score is a number, and far."""
    scorer, unit = Scorer(profile()), units_of(record_run(405), GPU, UNIT_NS)[0]
    for value in (0, -1, 2**63 - 1, -(2**63)):
        values = np.full(100, value, dtype=np.int64)
        values[::7] = 0
        strange = replace(unit, series=replace(unit.series, channels={"power": values}))
        assert scorer.score(strange).score > 100_000


def test_work_of_any_size_has_a_score() -> None:
    unit = units_of(record_run(406), GPU, UNIT_NS)[0]
    huge = DeclaredWork(duration_ns=1, requests=2**53, tokens_in=2**53, tokens_out=2**53, decode_ns=2**63)
    assert not Scorer(profile()).score(replace(unit, work=huge)).covered


def code_of(recordings: list[Recording], *, device: bytes = GPU, settings: Settings | None = None) -> Code:
    with pytest.raises((Indeterminate, PolicyDenied)) as refusal:
        fit(recordings, device, settings or Settings())
    return refusal.value.code


def test_too_few_runs_are_no_baseline() -> None:
    assert code_of(list(runs()[:11])) is Code.BASELINE_RUNS
    assert code_of([]) is Code.BASELINE_RUNS
    assert code_of([*runs()[:11], record_run(50, windows=4)]) is Code.BASELINE_RUNS
    assert code_of(list(runs()), device=bytes(32)) is Code.BASELINE_RUNS
    assert code_of(list(runs()), settings=Settings(channel="power_instant")) is Code.BASELINE_RUNS


def test_runs_of_different_kinds_are_no_baseline() -> None:
    other = replace(SCOPE, driver="590.00")
    assert code_of([*runs()[:11], record_run(50, scope=other)]) is Code.BASELINE_SCOPE
    assert code_of([*runs()[:11], record_run(50, origin="emulated")]) is Code.BASELINE_SCOPE
    assert code_of([*runs(), runs()[0]]) is Code.BASELINE_SCOPE


@pytest.mark.parametrize(
    ("origins", "expected"),
    [(("session", "session"), "session"), (("session", "host"), "host"), (("host", "imported"), "imported")],
)
def test_a_profile_is_as_good_as_the_least_of_its_runs(origins: tuple[Origin, Origin], expected: Origin) -> None:
    recordings = [replace(run, origin=origins[number % 2]) for number, run in enumerate(runs()[:4])]
    assert fit(recordings, GPU, Settings(runs_min=4)).origin == expected


def test_runs_held_out_that_stay_quiet_are_told() -> None:
    found = fit(runs(), GPU, Settings(), held_out=[record_run(seed) for seed in range(500, 510)])
    assert found.checked is not None
    assert (found.checked.runs, found.checked.alarms, found.checked.widened) == (10, 0, False)
    assert found.checked.high_ppm == 308_498
    assert found.bounds == profile().bounds


def test_runs_held_out_that_contradict_a_bound_widen_it() -> None:
    """A GPU that moved between calibration and check: what alarmed on genuine runs does so no more, and it is said."""
    moved = [record_run(seed, windows=12, shift_w=30.0) for seed in range(520, 524)]
    found = checked(profile(), [units_of(run, GPU, UNIT_NS) for run in moved])
    assert found.checked is not None
    assert found.checked.alarms == 4
    assert found.checked.widened
    assert found.evidence_ppm < profile().evidence_ppm
    assert Profile.parse(found.encode()) == found
    assert [end_of(run, found).alarm for run in moved] == [None] * 4


def test_runs_of_different_rates_are_no_baseline() -> None:
    slow = record_run(60)
    windows: list[RecordedWindow] = []
    for window in slow.windows:
        telemetry = window.readings()
        sources = tuple(replace(source, period_ns=200_000_000) for source in telemetry.sources)
        windows.append(replace(window, telemetry=replace(telemetry, sources=sources).encode()))
    assert code_of([*runs()[:11], replace(slow, windows=tuple(windows))]) is Code.BASELINE_SCOPE


def smallest(recordings: Sequence[Recording], settings: Settings, *, after: int) -> int | None:
    return deviation_after(fit(recordings, GPU, settings), after)


def test_who_asks_for_less_certainty_sees_smaller_changes() -> None:
    """At 8 %, the bound of twelve own runs decides on a block; at 0.5 % none does, and the evidence takes longer."""
    long = [record_run(seed, windows=20) for seed in range(RUNS_MIN)]
    loose, usual, strict = (smallest(long, Settings(claim_ppm=claim), after=10) for claim in (80_000, 10_000, 5_000))
    assert loose is not None
    assert usual is not None
    assert strict is not None
    assert loose < usual < strict


def test_two_short_runs_see_what_is_gross_and_no_more() -> None:
    """18 % of what is explained, in the last three of five units."""
    short = [record_run(seed, windows=5) for seed in (70, 71)]
    seen = smallest(short, Settings(runs_min=2, claim_ppm=5_000), after=5)
    assert seen is not None
    assert 0.15 * 430_000 < seen < 0.25 * 490_000


def test_runs_that_stray_far_widen_the_early_look() -> None:
    """A device whose own runs begin far off would else alarm whenever it is honest."""
    strange = record_run(90, windows=12, extra_w=-400.0)
    begun = replace(record_run(90, windows=12), windows=(strange.windows[0], *record_run(90, windows=12).windows[1:]))
    usual = profile().gross
    assert usual.limits == LIMITS
    found = fit([*runs()[:11], begun], GPU, Settings()).gross
    assert found.limits[0] > LIMITS[0]
    assert found.claimed_ppm == usual.claimed_ppm
    held_out = checked(profile(), [units_of(begun, GPU, UNIT_NS)])
    assert held_out.checked is not None
    assert held_out.checked.widened
    assert held_out.gross.limits[0] > LIMITS[0]
    assert end_of(begun, held_out).alarm is None
