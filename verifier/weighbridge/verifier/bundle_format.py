"""The proof bundle's file: well-formed, and bounded. What it shows is :mod:`.bundle`'s business.

A CBOR map of a version, a size and one zstd frame, and in the frame the content, deterministic CBOR:
``docs/protocol.md`` §9. What windows repeat, chains of certificates above all, costs nothing a second time. There are
no names of files in it, and so no paths to follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cbor, limits, zstd
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence
from weighbridge.proto.workload import SALT_SIZE
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from weighbridge.policy.policy_set import PolicyFiles

__all__ = ["Bundle", "Entry", "ShownRequest", "Withheld", "read_files"]

_VERSION: Final = "weighbridge/v2/bundle"
_REDACTION_MAX: Final = 64 * 1024 * 1024
_ENTRIES_MAX: Final = 100_000
_PROOF_MAX: Final = 64
# The shipped library beside the files of a policy bundle.
_FILES_MAX: Final = limits.POLICY_BUNDLE_FILES_MAX + 1
_REFERENCES_MAX: Final = 1024
# Each entry with the proof of a ledger of 2^30, the largest number of requests likewise, and the files of all policies.
_ITEMS_MAX: Final = 4 * 1024 * 1024
# What is short in a bundle stands beside what is long: proofs, records, evidence. So there are twelve bytes for each
# item at least, but for some that may be short altogether, such as a policy's files.
_ITEMS_LEAST: Final = 64 * 1024
_ITEM_SIZE_MIN: Final = 12
# Nine tenths of a real bundle repeat; a frame that stands for more than this has nothing in it.
_RATIO_MAX: Final = 128
_CONTENT_LEAST: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One judgement: its place in the ledger, the proof of that, the record, and the evidence it was made on."""

    index: int
    proof: tuple[bytes, ...]
    record: bytes
    evidence: bytes | None


@dataclass(frozen=True, slots=True)
class Withheld:
    """A judgement that is not shown: its place in the ledger, the proof of that, and the leaf, which commits to it."""

    index: int
    proof: tuple[bytes, ...]
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRequest:
    """One request that a window's header counts: its place in the window's work, and what opens its commitment.

    Attributes:
        seq: the window's number.
        index: from 0, in the order in which requests ended.
        proof: inclusion under the header's root, from the leaf's sibling upwards.
        salt: 32 bytes.
        request: SHA-256 of the body as received.
        response: SHA-256 of the body as sent.
    """

    seq: int
    index: int
    proof: tuple[bytes, ...]
    salt: bytes
    request: bytes
    response: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A well-formed bundle. Says nothing of truth.

    Attributes:
        checkpoint: the ledger's, with its witnesses' cosignatures.
        entries: the judgements that are shown, in the ledger's order.
        policies: by which they were made; so are all that follow but the last two.
        references: canonical JSON.
        manifests: the declared ones, packed.
        collaterals: what makers of hardware had published.
        baselines: signed sets, those that name a GPU of the session.
        withheld: the judgements that are not shown, in the ledger's order.
        requests: in the order of windows and places.
        redaction: signed by the verifier, what a redacted bundle says of the judgements; ``None`` in all others.
    """

    checkpoint: bytes
    entries: tuple[Entry, ...]
    policies: tuple[PolicyFiles, ...]
    references: tuple[bytes, ...]
    manifests: tuple[bytes, ...]
    collaterals: tuple[bytes, ...]
    baselines: tuple[bytes, ...]
    withheld: tuple[Withheld, ...] = ()
    requests: tuple[ShownRequest, ...] = ()
    redaction: bytes | None = None

    def encode(self) -> bytes:
        """The file's bytes.

        Raises:
            MalformedEvidence: ``TOO_LARGE``: nobody could open it.
        """
        content = self.content()
        if len(content) > limits.BUNDLE_CONTENT_MAX:
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "the bundle is too large",
                where="bundle",
                expected=f"<= {limits.BUNDLE_CONTENT_MAX} bytes",
                got=f"{len(content)} bytes",
                hint="export a part of the session: --windows",
            )
        frame = zstd.compress_long(content)
        _check_ratio(len(content), frame)
        return cbor.encode({0: _VERSION, 1: len(content), 2: frame})

    def content(self) -> bytes:
        """What the frame unpacks to: one bundle has one content, whatever packs it."""
        return cbor.encode(
            {
                1: self.checkpoint,
                2: [[entry.index, list(entry.proof), entry.record, entry.evidence] for entry in self.entries],
                3: [[[name, content] for name, content in files] for files in self.policies],
                4: list(self.references),
                5: list(self.manifests),
                6: list(self.collaterals),
                7: list(self.baselines),
                8: [[item.index, list(item.proof), item.leaf] for item in self.withheld],
                9: [
                    [item.seq, item.index, list(item.proof), item.salt, item.request, item.response]
                    for item in self.requests
                ],
                10: self.redaction,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a bundle.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written, but for how they are packed;
                ``NOT_ZSTD`` for a frame that does not hold exactly the content whose size is stated.
        """
        head = cbor.read_versioned(data, version=_VERSION, limit=limits.BUNDLE_MAX, what="bundle")
        size, frame = head.uint(1), head.octets(2, limit=limits.BUNDLE_MAX)
        head.end()
        if size > limits.BUNDLE_CONTENT_MAX:
            # Before anything is allocated: some bytes can stand for any number.
            raise MalformedEvidence(
                Code.TOO_LARGE,
                "the content is too large",
                where="bundle[1]",
                expected=f"<= {limits.BUNDLE_CONTENT_MAX} bytes",
                got=f"{size} bytes",
            )
        _check_ratio(size, frame)
        content = zstd.decompress(frame, size=size, what="bundle", window=zstd.LONG_WINDOW)
        fields = cbor.read_map(
            cbor.decode(content, limit=limits.BUNDLE_CONTENT_MAX, what="bundle", items=_items_max(size)), where="bundle"
        )
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
            withheld=tuple(_withheld(item, index) for index, item in enumerate(fields.array(8, limit=_ENTRIES_MAX))),
            requests=tuple(
                _request(item, index) for index, item in enumerate(fields.array(9, limit=limits.BUNDLE_REQUESTS_MAX))
            ),
            redaction=fields.optional_octets(10, limit=_REDACTION_MAX),
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

        A set that is not in the bundle is taken for one that names no GPU of the session. That this is so, only the
        recorded verdicts show (:meth:`lacks_baselines`).

        Raises:
            MalformedEvidence: a file of the bundle, or the values, are not well-formed.
            LedgerInconsistent: ``BUNDLE_VERDICT`` when the values are not among those of the bundle.
        """
        if reference == NO_DIGEST:
            return Baselines()
        files = {sha256(data): data for data in self.baselines}
        return Baselines.recorded(self.reference_named(reference).baselines, files.get)

    def lacks_baselines(self, reference: bytes) -> bool:
        """Whether a baseline set is left out that the values of ``reference`` name; not where these are not there."""
        if reference not in {D("reference", data) for data in self.references}:
            return False
        there = {sha256(data).hex() for data in self.baselines}
        return not {item.digest for item in self.reference_named(reference).baselines} <= there

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


def _check_ratio(size: int, frame: bytes) -> None:
    """Require that content of ``size`` bytes is no more than frames of real bundles stand for."""
    most = max(_CONTENT_LEAST, _RATIO_MAX * len(frame))
    if size > most:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            f"the content is too large for a frame of {len(frame)} bytes",
            where="bundle[1]",
            expected=f"<= {most} bytes",
            got=f"{size} bytes",
        )


def _items_max(size: int) -> int:
    """How many data items content of ``size`` bytes may have: each takes far more memory than it has bytes."""
    return min(_ITEMS_MAX, _ITEMS_LEAST + size // _ITEM_SIZE_MIN)


def _entry(value: cbor.CborValue, number: int) -> Entry:
    parts = _parts(value, f"bundle.entries[{number}]", 4)
    return Entry(
        index=parts.uint(0, limit=2**53),
        proof=parts.octet_strings(1, count=_PROOF_MAX, limit=limits.DIGEST_SIZE),
        record=parts.octets(2),
        evidence=parts.optional_octets(3),
    )


def _withheld(value: cbor.CborValue, number: int) -> Withheld:
    parts = _parts(value, f"bundle.withheld[{number}]", 3)
    return Withheld(
        index=parts.uint(0, limit=2**53),
        proof=parts.octet_strings(1, count=_PROOF_MAX, limit=limits.DIGEST_SIZE),
        leaf=parts.octets(2, limit=limits.LEDGER_ENTRY_MAX),
    )


def _request(value: cbor.CborValue, number: int) -> ShownRequest:
    parts = _parts(value, f"bundle.requests[{number}]", 6)
    return ShownRequest(
        seq=parts.uint(0, limit=2**53),
        index=parts.uint(1, limit=2**53),
        proof=parts.octet_strings(2, count=_PROOF_MAX, limit=limits.DIGEST_SIZE),
        salt=parts.octets(3, size=SALT_SIZE),
        request=parts.digest(4),
        response=parts.digest(5),
    )


def _parts(value: cbor.CborValue, where: str, size: int) -> cbor.Reader:
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=size, size=size))), where)


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
