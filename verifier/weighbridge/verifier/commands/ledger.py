"""``weighbridge ledger prove | verify | audit``.

Each command returns the text and the JSON document of its result, and raises on failure; printing, and turning errors
into exit codes, is the command line's work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from weighbridge.proto import limits, merkle, note, strict, tlog
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence
from weighbridge.verifier.commands.outcome import Outcome, load_anchors, read
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["configure", "run_audit", "run_prove", "run_verify"]

_KEY_HELP: Final = (
    "the ledger's public key: name+keyid+base64, as init prints it, or an anchors document with one ledger; its name "
    "is the ledger's origin"
)
_DIRECTORY_HELP: Final = "the ledger, such as STATE/ledger"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    commands = parser.add_subparsers(dest="ledger_command", required=True, metavar="COMMAND")

    prove = commands.add_parser("prove", help="print an offline proof that an entry is in a ledger")
    prove.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY_HELP)
    prove.add_argument("index", type=_index, metavar="INDEX", help="zero-based index of the entry")
    prove.set_defaults(run=run_prove)

    verify = commands.add_parser("verify", help="verify an offline proof of an entry")
    verify.add_argument("proof", type=Path, metavar="PROOF", help="a .tlog-proof file")
    entry = verify.add_mutually_exclusive_group(required=True)
    entry.add_argument("--entry", type=Path, metavar="FILE", help="the entry that is said to be in the ledger")
    entry.add_argument("--leaf-hash", metavar="HEX", help="its leaf hash, as a result token names it")
    verify.set_defaults(run=run_verify)

    whole = commands.add_parser("audit", help="re-verify a whole ledger from its files")
    whole.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY_HELP)
    whole.add_argument("--since", type=Path, metavar="FILE", help="a checkpoint kept from before, to be extended")
    whole.set_defaults(run=run_audit)

    for command in (prove, verify, whole):
        command.add_argument("--key", required=True, metavar="VKEY", help=_KEY_HELP)
        command.add_argument("--json", action="store_true", help="print one JSON document")


def run_prove(arguments: argparse.Namespace) -> Outcome:
    """A proof of one entry under the published checkpoint, verified before it is returned.

    Raises:
        WeighbridgeError: as :class:`.LedgerReader`; ``EVIDENCE_ABSENT`` when the ledger has no such entry.
    """
    directory: Path = arguments.directory
    index: int = arguments.index
    key = _key(arguments.key)
    reader = LedgerReader.open(directory, key=key, origin=key.name)
    if index >= reader.checkpoint.size:
        raise Indeterminate(
            Code.EVIDENCE_ABSENT,
            "the ledger has no such entry yet",
            where="INDEX",
            expected=f"< {reader.checkpoint.size}",
            got=index,
        )
    proof = reader.proof(index).encode()
    return Outcome(
        text=proof.decode(),
        document={
            "schema": "weighbridge/ledger-prove/v1",
            "origin": key.name,
            "index": index,
            "size": reader.checkpoint.size,
            "root": reader.checkpoint.root.hex(),
            "leaf_hash": reader.leaf_hash(index).hex(),
            "proof": proof.decode(),
        },
    )


def run_verify(arguments: argparse.Namespace) -> Outcome:
    """That an entry is in the ledger of ``--key``. Does not show that the checkpoint was shown to others as well.

    Raises:
        WeighbridgeError: as :func:`.tlog.verify_entry`.
    """
    key = _key(arguments.key)
    proof = tlog.parse_proof(read(arguments.proof, limit=2 * limits.CHECKPOINT_MAX))
    if arguments.entry is not None:
        leaf_hash = merkle.leaf_hash(read(arguments.entry, limit=limits.LEDGER_ENTRY_MAX))
    else:
        leaf_hash = strict.hex_decode(arguments.leaf_hash, what="--leaf-hash", size=limits.DIGEST_SIZE)
    verified = tlog.verify_entry(proof, leaf_hash, key, origin=key.name)
    return Outcome(
        text=f"in the ledger: entry {verified.index} of {verified.checkpoint.size} in {key.name}\n",
        document={
            "schema": "weighbridge/ledger-verify/v1",
            "origin": key.name,
            "index": verified.index,
            "size": verified.checkpoint.size,
            "root": verified.checkpoint.root.hex(),
            "leaf_hash": verified.leaf_hash.hex(),
        },
    )


def run_audit(arguments: argparse.Namespace) -> Outcome:
    """That all files of a ledger are one tree under its signed checkpoint.

    Raises:
        WeighbridgeError: as :func:`.audit`.
    """
    key = _key(arguments.key)
    earlier = None if arguments.since is None else read(arguments.since, limit=limits.CHECKPOINT_MAX)
    report = audit(arguments.directory, key, key.name, earlier=earlier)
    since = "" if report.consistent_with is None else f", extends the checkpoint of {report.consistent_with}"
    return Outcome(
        text=f"consistent: {report.size} entries, {report.tiles} tiles, root {report.root.hex()}{since}\n",
        document={
            "schema": "weighbridge/ledger-audit/v1",
            "origin": report.origin,
            "size": report.size,
            "root": report.root.hex(),
            "entry_bytes": report.entry_bytes,
            "tiles": report.tiles,
            "consistent_with": report.consistent_with,
        },
    )


def _key(text: str) -> note.NoteKey:
    """The key that ``--key`` gives: itself, or the name of a document that holds it.

    Raises:
        WeighbridgeError: ``KEY_MALFORMED``, or whatever is wrong with the document.
    """
    if "+" in text or not _is_file(text):
        return note.parse_vkey(text)
    ledgers = load_anchors([text]).select("ledger")
    if len(ledgers) != 1:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "not one ledger anchor", where=text, got=len(ledgers), hint="name the key itself"
        )
    return note.NoteKey.from_spki(ledgers[0].name, ledgers[0].spki)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # longer than any file's name
        return False


def _index(text: str) -> int:
    try:
        return strict.decimal(text, what="INDEX")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(error.message) from error
