"""The demonstration: acts in one terminal, on real weights, a real TPM implementation, and emulated GPUs.

Exit 0 only if every act ended as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import shlex
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from acts_honest import honest
from acts_host import another_gpu, changed_driver, cut_line, reset
from acts_physics import HOST, hidden_work, record_baseline
from acts_weights import adapter_swapped, another_model, one_bit, weights_gone
from red_team import ENVIRONMENT, RedTeam
from stage import BIN, CommandFailed, Stage
from telling import Act, ActFailed, Result, say

from weighbridge.proto.errors import ExitCode, WeighbridgeError

ACTS: Final[tuple[tuple[str, str, Act], ...]] = (
    ("honest", "an honest session", honest),
    ("one-bit", "one bit of one tensor changed", one_bit),
    ("another-model", "a fine-tuned model loaded as well", another_model),
    ("reset", "TPM reset, and its state copied back", reset),
    ("another-gpu", "one GPU exchanged", another_gpu),
    ("changed-driver", "the driver of one GPU changed", changed_driver),
    ("cut-line", "the line to the verifier cut", cut_line),
    ("adapter", "a declared adapter swapped", adapter_swapped),
    ("weights-gone", "the weights exchanged on the disk", weights_gone),
    (HOST, "more computed than is declared", hidden_work),
)
# Each act plays on a host of its name; the one about resets on two.
_HOSTS: Final = (*(name for name, _, _ in ACTS), "copied")


async def play(out: Path, chosen: list[str], *, red_team: bool) -> int:
    """Play the acts, and the red team's attacks if asked, and print the table; the exit status."""
    began = time.monotonic()
    say("setting the stage: a verifier, emulated hosts (insecure-emulated: no production policy accepts them)")
    stage = await Stage.build(out, _HOSTS)
    say(f"  model {stage.manifest.name}: {stage.manifest.size / 1e6:.0f} MB, manifest {stage.manifest.digest.hex()}")
    rows: list[tuple[str, str, Result | None, float]] = []
    try:
        await record_baseline(stage)
        attackers = await RedTeam.let_in(stage) if red_team else None
        listed = () if attackers is None else ("--relying-parties", attackers.listed)
        await stage.start_verifier(*listed, environment={} if attackers is None else ENVIRONMENT)
        for number, (name, title, act) in enumerate(ACTS, 1):
            if chosen and name not in chosen:
                continue
            say(f"\nact {number}: {title}")
            start = time.monotonic()
            result = None
            try:
                result = await act(stage)
            except (ActFailed, CommandFailed, WeighbridgeError, TimeoutError) as error:
                say(f"    NOT AS IT SHOULD: {type(error).__name__}: {error}")
            rows.append((str(number), title, result, time.monotonic() - start))
        attacked = ExitCode.AFFIRMED if attackers is None else await attacks(attackers)
    finally:
        await stage.stop()
    return table(rows, out, time.monotonic() - began) or attacked


async def attacks(attackers: RedTeam) -> int:
    """Have the red team play against the verifier that the acts were judged by, and a gate; its exit status."""
    say("\nthe red team")
    done = await attackers.play()
    for line in (done.out or done.err).splitlines():
        say(f"    {line}")
    return done.status


def table(rows: list[tuple[str, str, Result | None, float]], out: Path, seconds: float) -> int:
    """Print how each act ended."""
    say(f"\n{'act':<4}{'what happened':<40}{'outcome':<22}{'time':>7}")
    for number, title, result, took in rows:
        outcome, shown = (result.outcome, result.shown_by) if result else ("FAILED", "see above")
        say(f"{number:<4}{title:<40}{outcome:<22}{took:>6.1f}s\n      {shown}")
    good = all(result for _, _, result, _ in rows)
    say(f"\n{len(rows)} act{'' if len(rows) == 1 else 's'} in {seconds:.0f} s. Everything that was judged is in {out}:")
    if not (out / "session.wb").exists():
        # Only the honest session ends with a bundle.
        say(f"  {shlex.quote(str(BIN / 'weighbridge'))} sessions {shlex.quote(str(out / 'verifier'))}")
        return ExitCode.AFFIRMED if good else ExitCode.INTERNAL
    tool, bundle, anchors = (
        shlex.quote(str(path)) for path in (BIN / "weighbridge", out / "session.wb", out / "anchors.json")
    )
    say(f"  {tool} verify bundle \\\n      {bundle} --anchors {anchors}")
    say("That is exit 0. Without these anchors it is exit 4; with --policy production as well, exit 5.")
    return ExitCode.AFFIRMED if good else ExitCode.INTERNAL


def main() -> int:
    """Parse the arguments and play."""
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where everything is written (made anew)")
    parser.add_argument(
        "--act", action="append", default=[], choices=[name for name, _, _ in ACTS], help="only this act"
    )
    parser.add_argument("--red-team", action="store_true", help="then play `weighbridge redteam` against the verifier")
    arguments = parser.parse_args()
    out: TextIO = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # What the terminal cannot show is shown escaped.
        out.reconfigure(errors="backslashreplace")
    try:
        return asyncio.run(play(arguments.out.resolve(), arguments.act, red_team=arguments.red_team))
    except WeighbridgeError as error:
        print(f"demo: error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except CommandFailed as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return ExitCode.INTERNAL
    except OSError as error:
        print(f"demo: error: {error}\nhint: can {arguments.out} be written?", file=sys.stderr)
        return ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return ExitCode.ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main())
