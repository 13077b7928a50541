"""What a session is given: what is asked of it, its hardware, and what tests replace. Built once, by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.attester.spool import DEFAULT_MAX_BYTES
from weighbridge.proto.collateral import Collateral

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from weighbridge.attester.boot import BootFiles, RuntimeList
    from weighbridge.attester.clock import Clock
    from weighbridge.attester.courier import Backoff
    from weighbridge.attester.gpu.interface import GpuSource
    from weighbridge.attester.keys import ServingKey
    from weighbridge.attester.offload import Offload
    from weighbridge.attester.spool_files import SpoolStorage
    from weighbridge.attester.telemetry.interface import TelemetrySource
    from weighbridge.attester.tpm.interface import TpmDevice
    from weighbridge.proto.manifest import Manifest

__all__ = ["Devices", "SessionConfig", "Surroundings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What is asked of a session.

    Attributes:
        state: the directory of everything durable.
        tenant: named in terms and headers.
        audience: whom the result tokens are for.
        model: the declared manifest.
        adapters: the manifests that are declared beside it: what else may be loaded.
        serving: the inference server's TLS key.
        peer: thumbprint of the attester's own TLS key, 32 bytes.
        version: of this software, for the measurement log.
        log_pcr: the register of the measurement log.
        pinned: the verifier knows the AK; no EK is shown.
        command: the inference server to launch; empty to wait for one that connects.
        port_file: passed on to the command.
        windows: how many windows to seal, ``None`` to go on until the command ends or :meth:`AttesterSession.stop`.
        spool_bytes: bound of the spool.
        patient: whether a verifier that cannot be reached at the start is waited for.
    """

    state: Path
    tenant: str
    audience: str
    model: Manifest
    serving: ServingKey
    peer: bytes
    version: str
    log_pcr: int = 15
    pinned: bool = False
    adapters: tuple[Manifest, ...] = ()
    command: tuple[str, ...] = ()
    port_file: Path | None = None
    windows: int | None = None
    spool_bytes: int = DEFAULT_MAX_BYTES
    patient: bool = False

    @property
    def declared(self) -> tuple[Manifest, ...]:
        """Every declared manifest, the model's first."""
        return (self.model, *self.adapters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The hardware, opened by the caller and closed by it. ``None`` on a host without GPUs or sensors.

    ``boot`` are the logs of its boot, ``None`` to keep them back; ``runtime`` is the kernel's list of measured files,
    ``None`` where it keeps none; ``collateral`` is what its platform gives out beside
    the TPM's endorsement.
    """

    tpm: TpmDevice
    gpus: GpuSource | None
    telemetry: TelemetrySource | None
    boot: BootFiles | None = None
    runtime: RuntimeList | None = None
    collateral: Collateral = field(default_factory=Collateral)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What tests replace: time, chance, where blocking work is done, delays between connections, the spool's disk."""

    clock: Clock
    rng: random.Random
    offload: Offload
    backoff: Backoff | None = None
    storage: SpoolStorage | None = None
