"""The order of map keys: computed from the keys here, and from their encodings by RFC 8949's own words."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence

KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=300)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


@given(st.lists(KEYS, unique=True, max_size=12))
def test_keys_stand_in_the_bytewise_order_of_their_encodings(keys: list[int | str]) -> None:
    decoded = cbor2.loads(cbor.encode(dict.fromkeys(keys)))
    assert list(decoded) == sorted(keys, key=cbor2.dumps)


@given(VALUES)
def test_what_is_encoded_is_accepted_and_nothing_else_that_means_the_same(value: object) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data, limit=len(data), what="x") == value
    other = cbor2.dumps(value)
    if other != data:
        with pytest.raises(MalformedEvidence) as caught:
            cbor.decode(other, limit=len(other), what="x")
        assert caught.value.code is Code.NOT_DETERMINISTIC


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("a202000100", Code.NOT_DETERMINISTIC),  # {2: 0, 1: 0}
        ("a120000000", Code.NOT_DETERMINISTIC),  # trailing bytes
        ("a220000000", Code.NOT_DETERMINISTIC),  # {-1: 0, 0: 0}
        ("a2616200616100", Code.NOT_DETERMINISTIC),  # {"b": 0, "a": 0}
        ("a262616100616200", Code.NOT_DETERMINISTIC),  # {"aa": 0, "b": 0}
        ("81a202000100", Code.NOT_DETERMINISTIC),  # inside an array
        ("a100a202000100", Code.NOT_DETERMINISTIC),  # inside a map
        ("1800", Code.NOT_DETERMINISTIC),  # 0 in two bytes
        ("a201000100", Code.DUPLICATE_KEY),
        ("a1f500", Code.NOT_CBOR),  # {true: 0}
        ("a1f600", Code.NOT_CBOR),  # {null: 0}
        ("a1410000", Code.NOT_CBOR),  # {h'00': 0}
        ("f90000", Code.NOT_CBOR),  # 0.0
        ("81f90000", Code.NOT_CBOR),
        ("a100f7", Code.NOT_CBOR),  # undefined
        ("e0", Code.NOT_CBOR),  # a simple value
        ("c100", Code.NOT_CBOR),  # a tag
        ("9fff", Code.NOT_CBOR),  # indefinite
    ],
)
def test_every_other_encoding_is_refused(data: str, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        cbor.decode(bytes.fromhex(data), limit=100, what="x")
    assert caught.value.code is code
