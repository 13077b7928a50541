"""``weighbridge-attester verity enable | show DIR``: what the kernel enforces beneath a model's directory."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.commands.progress import Progress
from weighbridge.attester.weights.directory import resolved, walk
from weighbridge.attester.weights.hashing import open_found
from weighbridge.attester.weights.protection import Kernel, file_verity, protection_of
from weighbridge.attester.weights.verity import enable
from weighbridge.attester.wording import counted
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.attester.weights.directory import FoundFile
    from weighbridge.attester.weights.verity import KernelVerity

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
examples:
  # once the model is complete: for good, the files cannot be written to afterwards
  weighbridge-attester verity enable models/minilm
  weighbridge-attester verity show models/minilm

The digests are those of `fsverity digest`. Enforced are a file's bytes, and not its name: who may write to the
directory can put another file there. A device with dm-verity beneath the directory has no such gap.
"""

_SCHEMA: Final = "weighbridge/verity/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verity`` to ``parser``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("enable", "have the kernel enforce every file's digest, for good"),
        ("show", "print every file's digest, and what the kernel enforces"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        action.add_argument(
            "directory", metavar="DIR", type=Path, help="the model's directory; every file below it counts"
        )
        if name == "show":
            action.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, *, kernel: Kernel | None = None) -> int:
    """Enable or show, file by file.

    Args:
        args: as :func:`configure` reads them.
        kernel: who is asked; the one that we run on by default.

    Raises:
        EnvironmentFault: ``WEIGHTS_UNREADABLE``, ``WEIGHTS_CHANGED``; of ``enable``, ``VERITY_UNSUPPORTED`` or
            ``FILE_UNWRITABLE`` for the first file for which the kernel cannot or will not; those before it stay so.
    """
    asked = kernel or Kernel()
    root = resolved(args.directory)
    found = walk(root)
    if args.action == "enable":
        return _enable(found, asked)
    return _show(root, found, asked, as_json=args.json)


def _enable(found: Sequence[FoundFile], kernel: Kernel) -> int:
    count = 0
    for file in found:
        handle = open_found(file)
        try:
            count += enable(handle, where=file.path, ioctl=kernel.ioctl)
        finally:
            os.close(handle)
    sys.stdout.write(f"fs-verity enabled on {counted(count, 'file')}, {len(found) - count} had it before\n")
    return ExitCode.AFFIRMED


def _show(root: Path, found: Sequence[FoundFile], kernel: Kernel, *, as_json: bool) -> int:
    files: list[tuple[str, KernelVerity, bytes]] = []
    done, total = 0, sum(file.size for file in found)
    with Progress(sys.stderr, "hashed") as progress:
        for file in found:
            files.append((file.path, *file_verity(file, kernel=kernel)))
            done += file.size
            progress(done, total)
    protection, value = protection_of(root, found, kernel=kernel)
    if as_json:
        document = {
            "schema": _SCHEMA,
            "files": [
                {"path": path, "digest": f"sha256:{digest.hex()}", "kernel": _state(said, digest)}
                for path, said, digest in files
            ],
            "protection": protection,
            "root": None if value is None else value.hex(),
        }
        sys.stdout.write(strict.json_encode(document).decode() + "\n")
        return ExitCode.AFFIRMED
    for path, _, digest in files:
        # Names are whoever's who made the model: they must not steer the terminal.
        sys.stdout.write(f"sha256:{digest.hex()} {path if path.isprintable() else ascii(path)}\n")
    counts = Counter(_state(said, digest) for _, said, digest in files)
    states = ", ".join(f"{state} on {count}" for state, count in sorted(counts.items()))
    named = "" if value is None else f", root {value.hex()}"
    sys.stderr.write(f"fs-verity: {states} of {counted(len(files), 'file')}\nprotection: {protection}{named}\n")
    return ExitCode.AFFIRMED


def _state(said: KernelVerity, digest: bytes) -> str:
    """What the kernel does, and whether what it enforces is what the file has."""
    return "different" if said.state == "enabled" and said.digest != digest else said.state
