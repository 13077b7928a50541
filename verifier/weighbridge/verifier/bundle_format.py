"""The proof bundle's file: well-formed, and bounded. What it shows is :mod:`.bundle`'s business.

Deterministic CBOR, ``docs/protocol.md`` §9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cbor, limits
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from weighbridge.policy.policy_set import PolicyFiles

__all__ = ["Bundle", "Entry", "read_files"]

_VERSION: Final = "weighbridge/v1/bundle"
_ENTRIES_MAX: Final = 100_000
_PROOF_MAX: Final = 64
# The shipped library beside the files of a policy bundle.
_FILES_MAX: Final = limits.POLICY_BUNDLE_FILES_MAX + 1
_REFERENCES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One judgement: its place in the ledger, the proof of that, the record, and the evidence it was made on."""

    index: int
    proof: tuple[bytes, ...]
    record: bytes
    evidence: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A well-formed bundle. Says nothing of truth."""

    checkpoint: bytes
    entries: tuple[Entry, ...]
    policies: tuple[PolicyFiles, ...]
    references: tuple[bytes, ...]
    manifests: tuple[bytes, ...]
    collaterals: tuple[bytes, ...]
    baselines: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The file's bytes."""
        return cbor.encode(
            {
                0: _VERSION,
                1: self.checkpoint,
                2: [[entry.index, list(entry.proof), entry.record, entry.evidence] for entry in self.entries],
                3: [[[name, content] for name, content in files] for files in self.policies],
                4: list(self.references),
                5: list(self.manifests),
                6: list(self.collaterals),
                7: list(self.baselines),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a bundle.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written.
        """
        fields = cbor.read_versioned(data, version=_VERSION, limit=limits.BUNDLE_MAX, what="bundle")
        bundle = cls(
            checkpoint=fields.octets(1, limit=limits.CHECKPOINT_MAX),
            entries=tuple(_entry(item, index) for index, item in enumerate(fields.array(2, limit=_ENTRIES_MAX))),
            policies=tuple(
                read_files(item, f"bundle.policies[{index}]")
                for index, item in enumerate(fields.array(3, limit=_REFERENCES_MAX))
            ),
            references=fields.octet_strings(4, count=_REFERENCES_MAX, limit=limits.REFERENCE_MAX),
            manifests=fields.octet_strings(5, count=limits.MANIFESTS_MAX, limit=limits.MANIFEST_PACKED_MAX),
            collaterals=fields.octet_strings(6, count=_REFERENCES_MAX, limit=limits.REFERENCE_MAX),
            baselines=fields.octet_strings(7, count=_REFERENCES_MAX, limit=limits.BASELINE_SET_MAX),
        )
        fields.end()
        return bundle

    def policy_named(self, digest: bytes) -> PolicyFiles:
        """The files of the policy that a record names.

        Raises:
            LedgerInconsistent: ``BUNDLE_VERDICT`` when it is not among those of the bundle.
        """
        for files in self.policies:
            if D("policy", [[name, content] for name, content in files]) == digest:
                return files
        raise LedgerInconsistent(
            Code.BUNDLE_VERDICT,
            "the bundle's policy is not the one that the records name",
            where="bundle",
            expected=digest,
            hint="name your own: --policy and --reference",
        )

    def reference_named(self, digest: bytes) -> Reference:
        """The reference values that a record names; for one that names none, values that accept nothing.

        Raises:
            MalformedEvidence: values of the bundle are not well-formed.
            LedgerInconsistent: ``BUNDLE_VERDICT`` when they are not among those of the bundle.
        """
        if digest == NO_DIGEST:
            return Reference({}, {}, {})
        for data in self.references:
            if D("reference", data) == digest:
                return Reference.recorded(data)
        raise LedgerInconsistent(
            Code.BUNDLE_VERDICT,
            "the bundle's reference values are not those that the records name",
            where="bundle",
            expected=digest,
            hint="name your own: --policy and --reference",
        )

    def baselines_named(self, reference: bytes) -> Baselines:
        """The baselines that the reference values, which a record names by ``reference``, name in their turn.

        Raises:
            MalformedEvidence: a file of the bundle, or the values, are not well-formed.
            LedgerInconsistent: ``BUNDLE_VERDICT`` when they are not among those of the bundle.
        """
        if reference == NO_DIGEST:
            return Baselines()
        return Baselines.recorded(self.reference_named(reference).baselines, self._baseline)

    def collateral_named(self, digest: bytes) -> Collateral:
        """The collateral that a record names; none for one that names none.

        Raises:
            MalformedEvidence: it is not well-formed.
            LedgerInconsistent: ``BUNDLE_VERDICT`` when it is not among that of the bundle.
        """
        if digest == NO_DIGEST:
            return Collateral()
        for data in self.collaterals:
            if D("collateral", data) == digest:
                return Collateral.parse(data)
        raise LedgerInconsistent(
            Code.BUNDLE_VERDICT,
            "the bundle's collateral is not the one that the records name",
            where="bundle",
            expected=digest,
        )

    def _baseline(self, digest: bytes) -> bytes:
        for data in self.baselines:
            if sha256(data) == digest:
                return data
        raise LedgerInconsistent(
            Code.BUNDLE_VERDICT,
            "the bundle has not the baselines that its reference values name",
            where="bundle",
            expected=digest,
        )


def _entry(value: cbor.CborValue, number: int) -> Entry:
    where = f"bundle.entries[{number}]"
    parts = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=4, size=4))), where)
    return Entry(
        index=parts.uint(0, limit=2**53),
        proof=parts.octet_strings(1, count=_PROOF_MAX, limit=limits.DIGEST_SIZE),
        record=parts.octets(2),
        evidence=parts.optional_octets(3),
    )


def read_files(value: cbor.CborValue, where: str) -> PolicyFiles:
    """A policy's files, ascending by name: what its digest hashes, and under which it is kept.

    Raises:
        MalformedEvidence: they are something else.
    """
    files: list[tuple[str, bytes]] = []
    for number, item in enumerate(cbor.read_array(value, where=where, limit=_FILES_MAX)):
        place = f"{where}[{number}]"
        parts = cbor.Reader(dict(enumerate(cbor.read_array(item, where=place, limit=2, size=2))), place)
        files.append((parts.text(0), parts.octets(1, limit=limits.POLICY_MAX)))
    names = [name for name, _ in files]
    if names != sorted(set(names)):
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "files are not in order, each once", where=where)
    return tuple(files)
