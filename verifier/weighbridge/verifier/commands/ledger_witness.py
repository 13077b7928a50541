"""``weighbridge ledger witness | witness-key | cosign | compare``: who watches a log says so where others can read it.

A witness is a monitor with a key: it cosigns a head after it has read every entry up to it, and has written down that
it did. It speaks to nobody: what it signs is a file, which the log's operator adds with ``cosign`` (or whoever else
wants the word of a witness keeps). Two who were shown heads put them side by side with ``compare``.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cosignature, limits, note, strict, tlog
from weighbridge.proto.cosignature import WitnessKey
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.commands import arguments as given
from weighbridge.verifier.commands.ledger_errors import EXITS, hinted
from weighbridge.verifier.commands.ledger_key import WITNESS_HELP, head_in, ledger_key, witness_keys
from weighbridge.verifier.commands.ledger_watch import add_watch, source, watch
from weighbridge.verifier.commands.outcome import Outcome, read, usage, write
from weighbridge.verifier.keys import create_witness_key, open_ledger_key
from weighbridge.verifier.ledger.bucket import Bucket
from weighbridge.verifier.ledger.cosigned import Board, board, log_of
from weighbridge.verifier.ledger.heads import ForkEvidence, Relation, nodes_at, relate
from weighbridge.verifier.ledger.published import CHECKPOINT, COSIGNED, about, open_head
from weighbridge.verifier.ledger.s3 import S3Address, S3Objects
from weighbridge.verifier.ledger.source import Source
from weighbridge.verifier.witnesses import require_another

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.errors import ExitCode
    from weighbridge.verifier.commands.ledger_watch import Teller
    from weighbridge.verifier.ledger.monitor import Look

__all__ = ["configure_compare", "configure_cosign", "configure_key", "configure_witness"]

_SECOND: Final = 10**9
_EVIDENCE_MAX: Final = 1024 * 1024
_LINE: Final = "\u2014 ".encode()


def configure_witness(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ledger witness``; ``--key`` and ``--json`` are every ledger command's."""
    parser.description = (
        "Follow a log as `ledger monitor` does, and cosign each head that has grown from all that was seen before "
        "(C2SP tlog-cosignature). What a monitor tells of sessions keeps no witness from cosigning: it says that "
        "the log only grew, not that what is in it is good. Exit status: as `ledger monitor`; with 0 and 6 it "
        "cosigned, and says which head."
    )
    add_watch(parser)
    parser.add_argument("--key-file", required=True, type=Path, metavar="PEM", help="the witness's private key")
    parser.add_argument("--name", required=True, type=_name, metavar="NAME", help="the witness's name")
    parser.add_argument(
        "-o", "--output", required=True, type=given.output, metavar="FILE", help="the head, as last cosigned"
    )
    parser.set_defaults(run=run_witness)


def configure_key(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ledger witness-key``."""
    parser.description = (
        "Make an Ed25519 key for cosigning, and a trust-anchors document (purpose witness) for whoever wants to "
        "believe it. One key belongs to one witness, and to nothing else. Exit 0 when both are made, 8 when one cannot "
        "be written: a key is never replaced."
    )
    parser.add_argument("name", metavar="NAME", type=_name, help="the witness's name, such as witness.example/w1")
    parser.add_argument("-o", "--output", required=True, type=given.output, metavar="PEM", help="the private key")
    parser.add_argument("--anchors", required=True, type=given.output, metavar="FILE", help="the anchors document")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run_key)


def configure_cosign(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ledger cosign``; ``--key`` and ``--json`` are every ledger command's."""
    parser.description = (
        "Publish what witnesses have cosigned: LOG/cosigned, beside LOG/checkpoint, is the newest head with their "
        "lines. While nobody writes to the ledger, and its head is the cosigned one, LOG/checkpoint gets the lines "
        f"too. Exit 0 when it is published, {EXITS}"
    )
    parser.add_argument(
        "log", type=_ledger, metavar="LOG", help="the ledger: a directory such as STATE/ledger, or an s3:// address"
    )
    parser.add_argument(
        "cosigned", nargs="+", type=Path, metavar="COSIGNED", help="a head that a witness cosigned, or lines for LOG's"
    )
    parser.add_argument("--witness", required=True, action="append", metavar="VKEY", help=WITNESS_HELP)
    parser.set_defaults(run=run_cosign)


def configure_compare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ledger compare``; ``--key`` and ``--json`` are every ledger command's."""
    parser.description = (
        "Whether two signed heads of one ledger can both be true: of one size they have one root; of two sizes, the "
        f"tiles of the larger one show whether it begins with the smaller one. Exit 0 when they can, {EXITS}"
    )
    parser.add_argument("first", type=Path, metavar="NOTE", help="a signed head; or evidence that a monitor kept")
    parser.add_argument("second", type=Path, nargs="?", metavar="NOTE", help="another one")
    parser.add_argument(
        "--log", type=source, metavar="LOG", help="where tiles are: a directory, or the http(s) address of its files"
    )
    parser.set_defaults(run=run_compare)


# -- the witness -------------------------------------------------------------------------------------------------------


@hinted
def run_witness(arguments: argparse.Namespace) -> ExitCode:
    """A monitor that cosigns.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS``: the key is the log's own.
        WeighbridgeError: as :func:`.open_ledger_key`.
    """
    private = open_ledger_key(arguments.key_file)
    key = WitnessKey(arguments.name, private.public_key().public_bytes_raw())
    require_another(key, ledger_key(arguments.key))

    def cosign(teller: Teller, look: Look, at: datetime) -> None:
        # What was seen is durable by now: no crash makes this witness cosign another history afterwards.
        checkpoint, time_s = look.watched.checkpoint, nanoseconds(at) // _SECOND
        text = note.parse(checkpoint.note).claimed_text
        line = cosignature.sign(text, key=key, time=time_s, signer=private.sign)
        signed = cosignature.attach(checkpoint.note, line, keys=[key])
        write(arguments.output, signed, doing="writing the cosigned head")
        if arguments.once or look.is_news:
            root = checkpoint.root.hex()
            document: strict.JsonObject = {
                "size": checkpoint.size,
                "root": root,
                "witness": key.name,
                "time": time_s,
                "file": str(arguments.output),
            }
            told = f"{checkpoint.size} entries, root {root}, by {key.name}: wrote {arguments.output}"
            teller.said("cosigned", told, document, at=at)

    return watch(arguments, cosign)


@hinted
def run_key(arguments: argparse.Namespace) -> Outcome:
    """A new key, and the anchor by which others believe it.

    Raises:
        EnvironmentFault: ``FILE_UNWRITABLE``, ``DISK_FULL``.
    """
    private = create_witness_key(arguments.output)
    key = WitnessKey(arguments.name, private.public_key().public_bytes_raw())
    since = moment(time.time_ns()).replace(microsecond=0)
    source = "exported by the witness that holds the private key"
    anchor = Anchor("witness", key.name, "weighbridge", key.spki, since, given.LAST, source)
    write(arguments.anchors, TrustAnchors((anchor,)).encode(), doing="writing the anchors")
    return Outcome(
        text=f"made a key for {key.name}\n"
        f"  key      {arguments.output} (keep it; whoever has it speaks for this witness)\n"
        f"  anchors  {arguments.anchors} (give it to whoever wants to believe the witness)\n"
        f"  vkey     {key.vkey} (compare it over another channel)\n",
        document={"schema": "weighbridge/ledger-witness-key/v1", "witness": key.vkey, "sha256": anchor.sha256},
    )


# -- the log's side ----------------------------------------------------------------------------------------------------


@hinted
def run_cosign(arguments: argparse.Namespace) -> Outcome:
    """Publish cosignatures, each verified, on a head that this ledger has grown from.

    Raises:
        WeighbridgeError: ``LEDGER_WITNESS``, ``LEDGER_FORK``, or whatever is wrong with a file.
    """
    key = ledger_key(arguments.key)
    witnesses = witness_keys(arguments.witness, of=key)
    with contextlib.ExitStack() as stack:
        where: Path | Bucket = arguments.log
        if isinstance(where, Bucket):
            stack.callback(where.close)
        published = _published(log_of(where), key)
        return _cosign(published, arguments.cosigned, witnesses, on=stack.enter_context(board(where)))


def _cosign(
    published: tlog.VerifiedCheckpoint, files: list[Path], witnesses: tuple[WitnessKey, ...], *, on: Board
) -> Outcome:
    head, key = published, published.key
    place = on.log.place(COSIGNED)
    if (before := on.read()) is not None:
        head = open_head(before, key, origin=key.name, where=place)
        _require_growth(head, published, on.log)
    signed = head.note if before is not None else None
    for path in files:
        offered = _offered(path, published, key, witnesses)
        with about(path):
            _require_growth(offered, published, on.log)
        signed = _merged(signed, offered, key, witnesses)
    if signed is None:
        raise RuntimeError("at least one file was given")
    result = tlog.open_checkpoint(signed, key, origin=key.name)
    on.replace(signed)
    is_head = (result.size, result.root) == (published.size, published.root)
    lined = cosignature.attach(published.note, _lines(signed), keys=witnesses) if is_head else b""
    is_published = is_head and on.publish(published.note, lined)
    found = cosignature.verify_all(note.parse(signed), witnesses)
    lines = [f"  {item.key.name}  {strict.time_encode(moment(item.time * _SECOND))}" for item in found]
    also = ", and checkpoint" if is_published else ""
    head_line = f"wrote {place}{also}: {result.size} entries of {published.size}, cosigned by"
    return Outcome(
        text="\n".join([head_line, *lines, ""]),
        document={
            "schema": "weighbridge/ledger-cosign/v1",
            "origin": key.name,
            "size": result.size,
            "root": result.root.hex(),
            "published": published.size,
            "checkpoint": is_published,
            "witnesses": [{"name": item.key.name, "time": item.time} for item in found],
        },
    )


def _published(log: Source, key: note.NoteKey) -> tlog.VerifiedCheckpoint:
    data = log.read(CHECKPOINT, limit=limits.CHECKPOINT_MAX)
    return open_head(data, key, origin=key.name, where=log.place(CHECKPOINT))


def _offered(
    path: Path, published: tlog.VerifiedCheckpoint, key: note.NoteKey, witnesses: tuple[WitnessKey, ...]
) -> tlog.VerifiedCheckpoint:
    """The head in the file ``path``, with at least one good line by a known witness."""
    data = read(path, limit=limits.CHECKPOINT_MAX)
    with about(path):
        if data.startswith(_LINE):
            # Bare lines, as services hand them out: they are over the published head, or over nothing here.
            data = cosignature.attach(published.note, data, keys=witnesses)
        offered = tlog.open_checkpoint(data, key, origin=key.name)
        parsed = note.parse(data)
        if not cosignature.verify_all(parsed, witnesses):
            cosignature.verify(parsed, witnesses[0])
        return offered


def _merged(
    signed: bytes | None, offered: tlog.VerifiedCheckpoint, key: note.NoteKey, witnesses: tuple[WitnessKey, ...]
) -> bytes:
    """The newer of the two heads, with the lines of both where they are one."""
    if signed is not None:
        head = tlog.open_checkpoint(signed, key, origin=key.name)
        if offered.size < head.size:
            return signed
        if offered.size == head.size:
            return cosignature.attach(signed, _lines(offered.note), keys=witnesses)
    # The log's own line, and those of known witnesses: a stranger's are not ours to publish.
    own = note.parse(offered.note)
    bare = own.claimed_text + b"\n" + _lines(offered.note, by=key)
    return cosignature.attach(bare, _lines(offered.note), keys=witnesses)


def _lines(signed: bytes, *, by: note.NoteKey | None = None) -> bytes:
    """The signature lines of a note; those by the log's key alone, where it is given."""
    lines = signed[len(note.parse(signed).claimed_text) + 1 :].splitlines(keepends=True)
    found = zip(lines, note.parse(signed).signatures, strict=True)
    return b"".join(line for line, of in found if by is None or (of.claimed_name, of.key_id) == (by.name, by.key_id))


def _require_growth(earlier: tlog.VerifiedCheckpoint, published: tlog.VerifiedCheckpoint, log: Source) -> None:
    """Publish nothing that this ledger has not grown from: a witness that saw another history has found a fork."""
    if earlier.size > published.size:
        raise LedgerInconsistent(
            Code.LEDGER_ROLLBACK, "the cosigned head is ahead of the ledger", where=log.place(CHECKPOINT),
            expected=f">= {earlier.size}", got=published.size,
        )  # fmt: skip
    _require(relate(earlier, published, nodes=nodes_at(log, published.size)), earlier, published)


# -- two heads ---------------------------------------------------------------------------------------------------------


@hinted
def run_compare(arguments: argparse.Namespace) -> Outcome:
    """Whether two heads can both be true.

    Raises:
        UsageFault: one head, and no evidence.
        LedgerInconsistent: ``LEDGER_FORK``: they cannot.
        Indeterminate: ``EVIDENCE_ABSENT``: nothing shows either.
        WeighbridgeError: whatever is wrong with a file.
    """
    key = ledger_key(arguments.key)
    data = read(arguments.first, limit=_EVIDENCE_MAX)
    opened = partial(tlog.open_checkpoint, key=key, origin=key.name)
    if arguments.second is None:
        if not data.startswith(b"{"):
            usage("one head alone says nothing: name another one", command="ledger compare")
        with about(arguments.first):
            evidence = ForkEvidence.parse(data)
            first, second = opened(evidence.first), opened(evidence.second)
            relation = evidence.relation(first, second)
    else:
        first = open_head(data, key, origin=key.name, where=arguments.first)
        second = head_in(arguments.second, key)
        log: Source | None = arguments.log
        larger = max(first.size, second.size)
        relation = relate(first, second, nodes=None if log is None else nodes_at(log, larger))
        if log is not None:
            log.close()
    _require(relation, first, second)
    earlier, later = sorted((first.size, second.size))
    text = f"consistent: {later} entries begin with the {earlier}" if later > earlier else f"the same: {later} entries"
    return Outcome(
        text=f"{text} in {key.name}\n",
        document={
            "schema": "weighbridge/ledger-compare/v1",
            "origin": key.name,
            "relation": relation.word,
            "sizes": [first.size, second.size],
            "roots": [first.root.hex(), second.root.hex()],
        },
    )


def _require(relation: Relation, first: tlog.VerifiedCheckpoint, second: tlog.VerifiedCheckpoint) -> None:
    earlier, later = (first, second) if first.size <= second.size else (second, first)
    if relation.word == "forked":
        raise LedgerInconsistent(
            Code.LEDGER_FORK, f"the log has signed two histories: two trees of its first {earlier.size} entries",
            where=first.origin, expected=earlier.root, got=relation.root_there or later.root,
            clause="C2SP tlog-checkpoint@v1.0.0", hint="keep both files: whoever has the log's key can see it in them",
        )  # fmt: skip
    if relation.word == "open":
        raise Indeterminate(
            Code.EVIDENCE_ABSENT, f"nothing shows whether the larger tree begins with the smaller one: {relation.why}",
            where=first.origin, expected=f"tiles of the tree of {later.size} entries", hint="name them: --log",
        )  # fmt: skip


def _name(text: str) -> str:
    return given.origin(text)


def _ledger(text: str) -> Path | Bucket:
    try:
        return Bucket(S3Objects(S3Address.parse(text))) if S3Address.is_one(text) else Path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
