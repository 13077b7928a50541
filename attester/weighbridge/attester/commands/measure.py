"""``weighbridge-attester measure DIR``: the manifest of a model, to be declared."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from weighbridge.attester.durable import write_file
from weighbridge.attester.weights import measure
from weighbridge.proto.errors import ExitCode

__all__ = ["configure", "run"]

_TTY_INTERVAL_S: Final = 0.1
_LOG_INTERVAL_S: Final = 5.0
_MEGABYTE: Final = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``measure`` to ``parser``."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="the model's directory; every file below it counts")
    parser.add_argument("-o", "--output", metavar="FILE", type=_file, help="write the manifest to FILE, outside DIR")
    parser.add_argument(
        "--name",
        help="the name under which the server loads the model; it is part of the digest (default: the name of DIR)",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest instead of a summary")


def _file(text: str) -> Path:
    if text == "-":
        raise argparse.ArgumentTypeError("name a file; --json prints the manifest on standard output")
    return Path(text)


def run(args: argparse.Namespace) -> int:
    """Measure, write the manifest where it is asked for, print the summary or the manifest.

    Raises:
        WeighbridgeError: as :func:`weighbridge.attester.weights.measure`, or ``DISK_FULL``, ``FILE_UNWRITABLE``.
    """
    directory: Path = args.directory
    output: Path | None = args.output
    if output is not None and output.resolve().is_relative_to(directory.resolve()):
        sys.stderr.write("weighbridge-attester: error: -o FILE lies in DIR and would be part of the next measurement\n")
        return ExitCode.USAGE
    progress = _Progress(sys.stderr)
    manifest = measure(directory, name=args.name, progress=progress)
    progress.finish()
    if output is not None:
        write_file(output, manifest.to_json(), mode=0o644)
    if args.json:
        sys.stdout.write(manifest.to_json().decode())
        return ExitCode.AFFIRMED
    sys.stdout.write(
        f"model    {manifest.name}\n"
        f"digest   {manifest.digest.hex()}\n"
        f"files    {len(manifest.files)} ({manifest.size / _MEGABYTE:.1f} MB)\n"
        f"tensors  {manifest.tensor_count}\n"
    )
    if output is not None:
        sys.stdout.write(f"manifest {output}\n")
    return ExitCode.AFFIRMED


class _Progress:
    """One line, rewritten, on a terminal; elsewhere a line every few seconds, none for what is quick."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tty = stream.isatty()
        self._interval = _TTY_INTERVAL_S if self._tty else _LOG_INTERVAL_S
        self._start = self._last = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < self._interval or not done:
            return
        self._last = now
        rate = done / (now - self._start)
        text = (
            f"measured {done / _MEGABYTE:.0f} of {total / _MEGABYTE:.0f} MB, {rate / _MEGABYTE:.0f} MB/s, "
            f"{(total - done) / rate:.0f} s left"
        )
        self._shown = True
        self._stream.write(f"\r\x1b[K{text}" if self._tty else f"{text}\n")
        self._stream.flush()

    def finish(self) -> None:
        if self._tty and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
