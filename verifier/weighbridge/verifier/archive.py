"""Where judgements are kept: the content store for bytes, the ledger for commitments to them."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cbor, limits, merkle, strict
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import preimage, sha256
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.bundle_format import read_files
from weighbridge.verifier.clock import moment
from weighbridge.verifier.ledger.contents import Content
from weighbridge.verifier.record import NO_DIGEST, Leaf, Record

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from datetime import datetime

    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.verifier.leadership import Leadership
    from weighbridge.verifier.ledger.contents import Contents
    from weighbridge.verifier.ledger.log import Ledger
    from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["Archive", "Committed", "Records"]

_LEADING_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Committed:
    """A record that is in the ledger: its index, the leaf hash that names it, and the record's own SHA-256."""

    index: int
    leaf_hash: bytes
    record: bytes


class _Entries(Protocol):
    def entry(self, index: int) -> bytes: ...


@final
class Records:
    """Reads judgements back: the leaf names the record, the record names the evidence, both are hashed again."""

    __slots__ = ("_content", "_entries", "_leading")

    def __init__(self, content: Contents, entries: _Entries) -> None:
        self._content = content
        self._entries = entries
        # The entries of records that were read last, by their evidence: it is read next.
        self._leading: OrderedDict[bytes, int] = OrderedDict()

    def record(self, index: int) -> Record:
        """The record behind ledger entry ``index``.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``: it is not in the content store.
            LedgerInconsistent: it was altered, or there is no such entry.
        """
        leaf = Leaf.parse(self._entries.entry(index))
        record = Record.parse(self._content.get(leaf.record, entry=index))
        if record.evidence is not None:
            self._leading[record.evidence] = index
            if len(self._leading) > _LEADING_MAX:
                _ = self._leading.popitem(last=False)
        return record

    def evidence(self, record: Record) -> bytes:
        """The evidence that ``record``, which was read here lately, names.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: it was altered.
        """
        if record.evidence is None:
            raise ValueError("the record names no evidence")
        return self._content.get(record.evidence, entry=self._leading.get(record.evidence))

    def reference(self, digest: bytes) -> bytes:
        """The reference values in force, canonical JSON, that a record names by ``digest``.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: they were altered.
            MalformedEvidence: what lies under this digest is something else.
        """
        return _second(self._content.get(digest), "reference")

    def baselines(self, reference: bytes) -> Baselines:
        """The baselines that the reference values, which a record names by ``reference``, name in their turn.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: they were altered.
            MalformedEvidence: what lies under such a digest is something else.
        """
        if reference == NO_DIGEST:
            return Baselines()
        return Baselines.recorded(Reference.recorded(self.reference(reference)).baselines, self.baseline)

    def baseline(self, digest: bytes) -> bytes:
        """The signed file of a baseline set.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: it was altered.
        """
        return self._content.get(digest)

    def policy(self, digest: bytes) -> PolicyFiles:
        """The files of the policy that a record names by ``digest``, by name.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: they were altered.
            MalformedEvidence: what lies under this digest is something else.
        """
        try:
            data = self._content.get(digest)
        except Indeterminate as error:
            raise Indeterminate(
                error.code, "the policy is not in the store", where=digest.hex(), hint="name it yourself: --policy"
            ) from error
        pair = cbor.read_array(
            cbor.decode(data, limit=limits.CONTENT_MAX, what="policy"), where="policy", limit=2, size=2
        )
        return read_files(pair[1], "policy")

    def manifest(self, digest: bytes) -> Manifest:
        """The declared manifest of this digest, with those of its tables that the verifier had.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: it was altered.
            MalformedEvidence: what lies under such a digest is something else.
        """
        try:
            head = self._content.get(digest)
        except Indeterminate as error:
            raise Indeterminate(
                error.code,
                "a declared manifest is not in the store",
                where=digest.hex(),
                hint="name the manifests that `serve` was given: --manifest",
            ) from error
        bare = Manifest.parse(_second(head, "manifest"))
        return bare.with_hashed(
            {
                file.path: self._content.get(file.digest)
                for file in bare.files
                if not file.implied and self._content.has(file.digest)
            }
        )

    def is_unknown(self, session: bytes, manifest: bytes) -> bool:
        """Whether a window of ``session`` was judged without the declared ``manifest``: `serve` was not given it.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        return self._content.has(sha256(_unknown(session, manifest)))

    def collateral(self, digest: bytes) -> Collateral:
        """The collateral in force that a record names by ``digest``; none for a record that names none.

        Raises:
            Indeterminate: ``EVIDENCE_ABSENT``.
            LedgerInconsistent: it was altered.
            MalformedEvidence: what lies under this digest is something else.
        """
        return (
            Collateral() if digest == NO_DIGEST else Collateral.parse(_second(self._content.get(digest), "collateral"))
        )


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

    __slots__ = ("_content", "_in_turn", "_leadership", "ledger", "records")

    def __init__(self, content: Contents, ledger: Ledger, leadership: Leadership) -> None:
        self._content = content
        self._leadership = leadership
        self._in_turn = False
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
        self._content.put(_unknown(session, manifest))

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
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="contents") as thread:
            kept = thread.submit(self._content.put_all, contents, entry=self.ledger.size)

            def ready() -> None:
                if list(kept.result()) != digests:
                    raise ValueError("a record names other evidence")
                self._leadership.require()

            # If power fails after: all of these leaves are in the ledger, or none.
            appended = self.ledger.append([leaf.encode() for leaf in leaves], ready=ready)
        return tuple(
            Committed(appended.first_index + number, leaf_hash, leaf.record)
            for number, (leaf, leaf_hash) in enumerate(zip(leaves, appended.leaf_hashes, strict=True))
        )


def _unknown(session: bytes, manifest: bytes) -> bytes:
    document: strict.JsonObject = {
        "schema": "weighbridge/manifest-unknown/v1",
        "session": session.hex(),
        "manifest": manifest.hex(),
    }
    return strict.json_encode(document)


def _second(data: bytes, what: str) -> bytes:
    """What :func:`preimage` was made of: a label and one string of bytes."""
    pair = cbor.read_array(cbor.decode(data, limit=limits.CONTENT_MAX, what=what), where=what, limit=2, size=2)
    return cbor.Reader(dict(enumerate(pair)), what).octets(1, limit=limits.REFERENCE_MAX)
