"""The verifier: takes untrusted bytes, answers with verdicts, records everything before it answers.

A window is judged (:meth:`Verifier.judge`), which changes nothing, and then recorded and answered
(:meth:`Verifier.settle`), together with others that came meanwhile: :mod:`.settling` says in which order, and what is
true if power fails at each step.

One caller at a time: the service runs this object in one thread.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentChallenge
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, WeighbridgeError
from weighbridge.proto.spdm.evidence import chains_in
from weighbridge.verifier.answers import Answer, Opened, Renewal, Resumed
from weighbridge.verifier.appraisal import refuse
from weighbridge.verifier.challenge import draw, hand_out, hardly_asked, issue, preimage_of
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.enroller import Enroller
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.keeping import Keeper
from weighbridge.verifier.ledger.content import Content
from weighbridge.verifier.live import End, Ending, Live, LiveSessions
from weighbridge.verifier.procedure import authenticate, fork, unknown_challenge, verify_window
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.recovery import settle
from weighbridge.verifier.result.key_store import TokenKeyStore
from weighbridge.verifier.result_source import ResultSource
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.settling import Judged, Settled, Settler, spot_of
from weighbridge.verifier.standing import ended
from weighbridge.verifier.standings import Standings
from weighbridge.verifier.telemetry.appraisal import traces_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto.spot import SpotExpectation
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.appraisal import Appraiser
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import AuthenticWindow, VerifiedWindow
    from weighbridge.verifier.requirements import Requirements
    from weighbridge.verifier.store import Issued, Store
    from weighbridge.verifier.telemetry.history import Trace
    from weighbridge.verifier.told import Told

__all__ = ["Answer", "Judged", "Opened", "Renewal", "Resumed", "Settled", "Verifier"]


@final
class Verifier:
    """One verifier: its requirements, anchors, policy, keys, and what it has recorded.

    Attributes:
        standings: how its sessions stand, for any thread.
        results: what relying parties are answered, for one other thread than the one that judges.
    """

    def __init__(
        self,
        *,
        requirements: Requirements,
        anchors: TrustAnchors,
        appraiser: Appraiser,
        keys: VerifierKeys,
        archive: Archive,
        store: Store,
        clock: Clock,
        issuer: str,
    ) -> None:
        self._renewal: Renewal | None = None
        self._keeper = Keeper(archive)
        self._anchors = anchors
        self._appraiser = appraiser
        self._keys = keys
        self._archive = archive
        self._store = store
        self._clock = clock
        self._chains = ChainCache()
        self.standings: Final = Standings(store)
        # Two threads sign tokens, each by what it has read of the keys.
        in_results, in_settling = TokenKeyStore(keys), TokenKeyStore(keys)
        self.results: Final = ResultSource(standings=self.standings, clock=clock, signer=in_results.signer)
        self._sessions = LiveSessions(
            archive=archive,
            store=store,
            anchors=anchors,
            keys=keys,
            chains=self._chains,
            standings=self.standings,
        )
        self._settler = Settler(
            archive=archive,
            sessions=self._sessions,
            standings=self.standings,
            signer=in_settling.signer,
            issuer=issuer,
        )
        self._enroller = Enroller(
            requirements=requirements,
            anchors=anchors,
            published=lambda: self._appraiser.published,
            references=appraiser.manifests,
            keys=keys,
            archive=archive,
            store=store,
            sessions=self._sessions,
        )
        self._junk: Counter[Code] = Counter()
        settle(archive, store, self._sessions)

    @property
    def thumbprint(self) -> bytes:
        """SHA-256 of the verifier's public key: what terms and headers name."""
        return self._keys.thumbprint

    def open(self, data: bytes, *, peer: bytes) -> EnrolmentChallenge:
        """Answer an opening with a challenge that only the TPM of the named AK can meet.

        Args:
            data: an untrusted :class:`~weighbridge.proto.enrolment.Opening`.
            peer: SHA-256 of the SubjectPublicKeyInfo of the channel's TLS certificate.

        Raises:
            WeighbridgeError: the opening is refused.
        """
        return self._enroller.open(data, peer=peer, at=self._clock.now())

    def prove(self, data: bytes, *, peer: bytes) -> Opened:
        """Enrol the attester that meets the challenge, and sign the session's terms.

        Raises:
            EnvironmentFault: this machine is at fault: nothing was judged, and the proof may come again.
            WeighbridgeError: the proof is refused; a ``PolicyDenied`` names every finding and has been recorded.
        """
        self._catch_up()
        # What is revoked by now counts: of what the terms rest on, windows look at no more than the devices again.
        self.refresh()
        terms, live = self._enroller.prove(data, peer=peer, at=self._clock.now())
        return Opened(terms, live.issued.digest, spot_of(live.issued))

    def resume(self, session: bytes, *, peer: bytes) -> Resumed:
        """Take up a session whose stream was cut.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``, ``WINDOW_PEER``.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended.
        """
        self._catch_up()
        now = self._clock.now()
        live = self._sessions.find(session, peer=peer)
        # Else a host could empty the pool by cutting its line over and over.
        if live.issued.seq != live.position.seq or not hardly_asked(live.issued, live.terms, at=now):
            issued = issue(self._archive.ledger.root, session, live.position.seq, random=draw(), at=now)
            with self._store.transaction() as tx:
                live.issued = hand_out(tx, issued, terms=live.terms, position=live.position)
        return Resumed(live.position.seq, live.issued.digest, spot_of(live.issued), live.terms)

    def window(self, session: bytes, data: bytes, *, peer: bytes) -> Answer:
        """Judge one window, record the judgement, answer.

        Raises:
            EnvironmentFault: as :meth:`judge` and :meth:`settle`.
            WeighbridgeError: as :meth:`judge`.
            Conflict: the store knows of another step of this session: a fork, by another replica.
        """
        (settled,) = self.settle([self.judge(session, data, peer=peer)])
        return settled()

    def settle(self, judged: Sequence[Judged]) -> tuple[Settled, ...]:
        """Record ``judged``, each of another session, as :meth:`.Settler.settle`; then their answers can be had.

        Nothing else may be done with the verifier between their judgements and this.

        Raises:
            EnvironmentFault: nothing is answered, and all of these windows may come again.
        """
        return self._settler.settle(judged)

    def judge(self, session: bytes, data: bytes, *, peer: bytes, beside: Sequence[Judged] = ()) -> Judged:
        """Judge one window. Nothing comes of it before :meth:`settle`.

        ``beside`` are those, of other sessions, with which it will be settled, and before it: else whoever has two
        hosts send one recording at once would not be found out.

        Raises:
            EnvironmentFault: this machine is at fault: nothing was judged, and the same window may come again.
            WeighbridgeError: the bytes could not be attributed to the session, or are out of place: refused without
                any effect on it. Whatever is attributable is judged, good or bad.
        """
        self._catch_up()
        now = self._clock.now()
        self.refresh()
        live = self._sessions.find(session, peer=peer)
        try:
            window = authenticate(data, enrolled=live.enrolled, peer=peer)
            forked = self._place(window, live)
        except EnvironmentFault:
            raise
        except WeighbridgeError as error:
            self._junk[error.code] += 1
            raise
        held = not self._fresh(window, live, now)
        seq = window.header.seq
        verified: VerifiedWindow | None = None
        spot: SpotExpectation | None = None
        traces: Sequence[Trace] = ()
        try:
            if forked is not None:
                raise forked
            issued = self._require_issued(window) if held else live.issued
            spot = issued.spot_for(seq)
            verified = verify_window(
                window,
                enrolled=live.enrolled,
                position=live.position,
                held=held,
                spot=spot,
                anchors=self._anchors,
                at=now,
                chains=self._chains,
            )
        except EnvironmentFault:
            # This machine is at fault, not the window: it is not judged, and comes again.
            raise
        except WeighbridgeError as error:
            verdict = refuse(error, enrolled=live.enrolled, seq=seq, received=now, held=held)
        else:
            named = self._appraiser.named(enrolled=live.enrolled, at=now)
            traces = traces_of(verified, live.position.telemetry, enrolled=live.enrolled, named=named)
            wanted = self._appraiser.wanted(verified, enrolled=live.enrolled, position=live.position, at=now)
            physical = self._appraiser.physical(
                verified,
                enrolled=live.enrolled,
                position=live.position,
                history=self._sessions.recall(live, traces, wanted, [item.beside for item in beside if item.goes_on]),
                at=now,
            )
            verdict = self._appraiser.appraise(
                verified,
                enrolled=live.enrolled,
                position=live.position,
                state=live.state,
                physical=physical,
                at=now,
            )
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
        self._keeper.keep(verdict, self._appraiser, live.terms)
        return Judged(
            live=live,
            verified=verified,
            verdict=verdict,
            random=draw(),
            record=record,
            evidence=Content(data, () if verified is None else chains_in(window.evidence.gpus)),
            traces=traces,
            at=now,
        )

    def close(self, session: bytes, *, peer: bytes) -> strict.JsonObject:
        """End a session in good order and return its summary, schema ``weighbridge/session-summary/v1``."""
        self._catch_up()
        now = self._clock.now()
        live = self._sessions.find(session, peer=peer)
        summary = self._summary(live, SessionState.CLOSED)
        record = Record.note(
            "closing",
            session=session,
            seq=live.position.seq,
            received_ns=nanoseconds(now),
            verdict=strict.json_encode(summary),
        )
        committed = self._archive.commit(record, None)
        end = End(SessionState.CLOSED, now, None, ended(SessionState.CLOSED))
        self._sessions.carry_out([Ending(live, end, committed.index)])
        return summary

    def standing(self, session: bytes, at: datetime) -> Told:
        """How ``session`` stands at ``at``. The one thing here that any thread may ask for at any time.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``.
            EnvironmentFault: the store cannot be read.
        """
        return self.standings.of(session).at(nanoseconds(at))

    def follow(self, renewal: Renewal) -> None:
        """Ask ``renewal`` before every window by what it is to be judged."""
        self._renewal = renewal

    def refresh(self) -> None:
        """Judge by changed reference values from now on, where there are any. Windows and proofs do this first.

        Raises:
            EnvironmentFault: as :meth:`Renewal.renew`.
        """
        if self._renewal is not None and (changed := self._renewal.renew(self._clock.now())) is not None:
            self._appraiser = changed

    def count_junk(self, error: WeighbridgeError) -> None:
        """Count bytes that no session answers for."""
        self._junk[error.code] += 1

    def record_junk(self) -> None:
        """Enter the junk counted since the last call into the ledger: one leaf, whatever the amount."""
        if not self._junk:
            return
        counts: strict.JsonObject = {code.value: count for code, count in sorted(self._junk.items())}
        document: strict.JsonObject = {"schema": "weighbridge/junk/v1", "counts": counts}
        record = Record.note(
            "junk",
            session=bytes(16),
            seq=None,
            received_ns=nanoseconds(self._clock.now()),
            verdict=strict.json_encode(document),
        )
        self._archive.commit(record, None)
        self._junk.clear()

    def _catch_up(self) -> None:
        """Finish what a fault of this machine has cut off, before anything else is judged.

        Else a denial that the disk reported as not recorded would be forgotten, and another window could take the
        place of one that is recorded already.

        Raises:
            EnvironmentFault: it is still at fault.
            LedgerInconsistent: as :func:`.recovery.settle`.
        """
        if self._archive.unsure is not None or self._sessions.behind:
            settle(self._archive, self._store, self._sessions)

    # -- one window ---------------------------------------------------------------------------------------------------

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
        with self._store.transaction() as tx:
            recorded = tx.window_digest(live.terms.session, seq)
        # NOTE: H_k is compared and never a signature: ECDSA signatures are random and malleable.
        if recorded == window.digest:
            raise NotAuthentic(
                Code.WINDOW_DUPLICATE, "the window is recorded already", where="header.seq", expected=expected, got=seq
            )
        return fork(window, recorded)

    def _fresh(self, window: AuthenticWindow, live: Live, now: datetime) -> bool:
        """Whether the window carries the outstanding challenge and comes in time. A challenge serves one window."""
        terms, issued = live.terms, live.issued
        allowed = timedelta(microseconds=(terms.period_ns + terms.lateness_ns) // 1000)
        return (
            window.header.challenge == issued.digest
            and window.header.seq == issued.seq
            and now - moment(issued.issued_ns) <= allowed
        )

    def _require_issued(self, window: AuthenticWindow) -> Issued:
        """A held window still carries a challenge of its session, this one: nobody seals under one of his own making.

        A fresh one carries the outstanding challenge, which was recorded when it was issued.
        """
        header = window.header
        with self._store.transaction() as tx:
            row = tx.challenge(header.session, header.challenge)
        if row is None or row.seq is None or row.seq > header.seq:
            raise unknown_challenge(header)
        return row

    def _summary(self, live: Live, state: SessionState) -> strict.JsonObject:
        terms = live.terms
        return {
            "schema": "weighbridge/session-summary/v1",
            "session": terms.session.hex(),
            "state": state.value,
            "windows": live.position.seq,
            "model": terms.model.hex(),
            "ledger": {"origin": self._archive.ledger.key.name, "size": self._archive.ledger.size},
        }
