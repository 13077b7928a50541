"""The steps of a case that no session is about: tokens, bundles, logs, reports, documents. Each stands for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import Format, Register, read, require, require_whole_boot
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.terms import SignedTerms
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier import anchors as anchor_documents
from weighbridge.verifier import bundle as proof_bundle
from weighbridge.verifier import result_token
from weighbridge.verifier.appraisal import Appraiser
from weighbridge.verifier.conformance.result import Result, accepted, of_bundle
from weighbridge.verifier.conformance.steps import (
    Bundle,
    EventLog,
    GpuReport,
    Nras,
    Read,
    Terms,
    Token,
    digits,
    moment_of,
    octets,
)
from weighbridge.verifier.gpu.chain import verify_chain
from weighbridge.verifier.gpu.nras import verify_nras
from weighbridge.verifier.gpu.report import verify_report
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST
from weighbridge.verifier.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["take"]


def take(
    step: Token | Terms | Nras | EventLog | GpuReport | Bundle | Read, load: Callable[[PolicySet], Prepared]
) -> Result:
    """What comes of ``step``; ``load`` makes a policy ready to decide.

    Raises:
        WeighbridgeError: it is refused.
    """
    match step:
        case Token():
            _token(step)
        case Terms():
            _ = SignedTerms.open(octets(step.terms), _key(step.key))
        case Nras():
            _nras(step)
        case EventLog():
            _event_log(step)
        case GpuReport():
            _report(step)
        case Bundle():
            return _bundle(step, load)
        case Read():
            _read(step)
        case _:
            assert_never(step)
    return accepted()


def _token(step: Token) -> None:
    token = result_token.verify(step.token, _key(step.key), audience=step.audience, at=moment_of(step.at))
    if step.upstream is not None:
        token.require_upstream(digits(step.upstream))


def _nras(step: Nras) -> None:
    said = verify_nras(
        octets(step.answer),
        jwks=[octets(keys) for keys in step.key_sets],
        anchors=anchor_documents.load(octets(step.anchors)),
        at=moment_of(step.at),
        nonce=digits(step.nonce),
    )
    if step.devices is not None:
        said.require_devices([int.from_bytes(digits(serial)) for serial in step.devices])
        said.require_agreement()


def _event_log(step: EventLog) -> None:
    log = read(octets(step.log))
    values = {
        Register.pcr(strict.decimal(index, what="register")): digits(value) for index, value in step.registers.items()
    }
    _ = require(log, HashAlgorithm.SHA256, values)
    if step.whole and log.format is Format.TCG2:
        require_whole_boot(log, log.registers)


def _report(step: GpuReport) -> None:
    anchors = anchor_documents.load(octets(step.anchors))
    chain = verify_chain([octets(certificate) for certificate in step.chain], anchors, at=moment_of(step.at))
    _ = verify_report(spdm.parse(octets(step.report)), chain, nonce=digits(step.nonce))


def _bundle(step: Bundle, load: Callable[[PolicySet], Prepared]) -> Result:
    parsed = proof_bundle.Bundle.parse(octets(step.bundle))
    manifests = {made.digest: made for made in map(Manifest.unpack, parsed.manifests)}
    published = Published.nothing()
    if step.collateral is not None and step.publishers is not None:
        believed = anchor_documents.load(octets(step.publishers))
        published = Published(Collateral.parse(octets(step.collateral)), believed)
    own = None if step.policy is None else policy_set.shipped_name(step.policy)

    def appraiser(bundle: proof_bundle.Bundle, recorded: bytes, judged: bytes) -> Appraiser:
        reference = bundle.reference_named(recorded)
        if own is not None:
            chosen = policy_set.shipped(own, reference=reference)
        elif judged == NO_DIGEST:
            chosen = policy_set.shipped("production", reference=reference)
        else:
            chosen = policy_set.recorded(bundle.policy_named(judged), reference=reference)
        return Appraiser(load(chosen), reference, manifests, published)

    at = None if step.at is None else moment_of(step.at)
    anchors = anchor_documents.load(octets(step.anchors))
    verdict = proof_bundle.verify(parsed, anchors=anchors, appraiser=appraiser, at=at)
    verdict.require_recorded(policy=own is None, reference=True)
    return of_bundle(verdict)


def _read(step: Read) -> None:
    data = octets(step.document)
    match step.kind:
        case "requirements":
            _ = Requirements.parse(data)
        case "reference":
            _ = Reference.parse(data)
        case "anchors":
            _ = anchor_documents.load(data)


def _key(text: str) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(octets(text))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise MalformedEvidence(Code.KEY_UNSUPPORTED, "not a key on an elliptic curve", where="step.key")
    return key
