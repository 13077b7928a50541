"""The terms of a session: what the verifier demands, signed by it at opening and named in every header.

Byte layout: ``docs/protocol.md`` §4. An attester cannot widen them: evidence kinds, devices, PCRs, period and
lateness are the verifier's. Absent evidence is null and judged, never missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import binding, cbor, cose, limits
from weighbridge.proto.enrolment import EVIDENCE_KINDS, EvidenceKind, digests, evidence_kinds
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["EVIDENCE_KINDS", "PERIOD_MAX_NS", "PERIOD_MIN_NS", "TERMS_TYP", "EvidenceKind", "SignedTerms", "Terms"]

TERMS_TYP: Final = "application/vnd.weighbridge.terms+cose"
_VERSION: Final = "weighbridge/v1/terms"
# A gate wants 1 s to 60 s; longer windows are for audit.
PERIOD_MIN_NS: Final = 1_000_000_000
PERIOD_MAX_NS: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The content of signed terms. Digests and thumbprints are 32 bytes; durations are nanoseconds.

    ``evidence`` is what the session must show (``boot`` at enrolment only, the others in each window); ``gpus`` the
    enrolled devices' identities, ascending; ``pcrs`` the quoted registers of bank ``bank`` (a TPM_ALG_ID), ascending;
    ``boot_pcrs`` those of them to whose values the telemetry key is bound; ``log_pcr`` the register the measurement log
    extends; ``prev`` what the first header must name; ``model`` the digest of the declared manifest; ``adapters`` those
    of the manifests that may be loaded beside it, ascending; ``spot_every`` is 0 where no spot check is demanded.
    """

    session: bytes
    tenant: str
    audience: str
    verifier: bytes
    ak: bytes
    telemetry_key: bytes
    cnf: bytes
    peer: bytes
    kem: bytes | None
    model: bytes
    evidence: tuple[EvidenceKind, ...]
    gpus: tuple[bytes, ...]
    bank: int
    pcrs: tuple[int, ...]
    boot_pcrs: tuple[int, ...]
    log_pcr: int
    period_ns: int
    gpu_every: int
    lateness_ns: int
    prev: bytes
    issued_ns: int
    spot_every: int
    adapters: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The payload that is signed."""
        return cbor.encode(
            {
                0: _VERSION,
                1: self.session,
                2: self.tenant,
                3: self.audience,
                4: self.verifier,
                5: self.ak,
                6: self.telemetry_key,
                7: self.cnf,
                8: self.peer,
                9: self.kem,
                10: self.model,
                11: list(self.evidence),
                12: list(self.gpus),
                13: self.bank,
                14: list(self.pcrs),
                15: list(self.boot_pcrs),
                16: self.log_pcr,
                17: self.period_ns,
                18: self.gpu_every,
                19: self.lateness_ns,
                20: self.prev,
                21: self.issued_ns,
                22: self.spot_every,
                23: list(self.adapters),
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse a terms payload.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(payload, version=_VERSION, limit=limits.TERMS_MAX, what="terms")
        terms = cls(
            session=fields.octets(1, size=16),
            tenant=fields.text(2, limit=64),
            audience=fields.text(3),
            verifier=fields.digest(4),
            ak=fields.digest(5),
            telemetry_key=fields.digest(6),
            cnf=fields.digest(7),
            peer=fields.digest(8),
            kem=fields.optional_octets(9, limit=256),
            model=fields.digest(10),
            evidence=evidence_kinds(fields.array(11, limit=len(EVIDENCE_KINDS)), where="terms[11]"),
            gpus=digests(fields.array(12, limit=limits.GPUS_MAX), where="terms[12]"),
            bank=fields.uint(13, limit=0xFFFF),
            pcrs=fields.ascending(14, below=limits.PCRS_MAX),
            boot_pcrs=fields.ascending(15, below=limits.PCRS_MAX),
            log_pcr=fields.uint(16, limit=limits.PCRS_MAX - 1),
            period_ns=fields.integer(17, low=PERIOD_MIN_NS, high=PERIOD_MAX_NS),
            gpu_every=fields.integer(18, low=1, high=10_000),
            lateness_ns=fields.uint(19, limit=PERIOD_MAX_NS),
            prev=fields.digest(20),
            issued_ns=fields.uint(21),
            spot_every=fields.integer(22, low=0, high=10_000),
            adapters=digests(fields.array(23, limit=limits.ADAPTERS_MAX), where="terms[23]"),
        )
        fields.end()
        if not {*terms.boot_pcrs, terms.log_pcr} <= {*terms.pcrs}:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "boot and log PCRs are not among the quoted ones", where="terms[14]"
            )
        return terms

    @property
    def declared(self) -> tuple[bytes, ...]:
        """Every manifest that may be loaded: the model's first."""
        return (self.model, *self.adapters)

    def gpu_due(self, seq: int) -> bool:
        """Whether window ``seq`` must carry GPU reports."""
        return "gpu" in self.evidence and seq % self.gpu_every == 0


@dataclass(frozen=True, slots=True)
class SignedTerms:
    """Terms as signed: ``raw`` is the COSE_Sign1, ``digest`` what headers carry.

    Made by :meth:`sign` or :meth:`open`.
    """

    raw: bytes
    terms: Terms
    digest: bytes

    @classmethod
    def sign(cls, terms: Terms, signer: Callable[[bytes], bytes]) -> Self:
        """Sign ``terms`` with the verifier's key, whose thumbprint is ``terms.verifier``."""
        payload = terms.encode()
        raw = cose.sign(payload, kid=terms.verifier, typ=TERMS_TYP, signer=signer)
        return cls(raw, terms, binding.terms_digest(payload))

    @classmethod
    def open(cls, raw: bytes, verifier_key: ec.EllipticCurvePublicKey) -> Self:
        """Verify and parse terms signed by ``verifier_key``, which the caller trusts.

        Raises:
            MalformedEvidence: not well-formed, or the terms name another verifier.
            NotAuthentic: ``COSE_SIGNATURE``.
        """
        message = cose.parse(raw, typ=TERMS_TYP, limit=limits.TERMS_MAX, what="terms")
        payload = cose.verify(message, verifier_key)
        terms = Terms.parse(payload)
        thumbprint = cose.thumbprint(verifier_key)
        if terms.verifier != thumbprint or message.claimed_kid != thumbprint:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "terms name another verifier", where="terms[4]", expected=thumbprint
            )
        return cls(raw, terms, binding.terms_digest(payload))
