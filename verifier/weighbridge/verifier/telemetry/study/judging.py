"""A recorded run judged by a profile, unit by unit: what a verifier would have said of it.

The word of the whole run is what :mod:`..device` says behind its last window, the very code that judges sessions, save
that nothing is remembered of the GPU from before the run: copies of older windows and unreported work between sessions
are not looked for. The units beside it are for people: which of them, and which channel, the word comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.reported import unfit
from weighbridge.verifier.telemetry.detector.scoring import Scorer
from weighbridge.verifier.telemetry.device import Brought, follow
from weighbridge.verifier.telemetry.physics import Limits, check_unit
from weighbridge.verifier.telemetry.samples.series import Sampled, source_of
from weighbridge.verifier.telemetry.samples.units import units_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.state import DeviceState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weighbridge.proto.profile import Profile
    from weighbridge.proto.recording import Recording
    from weighbridge.verifier.telemetry.detector.scoring import UnitScore
    from weighbridge.verifier.telemetry.physics import Finding
    from weighbridge.verifier.telemetry.samples.units import Unit
    from weighbridge.verifier.telemetry.state import DeviceAppraisal, Word

__all__ = ["JudgedRun", "JudgedUnit", "ScoredUnit", "judge", "why_foreign"]

_MILLI: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedUnit:
    """One unit.

    Attributes:
        begin_ns: wall clock of its first sample.
        end_ns: and of its last, one period on.
        first_seq: the window in which it begins.
        last_seq: in which it ends.
        verdict: as it stood behind this unit; it stays where a unit has contradicted the baseline.
        mean_mw: measured.
        score: against the profile; ``None`` where it could not be scored.
        e_log10_milli: the evidence behind it.
        findings: what contradicts physics, or makes it unusable.
    """

    begin_ns: int
    end_ns: int
    first_seq: int
    last_seq: int
    verdict: Word
    mean_mw: int
    score: UnitScore | None
    e_log10_milli: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ScoredUnit:
    """A unit that has a score."""

    unit: JudgedUnit
    score: UnitScore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedRun:
    """A run.

    Attributes:
        start_ns: wall clock at its first window.
        times: of each power sample, wall clock.
        power_w: of each.
        units: in order; broken ones are not there.
        appraisal: what the verifier would say behind the last window.
        alarm: the first unit behind which the evidence alarms, by its index; ``None`` for none.
    """

    start_ns: int
    times: NDArray[np.int64]
    power_w: NDArray[np.float64]
    units: tuple[JudgedUnit, ...]
    appraisal: DeviceAppraisal
    alarm: int | None

    @property
    def scored(self) -> list[ScoredUnit]:
        """The units that have a score."""
        return [ScoredUnit(unit, unit.score) for unit in self.units if unit.score is not None]


def why_foreign(recording: Recording, profile: Profile) -> str:
    """Why a verifier would not compare ``recording`` with ``profile``, in words; empty where it would."""
    scope, own = recording.scope, profile.scope
    if scope.model != own.model:
        said = "the baseline is of another manifest"
        return said if scope.model is not None else "the recording says no manifest, and the baseline is of one"
    if scope.driver != own.driver:
        return f"the baseline is of driver {own.driver}, the run of {scope.driver}"
    return ""


def judge(recording: Recording, profile: Profile, *, baseline: bytes) -> JudgedRun:
    """The run of ``profile.device`` in ``recording``, judged.

    Args:
        recording: parsed, untrusted.
        profile: of a GPU.
        baseline: digest of the set that has it.

    Raises:
        MalformedEvidence: a window's telemetry is none.
        ValueError: the profile is of no GPU.
    """
    device = profile.device
    if device is None:
        raise ValueError("a profile of no GPU judges no session")
    foreign = why_foreign(recording, profile)
    units = [] if foreign else units_of(recording, device, profile.unit_ns, source=profile.source)
    judged, alarm = _units(units, profile)
    series = [unit.series.readings(profile.channel) for unit in units]
    known = [found for found in series if found is not None]
    return JudgedRun(
        start_ns=recording.windows[0].start_ns if recording.windows else 0,
        times=np.concatenate([found[0] for found in known]) if known else np.zeros(0, dtype=np.int64),
        power_w=np.concatenate([found[1] / _MILLI for found in known]) if known else np.zeros(0),
        units=tuple(judged),
        appraisal=_appraisal(recording, device, profile, baseline=baseline, foreign=foreign),
        alarm=alarm,
    )


def _appraisal(
    recording: Recording, device: bytes, profile: Profile, *, baseline: bytes, foreign: str
) -> DeviceAppraisal:
    """The verifier's own procedure, window by window."""
    state, appraisal = DeviceState(), None
    for seq, window in enumerate(recording.windows):
        brought = Brought(
            device=device,
            sampled=Sampled.of(source_of(window.readings(), device, profile.source)),
            work=DeclaredWork.of(window.work, window.end_ns - window.start_ns),
            interval=(window.start_ns, window.end_ns),
            seq=seq,
            copy=None,
            profile=profile,
            baseline=baseline,
            foreign=foreign,
        )
        state, appraisal = follow(state, brought)
    if appraisal is None:
        raise ValueError("a recording without a window")
    return appraisal


def _units(units: list[Unit], profile: Profile) -> tuple[list[JudgedUnit], int | None]:
    scorer, evidence = Scorer(profile), SessionEvidence.start()
    limits = Limits(power_limit_mw=profile.scope.power_limit_mw)
    found: list[JudgedUnit] = []
    alarm: int | None = None
    implausible = False
    for number, unit in enumerate(units):
        findings = check_unit(unit, limits)
        score = None
        if not findings and not unfit(unit.series, profile):
            score = scorer.score(unit)
            evidence = evidence.after(score, profile) if score.covered else evidence
        if evidence.alarm is not None and alarm is None:
            alarm = number
        implausible = implausible or any(item.verdict == "implausible" for item in findings)
        usable = score is not None and score.covered
        readings = unit.series.readings(profile.channel)
        found.append(
            JudgedUnit(
                begin_ns=unit.series.times[0].item(),
                end_ns=unit.series.times[-1].item() + unit.series.period_ns,
                first_seq=unit.first_seq,
                last_seq=unit.last_seq,
                verdict=_word(implausible=implausible, alarmed=alarm is not None, usable=usable),
                mean_mw=0 if readings is None else round(float(readings[1].mean())),
                score=score,
                e_log10_milli=evidence.e_log10_milli,
                findings=findings,
            )
        )
    return found, alarm


def _word(*, implausible: bool, alarmed: bool, usable: bool) -> Word:
    if implausible:
        return "implausible"
    if alarmed:
        return "out_of_baseline"
    return "in_baseline" if usable else "unusable"
