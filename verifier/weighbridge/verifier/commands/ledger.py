"""``weighbridge ledger prove | receipt | verify | audit``, and what :mod:`.ledger_watch` and :mod:`.ledger_witness` do.

Each command returns the text and the JSON document of its result, and raises on failure; printing, and turning errors
into exit codes, is the command line's work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from weighbridge.proto import limits, merkle, receipt, strict, tlog
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import ledger_receipt, ledger_watch, ledger_witness
from weighbridge.verifier.commands.ledger_key import KEY_HELP, WITNESS_HELP, ledger_key, require_witnesses
from weighbridge.verifier.commands.ledger_witness import COSIGNED
from weighbridge.verifier.commands.outcome import Outcome, read, usage, write
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["configure", "run_audit", "run_prove", "run_verify"]

_DIRECTORY_HELP: Final = "the ledger, such as STATE/ledger"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    commands = parser.add_subparsers(dest="ledger_command", required=True, metavar="COMMAND")

    prove = commands.add_parser("prove", help="print an offline proof that an entry is in a ledger")
    prove.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY_HELP)
    prove.add_argument("index", type=_index, metavar="INDEX", help="zero-based index of the entry")
    prove.add_argument("-o", "--output", type=given.output, metavar="FILE", help="write it there: 7.tlog-proof")
    prove.add_argument(
        "--cosigned", action="store_true", help="under DIR/cosigned, which witnesses cosigned, not DIR/checkpoint"
    )
    prove.set_defaults(run=run_prove)

    ledger_receipt.configure(
        commands.add_parser("receipt", help="sign a COSE receipt (RFC 9942) of an entry"),
        directory_help=_DIRECTORY_HELP,
    )

    verify = commands.add_parser("verify", help="verify an offline proof or a receipt")
    verify.description = (
        "Verify that an entry is in a ledger, by a .tlog-proof file or by a COSE receipt (RFC 9942), whichever the "
        "file is; or, by a receipt of consistency, that nothing was changed or removed since a checkpoint."
    )
    verify.add_argument("proof", type=Path, metavar="PROOF", help="a .tlog-proof file, or a receipt")
    entry = verify.add_mutually_exclusive_group(required=True)
    entry.add_argument("--entry", type=Path, metavar="FILE", help="the entry that is said to be in the ledger")
    entry.add_argument("--leaf-hash", metavar="HEX", help="its leaf hash, as a result token names it")
    entry.add_argument(
        "--since", type=Path, metavar="FILE", help="a checkpoint kept from before, for a receipt of consistency"
    )
    verify.add_argument(
        "--witness", action="append", default=[], metavar="VKEY", help=f"demand a cosignature: {WITNESS_HELP}"
    )
    verify.set_defaults(run=run_verify)

    whole = commands.add_parser("audit", help="re-verify a whole ledger from its files")
    whole.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY_HELP)
    whole.add_argument("--since", type=Path, metavar="FILE", help="a checkpoint kept from before, to be extended")
    whole.set_defaults(run=run_audit)

    watched = commands.add_parser("monitor", help="follow a log and tell of forks, gaps, silence and other policies")
    ledger_watch.configure(watched)
    witness = commands.add_parser("witness", help="follow a log and cosign its heads")
    ledger_witness.configure_witness(witness)
    ledger_witness.configure_key(commands.add_parser("witness-key", help="make a witness's key"))
    cosign = commands.add_parser("cosign", help="publish what witnesses have cosigned")
    ledger_witness.configure_cosign(cosign)
    compare = commands.add_parser("compare", help="say whether two signed heads can both be true")
    ledger_witness.configure_compare(compare)

    for command in (prove, verify, whole, watched, witness, cosign, compare):
        command.add_argument("--key", required=True, metavar="VKEY", help=KEY_HELP)
        command.add_argument("--json", action="store_true", help="print one JSON document")


def run_prove(arguments: argparse.Namespace) -> Outcome:
    """A proof of one entry under the published checkpoint, verified before it is returned.

    Raises:
        WeighbridgeError: as :class:`.LedgerReader`; ``EVIDENCE_ABSENT`` when the ledger has no such entry.
    """
    directory: Path = arguments.directory
    index: int = arguments.index
    key = ledger_key(arguments.key)
    reader = LedgerReader.open(directory, key=key, origin=key.name)
    if arguments.cosigned:
        cosigned = read(directory / COSIGNED, limit=limits.CHECKPOINT_MAX)
        reader = LedgerReader(directory, tlog.open_checkpoint(cosigned, key, origin=key.name))
    if index >= reader.checkpoint.size:
        raise Indeterminate(
            Code.EVIDENCE_ABSENT,
            "the ledger has no such entry yet",
            where="INDEX",
            expected=f"< {reader.checkpoint.size}",
            got=index,
        )
    proof = reader.proof(index).encode()
    text = proof.decode()
    if arguments.output is not None:
        write(arguments.output, proof, doing="writing the proof")
        text = f"wrote {arguments.output}: entry {index} of {reader.checkpoint.size} in {key.name}\n"
    return Outcome(
        text=text,
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
        WeighbridgeError: as :func:`.tlog.verify_entry`, or as the functions of :mod:`.proto.receipt`.
        UsageFault: ``--since`` with a proof of an entry, or ``--witness`` with a receipt.
        NotAuthentic: ``LEDGER_WITNESS``.
    """
    key = ledger_key(arguments.key)
    data = read(arguments.proof, limit=2 * limits.CHECKPOINT_MAX)
    if arguments.witness and receipt.is_receipt(data):
        usage("--witness is for proofs: a receipt carries no cosignatures", command="ledger verify")
    if arguments.since is not None:
        if not receipt.is_receipt(data):
            usage("--since is for receipts of consistency, and the file is none", command="ledger verify")
        return ledger_receipt.verify_growth(data, read(arguments.since, limit=limits.CHECKPOINT_MAX), key)
    if arguments.entry is not None:
        leaf_hash = merkle.leaf_hash(read(arguments.entry, limit=limits.LEDGER_ENTRY_MAX))
    else:
        leaf_hash = strict.hex_decode(arguments.leaf_hash, what="--leaf-hash", size=limits.DIGEST_SIZE)
    if receipt.is_receipt(data):
        return ledger_receipt.verify_entry(data, leaf_hash, key)
    verified = tlog.verify_entry(tlog.parse_proof(data), leaf_hash, key, origin=key.name)
    witnesses = require_witnesses(verified.checkpoint.note, arguments.witness)
    cosigned = "".join(
        f"  cosigned by {item.key.name} at {strict.time_encode(moment(item.time * 10**9))}\n" for item in witnesses
    )
    return Outcome(
        text=f"in the ledger: entry {verified.index} of {verified.checkpoint.size} in {key.name}\n{cosigned}",
        document={
            "schema": "weighbridge/ledger-verify/v1",
            "origin": key.name,
            "index": verified.index,
            "size": verified.checkpoint.size,
            "root": verified.checkpoint.root.hex(),
            "leaf_hash": verified.leaf_hash.hex(),
            "witnesses": [{"name": item.key.name, "time": item.time} for item in witnesses],
        },
    )


def run_audit(arguments: argparse.Namespace) -> Outcome:
    """That all files of a ledger are one tree under its signed checkpoint.

    Raises:
        WeighbridgeError: as :func:`.audit`.
    """
    key = ledger_key(arguments.key)
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


def _index(text: str) -> int:
    try:
        return strict.decimal(text, what="INDEX")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(error.message) from error
