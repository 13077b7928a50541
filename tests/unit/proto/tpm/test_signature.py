"""TPMT_SIGNATURE: the key decides the algorithm, SHA-1 is no hash, a flipped bit is no signature."""

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import SoftTpm, derive_key, tpmt_signature
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import public, signature
from weighbridge.proto.tpm.constants import HashAlgorithm, Scheme
from weighbridge.proto.tpm.signature import EcdsaSignature, RsaSignature
from weighbridge.proto.tpm.wire import sized, u16, u32

AK = public.parse(SoftTpm().attestation_key())
GOOD = tpmt_signature(SoftTpm().ak_key, b"message")
RSA_KEY = rsa.generate_private_key(65537, 2048)


def rsa_public(scheme: Scheme | None = Scheme.RSASSA, hash_algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> bytes:
    chosen = u16(0x10) if scheme is None else u16(scheme) + u16(hash_algorithm)
    modulus = RSA_KEY.public_key().public_numbers().n.to_bytes(256)
    return u16(1) + u16(0xB) + u32(0x50072) + sized(b"") + u16(0x10) + chosen + u16(2048) + u32(0) + sized(modulus)


def rsa_signature(scheme: Scheme, message: bytes) -> bytes:
    digest = hashes.SHA256()
    pad = padding.PKCS1v15() if scheme is Scheme.RSASSA else padding.PSS(padding.MGF1(digest), padding.PSS.MAX_LENGTH)
    return u16(scheme) + u16(HashAlgorithm.SHA256) + sized(RSA_KEY.sign(message, pad, digest))


def test_ecdsa() -> None:
    parsed = signature.parse(GOOD)
    assert isinstance(parsed.value, EcdsaSignature)
    assert parsed.raw_p256() == parsed.value.r + parsed.value.s
    signature.verify(parsed, AK, b"message")


@pytest.mark.parametrize("scheme", [Scheme.RSASSA, Scheme.RSAPSS])
def test_rsa(scheme: Scheme) -> None:
    key = public.parse(rsa_public(scheme))
    parsed = signature.parse(rsa_signature(scheme, b"message"))
    assert isinstance(parsed.value, RsaSignature)
    signature.verify(parsed, key, b"message")
    with pytest.raises(NotAuthentic) as caught:
        signature.verify(parsed, key, b"massage")
    assert caught.value.code is Code.TPM_SIGNATURE
    with pytest.raises(MalformedEvidence) as malformed:
        parsed.raw_p256()
    assert malformed.value.code is Code.TPM_ALGORITHM


def test_short_numbers_are_padded() -> None:
    parsed = signature.parse(u16(Scheme.ECDSA) + u16(HashAlgorithm.SHA256) + sized(b"\1") + sized(b"\2"))
    assert parsed.raw_p256() == b"\1".rjust(32, b"\0") + b"\2".rjust(32, b"\0")
    with pytest.raises(NotAuthentic) as caught:
        signature.verify(parsed, AK, b"message")
    assert caught.value.code is Code.TPM_SIGNATURE


@given(st.integers(4, len(GOOD) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused(place: int, bit: int) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= 1 << bit
    with pytest.raises((NotAuthentic, MalformedEvidence)):
        signature.verify(signature.parse(bytes(changed)), AK, b"message")


@pytest.mark.parametrize(
    ("message", "key"),
    [(b"another message", SoftTpm().ak_key), (b"message", derive_key("another key"))],
    ids=["message", "key"],
)
def test_another_message_or_key(message: bytes, key: object) -> None:
    forged = tpmt_signature(key, b"message")  # type: ignore[arg-type] # parametrised
    with pytest.raises(NotAuthentic) as caught:
        signature.verify(signature.parse(forged), AK, message)
    assert caught.value.code is Code.TPM_SIGNATURE


@pytest.mark.parametrize(
    "data",
    [
        rsa_signature(Scheme.RSASSA, b"message"),
        u16(Scheme.ECDSA) + u16(HashAlgorithm.SHA384) + GOOD[4:],
    ],
    ids=["scheme", "hash"],
)
def test_the_key_decides_the_algorithm(data: bytes) -> None:
    with pytest.raises(NotAuthentic) as caught:
        signature.verify(signature.parse(data), AK, b"message")
    assert caught.value.code is Code.TPM_ALGORITHM


@pytest.mark.parametrize(
    "key",
    [rsa_public(None), rsa_public(Scheme.RSASSA, HashAlgorithm.SHA384)],
    ids=["no-scheme", "no-row"],
)
def test_keys_of_no_row_verify_nothing(key: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        signature.verify(signature.parse(GOOD), public.parse(key), b"message")
    assert caught.value.code is Code.TPM_ALGORITHM


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (u16(0x19) + GOOD[2:], Code.TPM_ALGORITHM),
        (u16(0x10), Code.TPM_ALGORITHM),
        (u16(Scheme.ECDSA) + u16(HashAlgorithm.SHA1) + GOOD[4:], Code.TPM_ALGORITHM),
        (u16(Scheme.ECDSA) + u16(0xB) + sized(bytes(49)) + sized(b""), Code.TPM_STRUCTURE),
        (u16(Scheme.RSASSA) + u16(0xB) + sized(bytes(385)), Code.TPM_STRUCTURE),
        (GOOD + b"\0", Code.TRAILING_BYTES),
        (GOOD[:-1], Code.TRUNCATED),
    ],
    ids=["ecdaa", "null", "sha1", "long-r", "long-rsa", "tail", "cut"],
)
def test_malformed_signatures(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        signature.parse(data)
    assert caught.value.code is code


@given(st.binary(max_size=120) | st.binary(max_size=80).map(lambda tail: GOOD[:4] + tail))
def test_parse_is_total(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        signature.parse(data)
