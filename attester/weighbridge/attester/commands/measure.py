"""``weighbridge-attester measure DIR``: the manifest of a model, to be declared, or how one differs from it."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from weighbridge.attester.commands.manifest_file import read_manifest
from weighbridge.attester.commands.progress import Progress
from weighbridge.attester.durable import write_file
from weighbridge.attester.weights import compare, measure
from weighbridge.attester.weights.cache import Cache, default_path
from weighbridge.attester.weights.directory import check_ignored, resolved
from weighbridge.attester.wording import counted
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.manifest import Algorithm, Manifest
from weighbridge.proto.options import UsageFault

if TYPE_CHECKING:
    from weighbridge.proto.manifest_diff import Difference

__all__ = ["EPILOG", "configure", "run"]

SCHEMA_CHECK: Final = "weighbridge/check/v1"
EPILOG: Final = """\
What is measured is kept in a cache, so that an interrupted measurement goes on where it was, and a repeated one reads
only what is new. A cache proves nothing: --check reads everything unless a cache is named, and so does every session.

examples:
  # declare a model: the manifest names every file, and every tensor of safetensors and GGUF files
  weighbridge-attester measure models/minilm -o minilm.json

  # a clone, without the repository's own files; the manifest says what was left out
  weighbridge-attester measure models/llama --ignore .git --ignore README.md -o llama.json

  # is the directory still what was declared? which files and tensors are not?
  weighbridge-attester measure models/minilm --check minilm.json
"""

_MEGABYTE: Final = 1_000_000
_DIGEST: Final = re.compile("[0-9a-f]{64}")
# Unless a cache is named, smaller files are not kept: they are read in a tenth of a second.
_CACHED_FROM: Final = 128 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``measure`` to ``parser``."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="the model's directory; every file below it counts")
    parser.add_argument("-o", "--output", metavar="FILE", type=_file, help="write the manifest to FILE, outside DIR")
    parser.add_argument(
        "--name",
        help="the name under which the server loads the model; it is part of the digest (default: the name of DIR)",
    )
    parser.add_argument(
        "--algorithm",
        choices=get_args(Algorithm),
        help="what the content is hashed with (default: sha256; blake3 is quicker where storage is)",
    )
    parser.add_argument(
        "--ignore",
        metavar="PATH",
        action="append",
        help="leave out this file or directory of DIR, by its exact path; the manifest names it (several times)",
    )
    parser.add_argument(
        "--check",
        metavar="MANIFEST",
        type=Path,
        help="compare DIR with a manifest: print what differs by file, shard and tensor; exit 5 where anything does",
    )
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache",
        metavar="FILE",
        type=Path,
        help="keep what is measured in FILE (default: in the user's cache directory)",
    )
    cache.add_argument("--no-cache", action="store_true", help="read every file, keep nothing")
    parser.add_argument("--json", action="store_true", help="print the manifest, or the differences, as JSON")


def _file(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("name a file; --json prints the manifest on standard output")
    return Path(text)


def run(args: argparse.Namespace) -> int:
    """Measure, write the manifest where it is asked for, print the summary, the manifest or the differences.

    Raises:
        WeighbridgeError: as :func:`weighbridge.attester.weights.measure`, or ``DISK_FULL``, ``FILE_UNWRITABLE``; for
            ``--check`` ``FILE_UNREADABLE``, or as :meth:`Manifest.from_json`.
    """
    mistake = _mistake(args)
    if mistake is not None:
        raise UsageFault(mistake)
    with contextlib.ExitStack() as stack:
        cache = _cache(args)
        if cache is not None:
            stack.enter_context(cache)
        try:
            return _checked(args, cache) if args.check is not None else _measured(args, cache)
        except KeyboardInterrupt:
            if cache is not None:
                sys.stderr.write("weighbridge-attester: files that were read are kept: measure again to go on\n")
            raise


def _mistake(args: argparse.Namespace) -> str | None:
    output: Path | None = args.output
    directory = resolved(args.directory)
    for option, path in (("-o", output), ("--cache", args.cache)):
        if path is not None and resolved(path).is_relative_to(directory):
            return f"{option} FILE lies in DIR and would be part of the next measurement"
    if args.check is not None and any((args.name, args.algorithm, args.ignore, output)):
        return "--check takes name, algorithm and what is ignored from the manifest, and writes none"
    try:
        check_ignored(args.ignore or ())
    except ValueError as error:
        return f"--ignore: {error}"
    return None


def _cache(args: argparse.Namespace) -> Cache | None:
    path: Path | None = args.cache
    smallest = 0
    if path is None and not args.no_cache and args.check is None:
        path, smallest = default_path(), _CACHED_FROM
    return None if path is None else Cache(path, notice=_notice, smallest=smallest)


def _notice(text: str) -> None:
    sys.stderr.write(f"weighbridge-attester: notice: {text}\n")


def _measured(args: argparse.Namespace, cache: Cache | None) -> int:
    output: Path | None = args.output
    with Progress(sys.stderr, "measured") as progress:
        manifest = measure(
            args.directory,
            name=args.name,
            algorithm=args.algorithm or "sha256",
            ignore=args.ignore or (),
            cache=cache,
            progress=progress,
        )
    if output is not None:
        write_file(output, manifest.to_json(), mode=0o644)
    if args.json:
        sys.stdout.write(manifest.to_json().decode())
        return ExitCode.AFFIRMED
    lines = [
        f"model    {manifest.name}",
        f"digest   {manifest.digest.hex()}",
        f"content  {manifest.algorithm} over {counted(manifest.shard_count, 'range')}",
        f"files    {len(manifest.files)} ({manifest.size / _MEGABYTE:.1f} MB)",
        f"tensors  {manifest.tensor_count}",
        *(f"ignored  {_shown(path)}" for path in manifest.ignored),
    ]
    if output is not None:
        lines.append(f"manifest {output}")
    sys.stdout.write("\n".join(lines) + "\n")
    return ExitCode.AFFIRMED


def _checked(args: argparse.Namespace, cache: Cache | None) -> int:
    declared = read_manifest(args.check)
    with Progress(sys.stderr, "measured") as progress:
        differences = compare(declared, args.directory, cache=cache, progress=progress)
    if args.json:
        sys.stdout.write(_document(declared, differences))
    else:
        sys.stdout.write(f"model    {declared.name}\ndigest   {declared.digest.hex()}\n")
        sys.stdout.write(
            "".join(f"differs  {_shown(_line(difference))}\n" for difference in differences) or "as declared\n"
        )
    return ExitCode.DENIED if differences else ExitCode.AFFIRMED


def _line(difference: Difference) -> str:
    """The difference with digests by their first 16 digits; --json has them whole."""
    brief = replace(difference, expected=_brief(difference.expected), got=_brief(difference.got))
    return str(brief)


def _brief(value: str | None) -> str | None:
    return f"{value[:16]}…" if value is not None and _DIGEST.fullmatch(value) else value


def _shown(text: str) -> str:
    """Names are whoever's who made the model: they must not steer the terminal."""
    return text if text.isprintable() else ascii(text)


def _document(declared: Manifest, differences: tuple[Difference, ...]) -> str:
    document = {
        "schema": SCHEMA_CHECK,
        "model": declared.name,
        "manifest": declared.digest.hex(),
        "as_declared": not differences,
        "differences": [difference.document() for difference in differences],
    }
    return strict.json_encode(document, indent=1).decode() + "\n"
