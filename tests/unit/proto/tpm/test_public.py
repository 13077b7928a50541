"""TPMT_PUBLIC: keys of the table and nothing else; Names over the exact bytes; templates as the TPM takes them."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import SoftTpm, derive_key, point
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import (
    EK_POLICY_A_SHA256,
    CommandCode,
    Curve,
    HashAlgorithm,
    Hierarchy,
    ObjectAttributes,
    Symmetric,
    digest,
    digest_size,
)
from weighbridge.proto.tpm.names import object_name, qualified_name_of_primary
from weighbridge.proto.tpm.public import EccPoint, RsaModulus
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS, attestation_key_template, telemetry_key_template
from weighbridge.proto.tpm.wire import sized, u16, u32

AK = SoftTpm().attestation_key()
EK_RSA = SoftTpm(ek="L-1").ek_public
EK_ECC = SoftTpm().ek_public
# Offsets in AK: type 0, nameAlg 2, attributes 4, policy 8, symmetric 10, scheme 12, hash 14, curve 16, kdf 18,
# point 20.
# Offsets in EK_RSA: policy 8..42, symmetric 42, bits 44, mode 46, scheme 48, bits 50, exponent 52, modulus 56.


def at(data: bytes, place: int, change: bytes) -> bytes:
    return data[:place] + change + data[place + len(change) :]


def test_an_attestation_key() -> None:
    parsed = public.parse(AK)
    assert parsed.raw == AK
    assert parsed.name == u16(0xB) + hashlib.sha256(AK).digest()
    assert isinstance(parsed.unique, EccPoint)
    assert (parsed.unique.curve, parsed.symmetric, parsed.auth_policy) == (Curve.NIST_P256, None, b"")
    assert parsed.signing_algorithm().name == "ecdsa-p256-sha256"
    assert load_der_public_key(parsed.spki()) == SoftTpm().ak_key.public_key()
    assert parsed.attributes & ObjectAttributes.RESTRICTED


def test_endorsement_keys() -> None:
    rsa, ecc = public.parse(EK_RSA), public.parse(EK_ECC)
    assert isinstance(rsa.unique, RsaModulus)
    assert (rsa.unique.bits, rsa.symmetric, rsa.auth_policy) == (2048, Symmetric(128), EK_POLICY_A_SHA256)
    assert isinstance(ecc.unique, EccPoint)
    assert (ecc.unique.curve, ecc.symmetric, len(ecc.name)) == (Curve.NIST_P384, Symmetric(256), 50)
    for key in (rsa, ecc):
        with pytest.raises(MalformedEvidence) as caught:
            key.signing_algorithm()
        assert caught.value.code is Code.TPM_ALGORITHM


def test_policy_a_is_policy_secret_of_the_endorsement_hierarchy() -> None:
    """TCG EK Credential Profile annex B.3, computed by TPM 2.0 Part 3 §23.4."""
    handle = u32(Hierarchy.ENDORSEMENT)
    first = hashlib.sha256(bytes(32) + u32(CommandCode.POLICY_SECRET) + handle).digest()
    assert hashlib.sha256(first).digest() == EK_POLICY_A_SHA256


def test_an_older_tpm_drops_leading_zeros() -> None:
    """The number is the same, the Name is not: it covers the bytes as they are."""
    seed = next(n for n in range(10_000) if point(derive_key(f"zero/{n}"))[2] == 0)
    full = point(derive_key(f"zero/{seed}"))
    short = u16(31) + full[3:]
    padded, stripped = public.parse(AK[:20] + full), public.parse(AK[:20] + short)
    assert padded.unique == stripped.unique
    assert padded.name != stripped.name


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (at(AK, 0, u16(0x08)), Code.TPM_ALGORITHM),
        (at(AK, 0, u16(0x25)), Code.TPM_ALGORITHM),
        (at(AK, 2, u16(0x04)), Code.TPM_ALGORITHM),
        (at(AK, 2, u16(0x12)), Code.TPM_ALGORITHM),
        (at(AK, 4, u32(0x00050473)), Code.TPM_STRUCTURE),
        (at(AK, 4, u32(0x80050472)), Code.TPM_STRUCTURE),
        (AK[:8] + sized(bytes(31)) + AK[10:], Code.TPM_STRUCTURE),
        (AK[:8] + sized(bytes(33)) + AK[10:], Code.TPM_STRUCTURE),
        (at(AK, 10, u16(0x26)), Code.TPM_ALGORITHM),
        (at(AK, 12, u16(0x14)), Code.TPM_ALGORITHM),
        (at(AK, 14, u16(0x04)), Code.TPM_ALGORITHM),
        (at(AK, 16, u16(0x05)), Code.TPM_ALGORITHM),
        (at(AK, 18, u16(0x20)), Code.TPM_ALGORITHM),
        (at(AK, len(AK) - 1, bytes([AK[-1] ^ 1])), Code.KEY_MALFORMED),
        (AK[:20] + sized(b"") + sized(b""), Code.KEY_MALFORMED),
        (AK[:20] + sized(bytes(33)) + sized(b""), Code.TPM_STRUCTURE),
        (AK + b"\0", Code.TRAILING_BYTES),
        (at(EK_RSA, 44, u16(192)), Code.TPM_ALGORITHM),
        (at(EK_RSA, 46, u16(0x44)), Code.TPM_ALGORITHM),
        (at(EK_RSA, 48, u16(0x18)), Code.TPM_ALGORITHM),
        (at(EK_RSA, 50, u16(1024)), Code.TPM_ALGORITHM),
        (at(EK_RSA, 52, u32(3)), Code.TPM_ALGORITHM),
        (at(EK_RSA, 58, b"\0"), Code.KEY_MALFORMED),
        (EK_RSA[:56] + sized(b""), Code.KEY_MALFORMED),
        (at(EK_RSA, len(EK_RSA) - 1, b"\2"), Code.KEY_MALFORMED),
    ],
    ids=lambda value: value.value if isinstance(value, Code) else value[:24].hex(),
)
def test_what_is_not_in_the_table_is_refused(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        public.parse(data)
    assert caught.value.code is code


def test_an_exponent_written_out() -> None:
    assert public.parse(at(EK_RSA, 52, u32(65537))).unique == public.parse(EK_RSA).unique


@given(st.binary(max_size=120) | st.binary(max_size=100).map(lambda tail: AK[:8] + tail))
def test_parse_is_total(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert public.parse(data).raw == data


@given(st.sampled_from([AK, EK_RSA, EK_ECC]), st.data())
def test_mutations_are_values_or_refused(valid: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, min(70, len(valid) - 1)))
    with contextlib.suppress(MalformedEvidence):
        public.parse(at(valid, place, bytes([data.draw(st.integers(0, 255))])))


@pytest.mark.parametrize("valid", [AK, EK_RSA, EK_ECC], ids=["ak", "rsa", "ecc"])
def test_every_truncation_is_refused(valid: bytes) -> None:
    for end in range(len(valid)):
        with pytest.raises(MalformedEvidence):
            public.parse(valid[:end])


def test_templates_are_what_keys_begin_with() -> None:
    assert AK.startswith(attestation_key_template()[:-4])
    for template, key in zip(ENDORSEMENT_KEYS, (EK_ECC, EK_RSA), strict=True):
        assert key.startswith(template.parameters())
        assert template.encode().startswith(template.parameters())
    assert ENDORSEMENT_KEYS[0].attributes == 0x300F2
    assert ENDORSEMENT_KEYS[1].attributes == 0x300B2
    assert len(ENDORSEMENT_KEYS[1].encode()) == 56 + 2 + 256


@pytest.mark.parametrize(("policy", "unique"), [(31, 32), (32, 31)])
def test_telemetry_template_needs_whole_parts(policy: int, unique: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        telemetry_key_template(auth_policy=bytes(policy), unique=bytes(unique))


def test_qualified_names_tell_hierarchies_apart() -> None:
    """TPM 2.0 Part 1 §16."""
    name = object_name(HashAlgorithm.SHA256, AK)
    expected = u16(0xB) + hashlib.sha256(bytes.fromhex("40000007") + name).digest()
    assert qualified_name_of_primary(Hierarchy.NULL, name) == expected
    assert len({qualified_name_of_primary(hierarchy, name) for hierarchy in Hierarchy}) == len(Hierarchy)


@pytest.mark.parametrize("algorithm", list(HashAlgorithm))
def test_digests_have_their_sizes(algorithm: HashAlgorithm) -> None:
    assert len(digest(algorithm, b"a", b"b")) == digest_size(algorithm)
    assert digest(algorithm, b"a", b"b") == hashlib.new(algorithm.name.lower(), b"ab").digest()
