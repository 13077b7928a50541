"""Statements about models: what is read of them, and that nothing else than a statement is one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.mutations import check_total
from support.owners import EVALUATION, Issuer
from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.statement import CYCLONEDX, IN_TOTO, Statement, pre_authentication

MODEL = sha256(b"model")
LAB = Issuer()
IN_TOTO_STATEMENT = LAB.in_toto(MODEL)
ML_BOM = LAB.ml_bom(MODEL)


def envelope(content: object, /, *, payload_type: str = IN_TOTO, **changes: object) -> bytes:
    made = json.loads(LAB.envelope(payload_type, strict.json_encode(content)))
    return json.dumps({**made, **changes}).encode()


def in_toto(**changes: object) -> bytes:
    """A statement of the right shape but for the members that are changed; those of ``None`` are left out."""
    members: dict[str, object] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": MODEL.hex()}}],
        "predicateType": EVALUATION,
        "predicate": {},
        **changes,
    }
    return envelope({name: value for name, value in members.items() if value is not None})


def bom(**changes: object) -> bytes:
    component = {"type": "machine-learning-model", "hashes": [{"alg": "SHA-256", "content": MODEL.hex()}]}
    members: dict[str, object] = {"bomFormat": "CycloneDX", "components": [component], **changes}
    return envelope({name: value for name, value in members.items() if value is not None}, payload_type=CYCLONEDX)


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    return st.tuples(st.integers(0, len(valid)), st.binary(max_size=3)).map(
        lambda damage: valid[: damage[0]] + damage[1] + valid[damage[0] + len(damage[1]) :]
    )


def code_of(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as refusal:
        Statement.parse(data)
    return refusal.value.code


def test_of_an_in_toto_statement_type_date_and_subjects_are_read() -> None:
    statement = Statement.parse(IN_TOTO_STATEMENT)
    assert (statement.type, statement.date) == (EVALUATION, datetime(2026, 5, 1, tzinfo=UTC))
    assert statement.subjects == {MODEL.hex()}
    assert statement.digest == sha256(IN_TOTO_STATEMENT)
    assert [item.claimed_keyid for item in statement.signatures] == [""]


def test_of_an_ml_bom_the_models_and_the_time_are_read() -> None:
    statement = Statement.parse(ML_BOM)
    assert (statement.type, statement.date) == ("cyclonedx", datetime(2026, 4, 1, 9, 30, tzinfo=UTC))
    assert statement.subjects == {MODEL.hex()}


def test_only_hashes_of_models_are_subjects() -> None:
    digests = [{"alg": "SHA-256", "content": "11" * 32}, {"alg": "SHA-512", "content": MODEL.hex()}]
    components = [{"type": "file", "hashes": [{"alg": "SHA-256", "content": MODEL.hex()}]}]
    assert Statement.parse(bom(components=components)).subjects == frozenset()
    assert Statement.parse(bom(components=[{"type": "machine-learning-model", "hashes": digests}])).subjects == {
        "11" * 32
    }
    assert Statement.parse(bom(components=None)).subjects == frozenset()


def test_a_bill_of_materials_is_about_one_model_and_not_about_those_that_it_is_made_of() -> None:
    model, base = (
        {"type": "machine-learning-model", "hashes": [{"alg": "SHA-256", "content": digest.hex()}]}
        for digest in (MODEL, bytes(32))
    )
    about = {"component": model, "timestamp": "2026-04-01T09:30:00Z"}
    assert Statement.parse(bom(metadata=about, components=[base])).subjects == {MODEL.hex()}
    product = {"component": {"type": "application", "name": "a product"}}
    assert Statement.parse(bom(metadata=product, components=[model])).subjects == frozenset()
    assert Statement.parse(bom(metadata=None, components=[model, base])).subjects == frozenset()


def test_digests_of_other_algorithms_are_no_subjects() -> None:
    subject: list[Any] = [{"digest": {"sha512": MODEL.hex(), "gitCommit": MODEL.hex()}}, {"digest": {"sha256": 7}}]
    assert Statement.parse(in_toto(subject=subject)).subjects == frozenset()


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ({}, None),
        (
            {"date": "2026-01-02T03:04:05Z", "timestamp": "2025-01-01T00:00:00Z"},
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
        ({"date": None, "timestamp": "2025-01-01T00:00:00Z"}, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"timeVerified": "2025-01-01T00:00:00+00:00"}, datetime(2025, 1, 1, tzinfo=UTC)),
        (
            {"metadata": {"scanFinishedOn": "2025-01-01T00:00:00.123456789Z"}},
            datetime(2025, 1, 1, 0, 0, 0, 123456, UTC),
        ),
        ({"metadata": {"buildFinishedOn": "2025-01-01T00:00:00Z"}}, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"runDetails": {"metadata": {"finishedOn": "2025-01-01T00:00:00Z"}}}, datetime(2025, 1, 1, tzinfo=UTC)),
        ({"runDetails": {"metadata": 1}}, None),
    ],
)
def test_dates_are_found_where_predicates_have_them(predicate: object, expected: datetime | None) -> None:
    assert Statement.parse(in_toto(predicate=predicate)).date == expected


def test_a_statement_without_a_predicate_has_no_date() -> None:
    assert Statement.parse(in_toto(predicate=None)).date is None


def test_the_signed_bytes_delimit_type_and_payload() -> None:
    """DSSE v1.0.2 protocol.md: its own example."""
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_url_safe_base64_is_accepted() -> None:
    """Verifiers MUST accept either (DSSE v1.0.2 envelope.md)."""
    made = json.loads(IN_TOTO_STATEMENT)
    signature = made["signatures"][0]["sig"].replace("+", "-").replace("/", "_")
    data = json.dumps({**made, "signatures": [{"sig": signature}], "more": "ignored"}).encode()
    assert Statement.parse(data).signatures[0].signature == Statement.parse(IN_TOTO_STATEMENT).signatures[0].signature


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[]", Code.FIELD_TYPE),
        (b"{}", Code.FIELD_TYPE),
        (b" " * (limits.STATEMENT_MAX + 1), Code.TOO_LARGE),
        (envelope({}, payload_type="text/plain"), Code.VERSION_UNSUPPORTED),
        (envelope({}, payloadType=7), Code.FIELD_TYPE),
        (envelope({}, payload="e30"), Code.NOT_BASE64),
        (envelope({}, payload=None), Code.FIELD_TYPE),
        (envelope({}, signatures=[]), Code.FIELD_RANGE),
        (envelope({}, signatures=[{}] * 17), Code.FIELD_RANGE),
        (envelope({}, signatures={}), Code.FIELD_TYPE),
        (in_toto(_type="https://in-toto.io/Statement/v0.1"), Code.VERSION_UNSUPPORTED),
        (in_toto(predicateType=None), Code.FIELD_TYPE),
        (in_toto(predicateType=""), Code.FIELD_RANGE),
        (in_toto(predicateType="a\nb"), Code.FIELD_RANGE),
        (in_toto(predicateType="a" * 513), Code.FIELD_RANGE),
        (in_toto(subject=None), Code.FIELD_TYPE),
        (in_toto(subject=[1]), Code.FIELD_TYPE),
        (in_toto(subject=[{}]), Code.FIELD_TYPE),
        (in_toto(predicate=[]), Code.FIELD_TYPE),
        (in_toto(predicate={"date": "yesterday"}), Code.NOT_A_TIME),
        (in_toto(predicate={"date": 1}), Code.NOT_A_TIME),
        (in_toto(predicate={"date": "2026-13-01T00:00:00Z"}), Code.NOT_A_TIME),
        (in_toto(predicate={"date": "2026-01-01T00:00:00+02:00"}), Code.NOT_A_TIME),
        (bom(bomFormat=None), Code.VERSION_UNSUPPORTED),
        (bom(metadata=1), Code.FIELD_TYPE),
        (bom(metadata={"timestamp": 1}), Code.NOT_A_TIME),
        (bom(components={}), Code.FIELD_TYPE),
        (bom(components=[1]), Code.FIELD_TYPE),
        (bom(components=[{"type": "machine-learning-model", "hashes": 1}]), Code.FIELD_TYPE),
    ],
)
def test_every_deviation_is_refused_by_code(data: bytes, code: Code) -> None:
    assert code_of(data) is code


@pytest.mark.parametrize(
    ("signature", "code"),
    [
        ({"sig": 1}, Code.FIELD_TYPE),
        ({"sig": "!"}, Code.NOT_BASE64),
        ({"sig": strict.base64_encode(bytes(513))}, Code.TOO_LARGE),
        (1, Code.FIELD_TYPE),
    ],
)
def test_signatures_out_of_shape_are_refused(signature: object, code: Code) -> None:
    made = json.loads(IN_TOTO_STATEMENT)
    assert code_of(json.dumps({**made, "signatures": [signature]}).encode()) is code


@given(st.one_of(st.binary(max_size=200), st.sampled_from([IN_TOTO_STATEMENT, ML_BOM]).flatmap(damaged)))
def test_any_bytes_are_a_statement_or_malformed(data: bytes) -> None:
    check_total(Statement.parse, lambda statement: statement.raw, data)  # type: ignore[attr-defined]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["subject", "digest", "predicate", "metadata", "components", "hashes", "type", "date"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from([IN_TOTO, CYCLONEDX]),
)
def test_any_payload_is_a_statement_or_malformed(content: object, payload_type: str) -> None:
    base = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "t", "bomFormat": "CycloneDX", "subject": []}
    payload = {**base, **content} if isinstance(content, dict) else content
    check_total(Statement.parse, None, envelope(payload, payload_type=payload_type))
