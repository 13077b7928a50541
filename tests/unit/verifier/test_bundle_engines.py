"""A recorded session, verified with another engine: the recorded verdicts, or it is said that they are not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from corpus.arena import Arena
from corpus.bundle import Exported, exported
from weighbridge.policy.engine import Advice
from weighbridge.policy.engines.cross_check import CrossCheck
from weighbridge.policy.engines.opa_go import OpaGoEngine
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.proto.errors import Code, LedgerInconsistent

if TYPE_CHECKING:
    from types import TracebackType

    from support.world import Engines
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, PolicyEngine, Prepared
    from weighbridge.policy.policy_set import PolicySet


@dataclass
class By:
    """Prepares policies with one engine, and closes them."""

    engine: PolicyEngine
    made: list[Prepared] = field(default_factory=list)

    def load(self, policy: PolicySet) -> Prepared:
        self.made.append(self.engine.load(policy))
        return self.made[-1]

    def verify(self, made: Exported) -> str:
        """The engine that the first verdict names; the bundle was verified by its recorded policy."""
        try:
            result = replace(made, engines=cast("Engines", self)).verify()
        finally:
            for prepared in self.made:
                prepared.close()
        assert result.same_policy
        decision = result.verdicts[0].decision
        assert decision is not None
        return decision.engine


@dataclass
class Another:
    """Regorus under another name, that says something else."""

    changes: dict[str, Any]
    inner: Prepared | None = None
    name: str = "another"
    version: str = "1"

    def load(self, policy: PolicySet) -> Self:
        self.inner = RegorusEngine().load(policy)
        return self

    def decide(self, document: PolicyInput) -> Decision:
        assert self.inner is not None
        return replace(
            self.inner.decide(document), **{"engine": self.name, "engine_version": self.version, **self.changes}
        )

    def close(self) -> None:
        assert self.inner is not None
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@pytest.mark.peer
def test_opa_and_both_together_give_the_recorded_verdicts(arena: Arena, opa_library: Path) -> None:
    made = exported(arena)
    opa = OpaGoEngine(opa_library)
    assert By(opa).verify(made) == "opa-go"
    assert By(CrossCheck(RegorusEngine(), opa)).verify(made) == "cross:regorus,opa-go"


WRONG: tuple[dict[str, Any], ...] = (
    {"outcome": "disagree"},
    {"warnings": (Advice("W", "more"),)},
    {"unchecked": ()},
    {"trust_claims": {}},
)


def test_another_engine_differs_in_its_name_and_its_words_alone(arena: Arena) -> None:
    made = exported(arena)
    for changes in ({}, {"engine": "regorus", "engine_version": "newer"}, {"detail": "in other words"}):
        assert By(cast("PolicyEngine", Another(changes))).verify(made) == changes.get("engine", "another")
    for wrong in WRONG:
        with pytest.raises(LedgerInconsistent) as caught:
            By(cast("PolicyEngine", Another(wrong))).verify(made)
        assert caught.value.code is Code.BUNDLE_VERDICT


def test_the_same_engine_may_not_even_differ_in_its_words(arena: Arena) -> None:
    made = exported(arena)
    same = {"engine": "regorus", "engine_version": RegorusEngine().version, "detail": "in other words"}
    with pytest.raises(LedgerInconsistent) as caught:
        By(cast("PolicyEngine", Another(same))).verify(made)
    assert caught.value.code is Code.BUNDLE_VERDICT
