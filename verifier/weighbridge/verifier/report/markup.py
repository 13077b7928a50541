"""HTML as a value: text is escaped where it is put in, and only what these functions made is markup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Child", "Markup", "element", "escape", "joined", "trusted"]

_VOID: Final = frozenset({"br", "meta"})
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_SPECIAL: Final = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}


@final
@dataclass(frozen=True, slots=True)
class Markup:
    """A piece of a page. Made by the functions of this module alone.

    It does not turn into a string by itself, so that none is put where text is expected.
    """

    html: str

    def __str__(self) -> NoReturn:
        raise TypeError("markup is no text: put it into an element")


Child = str | Markup | None
"""What an element may contain; nothing for ``None``."""


def escape(text: str) -> str:
    """``text`` as characters of a document, within an element or an attribute.

    What cannot be seen is shown by its number: control characters, which HTML forbids, and marks that turn the
    direction of a line, by which one name could be read as another.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text)
    return text.translate(_SPECIAL)


def element(name: str, *children: Child, **attributes: str | int | None) -> Markup:
    """An element of HTML or SVG.

    Args:
        name: of the element.
        children: texts, which are escaped, and markup.
        attributes: ``_`` in a name stands for ``-``, and at its end for nothing; ``None`` leaves one out.

    Raises:
        ValueError: for a name that is none, and for content of an element that has none.
    """
    parts = [f"<{_checked(name)}"]
    for key, value in attributes.items():
        if value is not None:
            parts.append(f' {_checked(key.rstrip("_").replace("_", "-"))}="{escape(str(value))}"')
    parts.append(">")
    if name in _VOID:
        if children:
            raise ValueError(f"{name} has no content")
        return Markup("".join(parts))
    parts.extend(_html(child) for child in children)
    parts.append(f"</{name}>")
    return Markup("".join(parts))


def joined(children: Iterable[Child], *, between: str = "") -> Markup:
    """``children`` one after the other, with the text ``between`` them."""
    return Markup(escape(between).join(_html(child) for child in children))


def trusted(html: str) -> Markup:
    """Our own constant as markup. Nothing that was read anywhere may come in here."""
    return Markup(html)


def _html(child: Child) -> str:
    if child is None:
        return ""
    return child.html if isinstance(child, Markup) else escape(child)


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"no name of an element or an attribute: {name!r}")
    return name
