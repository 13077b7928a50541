"""What a relying party is answered: how a session stands now, and a token for it where it is open. Of no transport.

A token is made anew from what is kept of the last affirmed window, for the audience that is asked for, and expires when
that does: asking again brings no more time. Tokens are remembered while they are likely to be asked for again, since
signing one takes longer than all else here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.result.issuing import issue_as
from weighbridge.verifier.standings import unknown

if TYPE_CHECKING:
    from weighbridge.verifier.affirmed import Affirmed
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.relying_parties import RelyingParty
    from weighbridge.verifier.result.key_store import TokenSigner
    from weighbridge.verifier.result.serialisation import Serialisation
    from weighbridge.verifier.standings import Standings
    from weighbridge.verifier.told import Told

__all__ = ["Asked", "Result", "ResultSource"]

_TOKENS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks, and for which kind of token.

    Attributes:
        party: the relying party.
        audience: whom tokens are for; one that it may ask for (:meth:`.RelyingParty.audience`).
        serialisation: of tokens.
    """

    party: RelyingParty
    audience: str
    serialisation: Serialisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer for one session. ``token`` is there exactly where it is open."""

    session: bytes
    told: Told
    token: bytes | None


@final
class ResultSource:
    """Answers relying parties. One caller at a time, in any thread; the verifier's own is not asked.

    Args:
        standings: of the verifier.
        clock: of the verifier.
        signer: the key that signs the tokens of windows received at a time.
    """

    __slots__ = ("_clock", "_signer", "_tokens", "standings")

    def __init__(self, *, standings: Standings, clock: Clock, signer: TokenSigner) -> None:
        self.standings: Final = standings
        self._clock = clock
        self._signer = signer
        # By session, window, audience and serialisation; the oldest is forgotten first.
        self._tokens: dict[tuple[bytes, int, str, Serialisation], bytes] = {}

    def now_ns(self) -> int:
        """The verifier's time, nanoseconds since 1970.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED``.
        """
        return nanoseconds(self._clock.now())

    def result(self, session: bytes, asked: Asked) -> Result:
        """How ``session`` stands now, for whoever may know.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``: there is none, or it is of a tenant that the relying party may not read.
            EnvironmentFault: the store or the keys for tokens cannot be read, or the clock stepped back.
        """
        standing = self.standings.of(session)
        if standing.tenant not in asked.party.tenants:
            # As if there were none: whether another tenant has such a session is nobody's business.
            raise unknown(session)
        told = standing.at(self.now_ns())
        token = None
        if told.is_open and standing.affirmed is not None:
            token = self._token(standing.affirmed, asked)
        return Result(session=session, told=told, token=token)

    def _token(self, affirmed: Affirmed, asked: Asked) -> bytes:
        key = affirmed.claims.session, affirmed.claims.seq, asked.audience, asked.serialisation
        token = self._tokens.get(key)
        if token is None:
            affirmation = affirmed.meant_for(asked.audience).affirmation
            # Not the key of now: the token says when the window was received, and keys sign within their time.
            token = issue_as(asked.serialisation, affirmation, self._signer(affirmation.received))
            if len(self._tokens) >= _TOKENS_MAX:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = token
        return token
