"""Verdict records and the leaves that commit to them: parsed as they were encoded, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.mutations import check_total, inputs, keys, with_field, without_field
from weighbridge.policy.engine import Revision
from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spot import SpotChallenge, SpotExpectation, SpotRange
from weighbridge.verifier.record import NO_DIGEST, ChallengePreimage, Kind, Leaf, Record
from weighbridge.verifier.telemetry.detector.evidence import SessionEvidence
from weighbridge.verifier.telemetry.history import Copy, History, Reading
from weighbridge.verifier.telemetry.past import Past, write_evidence
from weighbridge.verifier.telemetry.remains import Remains

if TYPE_CHECKING:
    from weighbridge.proto import cbor

RECORD: Final = Record(
    kind="window",
    session=bytes(range(16)),
    seq=3,
    received_ns=1_780_315_200_000_000_000,
    held=False,
    preimage=ChallengePreimage(sha256(b"root"), sha256(b"random")),
    opening=b"opening",
    terms=b"terms",
    secret=bytes(32),
    window=sha256(b"window"),
    evidence=sha256(b"evidence"),
    policy=sha256(b"policy"),
    reference=sha256(b"reference"),
    requirements=b"{}",
    verdict=b"{}",
    spot=SpotExpectation(
        SpotChallenge(id=bytes(16), manifest=sha256(b"model"), key=bytes(32), ranges=(SpotRange("a", 0, 1),)),
        sha256(b"mac"),
    ),
    collateral=sha256(b"collateral"),
    history=History(
        (Reading(device=bytes(32), session=bytes(16), seq=4, wall_ns=5, energy_mj=6),),
        (Copy(device=bytes(32), original=sha256(b"gpu"), session=bytes(16), seq=7, matches=8),),
        (
            Past(
                device=bytes(32),
                profile=sha256(b"profile"),
                session=bytes(16),
                seq=9,
                evidence=SessionEvidence.start(),
                row=1,
                lapses=2,
                remains=Remains(3, 4, 5),
            ),
        ),
    ),
    previous=sha256(b"the window before"),
)
EMPTY: Final = Record.note("junk", session=bytes(16), seq=None, received_ns=0, verdict=b"{}")
LEAF: Final = Leaf.of(RECORD)
_READ: Final[list[cbor.CborValue]] = [bytes(32), bytes(16), 4, 5, 6]
_PAST: Final[list[cbor.CborValue]] = [
    *(bytes(32), bytes(32), bytes(16), 4),
    write_evidence(SessionEvidence.start()),
    5,
    6,
    [7, 8, 9],
]
_COPY: Final[list[cbor.CborValue]] = [bytes(32), bytes(32), bytes(16), 7, 8]


def code_of(parse: object, data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        parse(data)  # type: ignore[operator]
    return refusal.value.code


@pytest.mark.parametrize("record", [RECORD, EMPTY, replace(RECORD, held=True, preimage=None)])
def test_what_is_encoded_is_parsed_to_the_same(record: Record) -> None:
    assert Record.parse(record.encode()) == record
    assert Leaf.parse(Leaf.of(record).encode()) == Leaf.of(record)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_its_leaf(kind: Kind) -> None:
    record = replace(RECORD, kind=kind)
    assert Leaf.parse(Leaf.of(record).encode()).kind == kind


@given(inputs(RECORD.encode(), EMPTY.encode()))
def test_any_bytes_are_a_record_or_malformed(data: bytes) -> None:
    check_total(Record.parse, lambda record: record.encode(), data)  # type: ignore[attr-defined]


@given(inputs(LEAF.encode()))
def test_any_bytes_are_a_leaf_or_malformed(data: bytes) -> None:
    check_total(Leaf.parse, lambda leaf: leaf.encode(), data)  # type: ignore[attr-defined]


@given(st.sampled_from(keys(RECORD.encode())), st.sampled_from(keys(LEAF.encode())))
def test_every_field_is_needed(record_key: int | str, leaf_key: int | str) -> None:
    assert code_of(Record.parse, without_field(RECORD.encode(), record_key)) is Code.FIELD_MISSING
    assert code_of(Leaf.parse, without_field(LEAF.encode(), leaf_key)) is Code.FIELD_MISSING


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/v2/record", Code.VERSION_UNSUPPORTED),
        (1, "another", Code.FIELD_RANGE),
        (1, 1, Code.FIELD_TYPE),
        (2, bytes(15), Code.FIELD_RANGE),
        (3, -1, Code.FIELD_RANGE),
        (3, 2**53 + 1, Code.FIELD_RANGE),
        (3, b"", Code.FIELD_TYPE),
        (4, None, Code.FIELD_TYPE),
        (5, 1, Code.FIELD_TYPE),
        (5, None, Code.FIELD_TYPE),
        (6, [bytes(32)], Code.FIELD_MISSING),
        (6, [bytes(32), bytes(31)], Code.FIELD_RANGE),
        (6, [bytes(32)] * 3, Code.TOO_LARGE),
        (6, {}, Code.FIELD_TYPE),
        (7, bytes(limits.OPENING_MAX + 1), Code.TOO_LARGE),
        (8, bytes(limits.TERMS_MAX + 1), Code.TOO_LARGE),
        (9, bytes(65), Code.TOO_LARGE),
        (10, bytes(31), Code.FIELD_RANGE),
        (11, bytes(33), Code.FIELD_RANGE),
        (12, None, Code.FIELD_TYPE),
        (13, b"", Code.FIELD_RANGE),
        (14, bytes(limits.TERMS_MAX + 1), Code.TOO_LARGE),
        (15, None, Code.FIELD_TYPE),
        (16, [b"", bytes(32)], Code.NOT_CBOR),
        (16, [bytes(32)], Code.FIELD_RANGE),
        (17, None, Code.FIELD_TYPE),
        (17, bytes(31), Code.FIELD_RANGE),
        (18, [], Code.FIELD_RANGE),
        (18, [[], []], Code.FIELD_RANGE),
        (18, [[], [], [], []], Code.TOO_LARGE),
        (18, {}, Code.FIELD_TYPE),
        (18, [[_READ, _READ], [], []], Code.NOT_DETERMINISTIC),
        (18, [[], [_COPY, _COPY], []], Code.NOT_DETERMINISTIC),
        (18, [[_COPY], [], []], Code.FIELD_RANGE),
        (18, [[_READ[:4]], [], []], Code.FIELD_RANGE),
        (18, [[[*_READ[:4], -1]], [], []], Code.FIELD_RANGE),
        (18, [[], [[*_COPY[:4], 0]], []], Code.FIELD_RANGE),
        (18, [[], [], [_PAST, _PAST]], Code.NOT_DETERMINISTIC),
        (18, [[], [], [_PAST[:7]]], Code.FIELD_RANGE),
        (18, [[], [], [[*_PAST[:4], b"", *_PAST[5:]]]], Code.NOT_CBOR),
        (18, [[], [], [[*_PAST[:6], 21, _PAST[7]]]], Code.FIELD_RANGE),
        (18, [[], [], [[*_PAST[:7], [0, 0]]]], Code.FIELD_RANGE),
        (18, [[bytes([n]) for n in range(65)], [], []], Code.TOO_LARGE),
        (19, bytes(31), Code.FIELD_RANGE),
        (20, None, Code.FIELD_UNKNOWN),
    ],
)
def test_records_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(Record.parse, with_field(RECORD.encode(), key, value)) is code


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, "weighbridge/v1/record", Code.VERSION_UNSUPPORTED),
        (1, "", Code.FIELD_RANGE),
        (3, True, Code.FIELD_TYPE),
        (7, None, Code.FIELD_TYPE),
        (8, bytes(31), Code.FIELD_RANGE),
        (9, None, Code.FIELD_TYPE),
        (10, None, Code.FIELD_TYPE),
        (11, None, Code.FIELD_UNKNOWN),
    ],
)
def test_leaves_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    assert code_of(Leaf.parse, with_field(LEAF.encode(), key, value)) is code


def test_a_leaf_commits_to_the_whole_record() -> None:
    changes: dict[str, Any] = {
        "kind": "closing",
        "session": bytes(16),
        "seq": 4,
        "received_ns": 1,
        "held": True,
        "preimage": None,
        "opening": None,
        "terms": None,
        "secret": None,
        "window": None,
        "evidence": None,
        "policy": NO_DIGEST,
        "reference": NO_DIGEST,
        "requirements": None,
        "verdict": b"",
        "spot": None,
        "collateral": NO_DIGEST,
        "history": None,
        "previous": None,
    }
    assert set(changes) == set(Record.__slots__)
    leaves = {Leaf.of(replace(RECORD, **{name: other})).record for name, other in changes.items()}
    assert len(leaves | {LEAF.record}) == 20


def test_a_leaf_names_what_can_be_followed_without_the_records() -> None:
    assert (LEAF.window, LEAF.previous) == (RECORD.window, RECORD.previous)
    assert (LEAF.policy, LEAF.collateral) == (RECORD.policy, RECORD.collateral)


def test_a_leaf_is_small() -> None:
    """Raw windows would be half a terabyte a day at design rate."""
    assert len(LEAF.encode()) < 280


# -- the bundle that a policy came in ----------------------------------------------------------------------------------

BUNDLE: Final = {"owner": "Acme", "name": "gate", "number": 7, "digest": "00" * 32, "tenant": None}


def judged(policy: object) -> Record:
    return replace(RECORD, verdict=strict.json_encode({"policy": policy}))


def test_a_verdict_names_its_policys_bundle() -> None:
    assert judged({"bundle": BUNDLE}).revision == Revision("Acme", "gate", 7, "00" * 32, None)
    assert judged({"bundle": {**BUNDLE, "tenant": "tenant-a"}}).revision == Revision(
        "Acme", "gate", 7, "00" * 32, "tenant-a"
    )
    for none in (None, {}, {"bundle": None}):
        assert judged(none).revision is None
    assert replace(RECORD, verdict=b"[]").revision is None


@pytest.mark.parametrize(
    "bundle",
    [
        "gate",
        [],
        {},
        {"owner": "Acme"},
        {**BUNDLE, "number": "7"},
        {**BUNDLE, "number": True},
        {**BUNDLE, "tenant": 1},
    ],
)
def test_a_verdict_that_names_it_otherwise_is_none_of_ours(bundle: object) -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        _ = judged({"bundle": bundle}).revision
    assert refusal.value.code is Code.FIELD_TYPE
