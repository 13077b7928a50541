"""Which codes our modules, and the numbered steps of a procedure, can refuse with: read from their sources.

What a function names is followed, through the modules that it is from. Of a method of some value no more than its name
is known: it is that of whichever class the module imports, if only for type checkers, that has one of the name.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["refused_in", "refused_in_step"]

_HEAD: Final = re.compile(r" {4}# (?P<steps>\d+\.(?: and \d+\.)?)( |$)")
_FOLLOWED: Final = (ModuleType, type, FunctionType, MethodType, Code)


@cache
def refused_in(module: str) -> frozenset[Code]:
    """With which codes anything of a module refuses."""
    return frozenset(_refused([_parsed(module)], module, set()))


@cache
def refused_in_step(module: str, step: int) -> frozenset[Code]:
    """With which codes one step does, whose code begins with a comment like ``# 5.`` in a function's body."""
    return frozenset(_refused(_steps(module).get(f"{step}.", []), module, set()))


@cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def _steps(module: str) -> dict[str, list[ast.stmt]]:
    """The statements below each such comment."""
    lines = ["", *inspect.getsource(importlib.import_module(module)).splitlines()]
    found: dict[str, list[ast.stmt]] = {}
    for function in _parsed(module).body:
        step, line = "", function.lineno
        for statement in function.body if isinstance(function, ast.FunctionDef) else []:
            heads = [head["steps"] for text in lines[line : statement.lineno] if (head := _HEAD.match(text))]
            step, line = heads[-1] if heads else step, statement.lineno
            found.setdefault(step, []).append(statement)
    return found


@cache
def _known(module: str) -> dict[str, object]:
    """What names mean in a module; those as well that it imports for type checkers only."""
    found: dict[str, object] = {}
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("weighbridge."):
            origin = importlib.import_module(node.module)
            found |= {each.name: getattr(origin, each.name) for each in node.names if hasattr(origin, each.name)}
    return found | vars(importlib.import_module(module))


@cache
def _definitions(module: str) -> dict[int, ast.FunctionDef]:
    """A module's functions, by the line on which each begins."""
    functions = [node for node in ast.walk(_parsed(module)) if isinstance(node, ast.FunctionDef)]
    return {min([node.lineno, *(each.lineno for each in node.decorator_list)]): node for node in functions}


def _meant(node: ast.AST, module: str) -> list[object]:
    """What ``node`` may stand for, if it is a name; a value is nothing."""
    known = _known(module)
    if isinstance(node, ast.Name):
        # Behind a cache's wrapper, or that of work that is done at once.
        found = [inspect.unwrap(known.get(node.id))]  # type: ignore[arg-type]  # an unknown name stays none
    elif isinstance(node, ast.Attribute):
        classes = [each for each in known.values() if isinstance(each, type) and node.attr in vars(each)]
        owners = _meant(node.value, module) or classes
        found = [inspect.unwrap(getattr(each, node.attr, None)) for each in owners]  # type: ignore[arg-type]
    else:
        found = []
    return [each for each in found if isinstance(each, _FOLLOWED)]


def _refused(nodes: Iterable[ast.AST], module: str, seen: set[object]) -> Iterator[Code]:
    for node in (each for top in nodes for each in ast.walk(top)):
        for meant in _meant(node, module):
            if isinstance(meant, Code):
                yield meant
            function = getattr(meant, "__func__", meant)
            if isinstance(function, FunctionType) and function.__module__.startswith("weighbridge."):
                body = _definitions(function.__module__).get(function.__code__.co_firstlineno)
                if body is not None and function not in seen:
                    seen.add(function)
                    yield from _refused([body], function.__module__, seen)
