"""Puts a proof bundle together out of a verifier's records and its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.proto.digest import D, sha256
from weighbridge.verifier.bundle_format import Bundle, Entry, Withheld
from weighbridge.verifier.record import NO_DIGEST, Leaf
from weighbridge.verifier.redaction import Redaction, Row, salt_thumbprint, summary, terms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from weighbridge.policy.policy_set import PolicyFiles
    from weighbridge.proto.manifest import Manifest
    from weighbridge.verifier.archive import Records
    from weighbridge.verifier.ledger.reader import LedgerReader

__all__ = ["assemble", "declared", "ending", "redact"]


def assemble(
    records: Records,
    reader: LedgerReader,
    indices: Sequence[int],
    *,
    policies: Sequence[PolicyFiles] = (),
    references: Sequence[bytes] = (),
    manifests: Sequence[Manifest],
    withhold: Container[int] = frozenset(),
) -> Bundle:
    """The bundle of one session.

    Args:
        records: of the verifier that judged it.
        reader: a snapshot of its ledger, which proves every entry.
        indices: ledger indices of the enrolment, the windows of the chain and what ended it (:func:`ending`), in order.
        policies: files of policies that the verifier may not have kept; those that no record names are left out.
        references: reference values, canonical JSON, likewise.
        manifests: among others the declared ones; those that no terms declare are left out.
        withhold: ledger indices of those of which only the leaf is shown.

    Raises:
        WeighbridgeError: as :class:`.Records`.
    """
    entries: list[Entry] = []
    withheld: list[Withheld] = []
    given = {D("reference", data): data for data in references}
    given_files = {D("policy", [[name, content] for name, content in files]): files for files in map(_sorted, policies)}
    judged: dict[bytes, PolicyFiles] = {}
    used: dict[bytes, bytes] = {}
    published: dict[bytes, bytes] = {}
    baselines: dict[bytes, bytes] = {}
    others: set[bytes] = set()
    terms = terms_of(records.record(indices[0]))
    wanted = {manifest.digest: manifest for manifest in manifests if manifest.digest in terms.declared}
    for index in indices:
        if index in withhold:
            withheld.append(Withheld(index, reader.inclusion_proof(index), reader.entry(index)))
            continue
        record = records.record(index)
        if record.policy != NO_DIGEST and record.policy not in judged:
            judged[record.policy] = given_files.get(record.policy) or records.policy(record.policy)
        if (named := record.reference) != NO_DIGEST and named not in used:
            used[named] = given.get(named) or records.reference(named)
            for baseline in Reference.recorded(used[named]).baselines:
                digest = strict.hex_decode(baseline.digest, what="baseline.digest")
                if digest in baselines or digest in others:
                    continue
                # A set of other GPUs may be another tenant's: what it says of them is nobody's business here.
                file = records.baseline(digest)
                if {profile.device for profile in SignedBaselineSet.parse(file).claimed.profiles}.isdisjoint(
                    terms.gpus
                ):
                    others.add(digest)
                else:
                    baselines[digest] = file
        if record.collateral != NO_DIGEST and record.collateral not in published:
            published[record.collateral] = records.collateral(record.collateral).encode()
        evidence = None if record.evidence is None else records.evidence(record)
        entries.append(Entry(index, reader.inclusion_proof(index), record.encode(), evidence))
    return Bundle(
        checkpoint=reader.checkpoint.note,
        entries=tuple(entries),
        policies=tuple(judged.values()),
        references=tuple(used.values()),
        manifests=tuple(manifest.pack() for manifest in wanted.values()),
        collaterals=tuple(published.values()),
        baselines=tuple(baselines.values()),
        withheld=tuple(withheld),
    )


def declared(
    records: Records, indices: Sequence[int], *, given: Sequence[Manifest], withhold: Container[int] = frozenset()
) -> tuple[Manifest, ...]:
    """The declared manifests that the verifier had when it judged the session.

    One that it did not have is left out, though it be given: it would make other verdicts. Nor is any needed of windows
    that are withheld, or that were refused before anything was appraised.

    Args:
        records: of the verifier that judged it.
        indices: as :func:`assemble` takes them.
        given: manifests that the verifier may have lost.
        withhold: as :func:`assemble` takes them.

    Raises:
        WeighbridgeError: as :meth:`.Records.manifest`.
    """
    terms = terms_of(records.record(indices[0]))
    shown = (records.record(index) for index in indices if index not in withhold)
    if not any(record.kind == "window" and record.reference != NO_DIGEST for record in shown):
        return ()
    ours = {manifest.digest: manifest for manifest in given}
    return tuple(
        ours.get(digest) or records.manifest(digest)
        for digest in terms.declared
        if not records.is_unknown(terms.session, digest)
    )


def redact(
    records: Records,
    reader: LedgerReader,
    indices: Sequence[int],
    *,
    salt: bytes,
    issued_ns: int,
    kid: bytes,
    signer: Callable[[bytes], bytes],
    withhold: Container[int] = frozenset(),
) -> Bundle:
    """The redacted bundle of one session: leaves, and what the verifier says of the records behind them.

    Args:
        records: of the verifier that judged it.
        reader: a snapshot of its ledger.
        indices: as :func:`assemble` takes them.
        salt: the tenant's, 32 bytes.
        issued_ns: the present, since 1970.
        kid: thumbprint of the verifier's key.
        signer: signs with it.
        withhold: ledger indices of those of which nothing is said.

    Raises:
        WeighbridgeError: as :class:`.Records`.
    """
    terms = terms_of(records.record(indices[0]))
    rows: list[Row] = []
    for index in indices:
        if index not in withhold:
            record = records.record(index)
            rows.append(Row(index, sha256(record.encode()), summary(record, salt=salt, tenant=terms.tenant)))
    redaction = Redaction(
        session=terms.session,
        tenant=terms.tenant,
        origin=reader.checkpoint.origin,
        salt=salt_thumbprint(salt, terms.tenant),
        issued_ns=issued_ns,
        model=terms.model,
        adapters=terms.adapters,
        rows=tuple(rows),
    )
    return Bundle(
        checkpoint=reader.checkpoint.note,
        entries=(),
        policies=(),
        references=(),
        manifests=(),
        collaterals=(),
        baselines=(),
        withheld=tuple(Withheld(index, reader.inclusion_proof(index), reader.entry(index)) for index in indices),
        redaction=redaction.sign(kid=kid, signer=signer),
    )


def ending(reader: LedgerReader, session: bytes, *, after: int, seq: int) -> tuple[int, ...]:
    """Where the ledger says how a session ended: the window that failed it, or its closing.

    Neither continues its chain, so nobody else remembers them. A window that was recorded twice, because power failed
    before the session knew of it, is named where it was recorded last.

    Args:
        reader: of the ledger.
        session: 16 bytes.
        after: ledger index of its last window in the chain, or of its enrolment.
        seq: the number of windows in the chain.
    """
    last: dict[int, int] = {}
    others: list[int] = []
    for index in range(after + 1, reader.checkpoint.size):
        leaf = Leaf.parse(reader.entry(index))
        if leaf.session != session:
            continue
        if leaf.kind == "window" and leaf.seq is not None and leaf.seq >= seq:
            last[leaf.seq] = index
        else:
            others.append(index)
    return tuple(sorted([*last.values(), *others]))


def _sorted(files: PolicyFiles) -> PolicyFiles:
    return tuple(sorted(files))
