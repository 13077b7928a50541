"""Where ``weighbridge`` begins: loads the command line, which takes a while, and can be interrupted meanwhile."""

from __future__ import annotations

import sys

from weighbridge.proto.errors import ExitCode

__all__ = ["main"]


def main() -> int:
    """Run the command line; the exit status."""
    try:
        from weighbridge.verifier.cli import main as run  # noqa: PLC0415 - whoever interrupts its loading is answered
    except KeyboardInterrupt:
        sys.stderr.write("weighbridge: interrupted\n")
        return ExitCode.ENVIRONMENT
    return run()
