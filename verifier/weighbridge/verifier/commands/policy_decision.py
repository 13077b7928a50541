"""A decision as people and programs read it: for the verbs of ``weighbridge policy`` that show one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands.text import short
from weighbridge.verifier.commands.tree import Branch, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Denial
    from weighbridge.proto import strict

__all__ = ["decision_document", "decision_lines", "denial_branch"]

_WORDS: Final = {
    "allow": "ALLOWED",
    "deny": "DENIED",
    "undefined": "NOT ALLOWED: the policy gives no answer",
    "error": "NOT ALLOWED: the policy ends in an error",
    "timeout": "NOT ALLOWED: the policy takes too long",
    "crashed": "NOT ALLOWED: the policy engine died",
    "disagree": "NOT ALLOWED: two engines give different answers",
}


def decision_lines(decision: Decision, document: PolicyInput, *, prints: Sequence[str] = ()) -> list[str]:
    """The decision as a tree; what there is nothing of is left out."""
    window = f"window {document.window.seq} of session {document.session.id}, received {document.received_at}"
    warnings = (
        Branch(f"{item.code}: {item.message}{'' if item.device is None else f' ({short(item.device)})'}", indent=2)
        for item in decision.warnings
    )
    unchecked = (Branch(f"{item.check}: {item.reason}", indent=2) for item in decision.unchecked)
    obligations = (
        Branch(f"{item.kind}{'' if item.seconds is None else f' within {item.seconds} s'}: {item.reason}", indent=2)
        for item in decision.obligations
    )
    claims = (
        Branch(f"{part}: {', '.join(f'{name} {value}' for name, value in sorted(values.items()))}", indent=2)
        for part, values in decision.trust_claims.items()
    )
    judged = (
        Branch(f"policy {decision.policy_digest.hex()}"),
        Branch(f"reference values {decision.reference_digest.hex()}"),
        Branch(f"{decision.engine}, {decision.engine_version}"),
    )
    groups = (
        ("because", map(denial_branch, decision.denials)),
        ("the engine says", [Branch(decision.detail, indent=2)] if decision.detail else []),
        ("warns of", warnings),
        ("left out", unchecked),
        ("obliges the host to", obligations),
        ("claims (AR4SI)", claims),
        ("printed", (Branch(line, indent=2) for line in prints)),
        ("judged by", judged),
    )
    below = tuple(branch for title, parts in groups for branch in _group(title, parts))
    return render(Branch(f"{_WORDS[decision.outcome]}: {window}", below, indent=2))


def denial_branch(denial: Denial) -> Branch:
    """One reason: of which device, what was expected, what came, and what to do."""
    below: list[Branch] = []
    if denial.device is not None:
        below.append(Branch(f"device {short(denial.device)}"))
    if denial.expected is not None or denial.got is not None:
        expected, got = (_shown(value) for value in (denial.expected, denial.got))
        below.append(Branch(f"expected {expected}, got {got}", indent=2))
    if denial.hint:
        below.append(Branch(f"hint: {denial.hint}", indent=2))
    return Branch(f"{denial.code}: {denial.message}", tuple(below), indent=2)


def decision_document(decision: Decision) -> strict.JsonObject:
    """The decision for programs; every member is there."""
    return {
        "outcome": decision.outcome,
        "denials": [
            {
                "code": item.code,
                "message": item.message,
                "window": item.window,
                "device": item.device,
                "expected": item.expected,
                "got": item.got,
                "hint": item.hint,
            }
            for item in decision.denials
        ],
        "warn": [{"code": item.code, "message": item.message, "device": item.device} for item in decision.warnings],
        "unchecked": [{"check": item.check, "reason": item.reason} for item in decision.unchecked],
        "obligations": [
            {"kind": item.kind, "seconds": item.seconds, "reason": item.reason} for item in decision.obligations
        ],
        "trust_claims": {part: {**values} for part, values in decision.trust_claims.items()},
        "policy": decision.policy_digest.hex(),
        "reference": decision.reference_digest.hex(),
        "input": decision.input_digest.hex(),
        "engine": decision.engine,
        "engine_version": decision.engine_version,
        "detail": decision.detail or None,
    }


def _group(title: str, parts: Iterable[Branch]) -> list[Branch]:
    below = tuple(parts)
    return [Branch(title, below)] if below else []


def _shown(value: str | None) -> str:
    return "nothing" if value is None else short(value)
