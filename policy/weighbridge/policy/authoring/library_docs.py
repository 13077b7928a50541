"""What the library offers, from the comments above its rules: for authors, who call it ``lib.…``.

Comments are no part of a syntax tree, so that the text is read line by line; the module is ours, and formatted. A rule
without a comment is the library's own business. A comment that begins with dashes is a heading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.policy.authoring.editor import library

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LibraryRule", "library_rules"]

_HEADING: Final = re.compile(r"#\s*-{2,}\s*(.*)")
_HEAD: Final = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)(?P<args>\([^)]*\))?(?P<set> contains)?(?= (?:if|:=|contains)|$| \{|.* (?:if|:=))"
)
_NO_RULES: Final = ("package", "import", "default", "else")


@dataclass(frozen=True, slots=True)
class LibraryRule:
    """A rule of the library that has something to say.

    Attributes:
        name: as it is called behind ``lib.``.
        kind: a ``function`` takes arguments, a ``set`` has elements, a ``rule`` has a value or none.
        arguments: their names; empty but for functions.
        doc: the comment above it.
        section: the heading above it.
        line: of the library, counted from 1.
    """

    name: str
    kind: Literal["function", "set", "rule"]
    arguments: tuple[str, ...]
    doc: str
    section: str
    line: int

    @property
    def call(self) -> str:
        """How it is written, such as ``lib.owned(model, owner)``."""
        return f"lib.{self.name}" + (f"({', '.join(self.arguments)})" if self.arguments else "")


def library_rules() -> tuple[LibraryRule, ...]:
    """The documented rules, in the order of lines; each name once."""
    found: dict[str, LibraryRule] = {}
    for rule in _rules(library().decode()):
        _ = found.setdefault(rule.name, rule)
    return tuple(found.values())


def _rules(text: str) -> Iterator[LibraryRule]:
    section, comment = "", list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            heading = _HEADING.match(line)
            section, comment = (heading[1], []) if heading else (section, [*comment, line.removeprefix("#").strip()])
            continue
        head = _HEAD.match(line)
        if comment and head is not None and head["name"] not in _NO_RULES:
            arguments = tuple(part.strip().rstrip("_") for part in (head["args"] or "()")[1:-1].split(",") if part)
            kind: Literal["function", "set", "rule"] = "function" if arguments else "set" if head["set"] else "rule"
            yield LibraryRule(head["name"], kind, arguments, " ".join(comment), section, number)
        comment = []
