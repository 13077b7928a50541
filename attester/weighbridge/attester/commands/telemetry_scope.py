"""What a recording says of the stack it was made on, from the command line, and the file that is written."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands import telemetry_common as common
from weighbridge.attester.commands.manifest_file import read_manifest
from weighbridge.attester.durable import write_file
from weighbridge.attester.telemetry.power_seen import power_seen
from weighbridge.attester.wording import counted
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.recording import SUFFIX, Recording
from weighbridge.proto.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Written", "add_scope", "misuse", "read_scope", "say", "write"]

_SCHEMA: Final = "weighbridge/recording-summary/v1"
_LABEL_MAX: Final = 128
_POWER_MAX_W: Final = 10_000
_MW_PER_W: Final = 1000
_SECOND_NS: Final = 1_000_000_000
_NEEDED: Final = ("gpu_model", "driver", "engine", "workload")


@dataclass(frozen=True, slots=True)
class Written:
    """A recording, and the file it lies in."""

    path: Path
    recording: Recording


def add_scope(parser: argparse.ArgumentParser) -> None:
    """Add ``--label``, ``-o``, ``--json`` and the ``--scope-`` options."""
    parser.add_argument("--label", metavar="TEXT", type=_label, required=True, help="what this run is, for people")
    parser.add_argument(
        "-o", "--out", metavar="FILE", type=_out, required=True, help=f"the recording to write, NAME{SUFFIX}"
    )
    scope = parser.add_argument_group("scope", "what was the same in all runs that a baseline is fitted to")
    for name, text in (
        ("gpu-model", "as the driver names it"),
        ("driver", "its version"),
        ("vbios", "of the GPU"),
        ("engine", "the inference server and its version"),
        ("workload", "your name for this kind of work"),
    ):
        scope.add_argument(f"--scope-{name}", metavar="TEXT", type=_text, help=text)
    scope.add_argument(
        "--scope-power-limit", metavar="W", type=common.number(1, _POWER_MAX_W), help="enforced by the driver, watts"
    )
    scope.add_argument("--scope-manifest", metavar="FILE", type=Path, help="the manifest of the model that was served")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def misuse(args: argparse.Namespace, defaults: Mapping[str, str]) -> str | None:
    """What is wrong with the scope, where ``defaults`` stand for what is not given."""
    for name in _NEEDED:
        if getattr(args, f"scope_{name}") is None and name not in defaults:
            return f"--scope-{name.replace('_', '-')} is needed: a baseline speaks of one stack"
    return None


def read_scope(args: argparse.Namespace, defaults: Mapping[str, str], *, power_limit_w: int | None = None) -> Scope:
    """The scope that was given, with ``defaults`` for what was not.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``: the manifest.
        MalformedEvidence: it is none.
    """
    given = {name: getattr(args, f"scope_{name}") or defaults.get(name) for name in (*_NEEDED, "vbios")}
    watts = args.scope_power_limit or power_limit_w
    return Scope(
        gpu_model=given["gpu_model"] or "",
        driver=given["driver"] or "",
        vbios=given["vbios"],
        engine=given["engine"] or "",
        model=None if args.scope_manifest is None else read_manifest(args.scope_manifest).digest,
        workload=given["workload"] or "",
        power_limit_mw=None if watts is None else watts * _MW_PER_W,
    )


def write(path: Path, recording: Recording) -> Written:
    """Write the recording; nothing half-written stays.

    Raises:
        EnvironmentFault: ``DISK_FULL`` or ``FILE_UNWRITABLE``.
        MalformedEvidence: ``TOO_LARGE``: nobody could read it.
    """
    data = recording.encode()
    if len(data) > limits.RECORDING_MAX or len(recording.windows) > limits.RECORDING_WINDOWS_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "the recording is too large",
            where=str(path),
            expected=f"<= {limits.RECORDING_MAX} bytes in {limits.RECORDING_WINDOWS_MAX} windows",
            got=f"{len(data)} bytes in {len(recording.windows)}",
            hint="make several recordings: one is one run",
        )
    write_file(path, data, mode=0o644)
    return Written(path, recording)


def _lines(written: Sequence[Written]) -> list[str]:
    """What was written, for people."""
    first = written[0].recording
    shown = [
        f"label    {first.label}",
        f"origin   {first.origin}",
        f"scope    {first.scope.gpu_model}, driver {first.scope.driver}, {first.scope.engine}, {first.scope.workload}",
    ]
    for item in written:
        shown.append(f"file     {item.path}  {item.recording.digest.hex()[:16]}…")
        shown += [f"         {line}" for line in _contents(item.recording)]
    return shown


def _document(written: Sequence[Written]) -> strict.JsonObject:
    """What was written, for programs."""
    first = written[0].recording
    return {
        "schema": _SCHEMA,
        "label": first.label,
        "origin": first.origin,
        "scope": dict(first.scope.to_json()),
        "recordings": [
            {
                "file": str(item.path),
                "digest": item.recording.digest.hex(),
                "windows": len(item.recording.windows),
                "start_ns": min((window.start_ns for window in item.recording.windows), default=None),
                "end_ns": max((window.end_ns for window in item.recording.windows), default=None),
                "sources": [
                    {
                        "device": None if device is None else device.hex(),
                        "source": name,
                        "samples": tally.samples,
                        "events": dict(tally.events),
                    }
                    for (device, name), tally in _tallies(item.recording).items()
                ],
            }
            for item in written
        ],
    }


@dataclass(slots=True)
class _Tally:
    samples: int
    events: dict[str, int]
    power: tuple[float, int]


def _tallies(recording: Recording) -> dict[tuple[bytes | None, str], _Tally]:
    found: dict[tuple[bytes | None, str], _Tally] = {}
    for window in recording.windows:
        for source in window.readings().sources:
            tally = found.setdefault((source.device, source.name), _Tally(0, {}, (0.0, 0)))
            tally.samples += len(source.offsets)
            for kind, count in common.counted(source.events).items():
                tally.events[kind] = tally.events.get(kind, 0) + count
            for seen in power_seen([source]):
                # Weighted by samples: windows hold different numbers of them.
                tally.power = (
                    tally.power[0] + (seen.watts or 0.0) * len(source.offsets),
                    tally.power[1] + (len(source.offsets) if seen.watts is not None else 0),
                )
    return found


def _contents(recording: Recording) -> list[str]:
    windows = recording.windows
    seconds = sum(window.end_ns - window.start_ns for window in windows) / _SECOND_NS
    into, out = sum(window.work.tokens_in for window in windows), sum(window.work.tokens_out for window in windows)
    tokens = f"declared: {into:,} tokens in, {out:,} out" if into or out else "no work declared"
    shown = [f"{counted(len(windows), 'window')}, {seconds:.0f} s; {tokens}"]
    for (device, name), tally in _tallies(recording).items():
        events = ", ".join(f"{kind} {count}" for kind, count in tally.events.items())
        mean = f", {tally.power[0] / tally.power[1]:.1f} W" if tally.power[1] else ""
        samples = counted(tally.samples, "sample")
        shown.append(f"{name} {common.device_name(device)}: {samples}{mean}{f'; {events}' if events else ''}")
    return shown


def say(written: Sequence[Written], *, as_json: bool) -> None:
    """Print what was written."""
    if as_json:
        sys.stdout.write(strict.json_encode(_document(written), indent=2).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_lines(written)) + "\n")


def _out(text: str) -> Path:
    path = Path(text)
    if path.suffix != SUFFIX or path.stem.startswith("."):
        raise argparse.ArgumentTypeError(f"name a file that ends in {SUFFIX}, not {text!r}")
    return path


def _label(text: str) -> str:
    if not 0 < len(text.encode()) <= _LABEL_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be 1 to {_LABEL_MAX} printable bytes, not {text!r}")
    return text


def _text(text: str) -> str:
    try:
        return Scope(gpu_model=text, driver="-", engine="-", workload="-").gpu_model
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
