"""Explanations in words: for an author who knows Rego a little, and for an operator who does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.policy.authoring.clauses import Clause
    from weighbridge.policy.authoring.explain import Explanation, Grounds, Reason
    from weighbridge.policy.authoring.reasons import Binding, Failure, Statement, Term, Value, Way
    from weighbridge.policy.document import PolicyInput
    from weighbridge.proto import strict

__all__ = ["Line", "because", "examined", "sentence", "short", "shown", "subject", "tree"]

_DIGEST: Final = re.compile(r"[0-9a-f]{32,}")
_SHORT: Final = 12
_TEXT_MAX: Final = 72
_ELEMENTS_MAX: Final = 6
# What an object is known by, in this order.
_NAMES: Final = ("name", "identity", "manifest", "device", "file", "index", "code", "path", "check")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a tree and what hangs below it."""

    text: str
    below: tuple[Line, ...] = ()


def sentence(reason: Reason, document: PolicyInput) -> str:
    """A denial and its ground in one sentence, without a full stop."""
    denial = reason.denial
    said = f'"{denial.message}"'
    if reason.invariant:
        return f"{subject(reason, document)}: an invariant, above every policy, denies it: {said}"
    places = [source for made in reason.made_by for source in made.sources]
    source = reason.grounds[0].clause if reason.grounds else places[0] if places else None
    by = "no rule of this policy, but its decision," if source is None else f"{source.module} line {source.line}"
    ground = because(reason)
    told = f"{subject(reason, document)}: {by} denies it: {said}" + (f", because {ground}" if ground else "")
    if denial.expected is None or denial.got is None or denial.got in ground:
        return told
    return f"{told}; wanted was {_brief(denial.expected)}, and it is {_brief(denial.got)}"


def subject(reason: Reason, document: PolicyInput) -> str:
    """What a denial is about: a device or a model by its name, else the window."""
    device = reason.denial.device
    if device is not None:
        switch = any(gpu.identity == device and gpu.kind == "switch" for gpu in document.gpus)
        return f"{'switch' if switch else 'GPU'} {short(device)}"
    for binding in (binding for grounds in reason.grounds for binding in grounds.bindings):
        content = binding.value.content
        if binding.value.kind == "object" and isinstance(content, dict) and isinstance(content.get("manifest"), str):
            name = content.get("name")
            manifest = short(str(content["manifest"]))
            return f"model {name} ({manifest})" if isinstance(name, str) and name else f"model {manifest}"
    return f"window {document.window.seq}"


def because(reason: Reason) -> str:
    """Why the clause that makes a denial holds: the statements that say so, with both sides; empty if none is known."""
    return "; and ".join(_ground(grounds) for grounds in reason.grounds[:2] if _ground(grounds))


def _ground(grounds: Grounds) -> str:
    told = [_denying(item, grounds) for item in grounds.statements if item.negated or item.ways]
    if not any(told):
        told = [_facts(item) for item in grounds.statements if item.kind in ("compare", "member")]
    if not any(told):
        names = {name for item in grounds.statements if item.kind == "some" for name in _bound(item)}
        told = [f"{item.name} is {shown(item.value)}" for item in grounds.bindings if item.name in names]
    if not any(told):
        told = ["it asks for nothing: it denies always"]
    return "; and ".join(text for text in told if text)


def _denying(item: Statement, grounds: Grounds) -> str:
    """A statement of a clause that denies: why what it asks for is not so."""
    if item.kind == "some":
        elements = [binding for binding in grounds.bindings if binding.name in _bound(item)]
        named = shown(elements[0].value) if elements else "an element"
        way = max(item.ways, key=lambda one: one.held)
        return f"{named} is not in {item.asks}: that ({_place(way, item.ways)}) needs {_needed(way)}"
    asked = item.text.removeprefix("not ").strip()
    if item.ways:
        return _nearest(asked, item.ways)
    facts = _facts(item)
    return f"{asked} is not so: {facts}" if facts else f"{asked} does not hold"


def _nearest(asked: str, ways: Sequence[Way]) -> str:
    """What is asked, and what the way that came furthest lacks."""
    way = max(ways, key=lambda one: one.held)
    return f"{asked} ({_place(way, ways)}) needs {_needed(way)}"


def _place(way: Way, ways: Sequence[Way]) -> str:
    others = f", the nearest of {len(ways)} ways" if len(ways) > 1 else ""
    return f"{way.clause}{others}"


def _needed(way: Way) -> str:
    if not way.failures:
        return "more than can be shown here"
    return _failing(way.failures[0].statement)


def _failing(item: Statement) -> str:
    """What does not hold, and both sides of it."""
    if item.kind == "every" and item.ways and item.ways[0].failures:
        failure = item.ways[0].failures[0]
        which = f", where {_named(failure.bindings[-1:])}" if failure.bindings else ""
        inner = failure.statement
        told = _facts(inner) if not inner.ways and not inner.negated else ""
        return f"{item.text}, and {told or f'that needs {_failing(inner)}'}{which}"
    if item.ways:
        needs = item.text if item.kind == "ask" else f"{item.text}, and {item.asks}"
        return f"{needs}, which needs {_needed(max(item.ways, key=lambda one: one.held))}"
    facts = _facts(item)
    if item.negated:
        return f"{item.text}, and it is so" + (f": {facts}" if facts else "")
    return f"{item.text}, and {facts}" if facts else f"{item.text}, which does not hold"


def _named(bindings: Sequence[Binding]) -> str:
    return ", ".join(f"{item.name} is {shown(item.value)}" for item in bindings)


def _facts(item: Statement) -> str:
    """What its sides are. Whole objects, as arguments are, are not told again."""
    told = [_fact(term) for term in item.terms if not _is_object(term)]
    return " and ".join(text for text in told if text)


def _fact(term: Term) -> str:
    if term.literal:
        return ""
    if not term.values:
        lacking = [part.missing for part in term.parts if part.undefined and part.missing]
        why = term.missing or (lacking[0] if lacking else "")
        return f"{term.text} has no value" + (f": {why}" if why else "")
    values = " or ".join(shown(value) for value in term.values)
    return f"{term.text} is {values}"


def _is_object(term: Term) -> bool:
    return bool(term.values) and all(value.kind == "object" for value in term.values)


def _brief(text: str) -> str:
    """A value that a policy shows, its digests by their beginning."""
    told = _DIGEST.sub(lambda found: short(found.group()), text)
    return told if len(told) <= _TEXT_MAX else f"{told[:_TEXT_MAX]}…"


def _bound(item: Statement) -> list[str]:
    """The names before ``in``."""
    names = item.text.removeprefix("some ").split(" in ", 1)[0]
    return [name.strip() for name in names.split(",")]


def short(text: str) -> str:
    """A digest, or another long number, by its beginning."""
    return f"{text[:_SHORT]}…" if len(text) > _SHORT and _DIGEST.fullmatch(text) else text


def shown(value: Value) -> str:
    """A value for people: digests and long texts by their beginning, of collections the first elements."""
    content = value.content
    if isinstance(content, dict):
        return _object(content)
    if not isinstance(content, list):
        return _scalar(content)
    empty, opening, closing = ("an empty list", "[", "]") if value.kind == "array" else ("an empty set", "{", "}")
    told = _joined((_inner(item) for item in content), value.size or len(content))
    return f"{opening}{told}{closing}" if content else empty


def _object(content: strict.JsonObject) -> str:
    scalars = {name: item for name, item in content.items() if not isinstance(item, (dict, list))}
    names = [name for name in _NAMES if scalars.get(name) is not None] or list(scalars)
    if not names:
        return f"an object of {len(content)}"
    return ", ".join(f"{name} {_inner(scalars[name])}" for name in names[:3])


def _inner(item: strict.JsonValue) -> str:
    """An element of a collection. One that is itself a collection comes with a name that it is known by, if any."""
    if isinstance(item, dict):
        kind, name = str(item.get("is")), item.get("v")
        if name is not None:
            return _scalar(name)
        return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind} of {item.get('n')}"
    return _scalar(item)


def _scalar(value: strict.JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case _:
            return str(value)


def _quoted(text: str) -> str:
    text = short(text)
    return f'"{text}"' if len(text) <= _TEXT_MAX else f'"{text[:_TEXT_MAX]}…" ({len(text)} characters)'


def _joined(items: Iterable[str], size: int) -> str:
    told = list(items)[:_ELEMENTS_MAX]
    return ", ".join(told) + (f", … ({size})" if size > len(told) else "")


# ---------- the whole of it


def tree(explanation: Explanation) -> tuple[Line, ...]:
    """Everything, as lines below each other: of each denial its clauses, their statements, the rules these ask."""
    lines = [
        Line(
            f"{reason.denial.code}: {reason.denial.message}",
            tuple(_ground_line(grounds, reason) for grounds in reason.grounds) or (Line(_unexplained(reason)),),
        )
        for reason in explanation.reasons
    ]
    lines += [_ground_line(grounds, None) for grounds in explanation.allow]
    if explanation.refused:
        lines.append(Line("allow is not true", tuple(_way_line(way) for way in explanation.refused)))
    if explanation.examined:
        lines.append(Line(examined(explanation), tuple(Line(text) for text in _by_module(explanation.examined))))
    return tuple(lines)


def _unexplained(reason: Reason) -> str:
    if reason.invariant:
        return "an invariant, above every policy"
    return "its rules could not be looked into" if reason.made_by else "no rule of this policy says it"


def examined(explanation: Explanation) -> str:
    """How many rules looked and had nothing to say."""
    number = len(explanation.examined)
    return f"{number} rule{'s' if number != 1 else ''} could have denied it, and did not"


def _by_module(clauses: Iterable[Clause]) -> list[str]:
    lines: dict[str, list[int]] = {}
    for clause in clauses:
        lines.setdefault(clause.module, []).append(clause.line)
    return [
        f"{module} line{'s' if len(found) > 1 else ''} {', '.join(str(line) for line in sorted(found))}"
        for module, found in lines.items()
    ]


def _ground_line(grounds: Grounds, reason: Reason | None) -> Line:
    passed_on = [
        str(made.clause) for made in (reason.made_by if reason is not None else ()) if grounds.clause in made.sources
    ]
    through = [place for place in passed_on if place != str(grounds.clause)]
    by = f", passed on by {', '.join(through)}" if through else ""
    # What the clause makes of them, the denial itself, is told elsewhere.
    names = [item for item in grounds.bindings if not _is_denial(item)]
    told = (Line(f"with {_named(names)}"),) if names else ()
    looked = [item for item in grounds.statements if item.kind != "assign" or not item.holds]
    return Line(f"{grounds.clause} {grounds.clause.name}{by}", (*told, *(_statement_line(item) for item in looked)))


def _is_denial(item: Binding) -> bool:
    content = item.value.content
    return isinstance(content, dict) and {"code", "window", "message"} <= content.keys()


def _statement_line(item: Statement) -> Line:
    mark = "holds" if item.holds else "does not hold"
    facts = tuple(Line(text) for text in (_fact(term) for term in item.terms) if text)
    return Line(f"line {item.line} {mark}: {item.text}", (*facts, *(_way_line(way) for way in item.ways)))


def _way_line(way: Way) -> Line:
    text = f"{way.clause} {way.clause.name}: {way.held} of {way.of} statements hold"
    return Line(text, tuple(_failure_line(failure) for failure in way.failures))


def _failure_line(failure: Failure) -> Line:
    line = _statement_line(failure.statement)
    names = _named(failure.bindings[:4])
    return Line(line.text + (f" (where {names})" if names else ""), line.below)
