"""``weighbridge-attester spool``: what waits for the verifier, and what it will never get.

Works beside a running attester.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.attester.losses import Losses
from weighbridge.attester.spool_files import DiskStorage
from weighbridge.attester.spool_view import survey
from weighbridge.attester.wording import counted, moment, size_of
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode

if TYPE_CHECKING:
    import argparse

    from weighbridge.attester.spool_view import SessionView

__all__ = ["EPILOG", "configure", "run"]

EPILOG: Final = """\
A session that waits is delivered by `run`; while `run` is in a session, that is shown as waiting, too. What was set
aside (refused, damaged) is read by nobody any more and takes room: remove its directory when nobody needs it.

examples:
  weighbridge-attester spool --state /var/lib/weighbridge
  weighbridge-attester spool --state /var/lib/weighbridge --json
"""

_SCHEMA: Final = "weighbridge/attester-spool/v1"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``spool`` to ``parser``."""
    parser.add_argument("--state", metavar="DIR", type=Path, required=True, help="the attester's state directory")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print what lies in the spool.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``; ``STATE_CORRUPT`` for a damaged list of losses.
    """
    root: Path = args.state / "spool"
    if not args.state.is_dir():
        raise EnvironmentFault(
            Code.FILE_UNREADABLE, "no such directory", where=str(args.state), hint="is it the state directory of `run`?"
        )
    sessions, losses = survey(root), Losses.open(root / "losses", DiskStorage())
    if args.json:
        sys.stdout.write(strict.json_encode(_document(root, sessions, losses), indent=2).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_lines(sessions, losses)) + "\n")
    return ExitCode.AFFIRMED


def _lines(sessions: tuple[SessionView, ...], losses: Losses) -> list[str]:
    waiting = [view for view in sessions if view.windows]
    total = sum(view.windows for view in waiting if view.state == "waiting")
    lines = [f"{counted(total, 'window')} waiting, {size_of(sum(view.size for view in waiting))} on the disk"]
    for view in waiting:
        lines.append(f"{view.state:<8} session {view.session}: {counted(view.windows, 'window')}, {size_of(view.size)}")
        if view.from_ns is not None and view.until_ns is not None:
            span = f"{moment(view.from_ns)} to {moment(view.until_ns)}"
            lines.append(f"         {view.first} to {view.last}, {span} by this host's clock")
        if view.state != "waiting":
            lines.append(f"         {view.path}")
    lines += [f"lost     {lost}" for lost in losses.spans]
    if losses.forgotten:
        before = counted(losses.forgotten_windows, "window")
        lines.append(f"lost     before these, {counted(losses.forgotten, 'span')} with {before}")
    return lines


def _document(root: Path, sessions: tuple[SessionView, ...], losses: Losses) -> strict.JsonObject:
    return {
        "schema": _SCHEMA,
        "directory": str(root),
        "windows": sum(view.windows for view in sessions if view.state == "waiting"),
        "bytes": sum(view.size for view in sessions),
        "sessions": [
            {
                "session": view.session,
                "state": view.state,
                "path": str(view.path),
                "windows": view.windows,
                "bytes": view.size,
                "first": view.first,
                "last": view.last,
                "from": None if view.from_ns is None else moment(view.from_ns),
                "until": None if view.until_ns is None else moment(view.until_ns),
            }
            for view in sessions
        ],
        "losses": [lost.document() for lost in losses.spans],
        "losses_before": {"spans": losses.forgotten, "windows": losses.forgotten_windows},
    }
