"""Host names and HOST:PORT: what is accepted, and that everything else is refused by code."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.hosts import host_name, host_port


@pytest.mark.parametrize(
    "text", ["localhost", "gpu-7.example", "10.0.0.7", "::1", "xn--mnchen-3ya.example", "a", "7up.example", "a" * 63]
)
def test_a_host(text: str) -> None:
    assert host_name(text, what="--name") == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "bad host", "münchen.example", "-a", "a-", "a..b", ".a", "a.", "*.example", "a_b", "a" * 64, "300",
        "10.0.0.300", "fe80::1%eth0", "a:1", "a/b", "user@host", "a\n", ".".join(["a" * 60] * 5), "٣.example",
    ],
)  # fmt: skip
def test_no_host(text: str) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        host_name(text, what="--name")
    assert (caught.value.code, caught.value.where) == (Code.FIELD_RANGE, "--name")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("verifier.example:8443", ("verifier.example", 8443)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_a_place(text: str, parts: tuple[str, int]) -> None:
    assert host_port(text, what="--listen") == parts


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", Code.FIELD_RANGE),
        ("host", Code.FIELD_RANGE),
        (":1", Code.FIELD_RANGE),
        ("::1:1", Code.FIELD_RANGE),
        ("[::1]", Code.FIELD_RANGE),
        ("[host]:1", Code.FIELD_RANGE),
        ("[10.0.0.1]:1", Code.FIELD_RANGE),
        ("a:65536", Code.FIELD_RANGE),
        ("a:", Code.NOT_A_NUMBER),
        ("a:-1", Code.NOT_A_NUMBER),
        ("a: 1", Code.NOT_A_NUMBER),
        ("a:01", Code.NOT_A_NUMBER),
        ("a:٣", Code.NOT_A_NUMBER),
    ],
)
def test_no_place(text: str, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        host_port(text, what="--listen")
    assert caught.value.code is code


@given(st.text(max_size=80))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        host, port = host_port(text, what="place")
    except MalformedEvidence:
        return
    assert host_name(host, what="place") == host
    assert 0 <= port <= 65535
