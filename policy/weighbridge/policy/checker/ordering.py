"""Texts compared as if they were versions, numbers or times: they are ordered letter by letter.

Looked at are expressions known to be text, by the document or by what makes them, and literals that look like versions.
"""

from __future__ import annotations

import re
from typing import Final

from weighbridge.policy.checker.names import Scope
from weighbridge.policy.checker.notes import Notes
from weighbridge.policy.checker.shapes import Place
from weighbridge.policy.checker.syntax import Node

__all__ = ["check_order"]

_ORDERED: Final = frozenset({"Lt", "Le", "Gt", "Ge"})
_TEXTS: Final = frozenset({"String", "RawString"})
_VERSION: Final = re.compile(r"v?[0-9][0-9A-Za-z]*(?:\.[0-9A-Za-z]+)+")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T.*)?")
_OF_GPUS: Final = ("input.gpus[].driver", "input.gpus[].vbios")
_MINIMUM: Final = "set gpu_minimum in the reference values, and write lib.gpu_recent(gpu)"


def check_order(scope: Scope, notes: Notes, node: Node) -> None:
    """Note a comparison of texts by their order, and ``semver.compare`` of what is no semantic version."""
    if node.kind == "BoolExpr" and node.text in _ORDERED:
        sides = [side for side in (node.part("lhs"), node.part("rhs")) if side is not None]
        places = [scope.place(side) for side in sides]
        # Text beside something else is a mismatch, and said to be one.
        if any(place.type.kind not in ("text", "unknown") for place in places):
            return
        for side, place in zip(sides, places, strict=True):
            written = scope.source(side)
            literal = written.kind in _TEXTS
            if place.type.kind == "text" and (not literal or _VERSION.fullmatch(written.text)):
                message = f"{notes.text(side)} is text, and < and > compare texts letter by letter"
                notes.add(node, "text-order", message, hint=_hint(scope, notes, sides, places))
                return
    elif node.kind == "Call" and scope.full_name(node.part("fcn")) == "semver.compare":
        for param in node.all("params"):
            if scope.place(param).path in _OF_GPUS:
                message = f"{notes.text(param)} is no semantic version: comparing it is an error"
                notes.add(node, "text-order", message, hint=_MINIMUM)
                return


def _hint(scope: Scope, notes: Notes, sides: list[Node], places: list[Place]) -> str:
    paths = [place.path for place in places]
    if any(path in _OF_GPUS for path in paths):
        return _MINIMUM
    if any(path.endswith("_ns") for path in paths):
        return " and ".join(f"to_number({notes.text(side)})" for side in sides)
    if any(_TIME.fullmatch(scope.source(side).text) for side in sides if scope.source(side).kind in _TEXTS):
        return " and ".join(f"time.parse_rfc3339_ns({notes.text(side)})" for side in sides)
    return ""
