"""Recorded windows judged by another policy than the one that judged them, and what would change, counted by rule.

Each window is decided at its recorded receipt time. What it is compared with is the recorded verdict or, for two
policies side by side, the decision of the earlier one. Beside that, where the policy that judged it is known, it is
asked again: what it says now should be what is recorded.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self, final

from weighbridge.policy import policy_set
from weighbridge.policy.authoring.attribution import Attributor
from weighbridge.policy.authoring.comparison import Reason, Sample, Standing, Tally, compare
from weighbridge.policy.engine import DEFAULT_LIMITS
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.proto import strict
from weighbridge.proto.errors import EnvironmentFault, PolicyDenied, WeighbridgeError
from weighbridge.verifier.appraisal import outcome_of
from weighbridge.verifier.case import denial_of
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Denial, Prepared
    from weighbridge.policy.policy_set import PolicyFiles, PolicySet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.recorded import RecordedWindow

    _Rules = Mapping[Reason, tuple[tuple[str, str], ...]]

__all__ = ["BEFORE_ANY_POLICY", "ENGINE", "INVARIANT", "Part", "Rejudge", "recorded_standing"]

BEFORE_ANY_POLICY: Final = "refused before any policy"
INVARIANT: Final = "an invariant"
ENGINE: Final = "the policy gave no answer"
# Each is a process or two. Reference values change with time, and those before are not needed again.
_LOADED_MAX: Final = 4
_PART: Final = 200
# A machine that is busy with this for hours is no reason to tell somebody of a timeout that no verifier would see.
_LIMITS: Final = replace(DEFAULT_LIMITS, decide_seconds=5 * DEFAULT_LIMITS.decide_seconds)
_MESSAGE_MAX: Final = 300
_NO_ANSWER: Final = frozenset({"undefined", "error", "timeout", "crashed", "disagree"})


@dataclass(slots=True)
class Part:
    """What was found of some windows. Parts add up in any order.

    Attributes:
        tally: the comparisons.
        looked_at: windows that were verified, also those that are passed over.
        sessions: how many were looked at to their end.
        first: receipt time of the first window; ``None`` before there is one.
        last: of the last one.
        asked_again: windows for which the policy that judged them was asked again.
        other_verdict: of these, those for which it gives another verdict than is recorded, now; the first of them.
        other_document: windows whose document is not byte for byte the one that was judged then.
    """

    tally: Tally
    looked_at: int = 0
    sessions: int = 0
    first: str | None = None
    last: str | None = None
    asked_again: int = 0
    other_verdict: Tally = field(default_factory=Tally)
    other_document: int = 0

    @classmethod
    def empty(cls, samples_max: int) -> Self:
        """Nothing found yet."""
        return cls(Tally(samples_max), other_verdict=Tally(samples_max))

    def merge(self, other: Part) -> None:
        """Take over what ``other`` found."""
        self.tally.merge(other.tally)
        self.other_verdict.merge(other.other_verdict)
        self.looked_at += other.looked_at
        self.sessions += other.sessions
        self.asked_again += other.asked_again
        self.other_document += other.other_document
        times = [time for time in (self.first, self.last, other.first, other.last) if time is not None]
        self.first, self.last = min(times, default=None), max(times, default=None)


class _Loaded:
    """A policy with its values, ready to decide; its rules are told apart by a process of its own, made when needed."""

    def __init__(self, policy: PolicySet) -> None:
        self._policy: PolicySet = policy
        self._attributor: Attributor | None = None
        self.prepared: Prepared = RegorusEngine().load(policy, _LIMITS)

    def rules(self, document: PolicyInput, denials: tuple[Denial, ...]) -> _Rules:
        """The clauses that give each reason, as ``module:line rule``, and what each says."""
        if self._attributor is None:
            self._attributor = Attributor(self._policy, _LIMITS)
        found: dict[Reason, dict[str, str]] = {}
        for item in self._attributor.rules_of(document, denials):
            reason = Reason.of(item.denial)
            labels = [f"{source} {source.name}" for source in item.sources] or [INVARIANT]
            found.setdefault(reason, {}).update(dict.fromkeys(labels, reason.message))
        return {reason: tuple(sorted(labels.items())) for reason, labels in found.items()}

    def close(self) -> None:
        """End its processes."""
        self.prepared.close()
        if self._attributor is not None:
            self._attributor.close()


class _Judged(NamedTuple):
    """What one policy says of a window: its standing, the decision where there is one, and the rules behind it."""

    standing: Standing
    decision: Decision | None
    rules: Callable[[], _Rules]


@final
class Rejudge:
    """Judges recorded windows by ``after``. Not for two threads at once; close it.

    Args:
        after: files of the policy to judge by.
        before: files of the policy to compare with, instead of the recorded verdicts.
        samples_max: how many windows are named for each row.
    """

    def __init__(
        self,
        after: PolicyFiles,
        *,
        before: PolicyFiles | None = None,
        samples_max: int = 3,
    ) -> None:
        self._after: PolicyFiles = after
        self._before: PolicyFiles | None = before
        self._recorded: Callable[[bytes], PolicyFiles | None] = lambda _: None
        self._samples_max: int = samples_max
        self._loaded: OrderedDict[tuple[bytes, bytes], _Loaded] = OrderedDict()
        self._then: dict[bytes, PolicyFiles | None] = {}
        self._names: dict[PolicyFiles, bytes] = {}
        self._reference: tuple[Reference, bytes] | None = None

    def parts(
        self,
        windows: Iterable[RecordedWindow],
        *,
        recorded: Callable[[bytes], PolicyFiles | None],
        since_ns: int = 0,
    ) -> Iterator[Part]:
        """What is found of one session's ``windows``, a few hundred at a time.

        Args:
            windows: in order; what verifying them raises goes through.
            recorded: the files of the policy that a record names by its digest; ``None`` where they were not kept.
            since_ns: windows received before are passed over.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: a policy does not load.
            EnvironmentFault: no worker can be started.
        """
        # What one bundle lacks, another may have.
        self._recorded = recorded
        self._then = {digest: files for digest, files in self._then.items() if files is not None}
        part = Part.empty(self._samples_max)
        for window in windows:
            part.looked_at += 1
            if nanoseconds(window.received) >= since_ns:
                self.add(part, window)
            if part.looked_at >= _PART:
                yield part
                part = Part.empty(self._samples_max)
        part.sessions = 1
        yield part

    def close(self) -> None:
        """End all workers. May be called again."""
        while self._loaded:
            self._loaded.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, part: Part, window: RecordedWindow, *, name: str = "") -> None:
        """Look at one window; ``name`` is what people know it by, instead of its session.

        Raises:
            PolicyDenied, EnvironmentFault: as :meth:`parts`.
        """
        tally, at = part.tally, strict.time_encode(window.received)
        tally.windows += 1
        part.first, part.last = part.first or at, at
        if window.document is None and window.policy == NO_DIGEST:
            tally.before_any_policy += 1
            return
        sample = Sample(at, name or window.session.hex(), window.seq, "")
        after = self._judge(self._after, window)
        if self._before is not None:
            before = self._judge(self._before, window)
            self._count(tally, before, after, sample)
            return
        recorded, went = recorded_standing(window), _unknown
        if (again := self._ask_again(window, after)) is not None:
            part.asked_again += 1
            part.other_document += _other_document(window, again)
            part.other_verdict.windows += 1
            self._count(part.other_verdict, _Judged(recorded, None, _unknown), again, sample)
            went = again.rules
        self._count(tally, _Judged(recorded, None, went), after, sample)

    def _ask_again(self, window: RecordedWindow, after: _Judged) -> _Judged | None:
        """The policy that judged ``window`` then, if it is known, and the document could be made."""
        if window.policy == NO_DIGEST or window.document is None:
            return None
        if after.decision is not None and after.decision.policy_digest == window.policy:
            return after
        if window.policy not in self._then:
            self._then[window.policy] = self._recorded(window.policy)
        if (files := self._then[window.policy]) is None:
            return None
        try:
            return self._judge(files, window)
        except (PolicyDenied, ValueError):
            # Today's checker has something against it, so there is nobody to ask.
            self._then[window.policy] = None
            return None

    @staticmethod
    def _count(tally: Tally, before: _Judged, after: _Judged, sample: Sample) -> None:
        change = compare(before.standing, after.standing)
        if change is not None:
            # Rules are asked for only where they are told: that takes another evaluation.
            came = {reason: rules for reason, rules in after.rules().items() if reason in change.came}
            went = {reason: rules for reason, rules in before.rules().items() if reason in change.went}
            tally.add(change, sample=sample, rules={**went, **came})

    def _judge(self, files: PolicyFiles, window: RecordedWindow) -> _Judged:
        document = window.document
        if document is None:
            reasons = frozenset(Reason.of(denial) for denial in window.refused)
            return _Judged(Standing("denied", reasons), None, lambda: _all_of(reasons, BEFORE_ANY_POLICY))
        loaded = self._load(files, window.reference)
        decision: Decision | None = None
        try:
            decision = loaded.prepared.decide(document)
            denials = decision.denials
        except EnvironmentFault:
            raise
        except WeighbridgeError as error:
            denials = (denial_of(error, window.seq),)
        word = outcome_of(denials, decision, held=window.held)
        if decision is None or decision.outcome in _NO_ANSWER:
            detail = "" if decision is None else decision.detail
            reasons = frozenset(Reason(item.code, item.device, detail or item.message) for item in denials)
            return _Judged(Standing(word, reasons), decision, lambda: _all_of(reasons, ENGINE))
        standing = Standing(word, frozenset(Reason.of(denial) for denial in denials))
        return _Judged(standing, decision, lambda: loaded.rules(document, denials))

    def _load(self, files: PolicyFiles, reference: Reference) -> _Loaded:
        if self._reference is None or self._reference[0] is not reference:
            self._reference = reference, reference.digest
        # Not their digest: to hash some hundred kilobytes for each window costs more than the decision.
        name = self._names.setdefault(files, len(self._names).to_bytes(4, "big"))
        key = name, self._reference[1]
        if key not in self._loaded:
            policy = policy_set.recorded(files, reference=reference)
            self._loaded[key] = _Loaded(policy)
            if len(self._loaded) > _LOADED_MAX:
                self._loaded.popitem(last=False)[1].close()
        self._loaded.move_to_end(key)
        return self._loaded[key]


def recorded_standing(window: RecordedWindow) -> Standing:
    """How ``window`` stands by its recorded verdict."""
    listed = window.recorded.get("denials")
    reasons: set[Reason] = set()
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(code := item.get("code"), str):
            device, message = item.get("device"), item.get("message")
            reasons.add(Reason(code, device if isinstance(device, str) else None, str(message or "")[:_MESSAGE_MAX]))
    return Standing(window.outcome, frozenset(reasons))


def _other_document(window: RecordedWindow, again: _Judged) -> bool:
    policy = window.recorded.get("policy")
    digest = policy.get("input") if isinstance(policy, dict) else None
    return again.decision is not None and again.decision.input_digest.hex() != digest


def _all_of(reasons: Iterable[Reason], rule: str) -> _Rules:
    return {reason: ((rule, reason.message),) for reason in reasons}


def _unknown() -> _Rules:
    return {}
