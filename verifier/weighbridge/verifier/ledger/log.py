"""The writer of the ledger: one process at a time appends, and what it has returned stays true.

On disk, below the ledger's directory, are exactly the files of C2SP tlog-tiles, to be served by any static server, and
``writer/``, which is nobody else's business::

    checkpoint                 the published checkpoint
    tile/<level>/<index>       hash tiles
    tile/entries/<index>       entry bundles
    writer/lock                held by whoever is writing
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

Any number of processes may have a ledger open, each with what it knows of it. An append is a compare-and-swap: it
begins where this writer knows the ledger to end, and fails if somebody else has gone on from there. What others have
appended is taken up by :meth:`Ledger.take_up`, at the beginning of each turn (:mod:`.leadership`).

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

from weighbridge.proto import limits, note, tlog
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.files import Files, PosixFiles
from weighbridge.verifier.ledger.bucket import Bucket, require_conditions
from weighbridge.verifier.ledger.bucket_storage import BucketStorage
from weighbridge.verifier.ledger.edge import Edge, grow
from weighbridge.verifier.ledger.published import CHECKPOINT, no_ledger, open_head
from weighbridge.verifier.ledger.reader import LedgerReader
from weighbridge.verifier.ledger.storage import HEAD, DirectoryStorage
from weighbridge.verifier.ledger.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from weighbridge.verifier.ledger.storage import Storage

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

    May be used from several threads, and be open in several processes; appends take turns.
    """

    __slots__ = ("_key", "_note_key", "_state", "_storage", "_stored", "_turn", "_unsettled")

    def __init__(self, storage: Storage, *, origin: str, key: Ed25519PrivateKey) -> None:
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._storage = storage
        self._key = key
        self._note_key = note.NoteKey(origin, public)
        self._stored = Stored(storage, self._note_key)
        self._turn = threading.Lock()
        self._state = _State(self._sign(Edge()), Edge())
        self._unsettled = True

    @classmethod
    def create(cls, where: Path | Bucket, *, origin: str, key: Ed25519PrivateKey, files: Files | None = None) -> Self:
        """A new, empty ledger at ``where``, which may exist but must not contain any part of a ledger.

        Args:
            where: a directory whose parent exists, or a bucket.
            origin: the ledger's name and that of its key: 1 to 255 printable ASCII characters without space and plus,
                such as ``ledger.example/windows``.
            key: signs the checkpoints, and receipts for trees that have one; nothing else anywhere.
            files: the file system that the directory is on; the local one by default.

        Raises:
            EnvironmentFault: ``FILE_UNWRITABLE`` when there is a ledger already or the directory cannot be written,
                ``DISK_FULL``, or ``LEDGER_LOCKED`` when somebody else writes there for long; for a bucket as
                :class:`.bucket.Objects`, and ``STORAGE_UNFIT`` where it does not keep to conditions.
            ValueError: for an origin that cannot name a key.
        """
        if not note.is_key_name(origin):
            raise ValueError(f"not an origin: {origin!r}")
        storage = _storage(where, files or PosixFiles(), is_new=True)
        try:
            ledger = cls(storage, origin=origin, key=key)
            with storage.exclusive():
                _refuse_existing(storage)
                storage.commit(ledger.checkpoint())
                ledger._settle()
        except BaseException:
            storage.close()
            raise
        return ledger

    @classmethod
    def open(cls, where: Path | Bucket, *, origin: str, key: Ed25519PrivateKey, files: Files | None = None) -> Self:
        """The ledger at ``where``, recovered from whatever interrupted its last writer.

        Verifies the last signed checkpoint, its right edge in the tiles, and that the published checkpoint is an
        earlier state of the same tree. Does not re-hash the whole tree: that is :func:`.audit.audit`'s work.

        Args:
            where: where :meth:`create` made it.
            origin: as given to :meth:`create`.
            key: as given to :meth:`create`.
            files: the file system that the directory is on; the local one by default.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` when there is no ledger, ``LEDGER_LOCKED`` when somebody else writes
                to it for long, ``DISK_FULL`` or ``FILE_UNWRITABLE``; for a bucket as :meth:`create`.
            NotAuthentic: ``LEDGER_SIGNATURE`` for another key.
            LedgerInconsistent: ``LEDGER_ORIGIN``, or ``LEDGER_INCONSISTENT``, ``LEDGER_MALFORMED`` or ``LEDGER_PROOF``
                when what is stored contradicts what was signed.
            ValueError: for an origin that cannot name a key.
        """
        storage = _storage(where, files or PosixFiles(), is_new=False)
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
        return LedgerReader(self._storage.source, self._state.checkpoint)

    def published(self) -> LedgerReader:
        """What readers are shown now, or will be, perhaps by another process: needs no turn.

        Raises:
            WeighbridgeError: as :meth:`.reader.LedgerReader.open`.
        """
        data, source = self._storage.committed()
        where = source.place(CHECKPOINT)
        return LedgerReader(source, open_head(data, self._note_key, origin=self._note_key.name, where=where))

    def ahead(self, indices: Sequence[int]) -> None:
        """Take note that these entries are read next, a few dozen at most; what is to be read together, is.

        Raises:
            EnvironmentFault: they cannot be read now.
        """
        full = self.size // tlog.TILE_WIDTH
        numbers = {index // tlog.TILE_WIDTH for index in indices if index // tlog.TILE_WIDTH < full}
        self._storage.ahead([path(number) for number in sorted(numbers) for path in (_leaves_path, tlog.entries_path)])

    def entry(self, index: int) -> bytes:
        """See :meth:`.reader.LedgerReader.entry`."""
        return self.reader().entry(index)

    def last(self) -> bytes | None:
        """The last entry of the last commit; ``None`` where there is none."""
        checkpoint, edge = self._state.checkpoint, self._state.edge
        if edge.entries:
            return edge.entries[-1]
        return self.entry(checkpoint.size - 1) if checkpoint.size else None

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
            EnvironmentFault: ``LEDGER_LOCKED`` when somebody else has appended since :meth:`take_up`, or writes for
                long; ``DISK_FULL``, ``FILE_UNWRITABLE`` or ``FILE_UNREADABLE``.
            LedgerInconsistent: ``LEDGER_INCONSISTENT`` when the files were changed under the writer.
            ValueError: for no entries or one that is too long.
            RuntimeError: when the ledger is closed.
        """
        if not entries or any(len(entry) > limits.LEDGER_ENTRY_MAX for entry in entries):
            raise ValueError(f"a ledger takes at least one entry, each of at most {limits.LEDGER_ENTRY_MAX} bytes")
        with self._turn, self._storage.exclusive():
            if self._unsettled:
                self._settle()
            self._stored.require_head(self._state.checkpoint)
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

    def take_up(self) -> None:
        """Take up what others have committed meanwhile.

        Where nothing was, and the last append did not fail, no more than the head is read.

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE`` or ``FILE_UNREADABLE``.
            NotAuthentic: ``LEDGER_SIGNATURE``.
            LedgerInconsistent: as :meth:`open`; ``LEDGER_ROLLBACK`` or ``LEDGER_PROOF`` when it is not what this writer
                knew that has grown.
            RuntimeError: when the ledger is closed.
        """
        with self._turn:
            self._require_open()
            if not self._unsettled and self._stored.has_head(self._state.checkpoint):
                return
            with self._storage.exclusive():
                # Whoever was killed between commit and publication left the second to others.
                if self._unsettled or not self._adopt():
                    self._settle()

    def settle(self) -> None:
        """Take up what the disk says was signed last, verify it, and commit and publish exactly that again.

        Raises:
            WeighbridgeError: as :meth:`take_up`.
            RuntimeError: when the ledger is closed.
        """
        with self._turn, self._storage.exclusive():
            self._settle()

    def close(self) -> None:
        """Let go of the ledger. Closing twice is allowed."""
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
        # Read first: whoever goes on meanwhile, where nobody is kept out, commits before it publishes.
        published = self._stored.published()
        head = self._stored.head()
        self._stored.check_growth(self._state.checkpoint, head)
        edge = self._stored.edge(head)
        self._stored.check_published(published, head)
        # Written anew, not only read: its name may be in the page cache alone, and after a failed sync the kernel
        # reports the next one as good although nothing was written.
        self._storage.commit(head.note)
        self._storage.publish(head.note)
        self._state = _State(head, edge)
        self._unsettled = False

    def _adopt(self) -> bool:
        """Take up a head that another process has committed, if it has published it as well: it is durable then."""
        head, known = self._stored.published_head(), self._state
        if head is None:
            return False
        # As a rule it is a few entries: what they make of the edge that is known says all that is to be known.
        edge = self._stored.grown(known.edge, head)
        if edge is None:
            self._stored.check_growth(known.checkpoint, head)
            edge = self._stored.edge(head)
        self._state = _State(head, edge)
        return True

    def _sign(self, edge: Edge) -> tlog.VerifiedCheckpoint:
        """Sign a checkpoint of ``edge`` and read it back as anybody would."""
        text = tlog.Checkpoint(self._note_key.name, edge.size, edge.tree.root).encode()
        signed = note.sign(text, key=self._note_key, signer=self._key.sign)
        return tlog.open_checkpoint(signed, self._note_key, origin=self._note_key.name)

    def _require_open(self) -> None:
        if not self._storage.is_open:
            raise RuntimeError("the ledger is closed")


def _leaves_path(number: int) -> str:
    return tlog.tile_path(0, number)


def _storage(where: Path | Bucket, files: Files, *, is_new: bool) -> Storage:
    """What lies at ``where``, which is made if it ``is_new``."""
    if isinstance(where, Bucket):
        require_conditions(where)
        bucket = BucketStorage(where)
        if not is_new and bucket.read(HEAD) is None:
            raise no_ledger(where.place(HEAD))
        return bucket
    if is_new:
        DirectoryStorage.make(where, files)
    elif not (where / HEAD).exists():
        raise no_ledger(where)
    return DirectoryStorage(where, files)


def _refuse_existing(storage: Storage) -> None:
    """Without a head but with other parts of a ledger: never start over, that would be a second history."""
    if (part := storage.holds()) is not None:
        raise EnvironmentFault(
            Code.FILE_UNWRITABLE,
            "there is a ledger already",
            where=part,
            hint="Open it, or choose another directory.",
        )
