"""What a session's units say together: a statistic of each block, and evidence that grows with each unit.

*The statistic* is looked at once for each block of units (:data:`.metric.SPAN`) against the limit of the bound that
decides (:func:`.calibration.deciding`). Blocks do not overlap; its claim is for a session of as many blocks as the
calibration's runs had.

*The evidence* is what a gambler would have won who bets against "these are genuine units" and cannot win on average
if they are (an e-process: Vovk, Wang, *E-values*, 2021; Ville's inequality). Against each p-value it bets e p^(e - 1),
for several e at once; and it begins anew with every unit, with a stake of 1/(s (s + 1)) on a change at unit s, so that
hours of genuine units do not bury a change that comes late. All of it together passes 1/claim in at most ``claim`` of
genuine sessions, however long, if the p-values are valid given what came before.

Pure and in whole numbers; each bet is rounded down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from weighbridge.verifier.telemetry.calibration import deciding, reference, span_of, statistic_of
from weighbridge.verifier.telemetry.metric import SPAN, Metric, middle

if TYPE_CHECKING:
    from weighbridge.proto.profile import Bound, Profile
    from weighbridge.verifier.telemetry.scoring import UnitScore

__all__ = ["ONE", "START", "SessionEvidence", "bet"]

# In thousandths: small ones win much on few small p-values, large ones little on many.
_BETS: Final = (30, 60, 125, 200, 300, 400, 500, 600, 700, 800, 900)
ONE: Final = 2**64
"""The evidence before anything was seen: amounts are in parts of it."""
START: Final = (0,) * len(_BETS)
"""What each bet has before anything was seen."""
_PPM: Final = 1_000_000
_PPB: Final = 1_000_000_000
_MILLI: Final = 1_000
# More than this no sum of stakes needs to be known: 10^30.
_RICH: Final = ONE * 10**30


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """One device's evidence so far. Immutable: made again from the same units, it is the same.

    Attributes:
        units: how many were seen.
        block: scaled and cut, and the level of each, of the block that has begun.
        statistic: of the last full block, or of the begun one while there is none; thousandths of what runs come to.
        capital: what each bet has won, in parts of 2**64.
        e_log10_milli: the evidence, as thousandths of its decimal logarithm.
        alarm: which bound was passed and what it claims, in words; ``None`` while none was. It stays.
    """

    units: int = 0
    block: tuple[tuple[int, ...], ...] = ()
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
        if not score.covered:
            return self
        known = _known(profile)
        block = (*self.block, (*score.scaled, score.level))
        is_full = len(block) >= known.span
        statistic = self.statistic
        if is_full or self.units < known.span:
            *cut, level = middle(block)
            statistic = statistic_of(known.metric.distance(cut), level, of_runs=known.reference)
        capital, evidence = bet(self.capital, self.units, score.p_ppb)
        alarm = self.alarm
        if alarm is None and evidence * profile.evidence_ppm >= ONE * _PPM:
            alarm = (
                f"evidence passed {_PPM / profile.evidence_ppm:,.0f}, "
                f"as in at most {_percent(profile.evidence_ppm)} of genuine sessions"
            )
        elif alarm is None and is_full and known.bound is not None and statistic > known.bound.limit:
            alarm = (
                f"statistic {statistic / _MILLI:.2f} passed {known.bound.limit / _MILLI:.2f}, "
                f"as in at most {_percent(known.bound.claimed_ppm)} of genuine sessions ({known.bound.basis})"
            )
        return replace(
            self,
            units=self.units + 1,
            block=() if is_full else block,
            statistic=statistic,
            capital=capital,
            e_log10_milli=math.floor(math.log10(max(1, evidence) / ONE) * _MILLI),
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
    won = tuple(
        min(_RICH, (had + stake) * gain >> 32) for had, gain in zip(capital, _gains(max(1, p_ppb)), strict=True)
    )
    return won, sum(won) // len(won) + ONE // (units + 2)


@lru_cache(maxsize=4096)
def _gains(p_ppb: int) -> tuple[int, ...]:
    """What each bet makes of one, in parts of 2**32."""
    return tuple(math.floor((e / _MILLI) * (p_ppb / _PPB) ** (e / _MILLI - 1) * 2**32) for e in _BETS)


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What is computed of a profile once."""

    metric: Metric
    reference: int
    span: int
    bound: Bound | None


@lru_cache(maxsize=256)
def _known(profile: Profile) -> _Known:
    return _Known(
        Metric.of(profile),
        reference([run.statistic for run in profile.runs]),
        span_of(profile, at_most=SPAN),
        deciding(profile),
    )


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.2g} %"
