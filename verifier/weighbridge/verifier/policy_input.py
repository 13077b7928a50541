"""Lays out what was verified as the one total document that policies see. Decides nothing.

Everything comes from verified values and reference values; what is not known is said to be unknown. The document's
types, and what each field says, are :mod:`weighbridge.policy.document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy import document
from weighbridge.proto import strict
from weighbridge.proto.errors import Code
from weighbridge.verifier.anchors import EMULATED_PLATFORM
from weighbridge.verifier.clock import moment, nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto import telemetry
    from weighbridge.proto.manifest import Manifest
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.gpu_appraisal import GpuAppraisal
    from weighbridge.verifier.host_appraisal import HostAppraisal
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled, Position, SessionState
    from weighbridge.verifier.tee.model import VerifiedTee
    from weighbridge.verifier.telemetry.appraisal import DeviceAppraisal, TelemetryAppraisal
    from weighbridge.verifier.tpm.ak import Provenance
    from weighbridge.verifier.weights import WeightsAppraisal

__all__ = ["Known", "policy_input"]

# How far the host's wall clock may lag before it is told.
_LATE_NS: Final = 5_000_000_000
# What sources call themselves that measure nothing: they make samples up, or play recorded ones again
# (weighbridge.attester.telemetry).
_EMULATED_SOURCES: Final = frozenset({"emulated", "replay"})
_SECOND_NS: Final = 1_000_000_000
# Boots whose registers are remembered.
_BOOTS_MAX: Final = 1024
_NO_TEE: Final = document.Tee()
_Kind = Literal["tpm-ek-credential", "tpm-ak-certificate", "tpm-vtpm-report", "tpm-pinned-ak"]
_KINDS: Final[Mapping[Provenance, _Kind]] = {
    "ek-credential": "tpm-ek-credential",
    "ak-certificate": "tpm-ak-certificate",
    "vtpm-report": "tpm-vtpm-report",
    "pinned": "tpm-pinned-ak",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the window: its session before it, what it is compared with, and what its samples say."""

    enrolled: Enrolled
    position: Position
    state: SessionState
    reference: Reference
    manifests: Mapping[bytes, Manifest]
    physical: TelemetryAppraisal


def policy_input(
    window: VerifiedWindow,
    known: Known,
    *,
    weighed: WeightsAppraisal,
    host: HostAppraisal,
    gpus: Sequence[GpuAppraisal],
    at: datetime,
) -> document.PolicyInput:
    """The document of ``window``, received ``at``.

    Args:
        window: verified.
        known: what was known before it.
        weighed: what is loaded, compared with what is declared.
        host: what booted and what ran, compared with host sets.
        gpus: the enrolled devices, compared with what is known of them.
        at: the verifier's receipt time.
    """
    terms, position, header = known.enrolled.terms, known.position, window.header
    received_at, received_ns = document.instant(at)
    span, work = header.interval, header.work
    return document.PolicyInput(
        received_at=received_at,
        received_ns=received_ns,
        session=document.Session(
            id=terms.session.hex(),
            tenant=terms.tenant,
            audience=terms.audience,
            state=known.state.value,
            window_period_ns=terms.period_ns,
        ),
        window=document.Window(
            seq=header.seq,
            freshness="held" if window.held else "fresh",
            interval_ns=span.wall_end_ns - span.wall_start_ns,
        ),
        platform=_platform(window, known.enrolled, host),
        attester_code=host.attester_code,
        gpus=tuple(item.gpu for item in gpus),
        weights=_weights(window, known, weighed),
        telemetry=_telemetry(window, known.enrolled, known.physical),
        work=document.Work(
            work.requests, work.tokens_in, work.tokens_out, work.batch_max, work.prefill_ns, work.decode_ns
        ),
        findings=(
            *_findings(window, position, terms.period_ns, at),
            *_served(known.physical),
            *_of_host(host),
            *_of_tee(known),
            *(finding for item in gpus for finding in item.findings),
        ),
        gap=document.Gap(
            held_windows=position.held,
            since=None if position.held_since_ns is None else strict.time_encode(moment(position.held_since_ns)),
        ),
        runtime=host.runtime,
    )


def _of_host(host: HostAppraisal) -> tuple[document.Finding, ...]:
    """Why the nearest host set does not match, in words."""
    return tuple(document.Finding(Code.BOOT_MISMATCH.value, None, reason) for reason in host.reasons)


def _of_tee(known: Known) -> tuple[document.Finding, ...]:
    """Where a measurement would go that nobody has accepted; whether it is a good one is for whoever accepts it."""
    tee = known.enrolled.ak.tee
    if tee is None or tee.measurement.hex() in known.reference.tee_measurements:
        return ()
    message = "the guest's first code is unknown; if it is known to be good, its measurement goes into tee_measurements"
    return (document.Finding(Code.UNPROVEN.value, None, f"{message}: {tee.measurement.hex()}"),)


def _platform(window: VerifiedWindow, enrolled: Enrolled, host: HostAppraisal) -> document.Platform:
    ak, terms, quote = enrolled.ak, enrolled.terms, window.quote
    return document.Platform(
        kind=_KINDS[ak.provenance],
        name=ak.platform,
        ak=terms.ak.hex(),
        anchor=ak.anchor,
        boot_pcrs=_boot_pcrs(terms.boot_pcrs, tuple(quote.pcrs[index] for index in terms.boot_pcrs)),
        firmware=f"{quote.firmware:#018x}",
        secure_boot=host.secure_boot,
        kernel_lockdown=host.kernel_lockdown,
        host_binding=host.host_binding,
        detail=ak.detail,
        state_held_by=ak.state_held_by,
        clock_safe=quote.safe,
        boot_reference=host.boot_reference,
        host=host.name,
        differences=host.differences,
        tee=_NO_TEE if ak.tee is None else _tee(ak.tee),
    )


@lru_cache(maxsize=_BOOTS_MAX)
def _boot_pcrs(indices: tuple[int, ...], values: tuple[bytes, ...]) -> tuple[document.BootPcr, ...]:
    """Registers as policies see them. Those of a boot are the same in all its windows, and of many hosts."""
    return tuple(document.BootPcr(index, value.hex()) for index, value in zip(indices, values, strict=True))


def _tee(tee: VerifiedTee) -> document.Tee:
    return document.Tee(
        kind=tee.kind,
        product=tee.product,
        tcb=tee.tcb,
        tcb_status=tee.tcb_status,
        advisories=tee.advisories,
        revocation=tee.revocation,
        smt=tee.smt,
        alias_check="unknown" if tee.alias_check is None else "complete" if tee.alias_check else "incomplete",
        vmpl=tee.vmpl,
        measurement=tee.measurement.hex(),
    )


def _weights(window: VerifiedWindow, known: Known, weighed: WeightsAppraisal) -> document.Weights:
    terms = known.enrolled.terms
    return document.Weights(
        declared=tuple(_declared(digest, terms, known.manifests) for digest in terms.declared),
        loaded=tuple(
            document.LoadedModel(
                item.manifest.hex(),
                item.name,
                item.declared,
                item.recnum,
                item.binding,
                None if item.root is None else item.root.hex(),
            )
            for item in weighed.loaded
        ),
        log_length=len(window.log.records),
        baseline="zero" if known.enrolled.log_from_reset else "boot-log",
        differences=(),
        spot_check=_spot_check(window, known.position, terms),
    )


def _telemetry(window: VerifiedWindow, enrolled: Enrolled, physical: TelemetryAppraisal) -> document.Telemetry:
    platforms = {report.identity: report.platform for report in enrolled.gpus}
    return document.Telemetry(
        verdict=physical.verdict,
        sources=tuple(
            document.TelemetrySource(
                device=None if source.device is None else source.device.hex(),
                source=source.name,
                platform=_telemetry_platform(source, platforms),
                channels=tuple(sorted(source.channels)),
            )
            for source in window.telemetry.sources
        ),
        devices=tuple(map(_device, physical.devices)),
        unreported=tuple(
            document.UnreportedWork(
                device=item.before.device.hex(),
                session=item.before.session.hex(),
                gap_s=item.found.lasts_ns // _SECOND_NS,
                energy_mj=item.found.energy_mj,
                idle_mj=item.found.idle_mj,
            )
            for item in physical.unreported
        ),
    )


def _device(said: DeviceAppraisal) -> document.TelemetryDevice:
    return document.TelemetryDevice(
        device=said.device.hex(),
        verdict=said.verdict,
        baseline=said.baseline,
        why=said.why,
        units=said.units,
        score=said.score,
        threshold=said.threshold,
        p_ppb=said.p_ppb,
        e_log10_milli=said.e_log10_milli,
        residual_mw=said.residual_mw,
        explained_mw=said.explained_mw,
        uncertainty_mw=said.uncertainty_mw,
        smallest_deviation_mw=said.smallest_deviation_mw,
        findings=tuple(
            document.TelemetryFinding(item.check, item.channel, item.verdict, item.expected, item.got)
            for item in said.findings
        ),
    )


def _declared(digest: bytes, terms: Terms, manifests: Mapping[bytes, Manifest]) -> document.DeclaredModel:
    manifest = manifests.get(digest)
    name = None if manifest is None else manifest.name
    return document.DeclaredModel(digest.hex(), name, "model" if digest == terms.model else "adapter")


def _spot_check(window: VerifiedWindow, position: Position, terms: Terms) -> document.SpotCheck:
    if not position.spot_due(terms):
        return document.SpotCheck("not_due", position.spot_seq)
    if window.spot is None or window.held:
        return document.SpotCheck("not_issued", position.spot_seq)
    return document.SpotCheck("passed", window.header.seq)


def _served(physical: TelemetryAppraisal) -> tuple[document.Finding, ...]:
    """Where the host's two accounts of what it served contradict each other."""
    return tuple(
        document.Finding(
            Code.WORKLOAD_DIFFERS.value,
            None,
            f"{item.count}: {item.declared} declared in this session, {item.counted} by the server's own counters, "
            f"which may differ by {item.allowed}",
        )
        for item in physical.differences
    )


def _findings(window: VerifiedWindow, position: Position, period_ns: int, at: datetime) -> tuple[document.Finding, ...]:
    """What verification noticed and does not refuse: time that no window covers, or one that covers too much."""
    span = window.header.interval
    found: list[document.Finding] = []
    if span.wall_end_ns - span.wall_start_ns > 2 * period_ns:
        found.append(
            document.Finding(Code.WINDOW_INTERVAL.value, None, "the window is more than twice as long as demanded")
        )
    received_ns = nanoseconds(at)
    if not window.held and received_ns - span.wall_end_ns > 2 * period_ns + _LATE_NS:
        found.append(
            document.Finding(Code.WINDOW_INTERVAL.value, None, "the interval ended long before it was received")
        )
    for source in window.telemetry.sources:
        if not source.offsets:
            device = None if source.device is None else source.device.hex()
            found.append(document.Finding(Code.TELEMETRY_TIME.value, device, "there is no sample in the window"))
    if not window.quote.safe:
        found.append(
            document.Finding(
                Code.TPM_CLOCK.value, None, "the TPM's clock is not safe yet: it lost power without a shutdown before"
            )
        )
    if position.wall_end_ns and (gap := span.wall_start_ns - position.wall_end_ns) > period_ns:
        # The host was out of room, or stood still: nothing else says so.
        found.append(
            document.Finding(Code.WINDOW_INTERVAL.value, None, f"the {gap // _SECOND_NS} s before it are uncovered")
        )
    return tuple(found)


def _telemetry_platform(source: telemetry.Source, platforms: Mapping[bytes, str]) -> str:
    """Whose samples these are: a source that measures nothing is emulated whatever device it names."""
    if source.name in _EMULATED_SOURCES:
        return EMULATED_PLATFORM
    return "host" if source.device is None else platforms[source.device]
