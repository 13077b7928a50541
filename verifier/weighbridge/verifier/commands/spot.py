"""``weighbridge spot import | list``: the verifier's pool of spot challenges. Both work while it serves.

Nothing here prints a challenge, its key or its answer.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.spot import SpotPool
from weighbridge.verifier.commands.outcome import Outcome, read
from weighbridge.verifier.commands.state import open_store

if TYPE_CHECKING:
    from weighbridge.proto import strict

__all__ = ["configure"]

# A verifier that serves waits for the database meanwhile: for some milliseconds at a time. What an interrupted import
# left out, the next one brings.
_BATCH: Final = 256
_EPILOG: Final = """\
examples:
  weighbridge-attester spot-pool models/minilm --manifest model.json --count 5000 -o pool.json    # its owner
  weighbridge spot import /var/lib/verifier pool.json
  weighbridge spot list /var/lib/verifier
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of ``spot`` to ``parser``."""
    parser.description = (
        "The pool of spot challenges about models, which their owners make. Both verbs work beside `serve`."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    one = verbs.add_parser("import", help="take over an owner's pool of challenges; again changes nothing")
    one.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    one.add_argument(
        "pool", metavar="POOL", help="what `weighbridge-attester spot-pool` wrote, or - for standard input"
    )
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_import)
    one = verbs.add_parser("list", help="how many challenges are left and spent, by model")
    one.add_argument("state", type=Path, metavar="STATE", help="the verifier's directory")
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one.set_defaults(run=_run_list)


def _run_import(arguments: argparse.Namespace) -> Outcome:
    pool = _read_pool(arguments.pool)
    store = open_store(arguments.state)
    new = 0
    try:
        for first in range(0, len(pool.entries), _BATCH):
            with store.transaction() as tx:
                new += tx.spots.add(replace(pool, entries=pool.entries[first : first + _BATCH]))
    finally:
        store.close()
    known = len(pool.entries) - new
    text = f"{new} new challenges about {pool.name}; {known} were known already\nnow delete the pool\n"
    document: strict.JsonObject = {
        "schema": "weighbridge/spot-import/v1",
        "manifest": pool.manifest.hex(),
        "new": new,
        "known": known,
    }
    return Outcome(text, document)


def _read_pool(path: str) -> SpotPool:
    data = read(path, limit=limits.SPOT_POOL_MAX)
    try:
        return SpotPool.from_json(data)
    except MalformedEvidence as error:
        raise error.in_file(
            path,
            what="a pool of spot challenges",
            hint="name a file that `weighbridge-attester spot-pool -o` wrote",
        ) from error


def _run_list(arguments: argparse.Namespace) -> Outcome:
    store = open_store(arguments.state)
    try:
        with store.reading() as tx:
            counts = tx.spots.counts()
    finally:
        store.close()
    lines = [
        f"{count.left:>6} left  {count.spent:>6} spent  {count.name}\n  {count.manifest.hex()}\n" for count in counts
    ]
    listed: list[strict.JsonValue] = [
        {"manifest": count.manifest.hex(), "name": count.name, "left": count.left, "spent": count.spent}
        for count in counts
    ]
    return Outcome("".join(lines) or "no spot challenges\n", {"schema": "weighbridge/spots/v1", "models": listed})
