"""Host sets: one encoding, nothing that contradicts itself, and bytes that are one or malformed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from support.host_owners import HostOwner, accepted
from support.mutations import check_total, inputs, keys, with_field, without_field
from support.owners import Owner
from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.host_set import SET_TYP, AcceptedFile, FileKind, HostSet, SignedHostSet
from weighbridge.proto.reference_set import SignedSet

OWNER = HostOwner()
FILES = (accepted("python", attester=True), accepted("bash"), accepted("model", kind=FileKind.VERITY))
CONTENT = replace(
    OWNER.content({0: [bytes(32), sha256(b"0")], 7: [sha256(b"7")]}, firmware=(1, 2**64 - 1), files=FILES),
    note="rack 7, Debian 13",
)
VALID = CONTENT.encode()
LOW, HIGH = bytes(32), b"\xff" * 32


def code_of(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        HostSet.parse(data)
    return refusal.value.code


def test_what_is_encoded_is_parsed_to_the_same() -> None:
    assert HostSet.parse(VALID) == CONTENT
    assert SignedHostSet.parse(OWNER.sign(CONTENT)).claimed == CONTENT


def test_files_are_named_as_imas_list_names_them() -> None:
    assert {file.name for file in CONTENT.files} == {
        f"sha256:{sha256(b'python').hex()}",
        f"sha256:{sha256(b'bash').hex()}",
        f"verity:sha256:{sha256(b'model').hex()}",
    }


def test_a_set_may_be_of_registers_alone() -> None:
    bare = replace(CONTENT, files=(), firmware=None, note="")
    assert HostSet.parse(bare.encode()) == bare


@given(inputs(VALID))
def test_any_bytes_are_a_set_or_malformed(data: bytes) -> None:
    check_total(HostSet.parse, lambda content: content.encode(), data)  # type: ignore[attr-defined]


@given(inputs(OWNER.sign(CONTENT)[1:]))
def test_any_bytes_are_a_signed_set_or_malformed(data: bytes) -> None:
    check_total(SignedHostSet.parse, None, b"\xd2" + data)
    check_total(SignedHostSet.parse, None, data)


@pytest.mark.parametrize("key", keys(VALID))
def test_every_field_is_required(key: int | str) -> None:
    assert code_of(without_field(VALID, key)) is Code.FIELD_MISSING


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/v2/host-set", Code.VERSION_UNSUPPORTED),
        (1, "", Code.FIELD_RANGE),
        (2, "a\nb", Code.FIELD_RANGE),
        (2, "a" * 513, Code.TOO_LARGE),
        (3, 0, Code.FIELD_RANGE),
        (3, 2**53, Code.FIELD_RANGE),
        (4, -1, Code.FIELD_RANGE),
        (5, CONTENT.not_after_ns + 1, Code.FIELD_RANGE),
        (6, None, Code.FIELD_TYPE),
        (7, {}, Code.FIELD_RANGE),
        (7, {0: []}, Code.FIELD_RANGE),
        (7, {0: [bytes(31)]}, Code.FIELD_RANGE),
        (7, {0: ["text"]}, Code.FIELD_TYPE),
        (7, {0: [HIGH, LOW]}, Code.NOT_DETERMINISTIC),
        (7, {0: [LOW, LOW]}, Code.NOT_DETERMINISTIC),
        (7, {10: [LOW]}, Code.FIELD_RANGE),
        (7, {16: [LOW]}, Code.FIELD_RANGE),
        (7, {23: [LOW]}, Code.FIELD_RANGE),
        (7, {24: [LOW]}, Code.FIELD_RANGE),
        (7, {-1: [LOW]}, Code.FIELD_RANGE),
        (7, {"0": [LOW]}, Code.FIELD_RANGE),
        (7, {0: [LOW] * 257}, Code.TOO_LARGE),
        (8, [], Code.FIELD_RANGE),
        (8, [2, 1], Code.FIELD_RANGE),
        (8, [1, 1], Code.FIELD_RANGE),
        (8, [True], Code.FIELD_RANGE),
        (8, [-1], Code.FIELD_RANGE),
        (8, list(range(65)), Code.TOO_LARGE),
        (9, [[0, LOW, ""]], Code.FIELD_TYPE),
        (9, [[0, LOW, "", 1]], Code.FIELD_TYPE),
        (9, [[False, LOW, "", True]], Code.FIELD_TYPE),
        (9, [0], Code.FIELD_TYPE),
        (9, [[2, LOW, "", True]], Code.FIELD_RANGE),
        (9, [[-1, LOW, "", True]], Code.FIELD_RANGE),
        (9, [[0, LOW[:31], "", True]], Code.FIELD_RANGE),
        (9, [[0, LOW, "a\nb", True]], Code.FIELD_RANGE),
        (9, [[0, LOW, "a" * 513, True]], Code.FIELD_RANGE),
        (9, [[0, LOW, "a", True], [0, LOW, "b", False]], Code.DUPLICATE_KEY),
        (9, [[0, HIGH, "", True], [0, LOW, "", True]], Code.NOT_DETERMINISTIC),
        (9, [[1, LOW, "", True], [0, HIGH, "", True]], Code.NOT_DETERMINISTIC),
        (10, "a\nb", Code.FIELD_RANGE),
        (11, None, Code.FIELD_UNKNOWN),
    ],
)
def test_fields_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(with_field(VALID, key, value)) is code


def test_nobody_signs_a_set_that_cannot_be_read() -> None:
    twice = replace(CONTENT, files=(CONTENT.files[0], CONTENT.files[0]))
    with pytest.raises(MalformedEvidence) as refusal:
        OWNER.sign(twice)
    assert refusal.value.code is Code.DUPLICATE_KEY


def test_files_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOST_SET_FILES_MAX", 2)
    assert code_of(VALID) is Code.TOO_LARGE


def test_a_set_of_more_bytes_than_a_message_is_read() -> None:
    """Its payload is longer than what one window may carry."""
    digests = sorted(sha256(b"%d" % number) for number in range(9000))
    large = replace(CONTENT, files=tuple(AcceptedFile(FileKind.CONTENT, item, "/" + "x" * 240) for item in digests))
    data = OWNER.sign(large)
    assert len(data) > limits.EVIDENCE_MAX
    assert SignedHostSet.parse(data).claimed == large


def test_sets_of_models_and_of_hosts_are_told_apart() -> None:
    models = Owner()
    theirs = models.sign(models.content())
    assert cose.claimed_typ(OWNER.sign(CONTENT), limit=limits.HOST_SET_MAX, what="set") == SET_TYP
    for parse, data in ((SignedHostSet.parse, theirs), (SignedSet.parse, OWNER.sign(CONTENT))):
        with pytest.raises(MalformedEvidence) as refusal:
            parse(data)
        assert refusal.value.code is Code.COSE_HEADER
