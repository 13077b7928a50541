"""``weighbridge token keys | jwks``: the keys that a verifier signs tokens with. All work beside ``serve``."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.result.key_store import ANNOUNCED_MIN, TokenKeyStore

if TYPE_CHECKING:
    from weighbridge.verifier.result.key_store import StoredKey

__all__ = ["configure"]

_DAYS: Final = 90
_DAYS_MAX: Final = 400
_AHEAD: Final = timedelta(hours=1)
_EPILOG: Final = """\
examples:
  weighbridge token keys new /var/lib/verifier                   # announced now, signs in an hour, for 90 days
  weighbridge token keys list /var/lib/verifier
  weighbridge token jwks /var/lib/verifier > jwks.json           # for relying parties
  weighbridge token keys retire /var/lib/verifier KID
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``token`` to ``parser``."""
    parser.description = (
        "The keys that sign result tokens, apart from the verifier's identity, which endorses each.\n"
        "While there is none, the identity signs. Every verb works beside `serve`, which takes up what\n"
        "has changed."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    keys = verbs.add_parser("keys", help="list, make and retire keys")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    _configure_list(actions.add_parser("list", help="all keys, and what each is good for"))
    _configure_new(actions.add_parser("new", help="make a key and announce it; it signs later"))
    _configure_retire(actions.add_parser("retire", help="have a key sign no more, for good"))
    one = verbs.add_parser("jwks", help="print the keys that may still verify, as a JSON Web Key Set")
    one.description = (
        "Print the JSON Web Key Set (RFC 7517) that relying parties verify tokens by: the keys in use, those "
        "announced, those whose tokens have not all expired, and the identity. Beside each stands the statement by "
        "which the identity endorses it."
    )
    _add_state(one)
    one.set_defaults(run=_run_jwks)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    parser.add_argument(
        "--at", metavar="TIME", default="now", type=given.time, help="take it to be this time (default: now)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _configure_list(parser: argparse.ArgumentParser) -> None:
    _add_state(parser)
    parser.set_defaults(run=_run_list)


def _configure_new(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a P-256 key and announce it: it stands in the key set at once and signs from --from on, in the place of "
        "the one before. Whoever steals it can use it with relying parties that are offline until it ends: --days."
    )
    _add_state(parser)
    minutes = int(ANNOUNCED_MIN.total_seconds()) // 60
    parser.add_argument(
        "--from",
        dest="since",
        metavar="TIME",
        type=given.date,
        help=f"when it begins to sign: {minutes} minutes from now at the earliest (default: in an hour)",
    )
    parser.add_argument(
        "--days", metavar="N", type=_days, default=_DAYS, help=f"for how many days it may sign (default: {_DAYS})"
    )
    parser.set_defaults(run=_run_new)


def _configure_retire(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Have a key sign no more, and delete its private half. Tokens of it are good until they expire. There is no "
        "way back. Afterwards the one before it signs, if its time lasts, else the identity."
    )
    _add_state(parser)
    parser.add_argument("kid", metavar="KID", type=given.digest, help="the key, as `list` shows it")
    parser.add_argument(
        "--distrust",
        action="store_true",
        help="it was stolen: take it out of the key set at once, with all its tokens",
    )
    parser.set_defaults(run=_run_retire)


def _days(text: str) -> int:
    found = given.decimal(text, what="the number of days", limit=_DAYS_MAX)
    if found == 0:
        raise argparse.ArgumentTypeError("one day at least")
    return found


def _store(arguments: argparse.Namespace) -> TokenKeyStore:
    return TokenKeyStore(VerifierKeys.open(arguments.state / "keys"))


def _run_list(arguments: argparse.Namespace) -> Outcome:
    at: datetime = arguments.at
    store = _store(arguments)
    rows = [_row(store, key, at) for key in store.known()]
    text = "".join(
        f"{row['state']:<10} {row['kid']}  {row['not_before']} to {row['not_after']}{_since(row)}\n" for row in rows
    )
    signs = store.signer_thumbprint(at)
    note = "" if any(row["state"] == "current" for row in rows) else "no key is current: the identity signs\n"
    document: strict.JsonObject = {"schema": "weighbridge/token-keys/v1", "signs": signs.hex(), "keys": list(rows)}
    return Outcome(text + note, document)


def _since(row: strict.JsonObject) -> str:
    return "" if row["retired"] is None else f", signs no more since {row['retired']}"


def _row(store: TokenKeyStore, key: StoredKey, at: datetime) -> strict.JsonObject:
    return {
        "kid": key.trusted.kid.hex(),
        "state": store.state(key, at).value,
        "not_before": strict.time_encode(key.not_before),
        "not_after": strict.time_encode(key.not_after),
        "retired": None if key.retired is None else strict.time_encode(key.retired),
    }


def _run_new(arguments: argparse.Namespace) -> Outcome:
    at: datetime = arguments.at
    since: datetime = arguments.since or (at + _AHEAD).astimezone(UTC).replace(microsecond=0)
    if since < at + ANNOUNCED_MIN:
        raise UsageFault(
            "the key would sign before relying parties know it",
            hint=f"--from {strict.time_encode((at + ANNOUNCED_MIN).replace(microsecond=0) + timedelta(seconds=1))}",
        )
    until = since + timedelta(days=arguments.days)
    if until > given.LAST:
        raise UsageFault("the key would sign after the last time that can be told", hint="choose an earlier --from")
    store = _store(arguments)
    key = store.new(at=at, not_before=since, not_after=until)
    row = _row(store, key, at)
    text = (
        f"announced {row['kid']}\n"
        f"  signs    {row['not_before']} to {row['not_after']}\n"
        "  publish  the key set before it does: weighbridge token jwks\n"
    )
    return Outcome(text, {"schema": "weighbridge/token-key/v1", **row})


def _run_retire(arguments: argparse.Namespace) -> Outcome:
    store = _store(arguments)
    key = store.retire(arguments.kid, at=arguments.at, distrust=arguments.distrust)
    row = _row(store, key, arguments.at)
    about = (
        "it has left the key set: publish that now; relying parties that are offline believe it until "
        f"{row['not_after']}"
        if key.distrusted
        else "its tokens are good until they expire"
    )
    text = f"retired {row['kid']}, {about}\n  signs    {store.signer_thumbprint(arguments.at).hex()} from now on\n"
    return Outcome(text, {"schema": "weighbridge/token-key/v1", **row})


def _run_jwks(arguments: argparse.Namespace) -> Outcome:
    keys = _store(arguments).jwks(arguments.at)
    return Outcome(strict.json_encode(keys, indent=2).decode() + "\n", {"schema": "weighbridge/token-jwks/v1", **keys})
