"""``weighbridge-attester telemetry record``: one run of this host's sensors, or many of emulated ones at once."""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands import telemetry_common as common
from weighbridge.attester.commands import telemetry_scope
from weighbridge.attester.commands.progress import Progress
from weighbridge.attester.telemetry.emulated_load import by_the_second
from weighbridge.attester.telemetry.interface import Options
from weighbridge.attester.telemetry.nvml_stack import driver_stack
from weighbridge.attester.telemetry.recorder import Plan, recorded_live, recorded_nominally
from weighbridge.attester.telemetry.registry import open_sources
from weighbridge.attester.telemetry.sampler import SystemSampleClock
from weighbridge.attester.wording import counted
from weighbridge.proto import limits
from weighbridge.proto.errors import ExitCode, WeighbridgeError
from weighbridge.proto.options import UsageFault
from weighbridge.proto.recording import Recording
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from weighbridge.attester.commands.gpu_arguments import GpuChoice
    from weighbridge.attester.telemetry.interface import HostFacts
    from weighbridge.proto.recording import RecordedWindow
    from weighbridge.proto.scope import Scope

__all__ = ["configure", "run"]

_EMULATED: Final = "emulated"
_NVML: Final = "nvml"
_NOT_GENUINE: Final = frozenset({_EMULATED, "replay"})
_SECOND_NS: Final = 1_000_000_000
_SECONDS_MAX: Final = 7 * 24 * 3600
_WINDOW_MAX_S: Final = 60
_RUNS_MAX: Final = 256
_RUN_BITS: Final = 61
_CAP_W: Final = 700
_DEFAULTS: Final = {"gpu_model": "emulated H100", "driver": "emulated", "engine": "emulated"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``telemetry record`` to ``parser``."""
    common.add_sources(parser)
    common.add_load(parser)
    parser.add_argument(
        "--seconds", metavar="N", type=common.number(1, _SECONDS_MAX), required=True, help="how long a run is"
    )
    parser.add_argument(
        "--window",
        metavar="S",
        type=common.number(1, _WINDOW_MAX_S),
        default=10,
        help="seconds of a window, of which --seconds has a whole number (default: 10)",
    )
    parser.add_argument(
        "--emulated-runs",
        metavar="N",
        type=common.number(1, _RUNS_MAX),
        help="with emulated sensors alone: N runs in nominal time, without waiting; they differ as runs of one GPU do, "
        "and lie in NAME-01.wbr to NAME-N.wbr; a single one in NAME.wbr",
    )
    parser.add_argument(
        "--idle",
        metavar="S",
        type=common.number(0, _SECONDS_MAX),
        default=0,
        help="with emulated sensors: seconds at the beginning of each run in which nothing is served, as in a session "
        "(default: 0)",
    )
    telemetry_scope.add_scope(parser)


def run(args: argparse.Namespace) -> int:
    """Record, write, print what was written.

    Raises:
        WeighbridgeError: as :func:`weighbridge.attester.telemetry.registry.open_sources`, as a source does, or
            ``DISK_FULL``, ``FILE_UNWRITABLE``, ``TOO_LARGE``, ``CLOCK_STEPPED``; what was recorded until then is kept.
    """
    names = {choice.name for choice in common.choices_of(args)}
    emulated = names == {_EMULATED}
    defaults, watts = _said(args, names)
    mistake = common.misuse(args) or _misuse(args, emulated=emulated) or telemetry_scope.misuse(args, defaults)
    if mistake is not None:
        raise UsageFault(mistake)
    scope = telemetry_scope.read_scope(args, defaults, power_limit_w=watts)
    with ExitStack() as stack:
        host = common.host_of(args, stack)
        if args.emulated_runs is not None:
            written = [telemetry_scope.write(path, recording) for path, recording in _emulated_runs(args, host, scope)]
        else:
            written = [_live(args, host, scope, stack)]
    telemetry_scope.say(written, as_json=args.json)
    return ExitCode.AFFIRMED


def _said(args: argparse.Namespace, names: set[str]) -> tuple[dict[str, str], int | None]:
    """What is known of the stack without being given, and the power limit in watts."""
    if names == {_EMULATED}:
        return {**_DEFAULTS, **_reported(args.gpu), "workload": args.label}, _CAP_W
    if _NVML not in names:
        return {}, None
    stack = driver_stack()
    return stack.texts(), stack.power_limit_w


def _reported(gpu: GpuChoice) -> dict[str, str]:
    """The driver that emulated GPUs report; what is made up without any reports none."""
    if gpu.kind != _EMULATED:
        return {}
    # For those who ask for it.
    from weighbridge.attester.gpu.emulated import Firmware  # noqa: PLC0415

    return {"driver": Firmware().driver}


def _misuse(args: argparse.Namespace, *, emulated: bool) -> str | None:
    if args.seconds % args.window:
        return f"--seconds must be a multiple of --window, {args.window}"
    if args.idle % args.window:
        return f"--idle must be a multiple of --window, {args.window}"
    if args.seconds // args.window > limits.RECORDING_WINDOWS_MAX:
        return f"a recording has at most {limits.RECORDING_WINDOWS_MAX} windows"
    choices = common.choices_of(args)
    if args.emulated_runs is not None and (not emulated or len(choices) != 1):
        return "--emulated-runs is for emulated sensors alone: others cannot be read before their time"
    if (args.idle or args.load.high != (0, 0)) and not any(choice.name == _EMULATED for choice in choices):
        return "--load and --idle are for emulated sensors: for others, add the source engine"
    return None


def _live(args: argparse.Namespace, host: HostFacts, scope: Scope, stack: ExitStack) -> telemetry_scope.Written:
    choices = common.choices_of(args)
    source = open_sources(choices, host)
    stack.callback(source.close)
    windows: list[RecordedWindow] = []

    def kept() -> telemetry_scope.Written:
        recording = Recording(
            origin="emulated" if any(choice.name in _NOT_GENUINE for choice in choices) else "host",
            label=args.label,
            scope=scope,
            windows=tuple(windows),
        )
        return telemetry_scope.write(args.out, recording)

    plan = _plan(args, f"{args.seed}")
    try:
        for window in recorded_live(source, plan, clock=SystemSampleClock()):
            windows.append(window)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r\x1b[Krecorded {len(windows)} of {counted(plan.windows, 'window')}")
                sys.stderr.flush()
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
    except (WeighbridgeError, KeyboardInterrupt):
        if windows:
            kept()
            what = counted(len(windows), "whole window is", "whole windows are")
            sys.stderr.write(f"weighbridge-attester: notice: {what} kept in {args.out}\n")
        raise
    return kept()


def _emulated_runs(args: argparse.Namespace, host: HostFacts, scope: Scope) -> Iterable[tuple[Path, Recording]]:
    """Each run as if it had just ended when the next began, the last of them now."""
    # For those who ask for it.
    from weighbridge.attester.telemetry.emulated import open_emulated  # noqa: PLC0415

    (choice,) = common.choices_of(args)
    count: int = args.emulated_runs
    first = _first_run(choice.options)
    now = time.time_ns()
    with Progress(sys.stderr, "recorded", "runs") as progress:
        for number in range(count):
            run = str(first + number)
            plan = _plan(args, f"{args.seed}/{run}")
            source = open_emulated({**choice.options, "run": run}, host)
            start = now - (count - number) * args.seconds * _SECOND_NS
            windows = tuple(recorded_nominally(source, plan, start_ns=start))
            source.close()
            progress(number + 1, count)
            path: Path = args.out
            # As many digits as the last one has: sorted by name they are in their order.
            digits = max(2, len(str(count)))
            yield (
                path if count == 1 else path.with_stem(f"{path.stem}-{number + 1:0{digits}}"),
                Recording(origin="emulated", label=args.label, scope=scope, windows=windows),
            )


def _first_run(options: Mapping[str, str]) -> int:
    given = Options(_EMULATED, {key: value for key, value in options.items() if key == "run"})
    return given.number("run", 0, 2**_RUN_BITS, default=secrets.randbits(_RUN_BITS))


def _plan(args: argparse.Namespace, seed: str) -> Plan:
    rng, window_ns = random.Random(seed), args.window * _SECOND_NS  # noqa: S311 - emulated work, not a secret
    idle = args.idle // args.window

    def work(number: int) -> WorkSummary:
        return WorkSummary.empty() if number < idle else args.load.draw(rng, window_ns)

    return Plan(args.seconds // args.window, window_ns, work, lambda of: by_the_second(rng, of, args.window))
