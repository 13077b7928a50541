"""Evidence recorded from real TPMs and other projects' test data: parsed and verified byte for byte.

Most of it is by RSA keys.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from weighbridge.attester.tpm.nv import trim_certificate
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import attest, public, signature
from weighbridge.proto.tpm.attest import CertifyInfo, QuoteInfo
from weighbridge.proto.tpm.constants import HashAlgorithm, ObjectAttributes
from weighbridge.proto.tpm.pcr import pcr_digest
from weighbridge.proto.tpm.public import Public
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS, attestation_key_template
from weighbridge.proto.tpm.wire import sized
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tpm.ak import check_attributes
from weighbridge.verifier.tpm.ek import verify_ek

AT = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def tpm_dir(vectors_dir: Path) -> Path:
    return vectors_dir / "tpm"


def protobuf(data: bytes) -> list[tuple[int, bytes | int]]:
    """The fields of a protocol buffer: enough of the format to read our own test data."""
    fields: list[tuple[int, bytes | int]] = []
    place = 0

    def varint() -> int:
        nonlocal place
        result = shift = 0
        while True:
            byte = data[place]
            place += 1
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result

    while place < len(data):
        key = varint()
        if key & 7 == 0:
            fields.append((key >> 3, varint()))
        else:
            size = varint()
            fields.append((key >> 3, data[place : place + size]))
            place += size
    return fields


def octets(value: bytes | int) -> bytes:
    assert isinstance(value, bytes)
    return value


def test_keylime(tpm_dir: Path) -> None:
    """A quote by the IBM software TPM, its AK with the Name that the TPM computed, and an endorsement key."""
    files = tpm_dir / "keylime" / "files"
    ak = public.parse((files / "ak.pub").read_bytes()[2:])
    assert ak.name == (files / "ak.name").read_bytes()
    raw = (files / "quote.out").read_bytes()
    signature.verify(signature.parse((files / "quotesig.out").read_bytes()), ak, raw)
    parsed = attest.parse(raw)
    assert isinstance(parsed.attested, QuoteInfo)
    assert parsed.attested.selection.one_bank() == (HashAlgorithm.SHA256, (15, 16, 22))
    assert len(parsed.extra_data) == 20
    ek = public.parse((files / "ek.pub").read_bytes()[2:])
    assert ek.raw.startswith(ENDORSEMENT_KEYS[1].parameters())


@pytest.mark.parametrize("name", ["gce-cos-85-no-nonce", "gce-cos-85-nonce9009"])
def test_google_compute_engine(tpm_dir: Path, name: str) -> None:
    """Three quotes each of a cloud's vTPM. That over the SHA-1 bank is authentic, and refused all the same (A47)."""
    fields = protobuf((tpm_dir / "go-tpm-tools" / "attestations" / f"{name}.pb").read_bytes())
    ak = public.parse(octets(next(value for key, value in fields if key == 1)))
    quotes = [protobuf(octets(value)) for key, value in fields if key == 2]
    assert len(quotes) == 3
    banks: list[HashAlgorithm | Code] = []
    for quote in quotes:
        raw, signed, pcrs = (octets(value) for _, value in quote)
        signature.verify(signature.parse(signed), ak, raw)
        info = attest.parse(raw).attested
        assert isinstance(info, QuoteInfo)
        entries = [dict(protobuf(octets(value))) for key, value in protobuf(pcrs) if key == 2]
        values = {int(entry.get(1, 0)): octets(entry[2]) for entry in entries}
        assert pcr_digest(HashAlgorithm.SHA256, [values[n] for n in info.selection.banks[0].indices]) == info.digest
        try:
            banks.append(info.selection.one_bank()[0])
        except MalformedEvidence as error:
            banks.append(error.code)
    assert banks == [Code.TPM_PCR_SELECTION, HashAlgorithm.SHA256, HashAlgorithm.SHA384]
    check_attributes(ak)
    assert ak.signing_algorithm().name == "rsassa-2048-sha256"


def p256(pem: bytes) -> Public:
    """The public area that an AK of ours with this key would have."""
    key = load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = key.public_numbers()
    return public.parse(attestation_key_template()[:-4] + sized(numbers.x.to_bytes(32)) + sized(numbers.y.to_bytes(32)))


def test_veraison_parsec(tpm_dir: Path) -> None:
    """By a P-256 key of another hierarchy than the endorsement's: its counts mean nothing."""
    folder = tpm_dir / "veraison"
    anchors = json.loads((folder / "comid-parsec-tpm-ta.json").read_text())
    (key,) = anchors["triples"]["attester-verification-keys"][0]["verification-keys"]
    ak = p256(key["value"].encode())
    evidence = cbor2.loads((folder / "evidence.cbor").read_bytes())
    certification, quote = evidence["kat"], evidence["pat"]
    signature.verify(signature.parse(certification["sig"]), ak, certification["certInfo"])
    signature.verify(signature.parse(quote["sig"]), ak, quote["attestInfo"])
    info = attest.parse(certification["certInfo"]).attested
    certified = public.parse(certification["pubArea"])
    assert isinstance(info, CertifyInfo)
    assert info.name == certified.name
    assert certified.attributes & ObjectAttributes.USER_WITH_AUTH
    state = attest.parse(quote["attestInfo"]).clock_info
    assert state.reset_count > 100_000_000, "obfuscated: TPM 2.0 Part 1 §36.7"
    with pytest.raises(NotAuthentic) as caught:
        signature.verify(signature.parse(quote["sig"]), ak, certification["certInfo"])
    assert caught.value.code is Code.TPM_SIGNATURE


def test_trustee(tpm_dir: Path) -> None:
    """A quote by an emulator, signed with RSA; the key comes without its public area."""
    recorded = json.loads((tpm_dir / "trustee" / "tpm_evidence.json").read_text())
    raw = base64.b64decode(recorded["tpm_quote"]["message"])
    info = attest.parse(raw).attested
    assert isinstance(info, QuoteInfo)
    values = [bytes.fromhex(value) for value in recorded["tpm_quote"]["pcrs"]]
    assert pcr_digest(HashAlgorithm.SHA256, values) == info.digest
    signed = signature.parse(base64.b64decode(recorded["tpm_quote"]["signature"]))
    key = load_der_public_key(base64.b64decode(recorded["ak_public"]))
    assert isinstance(key, rsa.RSAPublicKey)
    assert isinstance(signed.value, signature.RsaSignature)
    key.verify(signed.value.value, raw, padding.PKCS1v15(), SHA256())


def binary(value: object) -> bytes:
    """Bytes as some write them to JSON: a list of numbers, or hexadecimal."""
    return bytes.fromhex(value) if isinstance(value, str) else bytes(cast("list[int]", value))


@pytest.mark.parametrize("platform", ["az-snp-vtpm/evidence-v2.json", "az-tdx-vtpm"])
def test_azure(tpm_dir: Path, platform: str) -> None:
    """A confidential VM's vTPM: the values are the quoted ones. Its signature is bare, its AK vouched for elsewhere."""
    path = tpm_dir / "trustee" / platform
    recorded = json.loads((min(path.glob("evidence*.json")) if path.is_dir() else path).read_text())
    quote = recorded.get("quote") or recorded["tpm_quote"]
    raw, *values = (binary(item) for item in (quote["message"], *quote["pcrs"]))
    info = attest.parse(raw).attested
    assert isinstance(info, QuoteInfo)
    assert pcr_digest(HashAlgorithm.SHA256, values) == info.digest


def test_a_real_endorsement_certificate(tpm_dir: Path) -> None:
    """STMicroelectronics: as read from NV, padded; chained to the vendor's published root."""
    padded = (tpm_dir / "keylime" / "real-ek-certs" / "st_sha256_with_rsa_der.der").read_bytes()
    certificate = trim_certificate(padded)
    assert len(certificate) < len(padded)
    leaf = x509.load_der_x509_certificate(certificate)
    key = leaf.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    ek = public.parse(ENDORSEMENT_KEYS[1].parameters() + sized(key.public_numbers().n.to_bytes(256)))
    issuers = [
        found
        for folder in (tpm_dir / "keylime" / "tpm_cert_store").glob("*.pem")
        for found in certificates(folder)
        if found.subject == leaf.issuer
    ]
    anchor = Anchor.from_certificate("tpm-ek-intermediate", issuers[0], platform="tpm", source="the vendor's CA")
    verified = verify_ek(ek, certificate, (), TrustAnchors((anchor,)), at=AT)
    assert (verified.template.name, verified.platform) == ("L-1", "tpm")
    with pytest.raises(MalformedEvidence) as caught:
        verify_ek(ek, padded, (), TrustAnchors((anchor,)), at=AT)
    assert caught.value.code is Code.CERT_MALFORMED


def certificates(path: Path) -> list[x509.Certificate]:
    """Those that parse: some vendors' do not."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        return []
