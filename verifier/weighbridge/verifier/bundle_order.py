"""The order of a proof bundle's judgements, shown or not, and what else a bundle may bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import Manifest, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.bundle_format import Bundle, Entry
    from weighbridge.verifier.record import Kind, Leaf, Record

__all__ = ["Place", "check_manifests", "check_members", "check_order", "in_order"]


@dataclass(frozen=True, slots=True)
class Place:
    """One judgement in its order, shown or not."""

    index: int
    kind: Kind
    session: bytes
    seq: int | None
    shown: tuple[Record, Entry] | None


def in_order(bundle: Bundle, records: Sequence[Record], leaves: Sequence[Leaf]) -> list[Place]:
    """All judgements in the ledger's order.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED``.
    """
    for indices in ([entry.index for entry in bundle.entries], [item.index for item in bundle.withheld]):
        if indices != sorted(set(indices)):
            raise MalformedEvidence(
                Code.BUNDLE_MALFORMED, "the entries are not in the ledger's order", where="bundle.entries"
            )
    places = [
        Place(entry.index, record.kind, record.session, record.seq, (record, entry))
        for record, entry in zip(records, bundle.entries, strict=True)
    ]
    places += [
        Place(item.index, leaf.kind, leaf.session, leaf.seq, None)
        for leaf, item in zip(leaves, bundle.withheld, strict=True)
    ]
    places.sort(key=lambda place: place.index)
    if len({place.index for place in places}) != len(places):
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "an entry is both shown and withheld", where="bundle.entries")
    return places


def check_order(places: Sequence[Place]) -> None:
    """Require the judgements of one session from its enrolment on, without a gap.

    The last may have the number of an earlier one: a fork, by which the session failed.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED``.
    """
    if not places or places[0].kind != "enrolment":
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED, "the bundle does not begin with an enrolment", where="bundle.entries"
        )
    closing = places[-1] if places[-1].kind == "closing" else None
    windows = places[1:] if closing is None else places[1:-1]
    for seq, place in enumerate(windows):
        forked = seq + 2 == len(places) and place.seq is not None and place.seq < seq
        if place.kind != "window" or (place.seq != seq and not forked):
            raise MalformedEvidence(
                Code.BUNDLE_MALFORMED,
                "windows are missing or out of order",
                where=f"entry {place.index}",
                expected=seq,
                got=place.seq,
            )
    if closing is not None and closing.seq != len(windows):
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED,
            "windows before the closing are missing",
            where="bundle.entries",
            expected=closing.seq,
            got=len(windows),
        )
    if {place.session for place in places} != {places[0].session}:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "the records are of several sessions", where="bundle.entries")


def check_manifests(bundle: Bundle, terms: Terms) -> None:
    """Require that ``terms`` declare the manifests of ``bundle``, each once. None is unpacked.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED``; one that is not packed as it should be.
    """
    digests = [digest_of(Manifest.unpack_head(data)) for data in bundle.manifests]
    for digest in digests:
        if digest not in terms.declared:
            raise MalformedEvidence(
                Code.BUNDLE_MALFORMED, "no terms declare the manifest", where="bundle.manifests", got=digest
            )
    if len(set(digests)) != len(digests):
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "a manifest is there twice", where="bundle.manifests")


def check_members(bundle: Bundle, records: Iterable[Record]) -> None:
    """Require that what the bundle brings beside its entries is there once, and for one of ``records``.

    Raises:
        MalformedEvidence: ``BUNDLE_MALFORMED``; reference values that are none.
    """
    named_by = tuple(records)
    references = {D("reference", data): data for data in bundle.references}
    baselines = {
        strict.hex_decode(item.digest, what="baseline.digest")
        for data in bundle.references
        for item in Reference.recorded(data).baselines
    }
    members: tuple[tuple[str, list[bytes], set[bytes]], ...] = (
        ("policies", [_policy_digest(files) for files in bundle.policies], {record.policy for record in named_by}),
        ("references", list(references), {record.reference for record in named_by}),
        ("collaterals", [D("collateral", data) for data in bundle.collaterals], {item.collateral for item in named_by}),
        ("baselines", [sha256(data) for data in bundle.baselines], baselines),
    )
    for name, there, named in members:
        for digest in there:
            if digest not in named:
                raise MalformedEvidence(
                    Code.BUNDLE_MALFORMED, "nothing in the bundle names it", where=f"bundle.{name}", got=digest
                )
    sizes = [len(there) for _, there, _ in members]
    lengths = [len(set(there)) for _, there, _ in members]
    if sizes != lengths or len(references) != len(bundle.references):
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "a member is there twice", where="bundle")


def _policy_digest(files: PolicyFiles) -> bytes:
    return D("policy", [[name, content] for name, content in files])
