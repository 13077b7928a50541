"""The window: its header (EAT claims, RFC 9711), the evidence collection that carries it (CMW, RFC 9999).

Byte layout: ``docs/protocol.md`` §5 and §6. Parsing says that bytes are well-formed, never that they are true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from weighbridge.proto import binding, cbor, cose, limits, strict
from weighbridge.proto.cc_state import CcState
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.spot import SpotAnswer
from weighbridge.proto.workload import WorkSummary

__all__ = [
    "EVIDENCE_TYPE",
    "PROFILE",
    "WINDOW_TYP",
    "Evidence",
    "Header",
    "Interval",
    "audience_of",
    "seal",
]

# NOTE: RFC 4151 wants an authority that the project owns; ADR 0005 keeps a reserved name until it owns one.
PROFILE: Final = "tag:weighbridge.example,2026:window/v1"
EVIDENCE_TYPE: Final = "tag:weighbridge.example,2026:evidence/v1"
WINDOW_TYP: Final = "application/eat+cwt"

# CWT and EAT claim keys: IANA "CBOR Web Token (CWT) Claims".
_AUD, _CNF, _EAT_NONCE, _EAT_PROFILE = 3, 8, 10, 265
# RFC 8747 §3.4: confirmation by key identifier; the identifier here is a SHA-256 of a SubjectPublicKeyInfo.
_CNF_KID: Final = 3
# Private-use claim keys, below -65536.
_TENANT, _SESSION, _TERMS, _SEQ, _PREV = -70100, -70101, -70102, -70103, -70104
_INTERVAL, _TELEMETRY, _WORK, _LOG, _MODEL = -70105, -70106, -70107, -70108, -70109
_TELEMETRY_KEY, _PEER, _KEM, _SPOT, _CC_STATE = -70110, -70111, -70112, -70113, -70114

# CMW indicator bits, RFC 9999 §3.1.
_IND_REFERENCE_VALUES: Final = 1
_IND_EVIDENCE: Final = 4
_COLLECTION_TYPE: Final = "__cmwc_t"
# Names that are remembered: a verifier has one.
_VERIFIERS_MAX: Final = 16
_MEDIA_TYPES: Final = {
    "window": (WINDOW_TYP, _IND_EVIDENCE),
    "tpm": ("application/vnd.weighbridge.tpm-quote+cbor", _IND_EVIDENCE),
    "gpu": ("application/vnd.weighbridge.gpu-reports+cbor", _IND_EVIDENCE),
    "telemetry": ("application/vnd.weighbridge.telemetry+cbor", _IND_EVIDENCE),
    "log": ("application/vnd.weighbridge.measurement-log+cbor", _IND_EVIDENCE),
    "manifests": ("application/vnd.weighbridge.manifests+cbor", _IND_REFERENCE_VALUES),
    "runtime": ("application/vnd.weighbridge.runtime-list", _IND_EVIDENCE),
}


@lru_cache(maxsize=_VERIFIERS_MAX)
def audience_of(verifier: bytes) -> str:
    """The ``aud`` claim that names a verifier by its key's thumbprint: an ``ni`` URI (RFC 6920 §3)."""
    return f"ni:///sha-256;{strict.base64url_encode(verifier)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What the window spans, by two clocks of the host: TPM milliseconds and wall-clock nanoseconds since 1970.

    The TPM clock is bound by the quote; the wall clock is the host's word.
    """

    tpm_start_ms: int
    tpm_end_ms: int
    wall_start_ns: int
    wall_end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The claims of one window. Digests and thumbprints are 32 bytes, ``session`` is 16.

    ``telemetry`` is SHA-256 over the telemetry bytes as sent; ``log_length`` and ``log_head`` describe the
    measurement log at sealing; ``cnf``, ``peer`` and ``telemetry_key`` are SHA-256 of SubjectPublicKeyInfos; ``spot``
    answers the spot challenge that came with ``challenge``, ``None`` where none came; ``cc_state`` is what the host's
    driver says of confidential computing, which no device signs, ``None`` where it says nothing.
    """

    tenant: str
    session: bytes
    audience: str
    terms: bytes
    seq: int
    prev: bytes
    challenge: bytes
    interval: Interval
    telemetry: bytes
    work: WorkSummary
    log_length: int
    log_head: bytes
    model: bytes
    telemetry_key: bytes
    cnf: bytes
    peer: bytes
    kem: bytes | None
    spot: SpotAnswer | None
    cc_state: CcState | None

    def encode(self) -> bytes:
        """The header's bytes: what ``H_k`` hashes and the telemetry key signs."""
        i = self.interval
        log: list[cbor.CborValue] = [self.log_length, self.log_head]
        return cbor.encode(
            {
                _AUD: self.audience,
                _CNF: {_CNF_KID: self.cnf},
                _EAT_NONCE: self.challenge,
                _EAT_PROFILE: PROFILE,
                _TENANT: self.tenant,
                _SESSION: self.session,
                _TERMS: self.terms,
                _SEQ: self.seq,
                _PREV: self.prev,
                _INTERVAL: [i.tpm_start_ms, i.tpm_end_ms, i.wall_start_ns, i.wall_end_ns],
                _TELEMETRY: self.telemetry,
                _WORK: self.work.to_cbor(),
                _LOG: log,
                _MODEL: self.model,
                _TELEMETRY_KEY: self.telemetry_key,
                _PEER: self.peer,
                _KEM: self.kem,
                _SPOT: None if self.spot is None else self.spot.to_cbor(),
                _CC_STATE: None if self.cc_state is None else self.cc_state.to_cbor(),
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse a header.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written; ``WINDOW_PROFILE`` for
                another ``eat_profile``.
        """
        fields = cbor.read_map(cbor.decode(payload, limit=limits.HEADER_MAX, what="header"), where="header")
        profile = fields.text(_EAT_PROFILE)
        if profile != PROFILE:
            raise MalformedEvidence(
                Code.WINDOW_PROFILE, "unknown profile", where="header", expected=PROFILE, got=profile
            )
        confirmation = fields.table(_CNF)
        log_length, log_head = _log(fields.array(_LOG, limit=2))
        cc_state = fields.take(_CC_STATE)
        header = cls(
            tenant=fields.text(_TENANT, limit=64),
            session=fields.octets(_SESSION, size=16),
            audience=fields.text(_AUD),
            terms=fields.digest(_TERMS),
            seq=fields.uint(_SEQ, limit=2**53),
            prev=fields.digest(_PREV),
            challenge=fields.octets(_EAT_NONCE, size=limits.NONCE_SIZE),
            interval=_interval(fields.array(_INTERVAL, limit=4)),
            telemetry=fields.digest(_TELEMETRY),
            work=WorkSummary.from_cbor(fields.take(_WORK), where="header.work"),
            log_length=log_length,
            log_head=log_head,
            model=fields.digest(_MODEL),
            telemetry_key=fields.digest(_TELEMETRY_KEY),
            cnf=confirmation.digest(_CNF_KID),
            peer=fields.digest(_PEER),
            kem=fields.optional_octets(_KEM, limit=256),
            spot=SpotAnswer.from_cbor(fields.take(_SPOT), where="header.spot"),
            cc_state=None if cc_state is None else CcState.from_cbor(cc_state, where="header.cc_state"),
        )
        confirmation.end()
        fields.end()
        return header


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One window as sent: the signed header and each kind of evidence, verbatim.

    ``gpus`` is ``None`` when the terms demand no report in this window. ``runtime`` is what the kernel appended to its
    list of measured files since the last window, ``None`` when the terms do not demand it.
    """

    window: bytes
    quote: bytes
    gpus: bytes | None
    telemetry: bytes
    log: bytes
    manifests: bytes
    runtime: bytes | None

    def encode(self) -> bytes:
        """The CMW collection."""
        parts: dict[str, bytes | None] = {
            "window": self.window,
            "tpm": self.quote,
            "gpu": self.gpus,
            "telemetry": self.telemetry,
            "log": self.log,
            "manifests": self.manifests,
            "runtime": self.runtime,
        }
        records = {
            label: None if value is None else [_MEDIA_TYPES[label][0], value, _MEDIA_TYPES[label][1]]
            for label, value in parts.items()
        }
        return cbor.encode({_COLLECTION_TYPE: EVIDENCE_TYPE, **records})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the collection's envelope; the parts stay bytes.

        Raises:
            MalformedEvidence: ``TOO_LARGE``, ``VERSION_UNSUPPORTED`` or a decoding code.
        """
        fields = cbor.read_map(cbor.decode(data, limit=limits.EVIDENCE_MAX, what="evidence"), where="evidence")
        kind = fields.text(_COLLECTION_TYPE)
        if kind != EVIDENCE_TYPE:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown collection type", where="evidence", expected=EVIDENCE_TYPE, got=kind
            )
        evidence = cls(
            window=_record(fields, "window", limits.HEADER_MAX + 256),
            quote=_record(fields, "tpm", limits.TPM_STRUCTURE_MAX),
            gpus=_optional_record(fields, "gpu", limits.EVIDENCE_MAX),
            telemetry=_record(fields, "telemetry", limits.TELEMETRY_MAX),
            log=_record(fields, "log", limits.EVIDENCE_MAX),
            manifests=_record(fields, "manifests", limits.EVIDENCE_MAX),
            runtime=_optional_record(fields, "runtime", limits.RUNTIME_LOG_MAX),
        )
        fields.end()
        return evidence

    def signed_header(self) -> cose.CoseSign1:
        """The COSE_Sign1 around the header, parsed.

        Raises:
            MalformedEvidence: ``COSE_HEADER`` or a decoding code.
        """
        return cose.parse(self.window, typ=WINDOW_TYP, limit=limits.HEADER_MAX + 256, what="window")


def seal(header: bytes, gpus: bytes, platform: bytes | None) -> tuple[bytes, bytes]:
    """``(H_k, qualifyingData_k)`` of a header's bytes, G_k and P_k."""
    window = binding.window_digest(header)
    return window, binding.qualifying_data(window, gpus, platform)


def _optional_record(fields: cbor.Reader, label: str, limit: int) -> bytes | None:
    value = fields.take(label)
    return None if value is None else _cmw(value, label, limit)


def _record(fields: cbor.Reader, label: str, limit: int) -> bytes:
    return _cmw(fields.take(label), label, limit)


def _cmw(value: cbor.CborValue, label: str, limit: int) -> bytes:
    where = f"evidence[{label}]"
    media_type, content, indicator = cbor.read_array(value, where=where, limit=3, size=3)
    if (media_type, indicator) != _MEDIA_TYPES[label]:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "wrong media type or indicator",
            where=where,
            expected=_MEDIA_TYPES[label][0],
            got=media_type,
        )
    if not isinstance(content, bytes):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="byte string")
    if len(content) > limit:
        raise MalformedEvidence(Code.TOO_LARGE, "too long", where=where, expected=f"<= {limit} bytes", got=len(content))
    return content


def _interval(values: list[cbor.CborValue]) -> Interval:
    times = cbor.Reader(dict(enumerate(values)), "header.interval")
    interval = Interval(
        tpm_start_ms=times.uint(0), tpm_end_ms=times.uint(1), wall_start_ns=times.uint(2), wall_end_ns=times.uint(3)
    )
    times.end()
    return interval


def _log(values: list[cbor.CborValue]) -> tuple[int, bytes]:
    parts = cbor.Reader(dict(enumerate(values)), "header.log")
    length, head = parts.uint(0, limit=2**32), parts.digest(1)
    parts.end()
    return length, head
