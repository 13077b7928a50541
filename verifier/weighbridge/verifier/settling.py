"""Records what was judged, and answers: any number of windows, each of another session, with the syncs of one.

All of it happens in one turn (:mod:`.leading`). Order, and what is true if power fails, or the process ends, after each
step:

1. Each window's session is compared with where it stood when the window was judged. What has moved since, by another
   process, is judged anew: the same window again is a duplicate, another one of its number is the fork, and what is
   left of the batch is judged by all that was recorded before it. Nothing is recorded yet.
2. All evidence and records enter the content store, with one sync. Nobody refers to them yet.
3. All leaves enter the ledger, together or not at all, and are synced. The judgements are recorded; the sessions do not
   know yet. The attesters have no answer and send their windows again. Whoever has the next turn, of whichever process,
   first finishes what the leaves tell of that the state does not know (:mod:`.recovery`), so that a failure is not
   forgotten and no other window takes a judged one's place.
4. The sessions' rows advance in one transaction, each by compare-and-swap on (session, seq, prev). With them goes up to
   where the state knows of the ledger.
5. The answers leave.

Memory follows the disk: what stands in a :class:`.Live` moves once step 4 is durable. What relying parties are told
does not wait: a session whose window is refused is shut before anything is written.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, final

from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier import acceptance
from weighbridge.verifier.affirmed import Affirmed
from weighbridge.verifier.answers import Answer
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.hearing import AT_ONCE
from weighbridge.verifier.judging import Judged
from weighbridge.verifier.observed import Stage, timed
from weighbridge.verifier.result.claims import Claims
from weighbridge.verifier.result.issuing import issue_as
from weighbridge.verifier.result.serialisation import Serialisation
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut, shut_by
from weighbridge.verifier.standings import Kept
from weighbridge.verifier.steps import Advance, End, Ending
from weighbridge.verifier.transaction import Conflict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.archive import Archive, Committed
    from weighbridge.verifier.judging import Judge
    from weighbridge.verifier.leading import Leader, Turn
    from weighbridge.verifier.live import LiveSessions
    from weighbridge.verifier.observed import Observer
    from weighbridge.verifier.result.key_store import TokenSigner
    from weighbridge.verifier.standings import Standings
    from weighbridge.verifier.transaction import Issued

Token = Callable[[], str]

__all__ = ["Judged", "Settled", "Settler", "spot_of"]

Settled = Callable[[], Answer]
"""The answer to one window, or what it is refused with, or what failed for it alone."""


@final
class Settler:
    """Carries out judgements. One thread uses it."""

    def __init__(
        self,
        *,
        archive: Archive,
        sessions: LiveSessions,
        judge: Judge,
        leader: Leader,
        standings: Standings,
        signer: TokenSigner,
        issuer: str,
        observer: Observer,
    ) -> None:
        self._archive = archive
        self._sessions = sessions
        self._judge = judge
        self._leader = leader
        self._standings = standings
        self._signer = signer
        self._issuer = issuer
        self._observer = observer

    def settle(self, judged: Sequence[Judged]) -> tuple[Settled, ...]:
        """Record ``judged``, each of another session, and move their sessions on; the answers, in their order.

        Raises:
            EnvironmentFault: this machine is at fault: nothing is answered, and all of these windows may come again;
                what of them was recorded all the same is finished first, and is ``WINDOW_DUPLICATE`` then.
            ValueError: two are of one session.
        """
        if len({item.session for item in judged}) != len(judged):
            raise ValueError("two windows of one session cannot be judged at once")
        if not judged:
            return ()
        # The disk may fail from here on: whoever asks meanwhile is not told that these gates are open.
        shut = _shut(judged)
        waiting = time.perf_counter()
        # The store is asked to write before anything is recorded: if it cannot, nothing is.
        with self._standings.withholding(shut), self._leader.turn() as turn:
            self._observer.took(Stage.TURN, time.perf_counter() - waiting)
            # 1.
            stand = self._standing(turn, judged)
            items = [item for item in stand if isinstance(item, Judged)]
            # Keys that cannot be read are this machine's fault, too.
            keys = [self._signer(item.at) if item.verdict.opens else None for item in items]
            # Of those that were judged anew.
            again = {session: kept for session, kept in _shut(items).items() if shut.get(session) != kept}
            with self._standings.withholding(again):
                # 2. and 3.
                with timed(self._observer, Stage.LEDGER):
                    committed = self._archive.commit_all([(item.record, item.evidence) for item in items])
                # 4.
                affirmed = list(map(self._affirmed, items, committed))
                steps = list(map(_step, items, committed, affirmed))
                storing = time.perf_counter()
                done = self._sessions.write(turn.tx, steps)
        self._observer.took(Stage.STORE, time.perf_counter() - storing)
        results = self._sessions.moved(steps, done)
        self._tell(items)
        # 5.
        settled = map(self._answering, items, committed, map(_token, affirmed, keys), results)
        # What is refused now was judged by another process: the store says how its session stands.
        if refused := [item.session for item, now in zip(judged, stand, strict=True) if not isinstance(now, Judged)]:
            self._standings.changed(refused)
        return tuple(next(settled) if isinstance(now, Judged) else _refused(now) for now in stand)

    def _tell(self, items: Sequence[Judged]) -> None:
        """Tell what was judged, now that it is recorded."""
        for item in items:
            end = None if item.verified is None else item.verified.header.interval.wall_end_ns
            self._observer.judged(
                tenant=item.verdict.tenant,
                outcome=item.verdict.outcome,
                held=item.verdict.held,
                codes=[denial.code for denial in item.verdict.denials],
                late_ns=None if end is None else item.record.received_ns - end,
            )

    def _standing(self, turn: Turn, judged: Sequence[Judged]) -> list[Judged | WeighbridgeError]:
        """The judgements that can be recorded, those on what has moved made anew, or what they are refused with.

        A policy that comes to nothing now is one tenant's: the others' windows are recorded.
        """
        stood, known = turn.tx.stood.of([item.session for item in judged]), self._archive.ledger.size

        def stands(item: Judged) -> bool:
            return stood.get(item.session) == item.stood and not turn.too_old(item.at)

        found: list[Judged | WeighbridgeError] = []
        taken: list[Judged] = []
        # Whoever sends one recording from two hosts may reach two processes, or what came before it may be gone.
        held, same = self._judge.holding(judged, known), True
        while len(found) < len(judged):
            item, *behind = judged[len(found) :]
            if stands(item) and ((same and held[len(found)]) or self._judge.holds(item, beside=taken)):
                made: Sequence[Judged | WeighbridgeError] = [item]
            else:
                same = False
                moved = [item, *itertools.takewhile(lambda other: not stands(other), behind)]
                # No more than are judged together when they come: all have the time of one.
                made = self._judge.again(moved[:AT_ONCE], beside=taken)
                for one in made:
                    if isinstance(one, Judged):
                        # No entry is of an earlier time than the one before it.
                        turn.made_at(one.at)
            found += made
            taken += [one for one in made if isinstance(one, Judged)]
        return found

    def _answering(
        self, item: Judged, place: Committed, token: Token | None, result: Issued | Conflict | None
    ) -> Settled:
        def answer() -> Answer:
            if isinstance(result, Conflict):
                raise result
            if result is None:
                return Answer(item.verdict, None, None, place.index, None)
            with timed(self._observer, Stage.ANSWER):
                made = None if token is None else token()
            return Answer(item.verdict, made, result.digest, place.index, spot_of(result))

        return answer

    def _affirmed(self, item: Judged, place: Committed) -> Affirmed | None:
        """What a token for the window says, if one is due."""
        terms, verdict, decision, verified = item.live.terms, item.verdict, item.verdict.decision, item.verified
        if not verdict.opens:
            return None
        if decision is None or verified is None:
            raise RuntimeError("an affirmed verdict without a decision")
        # What each device signed: where no report was due, a GPU's is that of an earlier window.
        reports = verified.gpus or item.live.position.gpus
        signed = {f"gpu{index}": report.nonce for index, report in enumerate(reports)}
        signed["tpm0"] = verified.qualifying_data
        nonces = {name: signed.get(name, verified.digest) for name in decision.trust_claims}
        claims = Claims(
            issuer=self._issuer,
            audience=terms.audience,
            session=terms.session,
            tenant=terms.tenant,
            seq=verdict.seq,
            model=terms.model,
            adapters=verified.log.beside(terms.model),
            cnf=terms.cnf,
            policy=decision.policy_digest,
            reference=decision.reference_digest,
            nonces=nonces,
            vectors=decision.trust_claims,
            unchecked={item.check: item.reason for item in decision.unchecked},
            ledger_origin=self._archive.ledger.key.name,
            ledger_index=place.index,
            ledger_leaf=place.leaf_hash,
        )
        return Affirmed(
            claims=claims,
            received_ns=nanoseconds(item.at),
            period_ns=terms.period_ns,
            within=decision.reattest_within,
        )


def _refused(error: WeighbridgeError) -> Settled:
    def answer() -> Answer:
        raise error

    return answer


def _token(affirmed: Affirmed | None, key: ec.EllipticCurvePrivateKey | None) -> Token | None:
    """What makes the token of a window that opens, once its session stands behind it."""
    if affirmed is None or key is None:
        return None
    return lambda: issue_as(Serialisation.EAR_04, affirmed.affirmation, key).decode()


def spot_of(issued: Issued) -> bytes | None:
    """The spot challenge that leaves with ``issued``: spent, and not answered yet."""
    return None if issued.spot is None else issued.spot.challenge.encode()


def _step(item: Judged, place: Committed, affirmed: Affirmed | None) -> Advance | Ending:
    verdict = item.verdict
    if not item.goes_on or item.verified is None or verdict.physical is None:
        end = End(SessionState.FAILED, item.at, _sticking(verdict), _why(verdict))
        return Ending(item.live, end)
    return Advance(
        live=item.live,
        verified=item.verified,
        physical=verdict.physical,
        traces=item.traces,
        random=item.random,
        index=place.index,
        opens=verdict.opens,
        obliged=verdict.obliges_spot_check,
        at=item.at,
        # A held window changes nothing for whoever relies on the session.
        result=affirmed or (None if verdict.held else _why(verdict)),
    )


def _shut(judged: Sequence[Judged]) -> Mapping[bytes, Kept]:
    """Why gates are shut from now on."""
    return {item.session: Kept(_why(item.verdict), item.stood.seq) for item in judged if item.shuts}


def _why(verdict: Verdict) -> Shut:
    """What relying parties are told of a window that does not open."""
    return shut_by(((denial.code, denial.message) for denial in verdict.denials), seq=verdict.seq)


def _sticking(verdict: Verdict) -> Code | None:
    """What sticks to the session's AK and GPUs, unless only the model is to blame."""
    first = acceptance.sticking((denial.code, denial.sticks) for denial in verdict.denials)
    # An author's policy denies with codes of its own, which are not ours to remember by.
    return None if first is None else next((known for known in Code if known.value == first), Code.POLICY_DENIED)
