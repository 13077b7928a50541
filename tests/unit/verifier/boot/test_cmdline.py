"""A kernel's command line, read as the kernel reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.verifier.boot.cmdline import LENGTH_MAX, Parameters, parse


def read(text: str) -> Parameters:
    found = parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  quiet\tro ", [("quiet", None), ("ro", None)]),
        ("a=1 a=2 b=", [("a", "1"), ("a", "2"), ("b", "")]),
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ('"a b" c', [("a b", None), ("c", None)]),
        ('a=b"c d"e', [("a", 'b"c d"e')]),
        ('a="b=c"', [("a", "b=c")]),
        ('a=""', [("a", "")]),
        ("=a", [("=a", None)]),
        ("a==b", [("a", "=b")]),
        ("a -- b", [("a", None)]),
        ('a "--" b', [("a", None)]),
        ("a --b", [("a", None), ("--b", None)]),
    ],
)
def test_arguments_are_split_as_the_kernel_does(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert [(item.spelt, item.value) for item in read(text).kernel] == expected


def test_hyphen_and_underscore_are_one() -> None:
    line = read("ima-policy=tcb ima_policy=secure_boot sysctl/kernel/yama.x-y=1")
    assert line.values("ima_policy") == ("tcb", "secure_boot")
    assert line.values("sysctl.kernel.yama.x_y") == ("1",)


def test_always_is_every_time_and_spelt_so() -> None:
    assert read("a=1 a=2").always("a", "1", "2")
    assert not read("a=1 a=3").always("a", "1", "2")
    assert not read("b").always("a", "1")
    assert not read("a").always("a", "1")
    assert not read("a-b=1").always("a_b", "1")
    assert not read("-- a=1").always("a", "1")


def test_what_stands_behind_the_end_is_mentioned() -> None:
    line = read("quiet -- single")
    assert line.values("single") == ()
    assert [item.name for item in line.mentions("single")] == ["single"]
    assert [item.value for item in read("a=1 -- a").mentions("a")] == ["1", None]


@pytest.mark.parametrize("text", ["x" * (LENGTH_MAX + 1), "umlaut=ü", "a='b c'", 'a="b', '"', "a\x1fb", "a\x7f"])
def test_what_others_read_differently_is_not_read(text: str) -> None:
    assert parse(text) is None


def test_the_longest_line_is_read() -> None:
    assert parse("x" * LENGTH_MAX) is not None


@given(st.text(max_size=40) | st.text(alphabet='ab"= -\t', max_size=30))
def test_any_text_is_read_or_not(text: str) -> None:
    line = parse(text)
    if line is not None and '"' not in text:
        whole = [item.spelt if item.value is None else f"{item.spelt}={item.value}" for item in line.kernel]
        assert text.split()[: len(whole)] == whole
