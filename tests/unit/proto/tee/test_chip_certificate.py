"""AMD's certificates of chips, whose serial number is zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.forged_snp import PRODUCTS, ForgedSnp, der_integer, rsa_key
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee import chip_certificate
from weighbridge.proto.x509 import load_certificate

FORGED = ForgedSnp.create("Genoa")
HONEST = FORGED.vcek()


def refused(forged: ForgedSnp) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        chip_certificate.parse(forged.vcek(), "vcek")
    return caught.value.code


@pytest.mark.parametrize("product", PRODUCTS)
def test_products(product: str) -> None:
    forged = ForgedSnp.create(product)
    found = chip_certificate.parse(forged.vcek(), "vcek")
    assert (found.product, found.line) == (product, PRODUCTS[product][1])
    assert (found.tcb.raw, found.chip_id) == (forged.tcb, forged.chip_id)
    assert found.key.public_numbers() == forged.key.public_key().public_numbers()


def test_a_serial_number_of_zero_is_read_here_alone() -> None:
    """What was signed says zero; what is read says one, and is never verified."""
    assert HONEST[4:].startswith(chip_certificate.parse(HONEST, "vcek").signed)
    assert chip_certificate.parse(HONEST, "vcek").certificate.serial_number == 1
    with pytest.raises(MalformedEvidence) as caught:
        load_certificate(HONEST, "vcek")
    assert caught.value.code is Code.CERT_MALFORMED


def test_another_serial_number() -> None:
    found = chip_certificate.parse(replace(FORGED, serial=7).vcek(), "vcek")
    assert found.certificate.serial_number == 7
    assert found.signed == found.certificate.tbs_certificate_bytes


def test_a_chip_number_as_octet_string() -> None:
    wrapped = FORGED.with_extensions(**{"4": b"\x04\x40" + FORGED.chip_id})
    assert chip_certificate.parse(wrapped.vcek(), "vcek").chip_id == FORGED.chip_id


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("1", None),
        ("1", der_integer(1)),
        ("2", None),
        ("2", b"\x16\x05Genoa!"),
        ("2", b"\x0c\x05Genoa"),
        ("2", b"\x16\x04Rome"),
        ("2", b""),
        ("3.1", None),
        ("3.1", b"\x02\x01\x80"),
        ("3.1", b"\x02\x02\x00\x01"),
        ("3.1", b"\x02\x02\x01\x00"),
        ("3.1", b"\x02\x01\x01\x00"),
        ("3.1", b"\x04\x01\x01"),
        ("3.1", b""),
        ("3.8", None),
        ("4", None),
        ("4", b""),
        ("4", bytes(63)),
        ("4", b"\x04\x40" + bytes(63)),
        ("4", b"\x03\x40" + bytes(64)),
    ],
)
def test_extensions(number: str, value: bytes | None) -> None:
    assert refused(FORGED.with_extensions(**{number: value})) is Code.CERT_MALFORMED


@pytest.mark.parametrize("key", [rsa_key("ark"), ec.generate_private_key(ec.SECP256R1())], ids=["rsa", "p256"])
def test_another_key(key: ec.EllipticCurvePrivateKey) -> None:
    assert refused(replace(FORGED, key=key)) is Code.KEY_UNSUPPORTED


def test_an_authority_is_no_chip() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        chip_certificate.parse(FORGED.ask.der, "vcek")
    assert caught.value.code is Code.KEY_UNSUPPORTED


CODES = {Code.CERT_MALFORMED, Code.KEY_MALFORMED, Code.KEY_UNSUPPORTED, Code.TOO_LARGE}


@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        chip_certificate.parse(data, "vcek")
    assert caught.value.code in CODES


@given(st.dictionaries(st.integers(0, len(HONEST) - 1), st.integers(0, 255), min_size=1, max_size=4))
def test_any_bytes_changed(changes: dict[int, int]) -> None:
    data = bytearray(HONEST)
    for place, value in changes.items():
        data[place] = value
    try:
        found = chip_certificate.parse(bytes(data), "vcek")
    except MalformedEvidence as error:
        assert error.code in CODES  # noqa: PT017 - many changes leave a certificate that can be read
    else:
        assert isinstance(found.certificate, x509.Certificate)
        assert found.signed in bytes(data)
