"""What a GPU's units say together, over all its sessions: a statistic of each block, and evidence that grows with each.

*The early look* (:mod:`.gross`) is at the last three units, after each: power that is off as a whole, by much. And of
each full block, its upper side is looked at beside its median, so that no minority of units hides behind the others.

*The statistic* is looked at once for each block of units (:data:`.metric.SPAN`) against the limit of the bound that
decides (:func:`.calibration.deciding`). Blocks do not overlap; a session goes on with the one that the session before
has begun (:mod:`..past`). The claim is for as many blocks as the calibration's runs had.

*The evidence* is what a gambler would have won who bets against "these are genuine units" and cannot win on average
if they are (an e-process: Vovk, Wang, *E-values*, 2021; Ville's inequality). Against each p-value it bets e p^(e - 1),
for several e at once; and it begins anew with every unit, with a stake of 1/(s (s + 1)) on a change at unit s, so that
hours of genuine units do not bury a change that comes late. All of it together ever passes 1/claim for at most
``claim`` of genuine GPUs, however many units they have by one profile, if the p-values are valid given what came
before.

Pure and in whole numbers; each bet is rounded down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto.profile import GROSS_UNITS
from weighbridge.verifier.telemetry.detector.calibration import deciding, reference, span_of, statistic_of
from weighbridge.verifier.telemetry.detector.gross import off_by, passed, stray, upper
from weighbridge.verifier.telemetry.detector.metric import SPAN, Metric, middle

if TYPE_CHECKING:
    from weighbridge.proto.profile import Bound, Gross, Profile
    from weighbridge.verifier.telemetry.detector.scoring import UnitScore

__all__ = ["BETS", "ONE", "RICH", "START", "Rules", "SessionEvidence", "bet", "evidence_of", "log10_milli", "rules_of"]

# In thousandths: small ones win much on few small p-values, large ones little on many.
_BETS: Final = (30, 60, 125, 200, 300, 400, 500, 600, 700, 800, 900)
ONE: Final = 2**64
"""The evidence before anything was seen: amounts are in parts of it."""
BETS: Final = len(_BETS)
START: Final = (0,) * BETS
"""What each bet has before anything was seen."""
_PPM: Final = 1_000_000
_PPB: Final = 1_000_000_000
_MILLI: Final = 1_000
RICH: Final = ONE * 10**30
"""More than this no sum of stakes needs to be known: 10^30."""


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """By what units are judged together: what is computed of a profile once.

    Attributes:
        metric: how far a block of units is.
        reference: what runs come to.
        span: units of a block.
        bound: that decides on a full block, if one does.
        gross: of the early look, and of a block's upper side.
        evidence_ppm: what the evidence claims.
    """

    metric: Metric
    reference: int
    span: int
    bound: Bound | None
    gross: Gross
    evidence_ppm: int

    def gross_alarm(self, strays: tuple[int, ...]) -> str | None:
        """Whether power as a whole is off by more than genuine sessions are: the alarm in words."""
        size = passed(strays, self.gross)
        if size is None:
            return None
        off = off_by(strays, size)
        return (
            f"power {abs(off) / 10:.0f} % {'above' if off > 0 else 'below'} what declared work explains, in the last "
            f"{'unit' if size == 1 else f'{size} units'}, passed {self.gross.limits[size - 1] / 10:.3g} %, "
            f"as in at most {_percent(self.gross.claimed_ppm)} of genuine sessions (gross)"
        )

    def upper_alarm(self, strays: tuple[int, ...]) -> str | None:
        """Whether too many units of a full block are above what is explained: the alarm in words."""
        high = upper(strays)
        if high <= self.gross.upper:
            return None
        count = sum(off >= high for off in strays)
        return (
            f"power {high / 10:.0f} % or more above what declared work explains in {count} of the last {len(strays)} "
            f"units, passed {self.gross.upper / 10:.3g} %, "
            f"as in at most {_percent(self.gross.claimed_ppm)} of genuine sessions (gross)"
        )

    def evidence_alarm(self, evidence: int) -> str | None:
        """Whether the evidence, in parts of 2**64, has passed its limit: the alarm in words."""
        if evidence * self.evidence_ppm < ONE * _PPM:
            return None
        return (
            f"evidence passed {_PPM / self.evidence_ppm:,.0f}, "
            f"as in at most {_percent(self.evidence_ppm)} of genuine GPUs, over all their sessions"
        )

    def block_alarm(self, statistic: int) -> str | None:
        """Whether a full block's statistic has passed its limit: the alarm in words."""
        if self.bound is None or statistic <= self.bound.limit:
            return None
        return (
            f"statistic {statistic / _MILLI:.2f} passed {self.bound.limit / _MILLI:.2f}, "
            f"as in at most {_percent(self.bound.claimed_ppm)} of genuine sessions ({self.bound.basis})"
        )


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """One device's evidence so far, by one profile. Immutable: made again from the same units, it is the same.

    Attributes:
        units: how many were seen.
        block: scaled and cut, and the level of each, of the block that has begun.
        strays: how far the units of the begun block were off, and the last three at least, in thousandths of what is
            explained, the newest last.
        statistic: of the last full block, or of the begun one while there is none; thousandths of what runs come to.
        capital: what each bet has won, in parts of 2**64.
        e_log10_milli: the evidence, as thousandths of its decimal logarithm.
        alarm: which bound was passed and what it claims, in words; ``None`` while none was. It stays.
    """

    units: int = 0
    block: tuple[tuple[int, ...], ...] = ()
    strays: tuple[int, ...] = ()
    statistic: int = 0
    capital: tuple[int, ...] = START
    e_log10_milli: int = 0
    alarm: str | None = None

    @classmethod
    def start(cls) -> Self:
        """Nothing seen yet."""
        return cls()

    def after(self, score: UnitScore, profile: Profile) -> SessionEvidence:
        """With one more unit. One that is not covered changes nothing."""
        return self.by(rules_of(profile), score) if score.covered else self

    def by(self, rules: Rules, score: UnitScore) -> SessionEvidence:
        """With one more unit, which is covered."""
        block = (*self.block, (*score.scaled, score.level))
        kept = max(len(block), GROSS_UNITS[-1])
        strays = (*self.strays, stray(score.residual_mw, score.explained_mw))[-kept:]
        is_full = len(block) >= rules.span
        statistic = self.statistic
        if is_full or self.units < rules.span:
            *cut, level = middle(block)
            statistic = statistic_of(rules.metric.distance(cut), level, of_runs=rules.reference)
        capital, evidence = bet(self.capital, self.units, score.p_ppb)
        alarm = self.alarm
        if alarm is None:
            alarm = rules.gross_alarm(strays[-GROSS_UNITS[-1] :]) or rules.evidence_alarm(evidence)
        if alarm is None and is_full:
            alarm = rules.block_alarm(statistic) or rules.upper_alarm(strays[-rules.span :])
        return replace(
            self,
            units=self.units + 1,
            block=() if is_full else block,
            strays=strays[-GROSS_UNITS[-1] :] if is_full else strays,
            statistic=statistic,
            capital=capital,
            e_log10_milli=log10_milli(evidence),
            alarm=alarm,
        )


def bet(capital: tuple[int, ...], units: int, p_ppb: int) -> tuple[tuple[int, ...], int]:
    """What was won after one more p-value, and the evidence in parts of 2**64, what is not staked yet included.

    Args:
        capital: what each bet had, in parts of 2**64.
        units: how many p-values came before.
        p_ppb: this one, in billionths.
    """
    stake = ONE // ((units + 1) * (units + 2))
    won = tuple(min(RICH, (had + stake) * gain >> 32) for had, gain in zip(capital, _gains(max(1, p_ppb)), strict=True))
    return won, evidence_of(won, units + 1)


def evidence_of(capital: tuple[int, ...], units: int) -> int:
    """The evidence behind so many units, in parts of 2**64, of what the bets have and what is not staked yet."""
    return sum(capital) // len(capital) + ONE // (units + 1)


def log10_milli(evidence: int) -> int:
    """Thousandths of the decimal logarithm of so many parts of 2**64, rounded down."""
    return math.floor(math.log10(max(1, evidence) / ONE) * _MILLI)


@lru_cache(maxsize=256)
def rules_of(profile: Profile) -> Rules:
    """The rules of a profile."""
    return Rules(
        metric=Metric.of(profile),
        reference=reference([run.statistic for run in profile.runs]),
        span=span_of(profile, at_most=SPAN),
        bound=deciding(profile),
        gross=profile.gross,
        evidence_ppm=profile.evidence_ppm,
    )


@lru_cache(maxsize=4096)
def _gains(p_ppb: int) -> tuple[int, ...]:
    """What each bet makes of one, in parts of 2**32."""
    return tuple(math.floor((e / _MILLI) * (p_ppb / _PPB) ** (e / _MILLI - 1) * 2**32) for e in _BETS)


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.2g} %"
