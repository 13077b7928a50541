"""Where the appraisal of a session's telemetry stands between two windows, and what it says of each GPU.

Bounded: of each GPU, at most one unit of samples is pending. A :class:`TelemetryState` is a field of the session's
position (:mod:`weighbridge.verifier.session`): made again from the session's records, window by window, as all else
of a session is (ADR 0009), or from where it was kept (:mod:`weighbridge.verifier.kept_position`), which has to be told
when the same windows come to another state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.verifier.telemetry.declared import EngineTally
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.physics import Carried
from weighbridge.verifier.telemetry.remains import NO_REMAINS, Remains

if TYPE_CHECKING:
    from weighbridge.proto import strict
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.telemetry.detector.scoring import UnitScore
    from weighbridge.verifier.telemetry.physics import Finding
    from weighbridge.verifier.telemetry.samples.units import UnitBuilder

__all__ = ["WORDS", "DeviceAppraisal", "DeviceState", "Scored", "TelemetryState", "Word", "worst"]

Word = Literal["implausible", "out_of_baseline", "no_baseline", "unusable", "in_baseline"]
# Over several GPUs the worst one speaks: the first of these that any has.
WORDS: Final[tuple[Word, ...]] = ("implausible", "out_of_baseline", "no_baseline", "unusable", "in_baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAppraisal:
    """What the physical record of one GPU says, up to and with one window.

    The numbers are those of the last unit that was scored, ``None`` before there is one. Powers are in milliwatts.

    Attributes:
        device: its identity, 32 bytes.
        verdict: the word.
        baseline: digest of the signed set that has its profile, 64 hex digits.
        why: why it is not ``in_baseline``, in plain words; empty where it is.
        units: how many were scored in this session.
        first_seq: the window in which the last scored unit begins.
        last_seq: the window in which it ends.
        score: how far the session is from the baseline, in thousandths of the profile's median.
        threshold: the score above which it is out of it.
        p_ppb: the unit's calibration-conditional p-value, in parts per billion.
        e_log10_milli: the evidence against the baseline, over this GPU's sessions by the profile: 1000 times the
            logarithm to base ten.
        residual_mw: power measured less what declared work explains.
        explained_mw: what declared work explains.
        uncertainty_mw: of the residual.
        smallest_deviation_mw: the smallest change of mean power that would have been flagged by now, had it been there
            in all units that were scored by this profile.
        findings: by which the word stands, and what else this window's checks found.
    """

    device: bytes
    verdict: Word
    baseline: str | None
    why: str
    units: int
    first_seq: int | None
    last_seq: int | None
    score: int | None
    threshold: int | None
    p_ppb: int | None
    e_log10_milli: int | None
    residual_mw: int | None
    explained_mw: int | None
    uncertainty_mw: int | None
    smallest_deviation_mw: int | None
    findings: tuple[Finding, ...]

    def document(self) -> strict.JsonObject:
        """The appraisal as verdicts show it."""
        return {
            "device": self.device.hex(),
            "verdict": self.verdict,
            "baseline": self.baseline,
            "why": self.why,
            "units": self.units,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "score": self.score,
            "threshold": self.threshold,
            "p_ppb": self.p_ppb,
            "e_log10_milli": self.e_log10_milli,
            "residual_mw": self.residual_mw,
            "explained_mw": self.explained_mw,
            "uncertainty_mw": self.uncertainty_mw,
            "smallest_deviation_mw": self.smallest_deviation_mw,
            "findings": [
                {
                    "check": item.check,
                    "channel": item.channel,
                    "verdict": item.verdict,
                    "expected": item.expected,
                    "got": item.got,
                    "at_ns": item.at_ns,
                }
                for item in self.findings
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The last unit that was scored: its score, and the windows in which it begins and ends."""

    score: UnitScore
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """Where one GPU's record stands. ``None`` where nothing has come yet.

    Attributes:
        builder: the unit that has begun.
        carried: the end of the last window, which the next one must continue.
        recent: the last readings of power, each window's with its number, among which copies are looked for.
        profile: what the evidence is about.
        evidence: what the units that were scored by it say together, those of earlier sessions included.
        remains: what earlier sessions ended with and what was lost, as far as it was not looked at yet.
        units: how many were scored in this session, by whatever profile.
        scored: the last of them.
        usable: whether enough units could be scored, and nothing has interrupted the samples since.
        row: how many units were scored one after the other, up to now, those of earlier sessions included.
        lapses: how many units were lost while a gate may have been open; fewer once many units were scored in a row.
        why: why not.
        interrupted: why some of the last window was not scored; empty where all of it is, or will be.
        standing: the findings for which it could not.
        implausible: the findings by which it stays ``implausible``; none where it is not.
        contradicted: the words by which it stays ``out_of_baseline``; empty where it is not.
    """

    builder: UnitBuilder | None = None
    carried: Carried = field(default_factory=Carried)
    recent: tuple[tuple[int, tuple[int, ...]], ...] = ()
    profile: Profile | None = None
    evidence: SessionEvidence = field(default_factory=SessionEvidence.start)
    remains: Remains = NO_REMAINS
    units: int = 0
    scored: Scored | None = None
    usable: bool = False
    row: int = 0
    lapses: int = 0
    why: str = ""
    interrupted: str = ""
    standing: tuple[Finding, ...] = ()
    implausible: tuple[Finding, ...] = ()
    contradicted: str = ""


@dataclass(frozen=True, slots=True)
class TelemetryState:
    """Where each GPU's record stands, by its identity; those that are not named have brought nothing yet.

    ``served`` is what was declared to be served, beside what the inference server's own counters say.
    """

    devices: Mapping[bytes, DeviceState] = field(default_factory=lambda: MappingProxyType({}))
    served: EngineTally = field(default_factory=EngineTally)

    def of(self, device: bytes) -> DeviceState:
        """Where the record of ``device`` stands."""
        return self.devices.get(device, _NOTHING)


_NOTHING: Final = DeviceState()


def worst(words: tuple[Word, ...]) -> Word:
    """The word that speaks for several GPUs; ``no_baseline`` for none."""
    for word in WORDS:
        if word in words:
            return word
    return "no_baseline"
