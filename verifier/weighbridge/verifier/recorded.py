"""Windows as they were recorded, laid out for any policy: what tools for policy authors look at.

A proof bundle is verified as :mod:`.bundle` verifies it, up to where a policy would decide: what comes out is each
window's document, by the reference values and the collateral that its record names or by the caller's. The policy that
judged it then is not asked again.

A window's document says what the verifier knew when the window came: its session's state, and what earlier verdicts
obliged the host to, are those of the recorded verdicts, also where another policy would have ended the session before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, cast, final

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence, WeighbridgeError
from weighbridge.proto.manifest import Manifest
from weighbridge.verifier.bundle_proof import evidence_of, open_bundle, recorded_baselines, walk
from weighbridge.verifier.case import denial_of, make_case
from weighbridge.verifier.policy_input import Known
from weighbridge.verifier.published import Published
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Denial
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.collateral import Collateral
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.appraisal import Outcome
    from weighbridge.verifier.bundle_format import Bundle
    from weighbridge.verifier.bundle_proof import Step
    from weighbridge.verifier.replay import ReplayedEnrolment

__all__ = ["JudgedBy", "RecordedWindow", "read_verdict", "windows", "windows_of"]

_VERDICT: Final = "weighbridge/verdict/v1"
_OUTCOMES: Final = frozenset({"affirmed", "held", "indeterminate", "denied"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWindow:
    """One recorded window, verified again. Exactly one of ``document`` and ``refused`` says something.

    Attributes:
        session: 16 bytes.
        seq: its number in the session.
        received: the recorded receipt time: the present, for whatever policy looks at it.
        held: whether it came too late to be fresh.
        document: what a policy sees of it; ``None`` where an invariant or its verification refused it before any.
        refused: what refused it then.
        recorded: the verdict as recorded, schema ``weighbridge/verdict/v1``.
        outcome: the recorded verdict's.
        policy: digest of the policy that judged it; zeros where none did.
        reference: the values by which the document was made.
    """

    session: bytes
    seq: int
    received: datetime
    held: bool
    document: PolicyInput | None
    refused: tuple[Denial, ...]
    recorded: strict.JsonObject
    outcome: Outcome
    policy: bytes
    reference: Reference


@final
@dataclass(slots=True)
class JudgedBy:
    """What windows are laid out by, besides their evidence; each set of values is made once.

    Attributes:
        values: the reference values that a record names by its digest.
        collateral: the collateral that a record names.
        manifests: the declared ones, by digest.
        anchors: whose word on collateral is believed.
        published: instead of what the records name.
    """

    values: Callable[[bytes], Reference]
    collateral: Callable[[bytes], Collateral]
    manifests: Mapping[bytes, Manifest]
    anchors: TrustAnchors
    published: Published | None = None
    _last: dict[bytes, Reference] = field(default_factory=dict, repr=False)
    _last_published: dict[bytes, Published] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        anchors: TrustAnchors,
        *,
        reference: Reference | None = None,
        published: Published | None = None,
    ) -> Self:
        """By what ``bundle`` brings, or by the caller's own.

        Raises:
            MalformedEvidence: a manifest of the bundle is not well-formed.
        """
        manifests = (Manifest.unpack(data) for data in bundle.manifests)
        return cls(
            values=bundle.reference_named if reference is None else lambda _: reference,
            collateral=bundle.collateral_named,
            manifests={manifest.digest: manifest for manifest in manifests},
            anchors=anchors,
            published=published,
        )

    def reference(self, digest: bytes) -> Reference:
        """The values for a record that names ``digest``."""
        if digest not in self._last:
            # They change with time and do not come back: the ones before are not needed any more.
            self._last = {digest: self.values(digest)}
        return self._last[digest]

    def publications(self, digest: bytes) -> Published:
        """What makers had published, for a record that names ``digest``."""
        if self.published is not None:
            return self.published
        if digest not in self._last_published:
            before = next(iter(self._last_published.values()), None)
            self._last_published = {digest: Published(self.collateral(digest), self.anchors, before=before)}
        return self._last_published[digest]


def windows(
    bundle: Bundle,
    *,
    anchors: TrustAnchors,
    reference: Reference | None = None,
    collateral: Published | None = None,
) -> Iterator[RecordedWindow]:
    """The windows of ``bundle``, in order.

    Args:
        bundle: parsed, untrusted.
        anchors: whose keys are believed: ledger, verifier, EK and GPU roots.
        reference: values to lay the windows out by, instead of those that the records name.
        collateral: what makers have published, instead of what the records name.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: a signature or binding does not hold.
        LedgerInconsistent: ``LEDGER_PROOF``, ``LEDGER_INCONSISTENT``; ``BUNDLE_VERDICT`` where values or collateral
            that a record names are not there.
    """
    opened = open_bundle(bundle, anchors)
    given = ((seq, record, evidence_of(entry)) for seq, record, entry in opened.windows)
    by = JudgedBy.of(bundle, anchors, reference=reference, published=collateral)
    steps = walk(given, opened.replayed, anchors, recorded_baselines(bundle))
    return windows_of(steps, opened.replayed, by)


def windows_of(steps: Iterable[Step], replayed: ReplayedEnrolment, by: JudgedBy) -> Iterator[RecordedWindow]:
    """As :func:`windows`, of a session that was opened in another way."""
    enrolled, state = replayed.enrolled, SessionState.ENROLLED
    for step in steps:
        record, verdict = step.record, read_verdict(step.record.verdict)
        reference, document = by.reference(record.reference), None
        refused: tuple[Denial, ...]
        if isinstance(step.window, WeighbridgeError):
            refused = (denial_of(step.window, step.seq),)
        else:
            known = Known(enrolled, step.position, state, reference, by.manifests, step.physical)
            case = make_case(step.window, known, published=by.publications(record.collateral), at=step.at)
            document, refused = case.document, case.denials
        outcome = cast("Outcome", verdict["outcome"])
        yield RecordedWindow(
            session=record.session,
            seq=step.seq,
            received=step.at,
            held=record.held,
            document=document,
            refused=refused,
            recorded=verdict,
            outcome=outcome,
            policy=record.policy,
            reference=reference,
        )
        if not isinstance(step.window, WeighbridgeError):
            state = _after(state, opens=outcome == "affirmed" and not record.held)


def read_verdict(data: bytes) -> strict.JsonObject:
    """The recorded verdict. Only its schema and its outcome are looked at.

    Raises:
        MalformedEvidence: it is none.
    """
    document = strict.json_decode(data, what="verdict")
    if not isinstance(document, dict) or document.get("schema") != _VERDICT:
        raise MalformedEvidence(Code.FIELD_RANGE, "not a verdict", where="verdict.schema", expected=_VERDICT)
    outcome = document.get("outcome")
    if not isinstance(outcome, str) or outcome not in _OUTCOMES:
        raise MalformedEvidence(Code.FIELD_RANGE, "unknown outcome", where="verdict.outcome")
    return document


def _after(state: SessionState, *, opens: bool) -> SessionState:
    if opens:
        return SessionState.RUNNING
    return SessionState.MEASURED if state is SessionState.ENROLLED else state
