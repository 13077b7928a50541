"""Two signed heads of one ledger: whether one tree grew from the other, shown by tiles that nobody has to believe.

Whatever a tile holds, it is hashed up to the root that was signed; so tiles can show consistency, and can show a fork,
but can pretend neither. What they cannot show is left undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto import merkle, strict, tlog
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger.published import about

if TYPE_CHECKING:
    from weighbridge.verifier.ledger.source import Source

__all__ = ["ForkEvidence", "Relation", "nodes_at", "relate"]

_TILE_MAX: Final = tlog.TILE_WIDTH * 32
_KEPT: Final = 64
_SCHEMA: Final = "weighbridge/ledger-fork/v1"
_EVIDENCE_MAX: Final = 1024 * 1024
_PROOF_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class Relation:
    """How two heads stand to each other.

    Attributes:
        word: ``same``; ``grown``: the later tree begins with the earlier one; ``forked``: it does not, or they have two
            roots for one size; ``open``: nothing shows either.
        root_there: of a fork in two sizes, the root that the later tree has at the earlier size.
        proof: of growth, or of what a fork says it is: from the earlier size to the later one.
        why: of what is open, the reason.
    """

    word: Literal["same", "grown", "forked", "open"]
    root_there: bytes | None = None
    proof: tuple[bytes, ...] = ()
    why: str = ""


def relate(first: tlog.VerifiedCheckpoint, second: tlog.VerifiedCheckpoint, *, nodes: merkle.Nodes | None) -> Relation:
    """How ``first`` and ``second`` stand to each other, in either order.

    Args:
        first: of one ledger.
        second: of the same one, by the same key.
        nodes: of the tree of the later one, untrusted; ``None`` where there are none.

    Raises:
        EnvironmentFault: the files that nodes are read from cannot be.
    """
    if first.size == second.size:
        return Relation("same" if first.root == second.root else "forked")
    earlier, later = (first, second) if first.size < second.size else (second, first)
    if earlier.size == 0:
        return Relation("grown")
    if nodes is None:
        return Relation("open", why="no tiles of the later tree were given")
    try:
        proof = merkle.consistency_proof(earlier.size, later.size, nodes)
        there = _prefix(earlier.size, nodes).root
        # Whatever the tiles say the earlier tree was: this proof binds it to the later root, or fails.
        merkle.verify_consistency(proof, old=earlier.size, old_root=there, new=later.size, new_root=later.root)
    except (LedgerInconsistent, MalformedEvidence) as error:
        return Relation("open", why=f"the tiles do not have the signed root: {error.message}")
    return Relation("grown" if there == earlier.root else "forked", root_there=there, proof=proof)


def nodes_at(source: Source, size: int) -> merkle.Nodes:
    """The nodes of the tree of ``size`` leaves, read from the tiles in ``source``; untrusted.

    They raise :class:`MalformedEvidence` for a tile that is none, :class:`LedgerInconsistent` for one that is missing,
    and :class:`EnvironmentFault` for one that cannot be read.
    """
    kept: dict[tuple[int, int], tuple[bytes, ...]] = {}

    def tile(level: int, number: int) -> Sequence[bytes]:
        if (level, number) not in kept:
            if len(kept) >= _KEPT:
                kept.clear()
            kept[level, number] = _read_tile(source, level, number, size)
        return kept[level, number]

    return tlog.tile_nodes(tile)


def _read_tile(source: Source, level: int, number: int, size: int) -> tuple[bytes, ...]:
    hashes = size >> (tlog.TILE_HEIGHT * level)
    width = min(tlog.TILE_WIDTH, hashes - number * tlog.TILE_WIDTH)
    for stored in dict.fromkeys((width, tlog.TILE_WIDTH)):
        # A partial tile may go as soon as the full one is there, of which it is the beginning.
        data = source.read(tlog.tile_path(level, number, stored), limit=_TILE_MAX)
        if data is not None:
            with about(source.place(tlog.tile_path(level, number, stored))):
                return tlog.parse_tile(data, width=stored)[:width]
    raise LedgerInconsistent(
        Code.LEDGER_INCONSISTENT,
        "tile is missing",
        where=source.place(tlog.tile_path(level, number, width)),
        clause="C2SP tlog-tiles",
    )


def _prefix(size: int, nodes: merkle.Nodes) -> merkle.CompactRange:
    """The perfect subtrees of the first ``size`` leaves."""
    hashes: list[bytes] = []
    begin = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            hashes.append(nodes(level, begin >> level))
            begin += 1 << level
    return merkle.CompactRange(size, tuple(hashes))


@dataclass(frozen=True, slots=True)
class ForkEvidence:
    """What shows a fork to anybody who has the ledger's key: two signed notes and, for two sizes, a proof. Untrusted.

    Attributes:
        first: a signed note.
        second: another one.
        proof: from the smaller tree to the larger one, as the larger one is; empty for one size.
        root_there: the root that the larger tree has at the smaller size; ``None`` for one size.
    """

    first: bytes
    second: bytes
    proof: tuple[bytes, ...]
    root_there: bytes | None

    def encode(self) -> bytes:
        """The JSON document, schema ``weighbridge/ledger-fork/v1``."""
        document: strict.JsonObject = {
            "schema": _SCHEMA,
            "first": self.first.decode(),
            "second": self.second.decode(),
            "proof": [item.hex() for item in self.proof],
            "root_there": None if self.root_there is None else self.root_there.hex(),
        }
        return strict.json_encode(document, indent=2) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> ForkEvidence:
        """Take the document apart; nothing is verified.

        Raises:
            MalformedEvidence: a decoding code, or ``LEDGER_MALFORMED`` for another document.
        """
        match strict.json_decode(data, what="fork evidence", limit=_EVIDENCE_MAX):
            case {
                "schema": "weighbridge/ledger-fork/v1",
                "first": str(first),
                "second": str(second),
                "proof": list(proof),
                "root_there": str() | None as there,
                **rest,
            } if not rest and len(proof) <= _PROOF_MAX:
                return cls(
                    first.encode(),
                    second.encode(),
                    tuple(_digest(item, f"proof[{at}]") for at, item in enumerate(proof)),
                    None if there is None else _digest(there, "root_there"),
                )
            case _:
                raise MalformedEvidence(
                    Code.LEDGER_MALFORMED, "not evidence of a fork", where="fork evidence", expected=_SCHEMA
                )

    def relation(self, first: tlog.VerifiedCheckpoint, second: tlog.VerifiedCheckpoint) -> Relation:
        """What the evidence shows of ``first`` and ``second``, its own notes, opened under the log's key."""
        if first.size == second.size:
            return relate(first, second, nodes=None)
        earlier, later = (first, second) if first.size < second.size else (second, first)
        if self.root_there is None:
            return Relation("open", why="the evidence has no proof")
        try:
            merkle.verify_consistency(
                self.proof, old=earlier.size, old_root=self.root_there, new=later.size, new_root=later.root
            )
        except LedgerInconsistent as error:
            return Relation("open", why=f"the proof does not hold: {error.message}")
        word: Literal["grown", "forked"] = "grown" if self.root_there == earlier.root else "forked"
        return Relation(word, root_there=self.root_there, proof=self.proof)


def _digest(value: strict.JsonValue, what: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "not a string", where=what)
    return strict.hex_decode(value, what=what, size=32)
