"""Denials that no verifier can read: in their place stands one of the verifier's own, which says that the policy fails.

Only what is written out is looked at: a code that is computed, and an object that a function makes, are not.
"""

from __future__ import annotations

import re
from typing import Final

from weighbridge.policy.checker.entries import AUTHOR_PACKAGE, LIBRARY_PACKAGE
from weighbridge.policy.checker.names import Scope
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_denials"]

_MAKER: Final = f"{LIBRARY_PACKAGE}.denial"
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_TEXTS: Final = frozenset({"String", "RawString"})
_NO_DENIAL: Final = {
    "Array": "an array",
    "ArrayCompr": "an array",
    "Bool": "true or false",
    "Null": "null",
    "Number": "a number",
    "RawString": "text",
    "Set": "a set",
    "SetCompr": "a set",
    "String": "text",
}


def check_denials(scope: Scope, notes: Notes) -> None:
    """Note a clause of ``deny`` that gives no denial, and every code that is none."""
    for node in scope.nodes:
        params = node.all("params")
        if node.kind == "Call" and params and scope.full_name(node.part("fcn")) == _MAKER:
            _check_code(scope, notes, params[0])
    rule = scope.rule
    if rule.kind == "set" and rule.key is not None and scope.function == f"{AUTHOR_PACKAGE}.deny" and _may_hold(scope):
        _check_element(scope, notes, rule.key)


def _may_hold(scope: Scope) -> bool:
    """Whether no line of the clause is ``false``: what it would give then never comes."""
    lines = [line.part("expr") for body in scope.rule.bodies for line in body.all("statement") if line.kind == "Expr"]
    return not any(line is not None and line.kind == "Bool" and line.text == "false" for line in lines)


def _check_element(scope: Scope, notes: Notes, key: Node) -> None:
    made = scope.source(key)
    if made.kind in _NO_DENIAL:
        notes.add(key, "denial-malformed", f"{notes.text(key)} is {_NO_DENIAL[made.kind]}, and no denial")
    elif made.kind == "Object":
        names = made.all("key")
        codes = [
            item for name, item in zip(names, made.all("item"), strict=True) if _named(scope, name) in ("code", "")
        ]
        if not codes:
            notes.add(key, "denial-malformed", "the denial has no code")
        for name, item in zip(names, made.all("item"), strict=True):
            if _named(scope, name) == "code":
                _check_code(scope, notes, item)


def _named(scope: Scope, key: Node) -> str:
    """The name of a member; empty where it is computed."""
    written = scope.source(key)
    return written.text if written.kind in _TEXTS else ""


def _check_code(scope: Scope, notes: Notes, node: Node) -> None:
    code = scope.source(node)
    if code.kind in _TEXTS:
        if not _CODE.fullmatch(code.text):
            meant = re.sub(r"[^A-Z0-9]+", "_", code.text.upper()).strip("_")
            hint = f'write "{meant}"' if _CODE.fullmatch(meant) else ""
            notes.add(node, "denial-malformed", f"{notes.text(node)} is no code", hint=hint)
    elif code.kind in _NO_DENIAL:
        notes.add(node, "denial-malformed", f"{notes.text(node)} is {_NO_DENIAL[code.kind]}, and no code")
