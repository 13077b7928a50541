"""The firmware digest in a leaf certificate, in both shapes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gpu_support import Certificate, chain_of, vector_chain, wheel_chain
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier import certs
from weighbridge.verifier.gpu.fwid import certified_fwid

HOPPER = x509.ObjectIdentifier("2.23.133.5.4.1")
TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1.1")
OID = bytes.fromhex("0609608648016503040202")
DIGEST = bytes(range(48))
ROOT = Certificate("root")


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x81" + bytes([size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


PAIR = tlv(0x30, OID, tlv(0x04, DIGEST))


def leaf(*extensions: tuple[x509.ObjectIdentifier, bytes]) -> x509.Certificate:
    orders = tuple((x509.UnrecognizedExtension(oid, value), False) for oid, value in extensions)
    return chain_of(Certificate("leaf", extensions=orders), ROOT)[0]


def refusal(certificate: x509.Certificate) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        certified_fwid(certificate, where="leaf")
    return caught.value.code


def hopper(*elements: bytes) -> x509.Certificate:
    return leaf((HOPPER, tlv(0x30, *elements)))


def test_hopper(nvidia_wheel: Path) -> None:
    certificate = certs.load_certificate(wheel_chain(nvidia_wheel)[0], "leaf")
    assert (certified_fwid(certificate, where="leaf") or b"").hex().startswith("f5c384aebb579217")


def test_blackwell(vectors_dir: Path) -> None:
    chain = vector_chain(vectors_dir, "attsdk-testdata-sample_attestation_data-gpu/blackwellCertChain.txt")
    certificate = certs.load_certificate(chain[0], "leaf")
    assert (certified_fwid(certificate, where="leaf") or b"").hex().startswith("d090cab1b6e6ffdd")


def test_synthetic_shapes() -> None:
    assert certified_fwid(hopper(b"\x02\x01\x01", tlv(0x30, bytes(300)), PAIR), where="leaf") == DIGEST
    assert certified_fwid(leaf((TCB_INFO, tlv(0x30, tlv(0x80, b"x"), tlv(0xA6, PAIR, PAIR)))), where="leaf") == DIGEST


def test_leaf_without_one() -> None:
    assert certified_fwid(leaf(), where="leaf") is None


@pytest.mark.parametrize(
    "certificate",
    [
        leaf((HOPPER, tlv(0x30, b"\x02\x01\x01", tlv(0x30), PAIR)), (TCB_INFO, tlv(0x30, tlv(0xA6, PAIR)))),
        leaf((HOPPER, b"")),
        leaf((HOPPER, tlv(0x31, PAIR))),
        leaf((HOPPER, tlv(0x30, PAIR) + b"\x05\x00")),
        hopper(b"\x02\x01\x01", PAIR),
        hopper(b"\x02\x01\x01", tlv(0x30), tlv(0x31, OID, tlv(0x04, DIGEST))),
        hopper(b"\x02\x01\x01", tlv(0x30), tlv(0x30, OID, tlv(0x04, DIGEST[1:]))),
        hopper(b"\x02\x01\x01", tlv(0x30), tlv(0x30, OID[:-1] + b"\x01", tlv(0x04, DIGEST))),
        hopper(b"\x02\x01\x01", tlv(0x30), tlv(0x30, tlv(0x04, DIGEST), OID)),
        hopper(b"\x02\x01\x01", tlv(0x30), tlv(0x30, OID)),
        hopper(b"\x02"),
        hopper(b"\x02\x80\x01"),
        hopper(b"\x02\x83\x00\x00\x01\x01"),
        hopper(b"\x02\x81\x01\x01"),
        hopper(b"\x02\x82\x00\xff" + bytes(255)),
        hopper(b"\x02\x05\x01"),
        hopper(b"\x02\x82\x01"),
        leaf((TCB_INFO, tlv(0x30, tlv(0x80, b"x")))),
        leaf((TCB_INFO, tlv(0x30, tlv(0xA6, PAIR), tlv(0xA6, PAIR)))),
        leaf((TCB_INFO, tlv(0x30, tlv(0xA6)))),
        leaf((TCB_INFO, tlv(0x30, tlv(0xA6, tlv(0x31))))),
    ],
)
def test_any_other_shape_is_malformed(certificate: x509.Certificate) -> None:
    assert refusal(certificate) == Code.CERT_MALFORMED


VALUES = (tlv(0x30, b"\x02\x01\x01", tlv(0x30, bytes(20)), PAIR), tlv(0x30, tlv(0x80, b"x"), tlv(0xA6, PAIR)))


@given(st.integers(0, 1), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3))
def test_any_change_is_read_or_malformed(which: int, changes: list[tuple[int, int]]) -> None:
    value = bytearray(VALUES[which])
    for offset, new in changes:
        value[offset % len(value)] = new
    certificate = leaf(((HOPPER, TCB_INFO)[which], bytes(value)))
    with contextlib.suppress(MalformedEvidence):
        assert len(certified_fwid(certificate, where="leaf") or bytes(48)) == 48


def test_extension_that_the_library_has_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should cryptography parse this extension one day, the reader says so instead of guessing."""
    certificate = leaf((HOPPER, VALUES[0]))
    monkeypatch.setattr(x509, "UnrecognizedExtension", x509.BasicConstraints)
    assert refusal(certificate) == Code.CERT_MALFORMED
