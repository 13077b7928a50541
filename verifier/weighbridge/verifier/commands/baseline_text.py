"""Powers, shares, devices and runs as people read them; and recordings read from files."""

from __future__ import annotations

import argparse
import math
import shutil
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied
from weighbridge.proto.recording import Recording
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import read, taken_for
from weighbridge.verifier.commands.text import plain, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import strict
    from weighbridge.proto.scope import Scope
    from weighbridge.verifier.telemetry.study.intervals import Interval

__all__ = [
    "EMULATED",
    "NOT_WEIGHTS",
    "NamedRun",
    "device_of",
    "devices_in_all",
    "interval",
    "number",
    "one_scope",
    "percent",
    "power_limit",
    "read_recording",
    "read_runs",
    "residual_line",
    "scope_document",
    "scope_lines",
    "signed_bar",
    "stack_lines",
    "terminal",
    "watts",
    "wrapped",
]

NOT_WEIGHTS: Final = "it says nothing of weights: the residual can contradict and corroborate, never vouch for them"
EMULATED: Final = "emulated: made by no hardware; no rate of detection follows from it"
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_PPM: Final = 10_000
_WATTS_MAX: Final = 100_000
_WIDTHS: Final = (80, 100)
"""Of a terminal, in columns: what it has at least, and beyond which lines are hard to read."""
_INDENT: Final = 14


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A recording, the file that it was read from, and its digest."""

    path: str
    recording: Recording
    digest: bytes


def read_recording(path: str) -> Recording:
    """The recording in the file ``path``. Nothing of it is verified: nobody signs recordings.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`Recording.parse`, naming the file, or ``TOO_LARGE``.
    """
    data = read(path, limit=limits.RECORDING_MAX)
    made = "`weighbridge baseline record` or `weighbridge-attester telemetry record` wrote"
    with taken_for(path, what="a recording", hint=f"name a file that {made}"):
        return Recording.parse(data)


def read_runs(paths: Sequence[str]) -> list[NamedRun]:
    """The recordings in ``paths``, in their order; each counts once.

    Raises:
        WeighbridgeError: as :func:`read_recording`.
        PolicyDenied: ``BASELINE_SCOPE`` for one that is named twice: it would count as two runs.
    """
    found: list[NamedRun] = []
    first: dict[bytes, str] = {}
    for path in paths:
        recording = read_recording(path)
        run = NamedRun(path, recording, recording.digest)
        if (before := first.setdefault(run.digest, path)) != path or any(path == other.path for other in found):
            raise PolicyDenied(
                Code.BASELINE_SCOPE,
                "the same recording twice",
                where=path,
                got=before,
                hint="a run counts once: name each file once, and no copy beside it",
            )
        found.append(run)
    return found


def one_scope(runs: Sequence[NamedRun], *, apart: Sequence[str] = ()) -> Scope:
    """The scope of all ``runs``.

    Args:
        runs: one, at least.
        apart: fields in which they may differ: the first run's counts.

    Raises:
        PolicyDenied: ``BASELINE_SCOPE``, naming each field in which they differ.
    """
    first = runs[0]
    for run in runs[1:]:
        mine, other = scope_document(first.recording.scope), scope_document(run.recording.scope)
        different = [name for name in mine if mine[name] != other[name] and name not in apart]
        if different:
            raise PolicyDenied(
                Code.BASELINE_SCOPE,
                "not the same stack as the first run: " + ", ".join(different),
                where=run.path,
                expected="; ".join(f"{name} {mine[name]}" for name in different),
                got="; ".join(f"{name} {other[name]}" for name in different),
                hint="power differs between stacks by more than from run to run: a baseline is for one of them",
            )
    return first.recording.scope


def devices_in_all(runs: Sequence[NamedRun]) -> list[bytes]:
    """The GPUs that every one of ``runs`` has readings of, in order.

    Raises:
        Indeterminate: ``RECORDING_EMPTY`` where there is none.
        MalformedEvidence: a window's telemetry is none.
    """
    common: set[bytes] | None = None
    for run in runs:
        found = {
            source.device
            for window in run.recording.windows
            for source in window.readings().sources
            if source.device is not None
        }
        common = found if common is None else common & found
    if not common:
        raise Indeterminate(
            Code.RECORDING_EMPTY,
            "no GPU is in all of the runs",
            where=runs[0].path if runs else "RUN",
            hint="a baseline is for one physical GPU: record all runs on it (imported tables: --device says which)",
        )
    return sorted(common)


def device_of(device: bytes | None) -> str:
    """``GPU 0123456789abcdef…``; ``host`` for readings of the host itself."""
    return "host" if device is None else f"GPU {short(device.hex())}"


def watts(milliwatts: float) -> str:
    """``434.2 W``."""
    return f"{milliwatts / 1000:,.1f} W"


def number(value: float, digits: int = 1) -> str:
    """With a sign, or in words where there is none to give."""
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "without limit"
    return f"{value:+,.{digits}f}"


def percent(ppm: float) -> str:
    """Of parts per million: ``7.7 %``."""
    return f"{ppm / _PPM:.3g} %"


def interval(found: Interval, *, unit: str, digits: int = 1) -> str:
    """``+3.1 W (95 %: +1.0 to +5.2)``."""
    low, high = number(found.low, digits), number(found.high, digits)
    return f"{number(found.value, digits)} {unit} (95 %: {low} to {high})"


def residual_line(values: Sequence[float | None], *, width: int) -> str:
    """Residuals as a line of blocks about zero, which is half the height; the largest, of either sign, is at an end.

    Longer series are cut into ``width`` groups, of each of which the value farthest from zero is shown.
    """
    groups = [values[at * len(values) // width : (at + 1) * len(values) // width] for at in range(width)]
    if len(values) <= width:
        groups = [[value] for value in values]
    chosen = [max((value for value in group if value is not None), key=abs, default=None) for group in groups]
    reach = max((abs(value) for value in chosen if value is not None), default=0.0) or 1.0
    top = len(_BLOCKS) - 1
    return "".join(" " if value is None else _BLOCKS[round((value / reach + 1) / 2 * top)] for value in chosen)


def terminal() -> int:
    """How many columns to fill: those of the terminal, from 80 to 100; 100 where the output is none."""
    least, most = _WIDTHS
    return min(most, max(least, shutil.get_terminal_size((most, 0)).columns))


def wrapped(label: str, text: str) -> list[str]:
    """``label`` and what it says, within the terminal."""
    lines = textwrap.wrap(text, terminal() - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"  {label if at == 0 else '':<10}  {line}" for at, line in enumerate(lines)]


def signed_bar(value: float, reach: float, *, half: int) -> str:
    """A bar to the left of the middle for what is below zero, to the right for what is above."""
    length = min(half, round(abs(value) / reach * half)) if reach > 0 else 0
    bar = "█" * length
    return f"{bar if value < 0 else '':>{half}}│{bar if value >= 0 else '':<{half}}"


def stack_lines(scope: Scope) -> list[str]:
    """The stack, but for the model."""
    limit = "not said" if scope.power_limit_mw is None else watts(scope.power_limit_mw)
    vbios = "" if scope.vbios is None else f", VBIOS {plain(scope.vbios)}"
    stack = f"{plain(scope.gpu_model)}, driver {plain(scope.driver)}{vbios}, power limit {limit}, "
    return wrapped("stack", f"{stack}engine {plain(scope.engine)}, workload {plain(scope.workload)}")


def scope_lines(scope: Scope) -> list[str]:
    """The stack and the model."""
    return [*stack_lines(scope), f"  model       {'not said' if scope.model is None else scope.model.hex()}"]


def scope_document(scope: Scope) -> strict.JsonObject:
    """The stack, for programs."""
    return scope.to_json()


def power_limit(text: str) -> int:
    """Watts on the command line, as milliwatts."""
    found = given.decimal(text, what="the power limit in watts", limit=_WATTS_MAX)
    if not found:
        raise argparse.ArgumentTypeError("a power limit is positive")
    return found * 1000
