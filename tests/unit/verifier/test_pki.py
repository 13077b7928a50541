"""The channel's certificates: who may open a stream. No verdict rests on them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.soft_tpm import derive_key
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier import pki

if TYPE_CHECKING:
    from pathlib import Path

AT: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEY: Final = derive_key("a host's channel key")


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    pki.create_authority(tmp_path, name="ledger.example/test", at=AT)
    return tmp_path


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY, *, name: str = "a host") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName("verifier.example")])
    authority = x509.BasicConstraints(ca=True, path_length=None)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(names, critical=False).add_extension(authority, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def refusal(directory: Path, data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        pki.issue_client(directory, data, at=AT)
    return caught.value.code


def test_an_authority_signs_end_entities_only(authority: Path) -> None:
    certificate = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    certificate.verify_directly_issued_by(certificate)
    assert (authority / "ca-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_client_is_admitted_for_its_key_and_nothing_that_it_asked_for(authority: Path) -> None:
    issued = pki.issue_client(authority, request(name="the verifier itself"), at=AT)
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes()))
    assert issued.public_key() == KEY.public_key()
    assert "the verifier itself" not in issued.subject.rfc4514_string()
    extensions = issued.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["attester.invalid"]
    assert issued.not_valid_before_utc < AT < issued.not_valid_after_utc < AT + timedelta(days=826)


def test_a_server_is_named_by_its_hosts(authority: Path) -> None:
    pki.issue_server(authority, hosts=("verifier.example", "192.0.2.1", "::1"), at=AT)
    certificate = x509.load_pem_x509_certificate((authority / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["verifier.example"]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("192.0.2.1"), IPv6Address("::1")]
    assert (authority / "server-key.pem").stat().st_mode & 0o777 == 0o600


def test_requests_that_are_none(authority: Path) -> None:
    assert refusal(authority, b"") is Code.CERT_MALFORMED
    assert refusal(authority, bytes(17 * 1024)) is Code.TOO_LARGE
    assert refusal(authority, (authority / "ca.pem").read_bytes()) is Code.CERT_MALFORMED


def test_a_request_that_another_key_signed(authority: Path) -> None:
    """Whoever asks for somebody else's key does not hold it."""
    parsed = x509.load_pem_x509_csr(request())
    der = bytearray(parsed.public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    assert refusal(authority, forged) is Code.CERT_MALFORMED


def test_keys_of_other_kinds(authority: Path) -> None:
    assert refusal(authority, request(derive_key("p384", ec.SECP384R1()))) is Code.KEY_UNSUPPORTED
    assert refusal(authority, request(rsa.generate_private_key(65537, 2048))) is Code.KEY_UNSUPPORTED


def test_no_flipped_bit_of_a_request_admits_another_key(authority: Path) -> None:
    """A signature has bits that mean nothing (the padding of its BIT STRING); a key that is admitted has none."""
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)
    text = b"-----BEGIN CERTIFICATE REQUEST-----\n%b-----END CERTIFICATE REQUEST-----\n"
    for place in range(len(der)):
        flipped = bytearray(der)
        flipped[place] ^= 1
        try:
            issued = pki.issue_client(authority, text % base64.encodebytes(bytes(flipped)), at=AT)
        except MalformedEvidence:
            continue
        assert issued.public_key() == KEY.public_key()


@given(st.binary(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes_are_no_request(authority: Path, data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        pki.issue_client(authority, data, at=AT)


def test_an_authority_whose_key_was_exchanged_is_ours_no_more(authority: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (authority / "ca-key.pem").write_bytes(pem)
    with pytest.raises(RuntimeError, match="not the one"):
        pki.issue_client(authority, request(), at=AT)
