"""The subset of XML that is read, and its canonical form: cases of our own, written by hand from Canonical XML 1.1."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.gpu.rim import strict_xml

CANONICAL = {
    "attributes by name": (b'<a c="3" b="2" a="1"/>', b'<a a="1" b="2" c="3"></a>'),
    "namespaces first, by prefix, the default one before": (
        b'<a z="0" xmlns:y="urn:y" xmlns="urn:a" xmlns:b="urn:b"/>',
        b'<a xmlns="urn:a" xmlns:b="urn:b" xmlns:y="urn:y" z="0"></a>',
    ),
    "attributes by namespace, not by prefix; those without one first": (
        b'<a xmlns:p="urn:z" xmlns:q="urn:b" p:a="1" q:b="2" z="3"/>',
        b'<a xmlns:p="urn:z" xmlns:q="urn:b" z="3" q:b="2" p:a="1"></a>',
    ),
    "a namespace that is not used stays": (b'<a><b xmlns:x="urn:x"/></a>', b'<a><b xmlns:x="urn:x"></b></a>'),
    "a namespace that is declared again goes": (
        b'<a xmlns:x="urn:x"><b xmlns:x="urn:x"/></a>',
        b'<a xmlns:x="urn:x"><b></b></a>',
    ),
    "a prefix that changes its meaning stays": (
        b'<a xmlns:x="urn:x"><b xmlns:x="urn:y"/></a>',
        b'<a xmlns:x="urn:x"><b xmlns:x="urn:y"></b></a>',
    ),
    "no default namespace below one": (b'<a xmlns="urn:a"><b xmlns=""/></a>', b'<a xmlns="urn:a"><b xmlns=""></b></a>'),
    "no default namespace below none": (b'<a><b xmlns=""/></a>', b"<a><b></b></a>"),
    "white space in tags": (b'<a\n  b = "1"\t></a  >', b'<a b="1"></a>'),
    "single quotes": (b"<a b='1'/>", b'<a b="1"></a>'),
    "line ends": (b"<a>\r\n<b/>\r</a>", b"<a>\n<b></b>\n</a>"),
    "white space in an attribute": (b'<a b="1\n2\t3"/>', b'<a b="1 2 3"></a>'),
    "greater-than": (b'<a b=">">></a>', b'<a b=">">&gt;</a>'),
    "quotation mark": (b"<a b='\"'/>", b'<a b="&quot;"></a>'),
    "text around elements": (b"<a> x <b> y </b> z </a>\n", b"<a> x <b> y </b> z </a>"),
    "UTF-8": ("<a b='é'>漢</a>".encode(), '<a b="é">漢</a>'.encode()),
    "declaration": (b"<?xml version='1.0' encoding='UTF-8'?>\n<a/>", b"<a></a>"),
    "namespaces of text that looks alike": (b'<x:a xmlns:x="urn:1"/>', b'<x:a xmlns:x="urn:1"></x:a>'),
}


@pytest.mark.parametrize("case", CANONICAL)
def test_canonical_form(case: str) -> None:
    given_form, expected = CANONICAL[case]
    assert strict_xml.canonical(strict_xml.parse(given_form, where="test")) == expected


def test_canonical_form_of_an_element_in_its_place() -> None:
    """It declares what it inherits, used or not, but for what an element between has declared otherwise."""
    root = strict_xml.parse(
        b'<a xmlns="urn:a" xmlns:u="urn:u" xmlns:v="urn:v"><b xmlns:v="urn:w" xmlns:w="urn:w"><c x="1"/></b></a>',
        where="test",
    )
    ((element,),) = root
    expected = b'<c xmlns="urn:a" xmlns:u="urn:u" xmlns:v="urn:w" xmlns:w="urn:w" x="1"></c>'
    assert strict_xml.canonical(element) == expected


@pytest.mark.parametrize(
    ("document", "left"),
    [
        (b"<a>1<c/>2<b/>3</a>", b"<a>1<c></c>23</a>"),
        (b"<a>1<b/>3</a>", b"<a>13</a>"),
        (b"<a><b/>3</a>", b"<a>3</a>"),
        (b"<a><b/></a>", b"<a></a>"),
        (b"<a><c/><b/></a>", b"<a><c></c></a>"),
        (b"<a><c/><b/>3</a>", b"<a><c></c>3</a>"),
    ],
)
def test_what_is_taken_out_leaves_the_text_behind_it(document: bytes, left: bytes) -> None:
    root = strict_xml.parse(document, where="test")
    strict_xml.detach_last(root)
    assert strict_xml.canonical(root) == left


BOMB = (
    b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;"><!ENTITY z "&y;&y;&y;&y;&y;&y;&y;&y;">]>'
    b"<a>&z;&z;&z;&z;</a>"
)
REFUSED = {
    "entity bomb": BOMB,
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>',
    "external document type": b'<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><a/>',
    "document type in lower case": b"<!doctype a><a/>",
    "empty document type": b"<!DOCTYPE a><a/>",
    "comment": b"<a>1<!-- 2 -->3</a>",
    "comment after the root": b"<a/><!-- -->",
    "CDATA section": b"<a><![CDATA[1]]></a>",
    "processing instruction": b"<a><?b c?></a>",
    "style sheet": b'<?xml-stylesheet href="a"?><a/>',
    "declaration twice": b'<?xml version="1.0"?><?xml version="1.0"?><a/>',
    "declaration of another version": b'<?xml version="1.1"?><a/>',
    "declaration of another encoding": b'<?xml version="1.0" encoding="UTF-7"?><a/>',
    "standalone": b'<?xml version="1.0" standalone="yes"?><a/>',
    "character reference": b"<a>&#65;</a>",
    "entity of XML's own": b"<a>&amp;</a>",
    "entity that nobody declared": b"<a>&x;</a>",
    "xml:base": b'<a xml:base="http://example.com/"/>',
    "xml:id": b'<a><b xml:id="1"/></a>',
    "xml:lang": b'<a xml:lang="en"/>',
    "prefix without a namespace": b"<x:a/>",
    "attribute twice": b'<a b="1" b="1"/>',
    "attribute twice by namespace": b'<a xmlns:x="urn:x" xmlns:y="urn:x" x:b="1" y:b="1"/>',
    "two roots": b"<a/><a/>",
    "text after the root": b"<a/>1",
    "not closed": b"<a><b></a>",
    "NUL": b"<a>\0</a>",
    "control character": b"<a>\x01</a>",
    "byte order mark": b"\xef\xbb\xbf<a/>",
    "white space first": b" <a/>",
    "nothing": b"",
    "declaration alone": b'<?xml version="1.0"?>',
    "not XML": b"{}",
    "too deep": b"<a>" * 300 + b"</a>" * 300,
}


@pytest.mark.parametrize("case", REFUSED)
def test_outside_of_the_subset(case: str) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        strict_xml.parse(REFUSED[case], where="test")
    assert caught.value.code is Code.RIM_MALFORMED


@pytest.mark.parametrize("data", [b"\xff\xfe<\0a\0/\0>\0", b"<a>\x80</a>", b"<a>\xed\xa0\x80</a>"])
def test_not_utf8(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        strict_xml.parse(data, where="test")
    assert caught.value.code is Code.NOT_UTF8


@pytest.mark.parametrize(
    "data",
    [
        b"<a>" + b" " * limits.COLLATERAL_ITEM_MAX + b"</a>",
        b"<a>" + b"<b/>" * 2000 + b"</a>",
        b"<a " + b" ".join(b'xmlns:n%d="urn:%d"' % (number, number) for number in range(100)) + b"/>",
        b"<a " + b" ".join(b'b%d=""' % number for number in range(5000)) + b"/>",
    ],
)
def test_too_large(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        strict_xml.parse(data, where="test")
    assert caught.value.code is Code.TOO_LARGE


def test_no_canonical_form() -> None:
    """Canonical XML 1.1 §1: the name of a namespace must not be a relative URI."""
    root = strict_xml.parse(b'<x:a xmlns:x="relative"/>', where="test")
    with pytest.raises(MalformedEvidence) as caught:
        strict_xml.canonical(root)
    assert caught.value.code is Code.RIM_MALFORMED


def test_the_largest_documents_do_not_take_long() -> None:
    """What is costly for parsers and canonicalisers, as far as the limits allow it: 50 ms and less on a quiet core."""
    namespaces = b" ".join(b'xmlns:n%d="urn:%d"' % (number, number) for number in range(30))
    nested = b"<a %s>" % namespaces + b"<b>" * 200 + b"</b>" * 200 + b"</a>"
    attributes = b"<a " + b" ".join(b'b%d=""' % number for number in range(4000)) + b"/>"
    text = b"<a>" + b">" * 250_000 + b"</a>"
    for document in (nested, attributes, text):
        started = time.process_time()
        with contextlib.suppress(MalformedEvidence):
            strict_xml.canonical(strict_xml.parse(document, where="test"))
        assert time.process_time() - started < 1


@given(st.binary() | st.text().map(lambda text: f"<a>{text}</a>".encode("utf-8", "surrogatepass")))
def test_any_bytes(data: bytes) -> None:
    try:
        root = strict_xml.parse(data, where="test")
        form = strict_xml.canonical(root)
    except MalformedEvidence:
        return
    assert strict_xml.canonical(strict_xml.parse(form.replace(b"&gt;", b">"), where="test")) == form
