"""Who has how much of the service, and whether it is more than :mod:`.service_limits` allows. No IO; used in one loop.

What is remembered is bounded by what is allowed: of a peer nothing is left once it has no stream, no call, no session
of the last hour, and its rates are at rest. What is refused is told with the time after which it may come again.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.service_limits import Limits, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable

    from weighbridge.verifier.relying_parties import RelyingParty

__all__ = ["ROOM_S", "Held", "Limited", "Quotas", "Visit"]

_DETACHED_S: Final = 3600.0
ROOM_S: Final = 5.0
"""When room comes free nobody knows; whoever waits so long does not ask too often."""
_BYTES_S: Final = 0.5
_BURST_S: Final = 1.0
_BURST_OPENINGS_S: Final = 60.0
_RATES_KEPT: Final = 1024


class Limited(Exception):
    """More than is allowed. After ``retry_after`` seconds it may come again; ``fault``, ``RATE_LIMITED``, says so."""

    def __init__(self, message: str, *, scope: str, expected: str, retry_after: float) -> None:
        self.fault: Final = EnvironmentFault(
            Code.RATE_LIMITED,
            message,
            where=scope,
            expected=expected,
            hint=f"it may come again in {max(retry_after, 0.001):.3g} s",
        )
        self.retry_after: Final = retry_after
        super().__init__(str(self.fault))


class _Scopes(tuple[tuple[str, "Hashable"], ...]):
    """Whom something counts for: kinds (``peer``, ``tenant``, ``total``), each with whose."""

    __slots__ = ()

    @classmethod
    def of(cls, peer: Hashable, tenant: str | None) -> _Scopes:
        tenants = () if tenant is None else (("tenant", tenant),)
        return cls((("peer", peer), *tenants, ("total", None)))


_WORDS: Final = {"peer": "this peer", "tenant": "its tenant", "total": "the service"}


@final
class _Gauge:
    """Something of which each may have so much at once."""

    def __init__(self, limits: Limits, name: str, words: str, retry_after: float) -> None:
        self._most = {kind: _limit(limits, kind, name) for kind in _WORDS}
        self._words = words
        self._retry_after = retry_after
        self._taken: Counter[tuple[str, Hashable]] = Counter()

    def check(self, scopes: Iterable[tuple[str, Hashable]], amount: int = 1) -> None:
        """Raises Limited: one of them would have too much with ``amount`` more."""
        for scope in scopes:
            most = self._most[scope[0]]
            if self._taken[scope] + amount > most:
                raise Limited(
                    f"{_WORDS[scope[0]]} has too many {self._words}",
                    scope=scope[0],
                    expected=f"<= {most}",
                    retry_after=self._retry_after,
                )

    def take(self, scopes: _Scopes, amount: int = 1) -> None:
        self.check(scopes, amount)
        for scope in scopes:
            self._taken[scope] += amount

    def give(self, scopes: _Scopes, amount: int = 1) -> None:
        for scope in scopes:
            self._taken[scope] -= amount
            if not self._taken[scope]:
                del self._taken[scope]

    @property
    def total(self) -> int:
        """How much all have together."""
        return self._taken["total", None]

    def __len__(self) -> int:
        return len(self._taken)


@final
class _Rate:
    """Something of which each may have so many in a time: the generic cell rate algorithm (ITU-T I.371 annex A).

    Kept for each is one time: when it would have had all that it took, had it taken no faster than allowed.
    """

    def __init__(
        self, limits: Limits, name: str, words: str, *, per: float, burst: float, kinds: Iterable[str]
    ) -> None:
        self._spacing = {kind: per / _limit(limits, kind, name) for kind in kinds}
        self._burst = burst
        self._words = words
        self._until: dict[tuple[str, Hashable], float] = {}

    def take(self, scopes: _Scopes, *, now: float, patience: float = 0.0) -> float:
        """One of it, which may be had after so many seconds, at most ``patience``. If it is refused none was taken."""
        taken = [scope for scope in scopes if scope[0] in self._spacing]
        longest, whose = max((self._until.get(scope, now) - now - self._burst, scope[0]) for scope in taken)
        if longest > patience:
            spacing = self._spacing[whose]
            raise Limited(
                f"{self._words} come too fast for {_WORDS[whose]}",
                scope=whose,
                expected=f"one in {spacing:.3g} s",
                retry_after=longest - patience,
            )
        if len(self._until) > _RATES_KEPT:
            self._until = {scope: until for scope, until in self._until.items() if until > now}
        for scope in taken:
            self._until[scope] = max(self._until.get(scope, now), now) + self._spacing[scope[0]]
        return max(longest, 0.0)

    def __len__(self) -> int:
        return len(self._until)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Bytes that wait for an answer, and for whom they count."""

    scopes: _Scopes
    size: int


@final
class Quotas:
    """All that is counted. Made once for a service.

    Args:
        limits: what is allowed.
        over: whether a session has ended, for when there is no room for another one: it is then not counted any more.
        now: seconds, steady.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        over: Callable[[bytes], bool] = lambda _: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits: Final = limits
        self.now: Final = now
        self._over = over
        self.streams: Final = _Gauge(limits, "streams", "streams", ROOM_S)
        self.sessions: Final = _Gauge(limits, "sessions", "sessions", ROOM_S)
        self.bytes: Final = _Gauge(limits, "bytes_in_flight", "bytes that wait for an answer", _BYTES_S)
        self.calls: Final = _Gauge(limits, "calls", "calls and watches", ROOM_S)
        self.openings: Final = _Rate(
            limits, "openings_per_minute", "openings", per=60.0, burst=_BURST_OPENINGS_S, kinds=("peer", "total")
        )
        self.windows: Final = _Rate(
            limits, "windows_per_second", "windows", per=1.0, burst=_BURST_S, kinds=("peer", "tenant", "total")
        )
        # Sessions with a stream: how many; and those without, until when they count, the soonest first.
        self._attached: Counter[bytes] = Counter()
        self._detached: OrderedDict[bytes, float] = OrderedDict()
        self._scopes: dict[bytes, _Scopes] = {}

    @contextlib.contextmanager
    def visit(self, peer: bytes) -> Generator[Visit]:
        """One stream of an attester, while the block lasts.

        Raises:
            Limited: too many streams.
        """
        scopes = _Scopes.of(peer, None)
        self.streams.take(scopes)
        visit = Visit(self, peer)
        try:
            yield visit
        finally:
            self.streams.give(scopes)
            visit.leave()

    @contextlib.contextmanager
    def call(self, party: RelyingParty) -> Generator[None]:
        """One call or watch of a relying party, while the block lasts.

        Raises:
            Limited: too many of them.
        """
        scopes = _Scopes.of(party.name, party.tenants[0] if len(party.tenants) == 1 else None)
        self.calls.take(scopes)
        try:
            yield
        finally:
            self.calls.give(scopes)

    @contextlib.contextmanager
    def aside(self, peer: bytes) -> Generator[None]:
        """Any other call of a peer, while the block lasts.

        Raises:
            Limited: too many of them.
        """
        scopes = _Scopes.of(peer, None)
        self.calls.take(scopes)
        try:
            yield
        finally:
            self.calls.give(scopes)

    def attach(self, session: bytes, scopes: _Scopes) -> None:
        """A stream speaks for ``session`` from now on.

        Raises:
            Limited: too many sessions.
        """
        if session not in self._scopes:
            self.require_session(scopes)
            self.sessions.take(scopes)
            self._scopes[session] = scopes
        self._detached.pop(session, None)
        self._attached[session] += 1

    def detach(self, session: bytes, *, ended: bool) -> None:
        """A stream speaks for ``session`` no more."""
        self._attached[session] -= 1
        if self._attached[session]:
            return
        del self._attached[session]
        if ended:
            self.sessions.give(self._scopes.pop(session))
        else:
            self._detached[session] = self.now() + _DETACHED_S

    def require_session(self, scopes: _Scopes) -> None:
        """There is room for one session more.

        Raises:
            Limited: there is none.
        """
        while self._detached and next(iter(self._detached.values())) <= self.now():
            self._forget(next(iter(self._detached)))
        try:
            self.sessions.check(scopes)
        except Limited:
            # An attester that was started over and over: its sessions ended each other.
            for session in [one for one in self._detached if self._scopes[one][0] == scopes[0] and self._over(one)]:
                self._forget(session)
            self.sessions.check(scopes)

    def _forget(self, session: bytes) -> None:
        del self._detached[session]
        self.sessions.give(self._scopes.pop(session))

    @property
    def remembered(self) -> int:
        """How many things are remembered, of all kinds."""
        gauges = (self.streams, self.sessions, self.bytes, self.calls)
        return sum(map(len, gauges)) + len(self.openings) + len(self.windows) + len(self._scopes)


@final
class Visit:
    """What one stream of an attester takes up. Made by :meth:`Quotas.visit`."""

    def __init__(self, quotas: Quotas, peer: bytes) -> None:
        self._quotas = quotas
        self._peer = peer
        self._scopes = _Scopes.of(peer, None)
        self._session: bytes | None = None
        self._tenant: str | None = None
        self._held: list[Held] = []

    def joins(self, session: bytes, tenant: str) -> None:
        """The stream speaks for ``session``, in place of the one that it spoke for.

        Raises:
            Limited: its tenant has too many streams, or somebody too many sessions.
        """
        if session == self._session:
            return
        self.leaves(ended=False)
        scopes = _Scopes.of(self._peer, tenant)
        alone = _Scopes((("tenant", tenant),))
        self._quotas.streams.take(alone)
        try:
            self._quotas.attach(session, scopes)
        except Limited:
            self._quotas.streams.give(alone)
            raise
        self._session, self._tenant, self._scopes = session, tenant, scopes

    def leaves(self, *, ended: bool) -> bool:
        """It speaks for none any more; whether it did."""
        if self._session is None or self._tenant is None:
            return False
        self._quotas.detach(self._session, ended=ended)
        self._quotas.streams.give(_Scopes((("tenant", self._tenant),)))
        self._session = self._tenant = None
        return True

    def leave(self) -> None:
        """The stream is over."""
        for held in [*self._held]:
            self.release(held)
        self.leaves(ended=False)

    def hold(self, size: int) -> Held:
        """``size`` bytes were read.

        Raises:
            Limited: there are too many that wait for an answer; these are not to be kept.
        """
        held = Held(self._scopes, size)
        self._quotas.bytes.take(held.scopes, size)
        self._held.append(held)
        return held

    def release(self, held: Held) -> None:
        """They were answered."""
        self._held.remove(held)
        self._quotas.bytes.give(held.scopes, held.size)

    def opening(self) -> None:
        """An enrolment is opened.

        Raises:
            Limited: too many are, or there are too many sessions already.
        """
        quotas, scopes = self._quotas, _Scopes.of(self._peer, None)
        quotas.openings.take(scopes, now=quotas.now())
        quotas.require_session(scopes)

    def request(self) -> float:
        """A request came; after so many seconds it may be worked on.

        Raises:
            Limited: that would be too long.
        """
        quotas = self._quotas
        return quotas.windows.take(self._scopes, now=quotas.now(), patience=quotas.limits.patience)


def _limit(limits: Limits, kind: str, name: str) -> int:
    share: Share = {"peer": limits.peer, "tenant": limits.tenant, "total": limits.total}[kind]
    value: int = getattr(share, name)
    return value
