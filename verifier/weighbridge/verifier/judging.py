"""Judges one window, by the session as it stands: changes nothing, and needs no turn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, final

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, WeighbridgeError
from weighbridge.verifier.appraisal import refuse
from weighbridge.verifier.challenge import CHANCE, Chance, draw, preimage_of
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.keeping import Keeper
from weighbridge.verifier.ledger.content import Content
from weighbridge.verifier.observed import Stage, timed
from weighbridge.verifier.procedure import authenticate, fork, unknown_challenge, verify_window
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.telemetry.appraisal import traces_of
from weighbridge.verifier.traces import Beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.spot import SpotExpectation
    from weighbridge.verifier.appraisal import Appraiser, Verdict
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.bench import Benches
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.live import Live, LiveSessions, Recalled
    from weighbridge.verifier.observed import Observer
    from weighbridge.verifier.procedure import AuthenticWindow, VerifiedWindow
    from weighbridge.verifier.stood import Stood
    from weighbridge.verifier.store import Issued, Store
    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["Asked", "Judge", "Judged"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the memory of GPUs was asked about a window, and what it said.

    Attributes:
        traces: what the window brings, and GPUs' samples are remembered by.
        wanted: GPUs that it is the first to judge by a profile, with its digest.
        recalled: the answer.
    """

    traces: Sequence[Trace]
    wanted: Sequence[tuple[bytes, bytes]]
    recalled: Recalled


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judgement on a window, which nobody knows of yet. Made by :meth:`Judge.judge`.

    Attributes:
        live: its session.
        stood: where that stood when the window was judged.
        peer: from whose channel it came.
        verified: the window; ``None`` where its verification refused it.
        asked: what it was judged by of what is remembered of GPUs; ``None`` as well then.
        verdict: the judgement.
        random: drawn for the challenge that leaves with the answer.
        record: what is to be recorded of it.
        evidence: the window as received.
        at: its receipt time.
    """

    live: Live
    stood: Stood
    peer: bytes
    verified: VerifiedWindow | None
    asked: Asked | None
    verdict: Verdict
    random: bytes
    record: Record
    evidence: Content
    at: datetime

    @property
    def session(self) -> bytes:
        """The session of which it is a window."""
        return self.record.session

    @property
    def traces(self) -> Sequence[Trace]:
        """What GPUs' samples are remembered by."""
        return () if self.asked is None else self.asked.traces

    @property
    def goes_on(self) -> bool:
        """Whether its session does, with this window in its chain."""
        return self.verified is not None and self.verdict.physical is not None and self.verdict.outcome != "denied"

    @property
    def shuts(self) -> bool:
        """Whether its session's gate is shut from now on: a held window that is not denied changes nothing there."""
        return not (self.verdict.opens or (self.goes_on and self.verdict.held))

    @property
    def beside(self) -> Beside:
        """What windows that are settled behind it are compared with."""
        return Beside(self.record.session, self.verdict.seq, self.traces)


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
        """Judge one window; see :meth:`.Verifier.judge`.

        ``renewing``: by what its tenant's owners say now, and not by what they have said before.
        """
        now = self._clock.now()
        live = self._sessions.find(session, peer=peer)
        bench = self._benches.judging(live.terms.tenant)
        if renewing:
            bench.refresh(now)
        try:
            with timed(self._observer, Stage.AUTHENTICATE):
                window = authenticate(data, enrolled=live.enrolled, peer=peer)
            forked = self._place(window, live)
        except EnvironmentFault:
            raise
        except WeighbridgeError as error:
            self.junk[error.code] += 1
            raise
        held = not _fresh(window, live, now)
        seq = window.header.seq
        verified: VerifiedWindow | None = None
        spot: SpotExpectation | None = None
        asked: Asked | None = None
        try:
            if forked is not None:
                raise forked
            issued = self._require_issued(window) if held else live.issued
            spot = issued.spot_for(seq)
            with timed(self._observer, Stage.VERIFY):
                verified = verify_window(
                    window,
                    enrolled=live.enrolled,
                    position=live.position,
                    held=held,
                    spot=spot,
                    anchors=bench.anchors,
                    at=now,
                    chains=bench.chains,
                )
        except EnvironmentFault:
            # This machine is at fault, not the window: it is not judged, and comes again.
            raise
        except WeighbridgeError as error:
            verdict = refuse(error, enrolled=live.enrolled, seq=seq, received=now, held=held)
        else:
            with timed(self._observer, Stage.APPRAISE):
                asked = self._ask(verified, live, beside, bench.appraiser, now)
                verdict = _appraise(verified, live, asked, bench.appraiser, now)
        record = Record(
            kind="window",
            session=live.terms.session,
            seq=verdict.seq,
            received_ns=nanoseconds(now),
            held=verdict.held,
            preimage=None if verdict.held else preimage_of(live.issued),
            opening=None,
            terms=None,
            secret=None,
            window=window.digest,
            evidence=sha256(data),
            policy=NO_DIGEST if verdict.decision is None else verdict.decision.policy_digest,
            reference=verdict.reference or NO_DIGEST,
            requirements=None,
            verdict=verdict.encode(),
            spot=spot,
            collateral=verdict.collateral or NO_DIGEST,
            history=None if verdict.physical is None else verdict.physical.history,
            previous=live.position.window,
        )
        self._keeper.keep(verdict, bench.appraiser, live.terms)
        return Judged(
            live=live,
            stood=live.stood,
            peer=peer,
            verified=verified,
            asked=asked,
            verdict=verdict,
            random=draw(self._chance),
            record=record,
            evidence=Content(data, () if verified is None else verified.chains),
            at=now,
        )

    def again(self, item: Judged, *, beside: Sequence[Judged]) -> Judged:
        """Judge the window of ``item`` anew, by its session as it stands now; raises as :meth:`judge`."""
        # In the middle of a transaction: nothing new is taken up, which would begin another one.
        return self.judge(item.session, item.evidence.data, peer=item.peer, beside=beside, renewing=False)

    def holds(self, item: Judged, *, beside: Sequence[Judged]) -> bool:
        """Whether what is remembered of GPUs is still what ``item`` was judged by, behind those ``beside`` it.

        Raises:
            EnvironmentFault: the store cannot be read.
        """
        if item.asked is None:
            return True
        asked = item.asked
        return self._recall(item.live, asked.traces, asked.wanted, beside).history == asked.recalled.history

    def _ask(
        self, verified: VerifiedWindow, live: Live, beside: Sequence[Judged], appraiser: Appraiser, now: datetime
    ) -> Asked:
        named = appraiser.named(enrolled=live.enrolled, at=now)
        traces = traces_of(verified, live.position.telemetry, enrolled=live.enrolled, named=named)
        wanted = appraiser.wanted(verified, enrolled=live.enrolled, position=live.position, at=now)
        return Asked(traces, wanted, self._recall(live, traces, wanted, beside))

    def _recall(
        self,
        live: Live,
        traces: Sequence[Trace],
        wanted: Sequence[tuple[bytes, bytes]],
        beside: Sequence[Judged],
    ) -> Recalled:
        return self._sessions.recall(live, traces, wanted, [item.beside for item in beside if item.goes_on])

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


def _appraise(verified: VerifiedWindow, live: Live, asked: Asked, appraiser: Appraiser, now: datetime) -> Verdict:
    physical = appraiser.physical(
        verified, enrolled=live.enrolled, position=live.position, history=asked.recalled.history, at=now
    )
    return appraiser.appraise(
        verified, enrolled=live.enrolled, position=live.position, state=live.state, physical=physical, at=now
    )


def _fresh(window: AuthenticWindow, live: Live, now: datetime) -> bool:
    """Whether the window carries the outstanding challenge and comes in time. A challenge serves one window."""
    terms, issued = live.terms, live.issued
    allowed = timedelta(microseconds=(terms.period_ns + terms.lateness_ns) // 1000)
    return (
        window.header.challenge == issued.digest
        and window.header.seq == issued.seq
        and now - moment(issued.issued_ns) <= allowed
    )
