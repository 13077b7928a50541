"""What a relying party is answered: how a session stands now, and a token for it where it is open. Of no transport.

A token is made anew from what is kept of the last affirmed window, for the audience that is asked for, and expires when
that does: asking again brings no more time. Tokens are remembered while they are likely to be asked for again, since
signing one takes longer than all else here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.result.confirmation import confirm
from weighbridge.verifier.result.issuing import issue_as
from weighbridge.verifier.result.serialisation import PROFILES
from weighbridge.verifier.standings import unknown

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from weighbridge.verifier.affirmed import Affirmed
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.relying_parties import RelyingParty
    from weighbridge.verifier.result.claims import Confirmation
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
        certificate: untrusted, DER: of the serving key, whose other names tokens are to say; ``None``: none.
    """

    party: RelyingParty
    audience: str
    serialisation: Serialisation
    certificate: bytes | None = None


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
        key_set: the keys that tokens are verified by at a time (:meth:`.TokenKeyStore.jwks`).
    """

    __slots__ = ("_clock", "_key_set", "_signer", "_tokens", "standings")

    def __init__(
        self,
        *,
        standings: Standings,
        clock: Clock,
        signer: TokenSigner,
        key_set: Callable[[datetime], strict.JsonObject],
    ) -> None:
        self.standings: Final = standings
        self._clock = clock
        self._signer = signer
        self._key_set = key_set
        # By session, window, audience, serialisation and certificate; the oldest is forgotten first.
        self._tokens: dict[tuple[bytes, int, str, Serialisation, bytes | None], bytes] = {}

    def now(self) -> datetime:
        """The verifier's time.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED``.
        """
        return self._clock.now()

    def now_ns(self) -> int:
        """The same, nanoseconds since 1970.

        Raises:
            EnvironmentFault: ``CLOCK_STEPPED``.
        """
        return nanoseconds(self.now())

    def result(self, session: bytes, asked: Asked) -> Result:
        """How ``session`` stands now, for whoever may know.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``: there is none, or it is of a tenant that the relying party may not read.
            EnvironmentFault: the store or the keys for tokens cannot be read, or the clock stepped back.
            WeighbridgeError: of a certificate, as :func:`.confirm`; ``FIELD_RANGE`` where a token has no place for it.
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

    def jwks(self) -> bytes:
        """The keys that tokens are verified by now, as a JSON Web Key Set.

        Raises:
            EnvironmentFault: the keys cannot be read, or the clock stepped back.
        """
        return strict.json_encode(self._key_set(self.now()))

    def _token(self, affirmed: Affirmed, asked: Asked) -> bytes:
        certificate = None if asked.certificate is None else sha256(asked.certificate)
        key = affirmed.claims.session, affirmed.claims.seq, asked.audience, asked.serialisation, certificate
        token = self._tokens.get(key)
        if token is None:
            affirmation = affirmed.meant_for(asked.audience).affirmation
            confirmation = _confirmation(asked, affirmed)
            # Not the key of now: the token says when the window was received, and keys sign within their time.
            signer = self._signer(affirmation.received)
            token = issue_as(asked.serialisation, affirmation, signer, confirmation=confirmation)
            if len(self._tokens) >= _TOKENS_MAX:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = token
        return token


def _confirmation(asked: Asked, affirmed: Affirmed) -> Confirmation | None:
    """Other names of the serving key, from a certificate that is found to be of it."""
    if asked.certificate is None:
        return None
    if PROFILES[asked.serialisation].binary:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "a CWT names the serving key by its kid alone",
            where="request.certificate",
            got=asked.serialisation.value,
            hint="ask without a certificate, or for another serialisation",
        )
    return confirm(asked.certificate, cnf=affirmed.claims.cnf)
