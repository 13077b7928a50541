"""``weighbridge ledger prove | receipt | verify | audit``, and what :mod:`.ledger_watch` and :mod:`.ledger_witness` do.

Each command returns the text and the JSON document of its result, and raises on failure; printing, and turning errors
into exit codes, is the command line's work.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, merkle, receipt, strict, tlog
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence
from weighbridge.verifier.clock import moment
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands import ledger_receipt, ledger_watch, ledger_witness
from weighbridge.verifier.commands.ledger_errors import EXITS, TILES_HINT, hinted
from weighbridge.verifier.commands.ledger_key import KEY_HELP, WITNESS_HELP, head_in, ledger_key, require_witnesses
from weighbridge.verifier.commands.outcome import Outcome, read, usage, write
from weighbridge.verifier.commands.text import counted
from weighbridge.verifier.file_kinds import kind_of
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.published import CHECKPOINT, COSIGNED, about
from weighbridge.verifier.ledger.reader import LedgerReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto.cosignature import VerifiedCosignature
    from weighbridge.verifier.ledger.source import Source

__all__ = ["configure", "run_audit", "run_prove", "run_verify"]

_LOG_HELP: Final = "the ledger: a directory such as STATE/ledger, or the address of its files (http(s)://, s3://)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an :class:`Outcome`."""
    parser.description = (
        "Prove that something is in a ledger, verify proofs and receipts, audit a ledger, and watch one. The files are "
        "those of C2SP tlog-tiles; docs/ledger.md says how to do the same without this program. Nothing that is read "
        "is believed but what --key signed."
    )
    commands = parser.add_subparsers(dest="ledger_command", required=True, metavar="COMMAND")

    prove = commands.add_parser("prove", help="print an offline proof that an entry is in a ledger")
    prove.description = (
        "Print a .tlog-proof (C2SP tlog-proof) that an entry is in the tree of the published checkpoint, verified "
        f"first. Whoever has the ledger's public key verifies it without the ledger. Exit 0 when it is printed, {EXITS}"
    )
    prove.add_argument("log", type=ledger_watch.source, metavar="LOG", help=_LOG_HELP)
    prove.add_argument("index", type=_index, metavar="INDEX", help="zero-based index of the entry")
    prove.add_argument("-o", "--output", type=given.output, metavar="FILE", help="write it there: 7.tlog-proof")
    prove.add_argument(
        "--cosigned", action="store_true", help="under LOG/cosigned, which witnesses cosigned, not LOG/checkpoint"
    )
    prove.set_defaults(run=run_prove)

    ledger_receipt.configure(
        commands.add_parser("receipt", help="sign a COSE receipt (RFC 9942) of an entry"),
        log_help=_LOG_HELP,
    )

    verify = commands.add_parser("verify", help="verify an offline proof or a receipt")
    verify.description = (
        "Verify that an entry is in a ledger, by a .tlog-proof file or by a COSE receipt (RFC 9942), whichever the "
        "file is; or, by a receipt of consistency, that nothing was changed or removed since a checkpoint. Exit 0 "
        f"when it is so, {EXITS} A proof of another entry leads to another root than the signed one: 7; a receipt has "
        "no root beside its signature, so one of another entry is not signed: 4."
    )
    verify.add_argument("proof", type=Path, metavar="PROOF", help="a .tlog-proof file, or a receipt")
    entry = verify.add_mutually_exclusive_group(required=True)
    entry.add_argument("--entry", type=Path, metavar="FILE", help="the entry that is said to be in the ledger")
    entry.add_argument("--leaf-hash", metavar="HEX", help="its leaf hash, as a result token names it")
    entry.add_argument(
        "--since", type=Path, metavar="FILE", help="a checkpoint kept from before, for a receipt of consistency"
    )
    verify.set_defaults(run=run_verify)

    whole = commands.add_parser("audit", help="re-verify a whole ledger from its files")
    whole.description = (
        "Hash every entry of a ledger, compare every tile, and demand the signed root; with --since, that nothing was "
        "changed or removed since a checkpoint that you kept; with --witness, that these witnesses cosigned the head. "
        "A verifier may be writing to it meanwhile. Does not show that others were given the same ledger: compare "
        f"heads, or demand witnesses. Exit 0 when all of it holds, {EXITS}"
    )
    whole.add_argument("log", type=ledger_watch.source, metavar="LOG", help=_LOG_HELP)
    whole.add_argument("--since", type=Path, metavar="FILE", help="a checkpoint kept from before, to be extended")
    whole.add_argument(
        "--cosigned", action="store_true", help="up to LOG/cosigned, which witnesses cosigned, not LOG/checkpoint"
    )
    whole.set_defaults(run=run_audit)
    for command in (verify, whole):
        command.add_argument(
            "--witness",
            action="append",
            default=[],
            metavar="VKEY",
            help=f"demand a cosignature (several times: of each): {WITNESS_HELP}",
        )

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


@hinted
def run_prove(arguments: argparse.Namespace) -> Outcome:
    """A proof of one entry under the published checkpoint, verified before it is returned.

    Raises:
        WeighbridgeError: as :class:`.LedgerReader`; ``EVIDENCE_ABSENT`` when the ledger has no such entry.
    """
    with contextlib.closing(arguments.log):
        return _prove(arguments.log, arguments)


def _prove(log: Source, arguments: argparse.Namespace) -> Outcome:
    index: int = arguments.index
    key = ledger_key(arguments.key)
    reader = LedgerReader.open(log, key=key, origin=key.name, head=_head(log, cosigned=arguments.cosigned))
    if index >= reader.checkpoint.size:
        raise Indeterminate(
            Code.EVIDENCE_ABSENT,
            "the ledger has no such entry yet",
            where="INDEX",
            expected=f"< {reader.checkpoint.size}",
            got=index,
            hint="entries are counted from 0; ask again when it has grown"
            + (", or leave out --cosigned: the newest head has more" if arguments.cosigned else ""),
        )
    with about(log.place("").rstrip("/"), hint=TILES_HINT):
        proof = reader.proof(index).encode()
        leaf_hash = reader.leaf_hash(index)
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
            "leaf_hash": leaf_hash.hex(),
            "proof": proof.decode(),
        },
    )


@hinted
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
        old = head_in(arguments.since, key)
        with about(arguments.proof):
            return ledger_receipt.verify_growth(data, old)
    if arguments.entry is not None:
        leaf_hash = merkle.leaf_hash(read(arguments.entry, limit=limits.LEDGER_ENTRY_MAX))
    else:
        leaf_hash = strict.hex_decode(arguments.leaf_hash, what="--leaf-hash", size=limits.DIGEST_SIZE)
    with about(arguments.proof):
        if receipt.is_receipt(data):
            return ledger_receipt.verify_entry(data, leaf_hash, key)
        verified = tlog.verify_entry(_parsed(data), leaf_hash, key, origin=key.name)
        witnesses = require_witnesses(verified.checkpoint.note, arguments.witness, of=key)
    return Outcome(
        text=f"in the ledger: entry {verified.index} of {verified.checkpoint.size} in {key.name}\n"
        f"{_cosigned_text(witnesses)}",
        document={
            "schema": "weighbridge/ledger-verify/v1",
            "origin": key.name,
            "index": verified.index,
            "size": verified.checkpoint.size,
            "root": verified.checkpoint.root.hex(),
            "leaf_hash": verified.leaf_hash.hex(),
            "witnesses": _cosigned_document(witnesses),
        },
    )


@hinted
def run_audit(arguments: argparse.Namespace) -> Outcome:
    """That all files of a ledger are one tree under its signed head, which ``--witness`` cosigned.

    Raises:
        WeighbridgeError: as :func:`.audit` and :func:`.require_witnesses`.
    """
    with contextlib.closing(arguments.log):
        return _audit(arguments.log, arguments)


def _audit(log: Source, arguments: argparse.Namespace) -> Outcome:
    key = ledger_key(arguments.key)
    head = _head(log, cosigned=arguments.cosigned)
    earlier = None if arguments.since is None else head_in(arguments.since, key).note
    report = audit(log, key, key.name, earlier=earlier, head=head)
    with about(log.place(head)):
        witnesses = require_witnesses(report.note, arguments.witness, of=key)
    since = "" if report.consistent_with is None else f", extends the checkpoint of {report.consistent_with}"
    return Outcome(
        text=f"consistent: {_entries(report.size)}, {counted(report.tiles, 'tile')}, root {report.root.hex()}{since}\n"
        f"{_cosigned_text(witnesses)}",
        document={
            "schema": "weighbridge/ledger-audit/v1",
            "origin": report.origin,
            "size": report.size,
            "root": report.root.hex(),
            "entry_bytes": report.entry_bytes,
            "tiles": report.tiles,
            "consistent_with": report.consistent_with,
            "witnesses": _cosigned_document(witnesses),
        },
    )


def _head(log: Source, *, cosigned: bool) -> str:
    """The file with the head that is asked for.

    Raises:
        Indeterminate: ``EVIDENCE_ABSENT``: no witness's cosignature was published here.
    """
    if not cosigned:
        return CHECKPOINT
    missing = (name for name in (CHECKPOINT, COSIGNED) if log.read(name, limit=limits.CHECKPOINT_MAX) is None)
    if next(missing, None) == COSIGNED:
        raise Indeterminate(
            Code.EVIDENCE_ABSENT, "no witness has cosigned this ledger", where=log.place(COSIGNED),
            hint="`weighbridge ledger cosign` publishes what witnesses cosigned; else leave out --cosigned",
        )  # fmt: skip
    return COSIGNED


def _parsed(data: bytes) -> tlog.Proof:
    kind = kind_of(data)
    try:
        return tlog.parse_proof(data)
    except MalformedEvidence as error:
        if kind.startswith("a proof"):
            raise
        raise MalformedEvidence(
            error.code, "neither a proof nor a receipt", where=error.where, expected="a .tlog-proof or a COSE receipt",
            got=kind, hint="`weighbridge ledger prove` and `weighbridge ledger receipt` write them",
        ) from error  # fmt: skip


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _cosigned_text(witnesses: Sequence[VerifiedCosignature]) -> str:
    return "".join(
        f"  cosigned by {item.key.name} at {strict.time_encode(moment(item.time * 10**9))}\n" for item in witnesses
    )


def _cosigned_document(witnesses: Sequence[VerifiedCosignature]) -> strict.JsonValue:
    return [{"name": item.key.name, "time": item.time} for item in witnesses]


def _index(text: str) -> int:
    try:
        return strict.decimal(text, what="INDEX")
    except MalformedEvidence as error:
        raise argparse.ArgumentTypeError(error.message) from error
