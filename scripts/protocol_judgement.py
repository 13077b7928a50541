"""What the verifier makes of the worked example: verdicts, records, ledger, result token, bundle.

The product's own procedures verify and appraise the session; only the policy is a stand-in that admits, so that the
vectors do not change with every edit of a shipped policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, cast

import protocol_example as example
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.policy.claims import trust_claims
from weighbridge.policy.engine import Decision
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits, merkle, strict, tlog
from weighbridge.proto.binding import gpu_nonce
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import D, sha256
from weighbridge.verifier import result_token
from weighbridge.verifier.appraisal import Appraiser, Verdict
from weighbridge.verifier.bundle import Bundle, Entry
from weighbridge.verifier.record import ChallengePreimage, Leaf, Record
from weighbridge.verifier.replay import replay_enrolment, replay_window
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.telemetry.appraisal import NOTHING

if TYPE_CHECKING:
    from types import TracebackType

    from cryptography.hazmat.primitives.serialization import Encoding, KeySerializationEncryption, PrivateFormat

    from weighbridge.policy.document import PolicyInput

MODULES: Final = (("example.rego", b"package weighbridge.policy\n\nimport rego.v1\n\ndefault allow := false\n"),)
"""What the example names as its policy. It is never evaluated: see :class:`ExamplePolicy`."""

_ENROLMENT_SCHEMA: Final = "weighbridge/enrolment/v1"
_NO_DIGEST: Final = bytes(limits.DIGEST_SIZE)


class ExamplePolicy:
    """Admits every window, under the digests of :data:`MODULES` and of the example's reference values."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def decide(self, document: PolicyInput) -> Decision:
        """See :class:`weighbridge.policy.engine.Prepared`."""
        return Decision(
            outcome="allow",
            denials=(),
            warnings=(),
            unchecked=(),
            obligations=(),
            trust_claims=trust_claims(document),
            policy_digest=policy_digest(),
            reference_digest=self._reference.digest,
            input_digest=document.input_digest,
            engine="example",
            engine_version="0",
        )

    def close(self) -> None:
        """See :class:`weighbridge.policy.engine.Prepared`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FixedSigner(ec.EllipticCurvePrivateKey):
    """A private key whose ECDSA signatures are deterministic, for the JWT library, which would draw a number."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def sign(self, data: object, signature_algorithm: object) -> bytes:
        """As the key would, but by RFC 6979 and with SHA-256."""
        del signature_algorithm
        return self._key.sign(cast("bytes", data), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._key.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Not for this."""
        raise NotImplementedError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """Not for this."""
        raise NotImplementedError

    def private_bytes(
        self,
        encoding: Encoding,
        format: PrivateFormat,  # noqa: A002 - the base class's name
        encryption_algorithm: KeySerializationEncryption,
    ) -> bytes:
        """Not for this."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Everything that the verifier recorded and gave out about the example's session."""

    enrolment: example.Enrolment
    window: example.Window
    reference: Reference
    verdict: Verdict
    records: tuple[Record, ...]
    leaves: tuple[Leaf, ...]
    checkpoint: bytes
    proof: tlog.Proof
    token: str
    bundle: Bundle

    @property
    def entries(self) -> tuple[bytes, ...]:
        """The ledger's entries."""
        return tuple(leaf.encode() for leaf in self.leaves)


def policy_digest() -> bytes:
    """``D("policy", …)`` of the example's modules."""
    return D("policy", [[name, text] for name, text in sorted(MODULES)])


def reference_of(enrolment: example.Enrolment) -> Reference:
    """Reference values that accept the example's model; nothing is left unchecked."""
    return Reference(models={enrolment.manifest.digest.hex(): "tiny"}, gpu_measurements={}, unchecked={})


def appraiser_of(enrolment: example.Enrolment) -> Appraiser:
    """The example's policy, reference values and declared manifest."""
    reference = reference_of(enrolment)
    return Appraiser(ExamplePolicy(reference), reference, {enrolment.manifest.digest: enrolment.manifest})


def judge() -> Judgement:
    """Enrol, seal, judge, record, answer."""
    enrolment = example.enrol()
    enrolled = _enrolment_record(enrolment)
    first = Leaf.of(enrolled)
    root = merkle.leaf_hash(first.encode())
    window = example.seal_window(enrolment, root)
    verdict = _appraise(enrolment, enrolled, window)
    judged = _window_record(window, verdict)
    leaves = (first, Leaf.of(judged))
    entries = [leaf.encode() for leaf in leaves]
    nodes = merkle.nodes_of([merkle.leaf_hash(entry) for entry in entries])
    checkpoint = example.checkpoint(entries)
    reference = reference_of(enrolment)
    paths = [merkle.inclusion_proof(index, len(entries), nodes) for index in range(len(entries))]
    bundle = Bundle(
        checkpoint=checkpoint,
        entries=(
            Entry(0, paths[0], enrolled.encode(), enrolment.proof.encode()),
            Entry(1, paths[1], judged.encode(), window.evidence.encode()),
        ),
        policies=(MODULES,),
        references=(reference.to_json(),),
        manifests=(enrolment.manifest.pack(),),
        collaterals=(),
        baselines=(),
    )
    return Judgement(
        enrolment=enrolment,
        window=window,
        reference=reference,
        verdict=verdict,
        records=(enrolled, judged),
        leaves=leaves,
        checkpoint=checkpoint,
        proof=tlog.Proof(1, paths[1], checkpoint),
        token=_token(enrolment, window, verdict, leaves[1]),
        bundle=bundle,
    )


def _enrolment_record(enrolment: example.Enrolment) -> Record:
    outcome: strict.JsonObject = {
        "schema": _ENROLMENT_SCHEMA,
        "session": enrolment.challenge.session.hex(),
        "received_at": strict.time_encode(example.ENROLLED),
        "outcome": "enrolled",
        "denials": [],
    }
    return Record(
        kind="enrolment",
        session=enrolment.challenge.session,
        seq=None,
        received_ns=example.nanoseconds(example.ENROLLED),
        held=False,
        preimage=ChallengePreimage(enrolment.root, example.fixed("enrolment challenge")),
        opening=enrolment.opening.encode(),
        terms=enrolment.terms.raw,
        secret=enrolment.secret,
        window=None,
        evidence=sha256(enrolment.proof.encode()),
        policy=_NO_DIGEST,
        reference=_NO_DIGEST,
        requirements=example.REQUIREMENTS.encode(),
        verdict=strict.json_encode(outcome),
        spot=None,
        collateral=_NO_DIGEST,
        history=None,
        previous=None,
    )


def _appraise(enrolment: example.Enrolment, record: Record, window: example.Window) -> Verdict:
    """The product's verdict: enrolment and window verified by its own procedures."""
    key = example.VERIFIER_KEY.public_key()
    replayed = replay_enrolment(
        record, enrolment.proof.encode(), anchors=example.ANCHORS, verifier_key=key, collateral=Collateral()
    )
    pending = _window_record(window, None)
    verified = replay_window(
        pending,
        window.evidence.encode(),
        enrolled=replayed.enrolled,
        position=replayed.position,
        anchors=example.ANCHORS,
    )
    appraiser, enrolled, position = appraiser_of(enrolment), replayed.enrolled, replayed.position
    physical = appraiser.physical(verified, enrolled=enrolled, position=position, history=NOTHING, at=example.RECEIVED)
    return appraiser.appraise(
        verified,
        enrolled=enrolled,
        position=position,
        state=SessionState.ENROLLED,
        physical=physical,
        at=example.RECEIVED,
    )


def _window_record(window: example.Window, verdict: Verdict | None) -> Record:
    """The record of window 0; without a verdict the one that replaying needs, which nobody keeps."""
    decision = None if verdict is None else verdict.decision
    return Record(
        kind="window",
        session=window.header.session,
        seq=0,
        received_ns=example.nanoseconds(example.RECEIVED),
        held=False,
        preimage=ChallengePreimage(window.root, example.fixed("challenge 0")),
        opening=None,
        terms=None,
        secret=None,
        window=window.digest,
        evidence=sha256(window.evidence.encode()),
        policy=_NO_DIGEST if decision is None else decision.policy_digest,
        reference=_NO_DIGEST if decision is None else decision.reference_digest,
        requirements=None,
        verdict=b"" if verdict is None else verdict.encode(),
        spot=window.spot,
        collateral=_NO_DIGEST,
        history=None if verdict is None else NOTHING,
        previous=None,
    )


def _token(enrolment: example.Enrolment, window: example.Window, verdict: Verdict, leaf: Leaf) -> str:
    terms, decision = enrolment.terms.terms, verdict.decision
    if decision is None:
        raise RuntimeError("the example is admitted")
    nonces = dict.fromkeys(decision.trust_claims, window.digest)
    nonces |= {"tpm0": window.qualifying_data, "gpu0": gpu_nonce(window.digest)}
    claims = result_token.Claims(
        issuer=example.ORIGIN,
        audience=terms.audience,
        session=terms.session,
        tenant=terms.tenant,
        seq=0,
        model=terms.model,
        adapters=(),
        cnf=terms.cnf,
        policy=decision.policy_digest,
        reference=decision.reference_digest,
        nonces=nonces,
        vectors=decision.trust_claims,
        unchecked={},
        ledger_origin=example.ORIGIN,
        ledger_index=1,
        ledger_leaf=merkle.leaf_hash(leaf.encode()),
    )
    key = FixedSigner(example.VERIFIER_KEY)
    return result_token.issue(claims, key, received=example.RECEIVED, period_ns=terms.period_ns)
