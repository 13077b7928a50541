"""Whether sessions are open: decided here, of reports and times alone. No IO, no clock.

The rule, once. A session is open at an instant exactly when all of these hold:

1. The last that the verifier said of it is that it is open. Once it has said that the session has ended, nothing opens
   it; once it has said of a window that it does not open, only a later window does.
2. The token that came with that verifies: signed by a trusted key, for this gate's audience, valid at the time by the
   wall clock when it came, of a status that is accepted (:meth:`.Verifiers.verify`).
3. The token is of that session, and names the tenant, model, adapters and serving key that the gate's file names.
4. By the wall clock it has not expired: neither by the token, nor by what the verifier said.
5. By the steady clock no more has passed since it came than was left of it by the verifier's clock, and never more than
   the longest life of any token. So a wall clock that is wrong, or stopped, keeps nothing open.
6. The wall clock was not set back since it came.

That the line to the verifier is cut closes nothing: 4 and 5 do, in time. A report that nobody has asked for is ignored.
What is not checked: that the host with the serving key is the one that is talked to (whoever connects pins ``cnf``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, final

from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, PolicyDenied, WeighbridgeError
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.told import GateState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.verifier.gate.instant import Instant
    from weighbridge.verifier.gate.verifiers import Verifiers
    from weighbridge.verifier.result import ResultToken
    from weighbridge.verifier.told import Told

__all__ = ["Accept", "Expected", "Grant", "Holder", "Shut", "Trust"]

Accept = Literal["affirming", "warning"]

_LIFETIME_MAX_NS: Final = 120 * 10**9
# A wall clock may be set back by this much without anybody's minding; slewing it moves both clocks.
_SET_BACK_NS: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose tokens open: those of ``verifiers``, for ``audience``, of a status no worse than ``accept``."""

    verifiers: Verifiers
    audience: str
    accept: Accept


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a session must be.

    Attributes:
        name: for people and proxies.
        session: 16 bytes.
        tenant: whose it is.
        model: digest of the model's manifest.
        adapters: digests of what may be loaded beside it.
        cnf: SHA-256 of the serving key's SubjectPublicKeyInfo; ``None``: any, where the gate's file says why.
    """

    name: str
    session: bytes
    tenant: str
    model: bytes
    adapters: frozenset[bytes]
    cnf: bytes | None


@dataclass(frozen=True, slots=True)
class Grant:
    """Why a session is open, and until when, by both clocks.

    Attributes:
        expected: the session.
        token: verified.
        came: when it was heard.
        wall_ns: end by the wall clock, nanoseconds since 1970.
        steady_ns: end by the steady clock.
    """

    expected: Expected
    token: ResultToken
    came: Instant
    wall_ns: int
    steady_ns: int


@dataclass(frozen=True, slots=True)
class Shut:
    """Why a session is not open: a stable code (a policy's author may have chosen it), and words for people."""

    expected: Expected
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one session. ``barred``: no window up to this one opens."""

    grant: Grant | None = None
    shut: tuple[str, str] | None = None
    barred: int = -1
    ended: bool = False


@final
class Holder:
    """What a verifier has said of the sessions of one gate."""

    __slots__ = ("_fault", "_known", "_trust", "expected")

    def __init__(self, trust: Trust, expected: Iterable[Expected]) -> None:
        self._trust = trust
        self.expected: Mapping[bytes, Expected] = {one.session: one for one in expected}
        self._known = dict.fromkeys(self.expected, _Known())
        self._fault: WeighbridgeError | None = None

    def hear(self, session: bytes, told: Told, token: bytes | None, at: Instant) -> None:
        """Take note of what the verifier says, which came ``at`` this instant.

        Never raises: what cannot be verified closes. What nobody has asked for is ignored.

        Args:
            session: 16 bytes.
            told: not signed: believed where it closes, or shortens what the token allows.
            token: untrusted.
            at: when it came.
        """
        known = self._known.get(session)
        if known is not None and not known.ended:
            self._known[session] = self._after(known, self.expected[session], told, token, at)

    def refuse(self, session: bytes, error: WeighbridgeError) -> None:
        """Take note that the verifier does not tell of ``session`` at all."""
        known = self._known.get(session)
        if known is not None and not known.ended:
            self._known[session] = replace(known, grant=None, shut=(error.code, error.message))

    def line(self, fault: WeighbridgeError | None) -> None:
        """Take note that the line to the verifier is cut, for this reason, or up again: words, which open nothing."""
        self._fault = fault

    def at(self, session: bytes, now: Instant) -> Grant | Shut:
        """Whether ``session`` is open now."""
        known, expected = self._known[session], self.expected[session]
        if known.grant is None:
            code, reason = known.shut or self._untold()
            return Shut(expected, code, reason)
        grant = known.grant
        if now.offset_ns < grant.came.offset_ns - _SET_BACK_NS or now.steady_ns < grant.came.steady_ns:
            return Shut(expected, Code.CLOCK_STEPPED, "the gate's clock was set back since the last token came")
        if now.wall_ns >= grant.wall_ns or now.steady_ns >= grant.steady_ns:
            lost = "" if self._fault is None else f"; the verifier cannot be heard: {self._fault.message}"
            return Shut(expected, Code.TOKEN_EXPIRED, f"no fresh good window was heard of in time{lost}")
        return grant

    @property
    def fault(self) -> WeighbridgeError | None:
        """Why the verifier cannot be heard, if it cannot."""
        return self._fault

    def told(self, session: bytes) -> bool:
        """Whether the verifier has said anything of ``session``."""
        known = self._known[session]
        return known.grant is not None or known.shut is not None

    def renewed(self, other: Holder) -> None:
        """Take over what ``other`` knows of the sessions here.

        What it has of tokens, and why a session is not open, only where trust and what is expected are the same. That
        a session has ended, and which windows do not open, always: no file and no key opens these again.
        """
        for session, expected in self.expected.items():
            known = other._known.get(session)
            if known is None:
                continue
            same = other._trust == self._trust and other.expected[session] == expected
            # Of one that has ended, why is kept too: nothing will be heard of it.
            self._known[session] = known if same or known.ended else _Known(barred=known.barred)

    def _untold(self) -> tuple[str, str]:
        if self._fault is None:
            return Code.RESULT_ABSENT, "the verifier has not said anything of the session yet"
        return self._fault.code, f"nothing was heard of the session: {self._fault.message}"

    def _after(self, known: _Known, expected: Expected, told: Told, token: bytes | None, at: Instant) -> _Known:
        if told.state is not GateState.OPEN:
            barred = known.barred if told.seq is None else max(known.barred, told.seq)
            return _Known(
                shut=(told.code or Code.RESULT_ABSENT, told.reason),
                barred=barred,
                ended=told.state is GateState.ENDED,
            )
        try:
            grant = self._grant(expected, told, token, at)
        except WeighbridgeError as error:
            return replace(known, grant=None, shut=(error.code, error.message))
        old = known.grant
        if grant.token.seq <= known.barred or (old is not None and grant.token.seq < old.token.seq):
            # An earlier word that came late: another replica may not have heard of the later one yet.
            return known
        if old is not None and old.token.seq == grant.token.seq:
            # The same result told again lives no longer for it.
            wall_ns, steady_ns = min(grant.wall_ns, old.wall_ns), min(grant.steady_ns, old.steady_ns)
            grant = replace(grant, wall_ns=wall_ns, steady_ns=steady_ns)
        return replace(known, grant=grant, shut=None)

    def _grant(self, expected: Expected, told: Told, raw: bytes | None, at: Instant) -> Grant:
        """Steps 2 and 3, and the ends of 4 and 5."""
        if raw is None or told.expires_ns is None:
            raise MalformedEvidence(Code.FIELD_MISSING, "open, yet without a token and its expiry", where="result")
        token = self._trust.verifiers.verify(raw, audience=self._trust.audience, at=at.wall)
        _check_status(token, self._trust.accept)
        _check_expected(token, expected)
        wall_ns = min(nanoseconds(token.expires), told.expires_ns)
        left_ns = min(wall_ns - max(told.at_ns, nanoseconds(token.issued)), _LIFETIME_MAX_NS)
        return Grant(expected, token, at, wall_ns, at.steady_ns + left_ns)


def _check_status(token: ResultToken, accept: Accept) -> None:
    if token.status not in {"affirming", accept}:
        raise PolicyDenied(
            Code.GATE_STATUS,
            f"the token is authentic, but its status is {token.status}",
            where="token.ear_status",
            expected=accept,
            got=token.status,
        )


def _check_expected(token: ResultToken, expected: Expected) -> None:
    if token.session != expected.session:
        raise NotAuthentic(
            Code.GATE_MODEL,
            "the token is of another session than the verifier says",
            where="token.session",
            expected=expected.session,
            got=token.session,
        )
    for what, wanted, got in (
        ("tenant", expected.tenant, token.tenant),
        ("model", expected.model.hex(), token.model.hex()),
    ):
        if wanted != got:
            raise PolicyDenied(
                Code.GATE_MODEL,
                f"the session has another {what} than the gate's file says",
                where=f"token.{what}",
                expected=wanted,
                got=got,
            )
    if more := set(token.adapters) - expected.adapters:
        raise PolicyDenied(
            Code.GATE_MODEL,
            "the session has an adapter loaded that the gate's file does not name",
            where="token.adapters",
            got=min(more),
        )
    if expected.cnf is not None:
        token.require_upstream(expected.cnf)
