"""What there is to write rules about, by its path: a part of ``input``, of ``data.reference``, or of the library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.policy import document
from weighbridge.policy.authoring.library_docs import LibraryRule, library_rules
from weighbridge.policy.checker.spelling import nearest
from weighbridge.policy.values.reference_shape import reference_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weighbridge.policy.document import Shape

__all__ = ["AUTHOR", "Library", "NoSuchPath", "Place", "find", "markdown", "said", "type_of"]

AUTHOR: Final = "data.author"
_LIBRARY: Final = "lib"
_ROOTS: Final = ("input", "data.reference", AUTHOR, _LIBRARY)
_STEP: Final = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_-]*)|\[[^\[\]]*\]")
_NAMES: Final = {
    "text": "text",
    "integer": "integer",
    "boolean": "true or false",
    "list": "list",
    "map": "table",
    "object": "object",
}
_PREFACE: Final = """\
<!-- made by scripts/policy_files.py from the types: change those -->
# What policies see

Rules read two documents, and call one library. Everything that is named here is always there: a fact that is not known
is `null`, or the word that says so; never a missing member. Integers are below 2^53, larger numbers are text. The same
is printed by `weighbridge policy docs`, and `weighbridge policy docs --editor DIR` puts it as JSON Schema beside a
policy, for editors and for `opa check --schema`.
"""


class NoSuchPath(ValueError):
    """There is no such path; ``hint`` is what was probably meant, or empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint: str = hint


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a document: as people write its path, and what stands there."""

    path: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Library:
    """The library's documented rules, or one of them."""

    rules: tuple[LibraryRule, ...]


def find(path: str) -> Place | Library:
    """What is at ``path``, such as ``input.gpus[].revocation``, ``gpus``, ``data.reference.models`` or ``lib.denial``.

    Elements of lists and values of maps may be written as in Rego, with any index, or be left out.

    Raises:
        NoSuchPath: there is nothing.
    """
    path = path.strip().removeprefix("data.weighbridge.") if path.startswith("data.weighbridge.lib") else path.strip()
    if path == _LIBRARY or path.startswith(f"{_LIBRARY}."):
        return _library(path)
    if path == AUTHOR or path.startswith(f"{AUTHOR}."):
        raise NoSuchPath(f"{AUTHOR} is whatever stands in your data.json")
    root, rest = _root(path)
    shape = document.shape() if root == "input" else reference_shape()
    return _below(Place(root, shape), rest)


def _root(path: str) -> tuple[str, str]:
    """The document that is meant, and the path within: ``gpus`` alone is of the input."""
    for root, names in (("input", ("input",)), ("data.reference", ("data.reference", "reference"))):
        for name in names:
            if re.match(rf"{re.escape(name)}(?![A-Za-z0-9_])", path):
                return root, path.removeprefix(name)
    first = (re.match(r"(?:data\.)?[^.\[]*", path) or [path])[0]
    if first in document.shape().members:
        return "input", f".{path}"
    meant = nearest(first, (*_ROOTS, *document.shape().members))
    raise NoSuchPath(f"there is no {path}", meant or f"there are {', '.join(_ROOTS)}")


def _below(place: Place, rest: str) -> Place:
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None:
            raise NoSuchPath(f"{place.path}{rest} is no path", "write it as in a rule, such as input.gpus[].identity")
        place, at = _step(place, step[1]), step.end()
    return place


def _step(place: Place, name: str | None) -> Place:
    """One member by its name, or an element for ``None``; what has elements is looked into by itself."""
    shape = place.shape
    if shape.element is not None:
        inside = Place(f"{place.path}[]", shape.element)
        if name is None or (shape.kind == "map" and name not in shape.element.members):
            return inside
        return _step(inside, name)
    if name is None or not shape.members:
        raise NoSuchPath(f"there is nothing inside {place.path}: it is {type_of(shape)}")
    if name not in shape.members:
        meant = nearest(name, shape.members)
        hint = f"{place.path}.{meant}" if meant else f"there are {', '.join(shape.members)}"
        raise NoSuchPath(f"{place.path} has no {name}", hint)
    return Place(f"{place.path}.{name}", shape.members[name])


def _library(path: str) -> Library:
    rules = library_rules()
    if path == _LIBRARY:
        return Library(rules)
    name = path.removeprefix(f"{_LIBRARY}.")
    found = tuple(rule for rule in rules if rule.name == name)
    if not found:
        meant = nearest(name, [rule.name for rule in rules])
        raise NoSuchPath(f"the library has no documented {name}", f"lib.{meant}" if meant else "")
    return Library(found)


def type_of(shape: Shape) -> str:
    """A shape's type in words, such as ``list of text`` or ``word or null``."""
    name = _NAMES[shape.kind]
    if shape.kind == "text" and shape.words:
        name = "word"
    elif shape.element is not None:
        name = f"{name} of {_several(shape.element)}"
    return f"{name} or null" if shape.optional else name


def _several(shape: Shape) -> str:
    name = type_of(shape)
    return name.replace("list", "lists", 1) if shape.element else f"{name}s" if name in ("integer", "object") else name


def said(shape: Shape) -> str:
    """What a place says, the words that may stand there first."""
    return f"{' | '.join(shape.words)}: {shape.doc}" if shape.words else shape.doc


def markdown(path: str = "") -> str:
    """The reference as Markdown: what is at ``path``, or all of it.

    Raises:
        NoSuchPath: there is no such path.
    """
    if path:
        return "\n".join(_markdown_of(find(path))) + "\n"
    parts = [_PREFACE]
    for root in ("input", "data.reference"):
        parts += ["\n".join(_markdown_of(find(root))), ""]
    parts += [f"## `{AUTHOR}`", "", "Whatever stands in the `data.json` beside a policy; `{}` without one.", ""]
    parts += _markdown_of(find(_LIBRARY))
    return "\n".join(parts) + "\n"


def _markdown_of(found: Place | Library) -> Iterator[str]:
    if isinstance(found, Library):
        yield from _markdown_of_rules(found.rules)
        return
    for number, place in enumerate(_objects(found)):
        if number:
            yield ""
        yield f"{'##' if place.path in _ROOTS else '###'} `{place.path}`"
        yield ""
        if place.shape.doc:
            yield _sentence(place.shape.doc)
            yield ""
        yield from _markdown_table(place)


def _objects(place: Place) -> Iterator[Place]:
    """``place`` where it has members, and every such place below it."""
    if place.shape.members or not place.shape.element:
        yield place
    inner: Mapping[str, Shape] = place.shape.members
    for name, shape in inner.items():
        if shape.members or shape.element is not None:
            yield from _objects_only(Place(f"{place.path}.{name}", shape))
    if place.shape.element is not None:
        yield from _objects(Place(f"{place.path}[]", place.shape.element))


def _objects_only(place: Place) -> Iterable[Place]:
    return (inner for inner in _objects(place) if inner.shape.members)


def _markdown_table(place: Place) -> Iterator[str]:
    members: Mapping[str, Shape] = place.shape.members or {place.path.rpartition(".")[2]: place.shape}
    yield "| member | type | says |"
    yield "|---|---|---|"
    for name, shape in members.items():
        words = " ".join(f"`{word}`" for word in shape.words)
        doc = f"{words}: {_cell(shape.doc)}" if words else _cell(shape.doc)
        yield f"| `{name}` | {type_of(shape)} | {doc} |"


def _markdown_of_rules(rules: tuple[LibraryRule, ...]) -> Iterator[str]:
    yield "## `lib`"
    yield ""
    yield "`import data.weighbridge.lib`. A rule without arguments is true, or it has a value; a set has elements."
    for section in dict.fromkeys(rule.section for rule in rules):
        yield ""
        yield f"### {section[:1].upper()}{section[1:].split(': ')[0].removesuffix('.')}"
        yield ""
        yield "| written | kind | says |"
        yield "|---|---|---|"
        for rule in rules:
            if rule.section == section:
                yield f"| `{rule.call}` | {rule.kind} | {_cell(rule.doc)} |"


def _sentence(doc: str) -> str:
    return f"{doc[0].upper()}{doc[1:]}.".replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")
