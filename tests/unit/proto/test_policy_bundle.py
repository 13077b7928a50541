"""Policy bundles: one encoding, names that can be nothing else's, and bytes that are one or malformed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from support.authors import ADMITS, Author
from support.mutations import check_total, inputs, keys, with_field, without_field
from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.policy_bundle import BUNDLE_TYP, PolicyBundle, SignedPolicyBundle, is_file_name

AUTHOR = Author()
FILES = {"data.json": b"{}", "gate.rego": ADMITS, "foreign/trustee-cpu/v0/cpu.rego": b"package policy"}
CONTENT = AUTHOR.content(FILES, tenant="tenant-a")
VALID = CONTENT.encode()
EVERYBODYS = AUTHOR.content().encode()


def code_of(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        PolicyBundle.parse(data)
    return refusal.value.code


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    assert PolicyBundle.parse(VALID) == CONTENT
    assert PolicyBundle.parse(EVERYBODYS).tenant is None
    signed = AUTHOR.sign(CONTENT)
    assert SignedPolicyBundle.parse(signed).claimed == CONTENT
    assert cose.parse(signed, typ=BUNDLE_TYP, limit=limits.POLICY_BUNDLE_MAX, what="bundle").payload == VALID
    noted = replace(CONTENT, note="admits nobody at night")
    assert PolicyBundle.parse(noted.encode()) == noted


@given(inputs(VALID, EVERYBODYS))
def test_any_bytes_are_a_bundle_or_malformed(data: bytes) -> None:
    check_total(PolicyBundle.parse, lambda content: content.encode(), data)  # type: ignore[attr-defined]


@given(inputs(AUTHOR.sign(CONTENT)[1:]))
def test_any_bytes_are_a_signed_bundle_or_malformed(data: bytes) -> None:
    check_total(SignedPolicyBundle.parse, None, b"\xd2" + data)
    check_total(SignedPolicyBundle.parse, None, data)


@pytest.mark.parametrize("key", keys(VALID))
def test_every_field_is_required(key: int | str) -> None:
    assert code_of(without_field(VALID, key)) is Code.FIELD_MISSING


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/v2/policy-bundle", Code.VERSION_UNSUPPORTED),
        (1, "", Code.FIELD_RANGE),
        (1, "a\nb", Code.FIELD_RANGE),
        (1, "a" * 513, Code.TOO_LARGE),
        (2, "", Code.FIELD_RANGE),
        (3, "", Code.FIELD_RANGE),
        (3, "a" * 65, Code.TOO_LARGE),
        (3, 0, Code.FIELD_TYPE),
        (4, 0, Code.FIELD_RANGE),
        (4, 2**53, Code.FIELD_RANGE),
        (5, -1, Code.FIELD_RANGE),
        (6, CONTENT.not_after_ns + 1, Code.FIELD_RANGE),
        (7, None, Code.FIELD_TYPE),
        (8, [], Code.FIELD_RANGE),
        (8, [["data.json", b"{}"]], Code.FIELD_RANGE),
        (8, [["foreign/intel/a.rego", b""]], Code.FIELD_RANGE),
        (8, [["a.rego"]], Code.FIELD_RANGE),
        (8, [["a.rego", "text"]], Code.FIELD_TYPE),
        (8, [["a.rego", b""], ["a.rego", b""]], Code.DUPLICATE_KEY),
        (8, [["b.rego", b""], ["a.rego", b""]], Code.NOT_DETERMINISTIC),
        (8, [["a.rego", b""]] * 65, Code.TOO_LARGE),
        (9, "a\nb", Code.FIELD_RANGE),
        (10, None, Code.FIELD_UNKNOWN),
    ],
)
def test_fields_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(with_field(VALID, key, value)) is code


@pytest.mark.parametrize(
    "name",
    [
        "weighbridge/lib.rego",  # the shipped library
        "weighbridge/lib/gpu.rego",
        "weighbridge/production.rego",
        "reference.json",
        "../gate.rego",
        "/gate.rego",
        "rules/gate.rego",
        "gate_test.rego",
        ".rego",
        ".gate.rego",
        "gate.rego\n",
        "gäte.rego",
        "gate.REGO",
        "a" * 96 + ".rego",
        "foreign/../gate.rego",
        "foreign/gate.rego",
        "foreign/data.json",
    ],
)
def test_names_that_are_not_an_authors_to_give(name: str) -> None:
    assert not is_file_name(name)
    assert code_of(with_field(VALID, 8, [[name, b""]])) is Code.FIELD_RANGE


def test_nobody_signs_a_bundle_that_cannot_be_read() -> None:
    (first, *_) = CONTENT.files
    twice = replace(CONTENT, files=(first, first))
    large = replace(CONTENT, files=(("gate.rego", bytes(limits.POLICY_BUNDLE_MAX)),))
    for content, code in ((twice, Code.DUPLICATE_KEY), (large, Code.TOO_LARGE)):
        with pytest.raises(MalformedEvidence) as refusal:
            AUTHOR.sign(content)
        assert refusal.value.code is code


def test_another_kind_of_message_is_no_bundle() -> None:
    kid = cose.thumbprint(AUTHOR.key.public_key())
    other = cose.sign(VALID, kid=kid, typ="application/eat+cwt", signer=lambda _: bytes(64))
    with pytest.raises(MalformedEvidence) as refusal:
        SignedPolicyBundle.parse(other)
    assert refusal.value.code is Code.COSE_HEADER
