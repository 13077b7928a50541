"""Fits a profile to runs of one device: what is explained, what is typical, and what that is worth as a bound.

Everything that a bound rests on is measured on runs that were left out of the fit: each run in its turn is scored by a
fit of all others. That costs as many fits as there are runs, and makes the bound of the own runs an approximate one (a
fit of all runs judges later sessions, one of all but one judged the runs).

Runs that are held out beside take no part in the fit. They check it: if they pass a bound more often than it claims,
the profile says so and the bound is widened to hold them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.proto.profile import FEATURE_STEP, CalibrationRun, Checked, Deviation, Profile
from weighbridge.proto.recording import Origin
from weighbridge.verifier.telemetry.detector.calibration import bounds_of, reference, span_of, statistic_of
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.explained import explained_mw, fit_explained
from weighbridge.verifier.telemetry.detector.features import features, residual
from weighbridge.verifier.telemetry.detector.gross import gross_of, stray, widened
from weighbridge.verifier.telemetry.detector.metric import CLIP, SPAN, Metric, middle
from weighbridge.verifier.telemetry.detector.reported import lack, reported
from weighbridge.verifier.telemetry.detector.scoring import Scorer, least_of, power_of
from weighbridge.verifier.telemetry.samples.series import source_of
from weighbridge.verifier.telemetry.samples.units import units_of
from weighbridge.verifier.telemetry.study.intervals import clopper_pearson
from weighbridge.verifier.telemetry.study.sensitivity import LeftOut, deviations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weighbridge.proto.profile import Explained, Reported
    from weighbridge.proto.recording import Recording
    from weighbridge.proto.scope import Scope
    from weighbridge.verifier.telemetry.samples.units import Unit

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["RUNS_MIN", "Frame", "Run", "Settings", "checked", "fit", "fit_runs"]

RUNS_MIN: Final = 12
"""Runs of a baseline: with fewer, neither kind of bound says anything that is worth signing."""
_UNITS_MIN: Final = 5
_PPM: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_ORIGINS: Final[tuple[Origin, ...]] = ("emulated", "imported", "host", "session")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is fitted, and how much it is to claim.

    Attributes:
        channel: whose samples are scored.
        unit_ns: how long a unit is.
        claim_ppm: the rate of false alarms that is asked for.
        delta_ppm: the share of calibrations whose p-values may be too small.
        runs_min: fewer runs are refused. Below :data:`RUNS_MIN` for trials only.
    """

    channel: str = "power"
    unit_ns: int = 10 * _SECOND
    claim_ppm: int = 10_000
    delta_ppm: int = 100_000
    runs_min: int = RUNS_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the runs have in common. ``source`` is the sensor path; ``channels`` are what their units have at least."""

    device: bytes
    scope: Scope
    origin: Origin
    source: str
    period_ns: int
    channels: tuple[Reported, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """The units of one run: features of their power, its mean, and the regressors of their work, a unit each a row."""

    recording: bytes
    features: Integers
    power_mw: Floats
    work: Integers


def fit(
    recordings: Sequence[Recording],
    device: bytes,
    settings: Settings,
    *,
    held_out: Sequence[Recording] = (),
) -> Profile:
    """The profile of ``device`` in these recordings, one run each.

    Args:
        recordings: parsed, and believed by whoever will sign the profile.
        device: identity of the GPU, 32 bytes.
        settings: what is fitted.
        held_out: further runs that check the bounds.

    Raises:
        Indeterminate: ``BASELINE_RUNS`` for too few runs, or too few units in one.
        PolicyDenied: ``BASELINE_SCOPE`` for runs of different stacks, origins, rates or sensors, or one that is there
            twice.
        MalformedEvidence: a window's telemetry is none.
    """
    frame = _frame([*recordings, *held_out], device, settings)
    if len(recordings) < settings.runs_min:
        raise Indeterminate(
            Code.BASELINE_RUNS,
            "too few runs for a baseline",
            expected=f"{settings.runs_min} or more",
            got=len(recordings),
            hint="record more runs of this GPU on this stack: units of one run do not count as runs",
        )
    units = [_units(recording, frame, settings) for recording in recordings]
    frame = replace(frame, channels=reported(units, samples=settings.unit_ns // frame.period_ns))
    units = [_whole(recording, found, frame) for recording, found in zip(recordings, units, strict=True)]
    runs = [_run(recording, found, settings, frame) for recording, found in zip(recordings, units, strict=True)]
    profile, left_out = _calibrated(runs, frame, settings)
    profile = replace(profile, deviations=deviations(profile, left_out))
    if not held_out:
        return profile
    return checked(profile, [_whole(run, _units(run, frame, settings), frame) for run in held_out])


def fit_runs(runs: Sequence[Run], frame: Frame, settings: Settings) -> Profile:
    """The profile of runs whose features are there already. At least two; the caller has counted them.

    What it would have seen is not looked for: its ``deviations`` promise nothing.
    """
    return _calibrated(runs, frame, settings)[0]


def _calibrated(runs: Sequence[Run], frame: Frame, settings: Settings) -> tuple[Profile, list[LeftOut]]:
    """The profile, and each run as judged by the others."""
    ordered = sorted(runs, key=lambda run: run.recording)
    samples = settings.unit_ns // frame.period_ns
    everything = _Pool.of(ordered)
    explained, metric = everything.fit(samples)
    left_out: list[LeftOut] = []
    for number, run in enumerate(ordered):
        # 1. A fit that has not seen the run, and the run's units scaled by it.
        other_explained, other = everything.without(number).fit(samples)
        less = np.array([explained_mw(other_explained, work) for work in run.work.tolist()], dtype=np.int64)
        rest = residual(run.features, less)
        residual_mw = np.rint(rest[:, 0] / FEATURE_STEP).astype(np.int64)
        left_out.append(LeftOut(other, other.scaled(rest), residual_mw, less))
    span = min(SPAN, *(len(run.features) for run in ordered))
    scores = [_scores(one) for one in left_out]
    blocks = [_blocks(one, span) for one in left_out]
    distances = [max(distance for distance, _ in found) for found in blocks]
    # 2. What runs come to, and each run in units of it: the bounds.
    of_runs = reference(distances)
    statistics = [max(statistic_of(distance, level, of_runs=of_runs) for distance, level in found) for found in blocks]
    profile = Profile(
        device=frame.device,
        scope=frame.scope,
        origin=frame.origin,
        source=frame.source,
        channel=settings.channel,
        unit_ns=settings.unit_ns,
        period_ns=frame.period_ns,
        channels=frame.channels,
        explained=explained,
        centre=tuple(metric.centre.tolist()),
        scale=tuple(metric.scale.tolist()),
        precision=metric.triangle(),
        runs=tuple(
            CalibrationRun(run.recording, distance, tuple(found))
            for run, distance, found in zip(ordered, distances, scores, strict=True)
        ),
        bounds=bounds_of(statistics, claim_ppm=settings.claim_ppm),
        gross=gross_of([_strays(one) for one in left_out], span=span),
        evidence_ppm=settings.claim_ppm,
        delta_ppm=settings.delta_ppm,
        deviations=(Deviation(1, None),),
    )
    return profile, left_out


def checked(profile: Profile, held_out: Sequence[Sequence[Unit]]) -> Profile:
    """``profile`` with what happened on runs that it has not seen; wider where they contradict what it claims."""
    scorer = Scorer(profile)
    ends = [_end(profile, scorer, units) for units in held_out]
    alarms = sum(end.evidence.alarm is not None for end in ends)
    interval = clopper_pearson(alarms, len(ends))
    exceeded = alarms * _PPM > profile.evidence_ppm * len(ends)
    found = Checked(
        runs=len(ends),
        alarms=alarms,
        low_ppm=int(interval.low * _PPM),
        high_ppm=min(_PPM, -int(-interval.high * _PPM // 1)),
        widened=exceeded,
    )
    if not exceeded:
        return replace(profile, checked=found)
    largest = max(end.largest for end in ends)
    bounds = tuple(replace(bound, limit=max(bound.limit, largest)) for bound in profile.bounds)
    gross = widened(profile.gross, [end.strays for end in ends], span=span_of(profile, at_most=SPAN))
    richest = max(end.evidence.e_log10_milli for end in ends)
    # Evidence that genuine runs reached says that little: it has to be passed by a tenth of a decade.
    evidence = min(profile.evidence_ppm, max(1, int(_PPM / 10 ** (richest / 1000 + 0.1))))
    return replace(profile, bounds=bounds, gross=gross, evidence_ppm=evidence, checked=found)


@dataclass(frozen=True, slots=True)
class _End:
    """Where a run ends: its evidence, the largest statistic of its full blocks, and how far its units stray."""

    evidence: SessionEvidence
    largest: int
    strays: list[int]


def _end(profile: Profile, scorer: Scorer, units: Sequence[Unit]) -> _End:
    evidence, largest, span = SessionEvidence.start(), 0, span_of(profile, at_most=SPAN)
    scores = [score for unit in units if (score := scorer.score(unit)).covered]
    for score in scores:
        evidence = evidence.after(score, profile)
        largest = max(largest, evidence.statistic if evidence.units >= span else 0)
    return _End(evidence, largest, [stray(score.residual_mw, score.explained_mw) for score in scores])


def _strays(one: LeftOut) -> list[int]:
    return [stray(*pair) for pair in zip(one.residual_mw.tolist(), one.explained_mw.tolist(), strict=True)]


def _scores(one: LeftOut) -> list[int]:
    cut = np.clip(one.scaled, -CLIP, CLIP)
    return [one.metric.distance(row) for row in cut.tolist()]


def _blocks(one: LeftOut, span: int) -> list[tuple[int, int]]:
    """Of each full block the distance, and how far its level lies."""
    found: list[tuple[int, int]] = []
    for first in range(0, len(one.scaled) - span + 1, span):
        rows = one.scaled[first : first + span]
        cut = middle(np.clip(rows, -CLIP, CLIP).tolist())
        (level,) = middle(rows[:, :1].tolist())
        found.append((one.metric.distance(cut), level))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Units of several runs."""

    features: Integers
    power_mw: Floats
    work: Integers
    run: Integers

    @classmethod
    def of(cls, runs: Sequence[Run]) -> _Pool:
        return cls(
            np.concatenate([run.features for run in runs]),
            np.concatenate([run.power_mw for run in runs]),
            np.concatenate([run.work for run in runs]),
            np.repeat(np.arange(len(runs)), [len(run.features) for run in runs]),
        )

    def without(self, number: int) -> _Pool:
        kept = self.run != number
        return _Pool(self.features[kept], self.power_mw[kept], self.work[kept], self.run[kept])

    def fit(self, samples: int) -> tuple[Explained, Metric]:
        explained = fit_explained(self.power_mw, self.work, self.run)
        less = np.array([explained_mw(explained, work) for work in self.work.tolist()], dtype=np.int64)
        return explained, Metric.fit(residual(self.features, less), float(self.power_mw.mean()), samples)


def _frame(recordings: Sequence[Recording], device: bytes, settings: Settings) -> Frame:
    """What all recordings have in common.

    Raises:
        Indeterminate: there are none, or none has the device.
        PolicyDenied: they do not have it in common.
    """
    if not recordings:
        raise Indeterminate(Code.BASELINE_RUNS, "no runs", expected=f"{settings.runs_min} or more", got=0)
    for before, after in pairwise(recordings):
        if before.scope != after.scope:
            raise PolicyDenied(
                Code.BASELINE_SCOPE,
                "runs of different stacks",
                where=after.label,
                expected=before.scope.to_json(),
                got=after.scope.to_json(),
                hint="a baseline is of one GPU, driver, engine, model and workload: fit one for each",
            )
    digests = [recording.digest for recording in recordings]
    if len(set(digests)) != len(digests):
        raise PolicyDenied(Code.BASELINE_SCOPE, "a recording is there twice", hint="each run counts once")
    origins = {recording.origin for recording in recordings}
    if "emulated" in origins and len(origins) > 1:
        raise PolicyDenied(Code.BASELINE_SCOPE, "runs of emulated and of real hardware", got=", ".join(sorted(origins)))
    # The least that all of them are: who read the samples, and from what.
    origin: Origin = next(word for word in _ORIGINS if word in origins)
    firsts = [
        source
        for recording in recordings
        for window in recording.windows[:1]
        if (source := source_of(window.readings(), device)) is not None
    ]
    if not firsts:
        raise Indeterminate(
            Code.BASELINE_RUNS, "no run has this device", got=device, hint="`weighbridge baseline show` lists them"
        )
    names, periods = ({source.name for source in firsts}, {source.period_ns for source in firsts})
    if len(names) > 1:
        hint = "record all runs with the same --telemetry options"
        raise PolicyDenied(Code.BASELINE_SCOPE, "runs of different sources", got=", ".join(sorted(names)), hint=hint)
    if len(periods) > 1:
        raise PolicyDenied(Code.BASELINE_SCOPE, "runs of different rates", got=sorted(periods))
    scope, name, period_ns = recordings[0].scope, names.pop(), periods.pop()
    return Frame(device=device, scope=scope, origin=origin, source=name, period_ns=period_ns, channels=())


def _units(recording: Recording, frame: Frame, settings: Settings) -> list[Unit]:
    """The units of a run that can be scored.

    Raises:
        Indeterminate: too few of them.
    """
    found = [
        unit
        for unit in units_of(recording, frame.device, settings.unit_ns, source=frame.source)
        if unit.series.name == frame.source
        and unit.series.period_ns == frame.period_ns
        and settings.channel in unit.series.channels
        and settings.channel not in unit.series.absent
        and len(unit.series) >= least_of(settings.unit_ns // frame.period_ns)
    ]
    _check_count(
        recording,
        found,
        f"too few whole units of {settings.channel} in a run",
        hint=f"a unit is {settings.unit_ns / _SECOND:g} s without a gap; leave broken runs out",
    )
    return found


def _whole(recording: Recording, units: Sequence[Unit], frame: Frame) -> list[Unit]:
    """Those of a run's units that have all the channels: others would be scored in no session.

    Raises:
        Indeterminate: too few of them.
    """
    found = [unit for unit in units if not lack(unit.series, frame.channels)]
    lacking = {lack(unit.series, frame.channels) for unit in units} - {""}
    _check_count(
        recording,
        found,
        "too few units with all channels in a run",
        hint=f"leave it out, or record it anew: {'; '.join(sorted(lacking))}",
    )
    return found


def _check_count(recording: Recording, units: Sequence[Unit], what: str, *, hint: str) -> None:
    if len(units) < _UNITS_MIN:
        raise Indeterminate(
            Code.BASELINE_RUNS,
            what,
            where=recording.label,
            expected=f"{_UNITS_MIN} or more",
            got=len(units),
            hint=hint,
        )


def _run(recording: Recording, units: Sequence[Unit], settings: Settings, frame: Frame) -> Run:
    samples = settings.unit_ns // frame.period_ns
    power = [power_of(unit, settings.channel, samples) for unit in units]
    return Run(
        recording=recording.digest,
        features=np.array([features(one) for one in power], dtype=np.int64),
        power_mw=np.array([one.mean() for one in power]),
        work=np.array([unit.work.regressors() for unit in units], dtype=np.int64),
    )
