"""``weighbridge collateral import | list | check | remove``: what is at hand of what makers of hardware publish."""

from __future__ import annotations

import argparse
import math
import stat
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence
from weighbridge.verifier.collateral.describe import FILE_MAX, recognise
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.collateral_remove import configure_remove
from weighbridge.verifier.commands.collateral_rows import HEAD, in_order, row
from weighbridge.verifier.commands.collateral_wanted import configure_fetch, configure_wanted
from weighbridge.verifier.commands.outcome import Outcome, read
from weighbridge.verifier.commands.text import counted, plain, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.verifier.collateral.choice import Fill
    from weighbridge.verifier.collateral.describe import Description

__all__ = ["configure"]

# Of what can be handed out at once: time to remove something.
_NEARLY_FULL: Final = 0.8
_DAYS: Final = 30
_DAYS_MAX: Final = 3650
_EPILOG: Final = """\
a site with a network: get what these devices' evidence needs, and again by a timer
  weighbridge collateral fetch evidence.json --store /var/lib/weighbridge/collateral

a site without: what to fetch, and then take it in
  weighbridge collateral wanted evidence.json --store /var/lib/weighbridge/collateral
  weighbridge collateral import usb/* --store /var/lib/weighbridge/collateral

what has run out, runs out within 30 days, or is damaged, for a timer
  weighbridge collateral check --store /var/lib/weighbridge/collateral

forget what has run out and takes no trust away
  weighbridge collateral remove --ended --store /var/lib/weighbridge/collateral
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    parser.epilog, parser.formatter_class = f"examples:\n\n{_EPILOG}", argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _configure_import(verbs.add_parser("import", help="take files in: manifests, OCSP responses, lists, …"))
    _configure_list(verbs.add_parser("list", help="what is at hand, one line each"))
    _configure_check(verbs.add_parser("check", help="what has run out, runs out soon, is superseded, or damaged"))
    configure_remove(verbs.add_parser("remove", help="forget what has run out, or pieces by their digests"))
    configure_wanted(verbs.add_parser("wanted", help="what given evidence needs, and where to fetch it"))
    configure_fetch(verbs.add_parser("fetch", help="fetch what given evidence needs, from its makers"))
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print one JSON document")


def _add_store(parser: argparse.ArgumentParser, what: str = "the store's directory") -> None:
    parser.add_argument("--store", metavar="DIR", type=Path, required=True, help=what)


# -- import ------------------------------------------------------------------------------------------------------------


def _configure_import(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take files into the store, which is made if it is not there: reference manifests (XML, or the JSON that "
        "NVIDIA's service answers with), OCSP responses, revocation lists, AMD's certificates, Intel's documents, and "
        "the key set of NVIDIA's attestation service. What a file is, its content says. Nothing is verified here, but "
        "wherever it is used. Where one file cannot be read, none is taken."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="any of these; -: standard input")
    _add_store(parser, "the store's directory; its parent exists")
    parser.set_defaults(run=_run_import)


def _run_import(arguments: argparse.Namespace) -> Outcome:
    found = [piece for path in arguments.files for piece in _recognise(path)]
    store = CollateralStore.create(arguments.store)
    new = store.put(found)
    rows = [("new" if is_new else "known", *row(piece)) for piece, is_new in zip(found, new, strict=True)]
    lines = table(("", *HEAD), rows, right=0)
    kept = store.pieces()
    lines.append(f"{arguments.store}: {counted(len(kept), 'piece')}, {sum(new)} of them new")
    document: strict.JsonObject = {
        "schema": "weighbridge/collateral-import/v1",
        "store": str(arguments.store),
        "pieces": len(kept),
        "imported": [{**piece.document(), "new": is_new} for piece, is_new in zip(found, new, strict=True)],
    }
    return Outcome("\n".join(lines) + "\n", document)


def _recognise(path: str) -> tuple[Description, ...]:
    if path != "-":
        try:
            # Opening a pipe waits for whoever writes into it.
            regular = stat.S_ISREG(Path(path).stat().st_mode)
        except OSError as error:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE, (error.strerror or type(error).__name__).lower(), where=path
            ) from error
        if not regular:
            raise EnvironmentFault(
                Code.FILE_UNREADABLE, "not a file", where=path, hint="name files, or - for standard input"
            )
    try:
        return recognise(read(path, limit=FILE_MAX), where=path)
    except MalformedEvidence as error:
        if error.code in (Code.COLLATERAL_INVALID, Code.TOO_LARGE):
            raise
        raise error.in_file(
            path, what="a piece of collateral", hint="weighbridge collateral wanted EVIDENCE says what to fetch"
        ) from error


# -- list --------------------------------------------------------------------------------------------------------------


def _configure_list(parser: argparse.ArgumentParser) -> None:
    parser.description = "List what is at hand: of each subject all issues, the newest first. Nothing is verified."
    _add_store(parser)
    parser.add_argument("--kind", metavar="K", choices=_KINDS, help=f"of this kind alone: {', '.join(_KINDS)}")
    parser.set_defaults(run=_run_list)


_KINDS: Final = ("crl", "dcap", "jwks", "ocsp", "rim", "vcek")


def _run_list(arguments: argparse.Namespace) -> Outcome:
    store = CollateralStore.open(arguments.store)
    pieces = [piece for piece in in_order(store.pieces()) if arguments.kind in (None, piece.kind)]
    lines = [*table(HEAD, [row(piece) for piece in pieces], right=0)] if pieces else []
    lines.append(f"{arguments.store}: {counted(len(pieces), 'piece')}")
    document: strict.JsonObject = {
        "schema": "weighbridge/collateral-list/v1",
        "store": str(arguments.store),
        "pieces": [piece.document() for piece in pieces],
    }
    return Outcome("\n".join(lines) + "\n", document)


# -- check -------------------------------------------------------------------------------------------------------------


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say of which subjects the newest issue has run out (exit 6) or runs out soon, which issues are superseded, "
        "and what is damaged, or more than can be judged by (exit 8). Evidence that needs what has run out is "
        "indeterminate, not refused."
    )
    _add_store(parser)
    parser.add_argument("--at", metavar="TIME", default="now", type=given.time, help="at this time (default: now)")
    parser.add_argument(
        "--days",
        metavar="N",
        default=_DAYS,
        type=lambda text: given.decimal(text, what="the days", limit=_DAYS_MAX),
        help=f"what runs out within N days runs out soon (default: {_DAYS})",
    )
    parser.set_defaults(run=_run_check)


def _run_check(arguments: argparse.Namespace) -> Outcome:
    store = CollateralStore.open(arguments.store)
    pieces, damaged = in_order(store.pieces()), store.damaged()
    soon = timedelta(days=arguments.days)
    found = [
        (piece, finding)
        for number, piece in enumerate(pieces)
        if (finding := _finding(piece, _newer(pieces, number, arguments.at), arguments.at, soon))
    ]
    expired = sum(1 for _, finding in found if finding == "expired")
    rows = [(finding, *row(piece)) for piece, finding in found]
    lines = [*table(("", *HEAD), rows, right=0)] if rows else []
    lines += [
        f"{'damaged' if each.lost else 'foreign'}  {plain(str(each.path))}: {plain(each.reason)}" for each in damaged
    ]
    lost = sum(1 for each in damaged if each.lost)
    fill = store.fill(arguments.at)
    at = strict.time_encode(arguments.at)
    lines.append(f"{arguments.store}: {counted(len(pieces), 'piece')}, {expired} expired at {at}, {lost} damaged")
    if lost:
        lines.append(
            "nothing is judged with a damaged store: weighbridge collateral remove DIGEST… forgets what is damaged; "
            "fetch it again"
        )
    lines += _told(fill)
    if expired:
        lines.append(
            "fetch what is still needed; weighbridge collateral remove --ended forgets what takes no trust away"
        )
    code, status = _answer(lost, fill, expired)
    document: strict.JsonObject = {
        "schema": "weighbridge/collateral-check/v1",
        "store": str(arguments.store),
        "at": at,
        "code": None if code is None else code.value,
        "pieces": len(pieces),
        "fill": {"revoking": _thousandths(fill.revoking), "whole": _thousandths(fill.whole)},
        "findings": [{**piece.document(), "finding": finding} for piece, finding in found],
        "damaged": [{"path": str(each.path), "reason": each.reason, "lost": each.lost} for each in damaged],
    }
    return Outcome("\n".join(lines) + "\n", document, status)


def _answer(lost: int, fill: Fill, expired: int) -> tuple[Code | None, ExitCode]:
    """The worst that was found, and the exit status."""
    if lost:
        return Code.STATE_CORRUPT, ExitCode.ENVIRONMENT
    if fill.revoking > 1:
        return Code.TOO_LARGE, ExitCode.ENVIRONMENT
    return (Code.COLLATERAL_INVALID, ExitCode.INDETERMINATE) if expired else (None, ExitCode.AFFIRMED)


def _told(fill: Fill) -> list[str]:
    """That the store is nearly full, or too full: of revocations, which is worse, or of all."""
    if fill.revoking >= _NEARLY_FULL:
        outcome = "nothing is judged" if fill.revoking > 1 else "above 100% nothing is judged"
        share, what, hint = fill.revoking, "revocations", "DIGEST… forgets superseded lists, and what is of no maker's"
    elif fill.whole >= _NEARLY_FULL:
        outcome = "the oldest are left out" if fill.whole > 1 else "above 100% the oldest are left out"
        share, what, hint = fill.whole, "pieces", "--ended forgets what has run out"
    else:
        return []
    fullness = "too full" if share > 1 else "nearly full"
    return [
        f"{fullness}: {what} take {share:.0%} of what can be judged by at once, and {outcome}",
        f"weighbridge collateral remove {hint}",
    ]


def _thousandths(share: float) -> int:
    """JSON without fractions."""
    return math.ceil(share * 1000)


def _newer(pieces: Sequence[Description], number: int, at: datetime) -> bool:
    """Whether another issue of the same subject, issued by ``at``, is newer; ``pieces`` are in their order."""
    own = pieces[number]
    return any(
        (other.kind, other.subject) == (own.kind, own.subject) and own.issued < other.issued <= at
        for other in pieces[:number]
    )


def _finding(piece: Description, superseded: bool, at: datetime, soon: timedelta) -> str:  # noqa: FBT001 - a fact
    if piece.issued > at:
        return "not yet issued"
    if superseded:
        return "superseded"
    if piece.revokes and piece.kind == "ocsp":
        return "revoked" if piece.says == "revoked" else "on hold"
    if piece.expires is None:
        return "no end stated"
    if piece.expires < at:
        return "expired"
    return "expires soon" if piece.expires - at < soon else ""
