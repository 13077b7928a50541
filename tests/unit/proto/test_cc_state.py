"""The host's word on confidential computing: what it can say, and that nothing else is read as it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.errors import Code, MalformedEvidence

STATES = st.builds(
    CcState,
    environment=st.integers(0, 255),
    feature=st.sampled_from(["on", "off"]),
    dev_tools=st.booleans(),
    multi_gpu=st.sampled_from(["none", "protected_pcie", "nvle"]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=4) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
)


@given(STATES)
def test_what_is_written_is_read(state: CcState) -> None:
    decoded = cbor.decode(cbor.encode(state.to_cbor()), limit=64, what="state")
    assert CcState.from_cbor(decoded, where="state") == state


@given(VALUES)
def test_anything_else_is_malformed(value: cbor.CborValue) -> None:
    try:
        state = CcState.from_cbor(value, where="state")
    except MalformedEvidence:
        return
    assert state.to_cbor() == value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([2, "on", False], Code.FIELD_RANGE),
        ([2, "on", False, "none", 0], Code.TOO_LARGE),
        ([256, "on", False, "none"], Code.FIELD_RANGE),
        ([-1, "on", False, "none"], Code.FIELD_RANGE),
        ([True, "on", False, "none"], Code.FIELD_TYPE),
        ([2, "ON", False, "none"], Code.FIELD_RANGE),
        ([2, True, False, "none"], Code.FIELD_TYPE),
        ([2, "devtools", False, "none"], Code.TOO_LARGE),
        ([2, "on", 0, "none"], Code.FIELD_TYPE),
        ([2, "on", False, "mpt"], Code.FIELD_RANGE),
        (None, Code.FIELD_TYPE),
    ],
)
def test_refused(value: cbor.CborValue, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        CcState.from_cbor(value, where="header.cc")
    assert caught.value.code is code
    assert caught.value.where.startswith("header.cc")
