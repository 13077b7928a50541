"""``weighbridge store check | migrate | prune``: the database in which a verifier remembers its sessions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, no_state
from weighbridge.verifier.commands.state import deployment_class
from weighbridge.verifier.commands.text import counted

if TYPE_CHECKING:
    from weighbridge.verifier.database import Address
    from weighbridge.verifier.endings import Held

__all__ = ["configure"]

_EPILOG: Final = """\
examples:
  weighbridge store check /var/lib/verifier
  weighbridge store migrate postgresql://weighbridge@db.example/weighbridge
  weighbridge store prune /var/lib/verifier --ended-before 2026-01-31T00:00:00Z --dry-run
"""
_TARGET: Final = "the verifier's directory, or the database's address: postgresql://USER@HOST/NAME"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``store`` to ``parser``."""
    parser.description = (
        "The database in which a verifier remembers its sessions: STATE/sessions.sqlite, or a PostgreSQL\n"
        "that several verifiers share. No password is taken here: give it by PGPASSFILE, ~/.pgpass,\n"
        "PGPASSWORD or a service file."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    one = verbs.add_parser("check", help="whether it can be reached, is set as it must be, and has the right tables")
    one.add_argument("target", metavar="STATE|URL", help=_TARGET)
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_check)
    one = verbs.add_parser("migrate", help="bring its tables to this version; twice, or two at once, does no harm")
    one.add_argument("target", metavar="STATE|URL", help=_TARGET)
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_migrate)
    one = verbs.add_parser("prune", help="take out windows and challenges of sessions that ended before a time")
    one.add_argument("target", metavar="STATE|URL", help=_TARGET)
    one.add_argument(
        "--ended-before",
        required=True,
        type=given.date,
        metavar="TIME",
        help="now, or UTC, such as 2026-01-31T12:00:00Z; a verifier that serves does it by itself (`keep_ended_days`)",
    )
    one.add_argument("--dry-run", action="store_true", help="only say how many rows that would be")
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_prune)


def _run_check(arguments: argparse.Namespace) -> Outcome:
    address = _address(arguments.target)
    from weighbridge.verifier import versions  # noqa: PLC0415 - needs what only the server has
    from weighbridge.verifier.database import database_at  # noqa: PLC0415
    from weighbridge.verifier.endings import Endings  # noqa: PLC0415
    from weighbridge.verifier.tables import SCHEMA_VERSION  # noqa: PLC0415

    database = database_at(address)
    try:
        versions.require(database)
        told, differences = database.describe(), versions.differences(database)
        # What is not as it should be may have no such tables.
        with database.reading() as connection:
            live, ended = (None, None) if differences else Endings(connection).held()
    finally:
        database.close()
    facts = {"store": str(address), **told, "version": str(SCHEMA_VERSION)}
    facts |= {name: _held(held) for name, held in (("live", live), ("ended", ended)) if held is not None}
    text = "".join(f"{name:<23} {value or '-'}\n" for name, value in facts.items())
    text += f"{'tables':<24}{'not as they should be' if differences else 'as they should be'}\n"
    text += "".join(f"  {difference}\n" for difference in differences)
    listed: strict.JsonObject = dict(told)
    document: strict.JsonObject = {
        "schema": "weighbridge/store-check/v1",
        "store": str(address),
        "version": SCHEMA_VERSION,
        "told": listed,
        "differences": list(differences),
        "live": _held_document(live),
        "ended": _held_document(ended),
    }
    if not differences:
        return Outcome(text, document)
    message = f"the tables are not those of version {SCHEMA_VERSION}"
    error = EnvironmentFault(Code.STATE_CORRUPT, message, where=str(address), hint="put back a copy of the database")
    return Outcome(text, document, error.exit_code, error)


def _run_migrate(arguments: argparse.Namespace) -> Outcome:
    address = _address(arguments.target)
    from weighbridge.verifier import versions  # noqa: PLC0415 - needs what only the server has
    from weighbridge.verifier.database import database_at  # noqa: PLC0415
    from weighbridge.verifier.tables import SCHEMA_VERSION  # noqa: PLC0415

    database = database_at(address)
    try:
        before, steps = versions.migrate(database)
    finally:
        database.close()
    if steps:
        text = f"{address}: from version {before} to {SCHEMA_VERSION}\n"
        text += "".join(f"  {step.version}: {step.what}\n" for step in steps)
    else:
        text = f"{address}: of version {SCHEMA_VERSION} already\n"
    document: strict.JsonObject = {
        "schema": "weighbridge/store-migrate/v1",
        "store": str(address),
        "from": before,
        "to": SCHEMA_VERSION,
        "steps": [step.version for step in steps],
    }
    return Outcome(text, document)


def _run_prune(arguments: argparse.Namespace) -> Outcome:
    address = _address(arguments.target)
    from weighbridge.verifier.endings import Removed  # noqa: PLC0415 - needs what only the server has
    from weighbridge.verifier.pruning import prune  # noqa: PLC0415
    from weighbridge.verifier.store import Store  # noqa: PLC0415

    before_ns, dry = nanoseconds(arguments.ended_before), bool(arguments.dry_run)
    store = Store.open(address)
    try:
        if dry:
            with store.reading() as tx:
                removed = tx.endings.rows(before_ns=before_ns)
        else:
            removed = sum(prune(store, before_ns=before_ns), start=Removed())
    finally:
        store.close()
    text = f"{address}: {'would take out' if dry else 'took out'} {counted(removed.windows, 'window')} and "
    text += f"{counted(removed.challenges, 'challenge')} of {counted(removed.sessions, 'session')}\n"
    document: strict.JsonObject = {
        "schema": "weighbridge/store-prune/v1",
        "store": str(address),
        "ended_before": strict.time_encode(arguments.ended_before),
        "dry_run": dry,
        "windows": removed.windows,
        "challenges": removed.challenges,
        "sessions": removed.sessions,
    }
    return Outcome(text, document)


def _held(held: Held) -> str:
    since = "" if held.since_ns is None else f", the first of {strict.time_encode(moment(held.since_ns))}"
    return f"{counted(held.sessions, 'session')}, {counted(held.windows, 'window')}{since}"


def _held_document(held: Held | None) -> strict.JsonObject | None:
    if held is None:
        return None
    since = None if held.since_ns is None else strict.time_encode(moment(held.since_ns))
    return {"sessions": held.sessions, "windows": held.windows, "since": since}


def _address(target: str) -> Address:
    deployment_class()
    from weighbridge.verifier.database import PostgresAddress, SqliteAddress  # noqa: PLC0415 - only the server has it
    from weighbridge.verifier.database.named import named_in  # noqa: PLC0415

    # What has a colon and two slashes is meant as an address, also where it is spelled wrongly.
    if "://" in target:
        return PostgresAddress.parse(target)
    address = named_in(Path(target))
    if isinstance(address, SqliteAddress) and not address.path.is_file():
        raise no_state(Path(target))
    return address
