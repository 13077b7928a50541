"""Rows A29 to A34 for our own tokens, and A67: what a gate must not take for a good token."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.world import software_key
from weighbridge.proto import cose, strict
from weighbridge.verifier import result_token

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.result_token import ResultToken

AUDIENCE = "relying-party"


@dataclass(frozen=True)
class _Issued:
    """A token as it was given out."""

    world: World
    token: str

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        return self.world.keys.signing.public_key()

    def verify(self, token: str | None = None, *, audience: str = AUDIENCE, after: float = 0) -> ResultToken:
        self.world.clock.advance(after)
        return result_token.verify(token or self.token, self.key, audience=audience, at=self.world.clock.at)


def _issue(arena: Arena) -> _Issued:
    world = arena.settled(1)
    answer = world.window()
    assert answer.token is not None
    arena.forget()
    return _Issued(world, answer.token)


def _part(value: dict[str, Any]) -> str:
    return strict.base64url_encode(json.dumps(value).encode())


def _read(part: str) -> dict[str, Any]:
    value = strict.json_decode(strict.base64url_decode(part, what="part"), what="part")
    assert isinstance(value, dict)
    return value


def case_001_good(arena: Arena) -> ResultToken:
    return _issue(arena).verify(after=1)


def case_002_without_a_signature(arena: Arena) -> ResultToken:
    issued = _issue(arena)
    header, payload, _ = issued.token.split(".")
    return issued.verify(f"{_part({**_read(header), 'alg': 'none'})}.{payload}.")


def case_003_symmetric_with_the_public_key(arena: Arena) -> ResultToken:
    issued = _issue(arena)
    header, payload, _ = issued.token.split(".")
    signed = f"{_part({**_read(header), 'alg': 'HS256'})}.{payload}"
    pem = issued.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    mac = hmac.digest(pem, signed.encode(), "sha256")
    return issued.verify(f"{signed}.{strict.base64url_encode(mac)}")


def _signed_by_another(arena: Arena, *, kid: bool, **header: object) -> ResultToken:
    issued = _issue(arena)
    key = software_key("another verifier")
    named = key.public_key() if kid else issued.key
    headers = {"kid": strict.base64url_encode(cose.thumbprint(named)), "typ": "eat+jwt", **header}
    payload = _read(issued.token.split(".")[1])
    return issued.verify(jwt.encode(payload, key, algorithm="ES256", headers=headers))


def case_004_of_another_verifier(arena: Arena) -> ResultToken:
    return _signed_by_another(arena, kid=True)


def case_005_signed_anew_under_the_same_name(arena: Arena) -> ResultToken:
    return _signed_by_another(arena, kid=False)


def case_006_brings_its_own_key(arena: Arena) -> ResultToken:
    public = software_key("another verifier").public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": strict.base64url_encode(public.x.to_bytes(32)),
        "y": strict.base64url_encode(public.y.to_bytes(32)),
    }
    return _signed_by_another(arena, kid=False, jwk=jwk)


def case_007_claims_edited(arena: Arena) -> ResultToken:
    issued = _issue(arena)
    header, payload, signature = issued.token.split(".")
    edited = {**_read(payload), "exp": 4_000_000_000}
    return issued.verify(f"{header}.{_part(edited)}.{signature}")


def case_008_expired(arena: Arena) -> ResultToken:
    """The session stopped: 1.5 windows of 1 s and 2 s later nothing is left of it."""
    return _issue(arena).verify(after=timedelta(seconds=3.5).total_seconds())


def case_009_for_another_audience(arena: Arena) -> ResultToken:
    return _issue(arena).verify(audience="somebody-else")


def case_010_claim_twice(arena: Arena) -> ResultToken:
    issued = _issue(arena)
    header, payload, signature = issued.token.split(".")
    text = strict.base64url_decode(payload, what="payload")
    twice = strict.base64url_encode(text[:-1] + b',"aud":"somebody-else"}')
    return issued.verify(f"{header}.{twice}.{signature}")


def case_011_not_three_parts(arena: Arena) -> ResultToken:
    issued = _issue(arena)
    return issued.verify(issued.token + ".")


def case_012_critical_extension(arena: Arena) -> ResultToken:
    return _signed_by_another(arena, kid=False, crit=["b64"], b64=False)
