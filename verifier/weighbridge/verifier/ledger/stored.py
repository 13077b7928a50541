"""What is stored of a ledger, as its writer reads it back: verified under its own key, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from weighbridge.proto import merkle, tlog
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.ledger.edge import Edge, grow, load
from weighbridge.verifier.ledger.published import CHECKPOINT
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.ledger.storage import HEAD

if TYPE_CHECKING:
    from weighbridge.proto.note import NoteKey
    from weighbridge.verifier.ledger.storage import Storage

__all__ = ["Stored"]


@final
class Stored:
    """Reads ``storage``, whose ledger has the key ``key``.

    All methods raise ``EnvironmentFault`` (``FILE_UNREADABLE``); ``NotAuthentic`` (``LEDGER_SIGNATURE``) for another
    key; ``LedgerInconsistent`` for what is missing, malformed, or contradicts what was signed.
    """

    __slots__ = ("_key", "_storage")

    def __init__(self, storage: Storage, key: NoteKey) -> None:
        self._storage = storage
        self._key = key

    def head(self) -> tlog.VerifiedCheckpoint:
        """What was signed last."""
        return self._open(self._read(HEAD), HEAD)

    def has_head(self, known: tlog.VerifiedCheckpoint) -> bool:
        """Whether the head is ``known``, byte by byte."""
        return self._read(HEAD) == known.note

    def require_head(self, known: tlog.VerifiedCheckpoint) -> None:
        """The compare of compare-and-swap: the head is still the one that this writer knows.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED``: somebody else has gone on from it.
        """
        if not self._storage.is_head(known.note) and not self.has_head(known):
            raise EnvironmentFault(
                Code.LEDGER_LOCKED,
                "somebody else has written to this ledger meanwhile",
                where=self._place(HEAD),
                hint="take up what was written, and try again",
            )

    def published_head(self) -> tlog.VerifiedCheckpoint | None:
        """The head, if readers are shown a checkpoint of the same tree; ``None`` where they are shown another one."""
        published, data = self._storage.read(CHECKPOINT), self._read(HEAD)
        if published is None:
            return None
        head = self._open(data, HEAD)
        # Witnesses' lines may be in the one and not in the other.
        shown = head if published == data else self._open(published, CHECKPOINT)
        return head if (shown.size, shown.root) == (head.size, head.root) else None

    def published(self) -> tlog.VerifiedCheckpoint | None:
        """What readers are shown; ``None`` where creation was interrupted before that, or it was deleted."""
        data = self._storage.read(CHECKPOINT)
        return None if data is None else self._open(data, CHECKPOINT)

    def edge(self, checkpoint: tlog.VerifiedCheckpoint) -> Edge:
        """The right edge of the tree of ``checkpoint``."""
        try:
            edge = load(
                checkpoint.size,
                lambda level, index, width: self._read(tlog.tile_path(level, index, width)),
                lambda index, width: self._read(tlog.entries_path(index, width)),
            )
        except MalformedEvidence as error:
            raise self._malformed("tile", error) from error
        if edge.tree.root != checkpoint.root:
            raise self._contradiction("tiles do not have the root that was signed", "tile")
        return edge

    def grown(self, edge: Edge, head: tlog.VerifiedCheckpoint) -> Edge | None:
        """``edge`` with the entries that are stored behind it up to ``head``: proven to be the edge of that.

        ``None`` where these are many, or they do not make of ``edge`` the tree that was signed: whoever asks has to
        find out what it is then, by all that is stored.
        """
        if not edge.size < head.size <= edge.size + tlog.TILE_WIDTH:
            return None
        entries: list[bytes] = []
        known = edge.entries
        for index in range(edge.size // tlog.TILE_WIDTH, -(-head.size // tlog.TILE_WIDTH)):
            width = min(tlog.TILE_WIDTH, head.size - index * tlog.TILE_WIDTH)
            data, before = self._read(tlog.entries_path(index, width)), tlog.encode_bundle(known)
            if not data.startswith(before):
                return None
            try:
                entries += tlog.parse_bundle(data[len(before) :], width=width - len(known))
            except MalformedEvidence:
                return None
            known = ()
        grown = grow(edge, entries).edge
        return grown if grown.tree.root == head.root else None

    def check_published(self, published: tlog.VerifiedCheckpoint | None, head: tlog.VerifiedCheckpoint) -> None:
        """Require that what readers were shown is ``head``, which was read later, or an earlier state of its tree."""
        if published is None:
            # Publishing heals it.
            return
        if published.size > head.size:
            raise self._contradiction("readers were shown a checkpoint that was never committed", CHECKPOINT)
        self._check_consistency(published, head)

    def check_growth(self, known: tlog.VerifiedCheckpoint, head: tlog.VerifiedCheckpoint) -> None:
        """Require that ``known``, to this writer, is ``head`` or an earlier state of its tree.

        Raises:
            LedgerInconsistent: ``LEDGER_ROLLBACK`` where it is a later one.
        """
        if head.size < known.size:
            raise LedgerInconsistent(
                Code.LEDGER_ROLLBACK,
                "the ledger was put back to an earlier state",
                where=self._place(HEAD),
                expected=f">= {known.size}",
                got=head.size,
            )
        self._check_consistency(known, head)

    def _check_consistency(self, old: tlog.VerifiedCheckpoint, head: tlog.VerifiedCheckpoint) -> None:
        proof = LedgerReader(self._storage.source, head).consistency_proof(old.size)
        merkle.verify_consistency(proof, old=old.size, old_root=old.root, new=head.size, new_root=head.root)

    def _open(self, data: bytes, name: str) -> tlog.VerifiedCheckpoint:
        try:
            return tlog.open_checkpoint(data, self._key, origin=self._key.name)
        except MalformedEvidence as error:
            raise self._malformed(name, error) from error

    def _read(self, name: str) -> bytes:
        data = self._storage.read(name)
        if data is None:
            raise self._contradiction("file is missing", name)
        return data

    def _place(self, name: str) -> str:
        return self._storage.source.place(name)

    def _contradiction(self, message: str, name: str) -> LedgerInconsistent:
        return LedgerInconsistent(Code.LEDGER_INCONSISTENT, message, where=self._place(name))

    def _malformed(self, name: str, error: MalformedEvidence) -> LedgerInconsistent:
        message = f"stored file is malformed: {error.message}"
        return LedgerInconsistent(Code.LEDGER_MALFORMED, message, where=self._place(name))
