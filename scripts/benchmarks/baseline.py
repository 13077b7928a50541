"""What the baseline is worth on servers that it was not made on, and what a score and a fit cost.

*Detection*: the held-out systems of MLPerf's power logs (`docs/baseline-evaluation.md`), with features, estimator and
limit as they were frozen before they were looked at. Claimed and measured stand side by side; peers are a survey's
figures over all systems. *Widened*: all systems, each family against a limit from all others, as the limit in the
product is taken. *Early*: how far power strays in the last one, two and three units of the genuine sessions of all
systems, which is where the limits of the early look are from, and how many sessions pass them within so many units; and
the same of the third highest of a session's twenty units, for the upper side of blocks.
Intervals are Clopper-Pearson's at 95 %, as if sessions were independent, and, because those of one family are not, from
drawing whole families again and again. Without `WEIGHBRIDGE_TELEMETRY` there is nothing to measure this on.

*Cost*: one unit of 100 samples, features included, and what a session's evidence adds; a fit to 12 runs of 20 units,
from parsed recordings, each run left out once.

`--quick` repeats too little for the times to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import os
import random
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from _detection import FROZEN_CLAIM_PPM, FROZEN_LIMIT, Kind, Session, limit_of, sessions
from _figures import Figure, main, median_seconds
from _mlperf import FAMILIES

from support.runs import GPU, record_run
from weighbridge.proto.profile import GROSS_UNITS
from weighbridge.verifier.telemetry.detector.calibration import POOLED_CLAIM_PPM, POOLED_LIMIT
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.detector.gross import gross_of, largest, passed, upper
from weighbridge.verifier.telemetry.detector.metric import SPAN
from weighbridge.verifier.telemetry.detector.scoring import Scorer
from weighbridge.verifier.telemetry.samples.units import units_of
from weighbridge.verifier.telemetry.study.fitting import Settings, fit
from weighbridge.verifier.telemetry.study.intervals import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.proto.profile import Gross

_RUNS: Final = 12
_UNITS: Final = 20
_RESAMPLES: Final = 2000
_SEED: Final = 20_261_126
_NAMES: Final[dict[Kind, tuple[str, float]]] = {
    "genuine": ("mlperf_false_alarm_rate", 0.8),
    "other benchmark": ("mlperf_other_benchmark_tpr", 73.0),
    "other scenario": ("mlperf_other_scenario_tpr", 56.0),
    "other precision": ("mlperf_other_precision_tpr", 18.5),
}
"""Of each kind of session the figure's name, and what the survey measured, in per cent."""


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often each is repeated."""

    scores: int
    fits: int


_FULL: Final = _Effort(scores=400, fits=5)
_QUICK: Final = _Effort(scores=5, fits=1)


def figures(effort: _Effort) -> Iterator[Figure]:
    """All figures that can be had here."""
    yield Figure("baselines: processors", os.cpu_count() or 0, "cores")
    yield Figure("baselines: load before", os.getloadavg()[0], "processes")
    yield from _costs(effort)
    directory = os.environ.get("WEIGHBRIDGE_TELEMETRY")
    if directory:
        logs = Path(directory) / "mlperf_power"
        held_out = list(sessions(logs, "held-out"))
        frozen = [(one, one.statistic > FROZEN_LIMIT) for one in held_out]
        for kind, (name, peer) in _NAMES.items():
            flagged = [hit for one, hit in frozen if one.kind == kind]
            yield Figure(name, 100 * sum(flagged) / len(flagged), "%", peer=peer)
        yield from detection("frozen", FROZEN_LIMIT, FROZEN_CLAIM_PPM, frozen)
        all_of_them = across([*held_out, *sessions(logs, "development")])
        yield from detection("widened", POOLED_LIMIT, POOLED_CLAIM_PPM, all_of_them)
        yield from early([one for one, _ in all_of_them])
        yield from upper_side([one for one, _ in all_of_them])
    else:
        print("bench: skipped mlperf_*: WEIGHBRIDGE_TELEMETRY does not name the recordings", file=sys.stderr)
    yield Figure("baselines: load after", os.getloadavg()[0], "processes")


def across(found: Sequence[Session]) -> list[tuple[Session, bool]]:
    """Each session, and whether it passes the limit that genuine sessions of all *other* families give."""
    limits = {
        family: limit_of(
            [one.statistic for one in found if one.kind == "genuine" and _family(one) != family],
            claim_ppm=POOLED_CLAIM_PPM,
        )
        for family in {_family(one) for one in found}
    }
    return [(one, one.statistic > limits[_family(one)]) for one in found]


def detection(what: str, limit: int, claim_ppm: int, judged: Sequence[tuple[Session, bool]]) -> Iterator[Figure]:
    """Claimed and measured, of sessions and whether each was flagged."""
    yield Figure(f"{what}: limit", limit / 1000, "x as far as a typical run strays")
    yield Figure(f"{what}: false alarms, claimed", claim_ppm / 10_000, "%")
    for kind in _NAMES:
        of_kind = [(session, flagged) for session, flagged in judged if session.kind == kind]
        hits = sum(flagged for _, flagged in of_kind)
        interval = clopper_pearson(hits, len(of_kind)).scaled(100)
        low, high = _by_family(of_kind)
        row = "false alarms" if kind == "genuine" else kind
        yield Figure(f"{what}: {row}, measured", interval.value, "%")
        yield Figure(f"{what}: {row}, sessions flagged", hits, f"of {len(of_kind):,}")
        yield Figure(f"{what}: {row}, 95 % of sessions, from", interval.low, "%")
        yield Figure(f"{what}: {row}, 95 % of sessions, to", interval.high, "%")
        yield Figure(f"{what}: {row}, 95 % of families, from", low, "%")
        yield Figure(f"{what}: {row}, 95 % of families, to", high, "%")


def early(found: Sequence[Session]) -> Iterator[Figure]:
    """What the limits of the early look are from, and what they show where they were chosen."""
    furthest = [largest(one.strays) for one in found if one.kind == "genuine"]
    gross = gross_of([], span=SPAN)
    for units, limit, column in zip(GROSS_UNITS, gross.limits, zip(*furthest, strict=True), strict=True):
        last = "last unit" if units == 1 else f"last {units} units"
        yield Figure(f"early: {last}, largest of {len(column)} genuine sessions", max(column) / 10, "%")
        yield Figure(f"early: {last}, limit", limit / 10, "%")
    yield Figure("early: false alarms, claimed", gross.claimed_ppm / 10_000, "%")
    for kind in _NAMES:
        strays = [one.strays for one in found if one.kind == kind]
        row = "false alarms" if kind == "genuine" else kind
        for count in (1, 3, SPAN):
            hits = sum(_passes(one[:count], gross) for one in strays)
            after = "1 unit" if count == 1 else f"{count} units"
            yield Figure(f"early: {row}, flagged after {after}", hits, f"of {len(strays):,}")
    strange = 0
    for family in {_family(one) for one in found}:
        genuine = [(_family(one) == family, one.strays) for one in found if one.kind == "genuine"]
        others = [largest(strays) for own, strays in genuine if not own]
        one, two, three = (-(-max(column) // 10) * 10 for column in zip(*others, strict=True))
        limits = replace(gross, limits=(one, two, three))
        strange += sum(_passes(strays, limits) for own, strays in genuine if own)
    yield Figure("early: false alarms, each family by the limits of all others", strange, f"of {len(furthest):,}")


def upper_side(found: Sequence[Session]) -> Iterator[Figure]:
    """What the limit of a block's upper side is from, what it shows there, and what of that nothing else does."""
    gross = gross_of([], span=SPAN)
    genuine = [(_family(one), upper(one.strays)) for one in found if one.kind == "genuine"]
    yield Figure(
        f"early: upper side, largest of {len(genuine)} genuine sessions", max(high for _, high in genuine) / 10, "%"
    )
    yield Figure("early: upper side, limit", gross.upper / 10, "%")
    for kind in _NAMES:
        of_kind = [one for one in found if one.kind == kind]
        hits = [one for one in of_kind if upper(one.strays) > gross.upper]
        row = "false alarms" if kind == "genuine" else kind
        yield Figure(f"early: upper side, {row}, flagged", len(hits), f"of {len(of_kind):,}")
        alone = sum(one.statistic <= POOLED_LIMIT and not _passes(one.strays, gross) for one in hits)
        yield Figure(f"early: upper side, {row}, flagged by nothing else", alone, f"of {len(of_kind):,}")
    strange = 0
    for family in {family for family, _ in genuine}:
        limit = -(-max(high for own, high in genuine if own != family) // 10) * 10
        strange += sum(high > limit for own, high in genuine if own == family)
    yield Figure(
        "early: upper side, false alarms, each family by the limit of all others", strange, f"of {len(genuine):,}"
    )
    for every, number in ((3, "3rd"), (5, "5th"), (10, "10th")):
        hidden = [
            [off + (gross.limits[0] if place % every == every - 1 else 0) for place, off in enumerate(one.strays)]
            for one in found
            if one.kind == "genuine"
        ]
        hits_of = sum(upper(strays) > gross.upper for strays in hidden)
        name = f"early: upper side, {gross.limits[0] / 10:g} % more in every {number} unit, flagged"
        yield Figure(name, hits_of, f"of {len(hidden):,}")


def _passes(strays: Sequence[int], gross: Gross) -> bool:
    return any(passed(strays[:end], gross) is not None for end in range(1, len(strays) + 1))


def _family(session: Session) -> str:
    return next(name for name, systems in FAMILIES.items() if session.baseline.system in systems)


def _by_family(judged: Sequence[tuple[Session, bool]]) -> tuple[float, float]:
    """The 95 % interval of the rate when whole families are drawn with replacement."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for session, flagged in judged:
        counts[_family(session)][0] += flagged
        counts[_family(session)][1] += 1
    drawn, rates = random.Random(_SEED), list[float]()  # noqa: S311 - a resampling, not a secret
    families = [(hits, total) for hits, total in counts.values()]
    for _ in range(_RESAMPLES):
        sample = drawn.choices(families, k=len(families))
        rates.append(100 * sum(hits for hits, _ in sample) / sum(total for _, total in sample))
    rates.sort()
    return rates[round(0.025 * _RESAMPLES)], rates[round(0.975 * _RESAMPLES) - 1]


def _costs(effort: _Effort) -> Iterator[Figure]:
    recordings = [record_run(seed, windows=_UNITS) for seed in range(_RUNS)]
    settings = Settings()
    profile = fit(recordings, GPU, settings)
    units = units_of(record_run(_RUNS, windows=1), GPU, settings.unit_ns)
    scorer = Scorer(profile)
    score = scorer.score(units[0])
    evidence = SessionEvidence.start()
    yield Figure("score_ms", median_seconds(lambda: scorer.score(units[0]), runs=effort.scores) * 1e3, "ms")
    yield Figure("evidence_ms", median_seconds(lambda: evidence.after(score, profile), runs=effort.scores) * 1e3, "ms")
    yield Figure("fit_s", median_seconds(lambda: fit(recordings, GPU, settings), runs=effort.fits, warm_up=1), "s")
    yield Figure("baselines: profile of 12 runs", len(profile.encode()), "bytes")


def _command(arguments: list[str]) -> int:
    effort = _QUICK if "--quick" in arguments else _FULL
    return main(lambda: figures(effort), [argument for argument in arguments if argument != "--quick"])


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
