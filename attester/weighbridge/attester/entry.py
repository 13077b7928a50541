"""Where ``weighbridge-attester`` begins: says what to install where only the verifying half is installed."""

from __future__ import annotations

import sys

from weighbridge.proto.errors import ExitCode

__all__ = ["main"]


def main() -> int:
    """Run the command line; the exit status."""
    try:
        from weighbridge.attester.cli import main as run  # noqa: PLC0415 - its dependencies may not be there
    except ModuleNotFoundError as error:
        sys.stderr.write(f"weighbridge-attester: error: TOOL_MISSING: {error.name} is not installed\n")
        sys.stderr.write("hint: pip install 'weighbridge[attester]' (needs libtss2-dev and a compiler)\n")
        return ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        sys.stderr.write("weighbridge-attester: interrupted\n")
        return ExitCode.ENVIRONMENT
    return run()
