"""What a window's header and samples claim, compared with its session: steps 4 to 7 of :mod:`.procedure`.

The telemetry key signed them, so that the host says so and nobody else. Each failure is a :class:`.NotAuthentic` whose
code names what does not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto import telemetry
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.window import audience_of
from weighbridge.verifier.clock import nanoseconds

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.window import Header
    from weighbridge.verifier.session import Enrolled, Position
    from weighbridge.verifier.tpm.quote import VerifiedQuote

__all__ = [
    "check_chain",
    "check_header",
    "check_interval",
    "check_telemetry",
    "check_tpm_interval",
    "unknown_challenge",
]

# How far a host's wall clock may run ahead of the verifier's receipt time.
_SKEW_NS: Final = 5_000_000_000
# How far samples may lie outside their window: it is cut by another clock than they are taken by.
_SAMPLING_NS: Final = 1_000_000_000


def check_header(header: Header, enrolled: Enrolled) -> None:
    """Step 4."""
    terms = enrolled.terms
    expected: tuple[tuple[Code, str, object, object], ...] = (
        (Code.WINDOW_SESSION, "session", terms.session, header.session),
        (Code.WINDOW_TENANT, "tenant", terms.tenant, header.tenant),
        (Code.WINDOW_AUDIENCE, "aud", audience_of(terms.verifier), header.audience),
        (Code.WINDOW_TERMS, "terms", enrolled.signed_terms.digest, header.terms),
        (Code.WINDOW_TERMS, "model", terms.model, header.model),
        (Code.TELEMETRY_KEY_MISMATCH, "telemetry key", terms.telemetry_key, header.telemetry_key),
        (Code.WINDOW_CNF, "cnf", terms.cnf, header.cnf),
        (Code.WINDOW_PEER, "peer", terms.peer, header.peer),
        (Code.WINDOW_CNF, "kem", terms.kem, header.kem),
    )
    for code, name, wanted, got in expected:
        if wanted != got:
            raise NotAuthentic(
                code, f"{name} is not that of the session", where=f"header.{name}", expected=wanted, got=got
            )


def check_chain(header: Header, position: Position) -> None:
    """Step 5."""
    if header.seq != position.seq:
        raise NotAuthentic(
            Code.WINDOW_SEQ,
            "the window does not follow the last one",
            where="header.seq",
            expected=position.seq,
            got=header.seq,
        )
    if header.prev != position.prev:
        raise NotAuthentic(
            Code.WINDOW_PREV,
            "the window continues another chain",
            where="header.prev",
            expected=position.prev,
            got=header.prev,
        )


def check_interval(header: Header, position: Position, at: datetime) -> None:
    """Step 6. ``at`` is the verifier's receipt time."""
    span = header.interval
    if span.wall_end_ns <= span.wall_start_ns or span.tpm_end_ms < span.tpm_start_ms:
        raise NotAuthentic(Code.WINDOW_INTERVAL, "the interval ends before it starts", where="header.interval")
    if span.wall_start_ns < position.wall_end_ns:
        raise NotAuthentic(
            Code.WINDOW_INTERVAL,
            "the interval overlaps the last one",
            where="header.interval",
            expected=f">= {position.wall_end_ns}",
            got=span.wall_start_ns,
            hint="the host's clock stepped back, or one window's evidence was used for two",
        )
    latest = nanoseconds(at) + _SKEW_NS
    if span.wall_end_ns > latest:
        raise NotAuthentic(
            Code.WINDOW_INTERVAL,
            "the interval ends in the future",
            where="header.interval",
            expected=f"<= {latest}",
            got=span.wall_end_ns,
            hint="the host's clock runs ahead: check its time service",
        )


def check_tpm_interval(header: Header, position: Position, quote: VerifiedQuote) -> None:
    """Of step 11: the TPM's own clock brackets the interval: the last quote came before it, this one after it."""
    if not position.quote.clock <= header.interval.tpm_start_ms <= header.interval.tpm_end_ms <= quote.clock:
        raise NotAuthentic(
            Code.WINDOW_INTERVAL,
            "the interval lies outside the time between the two quotes",
            where="header.interval",
            expected=f"{position.quote.clock}..{quote.clock} ms",
            got=f"{header.interval.tpm_start_ms}..{header.interval.tpm_end_ms} ms",
        )


def check_telemetry(data: bytes, header: Header, enrolled: Enrolled) -> telemetry.Telemetry:
    """Step 7."""
    digest = sha256(data)
    if digest != header.telemetry:
        raise NotAuthentic(
            Code.TELEMETRY_DIGEST,
            "the telemetry is not the one that was signed",
            where="telemetry",
            expected=header.telemetry,
            got=digest,
        )
    samples = telemetry.Telemetry.parse(data)
    if (samples.session, samples.seq) != (header.session, header.seq):
        raise NotAuthentic(
            Code.TELEMETRY_SESSION,
            "the telemetry is of another session or window",
            where="telemetry",
            expected=f"{header.session.hex()}.{header.seq}",
            got=f"{samples.session.hex()}.{samples.seq}",
        )
    _check_sample_times(samples, header)
    devices = [source.device for source in samples.sources if source.device is not None]
    for device in devices:
        if device not in enrolled.terms.gpus:
            raise NotAuthentic(
                Code.TELEMETRY_DEVICE, "telemetry of a device that is not enrolled", where="telemetry", got=device
            )
    # A switch computes nothing, and nothing samples it.
    for device in (gpu.identity for gpu in enrolled.gpus if gpu.kind == "gpu"):
        if device not in devices:
            raise NotAuthentic(
                Code.TELEMETRY_DEVICE, "no telemetry of an enrolled device", where="telemetry", expected=device
            )
    return samples


def _check_sample_times(samples: telemetry.Telemetry, header: Header) -> None:
    """Samples of another time are not this window's, whoever signed them."""
    span = header.interval
    first, last = span.wall_start_ns - _SAMPLING_NS, span.wall_end_ns + _SAMPLING_NS
    for number, source in enumerate(samples.sources):
        end = source.start_wall_ns + (source.offsets[-1] if source.offsets else 0)
        if not first <= source.start_wall_ns <= end <= last:
            raise NotAuthentic(
                Code.TELEMETRY_TIME,
                "the samples are of another time than the window",
                where=f"telemetry.sources[{number}]",
                expected=f"{first}..{last}",
                got=f"{source.start_wall_ns}..{end}",
            )


def unknown_challenge(header: Header) -> NotAuthentic:
    """The error of a window that is sealed under a challenge of nobody's making."""
    return NotAuthentic(
        Code.CHALLENGE_UNKNOWN,
        "the challenge was not issued in this session for this window or one before it",
        where=f"window {header.seq}",
        got=header.challenge,
    )
