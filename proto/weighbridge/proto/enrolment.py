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
from typing import Final, Self

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["EnrolmentChallenge", "EnrolmentProof", "Opening", "digests"]

_OPENING: Final = "weighbridge/v1/opening"
_CHALLENGE: Final = "weighbridge/v1/enrolment-challenge"
_PROOF: Final = "weighbridge/v1/enrolment-proof"
_INTERMEDIATES_MAX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an attester says of itself before anything is proven.

    ``ak`` and ``ek`` are TPMT_PUBLIC structures; ``ek`` and ``ek_certificate`` (DER) are ``None`` when the verifier
    has pinned the AK; ``cnf`` and ``peer`` are SHA-256 of the SubjectPublicKeyInfo of the serving key and of the
    attester's own TLS key; ``model`` is the digest of the declared manifest, ``adapters`` those of the manifests that
    may be loaded beside it, ascending.
    """

    tenant: str
    audience: str
    ak: bytes
    ek: bytes | None
    ek_certificate: bytes | None
    ek_intermediates: tuple[bytes, ...]
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
                4: self.ek,
                5: self.ek_certificate,
                6: list(self.ek_intermediates),
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
        fields = cbor.read_versioned(data, version=_OPENING, limit=limits.TERMS_MAX, what="opening")
        opening = cls(
            tenant=fields.text(1, limit=64),
            audience=fields.text(2),
            ak=fields.octets(3, limit=limits.TPM_STRUCTURE_MAX),
            ek=fields.optional_octets(4, limit=limits.TPM_STRUCTURE_MAX),
            ek_certificate=fields.optional_octets(5, limit=limits.CERT_MAX),
            ek_intermediates=fields.octet_strings(6, count=_INTERMEDIATES_MAX, limit=limits.CERT_MAX),
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
        if (opening.ek is None) != (opening.ek_certificate is None):
            raise MalformedEvidence(
                Code.FIELD_RANGE, "an EK comes with its certificate, or neither", where="opening[4]"
            )
        return opening


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentChallenge:
    """What the verifier wants proven. ``credential`` is ``(idObject, encryptedSecret)`` or ``None`` for a pinned AK.

    ``bank`` is a TPM_ALG_ID; ``pcrs`` are quoted; the telemetry key is to be bound to ``boot_pcrs``.
    """

    session: bytes
    challenge: bytes
    credential: tuple[bytes, bytes] | None
    bank: int
    pcrs: tuple[int, ...]
    boot_pcrs: tuple[int, ...]
    log_pcr: int

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
        )
        fields.end()
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentProof:
    """What the attester proves. Every part is verbatim evidence, bound to the challenge by its qualifying data.

    ``secret`` is the activated credential (empty for a pinned AK); ``telemetry_key`` a TPMT_PUBLIC with the
    TPMS_ATTEST and TPMT_SIGNATURE of its certification; ``quote`` and ``gpus`` as in a window; ``log`` the whole
    measurement log since boot.
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
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a proof's envelope; the parts stay bytes.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_PROOF, limit=limits.EVIDENCE_MAX, what="enrolment proof")
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
        )
        fields.end()
        return proof


def digests(values: list[cbor.CborValue], *, where: str) -> tuple[bytes, ...]:
    """Distinct digests in ascending order.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    found = tuple(value for value in values if isinstance(value, bytes) and len(value) == limits.DIGEST_SIZE)
    if list(found) != values or list(found) != sorted(set(found)):
        raise MalformedEvidence(Code.FIELD_RANGE, "not distinct, ascending digests", where=where)
    return found
