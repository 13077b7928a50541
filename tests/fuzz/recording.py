"""What each parser was given while cases of the corpus were built and judged: seeds, and the arguments beside them.

So seeds are made by the project's own code whenever fuzzing starts, and none can go stale. Functions are watched
through the interpreter's profiling hook, by their code, so that it does not matter under which name a module imported
them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from dis import opmap
from importlib import import_module
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

__all__ = ["SEED_MAX", "Call", "Recorder", "resolve"]

SEED_MAX: Final = 256 * 1024
"""Bytes. What is longer is no seed: a fuzzer would spend its time on copying."""
_SEEDS_MAX: Final = 48

Arguments = dict[str, Any]


@dataclass
class Call:
    """What one function was given: its first argument each time, and the others of the first call that it accepted."""

    inputs: dict[bytes, bool] = field(default_factory=dict)
    beside: Arguments = field(default_factory=dict)
    accepted: bool = False

    def note(self, data: bytes, beside: Arguments, *, accepted: bool) -> None:
        """Keep this call, if it says something new."""
        if not self.inputs or (accepted and not self.accepted):
            self.beside, self.accepted = beside, accepted
        if len(data) <= SEED_MAX and (len(self.inputs) < _SEEDS_MAX or data in self.inputs):
            self.inputs[data] = self.inputs.get(data, False) or accepted


def resolve(name: str) -> Callable[..., Any]:
    """The function that is called ``room.module:Class.function``."""
    module, _, inner = name.partition(":")
    found: Any = import_module(f"weighbridge.{module}")
    for part in inner.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def _code_of(function: Callable[..., Any]) -> CodeType:
    plain = function.__func__ if isinstance(function, MethodType) else function
    # Behind a cache's wrapper, or that of work that is done at once.
    plain = getattr(plain, "__wrapped__", plain)
    assert isinstance(plain, FunctionType), function
    return plain.__code__


def _yields(frame: FrameType) -> bool:
    """Whether a generator's frame goes on later: the hook hears of that as of a return, and then of a call."""
    return frame.f_code.co_code[frame.f_lasti] == opmap["YIELD_VALUE"]


class Recorder:
    """Watches functions of this thread while it is entered.

    Attributes:
        calls: of each parser, its inputs.
        spied: of each other function, all arguments of all of its calls, and whether it returned something.
    """

    def __init__(self, parsers: Iterable[str], spied: Iterable[str] = ()) -> None:
        self.calls: dict[str, Call] = {name: Call() for name in parsers}
        self.spied: dict[str, list[tuple[Arguments, bool]]] = {name: [] for name in spied}
        self._names: Final = {_code_of(resolve(name)): name for name in (*self.calls, *self.spied)}
        self._open: dict[int, Arguments] = {}

    def __enter__(self) -> Self:
        """Begin. What functions remember of earlier calls is forgotten: else they would not be seen to run."""
        for name in (*self.calls, *self.spied):
            if (forget := getattr(resolve(name), "cache_clear", None)) is not None:
                forget()
        sys.setprofile(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        sys.setprofile(None)

    def _hear(self, frame: FrameType, event: str, value: object) -> None:
        name = self._names.get(frame.f_code)
        if name is None:
            return
        if event == "call" and id(frame) not in self._open:
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            self._open[id(frame)] = {name: frame.f_locals[name] for name in names if name != "cls"}
        elif event == "return" and id(frame) in self._open and not _yields(frame):
            # A function that raises returns nothing, as one does that has nothing to return.
            self._close(name, self._open.pop(id(frame)), accepted=value is not None)

    def _close(self, name: str, given: Arguments, *, accepted: bool) -> None:
        if name in self.spied:
            self.spied[name].append((given, accepted))
            return
        first = next(argument for argument in given if argument != "self")
        data = given.pop(first)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if isinstance(data, bytes | bytearray | memoryview):
            self.calls[name].note(bytes(data), given, accepted=accepted)
