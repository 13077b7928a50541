"""The three messages that open a session: opening, challenge, proof. Byte layout: ``docs/protocol.md`` §4.

::

    attester                                     verifier
    Opening  (who I am, what I will serve)  ──►
                                            ◄──  EnrolmentChallenge  (credential for this EK and AK, nonce, PCRs)
    EnrolmentProof (the secret, quote,      ──►
       certified telemetry key, GPUs, log)
                                            ◄──  SignedTerms and the first window's challenge
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from weighbridge.proto import cbor, limits
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.endorsement import Endorsement, endorsement_from_cbor, endorsement_to_cbor
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = [
    "EVIDENCE_KINDS",
    "EnrolmentChallenge",
    "EnrolmentProof",
    "EvidenceKind",
    "Opening",
    "digests",
    "evidence_kinds",
]

_OPENING: Final = "weighbridge/v1/opening"
_CHALLENGE: Final = "weighbridge/v1/enrolment-challenge"
_PROOF: Final = "weighbridge/v1/enrolment-proof"
EvidenceKind = Literal["boot", "gpu", "platform", "runtime", "telemetry", "tpm", "workload"]
EVIDENCE_KINDS: Final[tuple[EvidenceKind, ...]] = get_args(EvidenceKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an attester says of itself before anything is proven.

    ``ak`` is a TPMT_PUBLIC, ``parent`` that of the storage key under which it was made, ``None`` for a primary of the
    endorsement hierarchy; ``endorsement`` is why the AK is to be believed, ``None`` when the verifier has pinned it;
    ``collateral`` is what helps to judge that; ``cnf`` and ``peer`` are SHA-256 of the SubjectPublicKeyInfo of the
    serving key and of the attester's own TLS key; ``model`` is the digest of the declared manifest, ``adapters`` those
    of the manifests that may be loaded beside it, ascending.
    """

    tenant: str
    audience: str
    ak: bytes
    parent: bytes | None
    endorsement: Endorsement | None
    collateral: Collateral
    cnf: bytes
    peer: bytes
    kem: bytes | None
    model: bytes
    adapters: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The message's bytes."""
        return cbor.encode(
            {
                0: _OPENING,
                1: self.tenant,
                2: self.audience,
                3: self.ak,
                4: self.parent,
                5: endorsement_to_cbor(self.endorsement),
                6: self.collateral.to_cbor(),
                7: self.cnf,
                8: self.peer,
                9: self.kem,
                10: self.model,
                11: list(self.adapters),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse an opening.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_OPENING, limit=limits.OPENING_MAX, what="opening")
        opening = cls(
            tenant=fields.text(1, limit=64),
            audience=fields.text(2),
            ak=fields.octets(3, limit=limits.TPM_STRUCTURE_MAX),
            parent=fields.optional_octets(4, limit=limits.TPM_STRUCTURE_MAX),
            endorsement=endorsement_from_cbor(fields.take(5), where="opening[5]"),
            collateral=Collateral.from_cbor(fields.array(6, limit=limits.COLLATERAL_ITEMS_MAX), where="opening[6]"),
            cnf=fields.digest(7),
            peer=fields.digest(8),
            kem=fields.optional_octets(9, limit=256),
            model=fields.digest(10),
            adapters=digests(fields.array(11, limit=limits.ADAPTERS_MAX), where="opening[11]"),
        )
        fields.end()
        if opening.model in opening.adapters:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "the model is declared as its own adapter", where="opening[11]", got=opening.model
            )
        return opening


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentChallenge:
    """What the verifier wants proven. ``credential`` is ``(idObject, encryptedSecret)``; ``None`` where none is needed.

    ``bank`` is a TPM_ALG_ID; ``pcrs`` are quoted; the telemetry key is to be bound to ``boot_pcrs``; ``evidence`` are
    the kinds that the terms will demand, in the order of the table.
    """

    session: bytes
    challenge: bytes
    credential: tuple[bytes, bytes] | None
    bank: int
    pcrs: tuple[int, ...]
    boot_pcrs: tuple[int, ...]
    log_pcr: int
    evidence: tuple[EvidenceKind, ...]

    def encode(self) -> bytes:
        """The message's bytes."""
        return cbor.encode(
            {
                0: _CHALLENGE,
                1: self.session,
                2: self.challenge,
                3: None if self.credential is None else self.credential[0],
                4: None if self.credential is None else self.credential[1],
                5: self.bank,
                6: list(self.pcrs),
                7: list(self.boot_pcrs),
                8: self.log_pcr,
                9: list(self.evidence),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a challenge.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_CHALLENGE, limit=limits.TERMS_MAX, what="enrolment challenge")
        session = fields.octets(1, size=16)
        nonce = fields.octets(2, size=limits.NONCE_SIZE)
        id_object = fields.optional_octets(3, limit=limits.TPM_STRUCTURE_MAX)
        encrypted_secret = fields.optional_octets(4, limit=limits.TPM_STRUCTURE_MAX)
        if (id_object is None) != (encrypted_secret is None):
            raise MalformedEvidence(Code.FIELD_RANGE, "a credential has two parts", where="challenge[3]")
        result = cls(
            session=session,
            challenge=nonce,
            credential=None if id_object is None or encrypted_secret is None else (id_object, encrypted_secret),
            bank=fields.uint(5, limit=0xFFFF),
            pcrs=fields.ascending(6, below=limits.PCRS_MAX),
            boot_pcrs=fields.ascending(7, below=limits.PCRS_MAX),
            log_pcr=fields.uint(8, limit=limits.PCRS_MAX - 1),
            evidence=evidence_kinds(fields.array(9, limit=len(EVIDENCE_KINDS)), where="challenge[9]"),
        )
        fields.end()
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentProof:
    """What the attester proves. Every part is verbatim evidence, bound to the challenge by its qualifying data.

    ``secret`` is the activated credential (empty where there was none); ``telemetry_key`` a TPMT_PUBLIC with the
    TPMS_ATTEST and TPMT_SIGNATURE of its certification; ``quote`` and ``gpus`` as in a window; ``log`` the whole
    measurement log since boot; ``boot`` an encoded :class:`~weighbridge.proto.boot.BootLogs`, ``None`` if not demanded.
    """

    session: bytes
    secret: bytes
    telemetry_key: bytes
    certify_attest: bytes
    certify_signature: bytes
    quote: bytes
    gpus: bytes
    log: bytes
    manifests: bytes
    boot: bytes | None

    def encode(self) -> bytes:
        """The message's bytes."""
        return cbor.encode(
            {
                0: _PROOF,
                1: self.session,
                2: self.secret,
                3: self.telemetry_key,
                4: self.certify_attest,
                5: self.certify_signature,
                6: self.quote,
                7: self.gpus,
                8: self.log,
                9: self.manifests,
                10: self.boot,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a proof's envelope; the parts stay bytes.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_PROOF, limit=limits.PROOF_MAX, what="enrolment proof")
        proof = cls(
            session=fields.octets(1, size=16),
            secret=fields.octets(2, limit=64),
            telemetry_key=fields.octets(3, limit=limits.TPM_STRUCTURE_MAX),
            certify_attest=fields.octets(4, limit=limits.TPM_STRUCTURE_MAX),
            certify_signature=fields.octets(5, limit=limits.TPM_STRUCTURE_MAX),
            quote=fields.octets(6, limit=limits.TPM_STRUCTURE_MAX),
            gpus=fields.octets(7),
            log=fields.octets(8),
            manifests=fields.octets(9),
            boot=fields.optional_octets(10),
        )
        fields.end()
        return proof


def evidence_kinds(values: list[cbor.CborValue], *, where: str) -> tuple[EvidenceKind, ...]:
    """Distinct kinds of evidence, in the order of the table.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    kinds: tuple[EvidenceKind, ...] = tuple(kind for kind in EVIDENCE_KINDS if kind in values)
    if list(kinds) != values:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "unknown, repeated or unordered evidence kinds",
            where=where,
            expected=", ".join(EVIDENCE_KINDS),
        )
    return kinds


def digests(values: list[cbor.CborValue], *, where: str) -> tuple[bytes, ...]:
    """Distinct digests in ascending order.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    found = tuple(value for value in values if isinstance(value, bytes) and len(value) == limits.DIGEST_SIZE)
    if list(found) != values or list(found) != sorted(set(found)):
        raise MalformedEvidence(Code.FIELD_RANGE, "not distinct, ascending digests", where=where)
    return found
