"""From a verified bundle to what its report shows. Nothing is verified here, and nothing that was not verified is used.

Samples are unpacked window by window and kept as columns of charts: those of a long session do not fit into memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import numpy as np

from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.denial_order import explaining_first
from weighbridge.verifier.report.scale import COLUMNS, Envelope
from weighbridge.verifier.report.view import Device, Finding, Gpu, Reason, Row, SessionView, Trace, Unit
from weighbridge.verifier.telemetry.samples.series import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weighbridge.policy.engine import Decision
    from weighbridge.proto.telemetry import Channel, Source
    from weighbridge.verifier.appraisal import Verdict
    from weighbridge.verifier.bundle_format import Bundle
    from weighbridge.verifier.bundle_verdict import BundleVerdict, BundleWindow
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.report.view import Again, Standing
    from weighbridge.verifier.telemetry.state import DeviceAppraisal, Word

    Floats = NDArray[np.float64]

__all__ = ["gather"]

_SECOND: Final = 10**9
_MILLI: Final = 1000.0
_PPM: Final = 1_000_000
# What is drawn, and how many of a channel's units make one of the chart's.
_CHANNELS: Final = {"power": _MILLI, "temperature": _MILLI, "memory_temperature": _MILLI, "sm_clock": 1.0}


def gather(
    result: BundleVerdict, bundle: Bundle, *, judged_by: Sequence[str], rests_on: str, again: Again
) -> SessionView:
    """What the report of ``result`` shows.

    Args:
        result: of ``bundle``, as it was verified.
        bundle: for what ``result`` names by digest: manifests, which their digest fits.
        judged_by: the policies, as they were asked for.
        rests_on: what rests on the verifier's word.
        again: how to verify again.
    """
    terms = result.terms
    names = {made.digest: made.name for made in map(Manifest.parse, map(Manifest.unpack_head, bundle.manifests))}
    clock = _Clock.of(result)
    decisions = [verdict.decision for verdict in result.verdicts if verdict.decision is not None]
    references = {verdict.reference for verdict in result.verdicts if verdict.reference is not None}
    return SessionView(
        standing=_standing(result),
        session=result.session.hex(),
        tenant=terms.tenant,
        audience=terms.audience,
        began=moment(clock.start_ns),
        seconds=clock.seconds,
        period=terms.period_ns / _SECOND,
        model=result.model.hex(),
        model_name=names.get(result.model, ""),
        adapters=tuple((digest.hex(), names.get(digest, "")) for digest in result.adapters),
        platform=result.ak.platform,
        provenance=result.ak.provenance,
        anchor=result.ak.anchor,
        detail=result.ak.detail,
        attester_code=_code(result),
        devices=tuple(_device(report) for report in result.gpus),
        emulated=result.emulated,
        rows=tuple(_row(window, clock) for window in result.windows),
        gpus=_gpus(result, clock),
        withheld=result.withheld,
        closed=result.closed,
        witnesses=result.cosigned,
        policies=_policies(decisions),
        judged_by=tuple(judged_by),
        references=tuple(sorted(digest.hex() for digest in references)),
        unchecked=result.unchecked,
        origin=result.origin,
        size=result.size,
        checkpoint=result.checkpoint,
        checks=result.checks,
        not_proven=result.not_proven,
        rests_on=rests_on,
        again=again,
    )


@final
@dataclass(frozen=True, slots=True)
class _Clock:
    """The session's time: from its first window's start to its last one's end."""

    start_ns: int
    end_ns: int
    period_ns: int

    @classmethod
    def of(cls, result: BundleVerdict) -> _Clock:
        """Of headers, where there are any; else of receipt times."""
        period = result.terms.period_ns
        spans = [_span(window, period) for window in result.windows]
        if not spans:
            return cls(result.terms.issued_ns, result.terms.issued_ns + period, period)
        start = min(span[0] for span in spans)
        return cls(start, max(start + 1, *(span[1] for span in spans)), period)

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.start_ns) / _SECOND

    def span(self, window: BundleWindow) -> tuple[float, float]:
        """From when to when ``window`` was, in seconds from the start."""
        start, end = _span(window, self.period_ns)
        return (start - self.start_ns) / _SECOND, (end - self.start_ns) / _SECOND

    def columns(self, times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """In which column each of ``times_ns`` is."""
        share = (times_ns - self.start_ns) / (self.end_ns - self.start_ns)
        return np.clip((share * COLUMNS).astype(np.int64), 0, COLUMNS - 1)

    def reach(self, period_ns: int) -> int:
        """How many columns two samples, one period and a half apart, may be from each other."""
        return 1 + 3 * period_ns * COLUMNS // (2 * (self.end_ns - self.start_ns))


def _span(window: BundleWindow, period_ns: int) -> tuple[int, int]:
    if window.header is not None:
        return window.header.interval.wall_start_ns, window.header.interval.wall_end_ns
    received = nanoseconds(window.received)
    return received - period_ns, received


def _standing(result: BundleVerdict) -> Standing:
    if result.admitted:
        return "admitted"
    if result.denied or result.recorded_denied:
        return "denied"
    return "withheld" if result.withheld else "indeterminate"


def _code(result: BundleVerdict) -> tuple[str, tuple[str, ...]]:
    """What is shown of the measuring code in the window that shows the least."""
    codes = [verdict.attester_code for verdict in result.verdicts]
    known = [code for code in codes if code is not None]
    if not known or len(known) < len(codes):
        return "unproven", ()
    least = max(known, key=lambda code: len(code.missing))
    return ("unproven", least.missing) if least.missing else (least.status, ())


def _policies(decisions: Sequence[Decision]) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for decision in decisions:
        came = decision.revision
        name = "" if came is None else f"number {came.number} of {came.name}, by {came.owner}"
        found[decision.policy_digest.hex(), name] = None
    return tuple(found)


def _device(report: VerifiedGpuReport) -> Device:
    said = report.report
    return Device(
        identity=report.identity.hex(),
        kind="GPU" if report.kind == "gpu" else "switch",
        chip=said.chip or "not told",
        driver=said.driver_version or "not told",
        vbios=said.vbios_version or "not told",
        platform=report.platform,
    )


def _row(window: BundleWindow, clock: _Clock) -> Row:
    start, end = clock.span(window)
    verdict = window.verdict
    physical = None if verdict is None else verdict.physical
    return Row(
        seq=window.seq,
        start=start,
        end=end,
        outcome="recorded" if verdict is None else verdict.outcome,
        reasons=_recorded(window) if verdict is None else _reasons(verdict),
        word=None if physical is None else physical.verdict,
        shown=window.samples is not None,
    )


def _recorded(window: BundleWindow) -> tuple[Reason, ...]:
    return (Reason("recorded", f"recorded as {window.recorded['outcome']}: that is the verifier's word", "", None),)


def _reasons(verdict: Verdict) -> tuple[Reason, ...]:
    return tuple(
        Reason(item.code, item.message, item.hint or "", item.device) for item in explaining_first(verdict.denials)
    )


# -- the physical record ----------------------------------------------------------------------------------------------


@final
class _Channel:
    """The samples of one channel, as they come: columns, and what is said of all of them."""

    __slots__ = ("_count", "_high", "_low", "_reach", "_sum")

    def __init__(self) -> None:
        self._low = np.full(COLUMNS, np.inf)
        self._high = np.full(COLUMNS, -np.inf)
        self._reach = 1
        self._sum = 0.0
        self._count = 0

    def add(self, columns: NDArray[np.int64], values: Floats, *, reach: int) -> None:
        """``values``, each in its column; not a number where there is none. ``reach`` as in :class:`.Trace`."""
        self._reach = max(self._reach, reach)
        there = ~np.isnan(values)
        np.minimum.at(self._low, columns[there], values[there])
        np.maximum.at(self._high, columns[there], values[there])
        self._sum += float(values[there].sum())
        self._count += len(columns[there])

    def trace(self) -> Trace | None:
        """All of it; nothing where no sample came."""
        if not self._count:
            return None
        empty = np.isinf(self._low)
        low, high = np.where(empty, np.nan, self._low), np.where(empty, np.nan, self._high)
        least, most = float(self._low.min()), float(self._high.max())
        return Trace(Envelope(low, high), self._reach, least, most, self._sum / self._count)


@final
@dataclass(slots=True)
class _Record:
    """One GPU's record, as windows come."""

    words: list[tuple[float, float, Word]] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    channels: dict[str, _Channel] = field(default_factory=lambda: {name: _Channel() for name in _CHANNELS})
    counted: int = 0
    source: str = ""
    last: DeviceAppraisal | None = None
    alarm: float | None = None
    named: str | None = None
    emulated: bool = False
    findings: tuple[Finding, ...] = ()

    def judged(self, said: DeviceAppraisal, spans: dict[int, tuple[float, float]], seq: int) -> None:
        """``said`` of the window ``seq``."""
        self.words.append((*spans[seq], said.verdict))
        self.last = said
        if said.findings:
            self.findings = tuple(Finding(item.check, item.channel, item.expected, item.got) for item in said.findings)
        if said.units <= self.counted or said.explained_mw is None or said.residual_mw is None:
            return
        self.counted = said.units
        # A unit may have begun in a window that is not here.
        first = spans.get(seq if said.first_seq is None else said.first_seq, spans[seq])
        last = spans.get(seq if said.last_seq is None else said.last_seq, spans[seq])
        self.units.append(
            Unit(
                start=max(first[0], self.units[-1].end) if self.units else first[0],
                end=last[1],
                explained=said.explained_mw / _MILLI,
                residual=said.residual_mw / _MILLI,
                reach=None if said.smallest_deviation_mw is None else said.smallest_deviation_mw / _MILLI,
                evidence=None if said.e_log10_milli is None else said.e_log10_milli / _MILLI,
            )
        )

    def sampled(self, source: Source, clock: _Clock) -> None:
        """The samples of one window."""
        self.source = source.name
        times = np.asarray(source.offsets, dtype=np.int64) + source.start_wall_ns
        columns = clock.columns(times)
        for name, one in _CHANNELS.items():
            channel = source.channels.get(name)
            if channel is not None and channel.values is not None:
                self.channels[name].add(columns, _values(channel) / one, reach=clock.reach(source.period_ns))

    def gpu(self, identity: bytes) -> Gpu:
        """All of it."""
        traces = {name: channel.trace() for name, channel in self.channels.items()}
        return Gpu(
            identity=identity.hex(),
            words=tuple(self.words),
            why="" if self.last is None else self.last.why,
            source=self.source,
            baseline=None if self.last is None else self.last.baseline,
            alarm=self.alarm,
            emulated=self.emulated,
            units=tuple(self.units),
            traces={name: trace for name, trace in traces.items() if trace is not None},
            findings=self.findings,
        )


def _values(channel: Channel) -> Floats:
    return np.asarray([math.nan if value is None else value for value in channel.values or ()], dtype=np.float64)


def _gpus(result: BundleVerdict, clock: _Clock) -> tuple[Gpu, ...]:
    records = {report.identity: _Record() for report in result.gpus if report.kind == "gpu"}
    spans = {window.seq: clock.span(window) for window in result.windows}
    for window in result.windows:
        physical = None if window.verdict is None else window.verdict.physical
        if physical is not None:
            for said in physical.devices:
                record, profile = records[said.device], physical.state.of(said.device).profile
                record.judged(said, spans, window.seq)
                if profile is not None:
                    record.alarm = math.log10(_PPM / profile.evidence_ppm)
                    record.named, record.emulated = profile.source, profile.origin == "emulated"
        telemetry = window.telemetry
        if telemetry is not None:
            for identity, record in records.items():
                source = source_of(telemetry, identity, record.named)
                if source is not None and source.offsets:
                    record.sampled(source, clock)
    return tuple(record.gpu(identity) for identity, record in sorted(records.items()))
