"""``weighbridge conformance driver``: this verifier, as a driver that a corpus is run through."""

from __future__ import annotations

import argparse
import sys

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.conformance.driver import drive
from weighbridge.verifier.files import standard_input

__all__ = ["configure"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``conformance driver`` to ``parser``."""
    parser.description = (
        "Read cases from standard input, one JSON document a line, judge each by this verifier in a directory of its "
        "own, and answer one line each, until the input ends. Exit status: 0 the input has ended, 3 a line was no case."
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    del arguments
    drive(iter(standard_input().readline, b""), sys.stdout.buffer)
    return ExitCode.AFFIRMED
