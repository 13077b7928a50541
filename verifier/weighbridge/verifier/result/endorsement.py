"""Keys for tokens that a trusted verifier has endorsed.

A relying party pins the verifier's identity, by its thumbprint or an anchor, and believes the keys that it names
(:mod:`weighbridge.proto.token_key`), each within its period. It needs no network for that.

What is not protected: a statement cannot be taken back from whoever is offline. It ends by its period.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto import cose, limits
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.token_key import TOKEN_KEY_TYP, TokenKeyStatement
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.result.trusted import TrustedKey

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.result.trusted import TrustedKeys

__all__ = ["claimed_verifier", "endorse", "endorsed"]


def endorse(
    key: ec.EllipticCurvePublicKey, identity: VerifierKeys, *, not_before: datetime, not_after: datetime, at: datetime
) -> bytes:
    """The statement, signed by ``identity``, that ``key`` signs tokens from ``not_before`` to ``not_after``.

    Raises:
        ValueError: the period is empty or too long.
    """
    statement = TokenKeyStatement(
        key=key,
        not_before_ns=nanoseconds(not_before),
        not_after_ns=nanoseconds(not_after),
        issued_ns=nanoseconds(at),
    )
    return statement.sign(kid=identity.thumbprint, signer=identity.sign)


def claimed_verifier(data: bytes) -> bytes:
    """The thumbprint of the verifier that a statement names. Nothing is verified.

    Raises:
        MalformedEvidence: it is no such statement.
    """
    return _parse(data).claimed_kid


def endorsed(data: bytes, identities: TrustedKeys) -> TrustedKey:
    """The key that ``data`` names, and its period, by the word of one of ``identities``.

    Args:
        data: untrusted; a statement.
        identities: verifiers that the caller trusts; not keys that are themselves endorsed.

    Raises:
        MalformedEvidence: it is no such statement.
        NotAuthentic: ``TOKEN_KEY_ENDORSEMENT``: it is not signed by one of them.
    """
    message = _parse(data)
    if message.claimed_kid not in identities:
        raise NotAuthentic(
            Code.TOKEN_KEY_ENDORSEMENT,
            "endorsed by a verifier that is not trusted here",
            where="token-key",
            got=message.claimed_kid,
        )
    try:
        payload = cose.verify(message, identities.get(message.claimed_kid).key)
    except NotAuthentic as error:
        raise NotAuthentic(
            Code.TOKEN_KEY_ENDORSEMENT, "the verifier did not sign this", where="token-key", got=message.claimed_kid
        ) from error
    statement = TokenKeyStatement.parse(payload)
    return TrustedKey(
        statement.key,
        moment(statement.not_before_ns),
        moment(statement.not_after_ns),
        endorser=message.claimed_kid,
    )


def _parse(data: bytes) -> cose.CoseSign1:
    return cose.parse(data, typ=TOKEN_KEY_TYP, limit=limits.TOKEN_KEY_MAX, what="token-key")
