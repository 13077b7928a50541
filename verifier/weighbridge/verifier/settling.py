"""Records what was judged, and answers: any number of windows, each of another session, with the syncs of one.

Order of durability, and what is true if power fails after each step:

1. All evidence and records enter the content store, with one sync. Nobody refers to them yet.
2. All leaves enter the ledger, together or not at all, and are synced. The judgements are recorded; the sessions do not
   know yet. The attesters have no answer and send their windows again. On starting, and before it judges anything
   after a fault of the disk, the verifier finishes what the leaves tell of that its state does not know
   (:mod:`.recovery`), so that a failure is not forgotten and no other window takes a judged one's place.
3. The sessions' rows advance in one transaction, each by compare-and-swap on (session, seq, prev). A second replica
   with another window loses here, before any answer, and only that session does. With them goes up to where the state
   knows of the ledger.
4. The answers leave.

Memory follows the disk: what stands in a :class:`.Live` moves once step 3 is durable. The one exception is a session
that ends: it has ended from step 2 on, whatever the disk does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.proto.errors import Code
from weighbridge.verifier import acceptance
from weighbridge.verifier.affirmed import Affirmed
from weighbridge.verifier.answers import Answer
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.live import Advance, End, Ending
from weighbridge.verifier.result.claims import Claims
from weighbridge.verifier.result.issuing import issue_as
from weighbridge.verifier.result.serialisation import Serialisation
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.standing import Shut, shut_by
from weighbridge.verifier.traces import Beside
from weighbridge.verifier.transaction import Conflict

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.archive import Archive, Committed
    from weighbridge.verifier.ledger.content import Content
    from weighbridge.verifier.live import Live, LiveSessions
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.result.key_store import TokenSigner
    from weighbridge.verifier.standings import Standings
    from weighbridge.verifier.telemetry.history import Trace
    from weighbridge.verifier.transaction import Issued

Token = Callable[[], str]

__all__ = ["Judged", "Settled", "Settler", "spot_of"]

Settled = Callable[[], Answer]
"""The answer to one window, or what failed for it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judgement on a window, which nobody knows of yet. Made by :meth:`.Verifier.judge`.

    Attributes:
        live: its session, as it stood when the window was judged.
        verified: the window; ``None`` where its verification refused it.
        verdict: the judgement.
        random: drawn for the challenge that leaves with the answer.
        record: what is to be recorded of it.
        evidence: the window as received.
        traces: what GPUs' samples are remembered by.
        at: its receipt time.
    """

    live: Live
    verified: VerifiedWindow | None
    verdict: Verdict
    random: bytes
    record: Record
    evidence: Content
    traces: Sequence[Trace]
    at: datetime

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
class Settler:
    """Carries out judgements."""

    def __init__(
        self, *, archive: Archive, sessions: LiveSessions, standings: Standings, signer: TokenSigner, issuer: str
    ) -> None:
        self._archive = archive
        self._sessions = sessions
        self._standings = standings
        self._signer = signer
        self._issuer = issuer

    def settle(self, judged: Sequence[Judged]) -> tuple[Settled, ...]:
        """Record ``judged``, each of another session, and move their sessions on; the answers, in their order.

        Raises:
            EnvironmentFault: this machine is at fault: nothing is answered, and all of these windows may come again;
                what of them was recorded all the same is finished first, and is ``WINDOW_DUPLICATE`` then.
            ValueError: two are of one session.
        """
        if len({item.record.session for item in judged}) != len(judged):
            raise ValueError("two windows of one session cannot be judged at once")
        if not judged:
            return ()
        # Before anything is recorded: keys that cannot be read are this machine's fault.
        keys = [self._signer(item.at) if item.verdict.opens else None for item in judged]
        # The disk may fail from here on: whoever asks meanwhile is not told that these gates are open.
        shut = {item.record.session: _why(item.verdict) for item in judged if item.shuts}
        # 1. and 2.
        with self._standings.withholding(shut):
            committed = self._archive.commit_all([(item.record, item.evidence) for item in judged])
        # 3.
        affirmed = list(map(self._affirmed, judged, committed))
        steps = list(map(_step, judged, committed, affirmed))
        results = self._sessions.carry_out(steps)
        # 4.
        tokens = map(_token, affirmed, keys)
        return tuple(map(self._answering, judged, committed, tokens, results))

    def _answering(
        self, item: Judged, place: Committed, token: Token | None, result: Issued | Conflict | None
    ) -> Settled:
        def answer() -> Answer:
            if isinstance(result, Conflict):
                raise result
            if result is None:
                return Answer(item.verdict, None, None, place.index, None)
            return Answer(item.verdict, None if token is None else token(), result.digest, place.index, spot_of(result))

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
        return Ending(item.live, end, place.index)
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


def _why(verdict: Verdict) -> Shut:
    """What relying parties are told of a window that does not open."""
    return shut_by(((denial.code, denial.message) for denial in verdict.denials), seq=verdict.seq)


def _sticking(verdict: Verdict) -> Code | None:
    """What sticks to the session's AK and GPUs, unless only the model is to blame."""
    first = acceptance.sticking((denial.code, denial.sticks) for denial in verdict.denials)
    # An author's policy denies with codes of its own, which are not ours to remember by.
    return None if first is None else next((known for known in Code if known.value == first), Code.POLICY_DENIED)
