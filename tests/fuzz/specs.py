"""Which parsers are fuzzed, and what is needed to call each: the tables' rows, and how targets are made of them."""

from __future__ import annotations

import inspect
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from corpus.arena import Arena, judged
from corpus.manifests import cases
from fuzz.extra import EXTRA
from fuzz.recording import Call, Recorder, resolve
from fuzz.target import Target
from support.world import Engines
from weighbridge.proto.errors import MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Spec", "Workshop", "encode", "raw"]


@dataclass(frozen=True)
class Spec:
    """A row: how one parser is called.

    Attributes:
        name: ``room.module:Class.function``.
        case: the case of the corpus that calls it, and so gives inputs and the arguments beside them.
        seeds_of: the parser whose inputs it takes, where no case calls it itself.
        seeds: inputs beside those, or instead of them.
        call: how it is called, where the case does not say: given the function and the input.
        errors: what it may raise.
        again: as :attr:`fuzz.target.Target.again`.
        slow: its case takes seconds, which a short run has not.
    """

    name: str
    case: str = ""
    seeds_of: str = ""
    seeds: Callable[[], Iterable[bytes]] = tuple
    call: Callable[[Callable[..., Any], Any], object] | None = None
    errors: tuple[type[Exception], ...] = (MalformedEvidence,)
    again: Callable[[Any], bytes] | None = None
    slow: bool = False


def encode(value: Any) -> bytes:  # noqa: ANN401 - whatever was parsed
    """What has one encoding writes it itself."""
    encoded: bytes = value.encode()
    return encoded


def raw(value: Any) -> bytes:  # noqa: ANN401 - as above
    """What is kept as it came, since others have signed it."""
    kept: bytes = value.raw
    return kept


class Workshop:
    """Where cases are built and judged, and what they have made is kept: its parsers' arguments may be in use."""

    def __init__(self) -> None:
        self._stack: Final = ExitStack()
        self._engines: Final = Engines()
        self._stack.callback(self._engines.close)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of all worlds."""
        self._stack.close()

    def made(self, specs: Sequence[Spec]) -> list[Target]:
        """The targets of ``specs``; each case that they name is built and judged once."""
        calls: dict[str, Call] = {}
        for case in dict.fromkeys(spec.case for spec in specs if spec.case):
            recorder = Recorder({spec.seeds_of or spec.name for spec in specs if spec.case == case})
            self.watch(case, recorder)
            calls |= recorder.calls
        return [_target(spec, calls.get(spec.seeds_of or spec.name, Call())) for spec in specs]

    def watch(self, case: str, recorder: Recorder) -> Arena:
        """Build and judge ``case`` under the eyes of ``recorder``."""
        memory = Path("/dev/shm")  # noqa: S108 - only the base of a private directory
        base = memory if os.access(memory, os.W_OK) else None
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="weighbridge-", dir=base))
        arena = Arena(Path(directory), self._engines)
        self._stack.callback(arena.close)
        with recorder:
            judged(_cases()[case], arena)
        return arena


@cache
def _cases() -> dict[str, Callable[[Arena], Any]]:
    return {**cases(), **EXTRA}


def _target(spec: Spec, seen: Call) -> Target:
    function: Any = resolve(spec.name)
    takes_text = _takes_text(function)
    beside = dict(seen.beside)
    owner = (beside.pop("self"),) if "self" in beside else ()

    def run(data: bytes) -> object:
        # Where text is taken, whoever hands it on has decoded it.
        given = data.decode("utf-8", "replace") if takes_text else data
        return function(*owner, given, **beside) if spec.call is None else spec.call(function, given)

    recorded = sorted(seen.inputs, key=lambda data: not seen.inputs[data])
    return Target(name=spec.name, run=run, seeds=(*spec.seeds(), *recorded), errors=spec.errors, again=spec.again)


def _takes_text(function: Callable[..., Any]) -> bool:
    if isinstance(function, type):
        return False
    parameters = [item for item in inspect.signature(function).parameters.values() if item.name != "self"]
    return bool(parameters) and parameters[0].annotation == "str"
