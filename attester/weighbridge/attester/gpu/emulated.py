"""Emulated H100s: they sign SPDM 1.1 measurement reports byte for byte in NVIDIA's layout, under a root of their own.

64 measurement blocks of 51 bytes, the opaque entries of a 580-series driver in its order, 96 bytes of signature. What
they report is made up, but constant for a given firmware, as on real devices; every signature is real. Their platform
is ``insecure-emulated``, which the default anchors do not know and production policies refuse.

>>> source = EmulatedGpus.create(2)
>>> [len(item.report) for item in source.attest(bytes(range(32)))]
[4129, 4129]
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester import durable
from weighbridge.attester.gpu.emulated_vendor import DeviceKeys, EmulatedVendor, Silicon
from weighbridge.proto import limits
from weighbridge.proto.cc_state import ENVIRONMENT_SIMULATION, CcState
from weighbridge.proto.spdm import opaque
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.spdm.opaque import OpaqueFormat, OpaqueType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from weighbridge.attester.gpu.emulated_rims import Validity

__all__ = ["DEVICES_MAX", "EmulatedGpus", "EmulatedH100", "Firmware", "Forgery", "attest"]

DEVICES_MAX: Final = 8
_BLOCKS: Final = 64
_SAVED_MAX: Final = 64 * 1024
_PUBLIC: Final = 0o644
# Blocks that are zero in reports of real H100s, counted from 1 as in SPDM.
_ZERO_BLOCKS: Final = frozenset({1, 9, 11, *range(13, 22), 24, 25, 29, *range(43, 65)})
_EXTENDS: Final = {1: 1, 2: 4, 11: 130, 21: 2, 22: 2, 34: 2}
_CHIPS: Final = {"GH100": 0x180, "GB100": 0x1A0}
_LINKS: Final = 18
# What the newer opaque format calls a value: DMTF's value types, as a driver of CUDA 13.5 has them.
_HARDWARE: Final = 0x82
_VALUE_TYPES: Final[dict[int, int]] = {
    OpaqueType.VBIOS_VERSION: 0x86,
    OpaqueType.DRIVER_VERSION: 0x86,
    OpaqueType.MSRSCNT: 0x84,
    OpaqueType.CPRINFO: 0x83,
    OpaqueType.FWID: 0x01,
    OpaqueType.PROTECTED_PCIE_STATUS: 0x85,
    OpaqueType.OPAQUE_DATA_VERSION: 0x86,
    OpaqueType.FEATURE_FLAG: 0x85,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """What a device runs. Two devices with equal firmware report equal measurements."""

    driver: str = "580.95.05"
    vbios: str = "96.00.74.00.1A"
    project: str = "G520"
    project_sku: str = "0200"
    chip_sku: str = "885"
    opaque_format: OpaqueFormat = "tlv"

    @property
    def fwid(self) -> bytes:
        """The made-up digest of the firmware that derives the attestation key, 48 bytes."""
        return self._digest("fwid")

    def measurement(self, index: int) -> bytes:
        """The made-up digest in block ``index`` (from 1), 48 bytes; zero where real devices report zero."""
        return bytes(48) if index in _ZERO_BLOCKS else self._digest(f"block {index}")

    def _digest(self, what: str) -> bytes:
        text = f"insecure-emulated/{self.driver}/{self.vbios}/{self.project}/{self.project_sku}/{what}"
        return hashlib.sha384(text.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """What a device is made to do wrong: for tests and for the demonstration's attacks.

    Attributes:
        nonce: signed instead of the one asked for.
        measurements: block index (from 1) to the 48 bytes reported instead.
        opaque: opaque type to the value reported instead, or as well; ``None`` leaves the entry out.
        signature: sent instead of the real one, 96 bytes.
        flip: positions in the finished report of which one bit is flipped.
        trailing: appended after the signature.
    """

    nonce: bytes | None = None
    measurements: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    opaque: Mapping[int, bytes | None] = field(default_factory=dict[int, bytes | None])
    signature: bytes | None = None
    flip: tuple[int, ...] = ()
    trailing: bytes = b""


_HONEST: Final = Forgery()
# NVML has a word for what this is.
_SIMULATED: Final = CcState(environment=ENVIRONMENT_SIMULATION, feature="on", dev_tools=False, multi_gpu="none")


@final
@dataclass(frozen=True, slots=True)
class EmulatedH100:
    """One device: its keys, what it runs, and what its certificates say it is.

    ``switches`` are the PDIs of those it is wired to; with any it says that it is in protected-PCIe mode.
    """

    keys: DeviceKeys
    firmware: Firmware = field(default_factory=Firmware)
    silicon: Silicon = field(default_factory=Silicon)
    switches: tuple[bytes, ...] = ()

    @classmethod
    def make(cls, vendor: EmulatedVendor, *, firmware: Firmware | None = None, silicon: Silicon | None = None) -> Self:
        """A new device, provisioned by ``vendor``, with an identity of its own."""
        firmware, silicon = firmware or Firmware(), silicon or Silicon()
        return cls(vendor.provision(fwid=firmware.fwid, silicon=silicon), firmware, silicon)

    @property
    def identity(self) -> bytes:
        """SHA-256 of the BROM certificate's SubjectPublicKeyInfo."""
        return self.keys.identity

    def attest(self, nonce: bytes, *, forgery: Forgery = _HONEST) -> GpuEvidence:
        """A report over ``nonce``, signed, with the chain.

        Raises:
            ValueError: ``nonce`` has not 32 bytes.
        """
        blocks = {index: self.firmware.measurement(index) for index in range(1, _BLOCKS + 1)}
        return attest(
            self.keys, nonce, blocks, self._entries(), forgery=forgery, opaque_format=self.firmware.opaque_format
        )

    def _entries(self) -> list[tuple[int, bytes]]:
        """The opaque entries in the order, the sizes and the padding of a 580-series driver."""
        firmware = self.firmware
        counts = b"".join(
            _EXTENDS.get(index, 0 if index + 1 in _ZERO_BLOCKS else 1).to_bytes(4, "little") for index in range(_BLOCKS)
        )
        return [
            (OpaqueType.VBIOS_VERSION, _vbios(firmware.vbios)),
            (OpaqueType.BOARD_ID, b"\xb1\x03\x00\x00"),
            (OpaqueType.CHIP_SKU, firmware.chip_sku.encode().ljust(9, b"\0")),
            (OpaqueType.CHIP_SKU_MOD, b"0".ljust(5, b"\0")),
            (OpaqueType.PROJECT, firmware.project.encode().ljust(5, b"\0")),
            (OpaqueType.PROJECT_SKU, firmware.project_sku.encode().ljust(5, b"\0")),
            (OpaqueType.PROJECT_SKU_MOD, bytes(2)),
            (OpaqueType.DRIVER_VERSION, firmware.driver.encode() + b"\0"),
            (OpaqueType.GPU_INFO, _CHIPS.get(self.silicon.architecture, 0).to_bytes(8, "little")),
            (OpaqueType.MSRSCNT, counts),
            (OpaqueType.CPRINFO, b"\x00\xc0\x01\x00"),
            (OpaqueType.NVDEC0_STATUS, b"\x55"),
            (OpaqueType.FWID, self.keys.fwid),
            (OpaqueType.PROTECTED_PCIE_STATUS, b"\xaa" if self.switches else b"\x55"),
            *([(OpaqueType.SWITCH_PDI, self._links())] if self.switches else []),
            (OpaqueType.OPAQUE_DATA_VERSION, b"\x01\x00"),
            (OpaqueType.FEATURE_FLAG, b"\x02\x00" if self.switches else b"\x00\x00"),
        ]

    def _links(self) -> bytes:
        """The switch at the other end of each link, in reversed byte order, as real devices report it."""
        return b"".join(self.switches[link % len(self.switches)][::-1] for link in range(_LINKS))


@final
class EmulatedGpus:
    """A :class:`~weighbridge.attester.gpu.interface.GpuSource` of 1 to 8 emulated devices of one vendor.

    ``cc`` is what their host says of confidential computing: on, in a simulation. Tests change it.
    """

    def __init__(self, vendor: EmulatedVendor, devices: Sequence[EmulatedH100]) -> None:
        if not 1 <= len(devices) <= DEVICES_MAX:
            raise ValueError(f"1 to {DEVICES_MAX} devices")
        self.vendor = vendor
        self.devices = tuple(devices)
        self.cc: CcState | None = _SIMULATED

    @classmethod
    def create(cls, count: int) -> Self:
        """A new vendor and ``count`` new devices, kept nowhere."""
        vendor = EmulatedVendor.create()
        return cls(vendor, [EmulatedH100.make(vendor) for _ in range(count)])

    @classmethod
    def open(cls, directory: Path, count: int) -> Self:
        """The devices saved in ``directory``; a vendor and devices that are not there yet are made and saved.

        A device keeps its identity from one run to the next, as silicon does: a session that failed with it is
        remembered against it. The directory holds private keys (mode 0600), and beside them what the vendor publishes,
        for whoever runs a verifier: ``device-root.pem``, ``rim-root.pem``, and the devices' manifests in ``rims``.

        Raises:
            EnvironmentFault: ``STATE_CORRUPT``, ``FILE_UNREADABLE``, ``FILE_UNWRITABLE`` or ``DISK_FULL``.
        """
        durable.make_directory(directory)
        path = directory / "vendor.pem"
        if path.exists():
            vendor = EmulatedVendor.from_pem(durable.read_file(path, limit=_SAVED_MAX, what=path.name))
        else:
            vendor = EmulatedVendor.create()
            durable.write_file(path, vendor.to_pem())
        devices: list[EmulatedH100] = []
        for number in range(count):
            path = directory / f"gpu-{number}.pem"
            if path.exists():
                devices.append(
                    EmulatedH100(DeviceKeys.from_pem(durable.read_file(path, limit=_SAVED_MAX, what=path.name)))
                )
            else:
                devices.append(EmulatedH100.make(vendor))
                durable.write_file(path, devices[-1].keys.to_pem())
        opened = cls(vendor, devices)
        opened._publish(directory)
        return opened

    def _publish(self, directory: Path) -> None:
        """Write what is not there yet of what a vendor's site would have."""
        durable.make_directory(directory / "rims")
        roots = (("device-root.pem", self.vendor.root_certificate), ("rim-root.pem", self.vendor.rim_root_certificate))
        for name, der in roots:
            if not (directory / name).exists():
                pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
                durable.write_file(directory / name, pem, mode=_PUBLIC)
        for firmware in dict.fromkeys(device.firmware for device in self.devices):
            names = f"driver-{firmware.driver}.xml", f"vbios-{firmware.vbios}.xml"
            paths = [directory / "rims" / name for name in names]
            if all(path.exists() for path in paths):
                continue
            for path, rim in zip(paths, self.vendor.rims(firmware), strict=True):
                durable.write_file(path, rim, mode=_PUBLIC)

    def rims(self, *, validity: Validity | None = None) -> tuple[bytes, ...]:
        """Reference manifests that the devices match, newly issued by their vendor: two for each firmware."""
        running = {(device.firmware, device.silicon.architecture): None for device in self.devices}
        return tuple(
            rim
            for firmware, product in running
            for rim in self.vendor.rims(firmware, product=product, validity=validity)
        )

    def identities(self) -> tuple[bytes, ...]:
        """See :meth:`GpuSource.identities`."""
        return tuple(sorted(device.identity for device in self.devices))

    def attest(self, nonce: bytes) -> list[GpuEvidence]:
        """See :meth:`GpuSource.attest`."""
        return [device.attest(nonce) for device in self.devices]

    def cc_state(self) -> CcState | None:
        """See :meth:`GpuSource.cc_state`."""
        return self.cc

    def close(self) -> None:
        """See :meth:`GpuSource.close`: nothing to let go of."""


def attest(
    keys: DeviceKeys,
    nonce: bytes,
    blocks: Mapping[int, bytes],
    entries: Sequence[tuple[int, bytes]],
    *,
    forgery: Forgery = _HONEST,
    opaque_format: OpaqueFormat = "tlv",
) -> GpuEvidence:
    """A report of ``blocks`` (by index, from 1) and opaque ``entries`` over ``nonce``, signed, with the chain.

    Raises:
        ValueError: ``nonce`` has not 32 bytes.
    """
    if len(nonce) != limits.NONCE_SIZE:
        raise ValueError("an SPDM nonce has 32 bytes")
    record = b"".join(_block(index, forgery.measurements.get(index, digest)) for index, digest in blocks.items())
    told = {**dict(entries), **forgery.opaque}
    kept = [(kind, value) for kind, value in told.items() if value is not None]
    if opaque_format == "tlv":
        data = opaque.encode_tlv(kept)
    else:
        data = opaque.encode_nvdaod([(kind, _VALUE_TYPES.get(kind, _HARDWARE), value) for kind, value in kept])
    request = bytes([0x11, 0xE0, 0x01, 0xFF]) + (forgery.nonce or nonce) + bytes([0x00])
    response = bytes([0x11, 0x60, 0x00, 0x00, len(blocks)]) + len(record).to_bytes(3, "little") + record
    signed = request + response + secrets.token_bytes(32) + len(data).to_bytes(2, "little") + data
    r, s = decode_dss_signature(keys.key.sign(signed, ec.ECDSA(hashes.SHA384())))
    signature = r.to_bytes(48) + s.to_bytes(48) if forgery.signature is None else forgery.signature
    report = bytearray(signed + signature + forgery.trailing)
    for position in forgery.flip:
        report[position] ^= 1
    return GpuEvidence(bytes(report), keys.chain)


def _block(index: int, digest: bytes) -> bytes:
    size = len(digest)
    return bytes([index, 0x01]) + (size + 3).to_bytes(2, "little") + b"\x01" + size.to_bytes(2, "little") + digest


def _vbios(version: str) -> bytes:
    """The two words of ``96.00.74.00.1A``: the last byte comes first in the second word."""
    first, second, third, fourth, last = (int(part, 16) for part in version.split("."))  # lenient: our own constant
    return bytes([fourth, third, second, first, last, 0, 0, 0])
