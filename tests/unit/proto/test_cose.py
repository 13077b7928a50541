"""COSE_Sign1 with ES256, and nothing else of COSE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given

from fakes.soft_tpm import derive_key
from support.mutations import check_total, inputs
from weighbridge.proto import cbor, cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = derive_key("cose")
KID = cose.thumbprint(KEY.public_key())
TYP = "application/test"


def signer(data: bytes) -> bytes:
    r, s = decode_dss_signature(KEY.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32) + s.to_bytes(32)


GOOD = cose.sign(b"payload", kid=KID, typ=TYP, signer=signer)


def parse(data: bytes) -> cose.CoseSign1:
    return cose.parse(data, typ=TYP, limit=1000, what="it")


def message(
    *,
    protected: object = None,
    unprotected: object = None,
    payload: object = b"payload",
    signature: object = bytes(64),
) -> bytes:
    header = cbor.encode({1: -7, 4: KID, 16: TYP}) if protected is None else protected
    return b"\xd2" + cbor.encode([header, {} if unprotected is None else unprotected, payload, signature])


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        call()
    return refusal.value.code


def test_a_signed_message_verifies() -> None:
    parsed = parse(GOOD)
    assert (parsed.payload, parsed.claimed_kid, parsed.typ, parsed.raw) == (b"payload", KID, TYP, GOOD)
    assert cose.verify(parsed, KEY.public_key()) == b"payload"


@given(inputs(GOOD[1:]))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    check_total(lambda octets: parse(b"\xd2" + octets), None, data)
    check_total(parse, None, data)


def header(**changes: object) -> bytes:
    fields: dict[int | str, object] = {1: -7, 4: KID, 16: TYP}
    for key, value in changes.items():
        fields[int(key.removeprefix("k"))] = value
    return cbor.encode({key: value for key, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_CBOR),
        (GOOD[1:], Code.NOT_CBOR),
        (b"\xd1" + GOOD[1:], Code.NOT_CBOR),
        (GOOD + b"\0", Code.NOT_DETERMINISTIC),
        (b"\xd2" + cbor.encode([b"", {}, b""]), Code.FIELD_RANGE),
        (b"\xd2" + cbor.encode({}), Code.FIELD_TYPE),
        (message(unprotected={4: KID}), Code.COSE_HEADER),
        (message(unprotected=[]), Code.COSE_HEADER),
        (message(payload=None), Code.FIELD_TYPE),
        (message(payload="text"), Code.FIELD_TYPE),
        (message(signature="text"), Code.FIELD_TYPE),
        (message(signature=bytes(63)), Code.COSE_SIGNATURE),
        (message(signature=bytes(65)), Code.COSE_SIGNATURE),
        (message(signature=b""), Code.COSE_SIGNATURE),
        (message(protected={}), Code.FIELD_TYPE),
        (message(protected=b""), Code.NOT_CBOR),
        (message(protected=bytes(257)), Code.TOO_LARGE),
        (message(protected=header(k1=-35)), Code.COSE_HEADER),
        (message(protected=header(k1=-8)), Code.COSE_HEADER),
        (message(protected=header(k1="ES256")), Code.COSE_HEADER),
        (message(protected=header(k1=...)), Code.FIELD_MISSING),
        (message(protected=header(k4=...)), Code.FIELD_MISSING),
        (message(protected=header(k4=bytes(31))), Code.FIELD_RANGE),
        (message(protected=header(k16=...)), Code.FIELD_MISSING),
        (message(protected=header(k16="application/another")), Code.COSE_HEADER),
        (message(protected=header(k2=[16])), Code.FIELD_UNKNOWN),
        (message(protected=header(k3="application/eat+cwt")), Code.FIELD_UNKNOWN),
    ],
)
def test_everything_else_of_cose_is_refused_by_its_code(data: bytes, code: Code) -> None:
    assert code_of(lambda: parse(data)) is code


@pytest.mark.parametrize("part", ["payload", "signature", "protected", "key"])
def test_a_signature_is_over_header_and_payload(part: str) -> None:
    parsed, key = parse(GOOD), KEY
    payload, protected, signature = parsed.payload, parsed.protected, parsed.signature
    if part == "payload":
        payload = b"Payload"
    elif part == "protected":
        protected = header(k4=bytes(32))
    elif part == "signature":
        signature = bytes([signature[0] ^ 1]) + signature[1:]
    else:
        key = derive_key("another")
    changed = parse(b"\xd2" + cbor.encode([protected, {}, payload, signature]))
    with pytest.raises(NotAuthentic) as refusal:
        cose.verify(changed, key.public_key())
    assert refusal.value.code is Code.COSE_SIGNATURE


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(32) + b"\xff" * 32])
def test_numbers_that_are_no_signature_do_not_verify(signature: bytes) -> None:
    with pytest.raises(NotAuthentic):
        cose.verify(parse(message(signature=signature)), KEY.public_key())


def test_a_signer_returns_64_bytes() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        cose.sign(b"", kid=KID, typ=TYP, signer=lambda _: b"short")


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_named_by_its_digest() -> None:
    octets = cose.spki(KEY.public_key())
    assert cose.spki(cose.load_p256(octets, what="it")) == octets
    assert sha256(octets) == KID


@given(inputs(b"\x80"))
def test_any_bytes_are_a_key_or_malformed(data: bytes) -> None:
    check_total(lambda octets: cose.load_p256(octets, what="it"), None, data)


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"", Code.KEY_MALFORMED),
        (cose.spki(KEY.public_key()) + b"\0", Code.KEY_MALFORMED),
        (cose.spki(KEY.public_key())[:-1], Code.KEY_MALFORMED),
        (
            KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            Code.KEY_MALFORMED,
        ),
        (
            derive_key("p384", ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            Code.KEY_UNSUPPORTED,
        ),
        (
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            Code.KEY_UNSUPPORTED,
        ),
    ],
    ids=["empty", "longer", "shorter", "PEM", "P-384", "Ed25519"],
)
def test_keys_of_other_kinds_are_refused(octets: bytes, code: Code) -> None:
    assert code_of(lambda: cose.load_p256(octets, what="it")) is code


def test_a_compressed_point_is_a_second_name_for_a_key() -> None:
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert code_of(lambda: cose.load_p256(prefix + point, what="it")) is Code.KEY_MALFORMED
