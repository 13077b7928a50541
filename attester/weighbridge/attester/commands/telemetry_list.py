"""``weighbridge-attester telemetry list``: each source is opened for a moment, without options."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands.telemetry_common import device_name
from weighbridge.attester.telemetry.blame import BROKEN
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.attester.telemetry.registry import Choice, PlugIn, open_sources, plugins
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, WeighbridgeError
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from weighbridge.proto.telemetry import Source

__all__ = ["configure", "run"]

_SCHEMA: Final = "weighbridge/telemetry-list/v1"
# Long enough for three samples at 10 Hz.
_LOOK_NS: Final = 350_000_000
_WIDTH: Final = 100
_INDENT: Final = 12
_MISSING: Final = "the option "


@dataclass(frozen=True, slots=True)
class _Finding:
    """A source and what came of opening it."""

    plugin: PlugIn
    sources: tuple[Source, ...]
    error: WeighbridgeError | None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``telemetry list`` to ``parser``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print the sources; that one is of no use here is an answer, and no error."""
    findings = [_look(plugin) for plugin in plugins()]
    if args.json:
        document = {"schema": _SCHEMA, "sources": [_document(finding) for finding in findings]}
        sys.stdout.write(strict.json_encode(document, indent=2).decode() + "\n")
        return ExitCode.AFFIRMED
    for finding in findings:
        sys.stdout.write("\n".join(_lines(finding)) + "\n")
    if not findings:
        sys.stdout.write("no source is installed\n")
    return ExitCode.AFFIRMED


def _look(plugin: PlugIn) -> _Finding:
    try:
        source = open_sources([Choice(plugin.name)], HostFacts())
    except WeighbridgeError as error:
        return _Finding(plugin, (), error)
    try:
        start = time.time_ns()
        time.sleep(_LOOK_NS / 1e9)
        read = source.window(start_wall_ns=start, duration_ns=_LOOK_NS, work=WorkSummary.empty())
    except WeighbridgeError as error:
        return _Finding(plugin, (), error)
    finally:
        source.close()
    return _Finding(plugin, tuple(read), None)


def _lines(finding: _Finding) -> list[str]:
    plugin, error = finding.plugin, finding.error
    by = "" if plugin.distribution == "weighbridge" else f" (from {plugin.distribution or 'nowhere'})"
    if error is None:
        lines = [_said(source) for source in finding.sources] or ["can be opened, and reads nothing"]
    else:
        lines = [_refused(error.message)]
        if error.hint:
            lines.append(f"hint: {error.hint}")
    shown: list[str] = []
    for line in lines:
        shown += textwrap.wrap(line, _WIDTH - _INDENT, subsequent_indent="  ") or [""]
    shown[0] = f"{plugin.name:<{_INDENT - 1}} {shown[0]}{by}"
    return [shown[0], *(" " * _INDENT + line for line in shown[1:])]


def _refused(message: str) -> str:
    if message.startswith(BROKEN):
        return message
    return f"{'needs options' if message.startswith(_MISSING) else 'not here'}: {message}"


def _said(source: Source) -> str:
    reported = {name: channel.values for name, channel in source.channels.items() if channel.values is not None}
    read = [name for name, values in reported.items() if any(value is not None for value in values)]
    what = ", ".join(read) if read else "nothing answered yet"
    refused = sorted(source.channels.keys() - reported.keys())
    said = f"{device_name(source.device)}: {what}"
    return f"{said}; not reported: {', '.join(refused)}" if refused else said


def _document(finding: _Finding) -> strict.JsonObject:
    return {
        "name": finding.plugin.name,
        "distribution": finding.plugin.distribution,
        "code": finding.plugin.value,
        "usable": finding.error is None,
        "error": None if finding.error is None else dict(finding.error.document()),
        "devices": [
            {
                "device": None if source.device is None else source.device.hex(),
                "source": source.name,
                "channels": {
                    name: {
                        "unit": channel.unit,
                        "reported": channel.values is not None,
                        "read": any(value is not None for value in channel.values or ()),
                    }
                    for name, channel in source.channels.items()
                },
            }
            for source in finding.sources
        ],
    }
