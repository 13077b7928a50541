"""``weighbridge baseline power``: what the instrument can tell apart between two conditions, and what it cannot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.commands.baseline_text import (
    EMULATED,
    NamedRun,
    device_of,
    devices_in_all,
    interval,
    number,
    one_scope,
    percent,
    read_runs,
    scope_document,
    scope_lines,
    wrapped,
)
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.telemetry.study.comparison import AREA_TO_SAY_NO, LEVEL, RUNS_TO_SAY_NO
from weighbridge.verifier.telemetry.study.power import tell_apart

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from weighbridge.proto import strict
    from weighbridge.proto.scope import Scope
    from weighbridge.verifier.telemetry.study.comparison import Answer, Comparison
    from weighbridge.verifier.telemetry.study.intervals import Interval

__all__ = ["configure"]

_PPM: Final = 1_000_000
_EFFECTS: Final = 6
_OUTSIDE: Final = 0.05
_CONDITION: Final = ("engine", "model", "workload", "power_limit_mw")
"""What may differ between the conditions, since it may be what is asked about."""
_WORDS: Final[dict[Answer, str]] = {"yes": "YES", "no": "NO: chance", "cannot_say": "CANNOT SAY"}
_EPILOG: Final = """\
examples:
  weighbridge baseline power --a neutral-*.wbr --b shutdown-*.wbr
  weighbridge baseline power --a fp16-*.wbr --b fp8-*.wbr --json
  weighbridge baseline power --a honest-*.wbr --b hidden-training-*.wbr

A is what the instrument learns, B what is held against it. Each run of A is judged by a fit without it, each run of B
by a fit to all of A; chance is what comes out when whole runs are exchanged between A and B. Record the two in turns,
A B A B: a drift of the room or the machine looks like a difference otherwise.

Exit 0 when there is an answer, yes or no; 6 when the runs are too few, or too uneven, for one.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline power`` to ``parser``."""
    parser.description = (
        "Say what the physics of one GPU shows of the difference between two conditions: another model, another "
        "precision, hidden training, a scenario's prompts against neutral ones. With intervals, and honest when the "
        "answer is no."
    )
    parser.epilog = _EPILOG
    parser.add_argument("--a", metavar="RUN", nargs="+", required=True, help="recordings of the one condition")
    parser.add_argument("--b", metavar="RUN", nargs="+", required=True, help="recordings of the other")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    both = read_runs([*arguments.a, *arguments.b])
    first, second = both[: len(arguments.a)], both[len(arguments.a) :]
    # Within a condition everything is the same; between them, the hardware and its driver are.
    scope = one_scope(first)
    other = one_scope(second)
    one_scope([first[0], second[0]], apart=_CONDITION)
    devices = devices_in_all(both)
    found: list[tuple[bytes, Comparison]] = []
    with Progress("fits", (len(first) + 1) * len(devices), shown=not arguments.json) as progress:
        for device in devices:
            compared = tell_apart(
                [(run.path, run.recording) for run in first],
                [(run.path, run.recording) for run in second],
                device,
                # Of several GPUs any may say yes by chance: all of them together do so in 5 % (Bonferroni).
                level=LEVEL / len(devices),
                told=lambda: progress.advance(1),
            )
            found.append((device, compared))
    emulated = any(run.recording.origin == "emulated" for run in both)
    differing = _differing(scope, other)
    lines = [
        line
        for device, compared in found
        for line in (*_lines(device, compared, first, second, differing=differing, emulated=emulated), "")
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/baseline-power/v1",
        "a": [run.digest.hex() for run in first],
        "b": [run.digest.hex() for run in second],
        "scope_a": scope_document(scope),
        "scope_b": scope_document(other),
        "emulated": emulated,
        "devices": [_document(device, compared) for device, compared in found],
    }
    said = any(compared.answer != "cannot_say" for _, compared in found)
    text = "\n".join([*scope_lines(scope), "", *lines, *_meaning(found)]) + "\n"
    return Outcome(text, document, ExitCode.AFFIRMED if said else ExitCode.INDETERMINATE)


def _differing(first: Scope, second: Scope) -> str:
    """What is said to differ between the conditions."""
    one, two = scope_document(first), scope_document(second)
    names = [f"{name}: {plain(str(one[name]))} | {plain(str(two[name]))}" for name in one if one[name] != two[name]]
    return "; ".join(names) or "nothing that recordings say"


# -- for people -------------------------------------------------------------------------------------------------------


def _lines(
    device: bytes,
    found: Comparison,
    first: Sequence[NamedRun],
    second: Sequence[NamedRun],
    *,
    differing: str,
    emulated: bool,
) -> Iterator[str]:
    yield f"{_headline(found)}{', ' if found.answer == 'no' else ': '}{device_of(device)}"
    for name, runs, units, at in (("A", first, found.units[0], 0), ("B", second, found.units[1], 1)):
        ends = Path(runs[0].path).name if len(runs) == 1 else f"{Path(runs[0].path).name} … {Path(runs[-1].path).name}"
        yield f"  {name}           {counted(found.runs[at], 'run')}, {counted(units, 'unit')}: {plain(ends)}"
    yield from wrapped("differs", differing)
    yield from _chance(found)
    area = found.area
    span = f"95 %: {area.low:.2f} to {area.high:.2f}, over runs"
    if area.low == area.high:
        span = "all runs alike: their number is what limits it"
    yield f"  AUROC       {area.value:.2f} ({span}): 0.5 is chance, 1 always"
    yield f"  detected    {_share(found.detected, found.detected_share, 'B')}"
    yield f"  false       {_share(found.false_alarms, found.false_alarm_share, 'A')}"
    yield f"              each judged by a fit without it; what is stated is at most {_percent(found.bound)}"
    yield f"  time        {_seconds(found.seconds)}"
    yield f"  power       {interval(found.power_w, unit='W')}, B less A, as measured"
    yield f"  residual    {interval(found.residual_w, unit='W')}, beyond what declared work explains"
    yield from _effects(found)
    for line in warnings(found, emulated=emulated):
        yield from wrapped("BEWARE", line)


def _headline(found: Comparison) -> str:
    if found.answer == "cannot_say":
        return f"{_WORDS[found.answer]}: {counted(found.runs[0], 'run')} of A, {found.runs[1]} of B"
    return _WORDS[found.answer]


def _chance(found: Comparison) -> Iterator[str]:
    if found.p is None:
        yield f"  chance?     so few runs cannot tell: exchanged in every way, no p is below {found.p_smallest:.2g}"
        return
    how = "in every way" if found.p_exact else f"in {round(1 / found.p_smallest):,} ways, drawn at random"
    yield f"  chance?     p = {found.p:.2g} that nothing differs: whole runs exchanged {how}"
    if found.level < LEVEL:
        yield f"              of several GPUs, chance is what is above {found.level:.2g}"


def _effects(found: Comparison) -> Iterator[str]:
    for place, effect in enumerate(found.effects[:_EFFECTS]):
        said = f"{number(effect.size)} sd of A's runs" if math.isfinite(effect.size) else "A's runs are all alike"
        p = "" if found.p is None else f", p = {effect.p:.2g}"
        yield f"  {'features' if place == 0 else '':<10}  {effect.feature}: {said}{p}"


def _share(counts: tuple[int, int], found: Interval, condition: str) -> str:
    hits, trials = counts
    low, high = _percent(found.low), _percent(found.high)
    return f"{hits} of {counted(trials, 'run')} of {condition}: {_percent(found.value)} (95 %: {low} to {high})"


def _seconds(found: Interval) -> str:
    if math.isinf(found.value):
        return "half of B's runs, or more, raise no alarm at all"
    if found.low <= 0 and math.isinf(found.high):
        return "cannot say: of so few runs, anything from at once to never"
    high = "longer than the runs" if math.isinf(found.high) else f"{found.high:,.0f} s"
    return f"{found.value:,.0f} s to the alarm, in the median over B's runs (95 %: {found.low:,.0f} s to {high})"


def _percent(share: float) -> str:
    return percent(share * _PPM)


def warnings(found: Comparison, *, emulated: bool) -> list[str]:
    """What could make the answer another one."""
    told: list[str] = []
    if not found.interleaved:
        told.append(
            "A was recorded before B, or B before A: a drift would look like a difference. Record them in turns"
        )
    if found.outside > _OUTSIDE:
        told.append(
            f"{_percent(found.outside)} of B's units declare work that A never did: what explains them is extrapolated"
        )
    if found.answer == "cannot_say":
        told.append(f"to say no takes {RUNS_TO_SAY_NO} runs of each, and an AUROC below {AREA_TO_SAY_NO} for certain")
    if emulated:
        told.append(EMULATED)
    return told


def _meaning(found: Sequence[tuple[bytes, Comparison]]) -> Iterator[str]:
    answers = {compared.answer for _, compared in found}
    yield "what it means"
    yield "  for weights    nothing. Another fine-tune of an architecture mostly looks like chance, and whatever"
    yield "                 draws power may be what differs: a declaration can be contradicted, never proven"
    if "yes" in answers:
        yield "  for scenarios  the computation differed, beyond the declared tokens. Not why: that is no intent of the"
        yield "                 model's, and no answer. Compare two neutral sets as well before you conclude"
    if "no" in answers:
        yield "  for scenarios  what differed, if anything did, does not show in this GPU's power. It is no proof that"
        yield "                 nothing happened: hidden requests in spare batch slots are nearly free"
    if answers == {"cannot_say"}:
        yield "  for scenarios  nothing yet: record more runs of each, in turns"


# -- for programs -----------------------------------------------------------------------------------------------------


def _document(device: bytes, found: Comparison) -> strict.JsonObject:
    return {
        "device": device.hex(),
        "answer": found.answer,
        "runs": {"a": found.runs[0], "b": found.runs[1]},
        "units": {"a": found.units[0], "b": found.units[1]},
        "level": found.level,
        "p": found.p,
        "p_exact": found.p_exact,
        "p_smallest": found.p_smallest,
        "auroc": _interval(found.area),
        "bound": found.bound,
        "false_alarms": {"runs": found.false_alarms[0], "share": _interval(found.false_alarm_share)},
        "detected": {"runs": found.detected[0], "share": _interval(found.detected_share)},
        "seconds": _interval(found.seconds),
        "power_w": _interval(found.power_w),
        "residual_w": _interval(found.residual_w),
        "effects": [
            {"feature": effect.feature, "size_sd": _finite(effect.size), "p": effect.p} for effect in found.effects
        ],
        "interleaved": found.interleaved,
        "outside": found.outside,
    }


def _interval(found: Interval) -> strict.JsonObject:
    """JSON has no infinities: what has no limit is null."""
    return {"value": _finite(found.value), "low": _finite(found.low), "high": _finite(found.high)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
