"""The reference values in force: the relying party's own with what owners' sets say, and what policies see of both."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.values.owner_sets import ModelValue, OwnerSet, RevokedValue, StatementValue
from weighbridge.policy.values.reference import IN_FORCE, SCHEMA, Reference
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence

A, B, C, GONE = ("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32)
START = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EVALUATED = StatementValue("01" * 32, "Lab", "https://example/eval", "2026-05-01T00:00:00Z")
UNDATED = StatementValue("02" * 32, "Other", "cyclonedx", None)
OWN = Reference({A: "ours"}, {"HOPPER/550/96": ("ee" * 32,)}, {"host_binding": "the rack is ours and locked"})
FIRST = OwnerSet(
    owner="Acme",
    number=3,
    digest="11" * 32,
    not_before=START,
    not_after=START + 10 * DAY,
    models=(ModelValue(A, "theirs", (EVALUATED,)), ModelValue(B, "b", (EVALUATED, UNDATED))),
    revoked=(RevokedValue(GONE, "leaked", START),),
)
SECOND = replace(
    FIRST, owner="Beta", digest="22" * 32, not_after=START + 20 * DAY, models=(ModelValue(B, "bb"),), revoked=()
)
BOTH = OWN.with_sets([SECOND, FIRST])


def models(reference: Reference) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(reference.data()))["models"]
    return found


def test_what_is_recorded_is_read() -> None:
    assert BOTH.sets == (FIRST, SECOND)
    assert Reference.recorded(BOTH.to_json()) == BOTH
    assert BOTH.digest == D("reference", BOTH.to_json())
    assert json.loads(BOTH.to_json())["schema"] == IN_FORCE


def test_without_sets_they_are_the_relying_partys_document() -> None:
    assert OWN.with_sets([]).to_json() == OWN.to_json()
    assert Reference.recorded(OWN.to_json()) == OWN
    assert json.loads(OWN.to_json())["schema"] == SCHEMA


def test_a_relying_partys_document_cannot_bring_sets() -> None:
    """What is said of owners and issuers was verified by whoever made it, or it is not taken."""
    with pytest.raises(MalformedEvidence) as refusal:
        Reference.parse(BOTH.to_json())
    assert refusal.value.code is Code.VERSION_UNSUPPORTED
    document = {**json.loads(OWN.to_json()), "sets": [FIRST.document()]}
    with pytest.raises(MalformedEvidence) as refusal:
        Reference.parse(json.dumps(document).encode())
    assert refusal.value.code is Code.FIELD_UNKNOWN


def test_every_model_has_every_member() -> None:
    """A policy is not fooled by one that is absent."""
    members = {"name", "owner", "set", "not_before", "not_after", "statements"}
    for reference in (OWN, BOTH):
        for model in models(reference).values():
            assert set(model) == members
            for statement in model["statements"]:
                assert set(statement) == {"issuer", "type", "date", "digest"}
    assert models(OWN)[A] == {**dict.fromkeys(members), "name": "ours", "statements": []}


def test_the_name_is_the_relying_partys_and_the_rest_the_owners() -> None:
    assert models(BOTH)[A] == {
        "name": "ours",
        "owner": "Acme",
        "set": "11" * 32,
        "not_before": "2026-06-01T00:00:00Z",
        "not_after": "2026-06-11T00:00:00Z",
        "statements": [EVALUATED.document()],
    }


def test_of_two_owners_the_one_who_accepts_it_the_longest_is_named() -> None:
    found = models(BOTH)[B]
    assert (found["owner"], found["name"], found["not_after"]) == ("Beta", "bb", "2026-06-21T00:00:00Z")
    assert found["statements"] == [EVALUATED.document(), UNDATED.document()]


def test_a_revoked_model_is_nobodys() -> None:
    everywhere = replace(OWN, models={GONE: "ours"}).with_sets(
        [FIRST, replace(SECOND, models=(ModelValue(GONE, "g"),))]
    )
    assert GONE not in models(everywhere)


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("more",), 1, Code.FIELD_UNKNOWN),
        (("sets",), {}, Code.FIELD_TYPE),
        (("sets", 0), [], Code.FIELD_TYPE),
        (("reference", "schema"), IN_FORCE, Code.VERSION_UNSUPPORTED),
        (("sets", 0, "more"), 1, Code.FIELD_UNKNOWN),
        (("sets", 0, "number"), -1, Code.FIELD_RANGE),
        (("sets", 0, "number"), 1.0, Code.FIELD_TYPE),
        (("sets", 0, "digest"), "11", Code.FIELD_RANGE),
        (("sets", 0, "not_after"), "tomorrow", Code.NOT_A_TIME),
        (("sets", 0, "models", "11"), {"name": "x", "statements": []}, Code.FIELD_RANGE),
        (("sets", 0, "models", A, "more"), 1, Code.FIELD_UNKNOWN),
        (("sets", 0, "models", A, "statements"), [1], Code.FIELD_TYPE),
        (("sets", 0, "models", A, "statements", 0, "date"), "May", Code.NOT_A_TIME),
        (("sets", 0, "models", A, "statements", 0, "issuer"), None, Code.FIELD_TYPE),
        (("sets", 0, "revoked", GONE, "reason"), None, Code.FIELD_TYPE),
        (("sets", 0, "revoked", "XX"), {"reason": "x", "at": "2026-06-01T00:00:00Z"}, Code.NOT_HEX),
    ],
)
def test_every_deviation_is_refused_by_code(path: tuple[Any, ...], value: object, code: Code) -> None:
    document: Any = json.loads(BOTH.to_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(MalformedEvidence) as refusal:
        Reference.recorded(json.dumps(document).encode())
    assert refusal.value.code is code


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_the_digest_changes_with_every_byte_that_is_still_valid(place: int, flip: int) -> None:
    """A64: reference values cannot be exchanged under a verdict."""
    data = bytearray(BOTH.to_json())
    data[place % len(data)] ^= flip
    try:
        other = Reference.recorded(bytes(data))
    except MalformedEvidence:
        return
    assert other == BOTH or other.digest != BOTH.digest
