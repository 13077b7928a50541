"""Explanations as people and programs read them: for ``weighbridge policy explain``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring.attribution import open_bench
from weighbridge.policy.authoring.clauses import Clauses
from weighbridge.policy.authoring.telling import Line, because, examined, sentence, shown, subject, tree
from weighbridge.policy.engine import DEFAULT_LIMITS
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.verifier import appraisal
from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.policy_decision import decision_document
from weighbridge.verifier.commands.text import counted, short
from weighbridge.verifier.commands.tree import Branch, render
from weighbridge.verifier.invariants import INVARIANTS, Invariant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.authoring.explain import Explanation, Grounds, Reason
    from weighbridge.policy.authoring.reasons import Way
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Denial
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto import strict
    from weighbridge.verifier.recorded import RecordedWindow

__all__ = ["Told", "coded", "invariants_of", "judged", "outcome_of", "refused", "unasked"]

_FAILED: Final = {
    "undefined": "the policy gives no answer",
    "error": "the policy ends in an error",
    "timeout": "the policy takes too long",
    "crashed": "the policy engine died",
    "disagree": "two engines give different answers",
}
# What judges windows, rather than enrolments, comes first.
_OF_WINDOWS: Final = "weighbridge.verifier.procedure"


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of one window: in short, with everything, and for programs."""

    admitted: bool
    brief: Branch
    full: Branch
    document: strict.JsonObject


def outcome_of(told: Sequence[Told], more: int, document: strict.JsonObject, *, verbose: bool) -> Outcome:
    """Of a whole command; 5 unless all that is told of is admitted."""
    lines: list[str] = []
    for item in told:
        lines += [*([""] if lines else []), *render(item.full if verbose else item.brief)]
    if more:
        lines += ["", f"… and {counted(more, 'more window')} like these: --window N explains one"]
    status = ExitCode.AFFIRMED if all(item.admitted for item in told) else ExitCode.DENIED
    return Outcome("".join(f"{line}\n" for line in lines), document, status)


def coded(code: str, policy: PolicySet) -> Outcome:
    """What a code stands for: what always holds, and the clauses of ``policy`` that deny with it."""
    found = invariants_of(code)
    with open_bench(policy, DEFAULT_LIMITS) as bench:
        clauses = Clauses(bench.syntax)
        rules = sorted(
            clauses.clause(module, rule)
            for module in clauses.modules
            for rule in module.rules
            if any(node.kind == "String" and node.text == code for node in rule.walk())
        )
    below = [Branch(f"always   {item.holds} ({item.name}); no policy is asked where not", indent=9) for item in found]
    below += [Branch(f"enforced {'; '.join(map(str, item.where))}", indent=9) for item in found]
    below += [Branch(f"rule     {rule.name}, {rule}", indent=9) for rule in rules]
    if not below:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            "nothing is known that refuses with this code",
            got=code,
            hint="name the policy that does: --policy",
        )
    document: strict.JsonObject = {
        "schema": "weighbridge/policy-explain-code/v1",
        "code": code,
        "invariants": [{"name": item.name, "holds": item.holds} for item in found],
        "rules": [asdict(rule) for rule in rules],
    }
    lines = render(Branch(code, tuple(below)))
    return Outcome("".join(f"{line}\n" for line in lines), document)


def judged(explanation: Explanation, document: PolicyInput) -> Told:
    """A window that a policy was asked about."""
    decision = explanation.decision
    outcome = appraisal.outcome_of(decision.denials, decision, held=document.window.freshness == "held")
    word = "ADMITTED" if decision.allowed else "REFUSED" if outcome == "denied" else outcome.upper()
    where = f"window {document.window.seq} of session {short(document.session.id)}, received {document.received_at}"
    failed = _FAILED.get(decision.outcome)
    title = f"{word}: {where}" + (f": {failed}" if failed else "")
    brief = tuple(_failure(explanation)) or tuple(_reason(reason, document) for reason in explanation.reasons)
    brief += tuple(_admitted(explanation))
    brief += tuple(Branch(f"allow does not hold: {_refused(way)}", indent=2) for way in explanation.refused)
    brief += (Branch(f"note: {explanation.note}", indent=2),) if explanation.note else ()
    full = (*brief, Branch("in full", tuple(_branch(line) for line in tree(explanation))))
    return Told(
        decision.allowed,
        Branch(title, brief, indent=2),
        Branch(title, full, indent=2),
        _judged_document(explanation, document, word.lower()),
    )


def refused(window: RecordedWindow) -> Told:
    """A window that invariants or its verification refused before any policy."""
    session = window.session.hex()
    title = f"REFUSED: window {window.seq} of session {short(session)}: no policy was asked"
    branches = tuple(unasked(denial) for denial in window.refused)
    document: strict.JsonObject = {
        "session": session,
        "seq": window.seq,
        "outcome": "refused",
        "policy_asked": False,
        "decision": None,
        "reasons": [
            {
                **asdict(denial),
                "sentence": _unasked_sentence(denial),
                "invariants": [{"name": item.name, "holds": item.holds} for item in invariants_of(denial.code)],
            }
            for denial in window.refused
        ],
    }
    return Told(
        admitted=False,
        brief=Branch(title, branches, indent=2),
        full=Branch(title, branches, indent=2),
        document=document,
    )


def unasked(denial: Denial) -> Branch:
    """A refusal before any policy: what should hold, and does not."""
    below = [Branch(f"rule     none: always, {item.holds}", indent=9) for item in invariants_of(denial.code)]
    return Branch(f"{denial.code}: {denial.message}", (*below, *_sides(denial)), indent=2)


def invariants_of(code: str) -> tuple[Invariant, ...]:
    """What is broken where something is refused with ``code`` before any policy; at most one, if one is of windows."""
    found = [item for item in INVARIANTS if code in item.codes]
    of_windows = [item for item in found if item.appraised or any(p.module == _OF_WINDOWS for p in item.where)]
    return tuple((of_windows or found)[:1])


def _unasked_sentence(denial: Denial) -> str:
    holds = "; ".join(item.holds for item in invariants_of(denial.code))
    said = f"window {denial.window}: {denial.message}: no policy was asked"
    return f"{said}, since this holds always: {holds}" if holds else said


def _reason(reason: Reason, document: PolicyInput) -> Branch:
    denial, about = reason.denial, subject(reason, document)
    below: list[Branch] = [] if about == f"window {document.window.seq}" else [Branch(f"about    {about}", indent=9)]
    rules: list[Branch] = []
    for made in reason.made_by:
        for source in made.sources:
            via = "" if source == made.clause else f", by way of {made.clause}"
            rules.append(Branch(f"rule     {source.name}, {source}{via}", indent=9))
    if reason.invariant:
        rules += [Branch(f"rule     none: always, {item.holds}", indent=9) for item in invariants_of(denial.code)]
    below += rules or [Branch("rule     none of this policy's", indent=9)]
    if ground := because(reason):
        below.append(Branch(f"because  {ground}", indent=9))
    return Branch(f"{denial.code}: {denial.message}", (*below, *_sides(denial)), indent=2)


def _sides(denial: Denial) -> list[Branch]:
    lines: list[Branch] = []
    if denial.expected is not None or denial.got is not None:
        expected, got = ("nothing" if value is None else short(value) for value in (denial.expected, denial.got))
        lines.append(Branch(f"wanted   {expected}, and got {got}", indent=9))
    return [*lines, *([Branch(f"hint     {denial.hint}", indent=9)] if denial.hint else [])]


def _failure(explanation: Explanation) -> list[Branch]:
    """Where a policy ended that gave no answer; nothing for one that gave one."""
    if explanation.decision.outcome in ("allow", "deny"):
        return []
    failed, detail = explanation.failed, explanation.decision.detail
    lines = [Branch(f"{denial.code}: {denial.message}") for denial in explanation.decision.denials]
    if failed is not None:
        at = f"{failed.clause.name}, {failed.clause}" if failed.clause is not None else "not known"
        lines.append(Branch(f"rule     {at}", indent=9))
        lines += [Branch(f"line     {failed.source}", indent=9)] if failed.source else []
        lines += [Branch(f"because  {failed.what}", indent=9)] if failed.what else []
    elif detail:
        lines.append(Branch(f"because  {detail}", indent=9))
    lines.append(Branch("what is not answered is not allowed: nothing but an exact true of allow admits", indent=2))
    return lines


def _admitted(explanation: Explanation) -> list[Branch]:
    if not explanation.decision.allowed:
        return []
    lines = [Branch(f"allow holds, {grounds.clause}", tuple(_held(grounds)), indent=2) for grounds in explanation.allow]
    lines.append(Branch(examined(explanation)))
    unchecked = tuple(Branch(f"{item.check}: {item.reason}", indent=2) for item in explanation.decision.unchecked)
    return [*lines, *([Branch("left out, for a written reason", unchecked)] if unchecked else [])]


def _held(grounds: Grounds) -> list[Branch]:
    lines: list[Branch] = []
    for item in grounds.statements:
        values = [f"{term.text} is {shown(value)}" for term in item.terms for value in term.values[:1]]
        told = f": {', '.join(values)}" if values and item.kind in ("compare", "member") else ""
        lines.append(Branch(f"{item.text}{told}", indent=2))
    return lines


def _refused(way: Way) -> str:
    if not way.failures:
        return f"{way.clause}"
    statement = way.failures[0].statement
    values = [f"{term.text} is {shown(value)}" for term in statement.terms for value in term.values[:1]]
    return f"{way.clause} needs {statement.text}" + (f", and {', '.join(values)}" if values else "")


def _branch(line: Line) -> Branch:
    return Branch(line.text, tuple(_branch(below) for below in line.below), indent=2)


def _judged_document(explanation: Explanation, document: PolicyInput, outcome: str) -> strict.JsonObject:
    decision, failed = explanation.decision, explanation.failed
    return {
        "session": document.session.id,
        "seq": document.window.seq,
        "outcome": outcome,
        "policy_asked": True,
        "decision": decision_document(decision),
        "reasons": [
            {
                **asdict(reason.denial),
                "sentence": sentence(reason, document),
                "because": because(reason) or None,
                "invariant": reason.invariant,
                "rules": [
                    {**asdict(source), "passed_on_by": None if source == made.clause else asdict(made.clause)}
                    for made in reason.made_by
                    for source in made.sources
                ],
                "grounds": [asdict(grounds) for grounds in reason.grounds],
            }
            for reason in explanation.reasons
        ],
        "allow": [asdict(grounds) for grounds in explanation.allow],
        "allow_refused": [asdict(way) for way in explanation.refused],
        "examined": [asdict(clause) for clause in explanation.examined],
        "failed": None if failed is None else asdict(failed),
        "note": explanation.note or None,
    }
