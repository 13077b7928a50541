"""Python's lenient parsers are called in proto's strict modules only.

The linter bans module functions (`json.loads`, `cbor2.loads`). It does not see `int()`, methods, or what a pattern ends
with: this test reads the syntax trees instead. An exception carries its reason in a comment on its line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PARTS: Final = ("attester", "verifier", "policy", "proto")
STRICT: Final = ("proto/weighbridge/proto/strict.py", "proto/weighbridge/proto/cbor.py")

# Beside an exception stands its reason: `int(algorithm)  # lenient: an IntEnum`.
MARK: Final = re.compile(r"# lenient: \w.{5,}")

METHODS: Final = {
    "fromhex": "takes spaces and both cases",
    "fromisoformat": "takes naive times and a dozen spellings",
    "strptime": "takes spaces and other digits",
    "unpack_from": "ignores the tail",
    "iter_unpack": "says nothing of the count",
    "isdigit": "is true of other digits",
    "isnumeric": "is true of other digits",
    "isdecimal": "is true of other digits",
}
# What returns a number, so that int() around it only drops a fraction.
NUMERIC_CALLS: Final = {
    "round",
    "len",
    "sum",
    "min",
    "max",
    "abs",
    "ceil",
    "floor",
    "sqrt",
    "timestamp",
    "total_seconds",
}
NUMERIC_CALLS_OF_CLOCKS: Final = {"time", "monotonic", "perf_counter"}


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.scope: list[str] = []
        self.found: list[tuple[int, str, str, str]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._enter(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _called(node)
        if isinstance(node.func, ast.Name) and name == "int" and node.args and not _is_number(node.args[0]):
            self._report(node, "int", 'takes " +1_0 " and other digits')
        if isinstance(node.func, ast.Attribute):
            if name in METHODS and not (name == "fromhex" and isinstance(node.args[0], ast.Constant)):
                self._report(node, name, METHODS[name])
            if name in {"compile", "match", "search"} and _ends_in_dollar(node):
                self._report(node, name, "`$` matches before a final newline: use fullmatch")
        self.generic_visit(node)

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.scope.append(node.name)
        self.generic_visit(node)
        self.scope.pop()

    def _report(self, node: ast.Call, what: str, why: str) -> None:
        self.found.append((node.lineno, ".".join(self.scope) or "<module>", what, why))


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def _is_number(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return not isinstance(value, str | bytes)
        case ast.BinOp(op=operator):
            return not isinstance(operator, ast.Mod)  # which formats text, too
        case ast.Name(id="self"):
            return True  # the number under an IntEnum
        case ast.Compare() | ast.UnaryOp():
            return True
        case ast.Call():
            return _called(node) in NUMERIC_CALLS | NUMERIC_CALLS_OF_CLOCKS
        case _:
            return False


def _ends_in_dollar(node: ast.Call) -> bool:
    if not node.args or not isinstance(node.args[0], ast.Constant):
        return False
    pattern = node.args[0].value
    if isinstance(pattern, bytes):
        pattern = pattern.decode("latin-1")
    return isinstance(pattern, str) and pattern.endswith("$") and not pattern.endswith("\\$")


def _sources(root: Path) -> Iterator[str]:
    for part in PARTS:
        for path in sorted((root / part).rglob("*.py")):
            relative = path.relative_to(root).as_posix()
            if relative not in STRICT and not path.stem.endswith(("_pb2", "_pb2_grpc")):
                yield relative


def findings(source: str) -> list[tuple[int, str, str, str]]:
    """Line, enclosing function, what was called, and why that is lenient."""
    finder = _Finder()
    finder.visit(ast.parse(source))
    return finder.found


def offences(relative: str, source: str) -> list[str]:
    """The findings without a reason, and the reasons without a finding."""
    found = findings(source)
    marked = {number for number, line in enumerate(source.splitlines(), start=1) if MARK.search(line)}
    loose = [f"{relative}:{line}: {what} in {scope} {why}" for line, scope, what, why in found if line not in marked]
    idle = sorted(marked - {line for line, *_ in found})
    return loose + [f"{relative}:{line}: nothing here needs its reason" for line in idle]


def test_lenient_parsers_stay_in_the_strict_modules(root: Path) -> None:
    found: list[str] = []
    for relative in _sources(root):
        found += offences(relative, (root / relative).read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("int(text)  # lenient: an IntEnum", 0),
        ("int(text)  # lenient:", 1),
        ("len(text)  # lenient: an IntEnum", 1),
    ],
)
def test_an_exception_needs_its_reason_and_a_reason_its_exception(source: str, count: int) -> None:
    assert len(offences("x.py", source)) == count


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("int(text)", "int"),
        ("int(text, 16)", "int"),
        ("int('1')", "int"),
        ("bytes.fromhex(text)", "fromhex"),
        ("bytearray.fromhex(text)", "fromhex"),
        ("datetime.datetime.fromisoformat(text)", "fromisoformat"),
        ("struct.unpack_from('>I', data)", "unpack_from"),
        ("LAYOUT.unpack_from(data)", "unpack_from"),
        ("text.isdigit()", "isdigit"),
        ("re.compile(r'^[0-9]+$')", "compile"),
        ("re.match(b'x$', data)", "match"),
    ],
)
def test_finds(source: str, what: str) -> None:
    assert [name for _, _, name, _ in findings(source)] == [what]


@pytest.mark.parametrize(
    "source",
    [
        "int(value / 2)",
        "int(self)",
        "int(round(value))",
        "int(clock.time() * 1000)",
        "int.from_bytes(data)",
        "bytes.fromhex('00ff')",
        "re.compile(r'[0-9]+').fullmatch(text)",
        r"re.compile('cost \\$')",
        "struct.unpack('>I', data)",
    ],
)
def test_leaves_alone(source: str) -> None:
    assert findings(source) == []
