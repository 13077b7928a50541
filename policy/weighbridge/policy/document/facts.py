"""The document itself: the window under judgement, its session, and everything that was found out about it."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, Literal, Self

from weighbridge.policy.document import encoding
from weighbridge.policy.document.gpu import Gpu
from weighbridge.policy.document.host import AttesterCode, Platform, Runtime
from weighbridge.policy.document.shape import Shape, shape_of
from weighbridge.policy.document.telemetry import Telemetry
from weighbridge.policy.document.weights import Weights
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256

__all__ = [
    "SCHEMA",
    "Finding",
    "Gap",
    "PolicyInput",
    "Session",
    "Window",
    "Work",
    "instant",
    "shape",
]

SCHEMA: Final = "weighbridge/policy-input/v1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Session:
    """Whose session it is, and what its terms fix."""

    id: Annotated[str, "16 bytes as 32 hexadecimal digits"]
    tenant: Annotated[str, "whose session it is"]
    audience: Annotated[str, "for whom its results are meant"]
    state: Annotated[str, "where it stood before this window: enrolled, measured or running"]
    window_period_ns: Annotated[int, "how long a window is by the terms, nanoseconds"]


@dataclass(frozen=True, slots=True)
class Window:
    """The window under judgement."""

    seq: Annotated[int, "its number in the session, counted from 0"]
    freshness: Annotated[
        Literal["fresh", "held"], "held where it arrived under an old challenge: such a window never opens a gate"
    ]
    interval_ns: Annotated[int, "how long it is by the host's wall clock, nanoseconds"]


@dataclass(frozen=True, slots=True)
class Work:
    """The counts that the attester reports beside its workload digest."""

    requests: Annotated[int, "requests answered in the window"]
    tokens_in: Annotated[int, "tokens of these requests"]
    tokens_out: Annotated[int, "tokens of the answers"]
    batch_max: Annotated[int, "the most requests that were worked on at once"]
    prefill_ns: Annotated[int, "time spent on the prompts, summed over the requests; 0 where the server does not say"]
    decode_ns: Annotated[int, "time spent on the answers, likewise"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that verification noticed and that does not refuse by itself."""

    code: Annotated[str, "the stable code of docs/protocol.md"]
    device: Annotated[str | None, "the device's identity, 64 hexadecimal digits; null where it is about none"]
    message: Annotated[str, "what was noticed, for people"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Windows held back since the last fresh one."""

    held_windows: Annotated[int, "how many"]
    since: Annotated[str | None, "since when, an RFC 3339 time in UTC; null without a gap"]


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """Everything that a policy sees of one window.

    Make the two times with :func:`instant`.

    Raises:
        ValueError: ``received_at`` and ``received_ns`` are not the same instant.
    """

    received_at: Annotated[str, "when the verifier received the window, an RFC 3339 time in UTC; also time.now_ns()"]
    received_ns: Annotated[str, "the same in nanoseconds since 1970, as text: it is beyond 53 bits"]
    session: Annotated[Session, "whose session it is, and what its terms fix"]
    window: Annotated[Window, "the window under judgement"]
    platform: Annotated[Platform, "the TPM and the machine that it stands in"]
    attester_code: Annotated[AttesterCode, "whether it is shown which code measured and sampled"]
    gpus: Annotated[tuple[Gpu, ...], "the enrolled devices, GPUs and switches"]
    weights: Annotated[Weights, "declared and loaded models"]
    telemetry: Annotated[Telemetry, "what the physical record says; it can contradict, and never vouches for weights"]
    work: Annotated[Work, "the counts that the attester reports"]
    findings: Annotated[tuple[Finding, ...], "what verification noticed and does not refuse by itself"]
    gap: Annotated[Gap, "windows held back since the last fresh one"]
    runtime: Annotated[Runtime, "the kernel's list of measured files"] = dataclasses.field(default_factory=Runtime)
    schema: Annotated[Literal["weighbridge/policy-input/v1"], "which document this is"] = SCHEMA

    def __post_init__(self) -> None:
        if _nanoseconds(self.received_at) != self.received_ns:
            raise ValueError("received_at and received_ns differ")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a document: strict and total, so every member is there, and no other.

        Says nothing of who wrote it: for golden inputs and tools, never for a verdict.

        Raises:
            MalformedEvidence: naming the place, such as ``input.gpus[2].revocation``: ``FIELD_MISSING``,
                ``FIELD_UNKNOWN``, ``FIELD_TYPE``, ``FIELD_RANGE`` for a word that is none of those that may stand
                there, for an integer beyond 53 bits and for two times that differ, ``NOT_A_TIME``,
                ``VERSION_UNSUPPORTED`` for another schema, or as :func:`weighbridge.proto.strict.json_decode`.
        """
        value = strict.json_decode(data, what="input")
        encoding.check_schema(value, SCHEMA, "input")
        members = encoding.members(value, shape(), "input")
        received = strict.time_decode(str(members["received_at"]), what="input.received_at")
        encoding.check_equal(members["received_ns"], instant(received)[1], "input.received_ns")
        return typing.cast("Self", shape().type(**members))

    def to_json(self) -> bytes:
        """The document as deterministic JSON.

        Raises:
            MalformedEvidence: ``FIELD_RANGE`` for an integer beyond 53 bits, ``NOT_UTF8`` for a lone surrogate: both
                may come out of evidence.
            TypeError: a field holds another type than declared: misuse.
        """
        return encoding.write(self, PolicyInput, "input")

    @property
    def input_digest(self) -> bytes:
        """SHA-256 of :meth:`to_json`."""
        return sha256(self.to_json())


@lru_cache(maxsize=_TIMES_MAX)
def instant(moment: datetime) -> tuple[str, str]:
    """``received_at`` and ``received_ns`` of an aware time, exact to the microsecond.

    Raises:
        ValueError: for a naive time.
    """
    return strict.time_encode(moment), str((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


@lru_cache(maxsize=_TIMES_MAX)
def _nanoseconds(received_at: str) -> str:
    """The second spelling of ``received_at``. Windows that are judged together were received together."""
    return instant(strict.time_decode(received_at, what="received_at"))[1]


def shape() -> Shape:
    """The shape of the document: which static paths under ``input`` exist, and what stands there."""
    return shape_of(PolicyInput)
