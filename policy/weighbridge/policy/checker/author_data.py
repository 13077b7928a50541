"""Paths under ``data.author`` that lead nowhere in the author's own data.

A path is followed as far as its names are written out and lead from object to object. What is below a list or a
computed index, behind a variable, or asked for with a default (``object.get``, ``lib.field``) is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from weighbridge.policy.checker.bindings import REFERENCES
from weighbridge.policy.checker.names import Scope, index_of
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.spelling import listed, nearest
from weighbridge.policy.checker.syntax import Module, Node
from weighbridge.proto.strict import JsonObject, JsonValue

__all__ = ["check_author_data", "check_author_imports", "replaces_author_data"]

_AUTHOR: Final = ("data", "author")
# More names than these are data, and no help to whoever misspelt one.
_MANY: Final = 500
_CHECK: Final = "author-data-unknown"


def replaces_author_data(scope: Scope) -> bool:
    """Whether the clause replaces the author's data, or a part of them, by ``with``."""
    targets = (node.part("target") for node in scope.nodes if node.kind == "With")
    return any(target is not None and _below(*_path(scope, target)) is not None for target in targets)


def check_author_data(scope: Scope, notes: Notes, author: JsonObject) -> None:
    """Note every reference of the clause to what ``author`` does not have."""
    for node in scope.nodes:
        if node.kind in REFERENCES:
            _note(notes, node, _below(*_path(scope, node)), author)


def check_author_imports(module: Module, notes: Notes, author: JsonObject) -> None:
    """Note every import of what ``author`` does not have."""
    for path, span in zip(module.imports.values(), module.import_spans, strict=True):
        names = _below(*path.split(".")) or ()
        for length in range(1, len(names) + 1):
            _note(notes, span, names[:length], author)


def _note(notes: Notes, at: Node | tuple[int, int], names: tuple[str, ...] | None, author: JsonObject) -> None:
    """Of a path only its first name that leads nowhere is noted: at the reference that ends with it."""
    if not names:
        return
    holder: JsonValue = author
    for name in names[:-1]:
        if not isinstance(holder, dict) or name not in holder:
            return
        holder = holder[name]
    if isinstance(holder, list) or (isinstance(holder, dict) and names[-1] in holder):
        return
    known: Mapping[str, JsonValue] = holder if isinstance(holder, dict) else {}
    few = known if len(known) <= _MANY else ()
    meant = nearest(names[-1], few)
    hint = f"did you mean {meant}?" if meant else f"there are: {listed(few)}" if few else ""
    notes.add(at, _CHECK, f"{'.'.join((*_AUTHOR, *names[:-1]))} has no {names[-1]}", hint=hint)


def _below(*path: str) -> tuple[str, ...] | None:
    """The names below ``data.author``; ``None`` where the path does not lead there."""
    return path[len(_AUTHOR) :] if path[: len(_AUTHOR)] == _AUTHOR else None


def _path(scope: Scope, node: Node) -> tuple[str, ...]:
    """The names of a reference, with imports resolved; empty where one is computed, or the first is a variable."""
    names: list[str] = []
    inner: Node | None = node
    while inner is not None and inner.kind in REFERENCES:
        name = index_of(inner)
        if name is None:
            return ()
        names.append(name)
        inner = inner.part("refr")
    if inner is None or inner.kind != "Var" or inner.text in scope.locals:
        return ()
    return (*scope.module.imports.get(inner.text, inner.text).split("."), *reversed(names))
