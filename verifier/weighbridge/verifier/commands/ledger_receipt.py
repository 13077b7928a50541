"""``weighbridge ledger receipt``, and what ``ledger verify`` says of receipts (RFC 9942).

A receipt is signed for the checkpoint that is published, and for no other tree: the files are read as a stranger would
read them, and everything is verified before the key is used.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, note, receipt, tlog
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent, MalformedEvidence, NotAuthentic
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.ledger_errors import EXITS, TILES_HINT, hinted
from weighbridge.verifier.commands.ledger_key import head_in
from weighbridge.verifier.commands.ledger_watch import source
from weighbridge.verifier.commands.outcome import Outcome, usage, write
from weighbridge.verifier.keys import open_ledger_key
from weighbridge.verifier.ledger.published import CHECKPOINT, about, no_ledger, told_of
from weighbridge.verifier.ledger.reader import LedgerReader

if TYPE_CHECKING:
    import argparse

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from weighbridge.verifier.ledger.source import Source

__all__ = ["configure", "run_receipt", "verify_entry", "verify_growth"]

# How the decoder of CBOR says so.
_CUT_SHORT: Final = "premature end of stream"


def configure(parser: argparse.ArgumentParser, *, log_help: str) -> None:
    """Add the arguments of ``ledger receipt``."""
    parser.description = (
        "Sign a COSE receipt (RFC 9942) that an entry is in the tree of the published checkpoint, or, with --since, "
        "that this tree begins with all of an earlier one. For whoever reads COSE; a proof by `ledger prove` needs no "
        f"key, and carries the cosignatures of witnesses. Exit 0 when it is written, {EXITS}"
    )
    parser.add_argument("log", type=source, metavar="LOG", help=log_help)
    parser.add_argument("index", type=_index, nargs="?", metavar="INDEX", help="zero-based index of the entry")
    parser.add_argument(
        "--since", type=Path, metavar="FILE", help="instead of INDEX: a checkpoint kept from before, to be extended"
    )
    parser.add_argument(
        "--key-file", required=True, type=Path, metavar="PEM", help="the ledger's private key: STATE/keys/ledger.pem"
    )
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="FILE", help="such as 7.receipt")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run_receipt)


@hinted
def run_receipt(arguments: argparse.Namespace) -> Outcome:
    """A receipt of one entry, or of consistency, under the published checkpoint; verified before it is written.

    Raises:
        UsageFault: unless exactly one of INDEX and ``--since`` is given.
        WeighbridgeError: as :class:`.LedgerReader` and :func:`.open_ledger_key`; ``EVIDENCE_ABSENT`` when there is
            nothing to give a receipt of; ``LEDGER_INCONSISTENT`` when the ledger is shorter than it was.
    """
    if (arguments.index is None) == (arguments.since is None):
        usage("exactly one of INDEX and --since says what the receipt is of", command="ledger receipt")
    with contextlib.closing(arguments.log):
        return _receipt(arguments.log, arguments)


def _receipt(log: Source, arguments: argparse.Namespace) -> Outcome:
    private = open_ledger_key(arguments.key_file)
    reader = _published(log, private)
    since = None if arguments.since is None else head_in(arguments.since, reader.checkpoint.key)
    with about(log.place("").rstrip("/"), hint=TILES_HINT):
        if since is None:
            signed, outcome = _of_entry(reader, arguments.index, private)
        else:
            signed, outcome = _of_growth(reader, since, private)
    write(arguments.output, signed, doing="writing the receipt")
    document = {**outcome.document, "schema": "weighbridge/ledger-receipt/v1", "bytes": len(signed)}
    return Outcome(f"wrote {arguments.output}: {outcome.text}", document)


def verify_entry(data: bytes, leaf_hash: bytes, key: note.NoteKey) -> Outcome:
    """That an entry is in the ledger of ``key``, by a receipt.

    Raises:
        WeighbridgeError: as :func:`.receipt.verify_inclusion`.
    """
    parsed = _parsed(data)
    if not isinstance(parsed.proof, receipt.Inclusion):
        usage("this is a receipt of consistency: name a checkpoint with --since", command="ledger verify")
    verified = receipt.verify_inclusion(parsed, leaf_hash, key, origin=key.name)
    return Outcome(
        text=f"in the ledger: entry {verified.index} of {verified.size} in {verified.origin}\n",
        document={
            "schema": "weighbridge/ledger-verify/v1",
            "origin": verified.origin,
            "index": verified.index,
            "size": verified.size,
            "root": verified.root.hex(),
            "leaf_hash": verified.leaf_hash.hex(),
        },
    )


def verify_growth(data: bytes, old: tlog.VerifiedCheckpoint) -> Outcome:
    """That the ledger of ``old`` has changed and removed nothing since then, by a receipt.

    Raises:
        WeighbridgeError: as :func:`.receipt.verify_consistency`.
    """
    parsed = _parsed(data)
    if not isinstance(parsed.proof, receipt.Consistency):
        usage("this is the receipt of an entry: name it with --entry or --leaf-hash", command="ledger verify")
    verified = receipt.verify_consistency(parsed, old, origin=old.origin)
    return Outcome(
        text=f"consistent: the tree of {verified.size} in {verified.origin} begins with all of the {old.size}\n",
        document={
            "schema": "weighbridge/ledger-verify/v1",
            "origin": verified.origin,
            "consistent_with": old.size,
            "size": verified.size,
            "root": verified.root.hex(),
        },
    )


def _published(log: Source, private: Ed25519PrivateKey) -> LedgerReader:
    """The ledger as it is published, which ``private`` has to have signed. Its name is what that key calls it."""
    path = log.place(CHECKPOINT)
    data = log.read(CHECKPOINT, limit=limits.CHECKPOINT_MAX)
    if data is None:
        raise no_ledger(path)
    with about(path):
        origin = tlog.Checkpoint.parse(note.parse(data).claimed_text).origin
    key = note.NoteKey(origin, private.public_key().public_bytes_raw())
    try:
        return LedgerReader.open(log, key=key, origin=origin)
    except NotAuthentic as error:
        raise told_of(
            error, path, hint="--key-file is the private key of this very ledger: keys/ledger.pem of its verifier"
        ) from error


def _of_entry(reader: LedgerReader, index: int, private: Ed25519PrivateKey) -> tuple[bytes, Outcome]:
    checkpoint = reader.checkpoint
    if index >= checkpoint.size:
        raise Indeterminate(
            Code.EVIDENCE_ABSENT, "the ledger has no such entry yet", where="INDEX", expected=f"< {checkpoint.size}",
            got=index, hint="entries are counted from 0",
        )  # fmt: skip
    if checkpoint.size == 1:
        raise Indeterminate(
            Code.EVIDENCE_ABSENT, "a ledger of one entry gives no receipts", where="INDEX", expected=">= 2 entries",
            got=1, clause="RFC 9942 §5.2", hint="ask again when it has grown, or use `weighbridge ledger prove`",
        )  # fmt: skip
    leaf_hash = reader.leaf_hash(index)
    proof = receipt.Inclusion(index, reader.inclusion_proof(index))
    signed = receipt.sign_inclusion(checkpoint, leaf_hash, proof, signer=private.sign)
    outcome = verify_entry(signed, leaf_hash, checkpoint.key)
    text = f"receipt of entry {index} of {checkpoint.size} in {checkpoint.origin}\n"
    return signed, Outcome(text, {**outcome.document, "kind": "inclusion"})


def _of_growth(reader: LedgerReader, old: tlog.VerifiedCheckpoint, private: Ed25519PrivateKey) -> tuple[bytes, Outcome]:
    new = reader.checkpoint
    if old.size > new.size:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT, "ledger is shorter than it was", where="checkpoint", expected=f">= {old.size}",
            got=new.size, hint="it was put back to an earlier state, or this is an old copy of it",
        )  # fmt: skip
    if old.size in {0, new.size} and (old.root == new.root or not old.size):
        raise Indeterminate(
            Code.EVIDENCE_ABSENT, "there is no growth to give a receipt of", where="--since",
            expected=f"1..{new.size - 1}", got=old.size, clause="RFC 9942 §5.3",
            hint="name a checkpoint that is older than the published one and not empty",
        )  # fmt: skip
    path = reader.consistency_proof(old.size)
    signed = receipt.sign_consistency(old, new, path, signer=private.sign)
    outcome = verify_growth(signed, old)
    text = f"receipt that the tree of {new.size} in {new.origin} begins with all of the {old.size}\n"
    return signed, Outcome(text, {**outcome.document, "kind": "consistency"})


def _parsed(data: bytes) -> receipt.Receipt:
    try:
        return receipt.parse(data)
    except MalformedEvidence as error:
        hint = "have it again from whoever wrote it: `weighbridge ledger receipt` does"
        if _CUT_SHORT in error.message:
            raise MalformedEvidence(
                error.code, "receipt ends too early: it is cut short", where=error.where, got=f"{len(data)} bytes",
                clause=error.clause, hint=hint,
            ) from error  # fmt: skip
        raise told_of(error, "", hint=hint) from error


def _index(text: str) -> int:
    return given.decimal(text, what="INDEX", limit=2**63 - 1)
