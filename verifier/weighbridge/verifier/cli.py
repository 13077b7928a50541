"""``weighbridge``: parses arguments, calls one function, prints its outcome.

Standard output is the result; standard error is for people. Errors are ``weighbridge: error: …`` and, where there is
something to do, ``hint: …``; the exit status is that of :class:`weighbridge.proto.errors.ExitCode`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode, WeighbridgeError
from weighbridge.proto.options import Once, UsageFault, asks_json, error_document, fault_document
from weighbridge.verifier.commands import registry
from weighbridge.verifier.commands.registry import Command
from weighbridge.verifier.commands.text import obeyed
from weighbridge.verifier.files import fault

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from weighbridge.verifier.commands.outcome import Outcome

__all__ = ["main", "parser"]

PROGRAM: Final = "weighbridge"

_EPILOG: Final = """\
exit status:
  0 affirmed   1 internal error   2 usage   3 malformed   4 not authentic   5 denied by policy
  6 indeterminate   7 ledger inconsistent   8 environment (disk, port, TPM, peer): safe to retry

examples:
  weighbridge inspect gpu report.bin
  weighbridge verify gpu report.bin --chain chain.pem --nonce HEX --at now
  weighbridge verify bundle session.wb --anchors anchors.json --policy production
"""


_COMMANDS: Final = (
    Command("report", "write a recorded session as one HTML file for people", "report"),
    Command("init", "make a new verifier: keys, ledger, store, channel certificates", "operate", "configure_init"),
    Command("admit", "issue a channel certificate for an attester's signing request", "operate", "configure_admit"),
    Command("serve", "judge attesters over gRPC", "serve"),
    Command("config", "check, show and list what `serve --config` takes", "config"),
    Command("relying-party", "list who may ask a verifier how sessions stand, by key or token", "relying_party"),
    Command("result", "ask a running verifier how a session stands, and for its token", "result"),
    Command("gate", "let requests through to a model only while its session is open", "gate", group=True),
    Command("sessions", "list the sessions that this verifier has recorded", "sessions"),
    Command("export", "write a session's proof bundle: whole, in part, or redacted", "export"),
    Command("store", "check the database of sessions, and bring it to this version", "store"),
    Command("failures", "list failures that stick to hosts and GPUs, and forgive all of one code", "failures"),
    Command("clear", "forgive a failure that sticks, for a recorded reason", "operate", "configure_clear"),
    Command("spot", "import and count spot challenges", "spot"),
    Command("model", "sign, revoke, show and compare models and sets of them", "model"),
    Command("reference", "learn what a known-good host is, sign and compare sets of it", "reference"),
    Command("baseline", "record, fit, show and compare what GPUs draw under work", "baseline", group=True),
    Command("policy", "write, check, test, explain, sign and compare policies", "policy", group=True),
    Command("token", "make, list and retire the keys that sign result tokens", "token_keys"),
    Command("anchors", "list, import and check who is believed: trust anchors", "anchors"),
    Command("collateral", "import, list, check, fetch and remove what makers of hardware publish", "collateral"),
    Command("ledger", "prove, verify and audit a ledger", "ledger"),
    Command("conformance", "test a verifier by what it has to refuse, and to accept", "conformance", group=True),
    Command(
        "redteam",
        "play attacks against a running verifier of your own, and say what was refused",
        "command",
        package="weighbridge.redteam",
    ),
)
_INSPECT: Final = (
    Command("gpu", "an SPDM report of an NVIDIA GPU", "gpu", "configure_inspect"),
    Command("log", "an event log: of a session, of firmware, of IMA, or a CEL", "log", "configure_inspect"),
)
_VERIFY: Final = (
    Command("gpu", "recorded evidence of GPUs and NVSwitches: of one, or of a host", "gpu_verify"),
    Command("log", "an event log: that it leads to the values a quote signs", "log", "configure_verify"),
    Command("bundle", "a recorded session: every verdict made again, offline", "bundle", "configure_verify"),
    Command("nras", "what NVIDIA's attestation service said: a witness's word", "nras", "configure_verify"),
    Command("token", "a result token: signature, audience, expiry", "token", "configure_verify"),
)


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong, and how to get help; no abbreviations, nothing given twice."""

    def __init__(
        self,
        *,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        formatter_class: type[argparse.HelpFormatter] = argparse.HelpFormatter,
    ) -> None:
        # An abbreviation that is unambiguous today names another option tomorrow.
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=formatter_class, allow_abbrev=False
        )
        for action in (None, "store"):
            self.register("action", action, Once)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong.

        Raises:
            UsageFault: always.
        """
        raise UsageFault(message, hint=f"`{self.prog} --help` shows the arguments")


def parser(words: Collection[str] | None = None) -> argparse.ArgumentParser:
    """The command line's grammar.

    Args:
        words: of the command line, for the grammar of the commands among them; by default that of all.
    """
    top = _Parser(
        prog=PROGRAM,
        description="Verify that a host measured the declared weights and committed to serving the session with them; "
        "say what is not proven.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"weighbridge {metadata.version('weighbridge')}")
    top.add_argument("--debug", action="store_true", help="print the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about, kinds in (
        ("inspect", "parse and print; verifies nothing, and says so first", _INSPECT),
        ("verify", "verify evidence, a proof bundle or a result token", _VERIFY),
    ):
        group = commands.add_parser(name, help=about)
        if words is None or name in words:
            registry.add(group.add_subparsers(dest="kind", required=True, metavar="KIND"), kinds, words)
    registry.add(commands, _COMMANDS, words)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. Never 0 on failure, also when the result cannot be printed.

    Args:
        arguments: without the program's name; those of this process by default.
    """
    try:
        if not _has_output():
            return ExitCode.ENVIRONMENT
        status = _answer(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        # At any time: also while the grammar is built.
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return ExitCode.ENVIRONMENT
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be told to anybody.
        _abandon_output()
        return ExitCode.ENVIRONMENT
    except OSError as error:
        # Commands give every failure of files its code: what is left is our own output.
        _abandon_output()
        return _fail(fault(error, Path("standard output"), "writing the result"), as_json=False)
    return status


def _answer(arguments: Sequence[str]) -> int:
    """Run the command, or say what is wrong with its arguments: to people, and to programs that ask for it."""
    try:
        return _run(arguments)
    except UsageFault as error:
        if asks_json(arguments):
            _print_document(error.document())
        _print_error(error.message, error.hint)
        return ExitCode.USAGE


def _run(arguments: Sequence[str]) -> int:
    try:
        parsed = parser(arguments).parse_args(arguments)
    except SystemExit as stop:
        # Help or the version was printed.
        return stop.code if isinstance(stop.code, int) else ExitCode.USAGE
    as_json = bool(getattr(parsed, "json", False))
    try:
        outcome: Outcome | int = parsed.run(parsed)
    except (UsageFault, OSError):
        raise
    except WeighbridgeError as error:
        if parsed.debug:
            traceback.print_exception(error)
        return _fail(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the one place: an answer and status 1, never a traceback unasked
        return _internal(error, as_json=as_json, debug=parsed.debug)
    if isinstance(outcome, int):
        return outcome
    if as_json:
        _print_document(outcome.document)
    else:
        # Whatever a command has left of others' words in its lines.
        sys.stdout.write(obeyed(outcome.text))
    if outcome.error is not None:
        if parsed.debug:
            traceback.print_exception(outcome.error)
        _print_error(str(outcome.error), outcome.error.hint)
    return outcome.status


def _fail(error: WeighbridgeError, *, as_json: bool) -> int:
    if as_json:
        _print_document(error_document(error))
    _print_error(str(error), error.hint)
    return error.exit_code


def _internal(error: Exception, *, as_json: bool, debug: bool) -> int:
    """A defect of ours."""
    message = f"internal error: {type(error).__name__}: {error}"
    if as_json:
        _print_document(fault_document(message, ExitCode.INTERNAL))
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    if debug:
        traceback.print_exception(error)
    else:
        print("hint: run again with --debug before the command, and report what it prints", file=sys.stderr)
    return ExitCode.INTERNAL


def _print_document(document: strict.JsonObject) -> None:
    sys.stdout.write(strict.json_encode(document, indent=2).decode() + "\n")


def _print_error(text: str, hint: str) -> None:
    print(f"{PROGRAM}: error: {text}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def _has_output() -> bool:
    """Whether there is a standard output. Where standard error is closed, nobody wants to read it."""
    # Python's types do not know it, but a process may be started without: `weighbridge … >&- 2>&-`.
    out: TextIO | None = sys.stdout
    err: TextIO | None = sys.stderr
    if err is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if out is None:
        print(f"{PROGRAM}: error: standard output is closed", file=sys.stderr)
        print("hint: where the result is not wanted, redirect it: >/dev/null", file=sys.stderr)
    if isinstance(out, io.TextIOWrapper):
        # JSON is UTF-8 (RFC 8259 §8.1), whatever the environment says; a path that is none is shown escaped.
        out.reconfigure(encoding="utf-8", errors="backslashreplace")
    return out is not None


def _abandon_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter would try again on its way out."""
    # Where somebody else catches what we print, there is nothing to let go of.
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
