"""Whose tokens are believed: keys by their thumbprint, each with the time within which tokens of it are issued.

A token names its key, and that key alone is tried. Where keys come from is the caller's matter: pinned ones, and those
that a pinned one has endorsed (:mod:`.endorsement`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import cose
from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto.errors import WeighbridgeError

__all__ = ["TrustedKey", "TrustedKeys", "names_unknown_key"]

_TOKENS_LAST: Final = timedelta(seconds=120)
_NAMED: Final = "token.header.kid"


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

    def has_begun(self, at: datetime) -> bool:
        """Whether tokens of it may have been issued by ``at``."""
        return self.not_before is None or at >= self.not_before

    def is_over(self, at: datetime) -> bool:
        """Whether no token of it can be good any more at ``at``."""
        return self.not_after is not None and at > self.not_after + _TOKENS_LAST

    def check_period(self, at: datetime) -> None:
        """Require that a token of this key, issued within its period, may still be good at ``at``.

        Without it whoever has a key whose period is over could sign that a token was issued before, and lasts.

        Raises:
            NotAuthentic: ``TOKEN_KEY_PERIOD``.
        """
        if self.is_over(at):
            raise NotAuthentic(
                Code.TOKEN_KEY_PERIOD,
                "the key's period is over, and no token lives as long",
                where=_NAMED,
                expected=f"{_time(self.not_before)} to {_time(self.not_after)}",
                got=at.isoformat(),
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

    def __iter__(self) -> Iterator[TrustedKey]:
        """Each."""
        return iter(self._keys.values())

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
                where=_NAMED,
                expected=", ".join(sorted(known.hex()[:16] for known in self._keys)) or "none",
                got=kid,
                hint="if the verifier has changed its token key, fetch its keys anew",
            )
        return key


def names_unknown_key(error: WeighbridgeError) -> bool:
    """Whether ``error`` refuses a token for naming a key that is none of those known: whoever fetches may find it."""
    return error.code is Code.TOKEN_SIGNATURE and error.where == _NAMED


def _time(moment: datetime | None) -> str:
    return "any time" if moment is None else moment.isoformat()
