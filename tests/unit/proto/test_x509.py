"""One certificate, parsed whole or refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import Certificate, chain_of, der, wheel_chain
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.x509 import (
    claimed_maker,
    common_name,
    load_certificate,
    public_key,
    spki_der,
    subject_key_identifier,
)

GOOD = der(chain_of(Certificate("leaf", ca=None, signs=False), Certificate("root")))[0]


def refusal(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        load_certificate(data, "certificate")
    return caught.value.code


def test_nvidias_certificates(nvidia_wheel: Path) -> None:
    loaded = [load_certificate(item, "certificate") for item in wheel_chain(nvidia_wheel)]
    assert [common_name(item.subject, "x") for item in loaded] == [
        "GH100 A01 GSP FMC LF",
        "GH100 A01 GSP BROM",
        "NVIDIA GH100 Provisioner ICA 1",
        "NVIDIA GH100 Identity",
        "NVIDIA Device Identity CA",
    ]
    assert sha256(spki_der(loaded[1])).hex().startswith("0456ef11")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.CERT_MALFORMED),
        (GOOD[:-1], Code.CERT_MALFORMED),
        (GOOD + b"\0", Code.CERT_MALFORMED),
        (GOOD.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1), Code.CERT_MALFORMED),  # version 2
        (bytes(limits.CERT_MAX + 1), Code.TOO_LARGE),
        (GOOD.replace(b"\x06\x05\x2b\x81\x04\x00\x22", b"\x06\x05\x2b\x81\x04\x00\x7f"), Code.KEY_UNSUPPORTED),
    ],
)
def test_refused(data: bytes, code: Code) -> None:
    """A28, A70."""
    assert refusal(data) == code


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_serial_number_is_positive() -> None:
    """RFC 5280 §4.1.2.2. The library only warns of it."""
    assert load_certificate(_with_serial(b"\x02\x01\x01"), "certificate").serial_number == 1
    assert refusal(_with_serial(b"\x02\x01\x00")) == Code.CERT_MALFORMED


@pytest.mark.parametrize("unused", range(8))
def test_signature_is_of_whole_octets(unused: int) -> None:
    """The library takes any count of unused bits where these are zero: one certificate could be spelt in eight ways."""
    good = _with_serial(b"\x02\x01\x01")
    size = len(load_certificate(good, "certificate").signature)
    spelt = good[: -size - 1] + bytes([unused]) + good[-size:-1] + b"\0"
    if unused:
        assert refusal(spelt) == Code.CERT_MALFORMED
    else:
        assert load_certificate(spelt, "certificate").serial_number == 1


def test_serial_number_is_positive_where_warnings_are_errors() -> None:
    assert refusal(_with_serial(b"\x02\x01\x00")) == Code.CERT_MALFORMED


def test_key_that_is_no_point() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = chain_of(Certificate("leaf", key=key), Certificate("root"))[0]
    point = spki_der(certificate)[-96:]
    assert refusal(certificate.public_bytes(Encoding.DER).replace(point, b"\xff" * 96)) == Code.KEY_MALFORMED


def test_repeated_extension() -> None:
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"")
    order = Certificate("leaf", extensions=((value, False), (other, False)))
    data = chain_of(order, Certificate("root"))[0].public_bytes(Encoding.DER)
    assert refusal(data.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")) == Code.CERT_MALFORMED


def test_one_common_name() -> None:
    for names in ((), ("a", "b")):
        certificate = chain_of(Certificate("leaf", common_names=names), Certificate("root"))[0]
        with pytest.raises(MalformedEvidence):
            common_name(certificate.subject, "subject")


def test_subject_key_identifier_where_there_is_one() -> None:
    order = Certificate("leaf")
    named = x509.SubjectKeyIdentifier.from_public_key(order.key.public_key())
    with_one = chain_of(Certificate("leaf", key=order.key, extensions=((named, False),)), Certificate("root"))[0]
    assert subject_key_identifier(with_one) == named.digest
    assert subject_key_identifier(load_certificate(GOOD, "x")) is None


def test_public_key_of_a_good_certificate() -> None:
    assert isinstance(public_key(load_certificate(GOOD, "x"), "x"), ec.EllipticCurvePublicKey)


@given(st.binary(max_size=64))
def test_any_bytes_are_parsed_or_malformed(data: bytes) -> None:
    refusal(data)


@given(st.dictionaries(st.integers(0, len(GOOD) - 1), st.integers(0, 255), min_size=1, max_size=3))
def test_any_change_is_parsed_or_malformed(changes: dict[int, int]) -> None:
    data = bytearray(GOOD)
    for offset, value in changes.items():
        data[offset] = value
    with contextlib.suppress(MalformedEvidence):
        spki_der(load_certificate(bytes(data), "certificate"))


def test_a_name_longer_than_x520_allows_is_read_without_a_word() -> None:
    """Google's authorities have such names. The library warns of them, and warnings are errors here."""
    with pytest.warns(UserWarning, match="length"):
        attribute = x509.NameAttribute(x509.NameOID.COMMON_NAME, "y" * 79, _validate=False)
    long = x509.RelativeDistinguishedName([attribute])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(x509.Name([long])).issuer_name(x509.Name([long]))
    builder = builder.public_key(key.public_key()).serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    made = builder.not_valid_after(datetime(2030, 1, 1, tzinfo=UTC)).sign(key, hashes.SHA256())
    loaded = load_certificate(made.public_bytes(Encoding.DER), "x")
    assert loaded.issuer.rfc4514_string() == "CN=" + "y" * 79


def _malformed(data: bytes) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        load_certificate(data, "ek.certificate")
    return caught.value


def _made_by(organisation: str = "Maker & Sons", *, together: bool = False) -> bytes:
    """An RSA certificate whose names have an organisation beside, or ``together`` with, the common name."""
    key = rsa.generate_private_key(65537, 2048)
    parts = [
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organisation),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA 7"),
    ]
    name = x509.Name([x509.RelativeDistinguishedName(parts)] if together else parts)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2030, 1, 1, tzinfo=UTC))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


MADE = _made_by()


def test_the_maker_is_the_organisation_else_the_common_name_else_nobody() -> None:
    assert claimed_maker(MADE) == "Maker & Sons"
    assert claimed_maker(GOOD) == "root", "the issuer comes first"
    assert claimed_maker(b"") == ""
    assert claimed_maker(b"\x06\x03\x55\x04\x0a\x0c\x7fcut") == "cut"
    assert claimed_maker(_made_by("x\x1b[2J" + "y" * 57)) == "x[2J" + "y" * 57


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        (b"\0" * 300, "ek.certificate, which names 'Maker & Sons', is followed by 300 bytes of padding"),
        (b"\xff", "ek.certificate, which names 'Maker & Sons', is followed by 1 bytes of padding"),
        (b"\0\xff", "ek.certificate, which names 'Maker & Sons', is followed by 2 bytes"),
    ],
)
def test_a_padded_certificate_is_refused_with_its_maker_and_what_to_do(padding: bytes, message: str) -> None:
    error = _malformed(MADE + padding)
    assert (error.code, error.message) == (Code.CERT_MALFORMED, message)
    assert ("padding" in error.hint) is message.endswith("padding")


def test_a_short_certificate_with_padding() -> None:
    """Its length has one byte. Nobody's key fits into that, so that it is malformed twice; the padding comes first."""
    assert _malformed(b"\x30\x81\x80" + bytes(128) + b"\xff\xff").message == (
        "ek.certificate is followed by 2 bytes of padding"
    )


def test_a_name_out_of_order_is_not_der() -> None:
    """X.690 §10.3: a SET OF is sorted. Some makers' names have all attributes in one, in the order of writing."""
    organisation, common = (
        b"\x30\x13\x06\x03\x55\x04\x0a\x0c\x0cMaker & Sons",
        b"\x30\x0b\x06\x03\x55\x04\x03\x0c\x04CA 7",
    )
    sorted_set = _made_by(together=True)
    assert sorted_set.count(common + organisation) == 2
    load_certificate(sorted_set, "x")
    error = _malformed(sorted_set.replace(common + organisation, organisation + common))
    assert (error.code, error.clause) == (Code.CERT_MALFORMED, "X.690 §10.3")
    assert "Maker & Sons" in error.message
    assert "attestation-key" in error.hint


def test_a_key_for_oaep_only() -> None:
    """As older certificates of one maker have it: RFC 4055 §4.1."""
    rsa_encryption, oaep = (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01" + last for last in (b"\x01", b"\x07"))
    assert MADE.count(rsa_encryption) == 1
    error = _malformed(MADE.replace(rsa_encryption, oaep))
    assert error.code is Code.KEY_UNSUPPORTED
    assert "'Maker & Sons', has a key of an unsupported type: RSA for OAEP only" in error.message
    assert "attestation-key" in error.hint


def test_an_attribute_certificate_is_called_what_it_is() -> None:
    """RFC 5755 §4.1: AttributeCertificateInfo begins with INTEGER 1."""
    data = b"\x30\x82\x01\x00\x30\x82\x00\xf0\x02\x01\x01" + bytes(249)
    assert "attribute certificate" in _malformed(data).message


@given(st.binary(max_size=200))
def test_any_bytes_have_a_printable_maker_or_none(data: bytes) -> None:
    maker = claimed_maker(b"\x06\x03\x55\x04\x0a\x0c" + data)
    assert len(maker) <= 64
    assert maker == "" or maker.isprintable()


def _with_serial(serial: bytes) -> bytes:
    """A certificate with another serial number, lengths adjusted: SEQUENCE { SEQUENCE { [0] version, INTEGER …"""
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(300))
    (good, _) = der(chain_of(Certificate("leaf", extensions=((padding, False),)), Certificate("root")))
    assert good[1] == good[5] == 0x82
    outer, inner = good[:4], good[4:8]
    version, rest = good[8:13], good[13:]
    old = 2 + rest[1]
    shrink = old - len(serial)
    sizes = [int.from_bytes(head[2:4]) - shrink for head in (outer, inner)]
    heads = [b"\x30\x82" + size.to_bytes(2) for size in sizes]
    return heads[0] + heads[1] + version + serial + rest[old:]
