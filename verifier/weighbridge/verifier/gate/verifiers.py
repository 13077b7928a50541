"""Which verifiers a gate believes: pinned identities, and the keys for tokens that these endorse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, final

from weighbridge.proto import cose
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier.result import ResultToken, verify_any
from weighbridge.verifier.result.jwks import read
from weighbridge.verifier.result.trusted import TrustedKey, TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["Verifiers"]


@final
@dataclass(frozen=True, slots=True)
class Verifiers:
    """Identities that are pinned, and all keys that are believed by their word. Made by :meth:`of`.

    Attributes:
        identities: pinned.
        keys: theirs, and those that they endorse.
        asks: whether the verifier is asked for keys (:mod:`.token_keys`): where no key set was given.
    """

    identities: tuple[Anchor, ...]
    keys: TrustedKeys
    asks: bool

    @classmethod
    def of(cls, anchors: TrustAnchors, jwks: bytes | None) -> Self:
        """The verifiers among ``anchors``.

        Args:
            anchors: trusted.
            jwks: untrusted: keys for tokens, each with the statement that endorses it, and no others ever; ``None``:
                only the identities', until the verifier is asked.

        Raises:
            NotAuthentic: ``CHAIN_UNTRUSTED`` without any verifier; as :func:`weighbridge.verifier.result.jwks.read`.
            MalformedEvidence: as that.
        """
        identities = anchors.select("verifier")
        if not identities:
            raise NotAuthentic(
                Code.CHAIN_UNTRUSTED, "no verifier is trusted", where="anchors", hint="name its anchors: --anchors FILE"
            )
        pinned = _pinned(identities)
        return cls(identities, TrustedKeys(pinned) if jwks is None else read(jwks, pinned), asks=jwks is None)

    def endorsed(self, jwks: bytes) -> tuple[TrustedKey, ...]:
        """The keys of ``jwks`` that these identities endorse; themselves not.

        Args:
            jwks: untrusted.

        Raises:
            MalformedEvidence: as :func:`weighbridge.verifier.result.jwks.read`.
            NotAuthentic: as that.
        """
        return tuple(key for key in read(jwks, _pinned(self.identities)) if key.endorser is not None)

    def believing(self, keys: Iterable[TrustedKey]) -> Self:
        """The same identities, and ``keys``, which they have endorsed (:meth:`endorsed`)."""
        return replace(self, keys=TrustedKeys([*keys, *_pinned(self.identities)]))

    def verify(self, token: bytes, *, audience: str, at: datetime) -> ResultToken:
        """The claims of ``token``, by one of these verifiers.

        Raises:
            MalformedEvidence: as :func:`weighbridge.verifier.result.verify_any`.
            NotAuthentic: as that; ``CHAIN_EXPIRED`` where the identity is not trusted at that time.
        """
        result = verify_any(token, self.keys, audiences=(audience,), at=at)
        next(one for one in self.identities if one.sha256 == result.verifier.hex()).check_validity(at)
        return result


def _pinned(identities: Sequence[Anchor]) -> list[TrustedKey]:
    return [TrustedKey(cose.load_p256(anchor.spki, what=anchor.name)) for anchor in identities]
