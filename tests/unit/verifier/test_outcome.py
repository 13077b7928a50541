"""A verdict's one word: what admits, what holds, what is not known, and what denies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from weighbridge.policy.engine import Decision, Denial
from weighbridge.proto.errors import Code
from weighbridge.verifier.appraisal import outcome_of

if TYPE_CHECKING:
    from weighbridge.policy.engine import Outcome as Decided

HELD, UNUSABLE, OTHER = Code.WINDOW_HELD, Code.TELEMETRY_UNUSABLE, Code.TELEMETRY_NO_BASELINE


def denials(*codes: Code) -> tuple[Denial, ...]:
    return tuple(
        Denial(code=code.value, message="no", window=1, device=None, expected=None, got=None, hint=None)
        for code in codes
    )


def decided(outcome: Decided, *codes: Code) -> Decision:
    return Decision(
        outcome=outcome,
        denials=denials(*codes),
        warnings=(),
        unchecked=(),
        obligations=(),
        trust_claims={},
        policy_digest=bytes(32),
        reference_digest=bytes(32),
        input_digest=bytes(32),
        engine="test",
        engine_version="1",
        detail="",
    )


@pytest.mark.parametrize(
    ("outcome", "codes", "held", "word"),
    [
        ("allow", (), False, "affirmed"),
        ("allow", (), True, "denied"),
        ("allow", (UNUSABLE,), False, "denied"),
        ("deny", (), False, "denied"),
        ("deny", (HELD,), True, "held"),
        ("deny", (HELD,), False, "denied"),
        ("deny", (UNUSABLE,), False, "indeterminate"),
        ("deny", (UNUSABLE, UNUSABLE), False, "indeterminate"),
        ("deny", (UNUSABLE, HELD), True, "indeterminate"),
        ("deny", (UNUSABLE,), True, "indeterminate"),
        ("deny", (UNUSABLE, OTHER), False, "denied"),
        ("deny", (UNUSABLE, HELD, OTHER), True, "denied"),
        ("deny", (OTHER,), False, "denied"),
        ("undefined", (UNUSABLE,), False, "denied"),
        ("error", (UNUSABLE,), False, "denied"),
        ("disagree", (HELD,), True, "denied"),
    ],
)
def test_the_word_of_a_decision(outcome: Decided, codes: tuple[Code, ...], held: bool, word: str) -> None:
    decision = decided(outcome, *codes)
    assert outcome_of(decision.denials, decision, held=held) == word


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("codes", [(), (UNUSABLE,), (HELD,), (OTHER,)])
def test_without_a_decision_everything_is_denied(codes: tuple[Code, ...], held: bool) -> None:
    assert outcome_of(denials(*codes), None, held=held) == "denied"
