"""The arguments about this host's GPUs, and what they name."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.attester.gpu.readiness import ReadyWhenAffirmed
from weighbridge.attester.report import Notice
from weighbridge.attester.wording import counted
from weighbridge.proto import strict
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from weighbridge.attester.gpu.interface import GpuSource
    from weighbridge.attester.report import Observer

__all__ = ["GpuChoice", "Gpus", "configure", "misuse", "open_gpus"]

_EMULATED: Final = "emulated:"
_EMULATED_MAX: Final = 8
_TIMEOUT_S: Final = 30
_TIMEOUT_MAX_S: Final = 600


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """``--gpu``. ``count`` is of emulated devices; NVML's are those that it shows."""

    kind: Literal["none", "emulated", "nvml"]
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> GpuChoice:
        """What ``text`` names.

        Raises:
            argparse.ArgumentTypeError: it names nothing.
        """
        if text == "none":
            return cls("none")
        if text == "nvml":
            return cls("nvml")
        if not text.startswith(_EMULATED):
            raise argparse.ArgumentTypeError(f"must be nvml, emulated:N or none, not {text!r}")
        return cls("emulated", _number(text.removeprefix(_EMULATED), _EMULATED_MAX))


@dataclass(frozen=True, slots=True)
class Gpus:
    """What was opened.

    ``observer`` is the session's, or what has the GPUs take work when a window was affirmed; ``uuids`` are the driver's
    names of them to their identities.
    """

    source: GpuSource | None
    observer: Observer
    uuids: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``."""
    gpus = parser.add_argument_group("GPUs")
    gpus.add_argument(
        "--gpu",
        metavar="SOURCE",
        type=GpuChoice.parse,
        required=True,
        help="nvml: every GPU that the NVIDIA driver shows; emulated:N (1 to 8); none (no shipped policy admits a "
        "session without one)",
    )
    gpus.add_argument(
        "--gpu-timeout",
        metavar="S",
        type=lambda text: _number(text, _TIMEOUT_MAX_S),
        default=_TIMEOUT_S,
        help=f"seconds that each GPU gets to answer, with nvml (default: {_TIMEOUT_S})",
    )
    gpus.add_argument(
        "--set-ready",
        action="store_true",
        help="with nvml: have the GPUs take work (the driver's ready state) when the first window was affirmed "
        "(default: leave that to whoever runs the host)",
    )
    gpus.add_argument(
        "--gpu-vendor",
        metavar="DIR",
        type=Path,
        help="where emulated devices and their vendor's keys are kept, and what that vendor publishes: roots and "
        "manifests for a verifier (default: insecure-emulated-gpus in --state)",
    )


def misuse(args: argparse.Namespace) -> str | None:
    """What is wrong with arguments of which each alone is right."""
    if args.set_ready and args.gpu.kind != "nvml":
        return "--set-ready is for --gpu nvml: other GPUs have no ready state"
    return None


def open_gpus(args: argparse.Namespace, stack: ExitStack, observer: Observer) -> Gpus:
    """The GPUs that were asked for; ``stack`` closes them.

    Raises:
        EnvironmentFault: as :meth:`NvmlGpus.open` or :meth:`EmulatedGpus.open`.
    """
    choice: GpuChoice = args.gpu
    if choice.kind == "none":
        return Gpus(None, observer)
    if choice.kind == "nvml":
        return _open_nvml(args, stack, observer)
    # For those who ask for it.
    from weighbridge.attester.gpu.emulated import EmulatedGpus  # noqa: PLC0415

    gpus = EmulatedGpus.open(args.gpu_vendor or args.state / "insecure-emulated-gpus", choice.count)
    stack.callback(gpus.close)
    what = counted(choice.count, "GPU is", "GPUs are")
    observer.notice(Notice("emulated", f"INSECURE: {what} emulated; platform insecure-emulated"))
    return Gpus(gpus, observer)


def _open_nvml(args: argparse.Namespace, stack: ExitStack, observer: Observer) -> Gpus:
    # For those who ask for it.
    from weighbridge.attester.gpu.nvml import NvmlGpus  # noqa: PLC0415

    gpus = NvmlGpus.open(timeout_s=args.gpu_timeout)
    stack.callback(gpus.close)
    state = gpus.cc_state()
    count = len(gpus.identities())
    said = "nothing" if state is None else f"on, environment {state.environment}, multi-GPU mode {state.multi_gpu}"
    observer.notice(Notice("gpus", f"{count} through NVML; of confidential computing the driver says: {said}"))
    if state is not None and state.dev_tools:
        observer.notice(
            Notice("gpus", "INSECURE: in development mode the GPUs' memory can be looked into, and verifiers refuse it")
        )
    if state is not None and state.multi_gpu == "protected_pcie":
        observer.notice(
            Notice(
                "gpus",
                "the NVSwitches between them are not shown: NVML has no evidence of switches, and a verifier "
                "that demands the whole topology refuses this host",
            )
        )
    watching = ReadyWhenAffirmed(observer, gpus.accept_work) if args.set_ready else observer
    return Gpus(gpus, watching, gpus.uuids())


def _number(text: str, high: int) -> int:
    try:
        value = strict.decimal(text, what="argument", limit=high)
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {high}, not {text!r}") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {high}, not {text!r}")
    return value
