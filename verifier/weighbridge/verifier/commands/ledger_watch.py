"""``weighbridge ledger monitor``: what happens in a log, told as it happens, and what must not happen.

A watch ends by itself only where nothing that follows could be believed: two histories, an older head, another key.
Whoever runs it from a timetable takes ``--once`` and looks at the exit status.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from weighbridge.proto import strict
from weighbridge.proto.errors import EnvironmentFault, ExitCode, WeighbridgeError
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.ledger_errors import advised, hinted
from weighbridge.verifier.commands.ledger_key import ledger_key
from weighbridge.verifier.commands.progress import Progress
from weighbridge.verifier.commands.text import counted, line
from weighbridge.verifier.ledger.locked import LockedFile
from weighbridge.verifier.ledger.monitor import Monitor
from weighbridge.verifier.ledger.source import Source, open_source
from weighbridge.verifier.ledger.watched import Watched, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from weighbridge.proto.note import NoteKey
    from weighbridge.verifier.ledger.chains import Event
    from weighbridge.verifier.ledger.monitor import Look

__all__ = ["Teller", "add_watch", "configure", "source", "watch"]

_SECOND: Final = 10**9
_SCHEMA: Final = "weighbridge/ledger-event/v1"
_DAYS_MAX: Final = 366 * 24 * 3600
_INTERVAL: Final = 10
_SILENCE: Final = 300
_WIDE: Final = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ledger monitor``; ``--key`` and ``--json`` are every ledger command's."""
    parser.description = (
        "Follow a log from what was last seen of it: that it only grew, and what its new entries tell. Exit status: 0 "
        "nothing to tell, 6 something that a person should look at, 7 the log contradicts itself or what it signed "
        "before, 8 it cannot be read now, 3 and 4 its checkpoint is none or not by this key. What was seen before "
        "changes with 0 and 6 only. Everything is told once; a session that fell silent is then counted in each `head` "
        "line, until something is heard of it. The first look believes the key that this is the log: there is nothing "
        "to compare it with."
    )
    add_watch(parser)
    parser.set_defaults(run=_run)


def add_watch(parser: argparse.ArgumentParser) -> None:
    """Add what every watch takes."""
    parser.add_argument(
        "log", type=source, metavar="LOG", help="the log: a directory, or the address of its files (http(s)://, s3://)"
    )
    parser.add_argument(
        "--state", required=True, type=given.output, metavar="FILE", help="what was last seen: made when there is none"
    )
    parser.add_argument("--once", action="store_true", help="look once (default: until interrupted)")
    parser.add_argument(
        "--interval", type=_seconds, default=_INTERVAL, metavar="S", help=f"seconds between looks (default {_INTERVAL})"
    )
    parser.add_argument(
        "--silence",
        type=_seconds,
        default=_SILENCE,
        metavar="S",
        help=f"tell of a session, once, when neither window nor closing comes for so many seconds (default {_SILENCE})",
    )
    parser.add_argument(
        "--stall", type=_seconds, metavar="S", help="tell of a log that has not grown for so many seconds"
    )


def source(text: str) -> Source:
    """A log, as it is named: nothing is read yet."""
    try:
        return open_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> int:
    found = given.decimal(text, what="the seconds", limit=_DAYS_MAX)
    if found == 0:
        raise argparse.ArgumentTypeError("at least one second")
    return found


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells people, or programs a JSON document a line.

    Attributes:
        origin: of the log.
        as_json: whom.
    """

    origin: str
    as_json: bool

    def event(self, event: Event, *, at: datetime) -> None:
        """What a person should look at."""
        document: strict.JsonObject = {
            "entry": event.index,
            "session": None if event.session is None else event.session.hex(),
            "received_at": None if event.at_ns is None else strict.time_encode(moment(event.at_ns)),
            "expected": event.expected,
            "got": event.got,
            "message": event.text,
        }
        whom = [] if event.session is None else [f"session {event.session.hex()}"]
        where = [] if event.index is None else [f"at entry {event.index}"]
        about = f"{' '.join([*whom, *where])}: " if whom or where else ""
        found = "".join(
            f", {word} {value}"
            for word, value in (("expected", event.expected), ("got", event.got))
            if value is not None
        )
        self._say(event.kind.upper(), f"{about}{event.text}{found}", document, at)

    def look(self, look: Look, *, at: datetime) -> None:
        """How the log stands."""
        checkpoint, sessions = look.watched.checkpoint, len(look.watched.chains.sessions)
        silent = look.watched.chains.silent
        more = f", {look.unlisted} more not listed" if look.unlisted else ""
        first = "; first look: nothing to compare with" if look.first else ""
        document: strict.JsonObject = {
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "new": checkpoint.size - look.before,
            "first": look.first,
            "sessions": sessions,
            "silent": silent,
            "told": len(look.events),
            "not_listed": look.unlisted,
        }
        quiet = f" ({silent} silent)" if silent else ""
        size = "1 entry" if checkpoint.size == 1 else f"{checkpoint.size} entries"
        grown = f"{size} (+{checkpoint.size - look.before}), {counted(sessions, 'session')} not closed{quiet}"
        self._say("head", f"{grown}, root {checkpoint.root.hex()[:16]}{more}{first}", document, at)

    def failure(self, error: WeighbridgeError, *, at: datetime) -> None:
        """Why a look has come to nothing."""
        if self.as_json:
            fields: strict.JsonObject = {**error.document(), "exit": error.exit_code.value}
            self._say("error", "", fields, at)
        sys.stderr.write(f"weighbridge: error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))

    def said(self, kind: str, text: str, document: strict.JsonObject, *, at: datetime) -> None:
        """Anything else."""
        self._say(kind, text, document, at)

    def _say(self, kind: str, text: str, document: strict.JsonObject, at: datetime) -> None:
        when = strict.time_encode(at.replace(microsecond=0))
        if self.as_json:
            head: strict.JsonObject = {"schema": _SCHEMA, "event": kind.lower(), "origin": self.origin, "at": when}
            sys.stdout.write(strict.json_encode({**head, **document}).decode() + "\n")
        else:
            sys.stdout.write(f"{when}  {kind:<{_WIDE}}  {line(text)}\n")
        # Whoever waits for it at the other end of a pipe is to have it now.
        sys.stdout.flush()


Then: TypeAlias = "Callable[[Teller, Look, datetime], None]"


def _run(arguments: argparse.Namespace) -> ExitCode:
    return watch(arguments, None)


@hinted
def watch(arguments: argparse.Namespace, then: Then | None) -> ExitCode:
    """Look at the log, tell, remember, and do ``then``; once or until interrupted.

    Args:
        arguments: those of :func:`add_watch`, and the log's ``key``.
        then: with whoever tells, the look, after what is remembered of it is durable, and when that was; ``None``:
            nothing.
    """
    key = ledger_key(arguments.key)
    log: Source = arguments.log
    teller = Teller(key.name, bool(arguments.json))
    with closing(log), LockedFile(Path(arguments.state)) as state:
        try:
            seen = load(state, key, silence_ns=arguments.silence * _SECOND)
        except WeighbridgeError as error:
            return _ended(teller, error)
        while True:
            try:
                seen, status = _look(arguments, key, teller, state, seen=seen, then=then)
            except EnvironmentFault as error:
                if arguments.once:
                    return _ended(teller, error)
                # The log may come back; that it does not, `--stall` tells.
                teller.failure(advised(error), at=_now())
            except WeighbridgeError as error:
                return _ended(teller, error)
            else:
                if arguments.once:
                    return status
            time.sleep(arguments.interval)


def _look(
    arguments: argparse.Namespace,
    key: NoteKey,
    teller: Teller,
    state: LockedFile,
    *,
    seen: Watched | None,
    then: Then | None,
) -> tuple[Watched, ExitCode]:
    with Progress("entries", 0, shown=True) as progress:

        def reading(count: int, total: int) -> None:
            progress.total = total
            progress.advance(count)

        monitor = Monitor(
            arguments.log,
            key,
            silence_ns=arguments.silence * _SECOND,
            stall_ns=None if arguments.stall is None else arguments.stall * _SECOND,
            keep=state.keep,
            reading=reading,
        )
        at_ns = time.time_ns()
        look = monitor.look(seen, now_ns=at_ns)
    at = moment(at_ns)
    # Told before it is remembered: what is told twice does less harm than what is told never.
    for event in look.events:
        teller.event(event, at=at)
    if arguments.once or look.is_news:
        teller.look(look, at=at)
    if look.is_news:
        state.replace(look.watched.encode())
    if then is not None:
        then(teller, look, at)
    return look.watched, ExitCode.INDETERMINATE if look.events else ExitCode.AFFIRMED


def _ended(teller: Teller, error: WeighbridgeError) -> ExitCode:
    teller.failure(advised(error), at=_now())
    return error.exit_code


def _now() -> datetime:
    return moment(time.time_ns())
