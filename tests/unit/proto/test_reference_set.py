"""Reference sets: one encoding, nothing that contradicts itself, and bytes that are one or malformed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from support.mutations import check_total, inputs, keys, with_field, without_field
from support.owners import Issuer, Owner
from support.world import manifest
from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.reference_set import SET_TYP, AcceptedModel, ReferenceSet, SignedSet

OWNER = Owner()
MODELS = (manifest("one"), manifest("two"))
GONE = bytes(32)
CONTENT = OWNER.content(*MODELS, revoked={GONE: "leaked"}, statements=[Issuer().in_toto(MODELS[0].digest)])
VALID = CONTENT.encode()
FIRST, SECOND = sorted(model.digest for model in MODELS)


def code_of(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        ReferenceSet.parse(data)
    return refusal.value.code


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    assert ReferenceSet.parse(VALID) == CONTENT
    signed = OWNER.sign(CONTENT)
    assert SignedSet.parse(signed).claimed == CONTENT
    assert cose.parse(signed, typ=SET_TYP, limit=limits.REFERENCE_SET_MAX, what="set").payload == VALID


def test_a_set_may_be_empty() -> None:
    """It takes back everything without saying that anything was wrong with it."""
    empty = OWNER.content()
    assert ReferenceSet.parse(empty.encode()) == empty


@given(inputs(VALID))
def test_any_bytes_are_a_set_or_malformed(data: bytes) -> None:
    check_total(ReferenceSet.parse, lambda content: content.encode(), data)  # type: ignore[attr-defined]


@given(inputs(OWNER.sign(CONTENT)[1:]))
def test_any_bytes_are_a_signed_set_or_malformed(data: bytes) -> None:
    check_total(SignedSet.parse, None, b"\xd2" + data)
    check_total(SignedSet.parse, None, data)


@pytest.mark.parametrize("key", keys(VALID))
def test_every_field_is_required(key: int | str) -> None:
    assert code_of(without_field(VALID, key)) is Code.FIELD_MISSING


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/v2/reference-set", Code.VERSION_UNSUPPORTED),
        (1, "", Code.FIELD_RANGE),
        (1, "a\nb", Code.FIELD_RANGE),
        (1, "a" * 513, Code.TOO_LARGE),
        (2, 0, Code.FIELD_RANGE),
        (2, 2**53, Code.FIELD_RANGE),
        (3, -1, Code.FIELD_RANGE),
        (4, CONTENT.not_after_ns + 1, Code.FIELD_RANGE),
        (5, None, Code.FIELD_TYPE),
        (6, [[FIRST, "a"]], Code.FIELD_RANGE),
        (6, [[FIRST, "", []]], Code.FIELD_RANGE),
        (6, [[FIRST[:31], "a", []]], Code.FIELD_RANGE),
        (6, [[FIRST, "a", [1]]], Code.FIELD_TYPE),
        (6, [[FIRST, "a", [b""] * 65]], Code.TOO_LARGE),
        (6, [[FIRST, "a", []], [FIRST, "a", []]], Code.DUPLICATE_KEY),
        (6, [[SECOND, "a", []], [FIRST, "a", []]], Code.NOT_DETERMINISTIC),
        (6, [[bytes(32), "a", []]], Code.FIELD_RANGE),  # revoked, too
        (7, [[FIRST, "gone", 0]], Code.FIELD_RANGE),  # accepted, too
        (7, [[GONE, "", 0]], Code.FIELD_RANGE),
        (7, [[GONE, "gone", -1]], Code.FIELD_RANGE),
        (7, [[GONE, "gone", 0], [GONE, "gone", 0]], Code.DUPLICATE_KEY),
        (8, None, Code.FIELD_UNKNOWN),
    ],
)
def test_fields_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(with_field(VALID, key, value)) is code


def test_nobody_signs_a_set_that_cannot_be_read() -> None:
    twice = replace(CONTENT, models=(CONTENT.models[0], CONTENT.models[0]))
    large = replace(CONTENT, models=(AcceptedModel(FIRST, "a", (bytes(limits.STATEMENT_MAX),) * 5),))
    for content, code in ((twice, Code.DUPLICATE_KEY), (large, Code.TOO_LARGE)):
        with pytest.raises(MalformedEvidence) as refusal:
            OWNER.sign(content)
        assert refusal.value.code is code


def test_another_kind_of_message_is_no_set() -> None:
    kid = cose.thumbprint(OWNER.key.public_key())
    other = cose.sign(VALID, kid=kid, typ="application/eat+cwt", signer=lambda _: bytes(64))
    with pytest.raises(MalformedEvidence) as refusal:
        SignedSet.parse(other)
    assert refusal.value.code is Code.COSE_HEADER
