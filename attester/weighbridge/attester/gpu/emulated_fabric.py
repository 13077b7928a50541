"""An emulated HGX in protected-PCIe mode: GPUs that name the switches they are wired to, switches that name the GPUs.

The switches sign reports in the layout of an LS_10, with made-up measurements, under a vendor of their own. As for the
GPUs every signature is real, and the platform is ``insecure-emulated``.

>>> fabric = EmulatedFabric.create(gpus=2, switches=1)
>>> [len(item.report) for item in fabric.attest(bytes(range(32)))]
[4277, 4277, 2168]
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.attester.gpu.emulated import EmulatedH100, Forgery, attest
from weighbridge.attester.gpu.emulated_vendor import DeviceKeys, EmulatedVendor, Silicon
from weighbridge.proto.cc_state import ENVIRONMENT_SIMULATION, CcState
from weighbridge.proto.spdm.opaque import OpaqueType

if TYPE_CHECKING:
    from weighbridge.proto.spdm.evidence import GpuEvidence

__all__ = ["EmulatedFabric", "EmulatedSwitch"]

_SILICON: Final = Silicon(architecture="LS_10", processor="FSP")
_BLOCKS: Final = 31
_GPUS_MAX: Final = 8
_PORTS: Final = 64
_COUNTS: Final = 26
_HONEST: Final = Forgery()


@final
@dataclass(frozen=True, slots=True)
class EmulatedSwitch:
    """One switch; ``gpus`` are the PDIs of those it is wired to."""

    keys: DeviceKeys
    gpus: tuple[bytes, ...] = ()
    bios: str = "96.10.6D.00.01"

    @classmethod
    def make(cls, vendor: EmulatedVendor) -> Self:
        """A new switch, provisioned by ``vendor``, wired to nothing."""
        return cls(vendor.provision(fwid=hashlib.sha384(b"insecure-emulated switch").digest(), silicon=_SILICON))

    @property
    def identity(self) -> bytes:
        """SHA-256 of the BROM certificate's SubjectPublicKeyInfo."""
        return self.keys.identity

    def attest(self, nonce: bytes, *, forgery: Forgery = _HONEST) -> GpuEvidence:
        """A report over ``nonce``, signed, with the chain.

        Raises:
            ValueError: ``nonce`` has not 32 bytes.
        """
        blocks = {
            index: hashlib.sha384(f"insecure-emulated/{self.bios}/block {index}".encode()).digest()
            for index in range(1, _BLOCKS + 1)
        }
        # A place without a GPU repeats the last one, as a real switch does.
        named = (*self.gpus, *self.gpus[-1:] * (_GPUS_MAX - len(self.gpus)))
        ports = bytes(range(len(self.gpus))).ljust(_PORTS, b"\xff")
        entries: list[tuple[int, bytes]] = [
            (OpaqueType.VBIOS_VERSION, self.bios.encode()),
            (OpaqueType.SWITCH_PDI, self.keys.pdi),
            (OpaqueType.MSRSCNT, (1).to_bytes(4, "little") * _COUNTS),
            (OpaqueType.SWITCH_GPU_PDIS, b"".join(named).ljust(_GPUS_MAX * 8, b"\0") + ports),
            (OpaqueType.FLOORSWEPT_PORTS, b"\xec\x00"),
            (OpaqueType.POSITION_ID, b"\x02\x00"),
            (OpaqueType.LOCK_SWITCH_STATUS, b"\x01\x00"),
        ]
        return attest(self.keys, nonce, blocks, entries, forgery=forgery)


@final
class EmulatedFabric:
    """A :class:`~weighbridge.attester.gpu.interface.GpuSource` of GPUs and switches, each GPU wired to every switch."""

    def __init__(
        self,
        vendors: tuple[EmulatedVendor, EmulatedVendor],
        gpus: tuple[EmulatedH100, ...],
        switches: tuple[EmulatedSwitch, ...],
    ) -> None:
        self.vendors = vendors
        self.gpus = tuple(replace(gpu, switches=tuple(switch.keys.pdi for switch in switches)) for gpu in gpus)
        self.switches = tuple(replace(switch, gpus=tuple(gpu.keys.pdi for gpu in gpus)) for switch in switches)

    @classmethod
    def create(cls, *, gpus: int = 8, switches: int = 4) -> Self:
        """New devices of two new vendors, kept nowhere.

        Raises:
            ValueError: more than 8 GPUs, which is what a switch can name, or none of either.
        """
        if not 1 <= gpus <= _GPUS_MAX or switches < 1:
            raise ValueError(f"1 to {_GPUS_MAX} GPUs and at least one switch")
        vendors = EmulatedVendor.create(), EmulatedVendor.create(architecture="LS_10")
        return cls(
            vendors,
            tuple(EmulatedH100.make(vendors[0]) for _ in range(gpus)),
            tuple(EmulatedSwitch.make(vendors[1]) for _ in range(switches)),
        )

    def identities(self) -> tuple[bytes, ...]:
        """See :meth:`GpuSource.identities`."""
        gpus, switches = (gpu.identity for gpu in self.gpus), (switch.identity for switch in self.switches)
        return tuple(sorted([*gpus, *switches]))

    def attest(self, nonce: bytes) -> list[GpuEvidence]:
        """See :meth:`GpuSource.attest`."""
        return [*(gpu.attest(nonce) for gpu in self.gpus), *(switch.attest(nonce) for switch in self.switches)]

    def cc_state(self) -> CcState:
        """See :meth:`GpuSource.cc_state`."""
        return CcState(environment=ENVIRONMENT_SIMULATION, feature="on", dev_tools=False, multi_gpu="protected_pcie")

    def close(self) -> None:
        """See :meth:`GpuSource.close`: nothing to let go of."""
