"""What the verbs about sensors share: their options, the host that sources are told of, and how readings are shown."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands import telemetry_arguments
from weighbridge.attester.commands.gpu_arguments import GpuChoice
from weighbridge.attester.telemetry.emulated_load import LoadRange
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.attester.telemetry.registry import Choice
from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from weighbridge.proto.telemetry import Event

__all__ = [
    "add_load",
    "add_sources",
    "choices_of",
    "counted",
    "device_name",
    "host_of",
    "misuse",
    "number",
    "reading",
]

_TIMEOUT_S: Final = 30
_SEED_MAX: Final = 2**63 - 1
# Units for people: what they are called, and how many of the channel's unit are one.
_SHOWN: Final[Mapping[str, tuple[str, float, int]]] = {
    "mW": ("W", 1e3, 1),
    "µW": ("W", 1e6, 1),
    "mJ": ("kJ", 1e6, 3),
    "µJ": ("kJ", 1e9, 3),
    "m°C": ("°C", 1e3, 1),
    "‰": ("%", 10.0, 1),
    "ppm": ("%", 1e4, 1),
    "mV": ("V", 1e3, 2),
    "mA": ("A", 1e3, 2),
    "kHz": ("MHz", 1e3, 0),
    "B": ("MB", 1e6, 1),
    "ns": ("s", 1e9, 3),
    "1": ("", 1.0, 0),
    "bits": ("", 1.0, 0),
}


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add ``--telemetry``, ``--gpu`` and what goes with them."""
    parser.add_argument(
        "--telemetry",
        metavar="NAME[:key=value,…]",
        type=telemetry_arguments.source_choice,
        action="append",
        default=[],
        help="what reads sensors (several times; default: nvml with --gpu nvml, emulated with --gpu emulated:N)",
    )
    parser.add_argument(
        "--gpu",
        metavar="SOURCE",
        type=GpuChoice.parse,
        default=GpuChoice("none"),
        help="whose readings they are, as in a session: nvml, by what its GPUs certify; emulated:N; none, by the names "
        "that drivers give (default)",
    )
    parser.add_argument(
        "--gpu-vendor", metavar="DIR", type=Path, help="with emulated:N: where `run` keeps these devices"
    )
    telemetry_arguments.configure_rate(parser.add_argument)
    parser.add_argument(
        "--seed", metavar="N", type=number(0, _SEED_MAX), default=0, help="of emulated sensors, as for `run`"
    )


def add_load(parser: argparse.ArgumentParser) -> None:
    """Add ``--load``."""
    parser.add_argument(
        "--load",
        metavar="IN+OUT[..IN+OUT][@STREAMS]",
        type=_load,
        default=LoadRange.parse("0+0"),
        help="with emulated sensors: declared tokens a second, drawn for each window, and requests side by side "
        "(default: 0+0)",
    )


def number(low: int, high: int) -> Callable[[str], int]:
    """What reads a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        refusal = argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")
        try:
            value = strict.decimal(text, what="argument", limit=high)
        except MalformedEvidence as error:
            raise refusal from error
        if value < low:
            raise refusal
        return value

    return parse


def choices_of(args: argparse.Namespace) -> list[Choice]:
    """The sources that are asked for; empty where none is."""
    gpu: GpuChoice = args.gpu
    given: list[Choice] = args.telemetry
    return given or ([] if gpu.kind == "none" else [Choice(gpu.kind)])


def host_of(args: argparse.Namespace, stack: ExitStack) -> HostFacts:
    """What sources are told of this host; ``stack`` closes what has to be opened to know.

    Raises:
        EnvironmentFault: as :meth:`NvmlGpus.open` or :meth:`EmulatedGpus.open`.
    """
    gpu: GpuChoice = args.gpu
    devices: tuple[bytes, ...] = ()
    uuids: Mapping[str, bytes] = {}
    if gpu.kind == "nvml":
        # For those who ask for it.
        from weighbridge.attester.gpu.nvml import NvmlGpus  # noqa: PLC0415

        gpus = NvmlGpus.open(timeout_s=_TIMEOUT_S)
        stack.callback(gpus.close)
        devices, uuids = gpus.identities(), gpus.uuids()
    elif gpu.kind == "emulated":
        from weighbridge.attester.gpu.emulated import EmulatedGpus  # noqa: PLC0415

        emulated = EmulatedGpus.open(args.gpu_vendor, gpu.count)
        stack.callback(emulated.close)
        devices = emulated.identities()
    return HostFacts(devices=devices, uuids=uuids, period_ns=telemetry_arguments.period_ns(args), seed=args.seed)


def misuse(args: argparse.Namespace) -> str | None:
    """What is wrong with the options about sources."""
    if not choices_of(args):
        return "name a source: --telemetry NAME or --gpu SOURCE; `telemetry list` shows them"
    if (args.gpu.kind == "emulated") != (args.gpu_vendor is not None):
        return "--gpu emulated:N and --gpu-vendor DIR go together"
    return None


def device_name(device: bytes | None) -> str:
    """How a device is called in tables."""
    return "host" if device is None else device.hex()[:8]


def reading(value: int | None, unit: str) -> str:
    """A reading for people."""
    if value is None:
        return "none"
    name, scale, digits = _SHOWN.get(unit, (unit, 1.0, 0))
    return f"{value / scale:.{digits}f} {name}".rstrip()


def counted(events: Sequence[Event]) -> dict[str, int]:
    """How many events of each kind."""
    found: dict[str, int] = {}
    for event in events:
        found[event.kind.value] = found.get(event.kind.value, 0) + 1
    return dict(sorted(found.items()))


def _load(text: str) -> LoadRange:
    try:
        return LoadRange.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
