"""The writer of the ledger: one process appends, and what it has returned stays true.

On disk, below the ledger's directory, are exactly the files of C2SP tlog-tiles, to be served by any static server, and
``writer/``, which is nobody else's business::

    checkpoint                 the published checkpoint
    tile/<level>/<index>       hash tiles
    tile/entries/<index>       entry bundles
    writer/lock                held while a Ledger is open
    writer/head                the last checkpoint that was signed: the one commit point
    writer/staging/            files that have no name yet

An append goes **write tiles, stage the head → sync both, and directories → commit the head → publish the checkpoint**
(:mod:`.storage`). Readers are shown only checkpoints that were committed before, so no power failure can make this
ledger sign two histories. States:

=============  =========================================================  ====================================
state          durable                                                    next
=============  =========================================================  ====================================
settled        head and its tiles; the same checkpoint is published,      append → settled, or unsettled
               after a loss of power perhaps an earlier one
unsettled      head, old or new but whole, and its tiles                  settle → settled, or still unsettled
closed         as it was                                                  open → settled
=============  =========================================================  ====================================

:meth:`Ledger.open` and recovery after a failed append are the same code, :meth:`Ledger.settle`. What no code here can
notice is the whole directory put back to an earlier state: that takes the verifier's own state beside it
(:func:`.recovery.require_history`), a witness, or anybody who kept a checkpoint.

An append waits for the disk twice whatever its size: collect entries and append them together.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import limits, merkle, note, tlog
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.files import Files, PosixFiles
from weighbridge.verifier.ledger.edge import Edge, grow, load
from weighbridge.verifier.ledger.published import CHECKPOINT, no_ledger
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.ledger.storage import HEAD, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Appended", "Ledger"]


@dataclass(frozen=True, slots=True)
class Appended:
    """Entries that are in the ledger, durably.

    Attributes:
        first_index: index of the first of them; the others follow.
        leaf_hashes: one per entry, in order.
        checkpoint_note: the signed note of the first checkpoint that covers them all.
        size: number of leaves in it.
        root: its root.
    """

    first_index: int
    leaf_hashes: tuple[bytes, ...]
    checkpoint_note: bytes
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class _State:
    """All that the writer knows. Replaced as a whole, after the head is durable and never before."""

    checkpoint: tlog.VerifiedCheckpoint
    edge: Edge


@final
class Ledger:
    """An open ledger. Made by :meth:`create` or :meth:`open`, never by one in place of the other.

    May be used from several threads; appends take turns. One process has it at a time.
    """

    __slots__ = ("_key", "_note_key", "_state", "_storage", "_turn", "_unsettled")

    def __init__(self, storage: Storage, *, origin: str, key: Ed25519PrivateKey) -> None:
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._storage = storage
        self._key = key
        self._note_key = note.NoteKey(origin, public)
        self._turn = threading.Lock()
        self._state = _State(self._sign(Edge()), Edge())
        self._unsettled = True

    @classmethod
    def create(cls, directory: Path, *, origin: str, key: Ed25519PrivateKey, files: Files | None = None) -> Self:
        """A new, empty ledger in ``directory``, which may exist but must not contain any part of a ledger.

        Args:
            directory: its parent exists.
            origin: the ledger's name and that of its key: 1 to 255 printable ASCII characters without space and plus,
                such as ``ledger.example/windows``.
            key: signs the checkpoints, and receipts for trees that have one; nothing else anywhere.
            files: the file system; the local one by default.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` when there is a ledger already or the directory cannot be written,
                ``DISK_FULL`` or ``LEDGER_LOCKED``.
            ValueError: for an origin that cannot name a key.
        """
        if not note.is_key_name(origin):
            raise ValueError(f"not an origin: {origin!r}")
        files = files or PosixFiles()
        Storage.make(directory, files)
        storage = Storage(directory, files)
        try:
            _refuse_existing(directory)
            ledger = cls(storage, origin=origin, key=key)
            storage.commit(ledger.checkpoint())
            ledger.settle()
        except BaseException:
            storage.close()
            raise
        return ledger

    @classmethod
    def open(cls, directory: Path, *, origin: str, key: Ed25519PrivateKey, files: Files | None = None) -> Self:
        """The ledger in ``directory``, recovered from whatever interrupted its last writer.

        Verifies the last signed checkpoint, its right edge in the tiles, and that the published checkpoint is an
        earlier state of the same tree. Does not re-hash the whole tree: that is :func:`.audit.audit`'s work.

        Args:
            directory: where :meth:`create` made it.
            origin: as given to :meth:`create`.
            key: as given to :meth:`create`.
            files: the file system; the local one by default.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` when there is no ledger, ``LEDGER_LOCKED`` when another process has
                it open, ``DISK_FULL`` or ``FILE_UNWRITABLE``.
            NotAuthentic: ``LEDGER_SIGNATURE`` for another key.
            LedgerInconsistent: ``LEDGER_ORIGIN``, or ``LEDGER_INCONSISTENT``, ``LEDGER_MALFORMED`` or ``LEDGER_PROOF``
                when what is stored contradicts what was signed.
            ValueError: for an origin that cannot name a key.
        """
        if not (directory / HEAD).exists():
            raise no_ledger(directory)
        storage = Storage(directory, files or PosixFiles())
        try:
            ledger = cls(storage, origin=origin, key=key)
            ledger.settle()
        except BaseException:
            storage.close()
            raise
        return ledger

    @property
    def size(self) -> int:
        """Number of entries known to be committed."""
        return self._state.checkpoint.size

    @property
    def root(self) -> bytes:
        """Root over those entries, 32 bytes."""
        return self._state.checkpoint.root

    @property
    def key(self) -> note.NoteKey:
        """The public key of the checkpoints; its name is the origin."""
        return self._note_key

    @property
    def settled(self) -> bool:
        """Whether that is what the disk has, too: not after an append has failed, until :meth:`settle` or the next."""
        return not self._unsettled

    def checkpoint(self) -> bytes:
        """The signed note of the last commit."""
        return self._state.checkpoint.note

    def reader(self) -> LedgerReader:
        """A snapshot of the last commit, for entries and proofs."""
        return LedgerReader(self._storage.directory, self._state.checkpoint)

    def entry(self, index: int) -> bytes:
        """See :meth:`.reader.LedgerReader.entry`."""
        return self.reader().entry(index)

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """See :meth:`.reader.LedgerReader.inclusion_proof`; under the last commit."""
        return self.reader().inclusion_proof(index)

    def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        """See :meth:`.reader.LedgerReader.consistency_proof`."""
        return self.reader().consistency_proof(old, new)

    def append(self, entries: Sequence[bytes], *, ready: Callable[[], object] | None = None) -> Appended:
        """Append ``entries`` in order, all or none, and return when a power failure cannot take them away.

        After an :class:`EnvironmentFault` the entries are usually not in the ledger, but may be: when the very commit
        was reported as failed. :meth:`settle`, then ``size``, tell. The ledger stays usable either way.

        Args:
            entries: at least one, each at most 65,535 bytes.
            ready: called before the commit; whatever it raises prevents that. What the entries refer to is durable
                when it has returned.

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE`` or ``FILE_UNREADABLE``.
            NotAuthentic: ``LEDGER_SIGNATURE`` when the head was replaced by something else.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` when the files were changed under the writer.
            ValueError: for no entries or one that is too long.
            RuntimeError: when the ledger is closed.
        """
        if not entries or any(len(entry) > limits.LEDGER_ENTRY_MAX for entry in entries):
            raise ValueError(f"a ledger takes at least one entry, each of at most {limits.LEDGER_ENTRY_MAX} bytes")
        with self._turn:
            self._require_open()
            if self._unsettled:
                self._settle()
            self._check_head()
            before = self._state
            growth = grow(before.edge, entries)
            after = _State(self._sign(growth.edge), growth.edge)
            # From here on a failure may leave the head old or new: the next append asks the disk.
            self._unsettled = True
            self._storage.write_tiles(growth.files, after.checkpoint.note)
            if ready is not None:
                ready()
            self._storage.commit_staged()
            self._state = after
            self._storage.publish_staged()
            self._unsettled = False
            self._storage.tidy(growth.files)
        return Appended(
            first_index=before.checkpoint.size,
            leaf_hashes=growth.leaf_hashes,
            checkpoint_note=after.checkpoint.note,
            size=after.checkpoint.size,
            root=after.checkpoint.root,
        )

    def settle(self) -> None:
        """Take up what the disk says was signed last, verify it, and commit and publish exactly that again.

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE`` or ``FILE_UNREADABLE``.
            NotAuthentic: ``LEDGER_SIGNATURE``.
            LedgerInconsistent: as :meth:`open`.
            RuntimeError: when the ledger is closed.
        """
        with self._turn:
            self._require_open()
            self._settle()

    def close(self) -> None:
        """Let another process open the ledger. Closing twice is allowed."""
        with self._turn:
            self._storage.close()

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self) -> None:
        checkpoint = self._read_head()
        edge = self._read_edge(checkpoint)
        self._check_published(checkpoint)
        # Written anew, not only read: its name may be in the page cache alone, and after a failed sync the kernel
        # reports the next one as good although nothing was written.
        self._storage.commit(checkpoint.note)
        self._storage.publish(checkpoint.note)
        self._state = _State(checkpoint, edge)
        self._unsettled = False

    def _read_head(self) -> tlog.VerifiedCheckpoint:
        return self._open_note(self._read(HEAD), HEAD)

    def _check_head(self) -> None:
        """The compare of compare-and-swap: the head is still the one that this writer committed last."""
        if self._read(HEAD) != self._state.checkpoint.note:
            raise self._contradiction("somebody else has written to this ledger", HEAD)

    def _read_edge(self, checkpoint: tlog.VerifiedCheckpoint) -> Edge:
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

    def _check_published(self, head: tlog.VerifiedCheckpoint) -> None:
        """What readers were shown is the head or an earlier state of its tree."""
        data = self._storage.read(CHECKPOINT)
        if data is None:
            # Creation was interrupted between commit and publication, or it was deleted: publishing heals both.
            return
        published = self._open_note(data, CHECKPOINT)
        if published.size > head.size:
            raise self._contradiction("readers were shown a checkpoint that was never committed", CHECKPOINT)
        proof = LedgerReader(self._storage.directory, head).consistency_proof(published.size)
        merkle.verify_consistency(proof, old=published.size, old_root=published.root, new=head.size, new_root=head.root)

    def _sign(self, edge: Edge) -> tlog.VerifiedCheckpoint:
        """Sign a checkpoint of ``edge`` and read it back as anybody would."""
        text = tlog.Checkpoint(self._note_key.name, edge.size, edge.tree.root).encode()
        signed = note.sign(text, key=self._note_key, signer=self._key.sign)
        return tlog.open_checkpoint(signed, self._note_key, origin=self._note_key.name)

    def _open_note(self, data: bytes, name: str) -> tlog.VerifiedCheckpoint:
        try:
            return tlog.open_checkpoint(data, self._note_key, origin=self._note_key.name)
        except MalformedEvidence as error:
            raise self._malformed(name, error) from error

    def _read(self, name: str) -> bytes:
        data = self._storage.read(name)
        if data is None:
            raise self._contradiction("file is missing", name)
        return data

    def _contradiction(self, message: str, name: str) -> LedgerInconsistent:
        return LedgerInconsistent(Code.LEDGER_INCONSISTENT, message, where=str(self._storage.directory / name))

    def _malformed(self, name: str, error: MalformedEvidence) -> LedgerInconsistent:
        where = str(self._storage.directory / name)
        return LedgerInconsistent(Code.LEDGER_MALFORMED, f"stored file is malformed: {error.message}", where=where)

    def _require_open(self) -> None:
        if not self._storage.is_open:
            raise RuntimeError("the ledger is closed")


def _refuse_existing(directory: Path) -> None:
    """Without a head but with other parts of a ledger: never start over, that would be a second history."""
    for part in (HEAD, CHECKPOINT, "tile"):
        if (directory / part).exists():
            raise EnvironmentFault(
                Code.FILE_UNWRITABLE,
                "there is a ledger already",
                where=str(directory / part),
                hint="Open it, or choose another directory.",
            )
