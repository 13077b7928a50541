"""The statement that endorses a key for tokens: one encoding, and nothing else is read as one."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import derive_key
from weighbridge.proto import cbor, cose
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.token_key import PERIOD_MAX_NS, TOKEN_KEY_TYP, VERSION, TokenKeyStatement
from weighbridge.verifier.keys import sign_es256

IDENTITY: Final = derive_key("verifier")
KEY: Final = derive_key("token-key")
KID: Final = cose.thumbprint(IDENTITY.public_key())
FIELDS: Final = {0: VERSION, 1: cose.spki(KEY.public_key()), 2: 10, 3: 20, 4: 5}


def statement(not_before: int = 10, not_after: int = 20, issued: int = 5) -> TokenKeyStatement:
    return TokenKeyStatement(key=KEY.public_key(), not_before_ns=not_before, not_after_ns=not_after, issued_ns=issued)


def signed(of: TokenKeyStatement) -> bytes:
    return of.sign(kid=KID, signer=lambda data: sign_es256(IDENTITY, data))


@given(st.integers(0, 2**62), st.integers(1, PERIOD_MAX_NS), st.integers(0, 2**63 - 1))
def test_what_is_read_is_what_was_signed(not_before: int, length: int, issued: int) -> None:
    made = statement(not_before, not_before + length, issued)
    message = cose.parse(signed(made), typ=TOKEN_KEY_TYP, limit=1024, what="statement")
    assert TokenKeyStatement.parse(cose.verify(message, IDENTITY.public_key())) == made
    assert message.claimed_kid == KID


@pytest.mark.parametrize("after", [10, 9, 11 + PERIOD_MAX_NS])
def test_an_empty_or_endless_period_is_neither_signed_nor_read(after: int) -> None:
    with pytest.raises(ValueError, match="period"):
        signed(statement(10, after))
    with pytest.raises(MalformedEvidence) as refused:
        TokenKeyStatement.parse(cbor.encode({**FIELDS, 3: after}))
    assert refused.value.code is Code.FIELD_RANGE


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        TokenKeyStatement.parse(data)


@pytest.mark.parametrize("key", sorted(FIELDS))
@pytest.mark.parametrize("value", [None, True, -1, 2**63, b"", "", [], ...])
def test_every_field_is_there_and_of_its_type(key: int, value: object) -> None:
    fields: dict[int, object] = {**FIELDS, key: value}
    if value is ...:
        del fields[key]
    with pytest.raises(MalformedEvidence):
        TokenKeyStatement.parse(cbor.encode(fields))


def test_there_is_no_other_field() -> None:
    with pytest.raises(MalformedEvidence) as refused:
        TokenKeyStatement.parse(cbor.encode({**FIELDS, 5: 0}))
    assert refused.value.code is Code.FIELD_UNKNOWN
