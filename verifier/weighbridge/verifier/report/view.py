"""What a report shows, as plain values: nothing here is computed from evidence that was not verified.

Times are seconds from the session's start by the host's clock, where evidence gave one, else by the verifier's.
Texts are whatever a bundle says; whoever puts them on a page escapes them (:mod:`.markup`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.check_tree import Check
    from weighbridge.verifier.report.scale import Envelope
    from weighbridge.verifier.telemetry.state import Word

__all__ = [
    "SHOWN",
    "Again",
    "Device",
    "Failure",
    "Finding",
    "Gpu",
    "Reason",
    "Row",
    "SessionView",
    "Shown",
    "Standing",
    "Trace",
    "Unit",
]

Standing = Literal["admitted", "denied", "withheld", "indeterminate"]
Shown = Literal["affirmed", "held", "indeterminate", "denied", "recorded"]
"""The verdict on a window; ``recorded`` where it could not be made again, as evidence before it is withheld."""
SHOWN: Final[tuple[Shown, ...]] = ("affirmed", "held", "indeterminate", "denied", "recorded")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a window was not affirmed. ``device`` is a GPU's identity, hex, or ``None``."""

    code: str
    message: str
    hint: str
    device: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One window: from ``start`` to ``end``, seconds, the verdict made again, and the word for the physical record.

    ``word`` is ``None`` where nothing was said of it: it could not be judged again, or was refused before.
    ``shown`` says whether its samples are in the bundle.
    """

    seq: int
    start: float
    end: float
    outcome: Shown
    reasons: tuple[Reason, ...]
    word: Word | None
    shown: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """One channel of one GPU over the session, in columns; ``least``, ``most`` and ``mean`` over all its samples.

    ``reach`` is how many columns apart neighbours may be: beyond it, samples are missing between them.
    """

    envelope: Envelope
    reach: int
    least: float
    most: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit of samples that was scored: what declared work explains of its power, and what is left, W.

    ``reach`` is the smallest sustained change that would have been seen by then; ``None`` for none. ``evidence`` is the
    logarithm to base ten of the evidence against the baseline behind it.
    """

    start: float
    end: float
    explained: float
    residual: float
    reach: float | None
    evidence: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of physics found, in its own words."""

    check: str
    channel: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The physical record of one GPU.

    Attributes:
        identity: hex.
        words: the word for it behind each window that says one: start, end, word.
        why: why the last of them is not ``in_baseline``.
        source: the sensor path by which it is judged; empty where none was read.
        baseline: digest of the set that has its profile, hex, or ``None``.
        alarm: the evidence at which it alarms, as a logarithm to base ten; ``None`` without a profile.
        emulated: whether its profile was fitted to an emulated GPU.
        units: those that were scored, in order.
        traces: ``power`` W, ``temperature`` °C, ``memory_temperature`` °C, ``sm_clock`` MHz: those that it reports.
        findings: of the last window that has any.
    """

    identity: str
    words: tuple[tuple[float, float, Word], ...]
    why: str
    source: str
    baseline: str | None
    alarm: float | None
    emulated: bool
    units: tuple[Unit, ...]
    traces: dict[str, Trace]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An enrolled GPU or switch, by its own signed report."""

    identity: str
    kind: str
    chip: str
    driver: str
    vbios: str
    platform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """How to verify again.

    Attributes:
        command: as it was given, with ``verify bundle`` in the place of ``report``.
        bundle: SHA-256 of the file, hex.
        size: of the file, bytes.
        version: of this program.
        records_only: whether the command judges nothing again, as there is nothing in the bundle to judge.
    """

    command: tuple[str, ...]
    bundle: str
    size: int
    version: str
    records_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A bundle that could not be verified: nothing that it says is shown. ``checks``: how far the verification came."""

    error: WeighbridgeError
    checks: tuple[Check, ...]
    again: Again


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session whose bundle was verified.

    Attributes:
        standing: the verdict.
        session: hex.
        tenant: for whom.
        audience: whose decision it is for.
        began: the start of the first window.
        seconds: to the end of the last one.
        period: of a window, seconds.
        model: digest of the declared manifest, hex.
        model_name: by which it was declared; empty where no manifest is there.
        adapters: digest and name of each.
        platform: the name of what vouches for the attestation key.
        provenance: the reason for which it is believed.
        anchor: whose word that is.
        detail: what it says beyond the key; may be empty.
        attester_code: whether it is proven which code measured, and what is missing.
        devices: GPUs and switches.
        emulated: whether any of it is emulated, so that nothing is shown of hardware.
        rows: the windows.
        gpus: their physical records, in the order of ``devices``.
        withheld: how many judgements of the session are not in the bundle.
        closed: whether a closing counts the windows.
        witnesses: the names of those that cosigned the checkpoint.
        policies: digests of those that judged, hex, each with the name of the signed bundle it came in, or nothing.
        judged_by: as it was asked for: ``recorded`` or names.
        references: digests of the reference values, hex.
        unchecked: what a policy left out, and why.
        origin: the ledger's name.
        size: entries of the ledger.
        checkpoint: the signed note that says so, verified.
        checks: the tree of all that was checked.
        not_proven: what none of it shows.
        rests_on: what rests on the verifier's word.
        again: how to verify again.
    """

    standing: Standing
    session: str
    tenant: str
    audience: str
    began: datetime
    seconds: float
    period: float
    model: str
    model_name: str
    adapters: tuple[tuple[str, str], ...]
    platform: str
    provenance: str
    anchor: str
    detail: str
    attester_code: tuple[str, tuple[str, ...]]
    devices: tuple[Device, ...]
    emulated: bool
    rows: tuple[Row, ...]
    gpus: tuple[Gpu, ...]
    withheld: int
    closed: bool
    witnesses: tuple[str, ...]
    policies: tuple[tuple[str, str], ...]
    judged_by: tuple[str, ...]
    references: tuple[str, ...]
    unchecked: tuple[tuple[str, str], ...]
    origin: str
    size: int
    checkpoint: str
    checks: tuple[Check, ...]
    not_proven: tuple[str, ...]
    rests_on: str
    again: Again

    @property
    def counts(self) -> tuple[tuple[Shown, int], ...]:
        """How many windows have each verdict, of those that any has."""
        counted = Counter(row.outcome for row in self.rows)
        return tuple(filter(itemgetter(1), ((outcome, counted[outcome]) for outcome in SHOWN)))
