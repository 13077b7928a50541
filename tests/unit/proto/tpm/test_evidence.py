"""The quote's envelope: read back as written, and nothing else read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm.evidence import QuoteEvidence

_octets = st.binary(max_size=64)


@given(_octets, _octets, st.lists(_octets, max_size=24).map(tuple))
def test_encoding_is_read_back(attest: bytes, signature: bytes, values: tuple[bytes, ...]) -> None:
    evidence = QuoteEvidence(attest=attest, signature=signature, pcr_values=values)
    assert QuoteEvidence.parse(evidence.encode()) == evidence


@given(st.binary(max_size=100))
def test_parse_is_total(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert QuoteEvidence.parse(data).encode() == data


SHAPES: list[tuple[object, Code]] = [
    ({}, Code.FIELD_TYPE),
    ([b"", b""], Code.FIELD_RANGE),
    ([b"", b"", [], b""], Code.TOO_LARGE),
    (["", b"", []], Code.FIELD_TYPE),
    ([b"", 1, []], Code.FIELD_TYPE),
    ([b"", b"", {}], Code.FIELD_TYPE),
    ([b"", b"", [None]], Code.FIELD_TYPE),
    ([b"", b"", [b""] * 25], Code.TOO_LARGE),
    ([b"", b"", [bytes(65)]], Code.TOO_LARGE),
    ([bytes(4097), b"", []], Code.TOO_LARGE),
    ([b"", bytes(4097), []], Code.TOO_LARGE),
    ([bytes(20_000), b"", []], Code.TOO_LARGE),
]


@pytest.mark.parametrize(("value", "code"), SHAPES)
def test_other_shapes(value: object, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        QuoteEvidence.parse(cbor.encode(value))
    assert caught.value.code is code
