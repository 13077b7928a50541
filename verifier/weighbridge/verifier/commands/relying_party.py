"""``weighbridge relying-party``: who may ask a verifier how sessions stand, in the list that ``serve`` reads."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.options import UsageFault
from weighbridge.verifier.certs import spki_der
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.outcome import Outcome, read, taken_for, write
from weighbridge.verifier.commands.text import counted, line
from weighbridge.verifier.files import PosixFiles, fault, install
from weighbridge.verifier.peers import authorities
from weighbridge.verifier.relying_parties import (
    BearerToken,
    RelyingParties,
    RelyingParty,
    new_token,
    token_digest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["configure"]

_DAYS: Final = 90
_DAYS_MAX: Final = 400
_PEM_MAX: Final = 8 * limits.CERT_MAX
_SCHEMA: Final = "weighbridge/relying-party/v1"
_EPILOG: Final = """\
examples:
  weighbridge relying-party add parties.json gate-eu-1 --tenant acme --audience https://gate.example \\
      --certificate gate.pem
  weighbridge relying-party token parties.json gate-eu-1 -o gate.token     # in the place of a certificate
  weighbridge relying-party remove parties.json gate-eu-1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``relying-party`` to ``parser``."""
    parser.description = (
        "Keep the list of relying parties. Each has a key, that of its TLS certificate, or bearer\n"
        "tokens of which the list has the hashes, or both. A verifier that serves takes up what has\n"
        "changed within a second or two."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _configure_add(verbs.add_parser("add", help="list one more relying party"))
    _configure_token(verbs.add_parser("token", help="give a listed relying party a new bearer token"))
    _configure_remove(verbs.add_parser("remove", help="list a relying party no more"))
    listing = verbs.add_parser("list", help="all that are listed")
    listing.description = "Show who is listed, and until when tokens are good."
    _add_list(listing)
    listing.set_defaults(run=_run_list)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="LIST", help="the file, as for `weighbridge serve`")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _add_token(parser: argparse.ArgumentParser, option: Sequence[str], *, required: bool) -> None:
    parser.add_argument(
        *option,
        dest="token",
        metavar="FILE",
        type=Path,
        required=required,
        help="make a bearer token and write it there, for its owner alone to read; it can be had nowhere else",
    )
    parser.add_argument(
        "--days", metavar="N", type=_days, default=_DAYS, help=f"for how many days it is good (default: {_DAYS})"
    )


def _configure_add(parser: argparse.ArgumentParser) -> None:
    parser.description = "List one more relying party; the file is made if there is none."
    _add_list(parser)
    parser.add_argument("name", metavar="NAME", help="for people; each has its own")
    parser.add_argument(
        "--tenant", metavar="NAME", type=given.tenant, action="append", required=True, help="whose sessions it may read"
    )
    parser.add_argument(
        "--audience",
        metavar="NAME",
        action="append",
        required=True,
        help="whom result tokens for it may be for; the first is the default (several times)",
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--certificate", metavar="FILE", help="PEM: of its TLS key")
    ways.add_argument("--key", metavar="DIGEST", type=given.digest, help="SHA-256 of its SubjectPublicKeyInfo")
    _add_token(parser, ["--new-token"], required=False)
    parser.set_defaults(run=_run_add)


def _configure_token(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Give a relying party a new bearer token beside those it has, which are good until they expire; those that "
        "have expired are taken out."
    )
    _add_list(parser)
    parser.add_argument("name", metavar="NAME", help="the relying party")
    _add_token(parser, ["-o", "--output"], required=True)
    parser.set_defaults(run=_run_token)


def _configure_remove(parser: argparse.ArgumentParser) -> None:
    parser.description = "List a relying party no more: its calls are refused, and its watches end."
    _add_list(parser)
    parser.add_argument("name", metavar="NAME", help="the relying party")
    parser.set_defaults(run=_run_remove)


def _days(text: str) -> int:
    found = given.decimal(text, what="the number of days", limit=_DAYS_MAX)
    if found == 0:
        raise argparse.ArgumentTypeError("one day at least")
    return found


def _run_list(arguments: argparse.Namespace) -> Outcome:
    parties = _read(arguments.list)
    rows = [_row(party) for party in parties.relying_parties]
    count = counted(len(rows), "relying party", "relying parties")
    return Outcome("".join(rows) + f"{count}\n", _document(parties))


def _row(party: RelyingParty) -> str:
    lines = [
        line(party.name),
        f"  tenants    {line(', '.join(party.tenants))}",
        f"  audiences  {line(', '.join(party.audiences))}",
        *([] if party.key is None else [f"  key        {party.key}"]),
        *(f"  token      {token.token_sha256[:16]}…, good until {token.not_after}" for token in party.tokens),
    ]
    return "\n".join(lines) + "\n"


def _document(parties: RelyingParties) -> strict.JsonObject:
    """The list as a document."""
    document = strict.json_decode(parties.encode(), what="relying parties")
    if not isinstance(document, dict):
        raise TypeError("a list that is no object")
    return document


def _run_add(arguments: argparse.Namespace) -> Outcome:
    if arguments.certificate is None and arguments.key is None and arguments.token is None:
        raise UsageFault("by what it is known: --certificate, --key or --new-token")
    parties = _read(arguments.list) if arguments.list.exists() else RelyingParties.none()
    key: bytes | None = arguments.key
    if arguments.certificate is not None:
        data = read(arguments.certificate, limit=_PEM_MAX)
        with taken_for(arguments.certificate, what="a certificate", hint="`weighbridge admit` writes one"):
            key = sha256(spki_der(authorities(data, where=arguments.certificate)[0]))
    made, tokens = _new(arguments)
    try:
        party = RelyingParty(
            name=arguments.name,
            key=None if key is None else key.hex(),
            tokens=tokens,
            tenants=tuple(arguments.tenant),
            audiences=tuple(arguments.audience),
        )
        changed = RelyingParties(relying_parties=(*parties.relying_parties, party))
    except ValidationError as error:
        raise UsageFault(_first(error), hint="`weighbridge relying-party list` shows who is listed") from error
    _write(arguments, changed, made)
    return _outcome("listed", party, arguments.token)


def _run_token(arguments: argparse.Namespace) -> Outcome:
    parties = _read(arguments.list)
    found = _named(parties, arguments.name)
    now = datetime.now(UTC)
    made, tokens = _new(arguments)
    kept = tuple(token for token in found.tokens if token.until >= now)
    try:
        party = RelyingParty.model_validate({**dict(found), "tokens": (*kept, *tokens)})
    except ValidationError as error:
        raise UsageFault(_first(error), hint="wait until one has expired, or list it anew") from error
    changed = RelyingParties(relying_parties=tuple(party if one is found else one for one in parties.relying_parties))
    _write(arguments, changed, made)
    return _outcome("has a new token", party, arguments.token)


def _run_remove(arguments: argparse.Namespace) -> Outcome:
    parties = _read(arguments.list)
    found = _named(parties, arguments.name)
    _write(
        arguments,
        RelyingParties(relying_parties=tuple(one for one in parties.relying_parties if one is not found)),
        None,
    )
    return _outcome("is listed no more", found, None)


def _new(arguments: argparse.Namespace) -> tuple[str | None, tuple[BearerToken, ...]]:
    if arguments.token is None:
        return None, ()
    if arguments.token.exists():
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE, "the file is there already", where=str(arguments.token), hint="name another one"
        )
    made = new_token()
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=arguments.days)
    return made, (BearerToken(token_sha256=token_digest(made).hex(), not_after=strict.time_encode(until)),)


def _write(arguments: argparse.Namespace, parties: RelyingParties, token: str | None) -> None:
    """The token first: what is listed can be had."""
    if token is not None:
        path: Path = arguments.token
        try:
            install(PosixFiles(), token.encode() + b"\n", path, staging=path.with_name(f".{path.name}.new"), mode=0o600)
        except OSError as error:
            raise fault(error, path, "writing the token") from error
    document = strict.json_encode(_document(parties), indent=2) + b"\n"
    write(arguments.list, document, doing="writing the list")


def _first(error: ValidationError) -> str:
    """What is wrong first, without pydantic's word for errors of ours."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _named(parties: RelyingParties, name: str) -> RelyingParty:
    found = next((party for party in parties.relying_parties if party.name == name), None)
    if found is None:
        raise UsageFault(f"nobody called {line(name)} is listed", hint="`weighbridge relying-party list` shows who is")
    return found


def _read(path: Path) -> RelyingParties:
    data = read(path, limit=limits.REFERENCE_SET_MAX)
    with taken_for(path, what="a list of relying parties", hint="docs/results.md says what is in it"):
        return RelyingParties.parse(data)


def _outcome(what: str, party: RelyingParty, token: Path | None) -> Outcome:
    written = "" if token is None else f"  token    {token}, good until {party.tokens[-1].not_after}\n"
    document: strict.JsonObject = {
        "schema": _SCHEMA,
        "name": party.name,
        "key": party.key,
        "tokens": [one.model_dump(mode="json") for one in party.tokens],
    }
    return Outcome(f"{line(party.name)} {what}\n{written}", document)
