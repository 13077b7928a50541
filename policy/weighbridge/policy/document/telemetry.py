"""What the document says of the physical record: where its samples come from, and what each GPU's shows.

It can contradict and corroborate; it never vouches for weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

__all__ = ["Telemetry", "TelemetryDevice", "TelemetryFinding", "TelemetrySource", "TelemetryVerdict", "UnreportedWork"]

TelemetryVerdict = Literal["no_baseline", "in_baseline", "out_of_baseline", "implausible", "unusable"]


@dataclass(frozen=True, slots=True)
class TelemetrySource:
    """One source of samples."""

    device: Annotated[str | None, "the GPU's identity, 64 hexadecimal digits; null for the host"]
    source: Annotated[str, "what it calls itself, such as nvml"]
    platform: Annotated[str, "whose samples these are: the device's platform, host, or insecure-emulated"]
    channels: Annotated[tuple[str, ...], "the names of what it sampled, sorted"]


@dataclass(frozen=True, slots=True)
class TelemetryFinding:
    """What one check of the record found, without any baseline: physics, or the ledger's memory."""

    check: Annotated[str, "which check, such as energy"]
    channel: Annotated[str, "the channel that it is about, such as power"]
    verdict: Annotated[Literal["implausible", "unusable"], "whether it cannot be, or says nothing"]
    expected: Annotated[str, "what was to be seen, with its unit"]
    got: Annotated[str, "what was"]


@dataclass(frozen=True, slots=True)
class TelemetryDevice:
    """What the record shows of one enrolled GPU. Numbers are ``null`` where nothing was scored.

    The residual is what was measured without what the declared work explains: the *sovereignty residual*.
    """

    device: Annotated[str, "the GPU's identity, 64 hexadecimal digits"]
    verdict: Annotated[TelemetryVerdict, "what is said of it; implausible and out_of_baseline stay for the session"]
    baseline: Annotated[str | None, "SHA-256 of the signed set that it is compared with, 64 hexadecimal digits"]
    why: Annotated[str, "why it is not in_baseline, for people; empty where it is"] = ""
    units: Annotated[int, "how many units of samples were scored in this session"] = 0
    score: Annotated[int | None, "how far the session is from the baseline, in thousandths"] = None
    threshold: Annotated[int | None, "the score above which it is out_of_baseline, in thousandths"] = None
    p_ppb: Annotated[int | None, "p-value of the last unit, in 1e-9: at most so many honest ones are so far"] = None
    e_log10_milli: Annotated[int | None, "evidence against the baseline that has gathered: thousandths of log10"] = None
    residual_mw: Annotated[int | None, "power that the declared work does not explain, milliwatts"] = None
    explained_mw: Annotated[int | None, "power that it explains, milliwatts"] = None
    uncertainty_mw: Annotated[int | None, "of that, one standard deviation, milliwatts"] = None
    smallest_deviation_mw: Annotated[
        int | None, "the smallest sustained change of power that would have been seen, milliwatts"
    ] = None
    findings: Annotated[tuple[TelemetryFinding, ...], "what the checks found that need no baseline"] = ()


@dataclass(frozen=True, slots=True)
class UnreportedWork:
    """What a GPU used between two sessions, by its energy counter: nobody attested what for. It refuses nothing."""

    device: Annotated[str, "the GPU's identity, 64 hexadecimal digits"]
    session: Annotated[str, "in which session the counter was read last, 32 hexadecimal digits"]
    gap_s: Annotated[int, "how long before this session, seconds, by the host's clock"]
    energy_mj: Annotated[int | None, "what it gained, millijoules; null where the counter began anew in between"]
    idle_mj: Annotated[int, "what an idle GPU uses in that time, millijoules"]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the physical record says. It can contradict and corroborate; it never vouches for weights."""

    verdict: Annotated[
        TelemetryVerdict,
        "the worst of the devices': implausible where the record cannot be, out_of_baseline where it is not that of "
        "this model on this GPU under this work, no_baseline where nothing says what that is, unusable where it does "
        "not suffice, else in_baseline",
    ]
    sources: Annotated[tuple[TelemetrySource, ...], "where the samples come from"]
    devices: Annotated[tuple[TelemetryDevice, ...], "what it shows of each enrolled GPU"] = ()
    unreported: Annotated[
        tuple[UnreportedWork, ...], "what GPUs used since the session before, in the first window that shows it"
    ] = ()
