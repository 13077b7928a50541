"""``weighbridge-attester``: the command line of the GPU host. Parses, calls one function, prints.

Standard output is the result; standard error is for people. Errors are ``weighbridge-attester: error: …`` and, where
there is something to do, ``hint: …``; the exit status is that of :class:`weighbridge.proto.errors.ExitCode`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from weighbridge.attester.commands import (
    doctor,
    gpu_arguments,
    init,
    log,
    measure,
    model,
    run,
    spool,
    spot_pool,
    telemetry,
    tpm_arguments,
    verity,
)
from weighbridge.attester.durable import write_fault
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, WeighbridgeError
from weighbridge.proto.options import Once, UsageFault, asks_json, error_document, fault_document

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

PROGRAM: Final = "weighbridge-attester"

_DESCRIPTION: Final = """\
Measures a model's weights into the TPM, records the physics of its work, binds both to the GPU's own attestation, and
sends them to a verifier, window by window. Decides nothing.
"""

_EPILOG: Final = """\
examples:
  # once per host: make the keys; then, at the verifier, `weighbridge admit STATE channel.csr -o channel.pem`
  weighbridge-attester init --state /var/lib/weighbridge

  # declare a model
  weighbridge-attester measure models/minilm -o minilm.json

  # serve it, attested
  weighbridge-attester run --verifier verifier.example:8443 --verifier-ca ca.pem --verifier-key anchors.json \\
      --manifest minilm.json --state /var/lib/weighbridge --tenant acme --audience gate.example \\
      --tcti device:/dev/tpmrm0 --gpu emulated:1 -- python server.py

exit status:
  0 in good order   1 internal error   2 usage            3 malformed data     4 not authentic
  5 denied          6 indeterminate    7 ledger mismatch  8 this machine: TPM, disk, port, verifier out of reach
"""


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong, and how to get help; no abbreviations, nothing given twice."""

    def __init__(
        self,
        *,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        formatter_class: type[argparse.HelpFormatter] = argparse.HelpFormatter,
        allow_abbrev: bool = False,
    ) -> None:
        # An abbreviation that is unambiguous today names another option tomorrow.
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=formatter_class,
            allow_abbrev=allow_abbrev,
        )
        for action in (None, "store"):
            self.register("action", action, Once)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong.

        Raises:
            UsageFault: always.
        """
        raise UsageFault(message, hint=f"`{self.prog} --help` shows the arguments")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status.

    Args:
        arguments: without the program's name; those of this process by default.
    """
    try:
        if not _has_output():
            return ExitCode.ENVIRONMENT
        status = _answer(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except (KeyboardInterrupt, asyncio.CancelledError):
        # While the grammar is built, or twice: the first time ends a session in good order.
        sys.stderr.write(f"{PROGRAM}: interrupted\n")
        return ExitCode.ENVIRONMENT
    except BrokenPipeError:
        # Whoever read our output has gone.
        _abandon_output()
        sys.stderr.write(f"{PROGRAM}: output closed\n")
        return ExitCode.ENVIRONMENT
    except OSError as error:
        # Every other failure of files has been given its code where it happened: what is left is our own output.
        _abandon_output()
        _print_error(write_fault(Path("standard output"), error), as_json=False, debug=False)
        return ExitCode.ENVIRONMENT
    return status


def _answer(arguments: list[str]) -> int:
    """Run the command, or say what is wrong with its arguments: to people, and to programs that ask for it."""
    try:
        return _run(arguments)
    except UsageFault as error:
        if asks_json(arguments):
            _print_document(error.document())
        _print_text(error.message, error.hint)
        return ExitCode.USAGE


def _run(arguments: list[str]) -> int:
    try:
        args = _parse(arguments)
    except SystemExit as stop:
        # Help or the version was printed.
        return stop.code if isinstance(stop.code, int) else ExitCode.USAGE
    as_json = bool(getattr(args, "json", False))
    try:
        return int(args.call(args))  # lenient: an ExitCode
    except (UsageFault, OSError):
        raise
    except WeighbridgeError as error:
        _print_error(error, as_json=as_json, debug=args.debug)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the one place: an answer and status 1, never a traceback unasked
        message = f"internal error: {type(error).__name__}: {error}"
        if as_json:
            _print_document(fault_document(message, ExitCode.INTERNAL))
        sys.stderr.write(f"{PROGRAM}: {message}\n")
        if args.debug:
            traceback.print_exc()
        else:
            sys.stderr.write("hint: run again with --debug before the verb, and report what it prints\n")
        return ExitCode.INTERNAL


def _has_output() -> bool:
    """Whether there is a standard output. Where standard error is closed, nobody wants to read it."""
    # Python's types do not know it, but a process may be started without: `weighbridge-attester … >&- 2>&-`.
    out: TextIO | None = sys.stdout
    err: TextIO | None = sys.stderr
    if err is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if out is None:
        sys.stderr.write(f"{PROGRAM}: error: standard output is closed\n")
        sys.stderr.write("hint: where the result is not wanted, redirect it: >/dev/null\n")
    if isinstance(out, io.TextIOWrapper):
        # JSON is UTF-8 (RFC 8259 §8.1), whatever the environment says; a path that is none is shown escaped.
        out.reconfigure(encoding="utf-8", errors="backslashreplace")
    return out is not None


def _abandon_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter would try again on its way out."""
    # Where somebody else catches what we print, there is nothing to let go of.
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(arguments: list[str]) -> argparse.Namespace:
    # What follows `--` is somebody else's command line: argparse must not see it.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _parser()
    args = parser.parse_args(arguments[:split])
    args.command = tuple(arguments[split + 1 :])
    if args.command and args.verb != "run":
        parser.error("only `run` takes a command after --")
    if split < len(arguments) and not args.command:
        parser.error("there is no command after --")
    if args.verb == "run" and (wrong := tpm_arguments.misuse(args) or gpu_arguments.misuse(args)) is not None:
        parser.error(wrong)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {metadata.version('weighbridge')}")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module, text in (
        ("init", init, "make this host's keys and a certificate request"),
        ("measure", measure, "print and save the manifest of a model"),
        ("model", model, "sign a model's directory, or verify such a signature"),
        ("spot-pool", spot_pool, "make one-time challenges about a model's bytes, for its verifiers"),
        ("run", run, "run a session: launch or await an inference server, attest it window by window"),
        ("spool", spool, "show the windows that wait for the verifier, and what was lost"),
        ("telemetry", telemetry, "read this host's sensors outside of a session: list, watch, record, import"),
        ("verity", verity, "have the kernel enforce the digests of a model's files, or show them"),
        ("log", log, "show or export the measurement log of a state directory"),
        ("doctor", doctor, "look at what this host lacks, and say what to do about it"),
    ):
        verb = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=getattr(module, "EPILOG", None),
        )
        module.configure(verb)
        verb.set_defaults(call=module.run)
    return parser


def _print_error(error: WeighbridgeError, *, as_json: bool, debug: bool) -> None:
    if as_json:
        _print_document(error_document(error))
    _print_text(str(error), error.hint)
    if debug:
        traceback.print_exception(error)


def _print_document(document: strict.JsonObject) -> None:
    sys.stdout.write(strict.json_encode(document).decode() + "\n")
    sys.stdout.flush()


def _print_text(text: str, hint: str) -> None:
    sys.stderr.write(f"{PROGRAM}: error: {text}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")


if __name__ == "__main__":
    raise SystemExit(main())
