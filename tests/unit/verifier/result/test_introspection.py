"""Introspection (RFC 7662): active while the session's gate is open and the token is good, else nothing is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.result_tokens import AUDIENCE, CLAIMS, KEY, NOON, PERIOD_NS, issued, verified
from weighbridge.proto.errors import Code
from weighbridge.verifier.affirmed import Affirmed
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.result import Serialisation
from weighbridge.verifier.result.introspection import INACTIVE, introspect, introspect_bytes
from weighbridge.verifier.result.trusted import TrustedKeys
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut, Standing

if TYPE_CHECKING:
    from weighbridge.proto import strict

KEYS: Final = TrustedKeys.of(KEY.public_key())
END: Final = NOON + timedelta(seconds=17)
OPEN: Final = Standing(
    session=CLAIMS.session,
    tenant=CLAIMS.tenant,
    state=SessionState.RUNNING,
    affirmed=Affirmed(claims=CLAIMS, received_ns=nanoseconds(NOON), period_ns=PERIOD_NS, within=None),
    shut=None,
)
DENIED: Final = replace(OPEN, affirmed=None, shut=Shut(Code.POLICY_DENIED, "denied", 8))


def asked(
    token: bytes,
    standing: Standing | None = OPEN,
    *,
    at: datetime = NOON,
    audience: str = AUDIENCE,
) -> strict.JsonObject:
    return introspect_bytes(token, KEYS, audiences=(audience,), at=at, standing_of=lambda _: standing)


@pytest.mark.parametrize("serialisation", list(Serialisation))
def test_a_good_token_of_an_open_session_is_active(serialisation: Serialisation) -> None:
    answer = asked(issued(serialisation))
    assert answer["active"] is True
    assert (answer["sub"], answer["aud"], answer["jti"]) == (CLAIMS.session.hex(), AUDIENCE, CLAIMS.identifier)
    assert answer["exp"] == int(END.timestamp())
    assert "kid" in answer["cnf"]  # type: ignore[operator]
    assert "tpm0" in answer["submods"]  # type: ignore[operator]


@pytest.mark.parametrize(
    "standing",
    [
        DENIED,
        None,
        replace(OPEN, affirmed=None),
        replace(OPEN, state=SessionState.CLOSED),
        replace(OPEN, state=SessionState.FAILED),
        replace(OPEN, tenant="tenant-b"),
    ],
)
def test_a_good_token_of_a_session_that_is_not_open_is_not(standing: Standing | None) -> None:
    """Offline it would be good for seconds still: that is what introspection is for."""
    token = issued(Serialisation.EAR_04)
    verified(token)
    assert asked(token, standing) == {"active": False}


def test_it_ends_with_the_token_though_the_session_goes_on() -> None:
    later = replace(CLAIMS, seq=8)
    goes_on = Affirmed(claims=later, received_ns=nanoseconds(END), period_ns=PERIOD_NS, within=None)
    standing = replace(OPEN, affirmed=goes_on)
    token = issued(Serialisation.EAR_04)
    assert asked(token, standing, at=END - timedelta(microseconds=1))["active"] is True
    assert asked(token, standing, at=END) == INACTIVE
    assert introspect(verified(token), standing, at=END) == INACTIVE


def test_it_is_for_the_audience_of_whoever_asks() -> None:
    assert asked(issued(Serialisation.EAR_04), audience="another") == INACTIVE


@given(st.binary(max_size=80))
def test_any_other_bytes_are_not_active(data: bytes) -> None:
    assert asked(data) == INACTIVE


def test_a_token_of_a_stranger_is_not_active() -> None:
    token = issued(Serialisation.EAR_04)
    nobody = introspect_bytes(token, TrustedKeys.of(), audiences=(AUDIENCE,), at=NOON, standing_of=lambda _: OPEN)
    assert nobody == INACTIVE


def test_the_standing_is_that_of_the_tokens_session() -> None:
    with pytest.raises(ValueError, match="another session"):
        introspect(verified(issued(Serialisation.EAR_04)), replace(OPEN, session=bytes(16)), at=NOON)


def test_answers_are_nobodys_to_change() -> None:
    answer = asked(b"")
    answer["active"] = True
    assert asked(b"") == {"active": False}
