"""SEV-SNP reports under a forged maker whose signatures are real: what is accepted, and each way to be refused."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.forged_snp import AT, MEASUREMENT, PRODUCTS, ForgedSnp, ReportChanges
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.tee import VerifiedTee
from weighbridge.verifier.tee.snp import verify_snp

FORGED = ForgedSnp.create("Genoa")


def verify(forged: ForgedSnp = FORGED, report: bytes | None = None) -> VerifiedTee:
    return verify_snp(
        forged.report() if report is None else report,
        forged.certificates,
        crls=(forged.crl(),),
        anchors=forged.anchors(),
        at=AT,
    )


def refused(forged: ForgedSnp = FORGED, report: bytes | None = None) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        verify(forged, report)
    return caught.value.code


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("product", PRODUCTS)
def test_accepted(product: str, version: int) -> None:
    forged = ForgedSnp.create(product)
    tee = verify(forged, forged.report(version=version, report_data=b"d" * 64))
    assert (tee.kind, tee.anchor.platform, tee.product) == ("sev-snp", "insecure-emulated", product)
    assert (tee.report_data, tee.measurement) == (b"d" * 64, MEASUREMENT)
    assert (tee.tcb_status, tee.advisories, tee.revocation) == ("matches", (), "good")
    assert (tee.smt, tee.vmpl) == (True, 0)
    assert tee.alias_check is (None if version == 2 else True)


def test_tcb_in_words() -> None:
    assert verify().tcb == "bootloader=10 tee=0 snp=23 microcode=84"
    turin = ForgedSnp.create("Turin")
    assert verify(turin).tcb == "fmc=1 bootloader=2 tee=3 snp=4 microcode=75"


def test_the_anchor_names_the_platform() -> None:
    forged = ForgedSnp.create("Genoa", platform="amd-sev-snp")
    assert verify(forged).anchor.platform == "amd-sev-snp"


@pytest.mark.parametrize(
    ("platform_info", "smt", "alias"), [(0x00, False, False), (0x01, True, False), (0x20, False, True)]
)
def test_what_a_policy_may_refuse(platform_info: int, smt: bool, alias: bool) -> None:
    """A39, and the rule on hyper-threads of A35: the report says it, the author of the policy decides."""
    tee = verify(report=FORGED.report(platform_info=platform_info))
    assert (tee.smt, tee.alias_check) == (smt, alias)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        # A35
        ({"policy": 0x3001F | 1 << 19}, Code.SNP_POLICY),
        ({"policy": 0x3001F | 1 << 18}, Code.SNP_POLICY),
        # A36
        ({"vmpl": 1}, Code.SNP_VMPL),
        ({"vmpl": 3}, Code.SNP_VMPL),
        ({"vmpl": 0xFFFFFFFF}, Code.SNP_VMPL),
        # A37
        ({"chip_id": b"x" * 64}, Code.SNP_CHIP),
        ({"chip_id": bytes(64)}, Code.SNP_CHIP),
        ({"cpu": (0x19, 0x01)}, Code.SNP_CHIP),
        ({"cpu": (0x1A, 0x11)}, Code.SNP_CHIP),
        ({"cpu": (0x19, 0x20)}, Code.SNP_CHIP),
        ({"reported_tcb": bytes((9, 0, 0, 0, 0, 0, 23, 84))}, Code.SNP_TCB),
        ({"reported_tcb": bytes((10, 0, 1, 0, 0, 0, 23, 84))}, Code.SNP_TCB),
        ({"committed_tcb": bytes((9, 0, 0, 0, 0, 0, 23, 84))}, Code.SNP_TCB),
        ({"current_tcb": bytes((10, 0, 0, 0, 0, 0, 22, 84))}, Code.SNP_TCB),
        ({"current_tcb": bytes(8), "committed_tcb": bytes(8)}, Code.SNP_TCB),
        # keys that are not the chip's
        ({"key_flags": 1 << 2}, Code.SNP_CHIP),
        ({"key_flags": 7 << 2}, Code.SNP_SIG),
        ({"key_flags": 2}, Code.SNP_SIG),
    ],
)
def test_refused(changes: ReportChanges, code: Code) -> None:
    assert refused(report=FORGED.report(**changes)) is code


def test_firmware_newer_than_the_committed() -> None:
    """Of the real ones too, one runs a microcode that is not committed yet."""
    assert verify(report=FORGED.report(current_tcb=bytes((10, 0, 0, 0, 0, 0, 23, 90)))).tcb_status == "matches"


def test_author_key() -> None:
    assert verify(report=FORGED.report(key_flags=1)).kind == "sev-snp"


def test_another_chips_key() -> None:
    """A37: the certificate is good, and of another chip."""
    other = replace(FORGED, key=ec.generate_private_key(ec.SECP384R1()))
    assert refused(other, FORGED.report()) is Code.SNP_SIG


def test_the_certificate_of_another_tcb() -> None:
    """A37: the same chip, its key for an older firmware. Here the key is the same; of a real chip it is another."""
    assert refused(FORGED.with_extensions(**{"3.8": b"\x02\x01\x53"}), FORGED.report()) is Code.SNP_TCB


def test_the_certificate_of_another_chip_with_the_same_key() -> None:
    assert refused(FORGED.with_extensions(**{"4": b"x" * 64}), FORGED.report()) is Code.SNP_CHIP


@pytest.mark.parametrize("offset", [0x08, 0x0A, 0x50, 0x90])
def test_edited(offset: int) -> None:
    """A38: report data, policy and measurement after signing."""
    data = bytearray(FORGED.report())
    data[offset] ^= 1
    assert refused(report=bytes(data)) is Code.SNP_SIG


def test_every_byte_counts() -> None:
    report = FORGED.report()
    certificates, anchors = FORGED.certificates, FORGED.anchors()
    codes: set[Code] = set()
    for place in range(len(report)):
        data = bytearray(report)
        data[place] ^= 1 << place % 8
        with pytest.raises(WeighbridgeError) as caught:
            verify_snp(bytes(data), certificates, crls=(), anchors=anchors, at=AT)
        codes.add(caught.value.code)
    assert codes == {Code.SNP_REPORT, Code.SNP_SIG}


def test_numbers_of_the_signature_out_of_range() -> None:
    report = FORGED.report()
    for start in (0x2A0, 0x2E8):
        for value in (bytes(72), b"\xff" * 72):
            assert refused(report=report[:start] + value + report[start + 72 :]) is Code.SNP_SIG


def test_a_report_that_is_none() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        verify(report=b"")
    assert caught.value.code is Code.SNP_REPORT


def test_the_seal() -> None:
    tee = verify()
    for way in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            way(tee)
    with pytest.raises(TypeError):
        replace(tee, seal=object())
