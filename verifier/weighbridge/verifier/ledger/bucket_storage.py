"""A ledger in a bucket of object storage: what is durable at each step, and who may still write.

Below the ledger's prefix lie the very objects of C2SP tlog-tiles, which a public bucket serves as they are, and
``writer/head``, the one commit point. The head holds, in one object, the signed checkpoint *and every tile and bundle
that its append has added*, and is only ever replaced by its tag (If-Match). The order of an append:

1. The head is replaced. **If the process ends before:** nothing is there. **After:** the append is committed, whole,
   with its tiles, though under none of their own names yet. Nobody waits for more.
2. The tiles are made under their own names (If-None-Match: ``*``), together. **If the process ends in the middle:**
   readers have the earlier checkpoint, whose tiles are untouched. Whoever opens the ledger or leads next makes them out
   of the head before it replaces that, and they are the same bytes, for only a committed head says what they are.
3. The checkpoint is replaced, by its tag and only by a longer one. **If the process ends before:** as in 2.

The second and third step are carried out beside whatever the writer does next, but for its next commit, which waits for
them. Where they have failed, they are tried again every few seconds, and before that commit.

So no object but the head decides anything, and what a writer can still do that was paused, or whose request arrives
late, when others have led since, is this:

* its head: refused, for the head it would replace is gone. Whoever goes on after a commit without an answer replaces
  the head by one of the same tree and another mark first, so that what is still under way is refused from then on;
* its tiles: they are of a head that was committed, or it had not begun to make them. Made again, they are the same
  bytes: nothing lies in the way of an append that failed, since one that is not committed makes none;
* its checkpoint: refused, or shorter than what is there, and left out.

On disk, where several files are no one write, tiles come first (:mod:`.storage`). Here they would be in each other's
way: a tile of an append that failed would have to be overwritten under a name that caches keep for ever, and an append
whose head is committed by a late request could find its tiles overwritten.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto import limits, note, tlog
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.ledger.bucket import NOTE, PRIVATE, TILE, Bucket, Object
from weighbridge.verifier.ledger.committed_head import HEAD_MAX, MARK_SIZE, TILE_NAME, CommittedHead
from weighbridge.verifier.ledger.published import CHECKPOINT
from weighbridge.verifier.ledger.storage import HEAD

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from weighbridge.verifier.ledger.source import Source

__all__ = ["BucketStorage"]

# Tiles do not change: 60 KB each at most in ours.
_KEPT_MAX: Final = 32 * 1024 * 1024
# Others publish as well; each time that one is in the way, the checkpoint has become longer.
_PUBLISH_TRIES: Final = 16
_PARTIALS: Final = 1000
# Seconds after which publishing is tried again, where nobody waits for it: a verifier may have nothing more to append.
_AGAIN: Final = 5.0


@final
class BucketStorage:
    """The bucket of a ledger. May be open in any number of processes: see :class:`.storage.Storage`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._head: tuple[Object, CommittedHead] | None = None
        self._staged: CommittedHead | None = None
        # Whether a commit has had no answer: it may yet arrive.
        self._unsure = False
        # The mark of the head whose files are known to lie under their own names.
        self._laid_out = b""
        self._checkpoint: Object | None = None
        # The head as readers saw it last.
        self._seen: tuple[Object, CommittedHead] | None = None
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_size = 0
        self._keeping = threading.Lock()
        # Publishes what was committed last, and tidies up behind it.
        self._behind = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publishing")
        self._publishing: Future[None] | None = None
        self._hurry = threading.Event()
        self._is_open = True

    @property
    def source(self) -> Self:
        """Where readers of this ledger read: they see what is committed."""
        return self

    @property
    def is_open(self) -> bool:
        """See :class:`.storage.Storage`."""
        return self._is_open

    def place(self, path: str) -> str:
        """See :meth:`.source.Source.place`."""
        return self._bucket.place(path)

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Nobody is kept out: whoever has gone on from the same head is refused when it commits.

        Raises:
            RuntimeError: it was closed.
        """
        if not self._is_open:
            raise RuntimeError("the ledger is closed")
        yield

    def close(self) -> None:
        """See :class:`.storage.Storage`."""
        self._is_open = False
        self._hurry.set()
        self._behind.shutdown(wait=True)
        self._bucket.close()

    def holds(self) -> str | None:
        """See :class:`.storage.Storage`."""
        for name in (HEAD, CHECKPOINT):
            if self.read(name) is not None:
                return self.place(name)
        return self.place("tile") if self._bucket.names("tile/", limit=1) else None

    def read(self, path: str, *, limit: int = tlog.BUNDLE_MAX) -> bytes | None:
        """See :meth:`.source.Source.read`. Head and checkpoint are asked for anew; tiles are kept.

        Raises:
            LedgerInconsistent: ``LEDGER_MALFORMED``: the head is none.
            MalformedEvidence: as there.
            EnvironmentFault: as :class:`.bucket.Objects`.
        """
        if path == HEAD:
            return self._read_head()
        if path == CHECKPOINT:
            if self._publishing is not None:
                self._hurry.set()
                _ = wait([self._publishing])
            self._checkpoint = self._bucket.get(CHECKPOINT, limit=limits.CHECKPOINT_MAX, known=self._checkpoint)
            return None if self._checkpoint is None else self._checkpoint.data
        if (data := self._known(path)) is None and (found := self._bucket.get(path, limit=limit)) is not None:
            data = found.data
            if TILE_NAME.fullmatch(path) is not None:
                self._keep(path, data)
        return data

    def committed(self) -> tuple[bytes | None, Source]:
        """See :class:`.storage.Storage`: the head, though its tiles may not lie under their names yet.

        What a writer here knows of the head stays as it is.

        Raises:
            LedgerInconsistent: ``LEDGER_MALFORMED``: the head is none.
            EnvironmentFault: as :class:`.bucket.Objects`.
        """
        seen = self._seen
        found = self._bucket.get(HEAD, limit=HEAD_MAX, known=None if seen is None else seen[0])
        if found is None:
            return None, self
        if seen is None or found is not seen[0]:
            self._seen = seen = found, self._parsed(found)
        return seen[1].note, _Overlaid(self, seen[1].files)

    def ahead(self, paths: Sequence[str]) -> None:
        """Read these tiles together.

        Raises:
            EnvironmentFault: as :class:`.bucket.Objects`.
        """
        _ = self._bucket.at_once([partial(self.read, path) for path in paths if self._known(path) is None])

    def is_head(self, signed: bytes) -> bool:
        """Whether ``signed`` was the head when it was looked at last: whether it still is, the commit finds out."""
        return self._head is not None and not self._unsure and self._head[1].note == signed

    def write_tiles(self, tiles: Mapping[str, bytes], signed: bytes) -> None:
        """Stage an append for :meth:`commit_staged`: nothing is written yet.

        Raises:
            ValueError: more is to be appended than one head holds.
        """
        self._staged = CommittedHead(signed, dict(tiles), os.urandom(MARK_SIZE))

    def commit_staged(self) -> None:
        """Replace the head that was looked at last by the one that was staged.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED``: somebody else has, and nothing of this counts; or as
                :class:`.bucket.Objects`: it may have been replaced by now, or will be.
        """
        if self._staged is None or self._head is None:
            raise RuntimeError("nothing was staged, or on nothing")
        # A head that is gone can no longer lay out its tiles.
        if self._has_failed_to_publish():
            self._publish(self._head[1].note)
        self._lay_out()
        self._replace(self._staged)
        self._staged = None

    def publish_staged(self) -> None:
        """Begin to :meth:`publish` what was committed."""
        if self._head is None:
            raise RuntimeError("nothing was committed")
        _ = self._has_failed_to_publish()
        self._hurry.clear()
        self._publishing = self._behind.submit(self._publish_behind, self._head[1].note)

    def commit(self, signed: bytes) -> None:
        """See to it that ``signed`` is the head and stays it until somebody takes its place.

        Raises:
            EnvironmentFault: as :meth:`commit_staged`.
        """
        _ = self._has_failed_to_publish()
        if self._head is None:
            first = CommittedHead(signed, {}, os.urandom(MARK_SIZE))
            data = first.encode()
            tag = self._bucket.create(HEAD, data, PRIVATE)
            if tag is None:
                raise self._overtaken()
            self._head, self._laid_out = (Object(data, tag), first), first.mark
        elif self._unsure or self._head[1].note != signed:
            # What has had no answer, and is under way perhaps, finds another tag from here on.
            head = self._head[1]
            self._lay_out()
            self._replace(CommittedHead(signed, head.files if head.note == signed else {}, os.urandom(MARK_SIZE)))
            self._laid_out = self._head[1].mark

    def publish(self, signed: bytes) -> None:
        """Lay out the tiles of the head, and show readers ``signed`` unless they see a longer one.

        Raises:
            LedgerInconsistent: ``LEDGER_INCONSISTENT``: something else lies where a tile belongs.
            EnvironmentFault: as :class:`.bucket.Objects`; readers then see the last checkpoint or this one.
        """
        _ = self._has_failed_to_publish()
        self._publish(signed)

    def tidy(self, tiles: Mapping[str, bytes]) -> None:
        """Delete the partial tiles of those of ``tiles`` that are full, later: they only take up room."""
        full = [name for name in tiles if ".p/" not in name]
        if full and self._publishing is not None:
            _ = self._behind.submit(self._delete_partials, full, self._publishing)

    def _has_failed_to_publish(self) -> bool:
        """Whether what was committed last is not published, once nobody tries any more."""
        publishing, self._publishing = self._publishing, None
        self._hurry.set()
        return publishing is not None and publishing.exception() is not None

    def _publish_behind(self, signed: bytes) -> None:
        """Publish, however long it takes until it can be done; or until somebody waits for it."""
        while True:
            try:
                return self._publish(signed)
            except EnvironmentFault:
                if self._hurry.wait(_AGAIN):
                    raise

    def _publish(self, signed: bytes) -> None:
        self._lay_out()
        size = _size(signed)
        for _ in range(_PUBLISH_TRIES):
            seen = self._checkpoint
            if seen is not None and _size(seen.data) >= size:
                return
            if seen is None:
                tag = self._bucket.create(CHECKPOINT, signed, NOTE)
            else:
                tag = self._bucket.replace(CHECKPOINT, signed, NOTE, tag=seen.tag)
            if tag is not None:
                self._checkpoint = Object(signed, tag)
                return
            self._checkpoint = self._bucket.get(CHECKPOINT, limit=limits.CHECKPOINT_MAX)
        raise EnvironmentFault(
            Code.LEDGER_LOCKED, "others publish this ledger at the same time", where=self.place(CHECKPOINT)
        )

    def _delete_partials(self, full: list[str], published: Future[None]) -> None:
        # Until the full ones lie there, readers need these.
        for name in full if published.exception() is None else ():
            with contextlib.suppress(EnvironmentFault):
                self._bucket.delete(self._bucket.names(f"{name}.p/", limit=_PARTIALS))

    def _read_head(self) -> bytes | None:
        if self._publishing is not None and self._publishing.done() and self._publishing.exception() is not None:
            self.publish_staged()
        known = None if self._head is None else self._head[0]
        found = self._bucket.get(HEAD, limit=HEAD_MAX, known=known)
        if found is None:
            self._head = None
            return None
        if found is not known:
            self._head = found, self._parsed(found)
        return None if self._head is None else self._head[1].note

    def _parsed(self, found: Object) -> CommittedHead:
        try:
            return CommittedHead.parse(found.data)
        except MalformedEvidence as error:
            message = f"stored file is malformed: {error.message}"
            raise LedgerInconsistent(Code.LEDGER_MALFORMED, message, where=self.place(HEAD)) from error

    def _replace(self, head: CommittedHead) -> None:
        """Put ``head`` in the place of the one that was looked at last."""
        if self._head is None:
            raise RuntimeError("there is no head")
        data = head.encode()
        if len(data) > HEAD_MAX:
            raise ValueError(f"an append of {len(data)} bytes")
        self._unsure = True
        tag = self._bucket.replace(HEAD, data, PRIVATE, tag=self._head[0].tag)
        if tag is None:
            # Whatever else was under way is refused as this was.
            self._head, self._unsure = None, False
            raise self._overtaken()
        self._head, self._unsure = (Object(data, tag), head), False

    def _lay_out(self) -> None:
        """See to it that the tiles of the head lie under their own names."""
        known = self._head
        if known is None or self._laid_out == known[1].mark:
            return
        head = known[1]
        self._bucket.ensure_all(head.files, TILE)
        for name, data in head.files.items():
            self._keep(name, data)
        self._laid_out = head.mark

    def _known(self, name: str) -> bytes | None:
        head = self._head
        if head is not None and (data := head[1].files.get(name)) is not None:
            return data
        with self._keeping:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def _keep(self, name: str, data: bytes) -> None:
        with self._keeping:
            if name not in self._kept:
                self._kept[name] = data
                self._kept_size += len(data)
            while self._kept_size > _KEPT_MAX:
                self._kept_size -= len(self._kept.popitem(last=False)[1])

    def _overtaken(self) -> EnvironmentFault:
        return EnvironmentFault(
            Code.LEDGER_LOCKED,
            "somebody else has written to this ledger meanwhile",
            where=self.place(HEAD),
            hint="take up what was written, and try again",
        )


@final
class _Overlaid:
    """The files of a head, before all others."""

    def __init__(self, storage: BucketStorage, files: Mapping[str, bytes]) -> None:
        self._storage = storage
        self._files = files

    def read(self, path: str, *, limit: int) -> bytes | None:
        """See :meth:`.source.Source.read`."""
        return self._files[path] if path in self._files else self._storage.read(path, limit=limit)

    def place(self, path: str) -> str:
        """See :meth:`.source.Source.place`."""
        return self._storage.place(path)

    def close(self) -> None:
        """See :meth:`.source.Source.close`."""


def _size(signed: bytes) -> int:
    """How many entries a checkpoint is of, by its own word; less than any for what is none."""
    try:
        return tlog.Checkpoint.parse(note.parse(signed).claimed_text).size
    except WeighbridgeError:
        return -1
