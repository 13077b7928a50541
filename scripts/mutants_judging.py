"""Whether tests notice a change: each is judged in a process of its own, forked from one that has collected the tests.

No file is changed. A change inside a function is put in the place of the function's code in the fork; any other one,
of a constant, a default or a decorator, in a fork from before our modules were imported, which imports the changed
source. Of the tests that pass the changed lines, those run that take :data:`TESTS_SECONDS` together, quickest first,
until one fails. What none of them noticed has survived.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.machinery
import itertools
import json
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import CO_NEWLOCALS
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType, ModuleType

__all__ = ["Change", "Fate", "Told", "judge"]

Fate = Literal["killed", "hangs", "survived", "unreached"]

TESTS_SECONDS: Final = 30.0
"""What the tests of one change take together, by what they took without it, traced."""
HANGING_SECONDS: Final = 60.0
"""When they hang: something waits that did not. What goes round is stopped by :data:`PROCESSOR_SECONDS`."""
PROCESSOR_SECONDS: Final = 20
_CORPUS: Final = "tests/conformance/test_corpus.py"
_CASES: Final = f"{_CORPUS}::test_case_is_judged_as_its_manifest_says"
_BASELINE_SECONDS: Final = 280.0
_OPTIONS: Final = ("-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a module: where, and the source it makes."""

    operator: str
    line: int
    definition: str
    before: str
    after: str
    source: str


Told = Callable[[Change, Fate], bool]
_Swap = tuple[list[FunctionType], CodeType]


@dataclass(slots=True)
class _Reach:
    """Which lines of the module each test passes, and how long the test took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def tests(self, wanted: set[int] | None) -> list[str]:
        """Those that pass one of ``wanted``, or all where none is; quickest first."""
        found = [test for test, lines in self.lines.items() if wanted is None or wanted & set(lines)]
        found.sort(key=self.seconds.__getitem__)
        ends = itertools.accumulate(self.seconds[test] for test in found)
        return [test for test, end in zip(found, ends, strict=True) if end <= TESTS_SECONDS] or found[:1]


def judge(path: Path, tests: Sequence[str], stages: Sequence[str], changes: Iterable[Change], told: Told) -> None:
    """Judge each change of the module at ``path`` by ``tests`` (what pytest takes) and by cases of the corpus.

    ``told`` hears of each change what became of it, and says whether to go on.

    Raises:
        RuntimeError: The tests fail without any change, or run for too long.
    """
    known = list(changes)
    heard = _Heard()
    for kind, value in _told_by_warm([*tests, *([_CORPUS] if stages else [])], _Warm(path, stages, known)):
        match kind:
            case "reach":
                heard.reach = _Reach(**value)
            case "fate":
                number: int = value[0]
                if not told(known[number], value[1]):
                    return
            case "cold":
                number = value
                heard.cold.append(known[number])
            case "done":
                heard.done = True
            case _:
                raise RuntimeError(value)
    if not heard.done:
        raise RuntimeError(f"{path}: pytest ended before its time")
    for change in heard.cold:
        if not told(change, _cold(path, change, heard.reach.tests(None))):
            return


@dataclass(slots=True)
class _Heard:
    """What the process that has collected the tests said so far."""

    reach: _Reach = field(default_factory=_Reach)
    cold: list[Change] = field(default_factory=list[Change])
    done: bool = False


def _told_by_warm(tests: Sequence[str], warm: _Warm) -> Iterator[tuple[str, Any]]:
    """What a process says that collects ``tests``, in which our modules are imported; here they are not."""
    read, write = os.pipe()
    if (process := os.fork()) == 0:
        os.close(read)
        warm.tell = os.fdopen(write, "w", encoding="utf-8")
        os._exit(_quietly(lambda: pytest.main([*_OPTIONS, *tests], plugins=[warm])))
    os.close(write)
    try:
        with os.fdopen(read, encoding="utf-8") as said:
            yield from map(json.loads, said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


class _Warm:
    """Judges, inside pytest, what can be put in the place of functions' code; tells of the rest."""

    def __init__(self, path: Path, stages: Sequence[str], changes: list[Change]) -> None:
        self.path, self.changes = path, changes
        self._cases = tuple(f"{_CASES}[{stage}/" for stage in stages)
        self.tell = sys.stdout

    def _say(self, kind: str, value: object) -> None:
        self.tell.write(json.dumps([kind, value]) + "\n")
        self.tell.flush()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item for item in items if not item.nodeid.startswith(_CORPUS) or item.nodeid.startswith(self._cases)
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        reach = _baseline(session, self.path)
        if reach is None:
            self._say("failed", f"{self.path}: its tests fail, or take too long, without any change")
            return True
        self._say("reach", {"seconds": reach.seconds, "lines": reach.lines})
        items = {item.nodeid: item for item in session.items}
        source = self.path.read_text(encoding="utf-8")
        original, spans = _compiled(source, self.path), _spans(source)
        if _forked(partial(_swapped, [], [items[test] for test in reach.tests(None)])) != "survived":
            self._say("failed", f"{self.path}: without any change, its tests fail as changes are judged")
            return True
        functions = _functions(self.path)
        gc.freeze()
        for number, change in enumerate(self.changes):
            swaps = _swaps(original, _compiled(change.source, self.path), functions)
            if not swaps:
                self._say("cold", number)
                continue
            chosen = [items[test] for test in reach.tests(_lines_of(change.line, spans))]
            self._say("fate", (number, _forked(partial(_swapped, swaps, chosen)) if chosen else "unreached"))
        self._say("done", None)
        return True


def _swapped(swaps: Sequence[_Swap], items: list[pytest.Item]) -> int:
    """Run ``items`` with other code in functions; 0 when all pass."""
    for functions, code in swaps:
        for function in functions:
            function.__code__ = code
    return _run(items)


def _run(items: list[pytest.Item]) -> int:
    for item, after in zip(items, [*items[1:], None], strict=True):
        reports = runtestprotocol(item, nextitem=after, log=False)
        if any(report.failed for report in reports):
            return 1
    return 0


def _baseline(session: pytest.Session, path: Path) -> _Reach | None:
    """What the tests pass, found out in a fork: nothing of it is left here."""
    read, write = os.pipe()
    reach = _Reach()

    def measure() -> int:
        name, passed = str(path), set[int]()

        def line(frame: FrameType, _event: str, _: object) -> object:
            passed.add(frame.f_lineno)
            return line

        def call(frame: FrameType, _event: str, _: object) -> object:
            return line if frame.f_code.co_filename == name else None

        items = session.items
        for item, after in zip(items, [*items[1:], None], strict=True):
            passed.clear()
            started = time.perf_counter()
            threading.settrace(call)  # type: ignore[arg-type]
            sys.settrace(call)  # type: ignore[arg-type]
            reports = runtestprotocol(item, nextitem=after, log=False)
            sys.settrace(None)
            if any(report.failed for report in reports):
                return 1
            reach.seconds[item.nodeid] = round(time.perf_counter() - started, 4)
            reach.lines[item.nodeid] = sorted(passed)
        with os.fdopen(write, "w", encoding="utf-8") as file:
            json.dump([reach.seconds, reach.lines], file)
        return 0

    # Read beside the fork: a pipe holds less than is written.
    process = _fork(measure, close=read)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as file:
        text = file.read()
    if _end(process, _BASELINE_SECONDS) != "survived" or not text:
        return None
    return _Reach(*json.loads(text))


# -- changes of code ---------------------------------------------------------------------------------------------------


def _compiled(source: str, path: Path) -> CodeType:
    with warnings.catch_warnings():
        # `is` with a literal, for one.
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(source, str(path), "exec", dont_inherit=True)


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _functions(path: Path) -> dict[tuple[str, int], list[FunctionType]]:
    """The functions that ``path`` has defined, wherever they are by now."""
    found: dict[tuple[str, int], list[FunctionType]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename == str(path):
            found.setdefault(_key(thing.__code__), []).append(thing)
    return found


def _differing(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The functions that differ, outermost ones; ``None`` where a module's or a class's own code does."""
    same = ("co_code", "co_names", "co_exceptiontable")
    if len(old.co_consts) != len(new.co_consts) or any(getattr(old, name) != getattr(new, name) for name in same):
        return None
    found: list[tuple[CodeType, CodeType]] = []
    for before, after in zip(old.co_consts, new.co_consts, strict=True):
        if not isinstance(before, CodeType) or not isinstance(after, CodeType):
            if type(before) is not type(after) or before != after:
                return None
        elif before.co_flags & CO_NEWLOCALS:
            if before != after:
                if (before.co_freevars, _key(before)) != (after.co_freevars, _key(after)):
                    return None
                found.append((before, after))
        elif (inner := _differing(before, after)) is None:
            return None
        else:
            found += inner
    return found


def _swaps(old: CodeType, new: CodeType, functions: dict[tuple[str, int], list[FunctionType]]) -> list[_Swap]:
    """Functions, and the code that they get; empty where that is not all that differs."""
    pairs = _differing(old, new) or []
    found = [(functions.get(_key(before), []), after) for before, after in pairs]
    return found if all(known for known, _ in found) else []


def _spans(source: str) -> list[tuple[int, int]]:
    """First and last line of each statement and handler; of one with a body, of what stands before it."""
    found: list[tuple[int, int]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt | ast.excepthandler):
            body: list[ast.stmt] = getattr(node, "body", [])
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            found.append((node.lineno, max(node.lineno, last)))
    return found


def _lines_of(line: int, spans: Sequence[tuple[int, int]]) -> set[int]:
    """The lines of the statement that ``line`` is part of."""
    first, last = min(((a, b) for a, b in spans if a <= line <= b), key=lambda span: span[1] - span[0])
    return set(range(first, last + 1))


# -- processes ---------------------------------------------------------------------------------------------------------


def _cold(path: Path, change: Change, tests: list[str]) -> Fate:
    """Judge a change by importing it."""
    if not tests:
        return "unreached"

    class Loader(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - a loader's
            return _compiled(change.source, path)

    class Finder:
        @staticmethod
        def find_spec(name: str, where: Sequence[str] | None = None, target: ModuleType | None = None) -> object:
            if name.rpartition(".")[2] != path.stem or not name.startswith("weighbridge."):
                return None
            spec = importlib.machinery.PathFinder.find_spec(name, where, target)
            if spec is not None and spec.origin == str(path):
                spec.loader = Loader(name, str(path))
            return spec

    def run() -> int:
        sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
        return int(pytest.main([*_OPTIONS, *tests]))

    return _forked(run)


def _quietly(work: Callable[[], int]) -> int:
    """Do ``work`` without a word; 1 where it raises."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    with contextlib.suppress(BaseException):
        return work()
    return 1


def _fork(work: Callable[[], int], *, close: int | None = None, seconds: int | None = None) -> int:
    process = os.fork()
    if process == 0:
        os.setsid()
        if seconds is not None:
            # The soft limit alone: what it starts may set limits of its own.
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        if close is not None:
            os.close(close)
        os._exit(_quietly(work))
    return process


def _forked(work: Callable[[], int]) -> Fate:
    """What became of ``work`` in a process of its own."""
    return _end(_fork(work, seconds=PROCESSOR_SECONDS), HANGING_SECONDS)


def _end(process: int, seconds: float) -> Fate:
    until = time.monotonic() + seconds
    fate: Fate | None = None
    while fate is None:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            fate = "survived" if status == 0 else "killed"
        elif time.monotonic() > until:
            fate = "hangs"
        else:
            time.sleep(0.002)
    # What it has started goes with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if fate == "hangs":
        os.waitpid(process, 0)
    return fate
