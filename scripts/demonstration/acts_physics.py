"""The act about the physical record: a machine that computes more than it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stage import TEXTS, Attester, Stage, command
from telling import PATIENCE_S, Result, Waiting, expect, say, say_error, say_long, session_of, why

from weighbridge.proto.errors import Code, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HOST", "hidden_work", "record_baseline"]

HOST = "hidden-work"
_OWNER = "demonstration's owner"
_RUNS = 12
# Longer than one window of ten seconds would do: a baseline knows the work that it has seen, and no other. Idle at
# first, as the session is until the model is loaded; then less and more than the server's own, 70 to 100 tokens/s in.
_RUN_S = 200
_IDLE_S = 10
_LOAD = "40+0..240+0"
# What is computed beside the declared work, tokens a second: the emulated GPUs draw the power that it takes.
_HIDDEN = 600


async def record_baseline(stage: Stage) -> None:
    """Twelve runs of the host's GPUs in nominal time, and their owner's signature over what they have in common."""
    host = stage.hosts[HOST]
    runs = stage.out / "runs"
    runs.mkdir()
    began = time.monotonic()
    await command(
        "weighbridge-attester", "telemetry", "record", "--gpu", "emulated:2", "--gpu-vendor", host.gpus,
        "--seed", "7", "--load", _LOAD, "--emulated-runs", str(_RUNS), "--seconds", str(_RUN_S),
        "--idle", str(_IDLE_S),
        "--label", "declared work alone", "--scope-workload", "embeddings", "--scope-manifest", stage.manifest_file,
        "-o", runs / "run.wbr", check=True,
    )  # fmt: skip
    key, signer = stage.out / "baseline-owner.pem", stage.out / "baseline-owner.json"
    await command("weighbridge", "baseline", "key", _OWNER, "-o", key, "--anchors", signer, check=True)
    await command(
        "weighbridge", "baseline", "fit", *sorted(runs.iterdir()), "--owner", _OWNER, "--name", "demo",
        "--number", "1", "--days", "1", "--key", key, "--anchors", signer, "-o", stage.baseline, check=True,
    )  # fmt: skip
    say(
        f"  a baseline of {_RUNS} x {_RUN_S} s of two emulated GPUs, recorded in nominal time "
        f"({time.monotonic() - began:.0f} s), signed by {_OWNER}"
    )


async def hidden_work(stage: Stage) -> Result:
    """In the middle of a session, the GPUs begin to compute what nobody declares: the power says so."""
    host = stage.hosts[HOST]
    undeclared = host.directory / "undeclared"
    known = Waiting(_is_in_baseline, 1)
    attester = await Attester.start(
        [
            *stage.options(host), "--telemetry", f"emulated:undeclared={undeclared}", "--windows", "60",
            *stage.server("--self-drive", TEXTS, "--rate", "6"),
        ],
        known.watch,
    )  # fmt: skip
    await known.until(attester, "a unit of samples that is in the baseline")
    say("    ten seconds are sampled: the physical record is consistent with the baseline")
    # In one step: half a number is no number.
    _put(undeclared, f"{_HIDDEN}\n")
    say(f"    from here on, {_HIDDEN} tokens a second more are computed than are declared")
    status = await attester.wait(PATIENCE_S)
    refusal = next((line for line in reversed(attester.errors) if "error:" in line), "no error line")
    say_error(refusal)
    expect(status == ExitCode.DENIED, f"exit {status}, not {ExitCode.DENIED}: {refusal}")
    verdict = _denied(attester)
    (device, *_) = (one for one in verdict["physical"]["devices"] if one["verdict"] == "out_of_baseline")
    unexplained, explained, strays = (device[name] / 1000 for name in ("residual_mw", "explained_mw", "uncertainty_mw"))
    say_long(
        f"window {verdict['seq']}: GPU {device['device'][:8]}… draws {unexplained:+.1f} W beside the {explained:.1f} W "
        f"that its declared work explains (± {strays:.1f} W)"
    )
    code = Code.TELEMETRY_OUT_OF_BASELINE.value
    expect(code in refusal, f"the refusal does not name {code}: {refusal}")
    await why(stage, session_of(attester), "out_of_baseline", window=verdict["seq"])
    # The exact figure stands above: it hangs on when requests came, and the table is to be that of every run.
    return Result("refused", f"{code}: window {verdict['seq']}, power, some {round(unexplained, -2):.0f} W unexplained")


def _is_in_baseline(document: dict[str, Any]) -> bool:
    verdict: dict[str, Any] = document.get("verdict") or {}
    return verdict.get("telemetry") == "in_baseline"


def _put(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def _denied(attester: Attester) -> dict[str, Any]:
    """The verdict by which the session failed."""
    for line in reversed(attester.lines):
        if line.get("status") == "denied":
            verdict: dict[str, Any] = line["verdict"]
            return verdict
    expect(condition=False, what=f"no window was denied: {attester.lines[-2:]}")
    raise AssertionError
