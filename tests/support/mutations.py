"""Inputs for parsers: any bytes, valid bytes with damage, and valid structures with one value exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from weighbridge.proto import cbor
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy

_LIMIT = 16 * 1024 * 1024
_LEAVES: SearchStrategy[cbor.CborValue] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.sampled_from([0, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1]),
    st.binary(max_size=40),
    st.sampled_from([bytes(16), bytes(31), bytes(32), bytes(33)]),
    st.text(max_size=20),
)
VALUES: SearchStrategy[cbor.CborValue] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.integers(-5, 30), st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=8,
)
"""Whatever the accepted subset of CBOR can say, small."""


def inputs(*valid: bytes) -> SearchStrategy[bytes]:
    """Any bytes; any value; ``valid`` with bytes damaged; ``valid`` with one value in it exchanged, encoded again."""
    return st.one_of(
        st.binary(max_size=300),
        VALUES.map(cbor.encode),
        st.sampled_from(valid).flatmap(_damaged),
        st.sampled_from(valid).flatmap(_exchanged),
    )


@st.composite
def _damaged(draw: DrawFn, valid: bytes) -> bytes:
    start = draw(st.integers(0, len(valid)))
    end = draw(st.integers(start, min(len(valid), start + 4)))
    return valid[:start] + draw(st.binary(max_size=4)) + valid[end:]


@st.composite
def _exchanged(draw: DrawFn, valid: bytes) -> bytes:
    value = cbor.decode(valid, limit=_LIMIT, what="valid")
    places = list(_places(value))
    path = draw(st.sampled_from(places))
    return cbor.encode(_replaced(value, path, draw(VALUES)))


def _places(value: cbor.CborValue, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:8]):
            found += _places(item, (*path, index))
    return found


def _replaced(value: cbor.CborValue, path: tuple[int | str, ...], new: cbor.CborValue) -> cbor.CborValue:
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: _replaced(value[key], tuple(rest), new)}
    assert isinstance(value, list)
    assert isinstance(key, int)
    return [*value[:key], _replaced(value[key], tuple(rest), new), *value[key + 1 :]]


def check_total(parse: Callable[[bytes], object], encode: Callable[[object], bytes] | None, data: bytes) -> None:
    """``parse`` gives a value or :class:`MalformedEvidence`; what it gives is encoded as it came."""
    try:
        value = parse(data)
    except MalformedEvidence:
        return
    if encode is not None:
        assert encode(value) == data


def with_field(valid: bytes, key: int | str, value: cbor.CborValue) -> bytes:
    """The encoded map ``valid`` with another value at ``key``."""
    fields = cbor.decode(valid, limit=_LIMIT, what="valid")
    assert isinstance(fields, dict)
    return cbor.encode({**fields, key: value})


def without_field(valid: bytes, key: int | str) -> bytes:
    """The encoded map ``valid`` without ``key``."""
    fields = cbor.decode(valid, limit=_LIMIT, what="valid")
    assert isinstance(fields, dict)
    return cbor.encode({other: value for other, value in fields.items() if other != key})


def keys(valid: bytes) -> list[int | str]:
    """The keys of the encoded map ``valid``."""
    fields = cbor.decode(valid, limit=_LIMIT, what="valid")
    assert isinstance(fields, dict)
    return list(fields)
