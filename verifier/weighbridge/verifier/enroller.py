"""Enrols attesters: the two steps of :mod:`.enrolment` with what they remember in between, and what they record."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.engine import Denial
from weighbridge.proto import binding, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.errors import Code, EnvironmentFault, NotAuthentic, PolicyDenied
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.verifier import weights
from weighbridge.verifier.challenge import CHANCE, Chance, draw, hand_out, issue, preimage_of
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.enrolment import ak_thumbprint, check_ledgered, verify_opening, verify_proof
from weighbridge.verifier.ledger.content import Content
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.replay import enrolled_of
from weighbridge.verifier.restoring import Live
from weighbridge.verifier.session import Position, SessionState, ledgered_log
from weighbridge.verifier.steps import subjects_of
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.provenance import Activation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.archive import Archive
    from weighbridge.verifier.bench import Bench, Benches
    from weighbridge.verifier.clock import Clock
    from weighbridge.verifier.enrolment import VerifiedEnrolment
    from weighbridge.verifier.keys import VerifierKeys
    from weighbridge.verifier.leading import Leader
    from weighbridge.verifier.live import LiveSessions
    from weighbridge.verifier.requirements import Requirements
    from weighbridge.verifier.store import Issued, Subject, Transaction

__all__ = ["Enroller"]

# Enrolments that were opened and not proven: an attester answers within seconds, a flood must not fill the memory.
_PENDING_MAX: Final = 256
_PENDING_PEER: Final = 4
_PENDING_AGE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class _Pending:
    opening: Opening
    challenge: EnrolmentChallenge
    issued: Issued
    secret: bytes
    bench: Bench


@final
class Enroller:
    """Opens sessions. What is pending is in memory only: an attester whose verifier restarts opens again."""

    def __init__(
        self,
        *,
        benches: Benches,
        keys: VerifierKeys,
        archive: Archive,
        sessions: LiveSessions,
        leader: Leader,
        chance: Chance = CHANCE,
    ) -> None:
        self._benches = benches
        self._keys = keys
        self._archive = archive
        self._sessions = sessions
        self._leader = leader
        self._chance = chance
        self._pending: dict[bytes, _Pending] = {}

    def open(
        self, data: bytes, *, peer: bytes, certificate: x509.Certificate | None, at: datetime
    ) -> EnrolmentChallenge:
        """Answer an opening with a challenge that only the TPM of the named AK can meet.

        Args:
            data: an untrusted :class:`~weighbridge.proto.enrolment.Opening`.
            peer: SHA-256 of the SubjectPublicKeyInfo of the channel's TLS certificate.
            certificate: that one, verified; ``None`` where there is no channel.
            at: the verifier's receipt time.

        Raises:
            WeighbridgeError: the opening is refused.
        """
        opening = Opening.parse(data)
        bench = self._benches.opening(opening.tenant, certificate)
        candidate = verify_opening(
            opening,
            requirements=bench.requirements,
            anchors=bench.anchors,
            collateral=bench.appraiser.published.collateral,
            peer=peer,
            at=at,
        )
        session = self._chance.token(16)
        # What other processes have recorded meanwhile dates the challenge as well.
        root = self._chance.dated(self._archive.ledger.published().checkpoint.root)
        issued = issue(root, session, None, random=draw(self._chance), at=at)
        secret, credential = b"", None
        if isinstance(candidate.ak, Activation):
            secret = self._chance.token(32)
            made = make_credential(candidate.ak.ek, candidate.ak.ak.public.name, secret)
            credential = (made.id_object, made.encrypted_secret)
        wanted = bench.requirements
        challenge = EnrolmentChallenge(
            session=session,
            challenge=issued.digest,
            credential=credential,
            bank=wanted.bank,
            pcrs=wanted.pcrs,
            boot_pcrs=wanted.boot_pcrs,
            log_pcr=wanted.log_pcr,
            evidence=wanted.evidence,
        )
        self._make_room(at, peer, bench.requirements.tenant)
        self._pending[session] = _Pending(opening, challenge, issued, secret, bench)
        return challenge

    def prove(self, data: bytes, *, peer: bytes, clock: Clock) -> tuple[SignedTerms, Live]:
        """Enrol the attester that meets the challenge, and sign the session's terms.

        Args:
            data: an untrusted :class:`~weighbridge.proto.enrolment.EnrolmentProof`.
            peer: as for :meth:`open`.
            clock: tells the verifier's receipt time.

        Raises:
            WeighbridgeError: the proof is refused; a ``PolicyDenied`` names every finding and has been recorded.
        """
        at = clock.now()
        proof = EnrolmentProof.parse(data)
        # Taken out before it is looked at: a challenge and its credential are compared once.
        pending = self._pending.pop(proof.session, None)
        if pending is None or at - moment(pending.issued.issued_ns) > _PENDING_AGE:
            raise NotAuthentic(
                Code.CHALLENGE_UNKNOWN,
                "no enrolment is open under this session",
                where="proof.session",
                got=proof.session,
            )
        if pending.opening.peer != peer:
            raise NotAuthentic(
                Code.WINDOW_PEER, "the proof came over another peer's channel", where="channel", got=peer
            )
        # What is revoked by now counts: of what the terms rest on, windows look at no more than the devices again.
        pending.bench.refresh(at)
        published = pending.bench.appraiser.published
        verified = _verified(pending, proof, at)
        # Before the turn: nobody refers to it yet.
        self._archive.keep_collateral(published.collateral)
        with self._leader.turn() as turn:
            if turn.too_old(at):
                # It waited while others recorded: entries keep the order of time, and all of it is judged at one.
                at = clock.now()
                verified = _verified(pending, proof, at)
            enrolled = self._enrol(turn.tx, pending, proof, data, verified, collateral=published.digest, at=at)
        if isinstance(enrolled, PolicyDenied):
            raise enrolled
        signed, live, interrupted = enrolled
        self._sessions.add(live, interrupted=interrupted)
        return signed, live

    def _enrol(
        self,
        tx: Transaction,
        pending: _Pending,
        proof: EnrolmentProof,
        data: bytes,
        verified: VerifiedEnrolment,
        *,
        collateral: bytes,
        at: datetime,
    ) -> tuple[SignedTerms, Live, tuple[bytes, ...]] | PolicyDenied:
        """Record what was proven, and open the session: in a turn, as the chain of its AK goes on in it.

        Returns what is true once ``tx`` is durable: the session, with those that it interrupted, or the refusal.
        """
        terms = self._terms(tx, proof.session, verified, pending.bench.requirements, at)
        signed = SignedTerms.sign(terms, self._keys.sign)
        findings = self._findings(tx, verified, terms, pending.bench.appraiser.manifests)
        random = draw(self._chance)
        record = self._enrolment_record(
            pending, signed, evidence=sha256(data), findings=findings, collateral=collateral, at=at
        )
        # Hosts of one kind declare the same models, and boot the same way.
        (committed,) = self._archive.commit_all([(record, Content(data, (proof.manifests, proof.boot or b"")))])
        enrolled = enrolled_of(signed, verified)
        self._sessions.settle(tx)
        if findings:
            self._remember(tx, terms, findings, at)
            return _refusal(findings)
        root = self._chance.dated(self._archive.ledger.root)
        issued = issue(root, terms.session, 0, random=random, at=at)
        position = Position.start(enrolled, verified)
        # An attester that enrols again has restarted: its old session is over, by its own word.
        interrupted = tx.open_session(
            session=terms.session,
            tenant=terms.tenant,
            ak=terms.ak,
            gpus=terms.gpus,
            prev=terms.prev,
            enrolment_index=committed.index,
            state=SessionState.ENROLLED,
            opened_ns=nanoseconds(at),
        )
        tx.positions.forget(interrupted)
        tx.subjects.advance(terms.ak, head=terms.prev, log=ledgered_log(verified))
        issued = hand_out(tx, issued, terms=terms, position=position)
        return signed, Live(enrolled, position, SessionState.ENROLLED, issued), interrupted

    @staticmethod
    def _remember(tx: Transaction, terms: Terms, findings: tuple[Denial, ...], at: datetime) -> None:
        """Let the first new finding stick; that something failed before is none, or it would spread to innocents."""
        code = next((Code(found.code) for found in findings if found.code != Code.SUBJECT_FAILED), None)
        if code is not None:
            tx.subjects.fail(subjects_of(terms), code=code, session=None, at_ns=nanoseconds(at))

    def _terms(
        self, tx: Transaction, session: bytes, verified: VerifiedEnrolment, wanted: Requirements, at: datetime
    ) -> Terms:
        opening = verified.opening
        ak = ak_thumbprint(verified.ak)
        subject = tx.subjects.of("ak", ak)
        return Terms(
            session=session,
            tenant=wanted.tenant,
            audience=wanted.audience,
            verifier=self._keys.thumbprint,
            ak=ak,
            telemetry_key=verified.telemetry_key.thumbprint,
            cnf=opening.cnf,
            peer=opening.peer,
            kem=opening.kem,
            model=opening.model,
            adapters=opening.adapters,
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
            issued_ns=nanoseconds(at),
            spot_every=wanted.spot_every,
        )

    @staticmethod
    def _findings(
        tx: Transaction, verified: VerifiedEnrolment, terms: Terms, references: Mapping[bytes, Manifest]
    ) -> tuple[Denial, ...]:
        """All that speaks against the session before its first window."""
        ak = tx.subjects.of("ak", terms.ak)
        rows = (ak, *(tx.subjects.of("gpu", gpu) for gpu in terms.gpus))
        ledgered = () if ak is None else check_ledgered(verified.log, verified.quote, ak.log)
        weighed = weights.appraise(
            verified.log,
            declared=terms.declared,
            measured=verified.manifests,
            references=references,
            window=None,
        )
        stuck = tuple(_stuck(row) for row in rows if row is not None and row.failed_code is not None)
        return (*verified.findings, *ledgered, *weighed.denials, *stuck)

    def _enrolment_record(
        self,
        pending: _Pending,
        signed: SignedTerms,
        *,
        evidence: bytes,
        findings: tuple[Denial, ...],
        collateral: bytes,
        at: datetime,
    ) -> Record:
        outcome: strict.JsonObject = {
            "schema": "weighbridge/enrolment/v1",
            "session": signed.terms.session.hex(),
            "received_at": strict.time_encode(at),
            "outcome": "denied" if findings else "enrolled",
            "denials": [asdict(finding) for finding in findings],
        }
        return Record(
            kind="enrolment",
            session=signed.terms.session,
            seq=None,
            received_ns=nanoseconds(at),
            held=False,
            preimage=preimage_of(pending.issued),
            opening=pending.opening.encode(),
            terms=signed.raw,
            secret=pending.secret,
            window=None,
            evidence=evidence,
            policy=NO_DIGEST,
            reference=NO_DIGEST,
            requirements=pending.bench.requirements.encode(),
            verdict=strict.json_encode(outcome),
            spot=None,
            collateral=collateral,
            history=None,
            previous=None,
        )

    def _make_room(self, at: datetime, peer: bytes, tenant: str) -> None:
        """Make room for one more enrolment by ``peer``; neither peers nor tenants can take up all that there is."""
        for session, pending in list(self._pending.items()):
            if at - moment(pending.issued.issued_ns) > _PENDING_AGE:
                del self._pending[session]
        own = [session for session, pending in self._pending.items() if pending.opening.peer == peer]
        for session in own[: max(0, len(own) + 1 - _PENDING_PEER)]:
            del self._pending[session]
        if len(self._pending) < _PENDING_MAX:
            return
        # The oldest first; of the tenant that has most, unless this one would have as many.
        tenants = {session: pending.bench.requirements.tenant for session, pending in self._pending.items()}
        counts = Counter(tenants.values())
        ((most, count),) = counts.most_common(1)
        if counts[tenant] + 1 >= count:
            # Not for good: whoever is told so waits and comes again.
            raise EnvironmentFault(
                Code.RATE_LIMITED,
                "too many enrolments are open",
                hint="it may come again when some of them have ended, a minute at most",
                expected=f"< {_PENDING_MAX}",
                got=len(self._pending),
            )
        del self._pending[next(session for session, owner in tenants.items() if owner == most)]


def _verified(pending: _Pending, proof: EnrolmentProof, at: datetime) -> VerifiedEnrolment:
    """What the proof proves at one time, the recorded one.

    Else what ended after the opening, a certificate or a revocation list, could be replayed neither by this verifier
    nor from a bundle.
    """
    bench = pending.bench
    return verify_proof(
        proof,
        candidate=verify_opening(
            pending.opening,
            requirements=bench.requirements,
            anchors=bench.anchors,
            collateral=bench.appraiser.published.collateral,
            peer=pending.opening.peer,
            at=at,
        ),
        secret=pending.secret,
        challenge=pending.challenge,
        requirements=bench.requirements,
        anchors=bench.anchors,
        at=at,
        chains=bench.chains,
    )


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
