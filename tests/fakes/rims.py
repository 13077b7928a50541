"""Reference manifests of an emulated vendor, good ones and one of each way to be wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from weighbridge.attester.gpu.emulated_rims import Manifest, RimSigner, Validity, gpu_manifests
from weighbridge.attester.gpu.emulated_vendor import PLATFORM
from weighbridge.verifier import anchors, certs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.attester.gpu.emulated import Firmware
    from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
ZERO = bytes(48)


def anchors_of(*vendors: EmulatedVendor) -> anchors.TrustAnchors:
    """The default anchors, and both roots of these vendors."""
    return anchors.default().with_anchors(
        anchors.Anchor.from_certificate(purpose, certs.load_certificate(der, "root"), platform=PLATFORM, source="test")
        for vendor in vendors
        for purpose, der in roots(vendor)
    )


def roots(vendor: EmulatedVendor) -> Iterable[tuple[anchors.Purpose, bytes]]:
    """What a vendor's roots vouch for, and they themselves."""
    yield "nvidia-device-root", vendor.root_certificate
    yield "nvidia-rim-root", vendor.rim_root_certificate


def issued(moment: datetime, *, days: int = 730) -> Validity:
    """Two years from ``moment``, as NVIDIA's signers live."""
    return Validity(moment, moment + timedelta(days=days))


def expired(vendor: EmulatedVendor, firmware: Firmware, *, at: datetime) -> tuple[bytes, bytes]:
    """A20: manifests whose signers' certificates ended the day before ``at``."""
    return vendor.rims(firmware, validity=Validity(at - timedelta(days=700), at - timedelta(days=1)))


def edited(rim: bytes) -> bytes:
    """A21: a hash changed after it was signed."""
    digit = rim.index(b'ns2:Hash0="', rim.index(b'active="True"')) + len(b'ns2:Hash0="')
    return rim[:digit] + (b"1" if rim[digit : digit + 1] != b"1" else b"2") + rim[digit + 1 :]


def resigned(rim: bytes) -> bytes:
    """A21: another signature's bytes in place of the signature's."""
    start = rim.index(b"<ds:SignatureValue>") + len(b"<ds:SignatureValue>")
    return rim[:start] + (b"A" if rim[start : start + 1] != b"A" else b"B") + rim[start + 1 :]


def of_stranger(firmware: Firmware) -> tuple[bytes, ...]:
    """A21: everything right, under a root that nobody believes."""
    signer = RimSigner.create()
    return tuple(signer.issue(manifest) for manifest in gpu_manifests(firmware))


def of_version(vendor: EmulatedVendor, firmware: Firmware, *, driver: str) -> bytes:
    """A21: the driver's measurements, in a manifest of another version."""
    manifest, _ = gpu_manifests(firmware)
    return vendor.rim_signer.issue(replace(manifest, version=driver))


def with_hash(manifest: Manifest, index: int, *hashes: bytes) -> Manifest:
    """``manifest`` with other hashes at an index: A19 where they are wrong, A81 where that was right before."""
    return replace(manifest, active={**manifest.active, index: hashes})
