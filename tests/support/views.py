"""Made-up sessions for reports: what a page shows of them is shown here, not where it came from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from support.world import NOON
from weighbridge.verifier.appraisal import NOT_PROVEN
from weighbridge.verifier.check_tree import Check
from weighbridge.verifier.report.scale import COLUMNS, Envelope
from weighbridge.verifier.report.view import Again, Device, Finding, Gpu, Reason, Row, SessionView, Trace, Unit

if TYPE_CHECKING:
    from weighbridge.verifier.report.view import Shown
    from weighbridge.verifier.telemetry.state import Word

__all__ = ["AGAIN", "HOSTILE", "gpu", "hostile", "row", "session"]

AGAIN: Final = Again(command=("weighbridge", "verify", "bundle", "a b.wb"), bundle="ab" * 32, size=12345, version="1.2")
HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style><style>*{display:none}</style>",
    "</svg></title><a href=https://example.org>",
    "\N{RIGHT-TO-LEFT OVERRIDE}dettimda\N{NULL}\N{ESCAPE}[31m",
    "javascript:alert(1) & &lt;b&gt; &#60;",
)
"""Names as their author might choose them."""
_PERIOD: Final = 10.0


def trace(middle: float, spread: float, seed: int) -> Trace:
    around = np.random.default_rng(seed).normal(middle, spread, size=(2, COLUMNS))
    low, high = around.min(axis=0), around.max(axis=0)
    return Trace(Envelope(low, high), 1, float(low.min()), float(high.max()), float(around.mean()))


def gpu(number: int, windows: int, word: Word = "in_baseline") -> Gpu:
    """One GPU that was compared in every window."""
    return Gpu(
        identity=f"{number:064x}",
        words=tuple((seq * _PERIOD, (seq + 1) * _PERIOD, word) for seq in range(windows)),
        why="" if word == "in_baseline" else "it is made up",
        source="nvml",
        baseline="cd" * 32,
        alarm=2.0,
        emulated=False,
        units=tuple(
            Unit(
                start=seq * _PERIOD,
                end=(seq + 1) * _PERIOD,
                explained=430.0,
                residual=float(seq % 7 - 3),
                reach=10.0 + 100 / (seq + 1),
                evidence=-0.001 * seq,
            )
            for seq in range(windows)
        ),
        traces={
            "power": trace(430, 6, number),
            "temperature": trace(60, 1, number),
            "memory_temperature": trace(70, 1, number),
            "sm_clock": trace(1900, 30, number),
        },
        findings=() if word == "in_baseline" else (Finding("cap", "power", "<= 700 W", "800 W"),),
    )


def row(seq: int, outcome: Shown = "affirmed", *reasons: Reason) -> Row:
    """One window of ten seconds."""
    start, end = seq * _PERIOD, (seq + 1) * _PERIOD
    word: Word | None = None if outcome == "recorded" else "in_baseline"
    return Row(seq=seq, start=start, end=end, outcome=outcome, reasons=reasons, word=word, shown=word is not None)


def session(windows: int = 6, gpus: int = 2) -> SessionView:
    """A session against which nothing speaks."""
    return SessionView(
        standing="admitted",
        session="5e" * 16,
        tenant="tenant-a",
        audience="relying-party",
        began=NOON,
        seconds=windows * _PERIOD,
        period=_PERIOD,
        model="ef" * 32,
        model_name="a-model",
        adapters=(("0a" * 32, "an-adapter"),),
        platform="tpm",
        provenance="ek-credential",
        anchor="the maker",
        detail="a detail",
        attester_code=("unproven", ("boot-log", "verity")),
        devices=tuple(
            Device(identity=f"{n:064x}", kind="GPU", chip="GH100", driver="1", vbios="2", platform="nvidia")
            for n in range(gpus)
        ),
        emulated=False,
        rows=tuple(row(seq) for seq in range(windows)),
        gpus=tuple(gpu(n, windows) for n in range(gpus)),
        withheld=0,
        closed=True,
        witnesses=("a witness",),
        policies=(("0b" * 32, "number 3 of production, by an author"),),
        judged_by=("recorded",),
        references=("0c" * 32,),
        unchecked=(("boot_reference", "no reference yet"), ("secure_boot", "no reference yet")),
        origin="ledger.example/windows",
        size=1234,
        checkpoint="ledger.example/windows\n1234\nroot\n\n\N{EM DASH} ledger.example/windows signature\n",
        checks=(
            Check("bundle", "passed", "well-formed"),
            Check(
                "windows",
                "passed",
                "6",
                "",
                (Check("chain", "passed", "6", "a residual"), Check("spot", "not checked", "0")),
            ),
        ),
        not_proven=("the attestation key's own limit", *NOT_PROVEN),
        rests_on="receipt times",
        again=AGAIN,
    )


def hostile() -> SessionView:
    """A session in which every text that a bundle says is one of :data:`HOSTILE`."""
    name = "".join(HOSTILE)
    reason = Reason(name, name, name, name)
    bad = replace(
        gpu(0, 3), identity=name, why=name, source=name, baseline=name, findings=(Finding(name, name, name, name),)
    )
    return replace(
        session(3, 1),
        standing="denied",
        session=name,
        tenant=name,
        audience=name,
        model=name,
        model_name=name,
        adapters=((name, name),),
        platform=name,
        anchor=name,
        detail=name,
        attester_code=("unproven", (name,)),
        devices=(Device(identity=name, kind=name, chip=name, driver=name, vbios=name, platform=name),),
        rows=(row(0), row(1, "held", reason), row(2, "denied", reason, reason)),
        gpus=(replace(bad, words=((0.0, 30.0, "implausible"),)),),
        withheld=2,
        witnesses=(name,),
        policies=((name, name),),
        judged_by=(name,),
        references=(name,),
        unchecked=((name, name),),
        origin=name,
        checkpoint=name,
        checks=(Check(name, "failed", name, name, (Check(name, "withheld", name, name),)),),
        not_proven=(name,),
        rests_on=name,
        again=replace(AGAIN, command=("weighbridge", name), bundle=name),
    )
