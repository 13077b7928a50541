"""Whose tokens are believed: keys by their thumbprint, each with the time within which tokens of it are issued.

A token names its key, and that key alone is tried. Where keys come from is the caller's matter: pinned ones, and those
that a pinned one has endorsed (:mod:`.endorsement`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

from weighbridge.proto import cose
from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["TrustedKey", "TrustedKeys"]


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that tokens are believed by.

    Attributes:
        key: P-256.
        not_before: no token of it was issued before; ``None``: nothing is known of that.
        not_after: nor after, inclusive.
        endorser: thumbprint of the identity key by whose word it is believed; ``None``: it is one.
    """

    key: ec.EllipticCurvePublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None
    endorser: bytes | None = None

    @property
    def verifier(self) -> bytes:
        """Thumbprint of the verifier's identity key: itself, or the one that endorses it."""
        return self.endorser or self.kid

    @property
    def kid(self) -> bytes:
        """SHA-256 of its SubjectPublicKeyInfo."""
        return cose.thumbprint(self.key)

    def check_issued(self, issued: datetime) -> None:
        """Require that a token of this key may have been issued then.

        Raises:
            NotAuthentic: ``TOKEN_KEY_PERIOD``.
        """
        early = self.not_before is not None and issued < self.not_before.replace(microsecond=0)
        late = self.not_after is not None and issued > self.not_after
        if early or late:
            raise NotAuthentic(
                Code.TOKEN_KEY_PERIOD,
                f"the key was not in use {'yet' if early else 'any more'} when the token was issued",
                where="token.iat",
                expected=f"{_time(self.not_before)} to {_time(self.not_after)}",
                got=issued.isoformat(),
                hint="fetch the verifier's keys anew; if they say the same, somebody has the key who should not",
            )


@final
class TrustedKeys:
    """Keys by their thumbprint."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[TrustedKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    @classmethod
    def of(cls, *keys: ec.EllipticCurvePublicKey) -> Self:
        """Keys that are believed at any time."""
        return cls(map(TrustedKey, keys))

    def __len__(self) -> int:
        """How many."""
        return len(self._keys)

    def __contains__(self, kid: bytes) -> bool:
        """Whether there is such a key."""
        return kid in self._keys

    def get(self, kid: bytes) -> TrustedKey:
        """The key that a token names.

        Raises:
            NotAuthentic: ``TOKEN_SIGNATURE`` when it is none of these.
        """
        key = self._keys.get(kid)
        if key is None:
            raise NotAuthentic(
                Code.TOKEN_SIGNATURE,
                "header is not that of a trusted key",
                where="token.header.kid",
                expected=", ".join(sorted(known.hex()[:16] for known in self._keys)) or "none",
                got=kid,
                hint="if the verifier has changed its token key, fetch its keys anew",
            )
        return key


def _time(moment: datetime | None) -> str:
    return "any time" if moment is None else moment.isoformat()
