"""The policy's input: a total document, versioned, built only from verified evidence.

Every field is present in every document (``null`` where the fact is unknown), lists have elements of one shape, and
integers stay below 2**53, larger numbers and serials being strings: a policy can then not be fooled by an absent
field (``x != "bad"`` is undefined, so not true, when ``x`` is missing) nor by an engine that reads large integers as
floating point. What the verifier's invariants already hold (chain, nonces, sequence) is not repeated here.

The same dataclasses give the schema against which the checker resolves ``input.…`` in policies.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, Literal, Union

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = [
    "SCHEMA",
    "AttesterCode",
    "BootDifference",
    "BootPcr",
    "DeclaredModel",
    "Finding",
    "Gap",
    "Gpu",
    "GpuDifference",
    "GpuManifest",
    "LoadedModel",
    "MeasuredFile",
    "Platform",
    "PolicyInput",
    "Proof",
    "Runtime",
    "Session",
    "SpotCheck",
    "Tee",
    "Telemetry",
    "TelemetrySource",
    "WeightDifference",
    "Weights",
    "Window",
    "Work",
    "instant",
    "schema",
]

SCHEMA: Final = "weighbridge/policy-input/v1"

_INT_MAX: Final = 2**53 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Proof = Literal["unproven", "proven"]


@dataclass(frozen=True, slots=True)
class Session:
    """Whose session it is and what its terms fix. ``id`` is 16 bytes as hex."""

    id: str
    tenant: str
    audience: str
    state: str
    window_period_ns: int


@dataclass(frozen=True, slots=True)
class Window:
    """The window under judgement; ``held`` means that it arrived under an old challenge and never opens a gate."""

    seq: int
    freshness: Literal["fresh", "held"]
    interval_ns: int


@dataclass(frozen=True, slots=True)
class BootPcr:
    """One boot PCR as quoted, SHA-256 bank, as hex."""

    index: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BootDifference:
    """One boot PCR that is not as the nearest host set accepts it, all as hex."""

    index: int
    expected: tuple[str, ...]
    got: str | None


@dataclass(frozen=True, slots=True)
class Tee:
    """What a verified hardware report says of the confidential machine; ``kind`` is ``none`` where there is no report.

    The members are those of :class:`weighbridge.verifier.tee.model.VerifiedTee`, ``measurement`` as hex,
    ``alias_check`` as a word: ``unknown`` where the report does not say.
    """

    kind: Literal["none", "sev-snp", "tdx"] = "none"
    product: str = ""
    tcb: str = ""
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()
    revocation: Literal["good", "absent", "stale"] = "absent"
    smt: bool | None = None
    alias_check: Literal["complete", "incomplete", "unknown"] = "unknown"
    vmpl: int | None = None
    measurement: str = ""


@dataclass(frozen=True, slots=True)
class Platform:
    """The TPM and the machine that it stands in.

    ``kind`` says why the AK is believed, ``anchor`` under whose key, ``detail`` what that says beyond the key.
    ``host_binding`` is proven where hardware says that the AK is the guest's own, by certificates known not to be
    revoked, and the measurement of the code that keeps the AK is a reference value: an EK certificate, a cloud's word
    or a pin is proof of a TPM, not of the guest beside the GPU.
    ``state_held_by`` says who could copy the TPM's state back. ``firmware`` is the TPM's firmware version as quoted;
    ``clock_safe`` whether its clock cannot have shown greater values before this boot. ``boot_reference`` is the
    comparison of the boot PCRs with signed host sets, ``host`` the one that matches or comes nearest.
    """

    kind: Literal["tpm-ek-credential", "tpm-ak-certificate", "tpm-vtpm-report", "tpm-pinned-ak"]
    name: str
    ak: str
    anchor: str
    boot_pcrs: tuple[BootPcr, ...]
    firmware: str | None
    secure_boot: Proof = "unproven"
    kernel_lockdown: Proof = "unproven"
    host_binding: Proof = "unproven"
    detail: str = ""
    state_held_by: Literal["tpm", "guest", "host", "unknown"] = "unknown"
    clock_safe: bool = True
    boot_reference: Literal["match", "mismatch", "absent"] = "absent"
    host: str | None = None
    differences: tuple[BootDifference, ...] = ()
    tee: Tee = dataclasses.field(default_factory=Tee)


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A file that the kernel measured when it was used: ``algorithm:hex``, and the path, which is only a hint."""

    digest: str
    path: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """The kernel's list of measured files, as far as the session demands it (``present``).

    ``unknown`` counts the files that no host set names, ``examples`` are the first of them; ``violations`` are the
    entries of which the kernel could not say what they measured.
    """

    present: bool = False
    entries: int = 0
    violations: int = 0
    unknown: int = 0
    examples: tuple[MeasuredFile, ...] = ()


@dataclass(frozen=True, slots=True)
class AttesterCode:
    """Whether it is shown which code measured and sampled. If not, loads, counts and telemetry are the host's word.

    ``missing`` names what would have to be shown, by the keys of ``docs/attester-code.md``.
    """

    status: Proof = "unproven"
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuManifest:
    """A manifest of the maker's that was compared: ``issued`` an RFC 3339 time, ``digest`` SHA-256 of the file.

    ``revocation`` is what is known of its signer, as of a device's certificates.
    """

    owner: Literal["driver", "vbios"]
    id: str
    issued: str
    digest: str
    revocation: Literal["absent", "good", "revoked", "hold", "unknown", "stale"] = "absent"


@dataclass(frozen=True, slots=True)
class GpuDifference:
    """A measurement that is none of those that the maker's manifest names; ``index`` counts from 0, values are hex.

    ``got`` is ``None`` where the report has no such measurement; ``causes`` are guesses, for people.
    """

    index: int
    owner: Literal["driver", "vbios"]
    name: str
    expected: tuple[str, ...]
    got: str | None
    causes: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """One enrolled device; ``kind`` tells GPUs and the switches between them apart.

    ``reference`` is the comparison of its measurements: with its maker's manifests (``manifests``; ``missing`` names
    those that are not at hand), with the relying party's own digests, or both (``reference_by``); where both are there
    they must agree. ``differences`` are the first of ``mismatches``; ``conflicts`` are claimed by two manifests;
    ``uncovered`` are not zero and in no manifest. ``minimum`` says whether driver and VBIOS are as new as the relying
    party demands; ``none`` where it demands nothing.

    What is signed and what the host says have different names: ``signed_*`` name the kind of confidential mode that the
    device's signed bytes do, and whether a switch says that it is locked (``None`` of a GPU); ``cc_mode_host_claim`` is
    NVML's unsigned word that one is on: it can refuse and never admit.
    """

    identity: str
    platform: str
    architecture: str | None
    driver: str | None
    vbios: str | None
    measurements_digest: str | None
    fwid: Literal["matches", "missing"]
    reference: Literal["match", "mismatch", "absent"]
    revocation: Literal["absent", "good", "revoked", "hold", "unknown", "stale"]
    cc_mode_host_claim: Literal["on", "off", "devtools"] | None
    reported_in_window: bool
    kind: Literal["gpu", "switch"] = "gpu"
    model: str = ""
    reference_by: Literal["none", "manifests", "relying-party", "both"] = "none"
    manifests: tuple[GpuManifest, ...] = ()
    missing: tuple[str, ...] = ()
    mismatches: int = 0
    differences: tuple[GpuDifference, ...] = ()
    conflicts: tuple[int, ...] = ()
    uncovered: tuple[int, ...] = ()
    revocation_detail: str = ""
    minimum: Literal["none", "met", "below", "unknown"] = "none"
    signed_protected_pcie: bool | None = None
    signed_feature: Literal["spt", "mpt", "ppcie"] | None = None
    signed_locked: bool | None = None


@dataclass(frozen=True, slots=True)
class DeclaredModel:
    """What the session declares: a manifest's digest as hex, the name written in it, and whether it must be loaded.

    The ``model`` must be; an ``adapter`` may be.
    """

    manifest: str
    name: str | None
    role: Literal["model", "adapter"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that the measurement log shows as loaded and not unloaded. ``recnum`` is its record's number.

    ``protection`` says what bound its files between measuring and loading: the kernel, a guard in the serving process
    that handed over every file with weights as measured, or nothing; ``root`` (hex) names what the kernel enforces.
    All of it is the host's word.
    """

    manifest: str
    name: str | None
    declared: bool
    recnum: int
    protection: Literal["none", "fs-verity", "dm-verity", "guarded"] = "none"
    root: str | None = None


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """One place where loaded and declared weights differ."""

    file: str
    tensor: str | None
    kind: str
    expected: str | None
    got: str | None


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """Whether the host showed in this window that it has the declared model's bytes; not that they are what runs.

    ``not_issued``: one was due by the terms, but the verifier had none left, or the window is held under an older
    challenge. ``last_passed_seq`` is the session's last window that passed one.
    """

    status: Literal["passed", "not_due", "not_issued"]
    last_passed_seq: int | None


@dataclass(frozen=True, slots=True)
class Weights:
    """Declared and loaded models.

    ``baseline`` says how the log's beginning is explained: by a cleared register, or by what the boot's own logs say
    was extended into it before.
    """

    declared: tuple[DeclaredModel, ...]
    loaded: tuple[LoadedModel, ...]
    log_length: int
    baseline: Literal["zero", "boot-log"]
    differences: tuple[WeightDifference, ...]
    spot_check: SpotCheck


@dataclass(frozen=True, slots=True)
class TelemetrySource:
    """One source of samples. ``device`` is a GPU identity as hex, or ``None`` for the host."""

    device: str | None
    source: str
    platform: str
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the physical record says. It can contradict and corroborate; it never vouches for weights."""

    verdict: Literal["no_baseline", "in_baseline", "out_of_baseline", "implausible", "unusable"]
    sources: tuple[TelemetrySource, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """The counts that the attester reports beside its workload digest."""

    requests: int
    tokens_in: int
    tokens_out: int
    batch_max: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that verification noticed and that does not refuse by itself."""

    code: str
    device: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Windows held back since the last fresh one. ``since`` is an RFC 3339 time, or ``None`` without a gap."""

    held_windows: int
    since: str | None


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """Everything that a policy sees of one window. Make the two times with :func:`instant`.

    Raises:
        ValueError: ``received_at`` and ``received_ns`` are not the same instant.
    """

    received_at: str
    received_ns: str
    session: Session
    window: Window
    platform: Platform
    attester_code: AttesterCode
    gpus: tuple[Gpu, ...]
    weights: Weights
    telemetry: Telemetry
    work: Work
    findings: tuple[Finding, ...]
    gap: Gap
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    schema: Literal["weighbridge/policy-input/v1"] = SCHEMA

    def __post_init__(self) -> None:
        moment = strict.time_decode(self.received_at, what="received_at")
        if instant(moment)[1] != self.received_ns:
            raise ValueError("received_at and received_ns differ")

    def to_json(self) -> bytes:
        """The document as deterministic JSON.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for an integer beyond 53 bits, ``NOT_UTF8`` for a lone surrogate: both
                may come out of evidence.
            TypeError: a field holds another type than declared: misuse.
        """
        return strict.json_encode(_plain(self, _shape(PolicyInput), "input"))

    @property
    def input_digest(self) -> bytes:
        """SHA-256 of :meth:`to_json`."""
        return sha256(self.to_json())


def instant(moment: datetime) -> tuple[str, str]:
    """``received_at`` and ``received_ns`` of an aware time, exact to the microsecond.

    Raises:
        ValueError: for a naive time.
    """
    return strict.time_encode(moment), str((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A declared type, taken apart once: a scalar, one of some words, a tuple of one element, or a class's members."""

    type: type
    optional: bool = False
    words: tuple[str, ...] = ()
    element: _Shape | None = None
    members: tuple[tuple[str, _Shape], ...] = ()


@cache
def _shape(hint: Hashable) -> _Shape:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (arm for arm in arguments if arm is not types.NoneType)
        return dataclasses.replace(_shape(inner), optional=True)
    if origin is Literal:
        return _Shape(str, words=arguments)
    if origin is tuple:
        return _Shape(tuple, element=_shape(arguments[0]))
    if not isinstance(hint, type):
        raise TypeError(f"{hint} has no place in a document")
    return _Shape(hint, members=_members(hint))


def _members(kind: type) -> tuple[tuple[str, _Shape], ...]:
    if not dataclasses.is_dataclass(kind):
        return ()
    return tuple((name, _shape(inner)) for name, inner in typing.get_type_hints(kind).items())


def _plain(value: object, shape: _Shape, where: str) -> strict.JsonValue:
    """``value`` as JSON, checked against its declared type: the annotations are the schema, and they are enforced."""
    if value is None and shape.optional:
        return None
    if type(value) is not shape.type:
        raise TypeError(f"{where} is {type(value).__name__}, not {shape.type.__name__}")
    if shape.words and value not in shape.words:
        raise TypeError(f"{where} is not one of {shape.words}")
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        return _number(value, where)
    if shape.element is not None:
        items = typing.cast("tuple[object, ...]", value)
        return [_plain(item, shape.element, f"{where}[{index}]") for index, item in enumerate(items)]
    return {name: _plain(getattr(value, name), inner, f"{where}.{name}") for name, inner in shape.members}


def _number(value: int, where: str) -> int:
    if abs(value) > _INT_MAX:
        raise MalformedEvidence(Code.FIELD_RANGE, f"{where} is beyond 53 bits", where=where, clause="RFC 7493 §2.2")
    return value


def _text(value: str, where: str) -> str:
    try:
        _ = value.encode()
    except UnicodeEncodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, f"{where} holds a lone surrogate", where=where) from error
    return value


Schema = None | tuple["Schema"] | dict[str, "Schema"]
"""``None`` for a scalar, a 1-tuple for a list of one shape, a dict for an object."""


def schema() -> Schema:
    """The shape of the document, for the checker: which static paths under ``input`` exist."""
    return _schema(_shape(PolicyInput))


def _schema(shape: _Shape) -> Schema:
    if shape.element is not None:
        return (_schema(shape.element),)
    if shape.members:
        return {name: _schema(inner) for name, inner in shape.members}
    return None
