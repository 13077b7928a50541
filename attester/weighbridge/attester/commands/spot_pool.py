"""``weighbridge-attester spot-pool DIR``: one-time challenges about a model, made by its owner for its verifiers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands.manifest_file import read_manifest
from weighbridge.attester.commands.progress import Progress
from weighbridge.attester.durable import write_file
from weighbridge.attester.spot import make_pool
from weighbridge.attester.weights.directory import resolved
from weighbridge.attester.weights.measurement import compare
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, ExitCode, MalformedEvidence, NotAuthentic
from weighbridge.proto.options import UsageFault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
Whoever has the pool can answer every challenge in it without the model: FILE is readable by its owner only; hand it to
the verifier over a confidential channel, then delete it. The verifier takes it with `weighbridge spot import` and
spends each challenge once: one in every N-th window of every session, where N is spot_every of its requirements.

An answer proves that the host has these bytes; not that they are what runs.

example:
  # a week of sessions that are asked every minute
  weighbridge-attester spot-pool models/minilm --manifest model.json --count 10080 -o pool.json
"""

_SCHEMA: Final = "weighbridge/spot-pool-made/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``spot-pool`` to ``parser``."""
    parser.add_argument(
        "directory", metavar="DIR", type=Path, help="the model's directory; all of it is measured first"
    )
    parser.add_argument("--manifest", metavar="FILE", type=Path, required=True, help="the declared manifest")
    parser.add_argument(
        "--count", metavar="N", type=_number(limits.SPOT_POOL_CHALLENGES_MAX), required=True, help="how many challenges"
    )
    parser.add_argument(
        "--ranges",
        metavar="N",
        type=_number(limits.SPOT_RANGES_MAX),
        default=16,
        help="places that each asks for (default: 16)",
    )
    parser.add_argument(
        "--range-bytes",
        metavar="N",
        type=_number(limits.SPOT_BYTES_MAX),
        default=65_536,
        help="bytes of each place (default: 65536)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=_file, required=True, help="write the pool, outside DIR")
    parser.add_argument("--json", action="store_true", help="print one JSON document; never a challenge")


def run(args: argparse.Namespace) -> int:
    """Measure the directory, make the pool, write it with mode 0600, say how many challenges it has.

    Raises:
        NotAuthentic: ``WEIGHTS_MISMATCH``: the directory does not hold the declared model.
        WeighbridgeError: as :func:`weighbridge.attester.spot.make_pool`, or a fault of the disk.
    """
    directory: Path = args.directory
    output: Path = args.output
    if args.ranges * args.range_bytes > limits.SPOT_BYTES_MAX:
        raise UsageFault(f"--ranges times --range-bytes is more than {limits.SPOT_BYTES_MAX} bytes")
    if resolved(output).is_relative_to(resolved(directory)):
        raise UsageFault("-o FILE lies in DIR and would be part of the next measurement")
    manifest = read_manifest(args.manifest)
    # A pool over other bytes would fail every honest host.
    with Progress(sys.stderr, "measured") as progress:
        differences = compare(manifest, directory, progress=progress)
    if differences:
        more = f" and {len(differences) - 1} more" if differences[1:] else ""
        raise NotAuthentic(
            Code.WEIGHTS_MISMATCH,
            f"the directory does not hold the declared model: {differences[0]}{more}",
            where=str(directory),
            hint="make the pool from the files that the manifest was made from",
        )
    with Progress(sys.stderr, "made", "challenges") as progress:
        pool = make_pool(
            manifest,
            directory,
            count=args.count,
            ranges=args.ranges,
            range_bytes=args.range_bytes,
            progress=progress,
        )
    write_file(output, pool.to_json(), mode=0o600)
    if args.json:
        document = {"schema": _SCHEMA, "manifest": pool.manifest.hex(), "challenges": len(pool.entries)}
        sys.stdout.write(strict.json_encode(document).decode() + "\n")
        return ExitCode.AFFIRMED
    sys.stdout.write(
        f"model       {pool.name}\n"
        f"digest      {pool.manifest.hex()}\n"
        f"challenges  {len(pool.entries)}\n"
        f"pool        {output} (secret: see --help)\n"
    )
    return ExitCode.AFFIRMED


def _number(high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = strict.decimal(text, what="argument", limit=high)
        except MalformedEvidence:
            value = 0
        if not value:
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {high}, not {text!r}")
        return value

    return parse


def _file(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("name a file: a pool is secret")
    return Path(text)
