"""Verifying result tokens, in any serialisation.

The procedure, once; every step is needed, and none can be switched off:

1. The form is that of one serialisation that the caller accepts: a CWT, or a compact JWT whose signed ``typ`` is its.
2. The signed header is exactly algorithm ES256, the name of one trusted key, and that ``typ``.
3. That key's signature verifies over the bytes as received.
4. ``eat_profile`` is the one of the same serialisation: a token of one profile is never read by another's names.
5. The audience is one of the caller's.
6. Every claim has its type.
7. The key was in use when the token was issued; the token is not from the future; it has not expired; nor has the
   key's period been over for longer than any token lives.

The caller: decide which status is accepted, compare the server's TLS key with ``cnf``
(:meth:`ResultToken.require_upstream`), compare session, tenant and model with what was meant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NoReturn, cast, final

import jwt

from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.result.claimed import Claimed
from weighbridge.verifier.result.issuing import CWT_TAG
from weighbridge.verifier.result.serialisation import PROFILES, Profile, Serialisation
from weighbridge.verifier.result.tree import Result, read, write
from weighbridge.verifier.result.trusted import TrustedKey, TrustedKeys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.result.claimed import Tree
    from weighbridge.verifier.result.claims import Claims, Confirmation

__all__ = ["ResultToken", "verify", "verify_any"]

_SEAL: Final = object()
# How far the verifier's clock may run ahead of the relying party's.
_SKEW: Final = timedelta(seconds=5)
_JWT_PARTS: Final = 3
_ALGORITHM: Final = "ES256"
_ALL: Final = frozenset(Serialisation)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResultToken:
    """A token whose signature, audience and time have been verified. Made by :func:`verify_any` only.

    Attributes:
        serialisation: how it was written down.
        key: thumbprint of the key that signed it.
        verifier: thumbprint of the identity key that is, or has endorsed, that key.
        result: all that it says.
        payload: its claims as JSON: as they were signed, or of a CWT what they are by the names of ``ear-04``.
    """

    serialisation: Serialisation
    key: bytes
    verifier: bytes
    result: Result
    payload: strict.JsonObject
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("ResultToken is made by verify only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("ResultToken cannot be pickled")

    @property
    def claims(self) -> Claims:
        """What was appraised."""
        return self.result.claims

    @property
    def confirmation(self) -> Confirmation:
        """Other names of the serving key."""
        return self.result.confirmation

    @property
    def identifier(self) -> str:
        """The result's name, the same in every serialisation."""
        return self.claims.identifier

    @property
    def status(self) -> str:
        """Of all submodules together."""
        return self.result.status

    @property
    def session(self) -> bytes:
        """The session, 16 bytes."""
        return self.claims.session

    @property
    def tenant(self) -> str:
        """Whose session it is."""
        return self.claims.tenant

    @property
    def seq(self) -> int:
        """The window's number."""
        return self.claims.seq

    @property
    def model(self) -> bytes:
        """Digest of the model's manifest."""
        return self.claims.model

    @property
    def adapters(self) -> tuple[bytes, ...]:
        """What else was loaded."""
        return self.claims.adapters

    @property
    def cnf(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo of the serving key."""
        return self.claims.cnf

    @property
    def policy(self) -> str:
        """The policy that it was appraised by: ``sha256:`` and its digest."""
        return f"sha256:{self.claims.policy.hex()}"

    @property
    def issued(self) -> datetime:
        """Receipt of the window, whole seconds."""
        return self.result.issued

    @property
    def expires(self) -> datetime:
        """From when on it is good no more."""
        return self.result.expires

    @property
    def ledger_index(self) -> int:
        """Where the record of the window is committed to. That it is there is not checked."""
        return self.claims.ledger_index

    @property
    def ledger_leaf(self) -> bytes:
        """Hash of that leaf."""
        return self.claims.ledger_leaf

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
    """The claims of a token of ``ear-04`` as a JWT, by one key that the caller trusts at any time.

    Raises:
        MalformedEvidence: as :func:`verify_any`.
        NotAuthentic: as :func:`verify_any`.
    """
    return verify_any(
        _ascii(token), TrustedKeys.of(key), audiences=(audience,), at=at, accepted=(Serialisation.EAR_04,)
    )


def verify_any(
    token: bytes,
    keys: TrustedKeys,
    *,
    audiences: Collection[str],
    at: datetime,
    accepted: Collection[Serialisation] = _ALL,
) -> ResultToken:
    """The claims of ``token``, signed by one of ``keys``, meant for one of ``audiences``, valid at ``at``.

    What is not checked: that ``ledger_leaf`` is in the ledger.

    Args:
        token: untrusted: a compact JWT without white space around it, or a CWT.
        keys: trusted by the caller.
        audiences: the caller's own names.
        at: the present, aware UTC.
        accepted: the serialisations that the caller reads.

    Raises:
        MalformedEvidence: ``TOKEN_MALFORMED`` or a decoding code.
        NotAuthentic: ``TOKEN_SIGNATURE``, ``TOKEN_KEY_PERIOD``, ``TOKEN_EXPIRED``, ``TOKEN_NOT_YET_VALID`` or
            ``TOKEN_AUDIENCE``.
    """
    if len(token) > limits.TOKEN_MAX:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED, "too large", where="token", expected=f"<= {limits.TOKEN_MAX}", got=len(token)
        )
    # 1. to 3.
    is_cwt = token.startswith(CWT_TAG)
    key, profile, tree = _open_cwt(token, keys, accepted) if is_cwt else _open_jwt(token, keys, accepted)
    # 4. and 5.
    claimed = Claimed(tree, profile, "token")
    if claimed.text("profile") != profile.uri:
        raise MalformedEvidence(
            Code.TOKEN_MALFORMED,
            "eat_profile is not that of the token's type",
            where="token",
            expected=profile.uri,
            clause="RFC 9711 §4.3.2",
        )
    if (audience := claimed.take("audience")) not in tuple(audiences):
        raise NotAuthentic(
            Code.TOKEN_AUDIENCE,
            "the token is for another audience",
            where="token.aud",
            expected=", ".join(audiences),
            got=audience if isinstance(audience, str) else type(audience).__name__,
        )
    # 6.
    result = read(tree, profile)
    # 7.
    key.check_issued(result.issued)
    _check_time(result, at)
    key.check_period(at)
    payload = write(result, PROFILES[Serialisation.EAR_04]) if profile.binary else tree
    return ResultToken(
        seal=_SEAL,
        serialisation=profile.serialisation,
        key=key.kid,
        verifier=key.verifier,
        result=result,
        payload=cast("strict.JsonObject", payload),
    )


def _open_jwt(token: bytes, keys: TrustedKeys, accepted: Collection[Serialisation]) -> tuple[TrustedKey, Profile, Tree]:
    """Steps 1 to 3 for a JWT."""
    parts = token.split(b".")
    if len(parts) != _JWT_PARTS:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a compact JWT", where="token", clause="RFC 7519 §3")
    header = _object(parts[0], "token.header")
    typ, kid = header.get("typ"), header.get("kid")
    profile = _profile(typ, accepted, binary=False)
    if header != {"alg": _ALGORITHM, "kid": kid, "typ": typ} or profile is None or not isinstance(kid, str):
        raise NotAuthentic(
            Code.TOKEN_SIGNATURE,
            "header is not that of a token that is accepted here",
            where="token.header",
            expected=f"ES256, kid and one typ of {', '.join(_typs(accepted, binary=False)) or 'none'}",
        )
    key = keys.get(strict.base64url_decode(kid, what="token.header.kid"))
    try:
        jwt.api_jws.decode(token, key.key, algorithms=[_ALGORITHM])
    except jwt.InvalidTokenError as error:
        raise NotAuthentic(Code.TOKEN_SIGNATURE, f"signature does not verify: {error}", where="token") from error
    return key, profile, cast("Tree", _object(parts[1], "token.payload"))


def _open_cwt(token: bytes, keys: TrustedKeys, accepted: Collection[Serialisation]) -> tuple[TrustedKey, Profile, Tree]:
    """Steps 1 to 3 for a CWT."""
    profile = _profile(None, accepted, binary=True)
    if profile is None:
        raise NotAuthentic(
            Code.TOKEN_SIGNATURE, "a CWT is not accepted here", where="token", expected=", ".join(sorted(accepted))
        )
    message = cose.parse(token[len(CWT_TAG) :], typ=profile.typ, limit=limits.TOKEN_MAX, what="token")
    key = keys.get(message.claimed_kid)
    try:
        payload = cose.verify(message, key.key)
    except NotAuthentic as error:
        raise NotAuthentic(Code.TOKEN_SIGNATURE, "signature does not verify", where="token") from error
    tree = cbor.decode(payload, limit=limits.TOKEN_MAX, what="token.payload")
    if not isinstance(tree, dict):
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not a map", where="token.payload", clause="RFC 8392 §3")
    return key, profile, cast("Tree", tree)


def _profile(typ: strict.JsonValue, accepted: Collection[Serialisation], *, binary: bool) -> Profile | None:
    """The accepted serialisation with this ``typ``; of CWTs there is one."""
    found = (PROFILES[one] for one in sorted(accepted) if PROFILES[one].binary == binary)
    return next((profile for profile in found if binary or profile.typ == typ), None)


def _typs(accepted: Collection[Serialisation], *, binary: bool) -> list[str]:
    return [PROFILES[one].typ for one in sorted(accepted) if PROFILES[one].binary == binary]


def _check_time(result: Result, at: datetime) -> None:
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


def _ascii(token: str) -> bytes:
    try:
        return token.encode("ascii")
    except UnicodeEncodeError as error:
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not ASCII", where="token") from error


def _object(part: bytes, what: str) -> strict.JsonObject:
    value = strict.json_decode(strict.base64url_decode(part, what=what), what=what, limit=limits.TOKEN_MAX)
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.TOKEN_MALFORMED, "not an object", where=what)
    return value
