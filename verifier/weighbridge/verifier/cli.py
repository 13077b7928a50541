"""``weighbridge``: parses arguments, calls one function, prints its outcome."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, WeighbridgeError
from weighbridge.verifier.commands import bundle, gpu, ledger, operate, token
from weighbridge.verifier.commands.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "parser"]

_EPILOG: Final = """\
exit status:
  0 affirmed   1 internal error   2 usage   3 malformed   4 not authentic   5 denied by policy
  6 indeterminate   7 ledger inconsistent   8 environment (disk, port, TPM, peer): safe to retry

examples:
  weighbridge inspect gpu report.bin
  weighbridge verify gpu report.bin --chain chain.pem --nonce HEX --at now
  weighbridge verify bundle session.wb --anchors anchors.json --policy production
"""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="weighbridge",
        description="Verify that an inference session ran on declared weights, and say what is not proven.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"weighbridge {metadata.version('weighbridge')}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="parse and print; verifies nothing, and says so first")
    inspected = inspect.add_subparsers(dest="kind", required=True, metavar="KIND")
    one = inspected.add_parser("gpu", help="an SPDM report of an NVIDIA GPU")
    gpu.configure_inspect(one)
    one.set_defaults(run=gpu.run_inspect)

    verify = commands.add_parser("verify", help="verify evidence, a proof bundle or a result token")
    verified = verify.add_subparsers(dest="kind", required=True, metavar="KIND")
    one = verified.add_parser("gpu", help="one SPDM report: chain, signature, nonce")
    gpu.configure_verify(one)
    one.set_defaults(run=gpu.run_verify)
    bundle.configure_verify(verified.add_parser("bundle", help="a recorded session: every verdict made again, offline"))
    token.configure_verify(verified.add_parser("token", help="a result token: signature, audience, expiry"))

    operate.configure(commands)
    ledger.configure(commands.add_parser("ledger", help="prove, verify and audit a ledger"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. Never 0 on failure."""
    parsed = parser().parse_args(arguments)
    as_json: bool = getattr(parsed, "json", False)
    try:
        outcome: Outcome | int = parsed.run(parsed)
    except WeighbridgeError as error:
        return _fail(error, as_json=as_json)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be told to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        return ExitCode.ENVIRONMENT
    if isinstance(outcome, int):
        return outcome
    sys.stdout.write(strict.json_encode(outcome.document, indent=2).decode() + "\n" if as_json else outcome.text)
    return outcome.status


def _fail(error: WeighbridgeError, *, as_json: bool) -> int:
    if as_json:
        document = {"schema": "weighbridge/error/v1", "exit_status": int(error.exit_code), "error": error.document()}
        sys.stdout.write(strict.json_encode(document, indent=2).decode() + "\n")
    print(f"weighbridge: error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code
