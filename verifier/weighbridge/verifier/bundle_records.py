"""What a bundle says was recorded, without judging anything again: all that a redacted one can show.

The procedure of :func:`verify_records`:

1. the checkpoint is signed by a ``ledger`` anchor, and every record or leaf is in its tree;
2. they are the judgements of one session, in order, without a gap; each window's leaf names the H of the one before;
3. of a redacted bundle: what it says is signed by a ``verifier`` anchor that is believed when it says so, and that is
   after all of which it tells; it is of this session and ledger; each row has the digest of the record that its leaf
   commits to, and that leaf's kind, number and time.

Not checked: that any of it was right. A verdict here is what the verifier wrote down when it had the evidence; for a
redacted bundle, moreover, what it says today that it wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import cose, strict
from weighbridge.proto.errors import Code, Indeterminate, LedgerInconsistent, MalformedEvidence
from weighbridge.verifier.bundle_checks import UNCLOSED, Trail
from weighbridge.verifier.bundle_order import check_order, in_order
from weighbridge.verifier.bundle_proof import open_checkpoint, proven_leaf, proven_record, trusted_verifier
from weighbridge.verifier.check_tree import Check
from weighbridge.verifier.clock import moment
from weighbridge.verifier.record import Leaf
from weighbridge.verifier.recorded import read_verdict
from weighbridge.verifier.redaction import REDACTION_TYP, Redaction, facts, terms_of
from weighbridge.verifier.witnesses import cosignatures
from weighbridge.verifier.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.bundle_format import Bundle
    from weighbridge.verifier.record import Record

__all__ = ["RecordedJudgement", "RecordsVerdict", "verify_records"]

_REDACTION_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedJudgement:
    """One window's verdict as it was recorded.

    Attributes:
        seq: the window's number.
        index: of its entry in the ledger.
        received: when it was received, by the verifier's word.
        outcome: the verdict's word; ``None`` where it is withheld.
        held: whether it came too late to be fresh; ``None`` likewise.
        document: what is said of it: a verdict, or its summary in a redacted bundle; ``None`` likewise.
    """

    seq: int
    index: int
    received: datetime
    outcome: str | None
    held: bool | None
    document: strict.JsonObject | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsVerdict:
    """What a bundle says was recorded.

    Attributes:
        session: 16 bytes.
        model: digest of the declared manifest; ``None`` where that is withheld.
        redacted: whether devices go by pseudonyms, and the rest is withheld.
        windows: all of the session's, in order.
        untold: of how many judgements, windows or others, nothing is said.
        closed: whether a closing counts the windows: without one, whoever gave the file may have left out the last.
        origin: the ledger's name.
        size: the number of its entries under the bundle's checkpoint.
        cosigned: the names of the trusted witnesses that cosigned it.
        checks: what was checked.
    """

    session: bytes
    model: bytes | None
    redacted: bool
    windows: tuple[RecordedJudgement, ...]
    untold: int
    closed: bool
    origin: str
    size: int
    cosigned: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def shown(self) -> tuple[RecordedJudgement, ...]:
        """The windows of which something is said."""
        return tuple(window for window in self.windows if window.outcome is not None)

    @property
    def denied(self) -> tuple[RecordedJudgement, ...]:
        """Those that were denied."""
        return tuple(window for window in self.windows if window.outcome == "denied")

    @property
    def admitted(self) -> bool:
        """Whether every judgement is told, nothing was denied, and the last fresh window was affirmed.

        What is not told may be a denial: whoever hands a file on can leave it out.
        """
        fresh = [window.outcome for window in self.shown if not window.held]
        return fresh[-1:] == ["affirmed"] and not self.denied and not self.untold


def verify_records(
    bundle: Bundle, *, anchors: TrustAnchors, at: datetime | None = None, trail: Trail | None = None
) -> RecordsVerdict:
    """What ``bundle`` says was recorded: the module's procedure.

    Args:
        bundle: parsed, untrusted; of any kind.
        anchors: whose keys are believed: ledger, verifier, witnesses.
        at: the time from which one looks; ``None`` for whatever time the records say.
        trail: is told how far this came.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature does not hold, or its key is not trusted.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``.
        Indeterminate: ``BUNDLE_FUTURE``.
    """
    trail = trail or Trail()
    # 1.
    trail.stage = "ledger"
    checkpoint, ledger = open_checkpoint(bundle.checkpoint, anchors)
    cosigned = cosignatures(checkpoint, anchors)
    records = [proven_record(entry, checkpoint) for entry in bundle.entries]
    leaves = [proven_leaf(item, checkpoint) for item in bundle.withheld]
    # 2.
    places = in_order(bundle, records, leaves)
    check_order(places)
    by_index = {entry.index: Leaf.of(record) for entry, record in zip(bundle.entries, records, strict=True)}
    by_index |= {item.index: leaf for item, leaf in zip(bundle.withheld, leaves, strict=True)}
    for leaf in by_index.values():
        ledger.check_validity(moment(leaf.received_ns))
        _require_before(leaf, at)
    _check_links([by_index[place.index] for place in places])
    # 3.
    trail.stage = "enrolment"
    redaction = None
    if bundle.redaction is not None:
        _check_alone(bundle)
        redaction = _redaction(bundle.redaction, by_index, anchors, origin=checkpoint.origin)
        if at is not None and moment(redaction.issued_ns) > at:
            raise _from_later(moment(redaction.issued_ns), at, "redaction")
    session = places[0].session
    said = _said(bundle, records, redaction, by_index)
    windows = tuple(
        _judgement(place.seq or 0, place.index, by_index[place.index], said.get(place.index))
        for place in places
        if place.kind == "window"
    )
    model = redaction.model if redaction is not None else None
    if records and records[0].kind == "enrolment":
        model = terms_of(records[0]).model
    witness = ", ".join(item.key.name for item in cosigned) or "none that you trust"
    known = sum(window.outcome is not None for window in windows)
    told = {entry.index for entry in bundle.entries}
    if redaction is not None:
        told |= said.keys()
    closed = places[-1].kind == "closing"
    return RecordsVerdict(
        session=session,
        model=model,
        redacted=redaction is not None,
        windows=windows,
        untold=sum(place.index not in told for place in places),
        closed=closed,
        origin=checkpoint.origin,
        size=checkpoint.size,
        cosigned=tuple(item.key.name for item in cosigned),
        checks=(
            Check("bundle", "passed", f"{counted(len(records), 'judgement')} shown, {len(leaves)} withheld"),
            Check(
                "ledger",
                "passed",
                f"{checkpoint.origin}, {counted(checkpoint.size, 'entry', 'entries')}, cosigned by {witness}",
                "that it showed others the same entries, only its witnesses say",
            ),
            Check(
                "records",
                "passed",
                f"{known} of {counted(len(windows), 'verdict')} told",
                "the verifier's word: nothing was judged again"
                + (", and its summaries" if redaction else "")
                + ("" if closed else f"; {UNCLOSED}"),
            ),
            Check("evidence", "withheld" if leaves else "not checked", "not looked at"),
        ),
    )


def _said(
    bundle: Bundle, records: Sequence[Record], redaction: Redaction | None, by_index: Mapping[int, Leaf]
) -> Mapping[int, strict.JsonObject]:
    """What is said of windows, by ledger index."""
    if redaction is None:
        return {
            entry.index: read_verdict(record.verdict)
            for entry, record in zip(bundle.entries, records, strict=True)
            if record.kind == "window"
        }
    found: dict[int, strict.JsonObject] = {}
    for row in redaction.rows:
        document = strict.json_decode(row.document, what="redaction")
        if not isinstance(document, dict):
            raise MalformedEvidence(Code.FIELD_TYPE, "not a summary", where=f"redaction, entry {row.index}")
        _check_facts(document, by_index[row.index], row.index)
        found[row.index] = document
    return found


def _judgement(seq: int, index: int, leaf: Leaf, said: strict.JsonObject | None) -> RecordedJudgement:
    outcome = None if said is None else said.get("outcome")
    if said is not None and not isinstance(outcome, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "no outcome is told", where=f"entry {index}")
    return RecordedJudgement(
        seq=seq,
        index=index,
        received=moment(leaf.received_ns),
        outcome=outcome if isinstance(outcome, str) else None,
        held=None if said is None else said.get("freshness") == "held",
        document=said,
    )


def _check_facts(document: strict.JsonObject, leaf: Leaf, index: int) -> None:
    """Require that a summary is of the judgement in whose row it stands."""
    for name, value in facts(leaf).items():
        if document.get(name) != value:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                f"the summary has another {name} than the ledger's leaf",
                where=f"redaction, entry {index}",
                expected=str(value),
                got=str(document.get(name)),
            )


def _check_alone(bundle: Bundle) -> None:
    beside = (bundle.entries, bundle.policies, bundle.references, bundle.manifests, bundle.requests)
    if any(beside) or bundle.collaterals or bundle.baselines:
        raise MalformedEvidence(
            Code.BUNDLE_MALFORMED, "a redacted bundle shows nothing but its summaries", where="bundle"
        )


def _redaction(data: bytes, leaves: Mapping[int, Leaf], anchors: TrustAnchors, *, origin: str) -> Redaction:
    """What a redacted bundle says, once it is signed and of the judgements whose leaves are there."""
    message = cose.parse(data, typ=REDACTION_TYP, limit=_REDACTION_MAX, what="redaction")
    claimed = Redaction.parse(message.payload)
    key = trusted_verifier(message.claimed_kid, anchors, at=moment(claimed.issued_ns), where="redaction")
    redaction = Redaction.parse(cose.verify(message, key))
    if {leaf.session for leaf in leaves.values()} != {redaction.session}:
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "the summaries are of another session", where="redaction")
    if redaction.origin != origin:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the summaries are of another ledger",
            where="redaction",
            expected=origin,
            got=redaction.origin,
        )
    latest = max(leaf.received_ns for leaf in leaves.values())
    if redaction.issued_ns < latest:
        raise LedgerInconsistent(
            Code.LEDGER_INCONSISTENT,
            "the summaries are dated before what they tell of",
            where="redaction",
            expected=f">= {strict.time_encode(moment(latest))}",
            got=strict.time_encode(moment(redaction.issued_ns)),
        )
    indices = [row.index for row in redaction.rows]
    if indices != sorted(set(indices)):
        raise MalformedEvidence(Code.BUNDLE_MALFORMED, "summaries are repeated or out of order", where="redaction")
    for row in redaction.rows:
        leaf = leaves.get(row.index)
        if leaf is None or leaf.record != row.record:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                "a summary is of another record than the ledger's",
                where=f"redaction, entry {row.index}",
                expected=None if leaf is None else leaf.record,
                got=row.record,
            )
    return redaction


def _check_links(leaves: Sequence[Leaf]) -> None:
    """Each window came when the session's chain stood at the one before."""
    reached: bytes | None = None
    for leaf in leaves:
        if leaf.kind != "window":
            continue
        if leaf.previous != reached:
            raise LedgerInconsistent(
                Code.LEDGER_INCONSISTENT,
                "a leaf does not continue the one before",
                where=f"window {leaf.seq}",
                expected=reached,
                got=leaf.previous,
            )
        reached = leaf.window


def _require_before(leaf: Leaf, at: datetime | None) -> None:
    if at is not None and moment(leaf.received_ns) > at:
        raise _from_later(moment(leaf.received_ns), at, f"{leaf.kind} {leaf.seq}")


def _from_later(then: datetime, at: datetime, where: str) -> Indeterminate:
    return Indeterminate(
        Code.BUNDLE_FUTURE,
        "recorded after the time from which you look",
        where=where,
        expected=f"<= {strict.time_encode(at)}",
        got=strict.time_encode(then),
        hint="name a later time: --at; or the verifier's clock, or yours, is wrong",
    )
