"""``weighbridge baseline record``: a verified session as a run that a baseline can be fitted to."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence
from weighbridge.verifier import anchors as anchors_module
from weighbridge.verifier.bundle import assemble, ending
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.baseline_text import (
    EMULATED,
    device_of,
    power_limit,
    scope_document,
    scope_lines,
    watts,
)
from weighbridge.verifier.commands.bundle import read_bundle
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, no_state, read, usage, write
from weighbridge.verifier.commands.state import deployment_class, open_store
from weighbridge.verifier.commands.text import counted, plain
from weighbridge.verifier.recorded_state import chain_of
from weighbridge.verifier.telemetry.study.extract import Said, extract
from weighbridge.verifier.telemetry.study.readings import Summary, summarise

if TYPE_CHECKING:
    from weighbridge.proto import strict
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle import Bundle
    from weighbridge.verifier.telemetry.study.extract import Extracted

__all__ = ["configure"]

_COMMAND: Final = "baseline record"
_EPILOG: Final = """\
examples:
  weighbridge baseline record session.wb --anchors anchors.json --engine "vllm 0.11.0" \\
      --workload chat -o run-01.wbr
  weighbridge baseline record STATE --session HEX --engine "vllm 0.11.0" \\
      --workload chat -o run-01.wbr

Readings, declared work, manifest, driver and VBIOS come from the verified evidence, the power limit where it was read;
engine and workload are your word. A session in which a window was denied is refused: a baseline learns what a good host
looks like. Windows that came too late (held) are left out. Whether the host was a good one, nothing in it says.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``baseline record`` to ``parser``."""
    parser.description = "Verify a recorded session again, and write its windows as a run: a recording, .wbr."
    parser.epilog = _EPILOG
    parser.add_argument("source", metavar="STATE|BUNDLE", help="a verifier's directory, or a session.wb file")
    parser.add_argument(
        "--session", metavar="HEX", type=given.session, help="which one; needed for a directory, checked for a bundle"
    )
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="whose keys are believed: of TPMs and GPUs; for a bundle, of its verifier; shipped: those shipped "
        "(several times; default: shipped)",
    )
    parser.add_argument(
        "--engine", metavar="TEXT", type=_text, required=True, help="the inference server and its version"
    )
    parser.add_argument("--workload", metavar="TEXT", type=_text, required=True, help="your name for the kind of work")
    parser.add_argument(
        "--gpu-model", metavar="TEXT", type=_text, help="as its driver names it (default: as its certificate does)"
    )
    parser.add_argument(
        "--power-limit", metavar="WATTS", type=power_limit, help="as the driver enforces it, where it was not read"
    )
    parser.add_argument("--label", metavar="TEXT", type=_text, help="for people (default: the source's name)")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="RUN.wbr", help="the file to write")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome | int:
    if Path(arguments.source).is_dir() and arguments.session is None:
        return usage("a directory needs --session: `weighbridge sessions` lists them", command=_COMMAND)
    bundle, trusted = bundle_named(arguments.source, arguments.session, load_anchors(arguments.anchors))
    said = Said(
        label=arguments.label or Path(arguments.source).name[:_LABEL],
        engine=arguments.engine,
        workload=arguments.workload,
        gpu_model=arguments.gpu_model,
        power_limit_mw=arguments.power_limit,
    )
    found = extract(bundle, anchors=trusted, said=said)
    if arguments.session not in {None, found.session}:
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED,
            "the bundle is of another session",
            where="bundle",
            expected=arguments.session,
            got=found.session,
        )
    data = found.recording.encode()
    summaries = summarise(found.recording)
    write(arguments.output, data, doing="writing the recording")
    return _outcome(found, summaries, arguments.output)


_LABEL: Final = 100


def _outcome(found: Extracted, summaries: list[Summary], target: Path) -> Outcome:
    run = found.recording
    seconds = (run.windows[-1].end_ns - run.windows[0].start_ns) / 1e9
    held = f", {counted(found.held, 'held window')} left out" if found.held else ""
    lines = [
        f"wrote {target}: session {found.session.hex()}",
        f"  windows     {len(run.windows)} in {seconds:,.0f} s{held}",
        *scope_lines(run.scope),
        *([f"  BEWARE      {EMULATED}"] if run.origin == "emulated" else []),
        *(line for item in summaries for line in summary_lines(item)),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/baseline-record/v1",
        "session": found.session.hex(),
        "origin": run.origin,
        "digest": run.digest.hex(),
        "windows": len(run.windows),
        "held": found.held,
        "scope": scope_document(run.scope),
        "devices": [summary_document(item) for item in summaries],
    }
    return Outcome("\n".join(lines) + "\n", document)


def summary_lines(item: Summary) -> list[str]:
    """One GPU's readings, as a line or two."""
    power = "nothing to fit" if item.mean_mw is None else f"{watts(item.mean_mw)} on average"
    lines = [f"  {device_of(item.device)}  {counted(item.units, 'unit')} of {item.unit_ns / 1e9:g} s, {power}"]
    if item.defects:
        shown = ", ".join(f"{count} {plain(kind)}" for kind, count in item.defects.items())
        lines.append(f"    broken    {shown}: what they touch is in no unit")
    return lines


def summary_document(item: Summary) -> strict.JsonObject:
    """The same for programs."""
    return {
        "device": item.device.hex(),
        "units": item.units,
        "unit_ns": item.unit_ns,
        "mean_mw": item.mean_mw,
        "defects": dict(item.defects),
    }


def bundle_named(source: str, session: bytes | None, trusted: TrustAnchors) -> tuple[Bundle, TrustAnchors]:
    """The file, or the same made from a verifier's directory, whose own keys are then believed, too.

    Raises:
        WeighbridgeError: it cannot be read, or has no such session.
    """
    if not Path(source).is_dir():
        return read_bundle(source), trusted
    state = Path(source)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_store(state)))
        with store.reading() as tx:
            row = None if session is None else tx.session(session)
        if row is None or session is None:
            raise Indeterminate(
                Code.SESSION_UNKNOWN,
                "no such session here",
                where="--session",
                got=session,
                hint=f"`weighbridge sessions {source}` lists them",
            )
        records, reader = stack.enter_context(deployment_class().reading(state))
        windows = chain_of(store, reader, session)
        chain = (row.enrolment_index, *windows)
        ends = ending(reader, session, after=chain[-1], seq=len(windows))
        bundle = assemble(records, reader, [*chain, *ends], manifests=())
    if not (path := state / "anchors.json").is_file():
        raise no_state(state)
    own = anchors_module.load(read(path, limit=limits.JSON_MAX)).anchors
    return bundle, trusted.with_anchors(anchor for anchor in own if anchor not in trusted.anchors)


def _text(text: str) -> str:
    """A short name for people."""
    found = given.name(text)
    if len(found.encode()) > _LABEL:
        raise argparse.ArgumentTypeError(f"at most {_LABEL} bytes")
    return found
