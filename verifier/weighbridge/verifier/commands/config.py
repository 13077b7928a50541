"""``weighbridge config check | show | keys``: the file that ``weighbridge serve --config`` takes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import counted, line
from weighbridge.verifier.settings.describe import described, keys_document, markdown, written
from weighbridge.verifier.settings.layers import gather, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import strict
    from weighbridge.proto.errors import WeighbridgeError
    from weighbridge.verifier.commands.config_check import Finding

__all__ = ["configure"]

_WIDTH: Final = 72
_EPILOG: Final = """\
examples:
  weighbridge config check weighbridge.toml       # all that is wrong with it, before serving by it
  weighbridge config show weighbridge.toml        # every value in force, and who says so
  weighbridge config keys                         # every key there is
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``config`` to ``parser``."""
    parser.description = (
        "The file that `weighbridge serve --config` takes. The environment's variables,\n"
        "WEIGHBRIDGE_<SECTION>_<KEY>, count here as they do there."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    check = verbs.add_parser("check", help="say all that is wrong with a configuration, and with what it names")
    check.description = (
        "Read the file, and look at all that it names: files, keys, certificates, ports; policies are loaded. "
        "Nothing is written, and no database or object storage is asked. Exits 0 where `serve` could begin, else with "
        "the status of what is wrong first."
    )
    check.set_defaults(run=_run_check)
    show = verbs.add_parser("show", help="print every value in force, and where it comes from")
    show.description = "Print every key with its value in force and where that comes from. Nothing named is opened."
    show.add_argument("--all", action="store_true", help="also those that nobody says, which have their defaults")
    show.set_defaults(run=_run_show)
    for verb in (check, show):
        verb.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: the environment alone")
    keys = verbs.add_parser("keys", help="print every key: type, default, environment's name, meaning")
    keys.description = "Print every key there is, as a table in Markdown: that of docs/configuration.md."
    keys.set_defaults(run=_run_keys)
    for verb in (check, show, keys):
        verb.add_argument("--json", action="store_true", help="print one JSON document")


def _run_check(arguments: argparse.Namespace) -> Outcome:
    loaded, faults = gather(arguments.file, os.environ, {})
    if loaded is None:
        return _checked([_fault(error) for error in faults])
    from weighbridge.verifier.commands.config_check import look  # noqa: PLC0415 - it loads engines

    return _checked(look(loaded.settings))


def _fault(error: WeighbridgeError) -> Finding:
    from weighbridge.verifier.commands.config_check import Finding as Found  # noqa: PLC0415 - as above

    return Found("fail", error.where.rpartition(": ")[2], str(error), error)


def _checked(findings: Sequence[Finding]) -> Outcome:
    lines: list[str] = []
    width = max((len(finding.key) for finding in findings), default=0)
    for finding in findings:
        word = finding.status.upper() if finding.status != "ok" else "ok"
        lines.append(f"{word:<4}  {finding.key:<{width}}  {line(finding.says)}\n")
        if finding.error is not None and finding.error.hint:
            lines.append(f"{'':<{width + 6}}  do: {line(finding.error.hint)}\n")
    count = {status: sum(one.status == status for one in findings) for status in ("fail", "warn", "ok")}
    lines.append(f"{count['fail']} failed, {counted(count['warn'], 'warning')}, {count['ok']} ok\n")
    first = next((one.error for one in findings if one.error is not None), None)
    checks: list[strict.JsonValue] = [
        {
            "status": one.status,
            "key": one.key,
            "says": one.says,
            "error": None if one.error is None else {**one.error.document(), "exit": one.error.exit_code.value},
        }
        for one in findings
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/config-check/v1",
        "failed": count["fail"],
        "warnings": count["warn"],
        "checks": checks,
    }
    return Outcome("".join(lines), document, ExitCode.AFFIRMED if first is None else first.exit_code)


def _run_show(arguments: argparse.Namespace) -> Outcome:
    rows = described(load(arguments.file, os.environ, {}))
    shown = [row for row in rows if arguments.all or row.origin.kind != "default"]
    width = max((len(f"{row.key} = {written(row.value)}") for row in shown), default=0)
    width = min(width, 72)
    text = "".join(
        f"{line(f'{row.key} = {written(row.value)}'):<{width}}  # {line(str(row.origin))}\n" for row in shown
    )
    listed: list[strict.JsonValue] = [
        {"key": row.key, "value": row.value, "kind": row.origin.kind, "from": str(row.origin)} for row in shown
    ]
    return Outcome(
        text or "nothing is said: all is as by default\n", {"schema": "weighbridge/config/v1", "values": listed}
    )


def _run_keys(arguments: argparse.Namespace) -> Outcome:  # noqa: ARG001 - there are none
    return Outcome(markdown(), keys_document())
