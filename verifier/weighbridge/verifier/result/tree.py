"""A result as one serialisation's map of claims, and back. Signs and verifies nothing.

What is read is typed claim by claim; of what is not understood nothing is taken. :func:`read` of what :func:`write`
made gives the same result, in every serialisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.result.claimed import Claimed
from weighbridge.verifier.result.claims import (
    SESSION_SUBMOD,
    STATUSES,
    Claims,
    Confirmation,
    status_of,
    worst,
)
from weighbridge.verifier.result.serialisation import TIERS, VECTOR, Key, Profile

if TYPE_CHECKING:
    from weighbridge.verifier.result.claimed import Tree, Value

__all__ = ["Result", "read", "write"]

_POLICY_PREFIX: Final = "sha256:"
# The end of the year 9999 in seconds since 1970: no time after it can be told.
_TIME_MAX: Final = 253_402_300_799
_EXACT_MAX: Final = 2**53
_SESSION_SIZE: Final = 16
_VECTOR_LOW, _VECTOR_HIGH = -128, 127
_WORDS: Final = {tier: word for word, tier in TIERS.items()}
_NAMES: Final = {key: name for name, key in VECTOR.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a token says.

    Attributes:
        claims: what was appraised.
        confirmation: other names of the serving key.
        developer: of the verifier that says so.
        build: of the same.
        status: of all submodules together, as the verifier wrote it.
        issued: receipt of the window; whole seconds.
        expires: whole seconds.
    """

    claims: Claims
    confirmation: Confirmation
    developer: str
    build: str
    status: str
    issued: datetime
    expires: datetime


def write(result: Result, profile: Profile) -> Tree:
    """``result`` as ``profile`` has it, in the order of its table.

    Raises:
        ValueError: the serialisation has no name for what ``confirmation`` says.
    """
    keys, claims = profile.keys, result.claims
    said: dict[str, Value] = {
        "profile": profile.uri,
        "issuer": claims.issuer,
        "audience": claims.audience,
        "issued": int(result.issued.timestamp()),
        "expires": int(result.expires.timestamp()),
        "identifier": claims.identifier.encode() if profile.binary else claims.identifier,
        "cnf": _write_confirmation(result, profile),
        "verifier": {keys["verifier.developer"]: result.developer, keys["verifier.build"]: result.build},
        "status": _write_status(result.status, profile),
        "submods": {name: _write_submod(claims, name, profile) for name in sorted(claims.vectors)},
    }
    return {keys[name]: value for name, value in said.items() if name in keys}


def _write_confirmation(result: Result, profile: Profile) -> Tree:
    confirmation = result.confirmation
    said = {"cnf.kid": result.claims.cnf, "cnf.jkt": confirmation.jkt, "cnf.x5t": confirmation.x5t_s256}
    unknown = [name for name, value in said.items() if value is not None and name not in profile.keys]
    if unknown:
        raise ValueError(f"{profile.serialisation} has no name for {', '.join(unknown)}")
    return {profile.keys[name]: _octets(value, profile) for name, value in said.items() if value is not None}


def _write_submod(claims: Claims, name: str, profile: Profile) -> Tree:
    keys, vector, policy = profile.keys, claims.vectors[name], _POLICY_PREFIX + claims.policy.hex()
    own = _write_claims(claims, name, profile)
    said: dict[str, Value] = {
        "submod.status": _write_status(status_of(vector), profile),
        "submod.nonce": _octets(claims.nonces[name], profile),
        "submod.vector": {VECTOR[claim] if profile.binary else claim: value for claim, value in vector.items()},
        "submod.policy": policy,
        "submod.policies": [policy],
        **({"submod.claims": own} if own else {}),
    }
    return {keys[name]: value for name, value in said.items() if name in keys}


def _write_claims(claims: Claims, name: str, profile: Profile) -> Tree:
    said: dict[str, Value] = {"claims.nonce": _octets(claims.nonces[name], profile)}
    if name == SESSION_SUBMOD:
        keys = profile.keys
        said |= {
            "claims.session": _digest(claims.session, profile),
            "claims.tenant": claims.tenant,
            "claims.seq": claims.seq,
            "claims.model": _digest(claims.model, profile),
            "claims.adapters": [_digest(manifest, profile) for manifest in claims.adapters],
            "claims.reference": _POLICY_PREFIX + claims.reference.hex(),
            "claims.unchecked": cast("Tree", dict(claims.unchecked)),
            "claims.log": {
                keys["log.origin"]: claims.ledger_origin,
                keys["log.index"]: claims.ledger_index,
                keys["log.leaf"]: _digest(claims.ledger_leaf, profile),
            },
        }
    return {profile.keys[name]: value for name, value in said.items() if name in profile.keys}


def _write_status(word: str, profile: Profile) -> Value:
    return TIERS[word] if profile.binary else word


def _octets(value: bytes, profile: Profile) -> Value:
    return value if profile.binary else strict.base64url_encode(value)


def _digest(value: bytes, profile: Profile) -> Value:
    return value if profile.binary else value.hex()


def read(tree: Mapping[Key, Value], profile: Profile) -> Result:
    """What ``tree`` says as ``profile`` has it.

    Raises:
        MalformedEvidence: ``TOKEN_MALFORMED``, also for another ``eat_profile``, or a decoding code.
    """
    token = Claimed(tree, profile, "token")
    if token.text("profile") != profile.uri:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED, "unknown eat_profile", where="token", expected=profile.uri, clause="RFC 9711 §4.3.2"
        )
    submods = token.named("submods")
    if SESSION_SUBMOD not in submods:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED, "a claim is missing", where=f"{token.path('submods')}.{SESSION_SUBMOD}"
        )
    statuses = [_read_status(submod, "submod.status") for submod in submods.values()]
    session = submods[SESSION_SUBMOD].table("submod.claims")
    log = session.table("claims.log")
    cnf, verifier = token.table("cnf"), token.table("verifier")
    claims = Claims(
        issuer=token.text("issuer"),
        audience=token.text("audience"),
        session=session.digest("claims.session", size=_SESSION_SIZE),
        tenant=session.text("claims.tenant"),
        seq=session.number("claims.seq", high=_EXACT_MAX),
        model=session.digest("claims.model"),
        adapters=session.digests("claims.adapters", count=limits.ADAPTERS_MAX),
        cnf=cnf.octets("cnf.kid"),
        policy=_read_policy(submods[SESSION_SUBMOD]),
        reference=_prefixed(session, "claims.reference", session.text("claims.reference")),
        nonces={name: _read_nonce(submod) for name, submod in submods.items()},
        vectors={name: _read_vector(submod) for name, submod in submods.items()},
        unchecked=session.texts_by_name("claims.unchecked"),
        ledger_origin=log.text("log.origin"),
        ledger_index=log.number("log.index", high=_EXACT_MAX),
        ledger_leaf=log.digest("log.leaf"),
    )
    return Result(
        claims=claims,
        confirmation=Confirmation(jkt=cnf.optional_octets("cnf.jkt"), x5t_s256=cnf.optional_octets("cnf.x5t")),
        developer=verifier.text("verifier.developer"),
        build=verifier.text("verifier.build"),
        status=_read_status(token, "status") if "status" in profile.keys else worst(statuses),
        issued=datetime.fromtimestamp(token.number("issued", high=_TIME_MAX), UTC),
        expires=datetime.fromtimestamp(token.number("expires", high=_TIME_MAX), UTC),
    )


def _read_status(claimed: Claimed, name: str) -> str:
    value = claimed.take(name)
    word = (_WORDS.get(value) if type(value) is int else None) if claimed.profile.binary else value
    if not isinstance(word, str) or word not in STATUSES:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED,
            "unknown status",
            where=claimed.path(name),
            expected=", ".join(STATUSES),
            got=str(value)[:40],
        )
    return word


def _read_policy(submod: Claimed) -> bytes:
    if "submod.policy" in submod.profile.keys:
        return _prefixed(submod, "submod.policy", submod.text("submod.policy"))
    return _prefixed(submod, "submod.policies", submod.first("submod.policies"))


def _prefixed(claimed: Claimed, name: str, text: str) -> bytes:
    where = claimed.path(name)
    if not text.startswith(_POLICY_PREFIX):
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a SHA-256 digest", where=where, expected="sha256:…")
    return strict.hex_decode(text.removeprefix(_POLICY_PREFIX), what=where, size=limits.DIGEST_SIZE)


def _read_nonce(submod: Claimed) -> bytes:
    if "submod.nonce" in submod.profile.keys:
        return submod.octets("submod.nonce")
    return submod.table("submod.claims").octets("claims.nonce")


def _read_vector(submod: Claimed) -> Mapping[str, int]:
    vector = submod.numbers_by_key("submod.vector", low=_VECTOR_LOW, high=_VECTOR_HIGH)
    names = {
        key: key if not submod.profile.binary else _NAMES.get(key) if isinstance(key, int) else None for key in vector
    }
    known = {name: vector[key] for key, name in names.items() if isinstance(name, str) and name in VECTOR}
    if len(known) != len(vector):
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED,
            "not a claim of AR4SI",
            where=submod.path("submod.vector"),
            clause="draft-ietf-rats-ar4si-10 §2.3.1",
        )
    return known
