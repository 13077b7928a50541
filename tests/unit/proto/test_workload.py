"""The header's account of work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.merkle import EMPTY_ROOT
from weighbridge.proto.workload import WorkSummary, commit

ROOT = bytes([7] * 32)
SUMMARY = WorkSummary(root=ROOT, requests=3, tokens_in=40, tokens_out=0, batch_max=2, prefill_ns=900, decode_ns=8)


def test_summary_returns() -> None:
    for summary in (SUMMARY, WorkSummary.empty()):
        assert WorkSummary.from_cbor(summary.to_cbor(), where="work") == summary


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([EMPTY_ROOT, 0, 1, 0, 0, 0, 0], Code.WORKLOAD_COUNTS),
        ([EMPTY_ROOT, 0, 0, 1, 0, 0, 0], Code.WORKLOAD_COUNTS),
        ([EMPTY_ROOT, 0, 0, 0, 1, 0, 0], Code.WORKLOAD_COUNTS),
        ([ROOT, 0, 0, 0, 0, 0, 0], Code.WORKLOAD_COUNTS),
        ([EMPTY_ROOT, 1, 1, 0, 1, 0, 0], Code.WORKLOAD_COUNTS),
        ([ROOT, 1, 1, 0, 0, 0, 0], Code.WORKLOAD_COUNTS),
        ([ROOT, -1, 1, 0, 1, 0, 0], Code.FIELD_RANGE),
        ([ROOT, 1, 2**53 + 1, 0, 1, 0, 0], Code.FIELD_RANGE),
        ([ROOT[:31], 1, 1, 0, 1, 0, 0], Code.FIELD_RANGE),
        ([ROOT, True, 1, 0, 1, 0, 0], Code.FIELD_TYPE),
        ([EMPTY_ROOT, 0, 0, 0, 0, 1, 0], Code.WORKLOAD_COUNTS),
        ([EMPTY_ROOT, 0, 0, 0, 0, 0, 1], Code.WORKLOAD_COUNTS),
        ([ROOT, 1, 1, 0, 1, -1, 0], Code.FIELD_RANGE),
        ([ROOT, 1, 1, 0, 1, 0, 2**53 + 1], Code.FIELD_RANGE),
        ([ROOT, 1, 1, 0, 1], Code.FIELD_RANGE),
        ([ROOT, 1, 1, 0, 1, 1, 1, 1], Code.TOO_LARGE),
        (None, Code.FIELD_TYPE),
    ],
)
def test_contradictions_are_refused(value: cbor.CborValue, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        WorkSummary.from_cbor(value, where="work")
    assert caught.value.code == code


@given(st.recursive(st.none() | st.integers() | st.binary(max_size=40), lambda inner: st.lists(inner, max_size=8)))
def test_from_cbor_is_total(value: cbor.CborValue) -> None:
    try:
        WorkSummary.from_cbor(value, where="work")
    except MalformedEvidence:
        return


def test_commitment_binds_salt_request_and_response() -> None:
    salt = bytes(range(32))
    assert commit(salt, b"q", b"a") == D("work", salt, sha256(b"q"), sha256(b"a"))
    assert len({commit(salt, b"q", b"a"), commit(salt, b"qa", b""), commit(bytes(32), b"q", b"a")}) == 3
    with pytest.raises(ValueError, match="32 bytes"):
        commit(b"short", b"q", b"a")
