"""The keys for tokens that a gate believes, as the verifier names them over the line. No IO, no clock.

The rule, once:

1. A key is taken for the statement beside it, signed by a pinned identity, and never for the line it came by. A key set
   with a statement that names a pinned identity, which has not signed it, is refused whole: what was believed stays.
2. A key that the verifier names no more is believed no more, at once.
3. One that was named no more when its time had come is not believed again: so an old key set does not bring it back.
   Before its time a key may be missing, since replicas get new keys one after the other.
4. A key whose period is over is not taken.

What is not protected: a key set as a whole is not signed and has no number. Whoever holds the line can go on showing an
old one, to a gate that has seen no newer one: a key that was stolen is believed there until its period ends, as it is
offline. A gate that is started again, or given other anchors, has seen none. Of two statements about one key, which our
verifiers do not make, that which came last counts, whichever was signed last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.gate.verifiers import Verifiers
    from weighbridge.verifier.result.trusted import TrustedKey

__all__ = ["KEYS_MAX", "KeyChange", "TokenKeys"]

KEYS_MAX: Final = 256
"""Keys that a gate takes at once; keys last for months, and few overlap."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Thumbprints of the keys that are believed since, or for another period, and of those that are not any more."""

    new: frozenset[bytes]
    gone: frozenset[bytes]

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.new or self.gone)


@final
class TokenKeys:
    """What a gate believes by the word of the identities of ``given``.

    Args:
        given: whom the gate's owner pinned.
    """

    __slots__ = ("_gone", "_keys", "given", "verifiers")

    def __init__(self, given: Verifiers) -> None:
        self.given: Final = given
        self.verifiers = given
        self._keys: dict[bytes, TrustedKey] = {}
        # Keys that were taken out, until their period is over.
        self._gone: dict[bytes, TrustedKey] = {}

    def learn(self, jwks: bytes, at: datetime) -> KeyChange:
        """Believe the keys of ``jwks``, and no others.

        Args:
            jwks: untrusted.
            at: the present.

        Raises:
            MalformedEvidence: as :meth:`.Verifiers.endorsed`.
            NotAuthentic: as that; ``TOKEN_KEY_ENDORSEMENT`` where there are too many keys.
        """
        lasting = {key.kid: key for key in self.given.endorsed(jwks) if not key.is_over(at)}
        self._gone = {kid: key for kid, key in self._gone.items() if not key.is_over(at)}
        taken = {kid: key for kid, key in lasting.items() if kid not in self._gone}
        if len(taken) + len(self._gone) > KEYS_MAX:
            raise NotAuthentic(
                Code.TOKEN_KEY_ENDORSEMENT,
                "too many keys for tokens",
                where="jwks.keys",
                expected=f"<= {KEYS_MAX}",
                got=len(taken) + len(self._gone),
            )
        # A key with another period is another one: what was said of it last counts.
        new = frozenset(kid for kid, key in taken.items() if self._keys.get(kid) != key)
        change = KeyChange(new, frozenset(self._keys.keys() - taken.keys()))
        for kid in change.gone:
            if self._keys[kid].has_begun(at):
                self._gone[kid] = self._keys[kid]
        self._keys = taken
        if change.any:
            self.verifiers = self.given.believing(taken.values())
        return change
