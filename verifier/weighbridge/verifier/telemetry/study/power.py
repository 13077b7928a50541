"""What the instrument can tell apart on one GPU, from recordings of two conditions.

The runs of B are judged as a verifier would judge sessions: by a profile fitted to A. Whether anything differs at all
is asked of features that both conditions were treated alike for: what declared work explains is taken off by one fit to
all runs, A's and B's, which does not know which is which. Where the conditions declare different work altogether, that
fit explains the difference away, and rightly so: nothing tells whether it was the work. :mod:`.comparison` does the
counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.proto.profile import Reported
from weighbridge.verifier.telemetry.detector.calibration import together_ppm
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.explained import covers, explained_mw, fit_explained
from weighbridge.verifier.telemetry.detector.features import NAMES, features, residual
from weighbridge.verifier.telemetry.detector.scoring import Scorer, power_of
from weighbridge.verifier.telemetry.samples.series import source_of
from weighbridge.verifier.telemetry.samples.units import units_of
from weighbridge.verifier.telemetry.study.comparison import LEVEL, Comparison, compare
from weighbridge.verifier.telemetry.study.comparison import Run as Laid
from weighbridge.verifier.telemetry.study.fitting import Frame, Run, Settings, fit_runs
from weighbridge.verifier.telemetry.study.readings import is_whole, unit_length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from weighbridge.proto.profile import Explained, Profile
    from weighbridge.proto.recording import Recording
    from weighbridge.verifier.telemetry.samples.units import Unit

    Floats = NDArray[np.float64]

__all__ = ["RUNS_MIN", "tell_apart"]

RUNS_MIN: Final = 3
"""Of the condition that is learned: a fit takes two, and each run is judged by a fit without it."""

_CHANNEL: Final = "power"
_MILLI: Final = 1000
_SECOND: Final = 1e9
_PPM: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """One run's units: the samples that are scored, and what was declared for each."""

    label: str
    start_ns: int
    units: tuple[Unit, ...]
    seconds: Floats
    run: Run


def tell_apart(
    first: Sequence[tuple[str, Recording]],
    second: Sequence[tuple[str, Recording]],
    device: bytes,
    *,
    level: float = LEVEL,
    told: Callable[[], None] = lambda: None,
) -> Comparison:
    """What the physics of ``device`` shows of the difference between two conditions.

    Args:
        first: runs of A, named for people; :data:`RUNS_MIN` or more.
        second: runs of B, one at least.
        device: in all of them.
        level: as for :func:`.comparison.compare`.
        told: called after each of ``len(first) + 1`` fits.

    Raises:
        Indeterminate: ``BASELINE_RUNS`` for too few runs of A; ``RECORDING_EMPTY`` where a run has no whole unit.
        PolicyDenied: ``BASELINE_SCOPE`` where runs are sampled at different rates, or by different sources.
        MalformedEvidence: a window's telemetry is none.
    """
    if len(first) < RUNS_MIN:
        raise Indeterminate(
            Code.BASELINE_RUNS,
            "too few runs of A: each is judged by a fit of the others",
            where="--a",
            expected=f"{RUNS_MIN} or more",
            got=len(first),
            hint="units of one run do not count as runs; with twelve of each there is something to say",
        )
    period_ns = _period([*first, *second], device)
    sides = tuple([_measured(label, run, device, period_ns) for label, run in side] for side in (first, second))
    settings = Settings(unit_ns=unit_length(period_ns), runs_min=RUNS_MIN)
    scope, origin = first[0][1].scope, first[0][1].origin
    channels = (Reported(_CHANNEL, None, settings.unit_ns // period_ns),)
    source = _source(sides)
    frame = Frame(device=device, scope=scope, origin=origin, source=source, period_ns=period_ns, channels=channels)

    def instrument(left_out: int | None) -> _Fitted:
        chosen = [run.run for at, run in enumerate(sides[0]) if at != left_out]
        return _Fitted(fit_runs(chosen, frame, settings), sides[0], sides[1])

    whole = instrument(None)
    everything = [run.run for side in sides for run in side]
    alike = fit_explained(
        np.concatenate([run.power_mw for run in everything]),
        np.concatenate([run.work for run in everything]),
        np.repeat(np.arange(len(everything)), [len(run.power_mw) for run in everything]),
    )
    laid_out = [[_laid_out(run, whole.profile.explained, alike) for run in side] for side in sides]
    return compare(
        laid_out[0],
        laid_out[1],
        names=NAMES,
        fitted=lambda left_out: whole if left_out is None else instrument(left_out),
        level=level,
        told=told,
    )


def _laid_out(run: _Measured, own: Explained, alike: Explained) -> Laid:
    """A run beyond what declared work explains: by A's own fit, and for features by the one that treats both alike."""
    rows = run.run.work.tolist()
    explained = np.array([explained_mw(own, work) for work in rows])
    both = np.array([explained_mw(alike, work) for work in rows], dtype=np.int64)
    return Laid(
        label=run.label,
        start_ns=run.start_ns,
        seconds=run.seconds,
        residual=(run.run.power_mw - explained) / _MILLI,
        power=run.run.power_mw / _MILLI,
        features=residual(run.run.features, both).astype(np.float64),
        covered=np.array([covers(own, work) for work in rows]),
    )


@final
class _Fitted:
    """A profile as an instrument. Units whose declared work it has never seen say nothing, as for a verifier."""

    def __init__(self, profile: Profile, first: Sequence[_Measured], second: Sequence[_Measured]) -> None:
        self.profile: Profile = profile
        self._sides = (first, second)
        self._scorer: Scorer = Scorer(profile)

    @property
    def bound(self) -> float:
        """All kinds of alarm together: none claims more than its own."""
        return together_ppm(self.profile) / _PPM

    def scores(self, run: int, *, other: bool) -> Floats:
        """Of the units that are covered."""
        found = [self._scorer.score(unit) for unit in self._sides[other][run].units]
        return np.array([score.score for score in found if score.covered], dtype=np.float64)

    def alarm(self, run: int, *, other: bool) -> float | None:
        """As the verifier raises it."""
        measured, evidence = self._sides[other][run], SessionEvidence.start()
        for unit, seconds in zip(measured.units, measured.seconds, strict=True):
            evidence = evidence.after(self._scorer.score(unit), self.profile)
            if evidence.alarm is not None:
                return float(seconds)
        return None


def _period(runs: Sequence[tuple[str, Recording]], device: bytes) -> int:
    """The time between samples, the same in all runs."""
    found: dict[int, str] = {}
    for label, recording in runs:
        for window in recording.windows:
            source = source_of(window.readings(), device)
            if source is not None:
                found.setdefault(source.period_ns, label)
    if len(found) > 1:
        raise PolicyDenied(
            Code.BASELINE_SCOPE,
            "runs are sampled at different rates",
            where=list(found.values())[1],
            got=" and ".join(f"every {period / _SECOND:g} s" for period in found),
            hint="record both conditions with the same --telemetry options",
        )
    return next(iter(found), 1)


def _source(sides: Sequence[Sequence[_Measured]]) -> str:
    """The sensor path of all units: a sensor of another gain would look like another condition."""
    found = {unit.series.name: run.label for side in sides for run in side for unit in run.units}
    if len(found) > 1:
        raise PolicyDenied(
            Code.BASELINE_SCOPE,
            "runs are sampled by different sources",
            where=list(found.values())[1],
            got=" and ".join(sorted(found)),
            hint="record both conditions with the same --telemetry options",
        )
    return next(iter(found))


def _measured(label: str, recording: Recording, device: bytes, period_ns: int) -> _Measured:
    unit_ns = unit_length(period_ns)
    samples = unit_ns // period_ns
    units: list[Unit] = []
    rows: list[Floats] = []
    for unit in units_of(recording, device, unit_ns):
        if is_whole(unit, _CHANNEL, samples):
            units.append(unit)
            rows.append(power_of(unit, _CHANNEL, samples))
    if not units:
        raise Indeterminate(
            Code.RECORDING_EMPTY,
            f"no whole unit of {unit_ns / _SECOND:g} s without a gap",
            where=label,
            hint="record longer, at least some units a run; `weighbridge baseline record` says what is broken",
        )
    start_ns = recording.windows[0].start_ns
    return _Measured(
        label=label,
        start_ns=start_ns,
        units=tuple(units),
        seconds=np.array([(unit.series.times[-1].item() + period_ns - start_ns) / _SECOND for unit in units]),
        run=Run(
            recording=recording.digest,
            features=np.array([features(row) for row in rows], dtype=np.int64),
            power_mw=np.array([row.mean() for row in rows]),
            work=np.array([unit.work.regressors() for unit in units], dtype=np.int64),
        ),
    )
