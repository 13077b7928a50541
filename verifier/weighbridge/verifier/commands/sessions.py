"""``weighbridge sessions``: what a verifier has recorded, session by session. Works while it serves."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import listed
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.state import open_store
from weighbridge.verifier.commands.text import counted, line
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    import argparse

    from weighbridge.proto import strict
    from weighbridge.verifier.listing import Listed

__all__ = ["configure"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``weighbridge sessions``."""
    parser.description = (
        "List the sessions that this verifier has recorded, the last one opened last: where it stands, its windows "
        "with the one that failed it, since when, when the last window came, whose it is, and why it failed."
    )
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument(
        "--state",
        dest="states",
        action="append",
        choices=[state.value for state in SessionState],
        default=[],
        help="only sessions that stand there (several times)",
    )
    parser.add_argument("--tenant", type=given.tenant, help="only this tenant's")
    parser.add_argument("--code", type=given.name, help="only those that failed with this code")
    listed.add_limit(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    with contextlib.closing(open_store(arguments.state)) as store, store.reading() as tx:
        from weighbridge.verifier.listing import Wanted  # noqa: PLC0415 - needs what only the server has

        wanted = Wanted(
            states=[SessionState(state) for state in arguments.states], tenant=arguments.tenant, code=arguments.code
        )
        counts = tx.listing.counts(wanted)
        rows = tx.listing.latest(wanted, most=listed.most(arguments))
    left = sum(counts.values()) - len(rows)
    lines = [*map(_line, rows), *listed.rest(left)]
    if left:
        lines.append(f"{', '.join(f'{count} {state.value}' for state, count in counts.items())}\n")
    document: strict.JsonObject = {
        "schema": "weighbridge/sessions/v1",
        "sessions": [_document(row) for row in rows],
        "left_out": left,
        "counts": {state.value: count for state, count in counts.items()},
    }
    return Outcome("".join(lines) or "no sessions\n", document)


def _line(row: Listed) -> str:
    last = "-" if row.last_ns is None else listed.second(row.last_ns)
    windows = f"{counted(row.windows, 'window', form='6'):<14}"
    times = f"since {listed.second(row.opened_ns)}  last {last:<20}"
    return line(f"{row.id.hex()}  {row.state.value:<11}  {windows}  {times}  {row.tenant}  {row.code or '-'}") + "\n"


def _document(row: Listed) -> strict.JsonObject:
    return {
        "session": row.id.hex(),
        "state": row.state.value,
        "tenant": row.tenant,
        "windows": row.windows,
        "ak": row.ak.hex(),
        "opened_at": listed.instant(row.opened_ns),
        "last_window_at": listed.instant(row.last_ns),
        "ended_at": listed.instant(row.ended_ns),
        "code": row.code,
    }
