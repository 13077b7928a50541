"""What the physical record of one window says of each enrolled GPU, given all that came before it in the session.

*The host says so*: no reading is signed by a sensor. The residual can contradict and corroborate; it can never vouch
for weights. Pure: the same windows, profiles and history give the same appraisal, to the last digit. How one GPU's word
comes about is :mod:`.device`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.telemetry.declared import Tolerance
from weighbridge.verifier.telemetry.device import Brought, follow, past_of
from weighbridge.verifier.telemetry.history import NOTHING, History, Trace
from weighbridge.verifier.telemetry.past import Past, digest_of
from weighbridge.verifier.telemetry.presented import Presented, presented_by, presented_to
from weighbridge.verifier.telemetry.samples.coverage import edges, pace
from weighbridge.verifier.telemetry.samples.fingerprints import fingerprints
from weighbridge.verifier.telemetry.samples.series import power_of, read_of
from weighbridge.verifier.telemetry.samples.work import DeclaredWork
from weighbridge.verifier.telemetry.state import DeviceAppraisal, DeviceState, TelemetryState, Word, worst
from weighbridge.verifier.telemetry.unreported import Between, between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.proto import strict
    from weighbridge.proto.profile import Profile
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.baselines import Baselines
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled
    from weighbridge.verifier.telemetry.declared import Difference
    from weighbridge.verifier.telemetry.samples.series import Sampled

__all__ = [
    "NOTHING",
    "Between",
    "DeviceAppraisal",
    "DeviceState",
    "History",
    "Past",
    "Presented",
    "TelemetryAppraisal",
    "TelemetryState",
    "Trace",
    "Word",
    "appraise_telemetry",
    "pasts_of",
    "presented_by",
    "presented_to",
    "traces_of",
    "wanted_of",
    "worst",
]


# How far the host's wall clock may lag, as it may run ahead (:mod:`weighbridge.verifier.window_claims`).
_BEHIND_NS: Final = 5_000_000_000
_SECOND: Final = 1_000_000_000
# Of a window, what is looked up beside what its length brings: the readings of the windows before have some.
_FINGERPRINTS_LEAST: Final = 16
# Two readings in 21 make a fingerprint, on average. Of what comes to more than three, those of the least values are
# looked up and kept, which are the same for a copy.
_READINGS_EACH: Final = 7
# Where no profile says how often is sampled, what is kept of a GPU is as much as 100 Hz bring.
_PERIOD_MIN_NS: Final = 10_000_000
_HOUR_NS: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class TelemetryAppraisal:
    """What the physical record of one window says.

    Attributes:
        verdict: of the worst of its GPUs.
        devices: each enrolled GPU, by identity; switches compute nothing and are not among them.
        state: where the record stands behind this window.
        history: what was remembered when it came.
        unreported: what GPUs used since the session before, in the first window that shows it.
        differences: between what was declared to be served in this session and the server's own counters.
    """

    verdict: Word
    devices: tuple[DeviceAppraisal, ...]
    state: TelemetryState
    history: History = NOTHING
    unreported: tuple[Between, ...] = ()
    differences: tuple[Difference, ...] = ()

    def document(self) -> strict.JsonObject:
        """The appraisal as verdicts show it: ``docs/protocol.md`` §7."""
        return {
            "devices": [device.document() for device in self.devices],
            "history": self.history.document(),
            "unreported": [item.document() for item in self.unreported],
        }


def appraise_telemetry(
    window: VerifiedWindow,
    state: TelemetryState,
    *,
    enrolled: Enrolled,
    baselines: Baselines,
    history: History,
    at: datetime,
    presented: Sequence[Presented] | None = None,
) -> TelemetryAppraisal:
    """The appraisal of ``window``. Never raises for what the evidence contains.

    Args:
        window: verified, fresh or held: a held one's samples are part of the series.
        state: behind the window before it.
        enrolled: what was proven at enrolment.
        baselines: by which it is judged.
        history: what is remembered of the GPUs, as :func:`traces_of` asks for it.
        at: the verifier's receipt time: profiles must be in force then.
        presented: what :func:`.presented_by` finds for these, if somebody has asked for it already.
    """
    header, terms = window.header, enrolled.terms
    span = header.interval
    interval = span.wall_start_ns, span.wall_end_ns
    work = DeclaredWork.of(header.work, span.wall_end_ns - span.wall_start_ns)
    served = state.served.after(window.telemetry.sources, header.work, lasts_ns=span.wall_end_ns - span.wall_start_ns)
    stale = _stale(interval, terms, None if window.held else at)
    devices: list[DeviceAppraisal] = []
    used: list[Between] = []
    states = dict(state.devices)
    if presented is None:
        presented = presented_by(window, enrolled=enrolled, baselines=baselines, at=at)
    for item in presented:
        device, profile = item.device, item.profile
        before = state.of(device)
        if profile is None:
            foreign = baselines.why_none(device, terms.model, at, driver=item.driver)
        else:
            foreign = _foreign(profile, item.report, item.source)
        past = None
        if profile is not None and history.pasts:
            past = history.past(device, digest_of(profile))
        brought = Brought(
            device=device,
            sampled=item.sampled,
            work=work,
            interval=interval,
            seq=header.seq,
            copy=history.copy(device),
            profile=profile,
            baseline=item.baseline,
            foreign=foreign,
            stale=stale,
            past=past,
        )
        states[device], said = follow(before, brought)
        devices.append(said)
        if before.carried.energy is None and (reading := history.reading(device)) is not None:
            first = _energy(item.source, first=True)
            if first is not None:
                used.append(between(reading, first, profile))
    return TelemetryAppraisal(
        worst(tuple(item.verdict for item in devices)),
        tuple(devices),
        TelemetryState(MappingProxyType(states), served),
        history,
        tuple(used),
        served.differences(Tolerance()),
    )


def traces_of(
    window: VerifiedWindow, state: TelemetryState, *, enrolled: Enrolled, presented: Sequence[Presented]
) -> tuple[Trace, ...]:
    """What of ``window`` is looked up in the verifier's memory before it is appraised, and kept there afterwards.

    ``presented`` is what it has of each GPU (:func:`.presented_by`).
    """
    seq, span = window.header.seq, window.header.interval
    interval = span.wall_start_ns, span.wall_end_ns
    lasts_ns = min(span.wall_end_ns - span.wall_start_ns, 2 * enrolled.terms.period_ns)
    traces: list[Trace] = []
    for item in presented:
        source, profile = item.source, item.profile
        if source is None:
            continue
        recent = state.of(item.device).recent
        power = tuple(chain(*(values for _, values in recent), power_of(source)))
        hourly = _hourly(max(_PERIOD_MIN_NS, source.period_ns) if profile is None else profile.period_ns)
        most = _FINGERPRINTS_LEAST + hourly * lasts_ns // _HOUR_NS
        traces.append(
            Trace(
                device=item.device,
                first_seq=recent[0][0] if recent else seq,
                fingerprints=fingerprints(np.array(power, dtype=np.int64))[:most],
                hourly=hourly if _of_use(source, item.sampled, profile, interval) else 0,
                reading=_energy(source, first=False),
            )
        )
    return tuple(traces)


def wanted_of(state: TelemetryState, presented: Sequence[Presented]) -> tuple[tuple[bytes, bytes], ...]:
    """Of which GPUs it is asked what their record had come to, and by which profile: by digest.

    Those that the window which ``presented`` them is the first of its session to judge by that profile.
    """
    wanted: list[tuple[bytes, bytes]] = []
    for item in presented:
        profile, before = item.profile, state.of(item.device).profile
        if profile is None or profile is before or profile == before:
            continue
        if not _foreign(profile, item.report, item.source):
            wanted.append((item.device, digest_of(profile)))
    return tuple(wanted)


def pasts_of(state: TelemetryState, *, session: bytes, seq: int) -> tuple[Past, ...]:
    """What the record of each GPU has come to behind window ``seq`` of ``session``: kept for the session after it."""
    found = (past_of(of, device, session=session, seq=seq) for device, of in sorted(state.devices.items()))
    return tuple(past for past in found if past is not None)


def _hourly(period_ns: int) -> int:
    """How many fingerprints samples of this period make in an hour at most."""
    return _HOUR_NS // (period_ns * _READINGS_EACH)


def _of_use(source: Source, sampled: Sampled, profile: Profile | None, interval: tuple[int, int]) -> bool:
    """Whether samples may become part of a unit that is scored: of others nothing is kept."""
    if profile is not None and (source.name, source.period_ns) != (profile.source, profile.period_ns):
        return False
    series, defects = sampled.series, sampled.defects
    if series is None:
        return False
    defects += edges(series, interval, None) + pace(series, before=0, since_ns=None, gap=False)
    return not any(defect.breaks for defect in defects)


def _energy(source: Source | None, *, first: bool) -> tuple[int, int] | None:
    """The wall clock in ns and the energy in mJ of the first reading of the counter, or of the last one."""
    channel = None if source is None else source.channels.get("energy")
    if source is None or channel is None or channel.values is None:
        return None
    places = range(len(channel.values)) if first else reversed(range(len(channel.values)))
    for place in places:
        value = channel.values[place]
        if value is not None and value >= 0:
            return source.start_wall_ns + source.offsets[place], value
    return None


def _stale(interval: tuple[int, int], terms: Terms, at: datetime | None) -> str:
    """Why samples of ``interval`` are of another time than the session's, in words; empty where they are not.

    The host sets its clock as it likes: else it could have its sensors' record of another day judged, or of the minute
    before the session, and do what it likes while the gate is open. ``at`` is when a fresh window was received, which
    is no later behind its end than the terms allow; a held one is late as it is, and none that is fresh follows it
    without a gap unless it is of its time.
    """
    start, end = interval
    if start < terms.issued_ns - _BEHIND_NS:
        return f"samples begin {(terms.issued_ns - start) / _SECOND:.1f} s before the session did, by the host's clock"
    if at is not None and end < nanoseconds(at) - terms.lateness_ns - _BEHIND_NS:
        return f"samples end {(nanoseconds(at) - end) / _SECOND:.1f} s before they came, by the host's clock"
    return ""


def _foreign(profile: Profile, report: VerifiedGpuReport, source: Source | None) -> str:
    """Why ``profile`` is of another stack than what is attested or sampled, in words; empty where it is not."""
    scope = profile.scope
    if scope.vbios is not None and scope.vbios != report.report.vbios_version:
        return f"the baseline is for VBIOS {scope.vbios}, and the GPU reports {report.report.vbios_version}"
    if scope.power_limit_mw is None:
        return ""
    limit = None if source is None else source.channels.get("power_limit")
    limits = [] if limit is None else sorted(set(read_of(limit)))
    if limits and limits != [scope.power_limit_mw]:
        got = ", ".join(f"{value / 1000:g}" for value in limits)
        return f"the baseline is for a power limit of {scope.power_limit_mw / 1000:g} W, and the GPU's is {got} W"
    return ""
