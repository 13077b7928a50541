"""Emulated H100s: NVIDIA's layout byte for byte, real signatures, identities that stay."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.rims import JUNE, anchors_of
from gpu_support import NONCE, Certificate, vector_report, wheel_chain, wheel_report
from weighbridge.attester.gpu import GpuSource
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100, Firmware, Forgery
from weighbridge.attester.gpu.emulated_vendor import PLATFORM, EmulatedVendor
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.spdm import report
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.gpu.rim import verify_rim

RSA = Certificate("RSA", key=rsa.generate_private_key(65537, 2048))


def test_report_has_nvidias_layout(nvidia_wheel: Path, vectors_dir: Path) -> None:
    """Header, blocks and their places as in NVIDIA's sample; opaque entries as a 580-series driver writes them."""
    sample = report.parse(wheel_report(nvidia_wheel))
    device = EmulatedH100.make(EmulatedVendor.create())
    ours = report.parse(device.attest(NONCE).report)
    assert ours.signed[:45] == sample.signed[:45]
    for mine, theirs in zip(ours.blocks, sample.blocks, strict=True):
        assert (mine.index, mine.type, len(mine.value)) == (theirs.index, theirs.type, len(theirs.value))
    newer = report.parse(vector_report(vectors_dir, "attsdk-testdata/hopperAttestationReport.txt"))
    assert [any(block.value) for block in ours.blocks] == [any(block.value) for block in newer.blocks]
    sizes = [
        [(field.name, len(field.value)) for field in item.opaque.fields if field.type != OpaqueType.DRIVER_VERSION]
        for item in (ours, newer)
    ]
    assert sizes[0] == sizes[1]
    assert (ours.chip, ours.driver_version, ours.vbios_version) == ("GH100", "580.95.05", "96.00.74.00.1A")


def test_chain_has_nvidias_shape_and_nobody_elses_name(nvidia_wheel: Path) -> None:
    device = EmulatedH100.make(EmulatedVendor.create())
    ours, theirs = (
        [x509.load_der_x509_certificate(der) for der in chain]
        for chain in (device.keys.chain, wheel_chain(nvidia_wheel))
    )
    wanted = {"2.5.29.15", "2.5.29.14", "2.5.29.35", "2.5.29.17", "2.23.133.5.4.1", "2.5.29.19"}
    for mine, other in zip(ours, theirs, strict=True):
        shapes = [
            {
                (item.oid.dotted_string, item.critical)
                for item in certificate.extensions
                if item.oid.dotted_string in wanted
            }
            for certificate in (mine, other)
        ]
        assert shapes[0] == shapes[1]
        assert mine.signature_algorithm_oid == other.signature_algorithm_oid
        assert PLATFORM in mine.subject.rfc4514_string()
        assert "O=NVIDIA" not in mine.subject.rfc4514_string()
    oid = x509.ObjectIdentifier("2.23.133.5.4.1")
    values = [chain[0].extensions.get_extension_for_oid(oid).value.public_bytes() for chain in (ours, theirs)]
    assert [len(value) for value in values] == [189, 189]
    assert values[0][:30] == values[1][:30]


def test_firmware_decides_measurements() -> None:
    vendor = EmulatedVendor.create()
    same = [report.parse(EmulatedH100.make(vendor).attest(NONCE).report) for _ in range(2)]
    other = EmulatedH100.make(vendor, firmware=Firmware(driver="570.124.03"))
    assert same[0].measurements_digest == same[1].measurements_digest
    assert report.parse(other.attest(NONCE).report).measurements_digest != same[0].measurements_digest


def test_reports_are_fresh() -> None:
    device = EmulatedH100.make(EmulatedVendor.create())
    first, second = (report.parse(device.attest(NONCE).report) for _ in range(2))
    assert first.responder_nonce != second.responder_nonce
    assert first.signature != second.signature


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_nonce_length_is_the_callers_business(nonce: bytes) -> None:
    source: GpuSource = EmulatedGpus.create(1)
    with pytest.raises(ValueError, match="32 bytes"):
        source.attest(nonce)


@pytest.mark.parametrize("count", [0, 9])
def test_one_to_eight_devices(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        EmulatedGpus.create(count)


def test_source_answers_for_every_device() -> None:
    source: GpuSource = EmulatedGpus.create(3)
    evidence = source.attest(NONCE)
    assert len(set(source.identities())) == 3
    assert list(source.identities()) == sorted(item.claimed_identity for item in evidence)
    source.close()


def test_devices_keep_their_identity(tmp_path: Path) -> None:
    """A78: a new process on the same host is the same silicon."""
    first = EmulatedGpus.open(tmp_path / "gpus", 2)
    again = EmulatedGpus.open(tmp_path / "gpus", 3)
    assert set(first.identities()) < set(again.identities())
    assert again.vendor.root_certificate == first.vendor.root_certificate
    assert again.vendor.rim_root_certificate == first.vendor.rim_root_certificate
    assert again.devices[0].keys.fwid == first.devices[0].keys.fwid
    for path in (tmp_path / "gpus").iterdir():
        secret = not path.is_dir() and b"PRIVATE KEY" in path.read_bytes()
        assert secret == (path.name in {"vendor.pem", "gpu-0.pem", "gpu-1.pem", "gpu-2.pem"})
        assert not secret or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_the_vendor_publishes_lies_beside_the_devices(tmp_path: Path) -> None:
    """What a verifier is to be given; made again where somebody has removed it, and else left alone."""
    source = EmulatedGpus.open(tmp_path, 1)
    roots = [x509.load_pem_x509_certificate((tmp_path / f"{name}-root.pem").read_bytes()) for name in ("device", "rim")]
    assert [root.public_bytes(Encoding.DER) for root in roots] == list(roots_of(source.vendor))
    files = {path.name: path.read_bytes() for path in (tmp_path / "rims").iterdir()}
    assert set(files) == {"driver-580.95.05.xml", "vbios-96.00.74.00.1A.xml"}
    believed = anchors_of(source.vendor)
    said = [verify_rim(data, anchors=believed, at=JUNE) for data in files.values()]
    assert {rim.platform for rim in said} == {PLATFORM}
    EmulatedGpus.open(tmp_path, 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "rims").iterdir()} == files
    (tmp_path / "rims" / "driver-580.95.05.xml").unlink()
    EmulatedGpus.open(tmp_path, 1)
    again = (tmp_path / "rims" / "driver-580.95.05.xml").read_bytes()
    assert verify_rim(again, anchors=believed, at=JUNE).kind == "driver"


def roots_of(vendor: EmulatedVendor) -> tuple[bytes, bytes]:
    return vendor.root_certificate, vendor.rim_root_certificate


@pytest.mark.parametrize("name", ["vendor.pem", "gpu-0.pem"])
@pytest.mark.parametrize("damage", ["empty", "no key", "other key", "no certificate", "RSA"])
def test_saved_state_that_is_damaged(tmp_path: Path, name: str, damage: str) -> None:
    EmulatedGpus.open(tmp_path, 1)
    data = (tmp_path / name).read_bytes()
    start = data.index(b"-----BEGIN PRIVATE")
    other = EmulatedVendor.create().to_pem()
    damaged = {
        "empty": b"",
        "no key": data[:start],
        "other key": data[:start] + other[other.index(b"-----BEGIN PRIVATE") :],
        "no certificate": data[start:],
        "RSA": RSA.issue(RSA).public_bytes(Encoding.PEM) + data[start:],
    }
    (tmp_path / name).write_bytes(damaged[damage])
    with pytest.raises(EnvironmentFault) as caught:
        EmulatedGpus.open(tmp_path, 1)
    assert (caught.value.code, bool(caught.value.hint)) == (Code.STATE_CORRUPT, True)


def test_forgeries_do_what_they_say() -> None:
    device = EmulatedH100.make(EmulatedVendor.create())
    forgery = Forgery(
        nonce=bytes(32),
        measurements={2: b"\xff" * 48},
        opaque={OpaqueType.PROJECT: None, OpaqueType.NVDEC0_STATUS: b"\xaa"},
        signature=bytes(96),
        trailing=b"tail",
    )
    parsed = report.parse(device.attest(NONCE, forgery=forgery).report)
    assert (parsed.nonce, parsed.blocks[1].value) == (bytes(32), b"\xff" * 48)
    assert (parsed.project, parsed.nvdec0) == (None, "enabled")
    assert (parsed.signature, parsed.trailing) == (bytes(96), b"tail")
