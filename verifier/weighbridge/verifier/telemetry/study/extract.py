"""A recorded session as a run that a baseline can be fitted to: each window verified again, what it proves kept.

Taken are the windows that arrived in time and that nobody denied: what the verifier refused is not what a good host
looks like. One denied or implausible window spoils the whole session. A run says nothing of whether the host was a good
one while it was recorded: whoever signs a baseline vouches for that.

From the evidence: readings, declared work, manifest, driver and firmware, which a GPU signed. From the caller: engine,
kind of work, and what the evidence does not say; where the evidence says it, the caller may not say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.proto.errors import Code, Indeterminate, PolicyDenied, WeighbridgeError, shorten
from weighbridge.proto.recording import RecordedWindow, Recording
from weighbridge.proto.scope import Scope
from weighbridge.verifier.bundle_proof import evidence_of, open_bundle, walk
from weighbridge.verifier.recorded import read_verdict
from weighbridge.verifier.replay import RecordedBaselines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle_format import Bundle
    from weighbridge.verifier.bundle_proof import Step
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.procedure import VerifiedWindow

__all__ = ["Extracted", "Said", "extract"]

_POWER_LIMIT: Final = "power_limit"
_NOT_SAID: Final = "not said"
_GENUINE: Final = "nvidia"
_T = TypeVar("_T", bytes, str, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the caller says of a session, and evidence does not.

    Attributes:
        label: for people.
        engine: the inference server and its version.
        workload: the kind of work.
        gpu_model: as the driver names it; ``None`` for the name in the GPU's certificate.
        power_limit_mw: as the driver enforces it; ``None`` where it is not known. Readings of it prevail.
    """

    label: str
    engine: str
    workload: str
    gpu_model: str | None = None
    power_limit_mw: int | None = None


@dataclass(frozen=True, slots=True)
class Extracted:
    """A run made of a session, which session, and how many of its windows were left out since they were held."""

    recording: Recording
    session: bytes
    held: int


def extract(bundle: Bundle, *, anchors: TrustAnchors, said: Said) -> Extracted:
    """The run in ``bundle``.

    Args:
        bundle: parsed, untrusted.
        anchors: whose keys are believed: ledger, verifier, EK and GPU roots.
        said: what the evidence does not say.

    Raises:
        MalformedEvidence, NotAuthentic, LedgerInconsistent: as :func:`weighbridge.verifier.bundle_proof.open_bundle`.
        PolicyDenied: ``RECORDING_DENIED``; ``BASELINE_SCOPE`` where the stack changed within the session, or ``said``
            contradicts the evidence.
        Indeterminate: ``RECORDING_EMPTY``.
    """
    opened = open_bundle(bundle, anchors)
    given = ((seq, record, evidence_of(entry)) for seq, record, entry in opened.windows)
    taken: list[tuple[Step, VerifiedWindow]] = []
    held = 0
    for step in walk(given, opened.replayed, anchors, RecordedBaselines(bundle.baselines_named)):
        window = _accepted(step)
        if window.held:
            held += 1
        else:
            taken.append((step, window))
    session = opened.enrolment.session
    if not taken:
        raise Indeterminate(
            Code.RECORDING_EMPTY,
            "no window of the session arrived in time",
            where=f"session {session.hex()}",
            hint="name a session that ran for some minutes",
        )
    genuine = all(gpu.platform == _GENUINE for step, window in taken for gpu in _gpus(step, window))
    run = Recording(
        origin="session" if genuine else "emulated",
        label=said.label,
        scope=_scope(taken, said),
        windows=tuple(_recorded(window) for _, window in taken),
    )
    return Extracted(run, session, held)


def _accepted(step: Step) -> VerifiedWindow:
    """The window of ``step``, once nothing speaks against learning from its session."""
    if isinstance(step.window, WeighbridgeError):
        raise _denied(step.seq, step.window.code) from step.window
    verdict = read_verdict(step.record.verdict)
    if verdict["outcome"] == "denied":
        denials = verdict.get("denials")
        first = denials[0] if isinstance(denials, list) and denials else None
        raise _denied(step.seq, first.get("code") if isinstance(first, dict) else None)
    if step.physical.verdict == "implausible":
        raise _denied(step.seq, Code.TELEMETRY_IMPLAUSIBLE)
    return step.window


def _denied(seq: int, code: object) -> PolicyDenied:
    return PolicyDenied(
        Code.RECORDING_DENIED,
        "a window of the session was denied: nothing is learned from it",
        where=f"window {seq}",
        got=code,
        hint="record a session of a host that you know to be good, under a policy that admits it without a baseline",
    )


def _recorded(window: VerifiedWindow) -> RecordedWindow:
    span = window.header.interval
    return RecordedWindow(
        telemetry=window.telemetry.encode(),
        work=window.header.work,
        start_ns=span.wall_start_ns,
        end_ns=span.wall_end_ns,
        window=window.digest,
    )


def _scope(taken: Iterable[tuple[Step, VerifiedWindow]], said: Said) -> Scope:
    """What was the same in all windows and GPUs."""
    models: set[bytes] = set()
    limits_mw: set[int] = set()
    texts: dict[str, set[str]] = {"GPU model": set(), "driver": set(), "VBIOS": set()}
    for step, window in taken:
        models.add(window.header.model)
        for gpu in _gpus(step, window):
            told = {
                "GPU model": gpu.chain.model,
                "driver": gpu.report.driver_version,
                "VBIOS": gpu.report.vbios_version,
            }
            for name, text in told.items():
                texts[name].update([] if text is None else [text])
        for source in window.telemetry.sources:
            limit = source.channels.get(_POWER_LIMIT)
            if source.device is not None and limit is not None:
                limits_mw.update(value for value in limit.values or () if value is not None)
    one = {name: _only(name, values) for name, values in texts.items()}
    limit_mw = _only("power limit, mW", limits_mw)
    if limit_mw is not None and said.power_limit_mw not in {None, limit_mw}:
        raise PolicyDenied(
            Code.BASELINE_SCOPE,
            "the readings have another power limit",
            where="--power-limit",
            expected=f"{limit_mw} mW",
            got=f"{said.power_limit_mw} mW",
            hint="leave it out: the readings say it",
        )
    return Scope(
        gpu_model=said.gpu_model or one["GPU model"] or _NOT_SAID,
        driver=one["driver"] or _NOT_SAID,
        vbios=one["VBIOS"],
        engine=said.engine,
        model=_only("manifest", models),
        workload=said.workload,
        power_limit_mw=limit_mw or said.power_limit_mw,
    )


def _gpus(step: Step, window: VerifiedWindow) -> list[VerifiedGpuReport]:
    """The latest reports of the GPUs, without those of switches."""
    return [report for report in window.gpus or step.position.gpus if report.kind == "gpu"]


def _only(name: str, values: set[_T]) -> _T | None:
    if len(values) > 1:
        listed = sorted(map(shorten, values))
        raise PolicyDenied(
            Code.BASELINE_SCOPE,
            f"not one and the same in the whole session: {name}",
            where="session",
            got=", ".join(listed),
            hint="a baseline is for one stack: record sessions in which it does not change",
        )
    return next(iter(values), None)
