"""A verifier's statement that a key signs result tokens, within a time. Signed by the verifier's identity key.

Relying parties pin the identity; keys for tokens come and go under it. A statement says nothing of any session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["PERIOD_MAX_NS", "TOKEN_KEY_TYP", "VERSION", "TokenKeyStatement"]

TOKEN_KEY_TYP: Final = "application/vnd.weighbridge.token-key+cose"  # noqa: S105 - a media type, not a secret
VERSION: Final = "weighbridge/v1/token-key"

PERIOD_MAX_NS: Final = 400 * 86_400 * 1_000_000_000
"""Whoever steals a token key can use it until its period ends, with relying parties that are offline."""

# Nanoseconds since 1970 have 63 bits.
_TIME_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKeyStatement:
    """The content of a statement. Says nothing of truth.

    Attributes:
        key: P-256.
        not_before_ns: since 1970; tokens of the key have their ``iat`` from here on.
        not_after_ns: and to here.
        issued_ns: when it was announced, by the verifier's clock.
    """

    key: ec.EllipticCurvePublicKey
    not_before_ns: int
    not_after_ns: int
    issued_ns: int

    @property
    def kid(self) -> bytes:
        """SHA-256 of the key's SubjectPublicKeyInfo."""
        return cose.thumbprint(self.key)

    def sign(self, *, kid: bytes, signer: Callable[[bytes], bytes]) -> bytes:
        """The COSE_Sign1 over it, by the verifier's key of thumbprint ``kid``.

        Raises:
            ValueError: the period is empty or too long.
        """
        if not 0 < self.not_after_ns - self.not_before_ns <= PERIOD_MAX_NS:
            raise ValueError("the period is empty or too long")
        payload = cbor.encode(
            {0: VERSION, 1: cose.spki(self.key), 2: self.not_before_ns, 3: self.not_after_ns, 4: self.issued_ns}
        )
        return cose.sign(payload, kid=kid, typ=TOKEN_KEY_TYP, signer=signer)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse the payload of a statement.

        Raises:
            MalformedEvidence: for any bytes that :meth:`sign` would not have signed.
        """
        fields = cbor.read_versioned(payload, version=VERSION, limit=limits.TOKEN_KEY_MAX, what="token-key")
        statement = cls(
            key=cose.load_p256(fields.octets(1, limit=limits.TOKEN_KEY_MAX), what="token-key.key"),
            not_before_ns=fields.uint(2, limit=_TIME_MAX),
            not_after_ns=fields.uint(3, limit=_TIME_MAX),
            issued_ns=fields.uint(4, limit=_TIME_MAX),
        )
        fields.end()
        if not 0 < statement.not_after_ns - statement.not_before_ns <= PERIOD_MAX_NS:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "the period is empty or too long",
                where="token-key",
                expected=f"more than 0 and at most {PERIOD_MAX_NS} ns",
                got=statement.not_after_ns - statement.not_before_ns,
            )
        return statement
