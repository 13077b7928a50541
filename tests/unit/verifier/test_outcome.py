"""A verdict's one word: what admits, what holds, what is not known, and what denies; and what else it is asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from support.world import NOON
from weighbridge.policy.document import AttesterCode
from weighbridge.policy.engine import Decision, Denial, Obligation
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.appraisal import NOT_PROVEN, Verdict, decide, decide_all, not_proven, outcome_of
from weighbridge.verifier.case import Case

if TYPE_CHECKING:
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Outcome as Decided
    from weighbridge.policy.engine import Prepared
    from weighbridge.verifier.appraisal import Outcome
    from weighbridge.verifier.tpm.ak import VerifiedAk

HELD, UNUSABLE, OTHER = Code.WINDOW_HELD, Code.TELEMETRY_UNUSABLE, Code.TELEMETRY_NO_BASELINE


def denials(*codes: Code) -> tuple[Denial, ...]:
    return tuple(
        Denial(code=code.value, message="no", window=1, device=None, expected=None, got=None, hint=None)
        for code in codes
    )


def decided(outcome: Decided, *codes: Code, detail: str = "", obligations: tuple[Obligation, ...] = ()) -> Decision:
    return Decision(
        outcome=outcome,
        denials=denials(*codes),
        warnings=(),
        unchecked=(),
        obligations=obligations,
        trust_claims={},
        policy_digest=bytes(32),
        reference_digest=bytes(32),
        input_digest=bytes(32),
        engine="test",
        engine_version="1",
        detail=detail,
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
        ("deny", (), True, "denied"),
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


# -- what else a verdict is asked --------------------------------------------------------------------------------------


class Key:
    """An attestation key, as far as a verdict says something of it."""

    unproven = "what this key leaves open"
    provenance, platform, anchor, detail, state_held_by = "ek-credential", "emulated", "a root", "", "unknown"


KEY = cast("VerifiedAk", Key())


def verdict(outcome: Outcome, *, held: bool = False, decision: Decision | None = None) -> Verdict:
    return Verdict(
        session=bytes(16),
        tenant="tenant-a",
        seq=1,
        received=NOON,
        held=held,
        outcome=outcome,
        denials=(),
        decision=decision,
        telemetry="no_baseline",
        physical=None,
        reference=None,
        collateral=None,
        ak=KEY,
        attester_code=None,
    )


@pytest.mark.parametrize("outcome", ["affirmed", "denied", "held", "indeterminate"])
def test_a_gate_opens_for_what_is_affirmed_and_fresh(outcome: Outcome) -> None:
    assert verdict(outcome).opens == (outcome == "affirmed")
    assert not verdict(outcome, held=True).opens


def test_a_spot_check_is_due_where_a_policy_obliges_to_it() -> None:
    due, other = (Obligation("spot_check", None, "new host"), Obligation("reattest", 60, "new host"))
    assert verdict("affirmed", decision=decided("allow", obligations=(due,))).obliges_spot_check
    assert not verdict("affirmed", decision=decided("allow", obligations=(other,))).obliges_spot_check
    assert not verdict("denied").obliges_spot_check


def test_a_verdict_is_what_it_says_whether_it_was_encoded_or_not() -> None:
    """Its bytes are made of it, once, and are no part of it."""
    encoded, fresh = verdict("denied"), verdict("denied")
    assert encoded.encode() is encoded.encode()
    assert (encoded, repr(encoded)) == (fresh, repr(fresh))
    assert replace(encoded, seq=2).encode() == replace(fresh, seq=2).encode() != fresh.encode()


@pytest.mark.parametrize(
    ("code", "said"), [(None, True), (AttesterCode(), True), (AttesterCode("proven"), False)], ids=["none", "not", "is"]
)
def test_what_is_not_proven_begins_with_what_this_session_leaves_open(code: AttesterCode | None, said: bool) -> None:
    first, *more = not_proven(KEY, code)
    assert first == "what this key leaves open"
    assert [line.startswith("attester code is unproven") for line in more[: -len(NOT_PROVEN)]] == [True] * said
    assert tuple(more[-len(NOT_PROVEN) :]) == NOT_PROVEN


# -- a policy that is asked --------------------------------------------------------------------------------------------


class Answers:
    """A policy that answers about a window as its number says."""

    def __init__(self, *answers: Decision) -> None:
        self._answers = answers

    def decide(self, document: PolicyInput) -> Decision:
        return self._answers[document.window.seq]


def case(seq: int) -> Case:
    return Case(cast("PolicyInput", SimpleNamespace(window=SimpleNamespace(seq=seq))), (), AttesterCode())


@pytest.mark.parametrize(
    ("outcome", "code", "detail", "words"),
    [
        ("timeout", Code.POLICY_TIMEOUT, "after 1 s", "after 1 s"),
        ("timeout", Code.POLICY_TIMEOUT, "", "timeout"),
        ("crashed", Code.POLICY_CRASHED, "signal 9", "signal 9"),
    ],
)
def test_an_engine_that_gave_no_decision_has_judged_nothing(
    outcome: Decided, code: Code, detail: str, words: str
) -> None:
    """A busy machine fails no innocent host: there is no verdict, and the window may come again."""
    policy = cast("Prepared", Answers(decided(outcome, detail=detail)))
    with pytest.raises(EnvironmentFault) as fault:
        decide(policy, case(0))
    assert (fault.value.code, fault.value.message) == (code, f"the policy engine gave no decision: {words}")


def test_of_cases_together_each_has_its_own_answer() -> None:
    """What an invariant refused is asked of nobody, and an engine that died over one window has judged the others."""
    allow, deny = decided("allow"), decided("deny", OTHER)
    refused = Case(None, denials(Code.MODEL_UNDECLARED), AttesterCode())
    policy = cast("Prepared", Answers(allow, deny, decided("crashed")))
    first, none, fault, last = decide_all(policy, [case(1), refused, case(2), case(0)])
    assert first == (deny, deny.denials)
    assert none == (None, refused.denials)
    assert isinstance(fault, EnvironmentFault)
    assert last == (allow, ())
