"""What a piece is, told by its content alone; and what is refused."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fakes import forged_snp, forged_tdx
from fakes.nras import NOON, EmulatedNras
from fakes.ocsp_responder import AT, DAY, HOUR, Order, RevocableVendor, refusal, respond, revocation_list
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto import limits
from weighbridge.proto.collateral import CollateralItem
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.collateral import Description, describe, recognise
from weighbridge.verifier.collateral.describe import FILE_MAX

if TYPE_CHECKING:
    from pathlib import Path

VENDOR = RevocableVendor.create()
DEVICE = EmulatedH100.make(VENDOR.vendor)
CHIP = x509.load_der_x509_certificate(DEVICE.keys.chain[1])
RIM, _ = VENDOR.vendor.rims(DEVICE.firmware)
OCSP = respond(CHIP, VENDOR.provisioner)
CRL = revocation_list(VENDOR.provisioner, {7: None})
SNP = forged_snp.ForgedSnp.create("Genoa")
DCAP = forged_tdx.ForgedTdx.create().collateral()
JWKS = EmulatedNras().jwks()


def one(data: bytes) -> Description:
    (found,) = recognise(data, where="file")
    return found


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        recognise(data, where="file")
    return caught.value.code


def test_a_manifest() -> None:
    found = one(RIM)
    assert (found.kind, found.subject) == ("rim", f"GH100 driver {DEVICE.firmware.driver}")
    assert found.says.endswith("measurements")
    assert found.item.data == RIM
    # As NVIDIA's service answers.
    answer = json.dumps({"id": "NV_GPU_DRIVER_GH100_1", "rim": base64.b64encode(RIM).decode(), "sha256": "…"})
    assert one(answer.encode()) == found


@pytest.mark.parametrize(
    ("status", "revokes"), [("good", False), ("unknown", False), ("hold", True), ("revoked", True)]
)
def test_a_response(status: str, revokes: bool) -> None:
    found = one(respond(CHIP, VENDOR.provisioner, Order(status=status)))
    assert (found.kind, found.says, found.revokes) == ("ocsp", status, revokes)
    assert found.subject.startswith(f"serial {CHIP.serial_number:x} of key ")
    assert (found.issued, found.expires) == (AT - HOUR, AT + DAY)


def test_a_list() -> None:
    found = one(CRL)
    assert (found.kind, found.subject) == ("crl", "CN=insecure-emulated GH100 Provisioner ICA 1")
    assert (found.says, found.revokes, found.issued) == ("number 7, 1 revoked", True, AT - HOUR)
    pem = x509.load_der_x509_crl(CRL).public_bytes(Encoding.PEM)
    assert one(b"from the maker's page\n" + pem) == found


def test_amds_certificates() -> None:
    vcek, ask, ark = SNP.certificates
    chip = one(vcek)
    assert (chip.kind, chip.subject) == ("vcek", f"chip {SNP.chip_id.hex()[:16]} TCB {SNP.tcb.hex()}")
    assert chip.says.startswith("Genoa, bootloader=")
    pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (ask, ark))
    assert [each.subject for each in recognise(pem, where="cert_chain")] == ["SEV-Genoa", "ARK-Genoa"]
    assert one(SNP.crl()).subject == SNP.anchors().anchors[0].name


def test_intels_documents() -> None:
    found = one(DCAP)
    assert (found.kind, found.subject) == ("dcap", f"TDX FMSPC {forged_tdx.FMSPC.hex()}")
    assert found.says.startswith("evaluation ")
    assert found.expires is not None


def test_a_key_set() -> None:
    found = one(JWKS)
    assert (found.kind, found.subject, found.says) == ("jwks", "NVIDIA attestation service", "1 key")
    assert (found.issued, found.expires) == (NOON - HOUR, NOON + 47 * HOUR)


def test_its_document() -> None:
    document = one(OCSP).document()
    assert document["kind"] == "ocsp"
    assert document["issued"] == "2026-06-01T11:00:00Z"
    endless = one(respond(CHIP, VENDOR.provisioner, Order(next_update=None)))
    assert endless.document()["expires"] is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.COLLATERAL_INVALID),
        (b"\x30", Code.COLLATERAL_INVALID),
        (b"\x30\x03\x02\x01\x07", Code.COLLATERAL_INVALID),
        (b"PK\x03\x04", Code.COLLATERAL_INVALID),
        (b"{}", Code.COLLATERAL_INVALID),
        (b"[]", Code.COLLATERAL_INVALID),
        (b'{"keys": {}}', Code.COLLATERAL_INVALID),
        (b'{"rim": 7}', Code.COLLATERAL_INVALID),
        (b'{"rim": "!"}', Code.NOT_BASE64),
        (b'{"keys": []}', Code.NRAS_MALFORMED),
        (b"[" * 5000, Code.TOO_DEEP),
        (b"{", Code.NOT_JSON),
        (b"<html/>", Code.RIM_MALFORMED),
        (b"<a>" * 5000, Code.TOO_LARGE),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', Code.RIM_MALFORMED),
        (RIM[:-1], Code.RIM_MALFORMED),
        (refusal(), Code.OCSP_INVALID),
        (OCSP + b"\0", Code.OCSP_INVALID),
        (CRL[:-1], Code.CRL_INVALID),
        # A certificate that no evidence needs: everybody brings its own.
        (DEVICE.keys.chain[1], Code.COLLATERAL_INVALID),
        (x509.load_der_x509_crl(CRL).public_bytes(Encoding.PEM) * 17, Code.COLLATERAL_INVALID),
        (b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n", Code.NOT_BASE64),
        (b"<" + bytes(FILE_MAX), Code.TOO_LARGE),
        (b"\x30\x0a\x0a" + bytes(limits.COLLATERAL_ITEM_MAX), Code.TOO_LARGE),
        (json.dumps({**json.loads(DCAP), "tcb_info": 7}).encode(), Code.COLLATERAL_INVALID),
        (json.dumps({**json.loads(DCAP), "tcb_info": "[]"}).encode(), Code.COLLATERAL_INVALID),
        (json.dumps({**json.loads(DCAP), "root_ca_crl": "AA"}).encode(), Code.NOT_HEX),
    ],
    ids=lambda value: value.value if isinstance(value, Code) else "data",
)
def test_what_is_no_collateral(data: bytes, code: Code) -> None:
    assert refused(data) is code


def test_a_key_set_without_keys_that_count() -> None:
    assert refused(b'{"keys": [{"kty": "RSA", "kid": "a"}]}') is Code.COLLATERAL_INVALID


@given(
    st.binary(max_size=300), st.sampled_from((b"", b"<", b"{", b"[", b"\x30\x82\x01\x00", b"-----BEGIN X509 CRL-----"))
)
def test_any_bytes(data: bytes, head: bytes) -> None:
    with suppress(MalformedEvidence):
        recognise(head + data, where="file")


@given(
    st.sampled_from((RIM, OCSP, CRL, DCAP, JWKS, SNP.certificates[0])),
    st.integers(min_value=0),
    st.binary(min_size=1, max_size=4),
)
def test_any_damage(piece: bytes, place: int, other: bytes) -> None:
    place %= len(piece)
    with suppress(MalformedEvidence):
        recognise(piece[:place] + other + piece[place + 1 :], where="file")


def test_taken_for_another_kind() -> None:
    with pytest.raises(MalformedEvidence):
        describe(CollateralItem("dcap", b"[]"), where="item")
    with pytest.raises(MalformedEvidence):
        describe(CollateralItem("crl", OCSP), where="item")


def test_nvidias_own_manifests(vectors_dir: Path) -> None:
    """Both genuine issues of one manifest have one subject, and the order of their dates."""
    folder = vectors_dir / "nvidia" / "nvtrust-lgv"
    found = [one(path.read_bytes()) for path in sorted(folder.glob("*.swidtag"))]
    issues = [each for each in found if each.subject == "GH100 vbios 96.00.5E.00.01"]
    assert len(issues) == 2
    assert issues[0].issued != issues[1].issued
