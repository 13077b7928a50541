"""Judges windows, by their sessions as these stand: changes nothing, and needs no turn.

Those that came together are judged together, stage by stage and not window by window: the store and the policy's engine
are asked about all of them at once, and the code of a stage does its work while the processor has it at hand. What
comes of each is what would come of it by itself, behind those before it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, final

from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, WeighbridgeError
from weighbridge.verifier.appraisal import decide_all, refuse
from weighbridge.verifier.challenge import CHANCE, Chance, draw
from weighbridge.verifier.hearing import Asked, Hearing, Judged, Sent
from weighbridge.verifier.keeping import Keeper
from weighbridge.verifier.ledger.content import Content
from weighbridge.verifier.observed import Stage, timed
from weighbridge.verifier.procedure import authenticating, fork, verifying
from weighbridge.verifier.side_by_side import side_by_side
from weighbridge.verifier.telemetry.appraisal import traces_of, wanted_of
from weighbridge.verifier.window_claims import unknown_challenge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.bench import Bench, Benches
    from weighbridge.verifier.case import Case
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.live import Live, LiveSessions, Recalled
    from weighbridge.verifier.observed import Observer
    from weighbridge.verifier.procedure import AuthenticWindow, VerifiedWindow
    from weighbridge.verifier.side_by_side import Steps
    from weighbridge.verifier.store import Issued, Store
    from weighbridge.verifier.telemetry.appraisal import Presented, TelemetryAppraisal
    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["Asked", "Judge", "Judged", "Sent"]


@final
class Judge:
    """Judges windows. One thread uses it.

    Attributes:
        junk: how many windows were refused without a judgement, by code; whoever records that clears it.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        store: Store,
        sessions: LiveSessions,
        benches: Benches,
        clock: Clock,
        observer: Observer,
        chance: Chance = CHANCE,
    ) -> None:
        self._chance = chance
        self._keeper = Keeper(archive)
        self._store = store
        self._sessions = sessions
        self._benches = benches
        self._observer = observer
        self._clock = clock
        self.junk: Counter[Code] = Counter()

    def judge(
        self, session: bytes, data: bytes, *, peer: bytes, beside: Sequence[Judged], renewing: bool = True
    ) -> Judged:
        """Judge one window; see :meth:`.Verifier.judge`, and :meth:`judge_all`."""
        (made,) = self.judge_all([Sent(session, data, peer)], beside=beside, renewing=renewing)
        if isinstance(made, WeighbridgeError):
            raise made
        return made

    def judge_all(
        self, sent: Sequence[Sent], *, beside: Sequence[Judged], renewing: bool = True, at: datetime | None = None
    ) -> list[Judged | WeighbridgeError]:
        """Judge windows, each of another session; see :meth:`.Verifier.judge_all`.

        ``renewing``: by what their tenants' owners say now, and not by what they have said before. ``at`` is when they
        were received: now, if nothing is said.
        """
        junk: Counter[Code] = Counter()
        now = self._clock.now() if at is None else at
        heard = self._heard(self._sought(sent, now, renewing=renewing), now, junk)
        hearings = [one for one in heard if isinstance(one, Hearing)]
        verified = self._verify(hearings)
        with timed(self._observer, Stage.APPRAISE, parts=len(verified)):
            self._appraise(verified, beside)
        made: list[Judged | WeighbridgeError] = []
        taken, gone = list(beside), False
        for one in heard:
            item = self._judged(one) if isinstance(one, Hearing) else one
            if gone and isinstance(one, Hearing) and isinstance(item, Judged) and not self.holds(item, beside=taken):
                # Received when it was: else it would be late, and those behind it recorded as of before it.
                (item,) = self.judge_all([one.sent], beside=taken, renewing=False, at=one.at)
            made.append(item)
            if isinstance(item, Judged):
                taken.append(item)
            # All behind it were judged as if it went on.
            if isinstance(one, Hearing) and one.asked is not None:
                gone = gone or not (isinstance(item, Judged) and item.goes_on)
        # Not before: where something goes wrong for all, each comes again by itself.
        self.junk.update(junk)
        return made

    def again(self, items: Sequence[Judged], *, beside: Sequence[Judged]) -> list[Judged | WeighbridgeError]:
        """Judge the windows of ``items`` anew, by their sessions as they stand now; as :meth:`judge_all`."""
        sent = [Sent(item.session, item.evidence.data, item.peer) for item in items]
        # In the middle of a transaction: nothing new is taken up, which would begin another one.
        return self.judge_all(sent, beside=beside, renewing=False)

    def holds(self, item: Judged, *, beside: Sequence[Judged]) -> bool:
        """Whether what is remembered of GPUs is still what ``item`` was judged by, behind those ``beside`` it.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        if item.asked is None:
            return True
        asked = item.asked
        coming = [other.beside for other in beside if other.goes_on]
        (found,) = self._sessions.recall_all([(item.live, asked.traces, asked.wanted)], coming)
        return found.history == asked.recalled.history

    def holding(self, judged: Sequence[Judged], known: int) -> list[bool]:
        """Of each of ``judged`` whether it :meth:`holds` behind those before it; ``False`` where that has to be asked.

        Nothing is looked up as long as the store knows of as much of the ledger as when they were judged: ``known``.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        asked = [(item, item.asked) for item in judged if item.asked is not None]
        if all(own.recalled.known == known for _, own in asked):
            return [True] * len(judged)
        going = [(item, own) for item, own in asked if item.goes_on]
        found = self._sessions.recall_all([(item.live, own.traces, own.wanted) for item, own in going], ())
        same = {
            item.session for (item, own), now in zip(going, found, strict=True) if now.history == own.recalled.history
        }
        return [item.asked is None or item.session in same for item in judged]

    # -- stages --------------------------------------------------------------------------------------------------------

    def _sought(self, sent: Sequence[Sent], now: datetime, *, renewing: bool) -> list[_Sought | WeighbridgeError]:
        """The session of each window, and by what that is judged."""
        renewed: set[str] = set()
        sought: list[_Sought | WeighbridgeError] = []
        for one, live in zip(sent, self._sessions.find_all([(one.session, one.peer) for one in sent]), strict=True):
            try:
                if isinstance(live, WeighbridgeError):
                    raise live
                tenant = live.terms.tenant
                bench = self._benches.judging(tenant)
                if renewing and tenant not in renewed:
                    bench.refresh(now)
                    renewed.add(tenant)
                sought.append(_Sought(one, live, bench))
            except WeighbridgeError as error:
                sought.append(error)
        return sought

    def _heard(
        self, sought: Sequence[_Sought | WeighbridgeError], now: datetime, junk: Counter[Code]
    ) -> list[Hearing | WeighbridgeError]:
        """Each window that is its session's and in its place, or what it is refused with, without a judgement.

        ``junk`` counts what anybody could have sent.
        """
        work = [
            authenticating(found.sent.data, enrolled=found.live.enrolled, peer=found.sent.peer)
            for found in sought
            if isinstance(found, _Sought)
        ]
        with timed(self._observer, Stage.AUTHENTICATE, parts=len(work)):
            windows = iter(side_by_side(work))
        return [
            self._placed(found, next(windows), now, junk) if isinstance(found, _Sought) else found for found in sought
        ]

    def _placed(
        self, found: _Sought, window: AuthenticWindow | WeighbridgeError, now: datetime, junk: Counter[Code]
    ) -> Hearing | WeighbridgeError:
        sent, live, bench = found
        try:
            if isinstance(window, WeighbridgeError):
                raise window
            return Hearing(sent, now, live, bench, window, self._place(window, live))
        except EnvironmentFault as fault:
            return fault
        except WeighbridgeError as error:
            junk[error.code] += 1
            return error

    def _verify(self, hearings: Sequence[Hearing]) -> list[tuple[Hearing, VerifiedWindow]]:
        """Those of ``hearings`` whose windows verify; the others say what their refusal comes to."""
        due = [(hearing, work) for hearing in hearings if (work := self._verifying(hearing)) is not None]
        verified: list[tuple[Hearing, VerifiedWindow]] = []
        with timed(self._observer, Stage.VERIFY, parts=len(due)):
            windows = side_by_side([work for _, work in due])
        for (hearing, _), window in zip(due, windows, strict=True):
            if isinstance(window, WeighbridgeError):
                _refuse(hearing, window)
            else:
                hearing.verified = window
                verified.append((hearing, window))
        return verified

    def _verifying(self, hearing: Hearing) -> Steps[VerifiedWindow] | None:
        """The verification of a window, to be done; ``None`` where it is refused before."""
        live, bench = hearing.live, hearing.bench
        try:
            if hearing.forked is not None:
                raise hearing.forked
            issued = self._require_issued(hearing.window) if hearing.held else live.issued
        except WeighbridgeError as error:
            _refuse(hearing, error)
            return None
        hearing.spot = issued.spot_for(hearing.window.header.seq)
        return verifying(
            hearing.window,
            enrolled=live.enrolled,
            position=live.position,
            held=hearing.held,
            spot=hearing.spot,
            anchors=bench.anchors,
            at=hearing.at,
            chains=bench.chains,
        )

    def _appraise(self, verified: Sequence[tuple[Hearing, VerifiedWindow]], beside: Sequence[Judged]) -> None:
        """Judge verified windows, each as if those before it went on, as nearly all do."""
        if not verified:
            return
        shown = [
            hearing.bench.appraiser.presented(window, enrolled=hearing.live.enrolled, at=hearing.at)
            for hearing, window in verified
        ]
        asked = [_asked(hearing, window, of) for (hearing, window), of in zip(verified, shown, strict=True)]
        recalled = self._sessions.recall_all(asked, [item.beside for item in beside if item.goes_on])
        for (hearing, _), (_, traces, wanted), found in zip(verified, asked, recalled, strict=True):
            hearing.asked = Asked(traces, wanted, found)
        physical = [
            _physical(hearing, window, of, found)
            for (hearing, window), of, found in zip(verified, shown, recalled, strict=True)
        ]
        laid_out: dict[int, list[_LaidOut]] = {}
        for (hearing, window), said in zip(verified, physical, strict=True):
            laid_out.setdefault(id(hearing.bench), []).append(_lay_out(hearing, window, said))
        for ours in laid_out.values():
            _decide(ours)

    def _judged(self, hearing: Hearing) -> Judged | WeighbridgeError:
        """The judgement on a window that all stages are done with."""
        live, verdict = hearing.live, hearing.verdict
        if verdict is None:
            raise RuntimeError("a window that nobody has judged")
        if isinstance(verdict, EnvironmentFault):
            return verdict
        try:
            record = hearing.record(verdict)
            self._keeper.keep(verdict, hearing.bench.appraiser, live.terms)
            random = draw(self._chance)
        except WeighbridgeError as error:
            return error
        return Judged(
            live=live,
            stood=live.stood,
            peer=hearing.sent.peer,
            verified=hearing.verified,
            asked=hearing.asked,
            verdict=verdict,
            random=random,
            record=record,
            evidence=Content(hearing.sent.data, () if hearing.verified is None else hearing.verified.chains),
            at=hearing.at,
        )

    def _place(self, window: AuthenticWindow, live: Live) -> NotAuthentic | None:
        """Refuse what is out of place; return the error of a fork, which is a judgement and not junk."""
        seq, expected = window.header.seq, live.position.seq
        if window.header.session != live.terms.session:
            raise NotAuthentic(
                Code.WINDOW_SESSION,
                "the window is of another session",
                where="header.session",
                got=window.header.session,
            )
        if seq > expected:
            raise NotAuthentic(
                Code.WINDOW_SEQ, "windows before this one are missing", where="header.seq", expected=expected, got=seq
            )
        if seq == expected:
            return None
        with self._store.reading() as tx:
            recorded = tx.window_digest(live.terms.session, seq)
        # NOTE: H_k is compared and never a signature: ECDSA signatures are random and malleable.
        if recorded == window.digest:
            raise NotAuthentic(
                Code.WINDOW_DUPLICATE, "the window is recorded already", where="header.seq", expected=expected, got=seq
            )
        return fork(window, recorded)

    def _require_issued(self, window: AuthenticWindow) -> Issued:
        """A held window still carries a challenge of its session, this one: nobody seals under one of his own making.

        A fresh one carries the outstanding challenge, which was recorded when it was issued.
        """
        header = window.header
        with self._store.reading() as tx:
            row = tx.challenges.of(header.session, header.challenge)
        if row is None or row.seq is None or row.seq > header.seq:
            raise unknown_challenge(header)
        return row


class _Sought(NamedTuple):
    """A window as it came, its session, and by what that is judged."""

    sent: Sent
    live: Live
    bench: Bench


class _LaidOut(NamedTuple):
    """What is to be decided of a window."""

    hearing: Hearing
    window: VerifiedWindow
    physical: TelemetryAppraisal
    case: Case


def _asked(
    hearing: Hearing, window: VerifiedWindow, presented: Sequence[Presented]
) -> tuple[Live, Sequence[Trace], Sequence[tuple[bytes, bytes]]]:
    """What the memory of GPUs is asked about a window."""
    live, state = hearing.live, hearing.live.position.telemetry
    traces = traces_of(window, state, enrolled=live.enrolled, presented=presented)
    return live, traces, wanted_of(state, presented)


def _physical(
    hearing: Hearing, window: VerifiedWindow, presented: Sequence[Presented], recalled: Recalled
) -> TelemetryAppraisal:
    """What a window's samples say."""
    return hearing.bench.appraiser.physical(
        window,
        enrolled=hearing.live.enrolled,
        position=hearing.live.position,
        history=recalled.history,
        at=hearing.at,
        presented=presented,
    )


def _lay_out(hearing: Hearing, window: VerifiedWindow, physical: TelemetryAppraisal) -> _LaidOut:
    live = hearing.live
    case = hearing.bench.appraiser.lay_out(
        window, enrolled=live.enrolled, position=live.position, state=live.state, physical=physical, at=hearing.at
    )
    return _LaidOut(hearing, window, physical, case)


def _refuse(hearing: Hearing, error: WeighbridgeError) -> None:
    """Say what comes of a window that is not verified. Where this machine is at fault, nothing: it comes again."""
    if isinstance(error, EnvironmentFault):
        hearing.verdict = error
    else:
        seq, enrolled = hearing.window.header.seq, hearing.live.enrolled
        hearing.verdict = refuse(error, enrolled=enrolled, seq=seq, received=hearing.at, held=hearing.held)


def _decide(laid_out: Sequence[_LaidOut]) -> None:
    """Ask the one policy of these windows about all of them, and say what comes of that."""
    appraiser = laid_out[0].hearing.bench.appraiser
    decided = decide_all(appraiser.policy, [item.case for item in laid_out])
    for (hearing, window, physical, case), one in zip(laid_out, decided, strict=True):
        if isinstance(one, EnvironmentFault):
            hearing.verdict = one
        else:
            enrolled = hearing.live.enrolled
            hearing.verdict = appraiser.verdict(window, case, one, enrolled=enrolled, physical=physical, at=hearing.at)
