"""The arguments about the sensors of this host, and the sources that they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.attester.telemetry.registry import Choice, open_sources
from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from weighbridge.attester.commands.gpu_arguments import GpuChoice, Gpus
    from weighbridge.attester.telemetry.interface import TelemetrySource

__all__ = ["configure", "configure_rate", "open_telemetry", "period_ns", "source_choice"]

_RATE: Final = 10
_RATE_MAX: Final = 100
_SECOND_NS: Final = 1_000_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    sensors = parser.add_argument_group("sensors")
    sensors.add_argument(
        "--telemetry",
        metavar="NAME[:key=value,…]",
        type=source_choice,
        action="append",
        default=[],
        help="what reads sensors (several times): nvml, linux-host, adc, replay, emulated, engine, or that of a "
        "plug-in; `telemetry list` shows them (default: nvml with --gpu nvml, emulated with --gpu emulated:N; given "
        "once, only what is given)",
    )
    configure_rate(sensors.add_argument)


def configure_rate(add_argument: Callable[..., object]) -> None:
    """Add ``--sample-rate`` by what adds arguments to a parser, or to a group of one."""
    add_argument(
        "--sample-rate",
        metavar="HZ",
        type=_rate,
        default=_RATE,
        help=f"samples a second, 1 to {_RATE_MAX} (default: {_RATE}, as often as NVIDIA's sensors change)",
    )


def source_choice(text: str) -> Choice:
    """What ``--telemetry`` names.

    Raises:
        argparse.ArgumentTypeError: it is not ``NAME`` or ``NAME:key=value,…``.
    """
    try:
        return Choice.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def period_ns(args: argparse.Namespace) -> int:
    """Nanoseconds between samples."""
    rate: int = args.sample_rate
    return _SECOND_NS // rate


def open_telemetry(args: argparse.Namespace, gpus: Gpus, stack: ExitStack) -> TelemetrySource | None:
    """The sources that were asked for, or those that ``--gpu`` implies; ``stack`` closes them. ``None`` for none.

    Raises:
        EnvironmentFault: as :func:`open_sources`.
    """
    choice: GpuChoice = args.gpu
    choices: list[Choice] = args.telemetry or ([] if choice.kind == "none" else [Choice(choice.kind)])
    if not choices:
        return None
    host = HostFacts(
        devices=() if gpus.source is None else gpus.source.identities(),
        uuids=gpus.uuids,
        period_ns=period_ns(args),
        seed=args.seed or 0,
    )
    source = open_sources(choices, host)
    stack.callback(source.close)
    return source


def _rate(text: str) -> int:
    refusal = argparse.ArgumentTypeError(f"must be a whole number from 1 to {_RATE_MAX}, not {text!r}")
    try:
        value = strict.decimal(text, what="argument", limit=_RATE_MAX)
    except MalformedEvidence as error:
        raise refusal from error
    if value < 1:
        raise refusal
    return value
