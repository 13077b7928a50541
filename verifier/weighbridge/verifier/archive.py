"""Where judgements are kept: the content store for bytes, the ledger for commitments to them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from weighbridge.proto import limits, merkle
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import preimage, sha256
from weighbridge.proto.errors import Code, LedgerInconsistent
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.clock import moment
from weighbridge.verifier.ledger.contents import Content
from weighbridge.verifier.record import NO_DIGEST, Leaf, Record
from weighbridge.verifier.records import Records, unknown_manifest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from datetime import datetime

    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.verifier.leadership import Leadership
    from weighbridge.verifier.ledger.contents import Contents
    from weighbridge.verifier.ledger.log import Ledger
    from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["Archive", "Committed", "Records"]


@dataclass(frozen=True, slots=True)
class Committed:
    """A record that is in the ledger: its index, the leaf hash that names it, and the record's own SHA-256."""

    index: int
    leaf_hash: bytes
    record: bytes


@final
class _Committed:
    """Entries of ``ledger`` that were committed, by this process or by another one that has published them."""

    __slots__ = ("_ledger", "_reader")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # Kept with the tiles that it has read: whoever reads a session reads the same ones again and again.
        self._reader: LedgerReader | None = None

    def entry(self, index: int) -> bytes:
        if self._reader is None or index >= self._reader.checkpoint.size:
            self._reader = self._ledger.reader() if index < self._ledger.size else self._ledger.published()
        return self._reader.entry(index)


@final
class Archive:
    """Writes a record and its evidence durably, then commits to them in the ledger: in a turn, one process at a time.

    Contents alone are kept at any time, by any process.
    """

    __slots__ = ("_content", "_in_turn", "_leadership", "_thread", "ledger", "records")

    def __init__(self, content: Contents, ledger: Ledger, leadership: Leadership) -> None:
        self._content = content
        self._leadership = leadership
        self._in_turn = False
        # Contents are written by it. Made once it is needed: most who open an archive only read.
        self._thread: ThreadPoolExecutor | None = None
        self.ledger = ledger
        self.records = Records(content, _Committed(ledger))

    @contextlib.contextmanager
    def turn(self) -> Generator[None]:
        """Lead while the block lasts: all is known that the ledger has, and nobody else appends.

        Raises:
            EnvironmentFault: ``LEDGER_LOCKED`` when others lead for too long; or as :meth:`.Ledger.take_up`.
            LedgerInconsistent: as :meth:`.Ledger.take_up`.
        """
        with self._leadership.turn():
            self.ledger.take_up()
            self._in_turn = True
            try:
                yield
            finally:
                self._in_turn = False

    def ahead(self, indices: Sequence[int]) -> None:
        """As :meth:`.Ledger.ahead`, with the records at these entries and their evidence."""
        self.ledger.ahead(indices)
        self._content.ahead(indices)

    def close(self) -> None:
        """Let go of ledger and turns."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self.ledger.close()
        self._leadership.close()

    def require_history(self, size: int, root: bytes) -> None:
        """Require that the ledger goes on from the tree of ``size`` entries with ``root``, which was seen before.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
            LedgerInconsistent: ``LEDGER_ROLLBACK`` where it has fewer entries, ``LEDGER_FORK`` where it has others; or
                as :meth:`.LedgerReader.consistency_proof`.
        """
        hint = "put back the newer ledger; or begin anew, with new keys: weighbridge init"
        reader = self.ledger.reader()
        now = reader.checkpoint
        if size > now.size:
            raise LedgerInconsistent(
                Code.LEDGER_ROLLBACK,
                "the ledger was put back to an earlier state than the verifier's own",
                where="ledger",
                expected=size,
                got=now.size,
                hint=hint,
            )
        try:
            proof = reader.consistency_proof(size)
            merkle.verify_consistency(proof, old=size, old_root=root, new=now.size, new_root=now.root)
        except LedgerInconsistent as error:
            if error.code is not Code.LEDGER_PROOF:
                raise
            message = "the ledger does not go on from the state in which the verifier has seen it"
            raise LedgerInconsistent(Code.LEDGER_FORK, message, where=f"ledger, size {size}", hint=hint) from error

    def latest(self) -> datetime | None:
        """The receipt time of the last judgement, ``None`` before the first: a clock that says earlier is wrong.

        Raises:
            WeighbridgeError: as :class:`Records`.
        """
        size = self.ledger.size
        return None if size == 0 else moment(self.records.record(size - 1).received_ns)

    def keep_reference(self, document: bytes) -> bytes:
        """Keep reference values in force under ``D("reference", document)``, which is returned: as records name them.

        Args:
            document: canonical JSON, at most ``limits.REFERENCE_MAX`` bytes.

        Raises:
            EnvironmentFault: as :meth:`commit`.
        """
        return self._content.put(preimage("reference", document))

    def keep_baseline(self, file: bytes) -> bytes:
        """Keep the signed file of a baseline set under its SHA-256, which is returned: as reference values name it.

        Raises:
            EnvironmentFault: as :meth:`commit`.
        """
        return self._content.put(file)

    def keep_policy(self, files: PolicyFiles) -> bytes:
        """Keep a policy's files under its digest, which is returned: as records name it.

        Args:
            files: of a :class:`.PolicySet`.

        Raises:
            EnvironmentFault: as :meth:`commit`.
        """
        return self._content.put(preimage("policy", [[name, content] for name, content in sorted(files)]))

    def keep_manifest(self, manifest: Manifest) -> None:
        """Keep a declared manifest under its digest, and its tables under their files': as terms and heads name them.

        What is too large for the store is not kept: whoever needs it is told so (:meth:`.Records.manifest`).

        Raises:
            EnvironmentFault: as :meth:`commit`.
        """
        contents = [*manifest.hashed().values(), preimage("manifest", manifest.raw)]
        if max(map(len, contents)) <= limits.CONTENT_MAX:
            # The head last: where it is, the tables are.
            self._content.put_all([Content(data) for data in contents if not self._content.has(sha256(data))])

    def keep_unknown(self, session: bytes, manifest: bytes) -> None:
        """Keep that a window of ``session`` was judged without its declared ``manifest``.

        Raises:
            EnvironmentFault: as :meth:`commit`.
        """
        self._content.put(unknown_manifest(session, manifest))

    def keep_collateral(self, collateral: Collateral) -> bytes:
        """Keep ``collateral`` under its digest, which is returned: as records name it. Of none, nothing is kept.

        Raises:
            EnvironmentFault: as :meth:`commit`.
        """
        if not collateral.items:
            return NO_DIGEST
        return self._content.put(preimage("collateral", collateral.encode()))

    def commit(self, record: Record, evidence: bytes | None) -> Committed:
        """Record one judgement, as :meth:`commit_all` does; in a turn of its own, where there is none yet.

        Raises:
            EnvironmentFault: see there, and :meth:`turn`.
        """
        judgements = [(record, None if evidence is None else Content(evidence))]
        with contextlib.nullcontext() if self._in_turn else self.turn():
            return self.commit_all(judgements)[0]

    def commit_all(self, judgements: Sequence[tuple[Record, Content | None]]) -> tuple[Committed, ...]:
        """Record judgements, together. When this returns, a power failure cannot take any of them away.

        Args:
            judgements: any number; each record names its evidence, as received, by its SHA-256.

        Raises:
            EnvironmentFault: the disk is full or failed, or the turn was lost. Usually none of them is in the ledger,
                but all may be: when the very commit was reported as failed. The next turn begins with finding out.
            RuntimeError: outside a turn.
        """
        if not judgements:
            return ()
        contents = [Content(record.encode()) for record, _ in judgements]
        digests = [sha256(content.data) for content in contents]
        digests += [record.evidence for record, _ in judgements if record.evidence is not None]
        contents += [evidence for _, evidence in judgements if evidence is not None]
        leaves = [Leaf.of(record, digest=digest) for (record, _), digest in zip(judgements, digests, strict=False)]
        self._leadership.require()
        # At the same time as tiles are written: neither refers to the other yet.
        # If power fails before both are done: contents that nobody refers to, and tiles that no checkpoint names.
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="contents")
        kept = self._thread.submit(self._content.put_all, contents, entry=self.ledger.size)

        def ready() -> None:
            if list(kept.result()) != digests:
                raise ValueError("a record names other evidence")
            self._leadership.require()

        try:
            # If power fails after: all of these leaves are in the ledger, or none.
            appended = self.ledger.append([leaf.encode() for leaf in leaves], ready=ready)
        finally:
            # Whatever failed: nothing goes on behind the turn.
            _ = wait([kept])
        return tuple(
            Committed(appended.first_index + number, leaf_hash, leaf.record)
            for number, (leaf, leaf_hash) in enumerate(zip(leaves, appended.leaf_hashes, strict=True))
        )
