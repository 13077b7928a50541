"""``weighbridge gate watch``: a command for each change of a session, or one look at it."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.commands.gate_line import Inputs, add_line, note, source_of
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.text import line
from weighbridge.verifier.gate.checking import Answer, Gate
from weighbridge.verifier.gate.hook import Hook
from weighbridge.verifier.gate.instant import SystemClocks
from weighbridge.verifier.gate.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["configure"]

_ONCE_S: Final = 10.0
_EPILOG: Final = """\
The command learns what it needs from its environment: WEIGHBRIDGE_GATE (open or closed), and where they are known
WEIGHBRIDGE_NAME, _SESSION, _TENANT, _MODEL, _RESULT, _STATUS, _SEQ, _CNF, _EXPIRES, and _CODE and _REASON when closed.
It is run again each second until it ends with status 0. docs/gates/exec.md says when it is killed.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gate watch`` to ``parser``."""
    parser.description = (
        "Run a command when a session opens and when it closes, until SIGTERM, and then once more with\n"
        "closed. With --once, only look: exit status 0 open, 5 closed, 6 no window was affirmed yet, 8\n"
        "the verifier does not answer."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("session", metavar="SESSION", help="one of the gate's file: its name, or 32 hexadecimal digits")
    add_line(parser)
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument("--exec", metavar="COMMAND", type=_words, help="program and arguments; no shell is between")
    ways.add_argument("--once", action="store_true", help="only look, for at most 10 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with --once")
    parser.set_defaults(run=_run)


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).lower()) from error
    if not words:
        raise argparse.ArgumentTypeError("no program")
    return words


def _run(arguments: argparse.Namespace) -> Outcome:
    gate = Gate(*Inputs(arguments.config, arguments.anchors, arguments.jwks).read(), SystemClocks())
    sessions = gate.router.session(arguments.session)
    if not sessions:
        raise UsageFault(f"the gate's file has no session {line(arguments.session)}")
    session = sessions[0]

    def ask() -> Answer:
        return gate.check((session,))

    source = source_of(arguments)
    if arguments.once:
        heard = asyncio.Event()
        watcher = Watcher(gate, source, report=note, changed=heard.set)
        asyncio.run(_look(gate, watcher, session, heard))
        if not gate.holder.told(session) and gate.holder.fault is not None:
            raise gate.holder.fault
        return _outcome(ask())
    asyncio.run(_follow(Watcher(gate, source, report=note), arguments.exec, ask))
    return Outcome("stopped\n", {"schema": "weighbridge/gate-watch/v1"})


async def _look(gate: Gate, watcher: Watcher, session: bytes, heard: asyncio.Event) -> None:
    watching = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(_ONCE_S):
            while not gate.holder.told(session):
                await heard.wait()
                heard.clear()
    except TimeoutError:
        pass
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _follow(watcher: Watcher, command: list[str], ask: Callable[[], Answer]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    watching = asyncio.create_task(watcher.run())
    # A defect ends the watch, in good order.
    watching.add_done_callback(lambda _: stop.set())
    try:
        await Hook(command, ask=ask, report=note).follow(stop)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if not watching.cancelled():
        watching.result()


def _outcome(answer: Answer) -> Outcome:
    if answer.allowed:
        document = answer.document
        text = f"OPEN: {document['name']}, result {document['result']}, until {document['expires']}\n"
        return Outcome(text, document)
    text = f"CLOSED: {line(answer.code or '')}: {line(str(answer.document['reason']))}\n"
    waiting = answer.code == Code.RESULT_ABSENT
    return Outcome(text, answer.document, ExitCode.INDETERMINATE if waiting else ExitCode.DENIED)
