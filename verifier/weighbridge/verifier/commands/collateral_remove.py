"""``weighbridge collateral remove``: pieces of the store are forgotten, and what trust that gives back is said."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.collateral.ended import ended, is_over, taken
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.collateral_rows import HEAD, in_order, row
from weighbridge.verifier.commands.outcome import Outcome, usage
from weighbridge.verifier.commands.text import counted, plain, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.collateral.describe import Description
    from weighbridge.verifier.collateral.store import Damaged

__all__ = ["configure_remove"]

_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
_DESCRIPTION: Final = """\
Forget pieces: those that are named, or with --ended those that have run out
and take no trust away. These are OCSP responses that say good or unknown, and
lists without entries that a newer one has replaced; never a manifest, which
replaces those before it when it is over, too. What revokes goes by its digest
alone, and then it is said that trust comes back by that. A damaged piece goes
by the name of its file. Where one digest names no piece, or several, none is
removed. Records and bundles keep what they were judged by."""
_EPILOG: Final = """\
by a timer, after fetch: what has run out, and only what takes no trust away
  weighbridge collateral remove --ended --store /var/lib/weighbridge/collateral

see first what that would be
  weighbridge collateral remove --ended --dry-run --store /var/lib/weighbridge/collateral

two pieces by what `list` and `check` show of their digests, whatever they say
  weighbridge collateral remove 3fd1c09a77b2e410 a90b2244 --store /var/lib/weighbridge/collateral
"""


def configure_remove(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``collateral remove`` to ``parser``."""
    parser.description = _DESCRIPTION
    parser.epilog, parser.formatter_class = f"examples:\n\n{_EPILOG}", argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "digests", nargs="*", metavar="DIGEST", type=_digest, help="SHA-256 of a piece, or its first 8 digits or more"
    )
    parser.add_argument("--store", metavar="DIR", type=Path, required=True, help="the store's directory")
    parser.add_argument("--ended", action="store_true", help="what has run out and takes no trust away")
    parser.add_argument("--at", metavar="TIME", default="now", type=given.time, help="at this time (default: now)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    parser.set_defaults(run=_run_remove)


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError("8 to 64 hexadecimal digits")
    return text.lower()


def _run_remove(arguments: argparse.Namespace) -> Outcome | ExitCode:
    if not arguments.digests and not arguments.ended:
        return usage("nothing to remove: name digests, or --ended", command="collateral remove")
    store = CollateralStore.open(arguments.store)
    names = set(store.named(arguments.digests))
    if arguments.ended:
        # What is damaged may have been a reason for another piece to stay.
        store.check_whole(besides=names)
    pieces = store.pieces()
    # One was damaged and is named, or it was removed by somebody just now: then there is nothing to say of it.
    damaged = [each for each in store.damaged() if each.path.name in names]
    if arguments.ended:
        names.update(piece.digest.hex() for piece in ended(pieces, arguments.at))
    going = in_order(piece for piece in pieces if piece.digest.hex() in names)
    staying = [piece for piece in pieces if piece.digest.hex() not in names]
    if not arguments.dry_run:
        store.remove(names)
    return _outcome(arguments, going, staying, damaged)


def _outcome(
    arguments: argparse.Namespace, going: list[Description], staying: list[Description], damaged: Sequence[Damaged]
) -> Outcome:
    is_dry = arguments.dry_run
    losses = [taken(piece, staying) for piece in going]
    left = sum(1 for piece in staying if is_over(piece, arguments.at)) if arguments.ended else 0
    lines = [*table(HEAD, [row(piece) for piece in going], right=0)] if going else []
    lines += [f"damaged  {plain(str(each.path))}: {plain(each.reason)}" for each in damaged]
    lines += [
        f"this {'takes' if is_dry else 'took'} trust away: {piece.kind} {piece.digest.hex()[:16]} "
        f"{plain(f'{piece.subject}: {loss}')}"
        for piece, loss in zip(going, losses, strict=True)
        if loss
    ]
    if any(each.lost for each in damaged):
        lines.append("what was damaged may have taken trust away: fetch it again")
    gone = counted(len(going) + len(damaged), "piece")
    lines.append(f"{arguments.store}: {gone} {'would be ' if is_dry else ''}removed, {len(staying)} left")
    if left:
        lines.append(f"{left} of them over: they take trust away or replace others, and go by their digests alone")
    document: strict.JsonObject = {
        "schema": "weighbridge/collateral-remove/v1",
        "store": str(arguments.store),
        "at": strict.time_encode(arguments.at),
        "dry_run": is_dry,
        "removed": [
            {**piece.document(), "took_trust_away": loss or None} for piece, loss in zip(going, losses, strict=True)
        ],
        "damaged": [{"path": str(each.path), "reason": each.reason, "lost": each.lost} for each in damaged],
        "pieces": len(staying),
        "over": left,
    }
    return Outcome("\n".join(lines) + "\n", document)
