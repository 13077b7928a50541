"""Fuzz every parser and the composite appraiser.

Corpora are kept in .fuzz and gone on from. Exit: 0 nothing found, 1 an input for which a property does not hold,
2 usage, 8 no atheris (scripts/setup --peers).
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import traceback
from contextlib import ExitStack, redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

# The targets are tests, and use their worlds.
sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.campaign import Outcome

ROOT: Final = Path(__file__).resolve().parent.parent
_WEIGHT: Final = 8
"""How many times a parser's time the composite appraiser has: one input takes it a hundred times as long."""
_FOUND, _USAGE, _NO_ATHERIS = 1, 2, 8


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit status."""
    options = _options(arguments)
    if options.list or options.replay:
        from fuzz import catalogue  # noqa: PLC0415 - the whole product's weight, uncounted here

        if options.list:
            print("\n".join(catalogue.NAMES))
            return 0
        return _replay(options.replay)
    if find_spec("atheris") is None:
        print("fuzz: error: there is no atheris", file=sys.stderr)
        print("hint: scripts/setup --peers installs it", file=sys.stderr)
        return _NO_ATHERIS
    return _campaign(options)


def _campaign(options: argparse.Namespace) -> int:
    atheris: Any = import_module("atheris")
    print("fuzz: importing, counting branches, building evidence", file=sys.stderr)
    with ExitStack() as stack:
        # Whatever of our rooms is imported in here is counted, and named on standard error; nothing may come before.
        with (
            redirect_stderr(io.StringIO()),
            atheris.instrument_imports(include=["weighbridge"], enable_loader_override=False),
        ):
            from fuzz import catalogue  # noqa: PLC0415 - as said
            from fuzz.campaign import Place, Slice, run  # noqa: PLC0415 - as said
            from fuzz.specs import Workshop  # noqa: PLC0415 - as said

            names = options.target or catalogue.NAMES
            unknown = sorted(set(names) - set(catalogue.NAMES))
            targets = [] if unknown else catalogue.load(stack.enter_context(Workshop()), names)
        if unknown:
            print(f"fuzz: error: no target called {', '.join(unknown)}", file=sys.stderr)
            print("hint: scripts/fuzz --list", file=sys.stderr)
            return _USAGE
        weights = {target.name: _WEIGHT if target.name in catalogue.COMPOSITES else 1 for target in targets}
        unit = options.minutes * 60 * options.jobs / sum(weights.values())
        slices = [Slice(target, max(1, round(unit * weights[target.name]))) for target in targets]
        slices.sort(key=lambda chosen: -chosen.seconds)
        outcomes = run(slices, Place(options.folder), jobs=options.jobs, tell=_tell)
    return _summary(outcomes, as_json=options.json)


def _tell(outcome: Outcome, left: int) -> None:
    said = outcome.document()
    print(
        f"fuzz: {outcome.target}: {outcome.executions} executions, {said['executions_per_second']}/s,"
        f" {outcome.covered} branches (+{outcome.covered - outcome.covered_before}), corpus {outcome.corpus}, "
        f"{len(outcome.crashes)} failures; {left} targets left",
        file=sys.stderr,
        flush=True,
    )


def _summary(outcomes: Sequence[Outcome], *, as_json: bool) -> int:
    crashes = [path for outcome in outcomes for path in outcome.crashes]
    seconds, executions = sum(item.seconds for item in outcomes), sum(item.executions for item in outcomes)
    # One whose branches are not counted is not fuzzed: its inputs are random.
    idle = [outcome.target for outcome in outcomes if not outcome.executions or not outcome.covered]
    if as_json:
        document = {
            "schema": "weighbridge/fuzz/v1",
            "seconds": round(seconds, 1),
            "executions": executions,
            "targets": [outcome.document() for outcome in sorted(outcomes, key=lambda item: item.target)],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{len(outcomes)} targets, {executions} executions in {seconds:.0f} s of processes")
        print(f"corpus of {sum(item.corpus for item in outcomes)} inputs, {len(crashes)} failures")
        for path in crashes:
            print(f"  {path}\n    scripts/fuzz --replay {path}")
    for name in idle:
        print(f"fuzz: {name} was not run, or not counted: see its log in .fuzz/logs", file=sys.stderr)
    return _FOUND if crashes or idle else 0


def _replay(path: Path) -> int:
    from fuzz import catalogue  # noqa: PLC0415 - as above
    from fuzz.specs import Workshop  # noqa: PLC0415 - as above

    name = path.resolve().parent.name
    if name not in catalogue.NAMES or not path.is_file():
        print(f"fuzz: error: {path} is no file in a folder that is called as a target is", file=sys.stderr)
        return _USAGE
    with Workshop() as shop:
        (target,) = catalogue.load(shop, [name])
        try:
            accepted = target.accepts(path.read_bytes())
        except Exception:  # noqa: BLE001 - this is what was looked for
            traceback.print_exc()
            return _FOUND
    print(f"{name}: {'accepted' if accepted else 'refused'}; every property holds")
    return 0


def _minutes(text: str) -> float:
    found = float(text)
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError("minutes, above zero")
    return found


def _jobs(text: str) -> int:
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError("one at least")
    return found


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=10.0,
        help="of all targets together, default 10; each takes a second to start besides",
    )
    parser.add_argument("--target", action="append", metavar="NAME", help="this one alone; can be repeated")
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="targets at once, default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--list", action="store_true", help="print the names of all targets")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input again, without atheris")
    parser.add_argument("--folder", type=Path, default=ROOT / ".fuzz", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("fuzz: interrupted; what was found is in .fuzz, and the next run goes on from it", file=sys.stderr)
        sys.exit(130)  # as a shell has it
