"""What would change: two standings of one window compared, and many such comparisons counted by rule.

A standing is a verdict's word and its reasons. Reasons are compared by code and device: another wording is no other
decision, and neither is another value of the same check. Nothing here evaluates a policy. Tallies are merged in any
order, and the sum is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.policy.engine import Denial

__all__ = ["Change", "Key", "Reason", "Row", "Sample", "Standing", "Tally", "Word", "compare"]

Word = Literal["affirmed", "held", "indeterminate", "denied"]
Effect = Literal["came", "went"]
_MESSAGE_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a window is denied. Two are the same that have ``code`` and ``device`` in common."""

    code: str
    device: str | None
    message: str = field(default="", compare=False)

    @classmethod
    def of(cls, denial: Denial) -> Reason:
        """The reason that ``denial`` gives."""
        return cls(denial.code, denial.device, denial.message[:_MESSAGE_MAX])


@dataclass(frozen=True, slots=True)
class Standing:
    """How one window stands under one policy."""

    word: Word
    reasons: frozenset[Reason]


@dataclass(frozen=True, slots=True)
class Change:
    """How a window would stand otherwise.

    Attributes:
        before: the verdict's word.
        after: what it would be.
        came: reasons that only the later standing has.
        went: reasons that only the earlier one has.
    """

    before: Word
    after: Word
    came: tuple[Reason, ...]
    went: tuple[Reason, ...]

    @property
    def title(self) -> str:
        """Such as ``affirmed -> denied``."""
        return f"{self.before} -> {self.after}"


def compare(before: Standing, after: Standing) -> Change | None:
    """What is different, if anything is. Reasons count where a window is denied: what holds it holds it both times."""
    if before.word == after.word and (before.word != "denied" or before.reasons == after.reasons):
        return None
    return Change(
        before.word,
        after.word,
        came=tuple(sorted(after.reasons - before.reasons, key=_order)),
        went=tuple(sorted(before.reasons - after.reasons, key=_order)),
    )


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What changes are counted by.

    Attributes:
        title: of the change.
        effect: whether the reason comes or goes.
        code: of the reason; empty where a change has none, as from one policy that gives none.
        rule: where it is made, as far as that is known.
    """

    title: str
    effect: Effect
    code: str
    rule: str


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """One window that would change. In the order of their receipt."""

    received_at: str
    session: str
    seq: int
    message: str
    device: str | None = field(default=None, compare=False)


@dataclass(slots=True)
class Row:
    """The changes of one key: how many windows have it, and the first of them."""

    windows: int = 0
    samples: tuple[Sample, ...] = ()


@dataclass(slots=True)
class Tally:
    """Comparisons, counted. ``samples_max`` bounds what is kept of each row; the counts are of all.

    Attributes:
        windows: compared, or counted as not comparable.
        before_any_policy: refused both times before any policy was asked: no policy changes that.
        changed: how many windows change, by the change's title.
        rows: the same by reason and rule; a window with two reasons is in two rows.
    """

    samples_max: int = 3
    windows: int = 0
    before_any_policy: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    rows: dict[Key, Row] = field(default_factory=dict)

    @property
    def changes(self) -> int:
        """How many windows would change."""
        return sum(self.changed.values())

    @property
    def same(self) -> int:
        """How many windows stand as they stood, though a policy was asked."""
        return self.windows - self.before_any_policy - self.changes

    def add(self, change: Change, *, sample: Sample, rules: Mapping[Reason, Iterable[tuple[str, str]]]) -> None:
        """Count one window that changes; whoever counts it has counted it among ``windows``.

        Args:
            change: of the window.
            sample: names the window; its message and device are filled in for each reason.
            rules: of the later policy, those that give the reasons which come; of the earlier one, those that gave the
                reasons which go; each with what it says, as far as they are known.
        """
        self.changed[change.title] = self.changed.get(change.title, 0) + 1
        found: dict[Key, Sample] = {}
        effects: tuple[tuple[Effect, tuple[Reason, ...]], ...] = (("came", change.came), ("went", change.went))
        for effect, reasons in effects:
            for reason in reasons:
                for rule, message in tuple(rules.get(reason, ())) or (("", reason.message),):
                    made = Sample(sample.received_at, sample.session, sample.seq, message, reason.device)
                    key = Key(change.title, effect, reason.code, rule)
                    found[key] = min(found.get(key, made), made)
        if not found:
            found[Key(change.title, "came", "", "")] = sample
        for key, made in found.items():
            self._count(key, 1, (made,)[: self.samples_max])

    def merge(self, other: Tally) -> None:
        """Take over what ``other`` has counted."""
        self.windows += other.windows
        self.before_any_policy += other.before_any_policy
        for title, count in other.changed.items():
            self.changed[title] = self.changed.get(title, 0) + count
        for key, row in other.rows.items():
            self._count(key, row.windows, row.samples)

    def _count(self, key: Key, windows: int, samples: tuple[Sample, ...]) -> None:
        row = self.rows.setdefault(key, Row())
        row.windows += windows
        if samples and (len(row.samples) < self.samples_max or samples[0] < row.samples[-1]):
            row.samples = tuple(sorted((*row.samples, *samples))[: self.samples_max])


def _order(reason: Reason) -> tuple[str, str]:
    return reason.code, reason.device or ""
