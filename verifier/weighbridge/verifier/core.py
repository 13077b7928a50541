"""The verifier: takes untrusted bytes, answers with verdicts, records everything before it answers.

Order of durability for one judgement, and what is true if power fails after each step:

1. Evidence and record enter the content store. Nobody refers to them yet.
2. The leaf enters the ledger and is synced. The judgement is recorded; the session does not know yet. The attester
   has no answer, sends the window again, and it is judged and recorded again: twice in the ledger, once in the chain.
3. The session's row advances by compare-and-swap on (session, seq, prev). A second replica with another window loses
   here, before any answer.
4. The answer leaves.

One caller at a time: the service runs this object in one thread.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.engine import Denial
from weighbridge.proto import binding, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied, WeighbridgeError
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.verifier import result_token, weights
from weighbridge.verifier.appraisal import Appraiser, Verdict, refuse
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.enrolment import (
    LedgeredLog,
    ak_thumbprint,
    check_ledgered,
    verify_opening,
    verify_proof,
)
from weighbridge.verifier.gpu.chain import ChainCache
from weighbridge.verifier.gpu.nonces import check_nonce
from weighbridge.verifier.procedure import authenticate, verify_window
from weighbridge.verifier.record import ChallengePreimage, Kind, Record
from weighbridge.verifier.replay import enrolled_of, replay_enrolment, replay_window
from weighbridge.verifier.session import Enrolled, Position, SessionState
from weighbridge.verifier.store import Issued
from weighbridge.verifier.tpm.credential import make_credential

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.archive import Archive, Committed
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.enrolment import Candidate, VerifiedEnrolment
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.procedure import AuthenticWindow, VerifiedWindow
    from weighbridge.verifier.requirements import Requirements
    from weighbridge.verifier.store import Store, Subject, SubjectKind

__all__ = ["Answer", "Opened", "Resumed", "Verifier"]

# Enrolments that were opened and not proven: an attester answers within seconds, a flood must not fill the memory.
_PENDING_MAX: Final = 256
_PENDING_AGE: Final = timedelta(seconds=60)
_NO_DIGEST: Final = bytes(limits.DIGEST_SIZE)


@dataclass(frozen=True, slots=True)
class Opened:
    """Enrolment succeeded."""

    terms: SignedTerms
    challenge: bytes


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where the verifier's record of a session stands."""

    next_seq: int
    challenge: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one window, after it was recorded. ``challenge`` is ``None`` once the session has failed."""

    verdict: Verdict
    token: str | None
    challenge: bytes | None
    index: int


@dataclass(frozen=True, slots=True)
class _Pending:
    candidate: Candidate
    challenge: EnrolmentChallenge
    issued: Issued
    secret: bytes


@dataclass(slots=True)
class _Live:
    """A session in memory: all of it can be re-made from the ledger (:mod:`weighbridge.verifier.replay`)."""

    enrolled: Enrolled
    position: Position
    state: SessionState
    issued: Issued


@final
class Verifier:
    """One verifier: its requirements, anchors, policy, keys, and what it has recorded."""

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
        self._requirements = requirements
        self._anchors = anchors
        self._appraiser = appraiser
        self._keys = keys
        self._archive = archive
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._chains = ChainCache()
        self._pending: dict[bytes, _Pending] = {}
        self._live: dict[bytes, _Live] = {}
        self._junk: Counter[Code] = Counter()

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
        now = self._clock.now()
        opening = Opening.parse(data)
        candidate = verify_opening(opening, requirements=self._requirements, anchors=self._anchors, peer=peer, at=now)
        session = secrets.token_bytes(16)
        issued = self._issue(session, None, now)
        secret, credential = b"", None
        if candidate.ek is not None:
            secret = secrets.token_bytes(32)
            made = make_credential(candidate.ek, candidate.ak.name, secret)
            credential = (made.id_object, made.encrypted_secret)
        wanted = self._requirements
        challenge = EnrolmentChallenge(
            session=session,
            challenge=issued.digest,
            credential=credential,
            bank=wanted.bank,
            pcrs=wanted.pcrs,
            boot_pcrs=wanted.boot_pcrs,
            log_pcr=wanted.log_pcr,
        )
        self._forget_stale(now)
        self._pending[session] = _Pending(candidate, challenge, issued, secret)
        return challenge

    def prove(self, data: bytes, *, peer: bytes) -> Opened:
        """Enrol the attester that meets the challenge, and sign the session's terms.

        Raises:
            WeighbridgeError: the proof is refused; a ``PolicyDenied`` names every finding and has been recorded.
        """
        now = self._clock.now()
        proof = EnrolmentProof.parse(data)
        # Taken out before it is looked at: a challenge and its credential are compared once.
        pending = self._pending.pop(proof.session, None)
        if pending is None or now - moment(pending.issued.issued_ns) > _PENDING_AGE:
            raise NotAuthentic(
                Code.CHALLENGE_UNKNOWN,
                "no enrolment is open under this session",
                where="proof.session",
                got=proof.session,
            )
        if pending.candidate.opening.peer != peer:
            raise NotAuthentic(
                Code.WINDOW_PEER, "the proof came over another peer's channel", where="channel", got=peer
            )
        verified = verify_proof(
            proof,
            candidate=pending.candidate,
            secret=pending.secret,
            challenge=pending.challenge,
            requirements=self._requirements,
            anchors=self._anchors,
            at=now,
        )
        terms = self._terms(proof.session, verified, now)
        signed = SignedTerms.sign(terms, self._keys.sign)
        findings = self._findings(verified, terms)
        record = self._enrolment_record(pending, signed, sha256(data), findings, now)
        committed = self._archive.commit(record, data)
        enrolled = enrolled_of(signed, verified)
        if findings:
            with self._store.transaction() as tx:
                tx.fail_subjects(_subjects(terms), code=Code(findings[0].code), session=None, at_ns=nanoseconds(now))
            raise _refusal(findings)
        issued = self._issue(terms.session, 0, now)
        with self._store.transaction() as tx:
            # An attester that enrols again has restarted: its old session is over, by its own word.
            interrupted = tx.open_session(
                session=terms.session,
                tenant=terms.tenant,
                ak=terms.ak,
                gpus=terms.gpus,
                prev=terms.prev,
                enrolment_index=committed.index,
                state=SessionState.ENROLLED,
                opened_ns=nanoseconds(now),
            )
            tx.advance_ak(terms.ak, head=terms.prev, log=_ledgered(verified))
            tx.issue_challenge(terms.session, issued)
        for old in interrupted:
            self._live.pop(old, None)
        self._live[terms.session] = _Live(
            enrolled, Position.start(enrolled, verified.log, verified.manifests), SessionState.ENROLLED, issued
        )
        return Opened(signed, issued.digest)

    def resume(self, session: bytes, *, peer: bytes) -> Resumed:
        """Take up a session whose stream was cut.

        Raises:
            NotAuthentic: ``SESSION_UNKNOWN``, ``WINDOW_PEER``.
            PolicyDenied: ``SESSION_FAILED`` or ``SESSION_STATE``: it has ended.
        """
        now = self._clock.now()
        live = self._find(session)
        if live.enrolled.terms.peer != peer:
            raise NotAuthentic(Code.WINDOW_PEER, "another peer's session", where="channel", got=peer)
        self._require_running(live)
        issued = self._issue(session, live.position.seq, now)
        with self._store.transaction() as tx:
            tx.issue_challenge(session, issued)
        live.issued = issued
        return Resumed(live.position.seq, issued.digest)

    def window(self, session: bytes, data: bytes, *, peer: bytes) -> Answer:
        """Judge one window, record the judgement, answer.

        Raises:
            WeighbridgeError: the bytes could not be attributed to the session, or are out of place: refused without
                any effect on it. Whatever is attributable gets an :class:`Answer`, good or bad.
        """
        now = self._clock.now()
        live = self._find(session)
        self._require_running(live)
        try:
            window = authenticate(data, enrolled=live.enrolled, peer=peer)
            fork = self._place(window, live)
        except WeighbridgeError as error:
            self._junk[error.code] += 1
            raise
        held = not self._fresh(window, live, now)
        terms, seq = live.enrolled.terms, window.header.seq
        verified: VerifiedWindow | None = None
        try:
            if fork is not None:
                raise fork
            self._require_issued(window)
            verified = verify_window(
                window,
                enrolled=live.enrolled,
                position=live.position,
                held=held,
                anchors=self._anchors,
                at=now,
                chains=self._chains,
            )
        except WeighbridgeError as error:
            verdict = refuse(error, session=session, tenant=terms.tenant, seq=seq, received=now, held=held)
        else:
            verdict = self._appraiser.appraise(
                verified, enrolled=live.enrolled, position=live.position, state=live.state, at=now
            )
        return self._settle(live, window, verified, verdict, data, now)

    def close(self, session: bytes, *, peer: bytes) -> strict.JsonObject:
        """End a session in good order and return its summary, schema ``weighbridge/session-summary/v1``."""
        now = self._clock.now()
        live = self._find(session)
        if live.enrolled.terms.peer != peer:
            raise NotAuthentic(Code.WINDOW_PEER, "another peer's session", where="channel", got=peer)
        self._require_running(live)
        summary = self._summary(live, SessionState.CLOSED)
        record = self._plain_record("closing", session, live.position.seq, summary, now)
        self._archive.commit(record, None)
        self._end(live, SessionState.CLOSED, now)
        return summary

    def count_junk(self, error: WeighbridgeError) -> None:
        """Count bytes that no session answers for."""
        self._junk[error.code] += 1

    def record_junk(self) -> None:
        """Enter the junk counted since the last call into the ledger: one leaf, whatever the amount."""
        if not self._junk:
            return
        counts: strict.JsonObject = {code.value: count for code, count in sorted(self._junk.items())}
        document: strict.JsonObject = {"schema": "weighbridge/junk/v1", "counts": counts}
        self._archive.commit(self._plain_record("junk", bytes(16), None, document, self._clock.now()), None)
        self._junk.clear()

    # -- one window ---------------------------------------------------------------------------------------------------

    def _place(self, window: AuthenticWindow, live: _Live) -> NotAuthentic | None:
        """Refuse what is out of place; return the error of a fork, which is a judgement and not junk."""
        seq, expected = window.header.seq, live.position.seq
        if window.header.session != live.enrolled.terms.session:
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
            recorded = tx.window_digest(live.enrolled.terms.session, seq)
        # NOTE: H_k is compared and never a signature: ECDSA signatures are random and malleable.
        if recorded == window.digest:
            raise NotAuthentic(
                Code.WINDOW_DUPLICATE, "the window is recorded already", where="header.seq", expected=expected, got=seq
            )
        return NotAuthentic(
            Code.WINDOW_FORK,
            "two windows with one number, both signed by the session's key",
            where=f"window {seq}",
            expected=recorded,
            got=window.digest,
        )

    def _fresh(self, window: AuthenticWindow, live: _Live, now: datetime) -> bool:
        """Whether the window carries the outstanding challenge and comes in time. A challenge serves one window."""
        terms, issued = live.enrolled.terms, live.issued
        allowed = timedelta(microseconds=(terms.period_ns + terms.lateness_ns) // 1000)
        return (
            window.header.challenge == issued.digest
            and window.header.seq == issued.seq
            and now - moment(issued.issued_ns) <= allowed
        )

    def _require_issued(self, window: AuthenticWindow) -> None:
        """A held window still carries a challenge of its session: nobody seals under one of his own making."""
        header = window.header
        with self._store.transaction() as tx:
            row = tx.challenge(header.session, header.challenge)
        if row is None or row.seq is None or row.seq > header.seq:
            raise NotAuthentic(
                Code.CHALLENGE_UNKNOWN,
                "the challenge was not issued in this session for this window or one before it",
                where=f"window {header.seq}",
                got=header.challenge,
            )

    def _settle(  # noqa: PLR0917 - the judgement and what it was made of
        self,
        live: _Live,
        window: AuthenticWindow,
        verified: VerifiedWindow | None,
        verdict: Verdict,
        data: bytes,
        now: datetime,
    ) -> Answer:
        terms = live.enrolled.terms
        document = verdict.encode()
        record = Record(
            kind="window",
            session=terms.session,
            seq=verdict.seq,
            received_ns=nanoseconds(now),
            held=verdict.held,
            preimage=None if verdict.held else _preimage(live.issued),
            opening=None,
            terms=None,
            secret=None,
            window=window.digest,
            evidence=sha256(data),
            policy=_NO_DIGEST if verdict.decision is None else verdict.decision.policy_digest,
            reference=_NO_DIGEST if verdict.decision is None else verdict.decision.reference_digest,
            requirements=None,
            verdict=document,
        )
        committed = self._archive.commit(record, data)
        if verified is None or verdict.outcome == "denied":
            self._fail(live, verdict, now)
            return Answer(verdict, None, None, committed.index)
        return self._advance(live, verified, verdict, committed, now)

    def _advance(
        self, live: _Live, verified: VerifiedWindow, verdict: Verdict, committed: Committed, now: datetime
    ) -> Answer:
        terms = live.enrolled.terms
        following = live.position.after(verified)
        state = SessionState.RUNNING if verdict.opens or live.state is SessionState.RUNNING else SessionState.MEASURED
        issued = self._issue(terms.session, following.seq, now)
        with self._store.transaction() as tx:
            tx.advance(
                terms.session,
                expected_seq=live.position.seq,
                expected_prev=live.position.prev,
                prev=following.prev,
                state=state,
                window=verified.digest,
                index=committed.index,
                held=verdict.held,
                received_ns=nanoseconds(now),
            )
            tx.advance_ak(terms.ak, head=following.prev, log=_ledgered(verified))
            tx.issue_challenge(terms.session, issued)
        live.position, live.state, live.issued = following, state, issued
        token = None
        if verdict.opens:
            token = self._token(live.enrolled, verified, verdict, committed, now)
        return Answer(verdict, token, issued.digest, committed.index)

    def _token(
        self, enrolled: Enrolled, verified: VerifiedWindow, verdict: Verdict, committed: Committed, now: datetime
    ) -> str:
        terms, decision = enrolled.terms, verdict.decision
        if decision is None:
            raise RuntimeError("an affirmed verdict without a decision")
        gpu_nonce = binding.gpu_nonce(verified.digest)
        nonces = {
            name: gpu_nonce
            if name.startswith("gpu")
            else verified.qualifying_data
            if name.startswith("tpm")
            else verified.digest
            for name in decision.trust_claims
        }
        claims = result_token.Claims(
            issuer=self._issuer,
            audience=terms.audience,
            session=terms.session,
            tenant=terms.tenant,
            seq=verdict.seq,
            model=terms.model,
            cnf=terms.cnf,
            policy=decision.policy_digest,
            reference=decision.reference_digest,
            nonces=nonces,
            vectors=decision.trust_claims,
            unchecked={item.check: item.reason for item in decision.unchecked},
            ledger_origin=self._archive.ledger.key.name,
            ledger_index=committed.index,
            ledger_leaf=committed.leaf_hash,
        )
        return result_token.issue(claims, self._keys.signing, received=now, period_ns=terms.period_ns)

    def _fail(self, live: _Live, verdict: Verdict, now: datetime) -> None:
        """The session has failed: that latches, and sticks to its AK and GPUs."""
        code = Code(verdict.denials[0].code)
        self._end(live, SessionState.FAILED, now, code)

    # -- enrolment ----------------------------------------------------------------------------------------------------

    def _terms(self, session: bytes, verified: VerifiedEnrolment, now: datetime) -> Terms:
        wanted, opening = self._requirements, verified.opening
        ak = ak_thumbprint(verified.ak)
        with self._store.transaction() as tx:
            subject = tx.subject("ak", ak)
        return Terms(
            session=session,
            tenant=wanted.tenant,
            audience=wanted.audience,
            verifier=self.thumbprint,
            ak=ak,
            telemetry_key=verified.telemetry_key.thumbprint,
            cnf=opening.cnf,
            peer=opening.peer,
            kem=opening.kem,
            model=opening.model,
            evidence=wanted.evidence,
            gpus=tuple(report.identity for report in verified.gpus),
            bank=wanted.bank,
            pcrs=wanted.pcrs,
            boot_pcrs=wanted.boot_pcrs,
            log_pcr=wanted.log_pcr,
            period_ns=wanted.period_ns,
            gpu_every=wanted.gpu_every,
            lateness_ns=wanted.lateness_ns,
            prev=binding.genesis(ak) if subject is None or subject.head is None else subject.head,
            issued_ns=nanoseconds(now),
        )

    def _findings(self, verified: VerifiedEnrolment, terms: Terms) -> tuple[Denial, ...]:
        """All that speaks against the session before its first window."""
        with self._store.transaction() as tx:
            ak = tx.subject("ak", terms.ak)
            rows = (ak, *(tx.subject("gpu", gpu) for gpu in terms.gpus))
        ledgered = () if ak is None else check_ledgered(verified.log, verified.quote, ak.log)
        weighed = weights.appraise(
            verified.log,
            declared=terms.model,
            measured=verified.manifests,
            references=self._appraiser.manifests,
            window=None,
        )
        stuck = tuple(_stuck(row) for row in rows if row is not None and row.failed_code is not None)
        return (*verified.findings, *ledgered, *weighed.denials, *stuck)

    def _enrolment_record(
        self, pending: _Pending, signed: SignedTerms, evidence: bytes, findings: tuple[Denial, ...], now: datetime
    ) -> Record:
        outcome: strict.JsonObject = {
            "schema": "weighbridge/enrolment/v1",
            "session": signed.terms.session.hex(),
            "received_at": strict.time_encode(now),
            "outcome": "denied" if findings else "enrolled",
            "denials": [asdict(finding) for finding in findings],
        }
        return Record(
            kind="enrolment",
            session=signed.terms.session,
            seq=None,
            received_ns=nanoseconds(now),
            held=False,
            preimage=_preimage(pending.issued),
            opening=pending.candidate.opening.encode(),
            terms=signed.raw,
            secret=pending.secret,
            window=None,
            evidence=evidence,
            policy=_NO_DIGEST,
            reference=_NO_DIGEST,
            requirements=self._requirements.encode(),
            verdict=strict.json_encode(outcome),
        )

    def _forget_stale(self, now: datetime) -> None:
        for session, pending in list(self._pending.items()):
            if now - moment(pending.issued.issued_ns) > _PENDING_AGE:
                del self._pending[session]
        if len(self._pending) >= _PENDING_MAX:
            raise EnvironmentFault(
                Code.PEER_REFUSED, "too many enrolments are open", hint="try again in a minute", got=len(self._pending)
            )

    # -- shared -------------------------------------------------------------------------------------------------------

    def _issue(self, session: bytes, seq: int | None, now: datetime) -> Issued:
        preimage = ChallengePreimage(self._archive.ledger.root, secrets.token_bytes(limits.NONCE_SIZE))
        # A generator that failed must not go unnoticed: zero, constant and published values are refused.
        check_nonce(preimage.random)
        challenge = binding.challenge(preimage.ledger_root, session, seq, preimage.random)
        return Issued(seq, challenge, preimage.ledger_root, preimage.random, nanoseconds(now))

    def _find(self, session: bytes) -> _Live:
        live = self._live.get(session)
        if live is None:
            live = self._live[session] = self._restore(session)
        return live

    def _restore(self, session: bytes) -> _Live:
        """Re-make a session from its records: the same procedures as when its evidence arrived."""
        with self._store.transaction() as tx:
            row = tx.session(session)
            indices = tx.window_indices(session)
            issued = tx.last_challenge(session)
        if row is None or issued is None:
            raise NotAuthentic(Code.SESSION_UNKNOWN, "no such session", where="session", got=session)
        record = self._archive.records.record(row.enrolment_index)
        replayed = replay_enrolment(
            record,
            self._archive.records.evidence(record),
            anchors=self._anchors,
            verifier_key=self._keys.signing.public_key(),
        )
        enrolled, position = replayed.enrolled, replayed.position
        for index in indices:
            record = self._archive.records.record(index)
            evidence = self._archive.records.evidence(record)
            verified = replay_window(
                record, evidence, enrolled=enrolled, position=position, anchors=self._anchors, chains=self._chains
            )
            position = position.after(verified)
        if (position.seq, position.prev) != (row.next_seq, row.prev):
            raise EnvironmentFault(
                Code.STATE_CORRUPT,
                "the session's row and its records disagree",
                where=session.hex(),
                expected=row.next_seq,
            )
        return _Live(enrolled, position, row.state, issued)

    def _require_running(self, live: _Live) -> None:
        if live.state is SessionState.FAILED:
            raise PolicyDenied(
                Code.SESSION_FAILED, "the session has failed, which is final", where=live.enrolled.terms.session.hex()
            )
        if live.state.final:
            raise PolicyDenied(
                Code.SESSION_STATE, f"the session is {live.state.value}", where=live.enrolled.terms.session.hex()
            )

    def _end(self, live: _Live, state: SessionState, now: datetime, code: Code | None = None) -> None:
        terms = live.enrolled.terms
        with self._store.transaction() as tx:
            if code is not None:
                tx.fail_subjects(_subjects(terms), code=code, session=terms.session, at_ns=nanoseconds(now))
            tx.set_state(terms.session, state)
        live.state = state

    def _plain_record(
        self, kind: Kind, session: bytes, seq: int | None, document: strict.JsonObject, now: datetime
    ) -> Record:
        return Record(
            kind=kind,
            session=session,
            seq=seq,
            received_ns=nanoseconds(now),
            held=False,
            preimage=None,
            opening=None,
            terms=None,
            secret=None,
            window=None,
            evidence=None,
            policy=_NO_DIGEST,
            reference=_NO_DIGEST,
            requirements=None,
            verdict=strict.json_encode(document),
        )

    def _summary(self, live: _Live, state: SessionState) -> strict.JsonObject:
        terms = live.enrolled.terms
        return {
            "schema": "weighbridge/session-summary/v1",
            "session": terms.session.hex(),
            "state": state.value,
            "windows": live.position.seq,
            "model": terms.model.hex(),
            "ledger": {"origin": self._archive.ledger.key.name, "size": self._archive.ledger.size},
        }


def _ledgered(verified: VerifiedEnrolment | VerifiedWindow) -> LedgeredLog:
    """Where the measurement log stands, to be compared with when this AK enrols again."""
    log = verified.log
    return LedgeredLog(reset_count=verified.quote.reset_count, length=len(log.records), head=log.head)


def _preimage(issued: Issued) -> ChallengePreimage:
    return ChallengePreimage(issued.ledger_root, issued.random)


def _subjects(terms: Terms) -> list[tuple[SubjectKind, bytes]]:
    """To whom a failure of the session sticks."""
    return [("ak", terms.ak), *(("gpu", gpu) for gpu in terms.gpus)]


def _stuck(subject: Subject) -> Denial:
    """An earlier failure of this key or device: only an operator's written reason clears it."""
    return Denial(
        code=Code.SUBJECT_FAILED,
        message=f"this {subject.kind} failed before, with {subject.failed_code}, and was not cleared",
        window=None,
        device=subject.identity.hex() if subject.kind == "gpu" else None,
        expected=None,
        got=subject.identity.hex(),
        hint=f"find out why; then: weighbridge clear STATE {subject.kind} {subject.identity.hex()} --reason TEXT",
    )


def _refusal(findings: tuple[Denial, ...]) -> PolicyDenied:
    """All findings in one error; its code is that of the first."""
    first = findings[0]
    return PolicyDenied(
        Code(first.code),
        "; ".join(f"{finding.code}: {finding.message}" for finding in findings),
        where="enrolment",
        expected=first.expected,
        got=first.got,
        hint=first.hint or "",
    )
