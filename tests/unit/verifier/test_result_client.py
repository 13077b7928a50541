"""What a verifier answers is taken whole or not at all, whatever it is."""

from __future__ import annotations

import json

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf.message import DecodeError
from grpc.aio import AioRpcError, Metadata
from hypothesis import given

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, PolicyDenied
from weighbridge.proto.v1 import results_pb2
from weighbridge.verifier import result_client
from weighbridge.verifier.told import GateState

SESSION = bytes(range(16))
OPEN = results_pb2.Result(
    session=SESSION, state=results_pb2.STATE_OPEN, at_ns=1, expires_ns=2, seq=3, token=b"eyJ0.eyJ0.c2ln"
)
SHUT = results_pb2.Result(
    session=SESSION, state=results_pb2.STATE_CLOSED, at_ns=1, code="TOKEN_EXPIRED", reason="it has expired"
)


def changed(result: results_pb2.Result, *cleared: str, **fields: object) -> results_pb2.Result:
    made = results_pb2.Result()
    made.CopyFrom(result)
    for name in cleared:
        made.ClearField(name)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_what_is_whole_is_taken() -> None:
    answered = result_client._answered(OPEN, {SESSION})
    assert (answered.told.state, answered.told.expires_ns, answered.told.seq) == (GateState.OPEN, 2, 3)
    assert answered.token == OPEN.token
    shut = result_client._answered(SHUT, {SESSION})
    assert (shut.told.state, shut.told.code, shut.told.seq, shut.token) == (
        GateState.CLOSED,
        "TOKEN_EXPIRED",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (results_pb2.Result(), Code.FIELD_MISSING),
        (changed(OPEN, "state"), Code.FIELD_MISSING),
        (changed(OPEN, "at_ns"), Code.FIELD_MISSING),
        (changed(OPEN, "token"), Code.FIELD_MISSING),
        (changed(OPEN, "expires_ns"), Code.FIELD_MISSING),
        (changed(OPEN, code="X"), Code.FIELD_UNKNOWN),
        (changed(OPEN, session=bytes(16)), Code.FIELD_RANGE),
        (changed(OPEN, seq=2**53 + 1), Code.FIELD_RANGE),
        (changed(OPEN, expires_ns=2**63), Code.FIELD_RANGE),
        (changed(OPEN, token=bytes(65 * 1024)), Code.TOO_LARGE),
        (changed(SHUT, "code"), Code.FIELD_MISSING),
        (changed(SHUT, token=b"x"), Code.FIELD_UNKNOWN),
        (changed(SHUT, expires_ns=1), Code.FIELD_UNKNOWN),
        (changed(SHUT, code="X" * 65), Code.TOO_LARGE),
        (changed(SHUT, reason="x" * 5000), Code.TOO_LARGE),
    ],
)
def test_what_is_not_whole_is_refused(answer: results_pb2.Result, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        result_client._answered(answer, {SESSION})
    assert caught.value.code is code


@given(st.binary(max_size=64))
def test_any_answer_is_taken_or_malformed(data: bytes) -> None:
    try:
        answer = results_pb2.Result.FromString(OPEN.SerializeToString() + data)
    except DecodeError:
        return
    try:
        answered = result_client._answered(answer, {SESSION})
    except MalformedEvidence:
        return
    assert (answered.token is None) == (answered.told.state is not GateState.OPEN)


def failure(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details)


def test_a_refusal_is_the_verifiers_own() -> None:
    document = {"code": "RESULT_AUDIENCE", "message": "no", "where": None, "hint": "ask", "exit_code": 5}
    error = result_client._failure(failure(grpc.StatusCode.PERMISSION_DENIED, json.dumps(document)), "v:1")
    assert isinstance(error, PolicyDenied)
    assert (error.code, error.message, error.hint) == (Code.RESULT_AUDIENCE, "no", "ask")


@pytest.mark.parametrize(
    ("status", "details", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", Code.PEER_UNREACHABLE),
        (grpc.StatusCode.UNAVAILABLE, "x: CERTIFICATE_VERIFY_FAILED: y", Code.PEER_UNREACHABLE),
        (grpc.StatusCode.UNIMPLEMENTED, "method not found", Code.PEER_REFUSED),
        (grpc.StatusCode.PERMISSION_DENIED, '{"code":"OF_A_LATER_VERSION","exit_code":5}', Code.PEER_REFUSED),
        (grpc.StatusCode.PERMISSION_DENIED, '{"code":"RESULT_AUDIENCE","exit_code":0}', Code.PEER_REFUSED),
        (grpc.StatusCode.PERMISSION_DENIED, "[" * 100, Code.PEER_REFUSED),
        (grpc.StatusCode.UNAVAILABLE, "", Code.PEER_UNREACHABLE),
    ],
)
def test_any_other_failure_is_the_lines(status: grpc.StatusCode, details: str, code: Code) -> None:
    error = result_client._failure(failure(status, details), "v:1")
    assert isinstance(error, EnvironmentFault)
    assert error.code is code
