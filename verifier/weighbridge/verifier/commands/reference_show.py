"""``weighbridge reference show | diff``: host sets as people read them. Decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.host_set import SignedHostSet
from weighbridge.verifier import host_set
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read, taken_for
from weighbridge.verifier.commands.text import LINES, counted, cut, plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from weighbridge.proto.host_set import AcceptedFile, HostSet

__all__ = ["configure_diff", "configure_show", "content_lines", "read_host_set"]


def read_host_set(path: str) -> tuple[bytes, SignedHostSet]:
    """The host set in the file ``path``, as bytes and parsed. Nothing of it is verified.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``.
        MalformedEvidence: as :meth:`SignedHostSet.parse`, naming the file, or ``TOO_LARGE``.
    """
    data = read(path, limit=limits.HOST_SET_MAX + 1)
    with taken_for(path, what="a host set", hint="name a file that `weighbridge reference learn` or `sign` wrote"):
        return data, SignedHostSet.parse(data)


# -- show -------------------------------------------------------------------------------------------------------------


def configure_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reference show`` to ``parser``."""
    parser.description = (
        "Print a host set. Without --anchors nothing of it is verified, and the first line says so. Paths are hints: "
        "what counts is the digest."
    )
    parser.add_argument("file", metavar="SET", help="a host set; - for standard input")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        action="append",
        default=[],
        help="verify it by these keys, purpose host-owner (several times)",
    )
    parser.add_argument("--at", metavar="TIME", type=given.time, default=None, help="whether valid then (default: now)")
    parser.add_argument("--all", action="store_true", help=f"print everything, not only the first {LINES} files")
    parser.set_defaults(run=_run_show)


def _run_show(arguments: argparse.Namespace) -> Outcome:
    data, signed = read_host_set(arguments.file)
    at: datetime = arguments.at or datetime.now(UTC)
    content = signed.claimed
    if arguments.anchors:
        values = host_set.verify(data, anchors=load_anchors(arguments.anchors)).values
        head = f"VERIFIED: signed by {plain(content.owner)}; whether the host was a good one, nothing here says"
        not_before, not_after = values.not_before, values.not_after
    else:
        head = "UNVERIFIED: no signature was checked; anybody can write these bytes (give --anchors)"
        not_before, not_after = moment(content.not_before_ns), moment(content.not_after_ns)
    word = "NOT YET VALID" if at < not_before else "EXPIRED" if at > not_after else "valid"
    lines = [
        head,
        "",
        f"  owner     {plain(content.owner)}",
        f"  class     {plain(content.name)}",
        f"  number    {content.number}",
        f"  issued    {strict.time_encode(moment(content.issued_ns))}",
        f"  validity  {strict.time_encode(not_before)} to {strict.time_encode(not_after)}: {word}",
        f"  set       sha256 {signed.digest.hex()}",
        *content_lines(content),
        *cut([f"    {_file(file)}" for file in content.files], None if arguments.all else LINES),
    ]
    document: strict.JsonObject = {
        "schema": "weighbridge/reference-show/v1",
        "verified": bool(arguments.anchors),
        "owner": content.owner,
        "name": content.name,
        "number": content.number,
        "digest": signed.digest.hex(),
        "not_before": strict.time_encode(not_before),
        "not_after": strict.time_encode(not_after),
        "valid": word == "valid",
        "note": content.note,
        "pcrs": {str(index): [value.hex() for value in values] for index, values in content.pcrs.items()},
        "firmware": None if content.firmware is None else [f"{version:016x}" for version in content.firmware],
        "files": [{"digest": file.name, "path": file.path, "attester": file.attester} for file in content.files],
    }
    return Outcome("\n".join(lines) + "\n", document)


def content_lines(content: HostSet) -> Iterator[str]:
    """What a set accepts, a line per value; of files their number only."""
    for index, values in content.pcrs.items():
        for number, value in enumerate(values):
            yield f"  {'' if number else f'PCR {index}':<8}  {value.hex()}"
    versions = "any" if content.firmware is None else ", ".join(f"{version:#x}" for version in content.firmware)
    yield f"  firmware  {versions}"
    attester = sum(file.attester for file in content.files)
    yield f"  files     {len(content.files)}, {attester} of the attester's own code"
    if content.note:
        yield f"  note      {plain(content.note)}"


def _file(file: AcceptedFile) -> str:
    return f"{file.name}  {'attester  ' if file.attester else ''}{plain(file.path)}".rstrip()


# -- diff -------------------------------------------------------------------------------------------------------------


def configure_diff(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reference diff`` to ``parser``."""
    parser.description = (
        "Compare what two host sets accept. Exit 0 when it is the same, 5 when it differs. Nothing is verified; paths, "
        "numbers and validity are not compared."
    )
    parser.add_argument("a", metavar="A", help="a host set")
    parser.add_argument("b", metavar="B", help="a host set")
    parser.add_argument("--all", action="store_true", help=f"print everything, not only the first {LINES} lines")
    parser.set_defaults(run=_run_diff)


def _run_diff(arguments: argparse.Namespace) -> Outcome:
    a, b = (read_host_set(path)[1].claimed for path in (arguments.a, arguments.b))
    left, right = dict(_accepted(a)), dict(_accepted(b))
    only_a, only_b = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
    document: strict.JsonObject = {
        "schema": "weighbridge/reference-diff/v1",
        "equal": not only_a and not only_b,
        "a": {"owner": a.owner, "name": a.name, "number": a.number},
        "b": {"owner": b.owner, "name": b.name, "number": b.number},
        "only_a": [_json(key, left[key]) for key in only_a],
        "only_b": [_json(key, right[key]) for key in only_b],
    }
    heads = [
        f"{letter}  number {content.number} of {plain(content.owner)}, {plain(content.name)}"
        for letter, content in (("A", a), ("B", b))
    ]
    if document["equal"]:
        return Outcome("\n".join(["EQUAL: both accept the same", *heads]) + "\n", document)
    lines = [
        f"DIFFERENT: {counted(len(only_a), 'value')} only in A, {counted(len(only_b), 'value')} only in B",
        *heads,
        "",
        *cut(
            [
                *(f"only in A  {' '.join(key[1:])}  {left[key]}".rstrip() for key in only_a),
                *(f"only in B  {' '.join(key[1:])}  {right[key]}".rstrip() for key in only_b),
            ],
            None if arguments.all else LINES,
        ),
    ]
    return Outcome("\n".join(lines) + "\n", document, ExitCode.DENIED)


def _accepted(content: HostSet) -> Iterable[tuple[tuple[str, str, str], str]]:
    """Every single thing that a set accepts, in the order in which to show it, and its hint."""
    for index, values in content.pcrs.items():
        for value in values:
            yield (f"0 {index:02}", f"PCR {index}", value.hex()), ""
    for version in ("any",) if content.firmware is None else [f"{version:#018x}" for version in content.firmware]:
        yield ("1", "firmware", version), ""
    for file in content.files:
        yield ("2", "attester's file" if file.attester else "file", file.name), plain(file.path)


def _json(key: tuple[str, str, str], hint: str) -> strict.JsonObject:
    return {"what": key[1], "value": key[2], "path": hint}
