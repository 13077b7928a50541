"""Probes find what a tracer finds, in every kind of statement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from coverage.parser import PythonParser

from support.probes import NAME, arcs_of, probed

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from _typeshed import TraceFunction

SOURCE = '''"""A docstring stays first."""
from __future__ import annotations
import contextlib
import asyncio


def decorated(f):
    return f


@decorated
@decorated
def branches(value):
    """A docstring alone, then what it does."""
    if value > 2:
        found = "more"
    elif value == 2:
        found = "two"
    else:
        @decorated
        def found():
            pass
    if value:
        pass
    if (value and
            value > 1):
        return found
    while value < 1:
        value += 1
        if value == 5:
            continue
    for number in range(value):
        if number == 1:
            break
    else:
        found = None
    for _ in ():
        found = 0
    return found


def cases(value):
    match value:
        case int() if value > 3:
            return 1
        case (
            int()
            | float()
        ):
            return 2
        case [first, *_]:
            value = first
        case str() | None:
            value = 4
    match value:
        case 4:
            return value
        case _:
            value = 5
    return value


def failures(value):
    with contextlib.suppress(KeyError):
        {}[value]
        value = 0
    try:
        if value == 1:
            raise ValueError
        value += 1
    except TypeError:
        value = 6
    except (
        ValueError
    ):
        value = 7
    else:
        value = 8
    finally:
        value += 1
    return value


class Kinds:
    """Its own docstring."""

    one: int = 1
    two: str

    def __init__(self):
        self.three = [item for item in (1, 2)
                      if item]

    async def later(self):
        async with contextlib.AsyncExitStack():
            async for item in self.items():
                if item:
                    return item

    async def items(self):
        yield 0
        yield 1


def never():
    return "not called"
'''

CALLS = (
    "",
    "branches(3)",
    "branches(2)",
    "branches(0)",
    "[branches(n) for n in range(6)]",
    "cases(4)",
    "cases([])",
    "[cases(v) for v in (1, 1.5, [4], '', b'')]",
    "failures(1)",
    "failures(2)",
    "failures('')",
    "asyncio.run(Kinds().later())",
)


def _traced(code: CodeType, names: dict[str, object]) -> set[tuple[int, int]]:
    """The pairs of lines that Python itself tells of."""
    found: set[tuple[int, int]] = set()

    def local(last: int) -> TraceFunction:
        def step(frame: FrameType, event: str, _: object) -> TraceFunction | None:
            nonlocal last
            if event in {"line", "return"}:
                now = frame.f_lineno if event == "line" else -frame.f_code.co_firstlineno
                found.add((last, now))
                last = now
            return step

        return step

    def called(frame: FrameType, _event: str, _argument: object) -> TraceFunction | None:
        return local(-1) if frame.f_code.co_filename == "sample.py" else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        exec(code, names)  # noqa: S102 - the text above
    finally:
        sys.settrace(before)
    return found


@pytest.mark.parametrize("call", CALLS)
def test_probes_find_what_a_tracer_finds(call: str) -> None:
    source = SOURCE + f"\n\ntry:\n    {call or 'pass'}\nexcept TypeError:\n    pass\n"
    parser = PythonParser(text=source, exclude="#: never")
    parser.parse_source()
    several = {line for line, exits in parser.exit_counts().items() if exits > 1}

    code, made = probed(source.encode(), "sample.py")
    exec(code, {NAME: made.passed})  # noqa: S102 - as above
    expected = parser.translate_arcs(_traced(compile(source, "sample.py", "exec"), {}))
    found = parser.translate_arcs(arcs_of(source, made))

    assert _lines(found) & parser.statements == _lines(expected) & parser.statements
    possible = parser.arcs()
    assert {arc for arc in found & possible if arc[0] in several} == {
        arc for arc in expected & possible if arc[0] in several
    }


def _lines(arcs: set[tuple[int, int]]) -> set[int]:
    return {line for arc in arcs for line in arc if line > 0}
