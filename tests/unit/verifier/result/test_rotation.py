"""A verifier that changes its key for tokens while a session runs: every token is accepted, none twice by two keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from support.world import Engines, World
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.relying_parties import RelyingParty
from weighbridge.verifier.result import ResultToken, Serialisation, jwks, verify_any
from weighbridge.verifier.result.key_store import ANNOUNCED_MIN, TokenKeyStore
from weighbridge.verifier.result.trusted import TrustedKey
from weighbridge.verifier.result_source import Asked

AUDIENCE = "relying-party"
PARTY = RelyingParty(name="gate", key="00" * 32, tenants=("tenant-a",), audiences=(AUDIENCE,))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    engines = Engines()
    made = World.make(tmp_path, engines=engines)
    yield made
    made.close()
    engines.close()


def read(world: World, token: bytes | None) -> ResultToken:
    """By a relying party that has pinned the verifier and fetches its keys each time."""
    assert token is not None
    at = world.clock.now()
    fetched = strict.json_encode(TokenKeyStore(world.keys).jwks(at))
    keys = jwks.read(fetched, [TrustedKey(world.keys.signing.public_key())])
    return verify_any(token, keys, audiences=(AUDIENCE,), at=at)


def told(world: World, serialisation: Serialisation) -> bytes | None:
    asked = Asked(party=PARTY, audience=AUDIENCE, serialisation=serialisation)
    return world.verifier.results.result(world.host.session, asked).token


def sent(world: World) -> bytes | None:
    token = world.window().token
    return None if token is None else token.encode()


def announced(world: World, *, ahead: float) -> bytes:
    """A key for tokens; a session opens ``ahead`` seconds before that key's time."""
    now = world.clock.now()
    since = now + ANNOUNCED_MIN
    made = TokenKeyStore(world.keys).new(at=now, not_before=since, not_after=since + timedelta(days=90))
    world.clock.advance(ANNOUNCED_MIN.total_seconds() - ahead)
    world.open_session()
    return made.trusted.kid


def test_the_new_key_signs_from_its_time_on_and_the_old_ones_token_stands(world: World) -> None:
    identity = world.keys.thumbprint
    key = announced(world, ahead=2.5)
    assert read(world, sent(world)).key == identity
    # The last window before the key's time.
    last = sent(world)
    assert read(world, last).key == identity
    world.clock.advance(0.75)
    # Asked for anew when the key signs already: a token of a window that came before is of the key of then.
    assert read(world, told(world, Serialisation.VERAISON_2023)).key == identity
    assert read(world, sent(world)).key == key
    assert read(world, last).key == identity
    assert {read(world, told(world, one)).key for one in Serialisation} == {key}
    # Retired, while the verifier serves.
    TokenKeyStore(world.keys).retire(key, at=world.clock.now(), distrust=False)
    assert read(world, sent(world)).key == identity


def test_keys_that_cannot_be_read_stop_the_window_before_anything_is_recorded(world: World) -> None:
    key = announced(world, ahead=0)
    assert world.keys.tokens is not None
    private = world.keys.tokens / f"{key.hex()}.pem"
    private.rename(private.with_suffix(".away"))
    size = world.ledger.size
    sealed = world.host.seal()
    with pytest.raises(EnvironmentFault) as fault:
        world.send(sealed.evidence)
    assert (fault.value.code, world.ledger.size) == (Code.FILE_UNREADABLE, size)
    # And it may come again.
    private.with_suffix(".away").rename(private)
    answer = world.deliver(sealed)
    assert read(world, answer.token.encode() if answer.token else None).key == key
