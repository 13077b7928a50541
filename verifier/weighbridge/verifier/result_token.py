"""The result token: an EAT Attestation Result (draft-ietf-rats-ear-04) as an ES256 JWT.

One submodule per attester: ``tpm0``, ``gpu0``…, ``telemetry0``, ``weights0``. A token is only ever made for an
affirmed, fresh window; it expires by itself soon after the windows stop (``docs/protocol.md`` §8). It says what was
appraised and names the ledger leaf that commits to the whole record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Final, NoReturn, cast, final

import jwt

from weighbridge.proto import cose, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["EAR_PROFILE", "STATUSES", "Claims", "ResultToken", "expiry", "issue", "verify"]

EAR_PROFILE: Final = "tag:ietf.org,2026:rats/ear#04"
_DEVELOPER: Final = "https://weighbridge.example"
_LIFETIME_MAX: Final = timedelta(seconds=120)
_SEAL: Final = object()
_GRACE: Final = timedelta(seconds=2)
# How far the verifier's clock may run ahead of the relying party's.
_SKEW: Final = timedelta(seconds=5)
_MEDIA_TYPE: Final = f'application/eat-jwt; eat_profile="{EAR_PROFILE}"'

_JWT_PARTS: Final = 3
# The end of the year 9999 in seconds since 1970: no time after it can be told.
_TIME_MAX: Final = 253_402_300_799
_SESSION_SUBMOD: Final = "tpm0"

# From best known to worst; "none" makes no claim and so takes nothing away.
STATUSES: Final = ("none", "affirming", "warning", "contraindicated")
# AR4SI tiers (draft-ietf-rats-ar4si-10 §2.3.2): a status is no better than the worst claim of the vector.
_TIERS: Final = ((96, "contraindicated"), (32, "warning"), (2, "affirming"))


def expiry(received: datetime, period_ns: int) -> datetime:
    """When a token for a window received at ``received`` expires: 1.5 windows + 2 s later, at most 120 s."""
    lifetime = timedelta(microseconds=period_ns * 3 // 2 // 1000) + _GRACE
    return received + min(lifetime, _LIFETIME_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says beyond the standard claims. ``nonces`` and ``vectors`` are keyed by submodule.

    Digests are 32 bytes; ``vectors`` hold AR4SI values. ``adapters`` are the manifests of what else is loaded, or was
    since the last window: declared and accepted, yet another model than ``model``.
    """

    issuer: str
    audience: str
    session: bytes
    tenant: str
    seq: int
    model: bytes
    adapters: tuple[bytes, ...]
    cnf: bytes
    policy: bytes
    reference: bytes
    nonces: Mapping[str, bytes]
    vectors: Mapping[str, Mapping[str, int]]
    unchecked: Mapping[str, str]
    ledger_origin: str
    ledger_index: int
    ledger_leaf: bytes


def issue(
    claims: Claims,
    key: ec.EllipticCurvePrivateKey,
    *,
    received: datetime,
    period_ns: int,
    within: int | None = None,
) -> str:
    """The signed token for an affirmed, fresh window received at ``received``.

    ``within``: seconds after which the policy obliges the host to be attested anew, where it does.
    """
    submods = {name: _submod(claims, name) for name in sorted(claims.vectors)}
    expires = expiry(received, period_ns)
    if within is not None:
        expires = min(expires, received + timedelta(seconds=within))
    payload = {
        "eat_profile": EAR_PROFILE,
        "iss": claims.issuer,
        "aud": claims.audience,
        "iat": int(received.timestamp()),
        # Rounded down: a token never outlives the rule.
        "exp": int(expires.timestamp()),
        "jti": f"{claims.session.hex()}.{claims.seq}",
        "cnf": {"kid": strict.base64url_encode(claims.cnf)},
        "ear_verifier_id": {"developer": _DEVELOPER, "build": _build()},
        "ear_status": _worst(str(submod["ear_status"]) for submod in submods.values()),
        "submods": submods,
    }
    kid = cose.thumbprint(key.public_key())
    headers = {"kid": strict.base64url_encode(kid), "typ": "eat+jwt"}
    return jwt.encode(payload, key, algorithm="ES256", headers=headers)


@cache
def _build() -> str:
    """What made the token; read once, since reading it is parsing a file."""
    return f"weighbridge {metadata.version('weighbridge')}"


def _submod(claims: Claims, name: str) -> strict.JsonObject:
    vector = dict(claims.vectors[name])
    submod: strict.JsonObject = {
        "ear_status": _status(vector),
        "eat_nonce": strict.base64url_encode(claims.nonces[name]),
        "ear_trustworthiness_vector": cast("strict.JsonObject", vector),
        "ear_appraisal_policy_ids": [f"sha256:{claims.policy.hex()}"],
    }
    if name == _SESSION_SUBMOD:
        submod["ear_verifier_claims"] = _session_claims(claims)
    return submod


def _session_claims(claims: Claims) -> strict.JsonObject:
    """What holds for the session as a whole: said once, with the key that anchors it."""
    return {
        "session": claims.session.hex(),
        "tenant": claims.tenant,
        "seq": claims.seq,
        "model": claims.model.hex(),
        "adapters": [manifest.hex() for manifest in claims.adapters],
        "reference": f"sha256:{claims.reference.hex()}",
        "unchecked": cast("strict.JsonObject", dict(claims.unchecked)),
        "log": {"origin": claims.ledger_origin, "index": claims.ledger_index, "leaf": claims.ledger_leaf.hex()},
    }


def _status(vector: Mapping[str, int]) -> str:
    worst = max((abs(value) for value in vector.values()), default=0)
    # NOTE: 0 is "no claim" (AR4SI §2.3.2): a vector without any claim is not affirming.
    return next((word for low, word in _TIERS if worst >= low), "none")


def _worst(statuses: Iterable[str]) -> str:
    return max(statuses, key=STATUSES.index, default="none")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResultToken:
    """A token whose signature, audience and time have been verified. Made by :func:`verify` only."""

    status: str
    session: bytes
    seq: int
    model: bytes
    adapters: tuple[bytes, ...]
    cnf: bytes
    policy: str
    issued: datetime
    expires: datetime
    ledger_index: int
    ledger_leaf: bytes
    payload: strict.JsonObject
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("ResultToken is made by verify only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("ResultToken cannot be pickled")

    def require_upstream(self, spki_sha256: bytes) -> None:
        """Require that the server being talked to is the one that was attested.

        Args:
            spki_sha256: SHA-256 of the SubjectPublicKeyInfo of the upstream's TLS certificate.

        Raises:
            NotAuthentic: ``UPSTREAM_KEY``: the host that attests is not the host that answers.
        """
        if spki_sha256 != self.cnf:
            raise NotAuthentic(
                Code.UPSTREAM_KEY,
                "the upstream's TLS key is not the one named by the attested session",
                where="token.cnf",
                expected=self.cnf,
                got=spki_sha256,
            )


def verify(token: str, key: ec.EllipticCurvePublicKey, *, audience: str, at: datetime) -> ResultToken:
    """The claims of ``token``, signed by ``key`` (trusted by the caller), meant for ``audience``, valid at ``at``.

    What is not checked: that ``ledger_leaf`` is in the ledger.

    Raises:
        MalformedEvidence: ``TOKEN_MALFORMED`` or a decoding code.
        NotAuthentic: ``TOKEN_SIGNATURE``, ``TOKEN_EXPIRED``, ``TOKEN_NOT_YET_VALID`` or
            ``TOKEN_AUDIENCE``.
    """
    parts = token.split(".")
    if len(token) > limits.TOKEN_MAX or len(parts) != _JWT_PARTS:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a compact JWT", where="token", clause="RFC 7519 §3")
    header = _object(parts[0], "token.header")
    kid = strict.base64url_encode(cose.thumbprint(key))
    if header != {"alg": "ES256", "kid": kid, "typ": "eat+jwt"}:
        raise NotAuthentic(
            Code.TOKEN_SIGNATURE, "header is not that of the trusted key", where="token.header", expected=kid
        )
    try:
        jwt.api_jws.decode(token, key, algorithms=["ES256"])
    except jwt.InvalidTokenError as error:
        raise NotAuthentic(Code.TOKEN_SIGNATURE, f"signature does not verify: {error}", where="token") from error
    result = _read(_object(parts[1], "token.payload"), audience)
    if result.issued > at + _SKEW:
        raise NotAuthentic(
            Code.TOKEN_NOT_YET_VALID,
            "the token was issued in the future",
            where="token.iat",
            expected=f"<= {(at + _SKEW).isoformat()}",
            got=result.issued.isoformat(),
            hint="one of the two clocks is wrong",
        )
    if at >= result.expires:
        raise NotAuthentic(
            Code.TOKEN_EXPIRED,
            "the token has expired: its session has not shown a fresh good window since",
            where="token.exp",
            expected=f"> {at.isoformat()}",
            got=result.expires.isoformat(),
        )
    return result


def _object(part: str, what: str) -> strict.JsonObject:
    value = strict.json_decode(strict.base64url_decode(part, what=what), what=what, limit=limits.TOKEN_MAX)
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not an object", where=what)
    return value


def _read(payload: strict.JsonObject, audience: str) -> ResultToken:
    claims = _Claimed(payload, "token")
    if claims.text("eat_profile") != EAR_PROFILE:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "unknown eat_profile", where="token", expected=EAR_PROFILE)
    if claims.take("aud") != audience:
        raise NotAuthentic(
            Code.TOKEN_AUDIENCE, "the token is for another audience", where="token.aud", expected=audience
        )
    status = claims.text("ear_status")
    if status not in STATUSES:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED, "unknown status", where="token.ear_status", expected=", ".join(STATUSES), got=status
        )
    submod = claims.table("submods").table(_SESSION_SUBMOD)
    session = submod.table("ear_verifier_claims")
    log = session.table("log")
    return ResultToken(
        seal=_SEAL,
        status=status,
        session=strict.hex_decode(session.text("session"), what="token.session", size=16),
        seq=session.number("seq", limit=2**53),
        model=strict.hex_decode(session.text("model"), what="token.model", size=limits.DIGEST_SIZE),
        adapters=tuple(
            strict.hex_decode(manifest, what="token.adapters", size=limits.DIGEST_SIZE)
            for manifest in session.texts("adapters")
        ),
        cnf=_digest(claims.table("cnf").text("kid"), "token.cnf"),
        policy=submod.first("ear_appraisal_policy_ids"),
        issued=datetime.fromtimestamp(claims.number("iat", limit=_TIME_MAX), UTC),
        expires=datetime.fromtimestamp(claims.number("exp", limit=_TIME_MAX), UTC),
        ledger_index=log.number("index", limit=2**53),
        ledger_leaf=strict.hex_decode(log.text("leaf"), what="token.leaf", size=limits.DIGEST_SIZE),
        payload=payload,
    )


def _digest(text: str, what: str) -> bytes:
    digest = strict.base64url_decode(text, what=what)
    if len(digest) != limits.DIGEST_SIZE:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED, "wrong length", where=what, expected=limits.DIGEST_SIZE, got=len(digest)
        )
    return digest


@final
class _Claimed:
    """Claims as they were signed, each taken as the type that the profile gives it, or malformed."""

    __slots__ = ("_members", "_where")

    def __init__(self, value: strict.JsonValue, where: str) -> None:
        if not isinstance(value, dict):
            raise MalformedEvidence(Code.TOKEN_MALFORMED, "not an object", where=where)
        self._members = value
        self._where = where

    def take(self, name: str) -> strict.JsonValue:
        if name not in self._members:
            raise MalformedEvidence(Code.TOKEN_MALFORMED, "a claim is missing", where=f"{self._where}.{name}")
        return self._members[name]

    def table(self, name: str) -> _Claimed:
        return _Claimed(self.take(name), f"{self._where}.{name}")

    def text(self, name: str) -> str:
        return self._text(self.take(name), name)

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self.take(name)
        if not isinstance(value, list):
            raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a list of texts", where=f"{self._where}.{name}")
        return [self._text(item, name) for item in value]

    def first(self, name: str) -> str:
        """The first of a list of texts."""
        value = self.texts(name)
        if not value:
            raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a list of texts", where=f"{self._where}.{name}")
        return value[0]

    def number(self, name: str, *, limit: int) -> int:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise MalformedEvidence(
                Code.TOKEN_MALFORMED, f"not a number from 0 to {limit}", where=f"{self._where}.{name}"
            )
        return value

    def _text(self, value: strict.JsonValue, name: str) -> str:
        if not isinstance(value, str):
            raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a text", where=f"{self._where}.{name}")
        return value
