"""What there is to write rules about, for people as a tree and for programs as JSON. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.policy.authoring.reference_docs import Library, Place, said, type_of
from weighbridge.policy.document.json_schema import json_schema
from weighbridge.verifier.commands.tree import Branch, render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.policy.document import Shape
    from weighbridge.proto import strict

__all__ = ["document_of", "text_of"]

_SCHEMA: Final = "weighbridge/policy-docs/v1"
_MORE: Final = "also: weighbridge policy docs data.reference, weighbridge policy docs lib"
_CALLED: Final = "import data.weighbridge.lib: functions take arguments, sets have elements, the rest is or is not"


def document_of(found: Place | Library) -> strict.JsonObject:
    """JSON Schema of the place; of the library, its rules."""
    if isinstance(found, Place):
        return {"schema": _SCHEMA, **json_schema(found.shape, title=found.path)}
    rules: list[strict.JsonValue] = [
        {
            "name": rule.name,
            "call": rule.call,
            "kind": rule.kind,
            "arguments": list(rule.arguments),
            "doc": rule.doc,
            "section": rule.section,
            "line": rule.line,
        }
        for rule in found.rules
    ]
    return {"schema": "weighbridge/policy-library/v1", "rules": rules}


def text_of(found: Place | Library, *, whole: bool) -> str:
    """The tree, ending with a newline. ``whole`` says that nothing was asked for: what else there is, is named."""
    lines = _of_library(found) if isinstance(found, Library) else _of_place(found)
    return "".join(f"{line}\n" for line in [*lines, *(["", _MORE] if whole else [])])


def _of_place(place: Place) -> list[str]:
    head = f"{place.path}: {type_of(place.shape)}: {said(place.shape)}"
    return render(Branch(head, _branches(_members(place.shape)), indent=3))


def _members(shape: Shape) -> Mapping[str, Shape]:
    """What hangs below a place: its members, or those of its elements."""
    while shape.element is not None:
        shape = shape.element
    return shape.members


def _branches(members: Mapping[str, Shape]) -> tuple[Branch, ...]:
    """A line for each: name, type and what it says, in columns."""
    names = max((len(name) for name in members), default=0)
    types = max((len(type_of(shape)) for shape in members.values()), default=0)
    return tuple(
        Branch(
            f"{name:<{names}}  {type_of(shape):<{types}}  {said(shape)}",
            _branches(_members(shape)),
            indent=names + types + 4,
        )
        for name, shape in members.items()
    )


def _of_library(library: Library) -> list[str]:
    lines: list[str] = []
    for section in dict.fromkeys(rule.section for rule in library.rules):
        rules = [rule for rule in library.rules if rule.section == section]
        found = tuple(Branch(f"{rule.call}: {rule.doc}", indent=3) for rule in rules)
        lines += ["", *render(Branch(section, found, indent=3))]
    return [*lines[1:], *(["", _CALLED] if len(library.rules) > 1 else [])]
