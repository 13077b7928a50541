"""A session re-made from its records: after a restart of the verifier, and years later from a proof bundle alone.

The same procedures as when the evidence arrived, at the receipt times then recorded. What this rests on: that the
records are those that the ledger commits to (the caller checks), and for the enrolment of a TPM by credential
activation the verifier's own word that it had chosen the secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.proto import binding
from weighbridge.proto.enrolment import EnrolmentChallenge, EnrolmentProof, Opening
from weighbridge.proto.errors import Code, LedgerInconsistent, NotAuthentic
from weighbridge.proto.terms import SignedTerms
from weighbridge.verifier.clock import moment
from weighbridge.verifier.enrolment import VerifiedEnrolment, ak_thumbprint, verify_opening, verify_proof
from weighbridge.verifier.procedure import VerifiedWindow, authenticate, verify_window
from weighbridge.verifier.record import NO_DIGEST
from weighbridge.verifier.requirements import Requirements
from weighbridge.verifier.session import Enrolled, Position
from weighbridge.verifier.telemetry.appraisal import NOTHING, appraise_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.proto.collateral import Collateral
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.baselines import Baselines
    from weighbridge.verifier.gpu.chain import ChainCache
    from weighbridge.verifier.record import Record
    from weighbridge.verifier.telemetry.appraisal import TelemetryAppraisal

__all__ = [
    "RecordedBaselines",
    "ReplayedEnrolment",
    "check_previous",
    "replay_enrolment",
    "replay_telemetry",
    "replay_window",
]


@dataclass(frozen=True, slots=True)
class ReplayedEnrolment:
    """An enrolment re-verified: the facts, and where the chain then stood."""

    enrolled: Enrolled
    position: Position
    requirements: Requirements


@final
class RecordedBaselines:
    """The baselines by which the window of a record was judged, made once for records that name the same values."""

    def __init__(self, named: Callable[[bytes], Baselines]) -> None:
        """``named`` makes those that reference values name, which a record names by their digest."""
        self._named = named
        self._last: tuple[bytes, Baselines] | None = None

    def of(self, record: Record) -> Baselines:
        """Those of ``record``.

        Raises:
            WeighbridgeError: what making them raises.
        """
        if self._last is None or self._last[0] != record.reference:
            # Values change with time and do not come back: the ones before are not needed any more.
            self._last = record.reference, self._named(record.reference)
        return self._last[1]


def replay_enrolment(
    record: Record,
    proof: bytes,
    *,
    anchors: TrustAnchors,
    verifier_key: ec.EllipticCurvePublicKey,
    collateral: Collateral,
    chains: ChainCache | None = None,
) -> ReplayedEnrolment:
    """Re-verify a recorded enrolment.

    Args:
        record: of kind ``enrolment``, committed to by the ledger.
        proof: the attester's proof, with the digest that the record names.
        anchors: whose keys are believed.
        verifier_key: of the verifier that signed the terms, trusted by the caller.
        collateral: what the record names; beside it counts what the opening brought.
        chains: saves repeated work on unchanged certificate chains; changes no answer.

    Raises:
        MalformedEvidence, NotAuthentic: as the procedure in :mod:`weighbridge.verifier.enrolment`.
        LedgerInconsistent: ``LEDGER_INCONSISTENT`` when terms and proof do not fit together.
    """
    if (
        record.opening is None
        or record.terms is None
        or record.preimage is None
        or record.secret is None
        or record.requirements is None
    ):
        raise LedgerInconsistent(Code.LEDGER_INCONSISTENT, "the record is not that of an enrolment", where="record")
    at = moment(record.received_ns)
    requirements = Requirements.parse(record.requirements)
    opening = Opening.parse(record.opening)
    challenge = EnrolmentChallenge(
        session=record.session,
        challenge=binding.challenge(record.preimage.ledger_root, record.session, None, record.preimage.random),
        credential=None,
        bank=requirements.bank,
        pcrs=requirements.pcrs,
        boot_pcrs=requirements.boot_pcrs,
        log_pcr=requirements.log_pcr,
        evidence=requirements.evidence,
    )
    if (collateral.digest if collateral.items else NO_DIGEST) != record.collateral:
        raise LedgerInconsistent(Code.LEDGER_INCONSISTENT, "the record names other collateral", where="record")
    candidate = verify_opening(
        opening, requirements=requirements, anchors=anchors, collateral=collateral, peer=opening.peer, at=at
    )
    verified = verify_proof(
        EnrolmentProof.parse(proof),
        candidate=candidate,
        secret=record.secret,
        challenge=challenge,
        requirements=requirements,
        anchors=anchors,
        at=at,
        chains=chains,
    )
    signed_terms = SignedTerms.open(record.terms, verifier_key)
    check_terms(signed_terms, verified, requirements, record.session)
    enrolled = enrolled_of(signed_terms, verified)
    return ReplayedEnrolment(enrolled, Position.start(enrolled, verified), requirements)


def replay_window(
    record: Record,
    evidence: bytes,
    *,
    enrolled: Enrolled,
    position: Position,
    anchors: TrustAnchors,
    chains: ChainCache | None = None,
) -> VerifiedWindow:
    """Re-verify a recorded window that was verified when it arrived.

    Raises:
        MalformedEvidence, NotAuthentic: as the procedure in :mod:`weighbridge.verifier.procedure`;
            ``CHALLENGE_UNKNOWN`` when a window recorded as fresh does not carry the challenge whose preimage is
            recorded.
        LedgerInconsistent: ``LEDGER_INCONSISTENT`` when it was asked about another model, or its record names another
            window as the one before it.
    """
    check_previous(record, position.window)
    window = authenticate(evidence, enrolled=enrolled, peer=enrolled.terms.peer)
    if record.spot is not None and record.spot.challenge.manifest != enrolled.terms.model:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the recorded spot check is about another model",
            where=f"window {position.seq}",
            expected=enrolled.terms.model,
            got=record.spot.challenge.manifest,
        )
    if not record.held:
        preimage = record.preimage
        expected = None
        if preimage is not None:
            expected = binding.challenge(preimage.ledger_root, record.session, position.seq, preimage.random)
        if window.header.challenge != expected:
            raise NotAuthentic(
                Code.CHALLENGE_UNKNOWN,
                "recorded as fresh, but the challenge is not the recorded one",
                where=f"window {position.seq}",
                expected=expected,
                got=window.header.challenge,
            )
    return verify_window(
        window,
        enrolled=enrolled,
        position=position,
        held=record.held,
        spot=record.spot,
        anchors=anchors,
        at=moment(record.received_ns),
        chains=chains,
    )


def check_previous(record: Record, previous: bytes | None) -> None:
    """Require that the record of a window names the one which the session's chain had reached: its leaf says it too.

    Raises:
        LedgerInconsistent: ``LEDGER_INCONSISTENT``.
    """
    if record.previous != previous:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the record names another window as the one before it",
            where="record.previous",
            expected=previous,
            got=record.previous,
        )


def replay_telemetry(
    record: Record, window: VerifiedWindow, *, enrolled: Enrolled, position: Position, baselines: Baselines
) -> TelemetryAppraisal:
    """Appraise the samples of a window that was verified again.

    Args:
        record: of the window, which has what was remembered when it arrived.
        window: verified again.
        enrolled: what was proven at enrolment.
        position: where the chain stood before it.
        baselines: those that the reference values name by which it was judged.
    """
    return appraise_telemetry(
        window,
        position.telemetry,
        enrolled=enrolled,
        baselines=baselines,
        history=record.history or NOTHING,
        at=moment(record.received_ns),
    )


def enrolled_of(signed_terms: SignedTerms, verified: VerifiedEnrolment) -> Enrolled:
    """The facts that hold for the whole session."""
    return Enrolled(
        signed_terms,
        verified.ak,
        verified.telemetry_key,
        verified.quote,
        verified.gpus,
        verified.boot,
        verified.log_from_reset,
    )


def check_terms(
    signed_terms: SignedTerms, verified: VerifiedEnrolment, requirements: Requirements, session: bytes
) -> None:
    """Require that signed terms say what was proven and demanded; a difference means the record was put together."""
    terms, opening = signed_terms.terms, verified.opening
    same = (
        terms.session == session
        and (terms.tenant, terms.audience) == (requirements.tenant, requirements.audience)
        and terms.ak == ak_thumbprint(verified.ak)
        and terms.telemetry_key == verified.telemetry_key.thumbprint
        and (terms.cnf, terms.peer, terms.kem) == (opening.cnf, opening.peer, opening.kem)
        and (terms.model, terms.adapters) == (opening.model, opening.adapters)
        and terms.gpus == tuple(report.identity for report in verified.gpus)
        and (terms.evidence, terms.bank) == (requirements.evidence, requirements.bank)
        and (terms.pcrs, terms.boot_pcrs, terms.log_pcr)
        == (requirements.pcrs, requirements.boot_pcrs, requirements.log_pcr)
        and (terms.period_ns, terms.gpu_every, terms.lateness_ns, terms.spot_every)
        == (requirements.period_ns, requirements.gpu_every, requirements.lateness_ns, requirements.spot_every)
    )
    if not same:
        raise LedgerInconsistent(Code.LEDGER_INCONSISTENT, "the terms do not say what was proven", where="terms")
