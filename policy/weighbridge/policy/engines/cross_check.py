"""Two engines that must agree: a difference is an outcome of its own, and admits nothing.

Each engine has been seen to read a rule more permissively than its author meant, none in the same place. Where both
give the same outcome with the same denials, it is taken; else the outcome is ``disagree``, and ``detail`` says what
differs. The verdict then says nothing of the host: it is the engines, or the policy, that have to be looked at. What
both engines deny stays denied.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.engine import DEFAULT_LIMITS, Decision, Limits, PolicyEngine, Prepared
from weighbridge.policy.engines.output import failure

if TYPE_CHECKING:
    from types import TracebackType

    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["CrossCheck"]

_SHOWN: Final = 4


@final
class CrossCheck:
    """An engine made of two. Each decision costs both, one after the other.

    Args:
        first: the engine whose decision is given where both agree.
        second: the one that has to agree.
    """

    def __init__(self, first: PolicyEngine, second: PolicyEngine) -> None:
        self._first: PolicyEngine = first
        self._second: PolicyEngine = second

    @property
    def name(self) -> str:
        """``cross:first,second``."""
        return f"cross:{self._first.name},{self._second.name}"

    @property
    def version(self) -> str:
        """Both versions."""
        return f"{self._first.version}; {self._second.version}"

    def check(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> tuple[CheckerFinding, ...]:
        """What either engine has against ``policy``.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: one of them cannot load it.
            EnvironmentFault: a process cannot be started.
        """
        return tuple(sorted({*self._first.check(policy, limits), *self._second.check(policy, limits)}))

    def load(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> CrossPrepared:
        """Check ``policy`` and load it into both.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: one of them does not load it.
            EnvironmentFault: a process cannot be started.
        """
        first = self._first.load(policy, limits)
        try:
            second = self._second.load(policy, limits)
        except BaseException:
            first.close()
            raise
        return CrossPrepared(
            first, second, names=(self._first.name, self._second.name), engine=(self.name, self.version)
        )


@final
class CrossPrepared:
    """A policy in two engines; made by :meth:`CrossCheck.load`."""

    def __init__(self, first: Prepared, second: Prepared, *, names: tuple[str, str], engine: tuple[str, str]) -> None:
        self._both: tuple[Prepared, Prepared] = (first, second)
        self._names: tuple[str, str] = names
        self._engine: tuple[str, str] = engine

    def decide(self, document: PolicyInput) -> Decision:
        """The decision in which both engines agree, or that they do not.

        Raises:
            MalformedEvidence: as each engine's.
            RuntimeError: after :meth:`close`.
            EnvironmentFault: as each engine's.
        """
        first, second = (prepared.decide(document) for prepared in self._both)
        name, version = self._engine
        if _said(first) == _said(second):
            return replace(first, engine=name, engine_version=version)
        common = set(first.denials) & set(second.denials)
        refused = failure("disagree", self._difference(first, second), document.window.seq)
        return replace(
            first,
            outcome=refused.outcome,
            denials=(*refused.denials, *sorted(common, key=repr)),
            detail=refused.detail,
            obligations=(),
            engine=name,
            engine_version=version,
        )

    def close(self) -> None:
        """Let go of both. May be called again."""
        for prepared in self._both:
            prepared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _difference(self, first: Decision, second: Decision) -> str:
        lines: list[str] = []
        for name, decision, other in ((self._names[0], first, second), (self._names[1], second, first)):
            alone = sorted({denial.code for denial in set(decision.denials) - set(other.denials)})
            codes = ", ".join(alone[:_SHOWN]) + (f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else "")
            lines.append(
                f"{name}: {decision.outcome}{f' ({decision.detail})' if decision.detail else ''}"
                f"{f', alone in denying {codes}' if codes else ''}"
            )
        if first.outcome == second.outcome and not set(first.denials) ^ set(second.denials):
            lines.append("they differ in claims, obligations, warnings or what is unchecked")
        return "; ".join(lines)


def _said(decision: Decision) -> tuple[object, ...]:
    """Everything in a decision that an engine has said."""
    return (
        decision.outcome,
        frozenset(decision.denials),
        frozenset(decision.warnings),
        frozenset(decision.unchecked),
        frozenset(decision.obligations),
        {name: dict(claims) for name, claims in decision.trust_claims.items()},
    )
