"""The one place where XML is parsed: a subset without anything that could stand for something else.

Before the parser sees it, a document with ``<!``, ``<?`` or ``&`` is refused, save for one XML declaration at its
head. Neither may occur as text (``<`` and ``&`` are markup wherever they stand), so that with three searches there is
no document type, no entity, no comment, no processing instruction, no CDATA section and no character reference. What
is left are elements, attributes, namespaces and text in UTF-8. Attributes of the ``xml:`` namespace are refused
as well: in their inheritance alone do Canonical XML 1.0, which libxml2 implements, and 1.1, which NVIDIA names, differ
(Canonical XML 1.1 §2.4).

>>> canonical(parse(b'<a  y="2" x="1"/>', where="example"))
b'<a x="1" y="2"></a>'
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from lxml import etree

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Element", "attributes", "canonical", "children", "detach_last", "malformed", "parse", "text"]

# The library has no public name for the type of its elements.
Element: TypeAlias = "etree._Element"  # noqa: SLF001 - as above  # pyright: ignore[reportPrivateUsage] - as above

# NVIDIA's have 21 to 26 KB, 99 tags, 550 attributes, 6 declarations of namespaces; libxml2 itself stops at a depth of
# 256. To put attributes in order takes it time that grows with the square of their number.
_TAGS_MAX: Final = 1024
_ATTRIBUTES_MAX: Final = 4096
_NAMESPACES_MAX: Final = 32
_DECLARATION: Final = re.compile(rb"""<\?xml version=["']1\.0["'](?: encoding=["'](?:UTF|utf)-8["'])?\?>\s*""")
_XML_NAMESPACE: Final = "{http://www.w3.org/XML/1998/namespace}"


def parse(data: bytes, *, where: str) -> Element:
    """The root of the document that ``data`` is. Its vocabulary is not checked.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_UTF8``; ``RIM_MALFORMED`` for anything outside of the subset.
    """
    if len(data) > limits.COLLATERAL_ITEM_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "manifest is too large",
            where=where,
            expected=f"<= {limits.COLLATERAL_ITEM_MAX} bytes",
            got=f"{len(data)} bytes",
        )
    _check_subset(data, where)
    parser = etree.XMLParser(
        encoding="utf-8",
        attribute_defaults=False,
        dtd_validation=False,
        load_dtd=False,
        no_network=True,
        recover=False,
        huge_tree=False,
        resolve_entities=False,
        strip_cdata=False,
        collect_ids=False,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise malformed(f"not well-formed XML: {shorten(error.msg or 'empty')}", where) from error
    for element in root.iter():
        for name in element.attrib:
            if name.startswith(_XML_NAMESPACE):
                raise malformed("attribute of the xml: namespace", where, got=name.removeprefix(_XML_NAMESPACE))
    return root


def canonical(element: Element) -> bytes:
    """Canonical XML 1.1 without comments, inclusive, of ``element`` and what is below it, in its context.

    Raises:
        MalformedEvidence: ``RIM_MALFORMED`` where there is none: the name of a namespace is relative.
    """
    try:
        return etree.tostring(element, method="c14n", exclusive=False, with_comments=False)
    except etree.C14NError as error:
        raise malformed("has no canonical form: the name of a namespace is relative", "rim") from error


def detach_last(root: Element) -> None:
    """Take the last child out of ``root``; the text behind it stays, as the enveloped-signature transform wants."""
    *_, child = root
    tail = child.tail or ""
    if len(root) > 1:
        previous = list(root)[-2]
        previous.tail = (previous.tail or "") + tail
    else:
        root.text = (root.text or "") + tail
    root.remove(child)


def children(element: Element, names: Sequence[str], *, where: str) -> list[Element]:
    """The children, which are named ``names`` in this order, with nothing but white space around them.

    Raises:
        MalformedEvidence: ``RIM_MALFORMED``.
    """
    found = list(element)
    if [child.tag for child in found] != list(names):
        raise malformed(
            "not the expected elements", where, expected=_listed(names), got=_listed([child.tag for child in found])
        )
    if any(piece and not piece.isspace() for piece in (element.text, *(child.tail for child in found))):
        raise malformed("text between elements", where)
    return found


def attributes(element: Element, names: frozenset[str], *, where: str) -> dict[str, str]:
    """The attributes, which are exactly ``names``.

    Raises:
        MalformedEvidence: ``RIM_MALFORMED``.
    """
    found = dict(element.attrib.items())
    if found.keys() != names:
        raise malformed(
            "not the expected attributes",
            where,
            expected=_listed(sorted(names - found.keys())) or "no other",
            got=_listed(sorted(found.keys() - names)) or "none of these",
        )
    return found


def text(element: Element, *, where: str) -> str:
    """The text of an element that has neither attributes nor children.

    Raises:
        MalformedEvidence: ``RIM_MALFORMED``.
    """
    attributes(element, frozenset(), where=where)
    if len(element):
        raise malformed("an element where text is expected", where)
    return element.text or ""


def malformed(message: str, where: str, *, expected: object = None, got: object = None) -> MalformedEvidence:
    """The refusal of what is not a manifest in the accepted form."""
    return MalformedEvidence(Code.RIM_MALFORMED, message, where=where, expected=expected, got=got)


def _check_subset(data: bytes, where: str) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, "manifest is not UTF-8", where=f"{where}[{error.start}]") from error
    declaration = _DECLARATION.match(data)
    start = declaration.end() if declaration else 0
    if data[start : start + 1] != b"<":
        raise malformed("does not begin with an element", f"{where}[{start}]", got=data[start : start + 16])
    for mark, meaning in (
        (b"<!", "a document type, a comment or a CDATA section"),
        (b"<?", "a processing instruction"),
        (b"&", "a reference to an entity or a character"),
    ):
        found = data.find(mark, start)
        if found >= 0:
            raise malformed(f"has {meaning}", f"{where}[{found}]", expected="elements, attributes and text alone")
    for mark, meaning, limit in (
        (b"<", "tags", _TAGS_MAX),
        (b"=", "attributes", _ATTRIBUTES_MAX),
        (b"xmlns", "namespaces", _NAMESPACES_MAX),
    ):
        count = data.count(mark)
        if count > limit:
            raise MalformedEvidence(
                Code.TOO_LARGE, f"manifest has too many {meaning}", where=where, expected=f"<= {limit}", got=count
            )


def _listed(names: Sequence[str]) -> str:
    """Without their namespaces, which are long."""
    return ", ".join(name.rpartition("}")[2] for name in names)
