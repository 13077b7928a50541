"""Which lines and branches ran, counted by the modules themselves: in the place of coverage's tracer, in the processes
that share the tests.

Before Python 3.14 coverage has the interpreter call it for every line: 4 s of a checker's tests take 12 to 15. Here a
module of ours gets ``__probe__[n] = 1`` before every statement and at both ends of every branch as it is imported,
which takes each process 3 s for all, and little after that. What coverage then writes and reports is the same, but
that an ``except`` line counts once it, or one after it, catches something. Processes that tests start, and tests in one
process, are traced as ever.

Line numbers stay as they are. One name is added to each module: ``__probe__``.
"""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import coverage.control
from coverage.core import Core
from coverage.disposition import FileDisposition
from coverage.parser import PythonParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    from coverage.types import Tracer

NAME: Final = "__probe__"

_PACKAGE: Final = "weighbridge."
# Generated, and left out of what coverage measures.
_NOT_MEASURED: Final = "_pb2"


@dataclass(frozen=True, slots=True)
class Point:
    """What it says that one probe was passed: lines that ran, and branches taken from a line.

    Each branch is the line that branches, and where its body begins; ``True`` if the body was entered.
    """

    lines: tuple[int, ...] = ()
    branches: tuple[tuple[int, int, bool], ...] = ()


@dataclass(slots=True)
class Probed:
    """The probes of one file, and which of them have been passed (1) or not (0)."""

    points: list[Point] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)

    def add(self, point: Point) -> int:
        """The number of a new probe."""
        self.points.append(point)
        self.passed.append(0)
        return len(self.points) - 1


def probed(source: bytes, path: str) -> tuple[CodeType, Probed]:
    """The code of a module with probes in it. Runs nothing; the module finds what it passes under :data:`NAME`."""
    tree = ast.parse(source, path)
    made = _Prober().module(tree)
    return compile(tree, path, "exec", dont_inherit=True), made


def arcs_of(source: str, made: Probed) -> set[tuple[int, int]]:
    """What ran, in coverage's terms: pairs of lines, the second after the first.

    A statement counts once it is begun. From a line that does not branch, no pair leads on: coverage asks for none.
    """
    parser = PythonParser(text=source, exclude="#: never")
    parser.parse_source()
    exits: dict[int, set[int]] = {}
    for start, end in parser.arcs():
        exits.setdefault(start, set()).add(end)
    found: set[tuple[int, int]] = set()
    branching: set[int] = set()
    for point in made.points:
        branching.update(parser.first_line(line) for line, _, _ in point.branches)
    for point, passed in zip(made.points, made.passed, strict=True):
        if not passed:
            continue
        for line in parser.first_lines(point.lines):
            found.add((-1, line))
            if line not in branching:
                found.update((line, end) for end in exits.get(line, ()) if len(exits[line]) > 1)
        for number, body, entered in point.branches:
            line, first = parser.first_line(number), parser.first_line(body)
            found.update((line, end) for end in exits.get(line, ()) if (end == first) is entered)
    return found


class _Prober:
    """Puts probes into one module."""

    def __init__(self) -> None:
        self._made = Probed()

    def module(self, tree: ast.Module) -> Probed:
        tree.body = self._body(tree.body)
        ast.fix_missing_locations(tree)
        return self._made

    def _body(self, body: list[ast.stmt], *first: Point) -> list[ast.stmt]:
        """A block with a probe before each statement, and those of ``first`` before them all."""
        head, rest = _split(body)
        out = list(head)
        out.extend(self._probe(point, body[0]) for point in first)
        if head:
            out.append(self._probe(Point(tuple(statement.lineno for statement in head)), body[0]))
        for statement in rest:
            out.append(self._probe(Point(_lines(statement)), statement))
            self._within(statement)
            out.append(statement)
        return out

    def _probe(self, point: Point, at: ast.stmt) -> ast.stmt:
        target = ast.Subscript(ast.Name(NAME, ast.Load()), ast.Constant(self._made.add(point)), ast.Store())
        return ast.copy_location(ast.Assign([target], ast.Constant(1)), at)

    def _within(self, statement: ast.stmt) -> None:
        match statement:
            case ast.If() | ast.While() | ast.For() | ast.AsyncFor():
                line, body = statement.lineno, _first(statement.body)
                away = Point(branches=((line, body, False),))
                statement.body = self._body(statement.body, Point(branches=((line, body, True),)))
                statement.orelse = (
                    self._body(statement.orelse, away) if statement.orelse else [self._probe(away, statement)]
                )
            case ast.Match():
                self._match(statement)
            case ast.Try() | ast.TryStar():
                self._try(statement)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.With() | ast.AsyncWith():
                statement.body = self._body(statement.body)
            case _:
                pass

    def _match(self, statement: ast.Match) -> None:
        """A case that is entered says that those before it were tried, and did not fit."""
        last = statement.cases[-1]
        places = [(case.pattern.lineno, _first(case.body)) for case in statement.cases]
        for number, case in enumerate(statement.cases):
            tried = tuple(line for line, _ in places[: number + 1])
            missed = tuple((*place, False) for place in places[:number])
            case.body = self._body(case.body, Point(tried, (*missed, (*places[number], True))))
        if last.guard is not None or not _always(last.pattern):
            none = Point(tuple(line for line, _ in places), tuple((*place, False) for place in places))
            statement.cases.append(ast.match_case(ast.MatchAs(), None, [self._probe(none, statement)]))

    def _try(self, statement: ast.Try | ast.TryStar) -> None:
        statement.body = self._body(statement.body)
        lines = [handler.lineno for handler in statement.handlers]
        for number, handler in enumerate(statement.handlers):
            handler.body = self._body(handler.body, Point(tuple(lines[: number + 1])))
        if statement.orelse:
            statement.orelse = self._body(statement.orelse)
        if statement.finalbody:
            statement.finalbody = self._body(statement.finalbody)


def _split(body: list[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """What must stay first in a block, a docstring and what is imported from the future, and the rest."""
    count = 0
    match body[0]:
        case ast.Expr(value=ast.Constant(value=str())):
            count = 1
        case _:
            pass
    while count < len(body):
        statement = body[count]
        if not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            break
        count += 1
    return body[:count], body[count:]


def _lines(statement: ast.stmt) -> tuple[int, ...]:
    decorators: Iterable[ast.expr] = getattr(statement, "decorator_list", ())
    return (*(decorator.lineno for decorator in decorators), statement.lineno)


def _first(body: Sequence[ast.stmt]) -> int:
    return _lines(body[0])[0]


def _always(pattern: ast.pattern) -> bool:
    """Whether a pattern fits whatever comes."""
    match pattern:
        case ast.MatchAs(pattern=inner):
            return inner is None or _always(inner)
        case ast.MatchOr(patterns=several):
            return _always(several[-1])
        case _:
            return False


# -- in the place of the tracer ----------------------------------------------------------------------------------------


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with probes in it."""

    files: Final[dict[str, Probed]] = {}

    def exec_module(self, module: ModuleType) -> None:
        path = self.get_filename(module.__name__)
        code, made = probed(self.get_data(path), path)
        # A module that is imported a second time is still the same file.
        made = self.files.setdefault(path, made)
        setattr(module, NAME, made.passed)
        exec(code, module.__dict__)  # noqa: S102 - what a loader does


class _Finder:
    """Finds our modules where Python would, and has them loaded by :class:`_Loader`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(_PACKAGE):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return spec
        if _NOT_MEASURED not in name:
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Tracer:
    """What coverage takes for its tracer. It traces nothing, and at the end gives what was passed."""

    def __init__(self) -> None:
        # Coverage puts its own in the place of this one, and sets more that has no use here.
        self.data: dict[str, set[tuple[int, int]]] = {}
        self._stopped = False

    def start(self) -> None:
        """Nothing to begin: modules have their probes since they were imported."""

    def stop(self) -> None:
        """Hand over what was passed."""
        for path, made in _Loader.files.items():
            if any(made.passed):
                self.data[path] = arcs_of(Path(path).read_text(encoding="utf-8"), made)
        self._stopped = True

    def activity(self) -> bool:
        return self._stopped

    def reset_activity(self) -> None:
        self._stopped = False

    def get_stats(self) -> None:
        """None are kept."""


class _Core(Core):
    """Of coverage's cores, none: :class:`_Tracer`."""

    def __init__(self, **_: object) -> None:
        self.tracer_class = cast("type[Tracer]", _Tracer)
        self.tracer_kwargs = {}
        self.file_disposition_class = FileDisposition
        self.supports_plugins = self.supports_dynamic_contexts = False
        self.packed_arcs = self.systrace = False


def install() -> None:
    """Have modules of ours that this process imports from now on carry probes, and coverage read them.

    Raises:
        RuntimeError: Some have been imported already: they would look as if they never ran.
    """
    early = sorted(name for name in sys.modules if name.startswith(_PACKAGE))
    if early:
        raise RuntimeError(f"imported before they could be probed: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder)
    # Which core it is, coverage decides by a list of its own. The lock file holds the version that this was read in.
    setattr(coverage.control, "Core", _Core)  # noqa: B010 - no name that it exports
