"""One GPU's record, one window further: checked, cut into units, scored, and put into one word.

What decides the word, in this order:

1. A finding that is ``implausible``, of this window or an earlier one: it stays for the session.
2. Evidence against the baseline that has passed its limit, be it what earlier sessions ended with (:mod:`.remains`):
   ``out_of_baseline`` stays for the session as well.
3. No profile, or one of another stack: ``no_baseline``.
4. A unit of this window could not be scored, or the last full one, or something has interrupted the samples since:
   ``unusable`` until the next full unit, and for each unit that is lost (:mod:`.lapses`) for a unit more. Else a host
   would lose the samples of every second unit, of which nobody could say then what it had computed, and be
   ``in_baseline`` by the others.
5. The unit that has begun is half there and grossly off (:mod:`.begun`): ``unusable`` until it is full.
6. ``in_baseline``.

Pure, and never raises for what the evidence contains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.telemetry.begun import begins_badly
from weighbridge.verifier.telemetry.detector.calibration import deciding, deviation_after
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.explained import outside
from weighbridge.verifier.telemetry.detector.reported import strange, unfit, unread
from weighbridge.verifier.telemetry.detector.scoring import Scorer
from weighbridge.verifier.telemetry.history import ANOTHER_TENANTS
from weighbridge.verifier.telemetry.lapses import Lapse, in_a_row, lapsed, of_unit, of_window
from weighbridge.verifier.telemetry.past import Past, digest_of
from weighbridge.verifier.telemetry.physics import Finding, Limits, check_unit, check_window
from weighbridge.verifier.telemetry.remains import NO_REMAINS
from weighbridge.verifier.telemetry.samples.fingerprints import COPIED
from weighbridge.verifier.telemetry.samples.series import Defect, power_of
from weighbridge.verifier.telemetry.samples.units import UnitBuilder
from weighbridge.verifier.telemetry.state import DeviceAppraisal, DeviceState, Scored, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.profile import Profile
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.telemetry.history import Copy
    from weighbridge.verifier.telemetry.samples.series import Sampled, Series
    from weighbridge.verifier.telemetry.samples.units import Unit
    from weighbridge.verifier.telemetry.samples.work import DeclaredWork

__all__ = ["Brought", "follow", "past_of", "windows"]

# Where no profile says how long a unit is: as long as most do, by how often is sampled.
_UNIT_NS: Final = 10_000_000_000
_SLOW_UNIT_NS: Final = 30_000_000_000
_FAST_NS: Final = 500_000_000
# Findings that are kept and shown: the first ones.
_FINDINGS_MAX: Final = 8
# As many readings of the windows before are kept as make a copy of one more recognisable: windows may have one each.
_RECENT_MAX: Final = COPIED - 1
_SECOND: Final = 1_000_000_000
# Integers that are kept of a GPU that no profile judges: as much as twelve channels at a kilohertz.
_UNJUDGED_MAX: Final = 2**17


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What one window brings of one GPU, and by what it is judged.

    Attributes:
        device: its identity.
        sampled: its samples.
        work: as declared for the window, of the whole host.
        interval: start and end of the window, wall clock, ns.
        seq: its number.
        copy: where its samples were seen before, if they were.
        profile: of the baseline for this GPU, model and driver, if there is one.
        baseline: digest of the signed set that has it.
        foreign: why it is not compared with a profile, in words; empty where it is.
        stale: why its samples are of another time, in words; empty where they are not. They make no unit.
        past: what its record had come to by ``profile``, where the session judges it by that for the first time.
    """

    device: bytes
    sampled: Sampled
    work: DeclaredWork
    interval: tuple[int, int]
    seq: int
    copy: Copy | None
    profile: Profile | None
    baseline: bytes | None
    foreign: str
    stale: str = ""
    past: Past | None = None

    @property
    def source(self) -> Source | None:
        """Its samples as they were sent; ``None`` for none."""
        return self.sampled.source


def follow(state: DeviceState, brought: Brought) -> tuple[DeviceState, DeviceAppraisal]:
    """The state behind one more window, and what is said of the GPU then."""
    profile = None if brought.foreign else brought.profile
    if profile is not None and profile is not state.profile and profile != state.profile:
        state = _judged_by(state, profile, brought.past)
    sampled, series = brought.sampled, brought.sampled.series
    found: list[Finding] = [] if brought.copy is None else [_replayed(brought.copy, brought)]
    carried = state.carried
    if series is not None:
        findings, carried = check_window(series, carried, _limits(profile))
        found += findings
    builder, units, defects = _units(state, profile, brought, sampled)
    following = replace(state, builder=builder, carried=carried, recent=_recent(state, brought), interrupted="")
    for unit in units:
        following, findings = _judge(following, unit, profile, opened=state.usable)
        found += findings
    broken = tuple(defect for defect in defects if defect.breaks)
    lacking = "" if profile is None else _lacking(brought.source, series, profile)
    if broken or lacking:
        standing = tuple(_finding(defect, brought) for defect in broken)[:_FINDINGS_MAX]
        lapse = Lapse(why=f"{lacking or _words(standing[0])}: a new unit begins", standing=standing)
        if not units:
            lapse = of_window(state, sampled, brought.work, defects=broken, lapse=lapse)
        elif following.interrupted:
            lapse = replace(lapse, units=0)
        # Not to report a channel is no defect. The unit that has begun cannot be scored all the same.
        kept = builder.anew() if lacking else builder
        following = lapsed(replace(following, builder=kept), lapse, opened=state.usable)
    cannot_be = tuple(item for item in found if item.verdict == "implausible")
    if cannot_be and not following.implausible:
        following = replace(following, implausible=cannot_be[:_FINDINGS_MAX])
    return following, _appraisal(following, brought, found)


def past_of(state: DeviceState, device: bytes, *, session: bytes, seq: int) -> Past | None:
    """What the record of ``device`` has come to behind window ``seq`` of ``session``, by the profile that judges it.

    What is left of a unit counts only if its windows could go by the word of the unit before.
    """
    profile = state.profile
    if profile is None:
        return None
    return Past(
        device=device,
        profile=digest_of(profile),
        session=session,
        seq=seq,
        evidence=replace(state.evidence, alarm=None),
        row=state.row,
        lapses=state.lapses,
        remains=state.remains.beside(state.builder, profile) if state.usable else state.remains,
    )


def _judged_by(state: DeviceState, profile: Profile, past: Past | None) -> DeviceState:
    """The state from which ``profile`` judges: where the session before has left it, if one has.

    Nothing that was measured against another profile says anything of this one, save that it was contradicted.
    """
    anew = replace(state, profile=profile, usable=False, why="", standing=())
    if past is None:
        return replace(anew, evidence=SessionEvidence.start(), remains=NO_REMAINS, row=0)
    remains, alarm = past.remains.looked_at(profile)
    return replace(
        anew,
        evidence=past.evidence,
        remains=remains,
        row=past.row,
        lapses=max(state.lapses, past.lapses),
        contradicted=state.contradicted or alarm,
    )


def _limits(profile: Profile | None) -> Limits:
    return Limits(power_limit_mw=None if profile is None else profile.scope.power_limit_mw)


def _lacking(source: Source | None, series: Series | None, profile: Profile) -> str:
    """Why no part of this window's samples can be scored, whatever comes, in words; empty where it can."""
    if source is None or series is None:
        return ""
    return strange(source, profile) or unread(series, profile)


def _units(
    state: DeviceState, profile: Profile | None, brought: Brought, sampled: Sampled
) -> tuple[UnitBuilder, tuple[Unit, ...], tuple[Defect, ...]]:
    """What the window's samples add to the unit that has begun, or complete of it."""
    builder = _builder(state, profile, brought.source)
    if profile is not None and brought.source is not None and strange(brought.source, profile):
        return builder.anew(), (), sampled.defects
    if not brought.stale:
        return builder.after(sampled, brought.work, brought.interval, brought.seq)
    old = Defect(kind="clock_step", channel=None, at_ns=brought.interval[0], detail=brought.stale)
    return builder.anew(), (), (old,)


def _builder(state: DeviceState, profile: Profile | None, source: Source | None) -> UnitBuilder:
    """The unit that has begun, if it is of the length that is wanted; else a new one."""
    begun = state.builder
    if profile is not None:
        fits = begun is not None and (begun.unit_ns, begun.channel) == (profile.unit_ns, profile.channel)
        return begun if begun is not None and fits else UnitBuilder(unit_ns=profile.unit_ns, channel=profile.channel)
    if begun is not None:
        return begun
    slow = source is not None and source.period_ns > _FAST_NS
    return UnitBuilder(unit_ns=_SLOW_UNIT_NS if slow else _UNIT_NS, values_max=_UNJUDGED_MAX)


def _judge(
    state: DeviceState, unit: Unit, profile: Profile | None, *, opened: bool
) -> tuple[DeviceState, tuple[Finding, ...]]:
    """The state behind a full unit, and what its checks found."""
    findings = check_unit(unit, _limits(profile))
    shown = findings[:_FINDINGS_MAX]
    if profile is None:
        why = _words(shown[0]) if shown else "it was not compared with a baseline"
        return lapsed(state, Lapse(why=why, standing=shown), opened=opened), findings
    if why := _words(shown[0]) if shown else unfit(unit.series, profile):
        return lapsed(state, of_unit(unit, profile, why=why, standing=shown), opened=opened), findings
    score = _scorer(profile).score(unit)
    if not score.covered:
        why = outside(profile.explained, unit.work.regressors())
        return lapsed(state, of_unit(unit, profile, why=why), opened=opened), ()
    evidence = state.evidence.after(score, profile)
    contradicted = state.contradicted
    if evidence.alarm is not None and not contradicted:
        leading = f"; most of it: {', '.join(score.leading)}" if score.leading else ""
        place = windows(unit.first_seq, unit.last_seq)
        contradicted = f"{evidence.alarm}, in {place}, {profile.channel}{leading}"
    scored = Scored(score=score, first_seq=unit.first_seq, last_seq=unit.last_seq)
    following = replace(
        state, evidence=evidence, units=state.units + 1, scored=scored, standing=(), contradicted=contradicted
    )
    return in_a_row(following), ()


def _recent(state: DeviceState, brought: Brought) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The last readings of power by window, no more of them than are needed."""
    kept: list[tuple[int, tuple[int, ...]]] = []
    left = _RECENT_MAX
    for seq, power in reversed((*state.recent, (brought.seq, power_of(brought.source)))):
        if left <= 0:
            break
        if power:
            kept.append((seq, power[-left:]))
            left -= len(power)
    return tuple(reversed(kept))


def _appraisal(state: DeviceState, brought: Brought, found: Sequence[Finding]) -> DeviceAppraisal:
    word, why = _word(state, brought)
    scored = None if state.scored is None else state.scored.score
    profile = None if brought.foreign else brought.profile
    bound = None if profile is None else deciding(profile)
    shown = dict.fromkeys((*(state.implausible or state.standing), *found))
    return DeviceAppraisal(
        device=brought.device,
        verdict=word,
        baseline=None if brought.baseline is None else brought.baseline.hex(),
        why=why,
        units=state.units,
        first_seq=None if state.scored is None else state.scored.first_seq,
        last_seq=None if state.scored is None else state.scored.last_seq,
        score=None if scored is None else state.evidence.statistic,
        threshold=None if bound is None else bound.limit,
        p_ppb=None if scored is None else scored.p_ppb,
        e_log10_milli=None if scored is None else state.evidence.e_log10_milli,
        residual_mw=None if scored is None else scored.residual_mw,
        explained_mw=None if scored is None else scored.explained_mw,
        uncertainty_mw=None if scored is None else scored.uncertainty_mw,
        smallest_deviation_mw=None if profile is None else deviation_after(profile, state.evidence.units),
        findings=tuple(shown)[:_FINDINGS_MAX],
    )


def _word(state: DeviceState, brought: Brought) -> tuple[Word, str]:
    """The numbered rules of this module."""
    if state.implausible:
        return "implausible", _words(state.implausible[0])
    if state.contradicted:
        return "out_of_baseline", state.contradicted
    if brought.profile is None or brought.foreign:
        return "no_baseline", brought.foreign
    why = state.interrupted or begins_badly(state.builder, brought.profile)
    if not state.usable:
        why = "; ".join(part for part in (state.why, _sampled(state)) if part)
    return ("in_baseline", "") if state.usable and not why else ("unusable", why)


def _sampled(state: DeviceState) -> str:
    """How much of a unit there is; nothing is said of one that has not begun where the last one says why."""
    builder = state.builder
    if builder is None:
        return ""
    sampled_ns = 0 if builder.work is None else builder.work.duration_ns
    if state.why and not sampled_ns:
        return ""
    return f"{sampled_ns / _SECOND:.1f} of {builder.unit_ns / _SECOND:g} s sampled"


def windows(first: int, last: int) -> str:
    """``window 2``, ``windows 2 to 4``."""
    return f"window {first}" if first == last else f"windows {first} to {last}"


def _words(finding: Finding) -> str:
    return f"{finding.check}, {finding.channel}: {finding.got}, expected {finding.expected}"


def _finding(defect: Defect, brought: Brought) -> Finding:
    """A defect as people and policies see it."""
    period = 0 if brought.source is None else brought.source.period_ns
    return Finding(
        check=defect.kind,
        channel=defect.channel or "all",
        verdict="unusable",
        expected=f"a reading every {period / _SECOND:g} s" if period else "readings",
        got=defect.detail,
        at_ns=defect.at_ns,
    )


def _replayed(copy: Copy, brought: Brought) -> Finding:
    original = "the same GPU" if copy.original == copy.device else f"GPU {copy.original.hex()[:16]}"
    place = f"{original} in window {copy.seq} of session {copy.session.hex()}"
    if copy.session == ANOTHER_TENANTS:
        place = "a session of another tenant"
    return Finding(
        check="replay",
        channel="power",
        verdict="implausible",
        expected="samples that were not seen before",
        got=f"those of {place} ({copy.matches} matches)",
        at_ns=brought.interval[0],
    )


@lru_cache(maxsize=256)
def _scorer(profile: Profile) -> Scorer:
    """What is computed of a profile once."""
    return Scorer(profile)
