"""Signing result tokens: a JWT or a CWT, by ES256."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cbor, cose, strict
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.result.claims import Claims, Confirmation, expiry, status_of, worst
from weighbridge.verifier.result.serialisation import PROFILES, Serialisation
from weighbridge.verifier.result.tree import Result, write

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["CWT_TAG", "Affirmation", "issue", "issue_as"]

_DEVELOPER: Final = "https://weighbridge.example"
# Claims stay in the order of their table.
_JSON: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

CWT_TAG: Final = b"\xd8\x3d"
"""Tag 61 (RFC 8392 §6), before the tag of COSE_Sign1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affirmation:
    """An affirmed, fresh window, as tokens are made of it.

    Attributes:
        claims: what they say.
        received: receipt of the window, aware UTC.
        period_ns: of the session's windows.
        within: seconds after which the policy obliges the host to be attested anew, where it does.
    """

    claims: Claims
    received: datetime
    period_ns: int
    within: int | None

    @property
    def expires(self) -> datetime:
        """When every token of it has expired, but for the rounding."""
        expires = expiry(self.received, self.period_ns)
        return expires if self.within is None else min(expires, self.received + timedelta(seconds=self.within))


def issue(
    claims: Claims,
    key: ec.EllipticCurvePrivateKey,
    *,
    received: datetime,
    period_ns: int,
    within: int | None = None,
) -> str:
    """The signed token of ``ear-04`` for an affirmed, fresh window received at ``received``.

    ``within``: seconds after which the policy obliges the host to be attested anew, where it does.
    """
    affirmation = Affirmation(claims=claims, received=received, period_ns=period_ns, within=within)
    return issue_as(Serialisation.EAR_04, affirmation, key).decode()


def issue_as(
    serialisation: Serialisation,
    affirmation: Affirmation,
    key: ec.EllipticCurvePrivateKey,
    *,
    confirmation: Confirmation | None = None,
) -> bytes:
    """The signed token: ASCII for a JWT.

    Args:
        serialisation: as the relying party asks for.
        affirmation: what it says, with the audience that it is for.
        key: that of :class:`.TokenKeyStore`, or the verifier's own.
        confirmation: other names of the serving key, which :func:`.confirm` has found to be true.

    Raises:
        ValueError: the serialisation has no name for what ``confirmation`` says.
    """
    profile, claims = PROFILES[serialisation], affirmation.claims
    tree = write(
        Result(
            claims=claims,
            confirmation=confirmation or Confirmation(),
            developer=_DEVELOPER,
            build=_build(),
            status=worst(status_of(vector) for vector in claims.vectors.values()),
            issued=affirmation.received,
            # Rounded down when written: a token never outlives the rule.
            expires=affirmation.expires,
        ),
        profile,
    )
    kid = cose.thumbprint(key.public_key())
    if profile.binary:
        payload = cbor.encode(tree)
        return CWT_TAG + cose.sign(payload, kid=kid, typ=profile.typ, signer=lambda data: sign_es256(key, data))
    # RFC 7515 §7.1: the compact serialisation.
    signed = f"{_protected(kid, profile.typ)}.{strict.base64url_encode(_JSON.encode(tree).encode())}"
    return f"{signed}.{strict.base64url_encode(sign_es256(key, signed.encode()))}".encode()


@lru_cache(maxsize=16)
def _protected(kid: bytes, typ: str) -> str:
    """The encoded header of every JWT that the key ``kid`` signs."""
    return strict.base64url_encode(
        strict.json_encode({"alg": "ES256", "kid": strict.base64url_encode(kid), "typ": typ})
    )


@cache
def _build() -> str:
    """What made the token; read once, since reading it is parsing a file."""
    return f"weighbridge {metadata.version('weighbridge')}"
