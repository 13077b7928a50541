"""Does several long pieces of work side by side: a step of each, then the next step of each.

Such work is a generator that yields between its steps, and returns what it comes to. What it does is the same either
way; but a step that is done sixteen times in a row finds its code in the processor's caches fifteen times, and one
behind fifteen other steps never. That was a sixth of what windows that come together cost
(``docs/adr/0049-windows-that-came-together-are-judged-together.md``).

>>> def doubled(number: int) -> Steps[int]:
...     yield
...     return 2 * number
>>> finished(doubled(3))
6
>>> side_by_side([doubled(1), doubled(2)])
[2, 4]
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from weighbridge.proto.errors import WeighbridgeError

__all__ = ["Steps", "at_once", "finished", "side_by_side"]

Outcome = TypeVar("Outcome")
Arguments = ParamSpec("Arguments")

Steps = Generator[None, None, Outcome]
"""Work that yields between its steps."""


def finished(steps: Steps[Outcome]) -> Outcome:
    """What ``steps`` come to, one after the other. Raises what they raise."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("Outcome", end.value)


def at_once(work: Callable[Arguments, Steps[Outcome]]) -> Callable[Arguments, Outcome]:
    """The same work for whoever has one piece of it alone."""

    @wraps(work)
    def whole(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        return finished(work(*args, **kwargs))

    return whole


def side_by_side(several: Sequence[Steps[Outcome]]) -> list[Outcome | WeighbridgeError]:
    """What each of ``several`` comes to, or the error that it raises, which keeps no other one from going on.

    Raises:
        Exception: what any of them raises that is no :class:`.WeighbridgeError`: none is gone on with.
    """
    made: dict[int, Outcome | WeighbridgeError] = {}
    going = list(enumerate(several))
    while going:
        left: list[tuple[int, Steps[Outcome]]] = []
        for place, steps in going:
            try:
                next(steps)
            except StopIteration as end:
                made[place] = cast("Outcome", end.value)
            except WeighbridgeError as error:
                made[place] = error
            else:
                left.append((place, steps))
        going = left
    return [made[place] for place in range(len(several))]
