"""``weighbridge policy init``: a starting policy for a scenario, with tests that pass. Never overwrites anything."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.verifier.commands.outcome import Outcome, usage
from weighbridge.verifier.commands.text import counted, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.proto import strict

__all__ = ["configure"]

_COMMAND: Final = "policy init"
_EPILOG: Final = """\
examples:
  weighbridge policy init --list
  weighbridge policy init my-policy --scenario model-gate
  weighbridge policy test my-policy
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policy init`` to ``parser``."""
    parser.description = (
        "Write a commented starting policy with tests, golden inputs and reference values to try it with. It passes "
        "`policy check` and `policy test` as it is. Nothing that exists is overwritten."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="is made where there is none")
    parser.add_argument("--scenario", metavar="NAME", help="what the policy is for")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome | ExitCode:
    from weighbridge.policy.authoring.editor import write_editor_files  # noqa: PLC0415 - reads schemas
    from weighbridge.policy.authoring.scaffold import SCENARIOS, files  # noqa: PLC0415 - makes documents

    directory: Path | None = arguments.directory
    if arguments.list:
        if directory is not None or arguments.scenario is not None:
            return usage("--list stands alone", command=_COMMAND)
        return _listed({name: scenario.title for name, scenario in SCENARIOS.items()})
    if directory is None or arguments.scenario is None:
        return usage("name a directory and a scenario: DIR --scenario NAME, or --list", command=_COMMAND)
    scenario = SCENARIOS.get(arguments.scenario)
    if scenario is None:
        return usage(f"there is no scenario {arguments.scenario!r}: {', '.join(SCENARIOS)}", command=_COMMAND)
    written = _write(directory, files(scenario))
    beside = [str(path.relative_to(directory)) for path in write_editor_files(directory)]
    lines = [f"{scenario.title}\n", f"wrote to {directory}:"]
    lines += [f"  {name}" for name in written]
    lines += [f"and {counted(len(beside), 'file')} for editors, OPA and Regal in .weighbridge and .regal"]
    lines += ["", "next:", f"  weighbridge policy check {directory}", f"  weighbridge policy test {directory}"]
    document: strict.JsonObject = {
        "schema": "weighbridge/policy-init/v1",
        "scenario": scenario.name,
        "directory": str(directory),
        "files": [*written, *beside],
    }
    return Outcome("\n".join(lines) + "\n", document)


def _listed(titles: Mapping[str, str]) -> Outcome:
    rows = [(name, title) for name, title in titles.items()]
    text = "\n".join(table(("scenario", "for"), rows, right=0)) + "\n"
    listed: list[strict.JsonValue] = [{"name": name, "title": title} for name, title in rows]
    return Outcome(text, {"schema": "weighbridge/policy-scenarios/v1", "scenarios": listed})


def _write(directory: Path, contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write all files, or none where one of them is there already; their names, in order.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``. What was written before a fault of the disk stays.
    """
    names = tuple(sorted(contents))
    for name in names:
        if (directory / name).exists() or (directory / name).is_symlink():
            raise EnvironmentFault(
                Code.FILE_UNWRITABLE,
                "it exists already, and is not overwritten",
                where=str(directory / name),
                hint="name another directory",
            )
    for name in names:
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Exclusive: also where another process makes it just now.
            with path.open("xb") as file:
                _ = file.write(contents[name])
        except OSError as error:
            raise EnvironmentFault(
                Code.FILE_UNWRITABLE, f"cannot write it: {(error.strerror or '').lower()}", where=str(path)
            ) from error
    return names
