"""What a verifier demands of every session: the source of the signed terms.

A JSON document, schema ``weighbridge/requirements/v1``. Nothing is optional: what is not demanded is written out.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weighbridge.proto import limits, strict
from weighbridge.proto.enrolment import EVIDENCE_KINDS, EvidenceKind
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.terms import PERIOD_MAX_NS, PERIOD_MIN_NS
from weighbridge.proto.tpm.constants import HashAlgorithm

__all__ = ["RUNTIME_PCR", "SCHEMA", "Requirements"]

SCHEMA: Final = "weighbridge/requirements/v1"
_Pcr = Annotated[int, Field(ge=0, lt=limits.PCRS_MAX)]
# PCRs that a process can reset at locality 0 (TCG PC Client Platform TPM Profile 1.05 §4.6.2): 16 and 23.
_RESETTABLE: Final = frozenset({16, 23})
# Where Linux's IMA extends what it measures.
RUNTIME_PCR: Final = 10


class Requirements(BaseModel):
    """Demands of the verifier. Durations are nanoseconds; ``gpus`` is the exact count that a host must show.

    ``switches`` is that of the NVSwitches between them, which a host in protected-PCIe mode must show, too; without it
    none is demanded and none is taken.

    ``pcrs`` are quoted from the SHA-256 bank; the telemetry key must be bound to ``boot_pcrs``; the measurement log
    must replay to ``log_pcr``; ``spot_every`` is 0 where no spot check is demanded.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_: Annotated[Literal["weighbridge/requirements/v1"], Field(alias="schema")] = SCHEMA
    tenant: Annotated[str, Field(min_length=1, max_length=64)]
    audience: Annotated[str, Field(min_length=1, max_length=256)]
    evidence: tuple[EvidenceKind, ...]
    gpus: Annotated[int, Field(ge=0, le=limits.GPUS_MAX)]
    switches: Annotated[int, Field(ge=0, le=limits.GPUS_MAX)] = 0
    pcrs: tuple[_Pcr, ...]
    boot_pcrs: tuple[_Pcr, ...]
    log_pcr: _Pcr
    period_ns: Annotated[int, Field(ge=PERIOD_MIN_NS, le=PERIOD_MAX_NS)]
    gpu_every: Annotated[int, Field(ge=1, le=10_000)]
    lateness_ns: Annotated[int, Field(ge=0, le=PERIOD_MAX_NS)]
    spot_every: Annotated[int, Field(ge=0, le=10_000)]

    @property
    def bank(self) -> HashAlgorithm:
        """The quoted bank. Always SHA-256: other banks are extended, never judged."""
        return HashAlgorithm.SHA256

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.evidence != tuple(kind for kind in EVIDENCE_KINDS if kind in self.evidence):
            raise ValueError(f"evidence must be a subset of {EVIDENCE_KINDS}, in that order")
        if not {"telemetry", "tpm", "workload"} <= set(self.evidence):
            raise ValueError("evidence must contain telemetry, tpm and workload: a window has no meaning without them")
        if "platform" in self.evidence:
            raise ValueError("platform evidence cannot be demanded yet")
        for name, registers in (("pcrs", self.pcrs), ("boot_pcrs", self.boot_pcrs)):
            if list(registers) != sorted(set(registers)):
                raise ValueError(f"{name} must be distinct and ascending")
        if not self.boot_pcrs or not {*self.boot_pcrs, self.log_pcr} <= set(self.pcrs):
            raise ValueError("boot_pcrs must not be empty, and boot_pcrs and log_pcr must be among pcrs")
        if self.log_pcr in _RESETTABLE or self.log_pcr in self.boot_pcrs:
            raise ValueError("log_pcr must not be a boot PCR, nor 16 or 23, which any process can reset")
        return self

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        if ("gpu" in self.evidence) != (self.gpus > 0):
            raise ValueError("gpus must be positive exactly when evidence names gpu")
        if self.switches and not self.gpus:
            raise ValueError("switches mean nothing without GPUs")
        if self.gpus + self.switches > limits.GPUS_MAX:
            raise ValueError(f"gpus and switches must be at most {limits.GPUS_MAX} together")
        return self

    @model_validator(mode="after")
    def _check_runtime(self) -> Self:
        if "runtime" in self.evidence and ("boot" not in self.evidence or RUNTIME_PCR not in self.pcrs):
            raise ValueError(f"runtime evidence means nothing without boot evidence and PCR {RUNTIME_PCR} among pcrs")
        if RUNTIME_PCR in self.boot_pcrs or self.log_pcr == RUNTIME_PCR:
            raise ValueError(f"PCR {RUNTIME_PCR} moves with every file that the kernel measures: no boot or log PCR")
        return self

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the document.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` with the place, ``FIELD_MISSING`` without a schema, or a JSON code.
        """
        document = strict.json_decode(data, what="requirements")
        if isinstance(document, dict) and "schema" not in document:
            raise MalformedEvidence(
                Code.FIELD_MISSING, "the document does not say what it is", where="schema", expected=SCHEMA
            )
        try:
            return cls.model_validate_json(strict.json_encode(document))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "requirements"
            raise MalformedEvidence(Code.FIELD_RANGE, first["msg"], where=place) from error

    def encode(self) -> bytes:
        """The document, canonical: ``parse`` of it gives an equal value."""
        return strict.json_encode(self.model_dump(by_alias=True, mode="json"))
