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

An entry of the gate's file may leave the session open. It then stands for whichever session of its tenant and model has
a token with its serving key (:meth:`Holder.hear_found`); of several that are open, the one that was affirmed last. One
that has ended is forgotten, but for the fact that it has.
What is not checked: that the host with the serving key is the one that is talked to (whoever connects pins ``cnf``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.gate.expected import Expected, check_expected, check_status
from weighbridge.verifier.result.trusted import names_unknown_key
from weighbridge.verifier.told import GateState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from weighbridge.verifier.gate.expected import Accept
    from weighbridge.verifier.gate.instant import Instant
    from weighbridge.verifier.gate.verifiers import Verifiers
    from weighbridge.verifier.result import ResultToken
    from weighbridge.verifier.told import Model, Told

__all__ = ["Grant", "Holder", "Shut", "Trust"]

_LIFETIME_MAX_NS: Final = 120 * 10**9
# Sessions that are found and have not ended; of those that have, that it is remembered.
_FOUND_MAX: Final = 4096
_OVER_MAX: Final = 4096
# Why a token says nothing of whose it is; the verifier closes no session for any of these.
_UNREAD: Final = frozenset(
    {
        Code.TOKEN_SIGNATURE,
        Code.TOKEN_KEY_PERIOD,
        Code.TOKEN_AUDIENCE,
        Code.TOKEN_NOT_YET_VALID,
        Code.TOKEN_MALFORMED,
    }
)
# A wall clock may be set back by this much without anybody's minding; slewing it moves both clocks.
_SET_BACK_NS: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose tokens open: those of ``verifiers``, for ``audience``, of a status no worse than ``accept``."""

    verifiers: Verifiers
    audience: str
    accept: Accept


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


@dataclass(frozen=True, slots=True)
class _Found:
    """A session that no entry names. ``entry`` is that whose key it has, by its identifier, once a token said so."""

    model: Model
    entry: bytes | None
    known: _Known


@final
class Holder:
    """What a verifier has said of the sessions of one gate."""

    __slots__ = (
        "_entries",
        "_fault",
        "_found",
        "_heard",
        "_known",
        "_last",
        "_over",
        "_trust",
        "expected",
        "lacks_key",
    )

    def __init__(self, trust: Trust, expected: Iterable[Expected]) -> None:
        self._trust = trust
        self.expected: Mapping[bytes, Expected] = {one.identifier: one for one in expected}
        self._known = dict.fromkeys(self.sessions, _Known())
        self._fault: WeighbridgeError | None = None
        self._found: dict[bytes, _Found] = {}
        # By entry that names no session: those that are its by now, and why the last one ended.
        self._entries: dict[bytes, dict[bytes, None]] = {
            name: {} for name, one in self.expected.items() if one.session is None
        }
        self._last: dict[bytes, tuple[str, str]] = {}
        # Found sessions that have ended, the earliest first; and models of which something was heard.
        self._over: OrderedDict[bytes, None] = OrderedDict()
        self._heard: set[Model] = set()
        # Whether a token has named a key that is not known, since somebody who fetches keys has cleared it.
        self.lacks_key = False

    @property
    def sessions(self) -> tuple[bytes, ...]:
        """Those that the file names."""
        return tuple(name for name, one in self.expected.items() if one.session is not None)

    @property
    def models(self) -> tuple[Model, ...]:
        """Those of which sessions are to be found, in the file's order."""
        return tuple(dict.fromkeys(one.of for one in self.expected.values() if one.session is None))

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
            expected = self.expected[session]
            self._known[session] = self._after(known, lambda _: expected, told, token, at)

    def hear_model(self, model: Model) -> None:
        """Take note that the verifier tells of the sessions of ``model``, whether there are any or not."""
        self._heard.add(model)

    def hear_found(self, model: Model, session: bytes, told: Told, token: bytes | None, at: Instant) -> None:
        """The same of a session that the verifier has found, as one of ``model``. See :meth:`hear`."""
        if session in self._known:
            self.hear(session, told, token, at)
            return
        if session in self._over or model not in self.models:
            return
        found = self._found.get(session)
        if told.state is GateState.ENDED:
            self._drop(session, told)
            return
        if found is None:
            if len(self._found) >= _FOUND_MAX:
                return
            found = _Found(model, None, _Known())
        entry = found.entry

        def choose(token: ResultToken) -> Expected:
            nonlocal entry
            chosen = self._chosen(model, token)
            entry = chosen.identifier
            return replace(chosen, session=session)

        known = self._after(found.known, choose, told, token, at)
        self._put(session, _Found(model, entry, known))

    def refuse(self, session: bytes, error: WeighbridgeError) -> None:
        """Take note that the verifier does not tell of ``session`` at all."""
        known = self._known.get(session)
        if known is not None and not known.ended:
            self._known[session] = replace(known, grant=None, shut=(error.code, error.message))

    def believe(self, verifiers: Verifiers) -> None:
        """Take tokens by the keys of ``verifiers`` from now on. What came by another key closes."""
        self._trust = replace(self._trust, verifiers=verifiers)
        self._known = {session: self._by_known_key(known) for session, known in self._known.items()}
        for session, found in self._found.items():
            self._found[session] = replace(found, known=self._by_known_key(found.known))

    def _by_known_key(self, known: _Known) -> _Known:
        if known.grant is None or known.grant.token.key in self._trust.verifiers.keys:
            return known
        why = "the verifier has taken the key of its last token out of its key set"
        return replace(known, grant=None, shut=(Code.TOKEN_SIGNATURE, why))

    def line(self, fault: WeighbridgeError | None) -> None:
        """Take note that the line to the verifier is cut, for this reason, or up again: words, which open nothing."""
        self._fault = fault

    def at(self, identifier: bytes, now: Instant) -> Grant | Shut:
        """Whether the session, or an entry's, is open now."""
        if (known := self._known.get(identifier)) is not None:
            return self._at(known, self.expected[identifier], now)
        if (found := self._found.get(identifier)) is not None:
            return self._at(found.known, self._found_as(identifier, found), now)
        if (entry := self.expected.get(identifier)) is None:
            # Whoever has been let through to it asks again.
            gone = Expected(name="", session=identifier, tenant="", model=b"", adapters=frozenset(), cnf=None)
            return Shut(gone, Code.SESSION_STATE, "the session has ended")
        shown = [
            self._at(self._found[session].known, replace(entry, session=session), now)
            for session in self._entries[identifier]
        ]
        opened = [one for one in shown if isinstance(one, Grant)]
        if opened:
            return max(opened, key=lambda grant: grant.token.issued)
        if shown:
            return shown[-1]
        nothing = f"no session of {entry.name}'s model has its key"
        code, reason = self._unread(entry.of) or self._last.get(identifier) or self._untold(nothing)
        return Shut(entry, code, reason)

    def _at(self, known: _Known, expected: Expected, now: Instant) -> Grant | Shut:
        if known.grant is None:
            code, reason = known.shut or self._untold("the verifier has not said anything of the session yet")
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

    def told(self, identifier: bytes) -> bool:
        """Whether the verifier has said anything of the session, or of any that could be an entry's."""
        known = self._known.get(identifier)
        if known is None:
            return self.expected[identifier].of in self._heard
        return known.grant is not None or known.shut is not None

    def renewed(self, other: Holder) -> None:
        """Take over what ``other`` knows of the sessions here.

        What it has of tokens, and why a session is not open, only where trust and what is expected are the same. That
        a session has ended, and which windows do not open, always: no file and no key opens these again.
        """
        self._over = OrderedDict(other._over)
        trusted = other._trust == self._trust
        for session, known in other._known.items():
            before = other.expected[session]
            if session in self._known:
                same = trusted and self.expected[session] == before
                # Of one that has ended, why is kept too: nothing will be heard of it.
                self._known[session] = known if same or known.ended else _Known(barred=known.barred)
            elif known.ended:
                self._forget(session)
            elif before.of in self.models:
                self._put(session, _Found(before.of, None, _Known(barred=known.barred)))
        for session, found in other._found.items():
            barred = _Known(barred=found.known.barred)
            entry = None if found.entry is None else self.expected.get(found.entry)
            if session in self._known:
                self._known[session] = barred
            elif found.model in self.models:
                same = trusted and entry is not None and entry == other.expected.get(entry.identifier)
                self._put(session, found if same else _Found(found.model, None, barred))
        for session in self._over:
            if session in self._known:
                shut = Code.SESSION_STATE.value, "the session has ended"
                self._known[session] = _Known(shut=shut, ended=True)

    def _chosen(self, model: Model, token: ResultToken) -> Expected:
        """The entry with the serving key of a found session, or else the one that compares none."""
        of_model = [one for one in self.expected.values() if one.session is None and one.of == model]
        for entry in sorted(of_model, key=lambda one: one.cnf is None):
            if entry.cnf in {token.cnf, None}:
                return entry
        raise NotAuthentic(
            Code.UPSTREAM_KEY, "no entry of the gate's file has the serving key", where="token.cnf", got=token.cnf
        )

    def _found_as(self, session: bytes, found: _Found) -> Expected:
        entry = None if found.entry is None else self.expected.get(found.entry)
        if entry is not None:
            return replace(entry, session=session)
        of, nothing = found.model, frozenset[bytes]()
        return Expected(name="", session=session, tenant=of.tenant, model=of.digest, adapters=nothing, cnf=None)

    def _put(self, session: bytes, found: _Found) -> None:
        before = self._found.get(session)
        if before is not None and before.entry is not None and before.entry != found.entry:
            self._entries[before.entry].pop(session, None)
        self._found[session] = found
        if found.entry is not None:
            self._entries[found.entry][session] = None
            self._last.pop(found.entry, None)

    def _drop(self, session: bytes, told: Told) -> None:
        found = self._found.pop(session, None)
        if found is not None and found.entry is not None:
            del self._entries[found.entry][session]
            self._last[found.entry] = told.code or Code.SESSION_STATE, told.reason
        self._forget(session)

    def _forget(self, session: bytes) -> None:
        self._over[session] = None
        if len(self._over) > _OVER_MAX:
            self._over.popitem(last=False)

    def _unread(self, model: Model) -> tuple[str, str] | None:
        """Why no token of a session of ``model`` says whose it is: it could be any entry's."""
        shuts = [found.known.shut for found in self._found.values() if found.model == model and found.entry is None]
        return next((shut for shut in reversed(shuts) if shut is not None and shut[0] in _UNREAD), None)

    def _untold(self, nothing: str) -> tuple[str, str]:
        if self._fault is None:
            return Code.RESULT_ABSENT, nothing
        return self._fault.code, f"nothing was heard of the session: {self._fault.message}"

    def _after(
        self,
        known: _Known,
        choose: Callable[[ResultToken], Expected],
        told: Told,
        token: bytes | None,
        at: Instant,
    ) -> _Known:
        if told.state is not GateState.OPEN:
            barred = known.barred if told.seq is None else max(known.barred, told.seq)
            return _Known(
                shut=(told.code or Code.RESULT_ABSENT, told.reason),
                barred=barred,
                ended=told.state is GateState.ENDED,
            )
        try:
            grant = self._grant(choose, told, token, at)
        except WeighbridgeError as error:
            self.lacks_key = self.lacks_key or names_unknown_key(error)
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

    def _grant(self, choose: Callable[[ResultToken], Expected], told: Told, raw: bytes | None, at: Instant) -> Grant:
        """Steps 2 and 3, and the ends of 4 and 5."""
        if raw is None or told.expires_ns is None:
            raise MalformedEvidence(Code.FIELD_MISSING, "open, yet without a token and its expiry", where="result")
        token = self._trust.verifiers.verify(raw, audience=self._trust.audience, at=at.wall)
        expected = choose(token)
        check_status(token, self._trust.accept)
        check_expected(token, expected)
        wall_ns = min(nanoseconds(token.expires), told.expires_ns)
        left_ns = min(wall_ns - max(told.at_ns, nanoseconds(token.issued)), _LIFETIME_MAX_NS)
        return Grant(expected, token, at, wall_ns, at.steady_ns + left_ns)
