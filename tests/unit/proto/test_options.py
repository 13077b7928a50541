"""Options that take one value are given once, under whichever of their names."""

from __future__ import annotations

import argparse

import pytest

from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode
from weighbridge.proto.options import Once, UsageFault, asks_json, error_document, fault_document


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    for action in (None, "store"):
        parser.register("action", action, Once)
    parser.add_argument("place")
    parser.add_argument("-o", "--output", action="store")
    parser.add_argument_group("more").add_argument("--slot", type=len, default=1)
    parser.add_argument("--pair", nargs="+")
    parser.add_argument("--anchors", action="append")
    parser.add_argument("--json", action="store_true")
    return parser


def test_once_is_as_ever(parser: argparse.ArgumentParser) -> None:
    for _ in range(2):
        args = parser.parse_args(["p", "-o", "f", "--pair", "a", "b"])
        assert (args.place, args.output, args.slot, args.pair) == ("p", "f", 1, ["a", "b"])


def test_what_collects_and_flags_may_be_repeated(parser: argparse.ArgumentParser) -> None:
    args = parser.parse_args(["p", "--anchors", "a", "--anchors", "b", "--json", "--json"])
    assert (args.anchors, args.json) == (["a", "b"], True)


@pytest.mark.parametrize(
    "twice",
    [
        ("-o", "a", "-o", "b"),
        ("-o", "a", "--output=b"),
        ("--output", "a", "--output", "a"),
        ("--slot", "x", "--slot", "x"),
        ("--pair", "a", "--pair", "b"),
    ],
)
def test_twice(parser: argparse.ArgumentParser, twice: tuple[str, ...]) -> None:
    with pytest.raises(argparse.ArgumentError, match="given twice"):
        parser.parse_args(["p", *twice])


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((), False),
        (("measure", "--json"), True),
        (("--json", "fly"), True),
        (("run", "--jso"), False),
        (("run", "--", "server", "--json"), False),
        (("run", "--json", "--", "server"), True),
    ],
)
def test_who_reads_json(arguments: tuple[str, ...], asked: bool) -> None:
    assert asks_json(arguments) is asked


def test_every_error_document_has_the_same_fields() -> None:
    refused = error_document(EnvironmentFault(Code.DISK_FULL, "no space", where="x", hint="make room"))
    misused = UsageFault("no such thing", hint="`x --help`").document()
    broken = fault_document("it broke", ExitCode.INTERNAL)
    assert set(refused) == set(misused) == set(broken)
    assert [document["schema"] for document in (refused, misused, broken)] == ["weighbridge/error/v1"] * 3
    assert [document["exit"] for document in (refused, misused, broken)] == [8, 2, 1]
    assert [document["code"] for document in (refused, misused, broken)] == ["DISK_FULL", None, None]
    assert [document["hint"] for document in (refused, misused, broken)] == ["make room", "`x --help`", None]
