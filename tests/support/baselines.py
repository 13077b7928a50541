"""Baselines of emulated GPUs at the work that tests declare: recorded in nominal time, fitted, signed and in force.

For what comes of them in sessions. No rate of detection follows from an emulated device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from support.sensors import Sensors, Undeclared
from support.world import NOON, WORK
from weighbridge.proto.digest import sha256
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.telemetry import Telemetry
from weighbridge.verifier import baseline_set
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.telemetry.study.fitting import Settings, fit

if TYPE_CHECKING:
    from support.baseline_owners import BaselineOwner
    from support.world import Engines, World
    from weighbridge.attester.gpu.emulated import EmulatedGpus
    from weighbridge.proto.profile import Profile
    from weighbridge.proto.workload import WorkSummary

__all__ = ["fitted", "put_in_force", "recorded", "signed_set"]

_RUNS: Final = 12
_WINDOWS: Final = 6
_SECONDS: Final = 10
_FIRST_RUN: Final = 1000
# What the sampler calls itself where genuine platforms are asked for.
_SOURCE: Final = "nvml"


def recorded(
    gpus: EmulatedGpus, model: bytes | None, *, work: WorkSummary = WORK, undeclared: int = 0
) -> list[Recording]:
    """Runs of the devices, each of six windows of ten seconds, with ``work`` in each second.

    ``undeclared``: tokens that are decoded in each second beside it.
    """
    report = spdm.parse(gpus.attest(sha256(b"recorded"))[0].report)
    scope = Scope(
        gpu_model="NVIDIA H100 80GB HBM3",
        driver=report.driver_version or "none",
        vbios=report.vbios_version,
        engine="emulated",
        model=model,
        workload="tests",
    )
    whole = replace(
        work,
        requests=_SECONDS * work.requests,
        tokens_in=_SECONDS * work.tokens_in,
        tokens_out=_SECONDS * work.tokens_out,
    )
    return [
        Recording(origin="emulated", label=f"run {run}", scope=scope, windows=_run(gpus, run, whole, undeclared))
        for run in range(_FIRST_RUN, _FIRST_RUN + _RUNS)
    ]


def fitted(gpus: EmulatedGpus, model: bytes, *, work: WorkSummary = WORK, undeclared: int = 0) -> tuple[Profile, ...]:
    """The profiles of all devices, from runs as :func:`recorded` makes them."""
    runs = recorded(gpus, model, work=work, undeclared=undeclared)
    return tuple(fit(runs, device, Settings()) for device in gpus.identities())


def signed_set(gpus: EmulatedGpus, model: bytes, owner: BaselineOwner, *, work: WorkSummary = WORK) -> bytes:
    """The file of a set with the profiles of all devices."""
    return owner.sign(owner.content(fitted(gpus, model, work=work)))


def put_in_force(world: World, engines: Engines, data: bytes, owner: BaselineOwner) -> None:
    """The verifier of ``world`` comes up again with this set in force, kept as a deployment keeps it."""
    if owner.anchor() not in world.anchors.anchors:
        world.anchors = TrustAnchors((*world.anchors.anchors, owner.anchor()))
    verified = baseline_set.verify(data, anchors=world.anchors)
    world.archive.keep_baseline(data)
    world.baselines = Baselines([verified])
    world.judge_by(engines, world.reference.with_baselines([verified.named]))


def _run(gpus: EmulatedGpus, run: int, work: WorkSummary, undeclared: int) -> tuple[RecordedWindow, ...]:
    source = Undeclared(Sensors(gpus.identities(), run=run), tokens=undeclared)
    start, length = nanoseconds(NOON), _SECONDS * 1_000_000_000
    made: list[RecordedWindow] = []
    for seq in range(_WINDOWS):
        begin = start + seq * length
        sources = source.window(start_wall_ns=begin, duration_ns=length, work=work)
        named = tuple(replace(item, name=_SOURCE) for item in sources)
        telemetry = Telemetry(session=bytes(16), seq=seq, sources=named).encode()
        made.append(RecordedWindow(telemetry=telemetry, work=work, start_ns=begin, end_ns=begin + length))
    return tuple(made)
