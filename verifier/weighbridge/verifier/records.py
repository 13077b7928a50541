"""Reads judgements back from where they are kept (:mod:`.archive`), and what they name."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Indeterminate
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.bundle_format import read_files
from weighbridge.verifier.record import NO_DIGEST, Leaf, Record

if TYPE_CHECKING:
    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.verifier.ledger.contents import Contents

__all__ = ["Records", "unknown_manifest"]

_LEADING_MAX: Final = 4096


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
        return self._content.has(sha256(unknown_manifest(session, manifest)))

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


def unknown_manifest(session: bytes, manifest: bytes) -> bytes:
    """What is kept in place of the declared ``manifest`` that a window of ``session`` was judged without."""
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
