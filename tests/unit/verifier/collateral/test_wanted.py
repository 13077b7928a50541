"""What given evidence needs, and from where: addresses of makers, and of nobody else."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from fakes import forged_snp, forged_tdx
from fakes.nras import Answer, EmulatedNras
from fakes.ocsp_responder import AT, DAY, HOUR, Order, RevocableVendor, authority_usage, list_named, respond
from gpu_support import Certificate, vector_chain, vector_report
from weighbridge.attester.gpu.emulated import EmulatedH100
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.verifier import anchors
from weighbridge.verifier.collateral import recognise
from weighbridge.verifier.collateral.wanted import HOSTS, held, wanted_for, wanted_for_manifests, wanted_for_reports
from weighbridge.verifier.gpu import verify_chain, verify_report

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.verifier.collateral import Description
    from weighbridge.verifier.collateral.wanted import Wanted

VENDOR = RevocableVendor.create()
DEVICES = [EmulatedH100.make(VENDOR.vendor) for _ in range(2)]
EVIDENCE = [device.attest(bytes(range(32))) for device in DEVICES]


def document(*devices: GpuEvidence) -> bytes:
    """As NVIDIA's tools write it."""
    return json.dumps(
        [
            {
                "arch": "HOPPER",
                "nonce": bytes(range(32)).hex(),
                "evidence": base64.b64encode(device.report).decode(),
                "certificate": base64.b64encode(pem(device.chain)).decode(),
            }
            for device in devices
        ]
    ).encode()


def pem(chain: tuple[bytes, ...]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


def wanted(
    data: bytes, believed: anchors.TrustAnchors | None = None, *, chain: tuple[bytes, ...] | None = None
) -> tuple[Wanted, ...]:
    return wanted_for(data, anchors=believed or VENDOR.anchors, at=AT, chain=chain)


def test_devices() -> None:
    found = wanted(document(*EVIDENCE))
    firmware = DEVICES[0].firmware
    board = f"{firmware.project}_{firmware.project_sku}_{firmware.chip_sku}_{firmware.vbios.replace('.', '')}"
    names = f"NV_GPU_DRIVER_GH100_{firmware.driver}", f"NV_GPU_VBIOS_{board}".upper()
    assert [each.urls for each in found if each.kind == "rim"] == [
        (f"https://rim.attestation.nvidia.com/v1/rim/{name}",) for name in names
    ]
    # Two chips of their own, and what is above both, once.
    asked = [ocsp.load_der_ocsp_request(each.body or b"") for each in found if each.kind == "ocsp"]
    certificates = [x509.load_der_x509_certificate(der) for der in EVIDENCE[0].chain[1:4]]
    other = x509.load_der_x509_certificate(EVIDENCE[1].chain[1])
    assert [each.serial_number for each in asked] == [each.serial_number for each in (*certificates, other)]
    lists = [each for each in found if each.kind == "crl"]
    assert [each.urls for each in lists] == [
        ("https://crl.ndis.nvidia.com/crl/l2",),
        ("https://crl.ndis.nvidia.com/crl/l1",),
    ]
    assert all(each.optional for each in lists)


def test_one_report_with_its_chain() -> None:
    assert wanted(EVIDENCE[0].report, chain=EVIDENCE[0].chain) == wanted(document(EVIDENCE[0]))
    with pytest.raises(MalformedEvidence) as caught:
        wanted(EVIDENCE[0].report)
    assert "--chain" in caught.value.hint


def test_reports_that_are_verified_already() -> None:
    nonce = bytes(range(32))
    reports = [
        verify_report(spdm.parse(each.report), verify_chain(each.chain, VENDOR.anchors, at=AT), nonce=nonce)
        for each in EVIDENCE
    ]
    assert wanted_for_reports(reports) == wanted(document(*EVIDENCE))


def test_evidence_of_nobody_wants_nothing() -> None:
    with pytest.raises(NotAuthentic) as caught:
        wanted(document(EVIDENCE[0]), anchors.default())
    assert caught.value.code is Code.CHAIN_UNTRUSTED
    forged = GpuEvidence(EVIDENCE[0].report, EVIDENCE[1].chain)
    with pytest.raises(NotAuthentic) as caught:
        wanted(document(forged))
    assert caught.value.code is Code.GPU_SIG


def test_addresses_in_certificates_lead_nowhere_else() -> None:
    """Whoever could name an address in a certificate could make a verifier ask there."""
    urls = (
        "http://169.254.169.254/latest/meta-data",
        "https://crl.ndis.nvidia.com.example/l1.crl",
        "https://crl.ndis.nvidia.com@example/l1.crl",
        "https://crl.ndis.nvidia.com:8443/l1.crl",
        "file:///etc/passwd",
        "https://crl.ndis.nvidia.com/l1.crl?and=more",
        "https://crl.ndis.nvidia.com/good.crl",
    )
    usage = (x509.BasicConstraints(ca=True, path_length=None), True), (authority_usage(signs_lists=True), True)
    order = Certificate("GH100 Provisioner ICA 9", ca=None, signs=None, extensions=(*usage, list_named(*urls)))
    provisioner = VENDOR.identity.delegate(order)
    device = EmulatedH100.make(replace(VENDOR, provisioner=provisioner).vendor)
    found = wanted(document(device.attest(bytes(range(32)))))
    lists = [each.urls[0] for each in found if each.kind == "crl"]
    assert lists == ["https://crl.ndis.nvidia.com/good.crl", "https://crl.ndis.nvidia.com/crl/l1"]


def test_signers_of_manifests() -> None:
    pieces = [piece for rim in VENDOR.vendor.rims(DEVICES[0].firmware) for piece in recognise(rim, where="rim")]
    found = wanted_for_manifests([*pieces, *pieces])
    # Two signers; two authorities above both.
    assert [each.kind for each in found].count("ocsp") == 4
    assert wanted_for_manifests([]) == ()


def test_what_is_held() -> None:
    wish = next(each for each in wanted(document(EVIDENCE[0])) if each.kind == "ocsp")
    chip = x509.load_der_x509_certificate(EVIDENCE[0].chain[1])

    def pieces(*orders: Order) -> list[Description]:
        return [recognise(respond(chip, VENDOR.provisioner, order), where="ocsp")[0] for order in orders]

    current, older = Order(), Order(this_update=AT - DAY, next_update=AT + DAY)
    over, endless = Order(next_update=AT - HOUR / 2), Order(next_update=None)
    revoked = Order(status="revoked", next_update=None)
    for orders, expected in (
        ((), None),
        ((older, current), current),
        ((current, older), current),
        ((over,), None),
        ((endless,), None),
        ((Order(this_update=AT + HOUR),), None),
        ((revoked,), revoked),
    ):
        found = held(wish, pieces(*orders), AT)
        said = None if found is None else (found.says, found.issued)
        assert said == (None if expected is None else (expected.status, expected.this_update))


def test_an_amd_report() -> None:
    genoa = forged_snp.ForgedSnp.create("Genoa")
    found = wanted(genoa.report(), genoa.anchors())
    base = "https://kdsintf.amd.com/vcek/v1/Genoa"
    chip, authorities, listed = [each for each in found if "Genoa" in each.urls[0]]
    assert chip.urls[0].startswith(f"{base}/{genoa.chip_id.hex()}?blSPL=")
    assert (authorities.urls, listed.urls) == ((f"{base}/cert_chain",), (f"{base}/crl",))
    # What is published serves.
    (vcek,) = recognise(genoa.certificates[0], where="vcek")
    (crl,) = recognise(genoa.crl(), where="crl")
    assert (held(chip, [vcek, crl], AT), held(listed, [vcek, crl], AT)) == (vcek, crl)


def test_amd_reports_that_say_little() -> None:
    genoa = forged_snp.ForgedSnp.create("Genoa")
    with pytest.raises(MalformedEvidence) as caught:
        wanted(genoa.report(chip_id=bytes(64)), genoa.anchors())
    assert "hides which chip" in (caught.value.got or "")


def test_amd_reports_of_other_products() -> None:
    turin = forged_snp.ForgedSnp.create("Turin")
    chip = wanted(turin.report(), turin.anchors())[0]
    # A Turin's number is shorter, and its firmware has a part more.
    assert chip.urls[0].startswith(f"https://kdsintf.amd.com/vcek/v1/Turin/{turin.chip_id[:8].hex()}?fmcSPL=")
    # Version 2 does not say which processor it is of.
    old = wanted(turin.report(version=2), turin.anchors())
    assert [each.urls[0].split("/")[5] for each in old if each.subject.startswith("chip")] == ["Milan", "Genoa"]


def test_azures_report() -> None:
    genoa, ak = forged_snp.ForgedSnp.create("Genoa"), rsa.generate_private_key(65537, 2048).public_key()
    assert wanted(genoa.hcl_report(ak), genoa.anchors()) == wanted(genoa.report(), genoa.anchors())
    with pytest.raises(MalformedEvidence) as caught:
        wanted(forged_snp.hcl_frame(4, bytes(1184), forged_snp.hcl_claims(ak)))
    assert "TD quote" in caught.value.hint


def test_a_td_quote() -> None:
    maker = forged_tdx.ForgedTdx.create()
    (found,) = wanted(maker.quote(bytes(64)))
    assert (found.kind, found.subject) == ("dcap", f"TDX FMSPC {forged_tdx.FMSPC.hex()}")
    assert f"fmspc={forged_tdx.FMSPC.hex()}" in found.urls[0]
    assert "ca=platform" in found.urls[2]
    (piece,) = recognise(maker.collateral(), where="dcap")
    assert held(found, [piece], AT) == piece
    for extension in (None, b"\x30\x00"):
        pck = forged_tdx.certify("Intel SGX PCK Certificate", maker.authority, extension=extension)
        with pytest.raises(MalformedEvidence) as caught:
            wanted(maker.quote(bytes(64), chain=(pck, maker.authority, maker.root)))
        assert caught.value.code is Code.CERT_MALFORMED


def test_an_answer_of_the_attestation_service() -> None:
    service = EmulatedNras()
    (found,) = wanted(service.answer(Answer(nonce=bytes(32))))
    assert found.urls == ("https://nras.attestation.nvidia.com/.well-known/jwks.json",)
    (piece,) = recognise(service.jwks(), where="jwks")
    assert held(found, [piece], AT) == piece


@pytest.mark.parametrize("data", [b"", b"junk", b"[]", b'{"a": 1}', bytes(1184), b"HCLA", b"\x04\0junk", b'[["JWT"]]'])
def test_no_evidence(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        wanted(data)


def test_a_genuine_report(vectors_dir: Path) -> None:
    folder = "nvtrust-lgv"
    report = vector_report(vectors_dir, f"{folder}/hopperAttestationReport.txt")
    chain = vector_chain(vectors_dir, f"{folder}/hopperCertChain.txt")
    found = wanted(report, anchors.default(), chain=chain)
    assert [each.about for each in found if each.kind == "rim"] == [
        "NV_GPU_DRIVER_GH100_550.90.07",
        "NV_GPU_VBIOS_1010_0200_882_96009F0001",
    ]
    assert {url.split("/")[2] for each in found for url in each.urls} <= HOSTS
