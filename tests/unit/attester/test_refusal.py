"""What the verifier answers, read strictly; a refusal that cannot be read is one still."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.attester.courier import denied
from weighbridge.attester.refusal import VerdictNotice, refusal_error, token_expiry
from weighbridge.proto import strict
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
    WeighbridgeError,
)

DENIAL: dict[str, object] = {
    "code": "MODEL_UNDECLARED",
    "message": "another model",
    "window": 3,
    "device": None,
    "expected": "aa",
    "got": "bb",
    "hint": "declare it",
}
VERDICT: dict[str, object] = {
    "schema": "weighbridge/verdict/v1",
    "seq": 3,
    "outcome": "denied",
    "received_at": "2026-06-01T12:00:00Z",
    "denials": [DENIAL],
    "later": "passed over",
}


def notice(**changes: object) -> VerdictNotice:
    return VerdictNotice.parse(strict.json_encode({**VERDICT, **changes}))


def test_reads_a_verdict() -> None:
    got = notice()
    assert (got.seq, got.outcome) == (3, "denied")
    assert got.received == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert [(item.code, item.hint) for item in got.denials] == [("MODEL_UNDECLARED", "declare it")]
    assert got.document["later"] == "passed over"


def test_a_denial_about_one_gpu_names_it() -> None:
    gpu = "3f" * 32
    (first,) = notice(denials=[{**DENIAL, "device": gpu}]).denials
    assert (first.device, first.text) == (gpu, "GPU 3f3f3f3f3f3f3f3f…: another model")
    assert "GPU 3f3f3f3f3f3f3f3f…: another model" in str(denied(notice(denials=[{**DENIAL, "device": gpu}])))
    (named,) = notice(denials=[{**DENIAL, "device": gpu, "message": f"GPU {gpu} is lost"}]).denials
    assert named.text == f"GPU {gpu} is lost"
    (other,) = notice().denials
    assert (other.device, other.text) == (None, "another model")


@pytest.mark.parametrize("outcome", ["affirmed", "held", "indeterminate", "denied"])
def test_every_outcome_is_known(outcome: str) -> None:
    assert notice(outcome=outcome).outcome == outcome


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"schema": "other"}, Code.VERSION_UNSUPPORTED),
        ({"schema": None}, Code.FIELD_TYPE),
        ({"outcome": "admitted"}, Code.FIELD_RANGE),
        ({"seq": True}, Code.FIELD_RANGE),
        ({"seq": "3"}, Code.FIELD_RANGE),
        ({"denials": None}, Code.FIELD_TYPE),
        ({"denials": [1]}, Code.FIELD_TYPE),
        ({"denials": [{**DENIAL, "code": 1}]}, Code.FIELD_TYPE),
        ({"denials": [{**DENIAL, "hint": 1}]}, Code.FIELD_TYPE),
        ({"denials": [{**DENIAL, "device": 1}]}, Code.FIELD_TYPE),
        ({"received_at": "now"}, Code.NOT_A_TIME),
    ],
)
def test_a_verdict_with_one_wrong_field(changes: dict[str, object], code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        notice(**changes)
    assert caught.value.code is code


def test_a_verdict_is_an_object() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        VerdictNotice.parse(b"[]")
    assert caught.value.code is Code.FIELD_TYPE


def test_a_denial_ends_the_session_by_its_own_code() -> None:
    error = denied(notice())
    assert (error.code, error.where, error.expected, error.got) == (Code.MODEL_UNDECLARED, "window 3", "aa", "bb")
    assert error.hint == "declare it"


def test_a_denial_of_a_code_that_is_not_known_here() -> None:
    error = denied(notice(denials=[{**DENIAL, "code": "FROM_THE_AUTHOR", "hint": None}]))
    assert (error.code, error.hint) == (Code.POLICY_DENIED, "")


def test_a_denial_without_a_reason() -> None:
    assert denied(notice(denials=[])).code is Code.POLICY_DENIED


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (3, MalformedEvidence),
        (4, NotAuthentic),
        (5, PolicyDenied),
        (6, Indeterminate),
        (7, LedgerInconsistent),
        (8, EnvironmentFault),
        (1, EnvironmentFault),
        (0, EnvironmentFault),
        (99, EnvironmentFault),
    ],
)
def test_a_refusal_keeps_its_class(exit_code: int, kind: type[WeighbridgeError]) -> None:
    sent = NotAuthentic(
        Code.WINDOW_PEER, "another peer", where="channel", expected=b"\1", got=b"\2", clause="RFC", hint="look"
    )
    error = refusal_error(exit_code, strict.json_encode(sent.document()))
    assert type(error) is kind
    assert (error.code, error.where, error.expected, error.got) == (Code.WINDOW_PEER, "channel", "01", "02")
    assert (error.clause, error.hint) == ("RFC", "look")
    assert error.message == "the verifier refused: another peer"


def test_a_refusal_of_a_code_that_is_not_known_here() -> None:
    error = refusal_error(4, b'{"code": "LATER", "message": "so"}')
    assert type(error) is NotAuthentic
    assert error.code is Code.PEER_REFUSED
    assert "LATER: so" in error.message


def test_an_internal_error_of_the_verifier() -> None:
    error = refusal_error(1, b'{"code": null, "message": "internal error: KeyError"}')
    assert type(error) is EnvironmentFault
    assert error.code is Code.PEER_REFUSED
    assert "KeyError" in error.message


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"\xff", b'{"code": "TPM_NONCE"}'])
def test_a_refusal_that_cannot_be_read(document: bytes) -> None:
    error = refusal_error(5, document)
    assert error.code is Code.PEER_REFUSED


@given(st.integers(), st.binary(max_size=80))
def test_any_refusal_is_an_error(exit_code: int, document: bytes) -> None:
    assert isinstance(refusal_error(exit_code, document), WeighbridgeError)


def token(payload: object) -> str:
    body = strict.base64url_encode(strict.json_encode(payload))
    return f"e30.{body}.sig"


def test_a_token_says_when_it_expires() -> None:
    assert token_expiry(token({"exp": 1_780_315_200})) == datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "e30.###.x",
        token([]),
        token({}),
        token({"exp": "1"}),
        token({"exp": True}),
        token({"exp": -1}),
        token({"exp": 2**40}),
        "x" * 70_000,
    ],
)
def test_what_is_not_a_token(text: str) -> None:
    with pytest.raises(MalformedEvidence):
        token_expiry(text)
