"""From a hardware report to the attestation key of a virtual TPM, both kinds of hardware."""

from __future__ import annotations

import copy
import hashlib
import pickle
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fakes.forged_snp import AT, ForgedSnp, hcl_claims, hcl_frame, rsa_key
from fakes.forged_tdx import ForgedTdx
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.endorsement import VtpmReportEndorsement
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.anchors import TrustAnchors, default
from weighbridge.verifier.tee.vtpm import VerifiedVtpm, verify_vtpm

AK = rsa_key("ak").public_key()
SNP = ForgedSnp.create("Genoa")
TDX = ForgedTdx.create()
CLAIMS = hcl_claims(AK)
BOUND = hashlib.sha256(CLAIMS).digest() + bytes(32)
HONEST_SNP = SNP.endorsement(AK)
HONEST_TDX = VtpmReportEndorsement(report=hcl_frame(4, bytes(1024), CLAIMS), quote=TDX.quote(BOUND), certificates=())
COLLATERAL = Collateral.of(CollateralItem("crl", SNP.crl()), CollateralItem("dcap", TDX.collateral()))


def verify(
    endorsement: VtpmReportEndorsement, *, collateral: Collateral = COLLATERAL, anchors: TrustAnchors | None = None
) -> VerifiedVtpm:
    trusted = SNP.anchors().with_anchors(TDX.anchors().anchors) if anchors is None else anchors
    return verify_vtpm(endorsement, collateral=collateral, anchors=trusted, at=AT)


def refused(endorsement: VtpmReportEndorsement, kind: type[WeighbridgeError] = NotAuthentic) -> Code:
    with pytest.raises(kind) as caught:
        verify(endorsement)
    return caught.value.code


@pytest.mark.parametrize(("endorsement", "kind"), [(HONEST_SNP, "sev-snp"), (HONEST_TDX, "tdx")])
def test_accepted(endorsement: VtpmReportEndorsement, kind: str) -> None:
    vtpm = verify(endorsement)
    assert vtpm.ak_spki == AK.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert (vtpm.tee.kind, vtpm.tee.report_data, vtpm.tee.revocation) == (kind, BOUND, "good")
    assert vtpm.tee.anchor.platform == "insecure-emulated"
    assert vtpm.configuration.secure_boot
    assert "word" in vtpm.unproven


@pytest.mark.parametrize("endorsement", [HONEST_SNP, HONEST_TDX])
def test_the_shipped_anchors_believe_no_forged_hardware(endorsement: VtpmReportEndorsement) -> None:
    with pytest.raises(NotAuthentic) as caught:
        verify(endorsement, anchors=default())
    assert caught.value.code is Code.CHAIN_UNTRUSTED


@pytest.mark.parametrize("endorsement", [HONEST_SNP, HONEST_TDX])
def test_edited_claims(endorsement: VtpmReportEndorsement) -> None:
    """A42: another key, another configuration, or the same said otherwise."""
    number = 2 if endorsement is HONEST_SNP else 4
    hardware = endorsement.report[32:1216]
    other = rsa_key("another ak").public_key()
    for claims in (hcl_claims(other), hcl_claims(AK, **{"vm-configuration": {}}), CLAIMS + b" "):
        assert refused(replace(endorsement, report=hcl_frame(number, hardware, claims))) is Code.HCL_BINDING


def test_the_rest_of_the_report_data() -> None:
    claims = hashlib.sha256(CLAIMS).digest()
    for tail in (b"\x01" + bytes(31), bytes(31) + b"\x01"):
        assert refused(SNP.endorsement(AK, report_data=claims + tail)) is Code.HCL_BINDING
        assert refused(replace(HONEST_TDX, quote=TDX.quote(claims + tail))) is Code.HCL_BINDING


def test_another_machines_quote() -> None:
    other = hcl_claims(rsa_key("another ak").public_key())
    quote = TDX.quote(hashlib.sha256(other).digest() + bytes(32))
    assert refused(replace(HONEST_TDX, quote=quote)) is Code.HCL_BINDING


def test_a_td_report_is_no_proof() -> None:
    """What lies in the report's slot on TDX is not verifiable by others: without a quote nothing is shown."""
    assert refused(replace(HONEST_TDX, quote=None), MalformedEvidence) is Code.EVIDENCE_ABSENT


def test_hardware_of_the_other_kind() -> None:
    assert refused(replace(HONEST_SNP, quote=HONEST_TDX.quote), MalformedEvidence) is Code.EVIDENCE_UNEXPECTED
    certified = replace(HONEST_TDX, certificates=HONEST_SNP.certificates)
    assert refused(certified, MalformedEvidence) is Code.EVIDENCE_UNEXPECTED
    # The kind is unauthenticated framing: relabelled, the other proof is wanted.
    relabelled = hcl_frame(4, HONEST_SNP.report[32:1216], CLAIMS)
    assert refused(replace(HONEST_SNP, report=relabelled), MalformedEvidence) is Code.EVIDENCE_ABSENT
    relabelled = hcl_frame(2, HONEST_TDX.report[32:1216], CLAIMS)
    alone = replace(HONEST_TDX, report=relabelled, quote=None)
    assert refused(alone, MalformedEvidence) is Code.SNP_REPORT


def test_codes_of_the_hardware_come_through() -> None:
    assert refused(SNP.endorsement(AK, vmpl=2)) is Code.SNP_VMPL
    assert refused(SNP.endorsement(AK, policy=0xB001F)) is Code.SNP_POLICY
    with pytest.raises(Indeterminate) as caught:
        verify(HONEST_TDX, collateral=Collateral())
    assert caught.value.code is Code.TDX_COLLATERAL


def test_revocation() -> None:
    assert verify(HONEST_SNP, collateral=Collateral()).tee.revocation == "absent"
    with pytest.raises(NotAuthentic) as caught:
        verify(HONEST_SNP, collateral=Collateral.of(CollateralItem("crl", SNP.crl(revoked=True))))
    assert caught.value.code is Code.CERT_REVOKED


def test_the_seal() -> None:
    vtpm = verify(HONEST_SNP)
    for way in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            way(vtpm)
    with pytest.raises(TypeError):
        replace(vtpm, seal=object())
