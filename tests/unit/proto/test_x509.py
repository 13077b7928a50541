"""One certificate, parsed whole or refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import Certificate, chain_of, der, wheel_chain
from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.x509 import common_name, load_certificate, public_key, spki_der, subject_key_identifier

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
