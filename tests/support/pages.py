"""A page of HTML as its elements, as a browser would build them of well-formed markup; anything else fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final, final

__all__ = ["Element", "Page"]

_VOID: Final = {"br", "meta"}


@dataclass(eq=False)
class Element:
    """One element: its attributes, what is in it in order, and the text of all of that."""

    name: str
    attributes: dict[str, str]
    parent: Element | None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name: str | None = None) -> list[Element]:
        """Those below this one, in the order of the document."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] if name in {None, child.name} else []
                found += child.all(name)
        return found

    def one(self, name: str, /, **attributes: str) -> Element:
        """The only one of this name below this one that has these attributes."""
        found = [item for item in self.all(name) if attributes.items() <= item.attributes.items()]
        assert len(found) == 1, (name, attributes, len(found))
        return found[0]


@final
class Page(HTMLParser):
    """A parsed page. Fails where a tag is not closed, or another one than was opened."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {}, None)
        self._at = self.root
        self.feed(data.decode())
        self.close()
        assert self._at is self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        made = Element(tag, {name: value or "" for name, value in attrs}, self._at)
        self._at.children.append(made)
        if tag not in _VOID:
            self._at = made

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._at.name
        assert self._at.parent is not None
        self._at = self._at.parent

    def handle_data(self, data: str) -> None:
        self._at.children.append(data)

    def all(self, name: str | None = None) -> list[Element]:
        return self.root.all(name)

    def one(self, name: str, /, **attributes: str) -> Element:
        return self.root.one(name, **attributes)
