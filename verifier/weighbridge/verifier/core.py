"""The verifier: takes untrusted bytes, answers with verdicts, records everything before it answers.

A window is judged (:meth:`Verifier.judge`), which changes nothing, and then recorded and answered
(:meth:`Verifier.settle`), together with others that came meanwhile: :mod:`.settling` says in which order, and what is
true if power fails at each step.

Any number of processes may each have one over the same state, and any of them take any window of any session: they
write in turns (:mod:`.leading`). One caller at a time: the service runs this object in one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from weighbridge.proto import strict
from weighbridge.verifier.answers import Answer, Opened, Renewal, Resumed
from weighbridge.verifier.bench import Bench, Benches
from weighbridge.verifier.challenge import CHANCE, Chance, draw, hand_out, hardly_asked, issue
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.enroller import Enroller
from weighbridge.verifier.judging import Judge, Judged, Sent
from weighbridge.verifier.leading import Leader
from weighbridge.verifier.live import Live, LiveSessions
from weighbridge.verifier.observed import UNOBSERVED, Observer
from weighbridge.verifier.pruning import Pruner
from weighbridge.verifier.record import Record
from weighbridge.verifier.result.key_store import TokenKeyStore
from weighbridge.verifier.result_source import ResultSource
from weighbridge.verifier.service_limits import REMEMBERED
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.settling import Settled, Settler, spot_of
from weighbridge.verifier.standing import ended
from weighbridge.verifier.standings import Standings
from weighbridge.verifier.steps import End, Ending

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from cryptography import x509

    from weighbridge.proto.enrolment import EnrolmentChallenge
    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.appraisal import Appraiser
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.requirements import Requirements
    from weighbridge.verifier.store import Store
    from weighbridge.verifier.told import Told

__all__ = ["Answer", "Judged", "Opened", "Renewal", "Resumed", "Sent", "Settled", "Verifier"]


@final
class Verifier:
    """One verifier: its requirements, anchors, policy, keys, and what it has recorded.

    ``requirements``, ``anchors`` and ``appraiser`` are those of one tenant; ``others`` are those of the rest, where
    there are several. ``observer`` is told what is done. ``attesters`` are the authorities of the one tenant's hosts,
    if it has any of its own. ``chance`` is left to chance. ``remembered`` is how many sessions are, at most.
    ``keep_ended`` is how long the windows of a session are listed in the store after its end; ``None``: for ever.

    Attributes:
        standings: how its sessions stand, for any thread.
        results: what relying parties are answered, for one other thread than the one that judges.
    """

    def __init__(  # noqa: PLR0913 - all that a verifier is made of, by name
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
        others: Sequence[Bench] = (),
        observer: Observer = UNOBSERVED,
        attesters: Sequence[x509.Certificate] | None = None,
        chance: Chance = CHANCE,
        remembered: int = REMEMBERED,
        keep_ended: timedelta | None = None,
    ) -> None:
        self._first = Bench(requirements=requirements, anchors=anchors, appraiser=appraiser, attesters=attesters)
        self._benches = benches = Benches([self._first, *others])
        self._keys = keys
        self._archive = archive
        self._clock = clock
        self._chance = chance
        self.standings: Final = Standings(store)
        # Two threads sign tokens, each by what it has read of the keys.
        in_results, in_settling = TokenKeyStore(keys), TokenKeyStore(keys)
        self.results: Final = ResultSource(
            standings=self.standings, clock=clock, signer=in_results.signer, key_set=in_results.jwks
        )
        self._sessions = LiveSessions(
            archive=archive,
            store=store,
            benches=benches,
            keys=keys,
            standings=self.standings,
            chance=chance,
            observer=observer,
            remembered=remembered,
        )
        self._leader = Leader(archive=archive, store=store, sessions=self._sessions, clock=clock)
        self._pruner = Pruner(store=store, leader=self._leader, clock=clock, observer=observer, keep=keep_ended)
        self._judge = Judge(
            archive=archive,
            store=store,
            sessions=self._sessions,
            benches=benches,
            clock=clock,
            observer=observer,
            chance=chance,
        )
        self._settler = Settler(
            archive=archive,
            sessions=self._sessions,
            judge=self._judge,
            leader=self._leader,
            standings=self.standings,
            signer=in_settling.signer,
            issuer=issuer,
            observer=observer,
        )
        self._enroller = Enroller(
            benches=benches,
            keys=keys,
            archive=archive,
            sessions=self._sessions,
            leader=self._leader,
            chance=chance,
        )
        # Whatever was left undone by whoever was here before is finished before anybody is judged.
        self._leader.begin()

    @property
    def thumbprint(self) -> bytes:
        """SHA-256 of the verifier's public key: what terms and headers name."""
        return self._keys.thumbprint

    def open(self, data: bytes, *, peer: bytes, certificate: x509.Certificate | None = None) -> EnrolmentChallenge:
        """Answer an opening with a challenge that only the TPM of the named AK can meet.

        Args:
            data: an untrusted :class:`~weighbridge.proto.enrolment.Opening`.
            peer: SHA-256 of the SubjectPublicKeyInfo of the channel's TLS certificate.
            certificate: that one, which the transport has verified: a tenant may have authorities of its own.

        Raises:
            WeighbridgeError: the opening is refused.
        """
        return self._enroller.open(data, peer=peer, certificate=certificate, at=self._clock.now())

    def prove(self, data: bytes, *, peer: bytes) -> Opened:
        """Enrol the attester that meets the challenge, and sign the session's terms.

        Raises:
            EnvironmentFault: this machine is at fault: nothing was judged, and the proof may come again.
            WeighbridgeError: the proof is refused; a ``PolicyDenied`` names every finding and has been recorded.
        """
        terms, live = self._enroller.prove(data, peer=peer, clock=self._clock)
        return Opened(terms, live.issued.digest, spot_of(live.issued))

    def resume(self, session: bytes, *, peer: bytes) -> Resumed:
        """Take up a session whose stream was cut, here or at another process.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``, ``WINDOW_PEER``.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended.
        """
        # Before the turn: what has to be read of a session that is not remembered here keeps nobody waiting.
        _ = self._sessions.find(session, peer=peer)
        with self._leader.turn() as turn:
            now = self._clock.now()
            live = self._sessions.find(session, peer=peer)
            issued = live.issued
            # Else a host could empty the pool by cutting its line over and over, at one process or at several.
            if issued.seq != live.position.seq or not hardly_asked(issued, live.terms, at=now):
                root, random = self._chance.dated(self._archive.ledger.root), draw(self._chance)
                issued = issue(root, session, live.position.seq, random=random, at=now)
                issued = hand_out(turn.tx, issued, terms=live.terms, position=live.position)
        live.issued = issued
        return Resumed(live.position.seq, live.issued.digest, spot_of(live.issued), live.terms)

    def window(self, session: bytes, data: bytes, *, peer: bytes) -> Answer:
        """Judge one window, record the judgement, answer.

        Raises:
            EnvironmentFault: as :meth:`judge` and :meth:`settle`.
            WeighbridgeError: as :meth:`judge`.
        """
        (settled,) = self.settle([self.judge(session, data, peer=peer)])
        return settled()

    def settle(self, judged: Sequence[Judged]) -> tuple[Settled, ...]:
        """Record ``judged``, each of another session, as :meth:`.Settler.settle`; then their answers can be had.

        Nothing else may be done with the verifier between their judgements and this. What other processes have done
        meanwhile counts: an answer may be the refusal of what was judged, or the fault, that :meth:`judge` would raise.

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
        return self._judge.judge(session, data, peer=peer, beside=beside)

    def judge_all(self, sent: Sequence[Sent], *, beside: Sequence[Judged] = ()) -> list[Judged | WeighbridgeError]:
        """Of each of ``sent``, windows of different sessions, what :meth:`judge` returns or raises.

        As if they were judged one after the other, each beside those before it; it costs less to do so together.

        Raises:
            EnvironmentFault: this machine is at fault with all of them, or with one: nothing was judged.
        """
        return self._judge.judge_all(sent, beside=beside)

    def close(self, session: bytes, *, peer: bytes) -> strict.JsonObject:
        """End a session in good order and return its summary, schema ``weighbridge/session-summary/v1``."""
        # As in resuming.
        _ = self._sessions.find(session, peer=peer)
        with self._leader.turn() as turn:
            # Not before: others may have recorded while this waited for its turn.
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
            self._archive.commit(record, None)
            steps = [Ending(live, End(SessionState.CLOSED, now, None, ended(SessionState.CLOSED)))]
            done = self._sessions.write(turn.tx, steps)
        _ = self._sessions.moved(steps, done)
        return summary

    def standing(self, session: bytes, at: datetime) -> Told:
        """How ``session`` stands at ``at``. The one thing here that any thread may ask for at any time.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``.
            EnvironmentFault: the store cannot be read.
        """
        return self.standings.of(session).at(nanoseconds(at))

    @property
    def junk(self) -> int:
        """How much junk is counted and not yet recorded; for any thread."""
        return sum(list(self._judge.junk.values()))

    def follow(self, renewal: Renewal) -> None:
        """Ask ``renewal`` before every window of the first tenant by what it is to be judged."""
        self._first.follow(renewal)

    def refresh(self) -> None:
        """Judge by changed reference values from now on, if there are any. Windows and proofs do it for their tenant.

        Raises:
            EnvironmentFault: as :meth:`Renewal.renew`.
        """
        self._benches.refresh(self._clock.now())

    def count_junk(self, error: WeighbridgeError) -> None:
        """Count bytes that no session answers for."""
        self._judge.junk[error.code] += 1

    def record_junk(self) -> None:
        """Enter the junk counted since the last call into the ledger: one leaf, whatever the amount.

        Raises:
            WeighbridgeError: as :meth:`.Leader.turn` and :meth:`.Archive.commit`; it is counted on.
        """
        # Here, as it is called now and then: what others have ended would fill the memory.
        self._sessions.forget_ended()
        junk = self._judge.junk
        if not junk:
            return
        counts: strict.JsonObject = {code.value: count for code, count in sorted(junk.items())}
        document: strict.JsonObject = {"schema": "weighbridge/junk/v1", "counts": counts}
        with self._leader.turn() as turn:
            record = Record.note(
                "junk",
                session=bytes(16),
                seq=None,
                received_ns=nanoseconds(self._clock.now()),
                verdict=strict.json_encode(document),
            )
            self._archive.commit(record, None)
            junk.clear()
            self._sessions.settle(turn.tx)

    def prune(self) -> float:
        """Take away some rows of sessions that ended long ago; after how many seconds to come again.

        Raises:
            WeighbridgeError: as :meth:`.Pruner.prune`; nothing depends on it.
        """
        return self._pruner.prune()

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
