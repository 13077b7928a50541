"""Declared work for emulated devices to do: so many tokens a second, from one figure to another, window by window.

Within a window work comes unevenly, as requests do: a long one is read second by second, so that its samples are what
those of as many short ones would be.

>>> import random
>>> load = LoadRange.parse("200+1000..400+3000@8")
>>> work = load.draw(random.Random(1), 10**10)
>>> 2000 <= work.tokens_in <= 4000, 10_000 <= work.tokens_out <= 30_000, work.decode_ns
(True, True, 80000000000)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import MalformedEvidence
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    import random

__all__ = ["LoadRange", "by_the_second"]

_RATE_MAX: Final = 10_000_000
_STREAMS_MAX: Final = 4096
_TOKENS_A_REQUEST: Final = 256
_SECOND_NS: Final = 1_000_000_000
_FORM: Final = re.compile(r"([0-9]+)\+([0-9]+)(?:\.\.([0-9]+)\+([0-9]+))?(?:@([0-9]+))?")


@dataclass(frozen=True, slots=True)
class LoadRange:
    """``IN+OUT``, ``IN+OUT..IN+OUT``, either with ``@STREAMS``: tokens a second, and how many requests side by side.

    Attributes:
        low: tokens in and out a second, at least.
        high: at most.
        streams: requests that are decoded side by side, 0 for not declared.
    """

    low: tuple[int, int]
    high: tuple[int, int]
    streams: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a load.

        Raises:
            ValueError: it is none.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"must be IN+OUT or IN+OUT..IN+OUT in tokens a second, and @STREAMS, not {text!r}")
        try:
            numbers = [
                None if group is None else strict.decimal(group, what="load", limit=limit)
                for group, limit in zip(match.groups(), (*[_RATE_MAX] * 4, _STREAMS_MAX), strict=True)
            ]
        except MalformedEvidence as error:
            raise ValueError(f"at most {_RATE_MAX} tokens a second and {_STREAMS_MAX} streams, not {text!r}") from error
        low = (numbers[0] or 0, numbers[1] or 0)
        high = low if numbers[2] is None else (numbers[2], numbers[3] or 0)
        if any(least > most for least, most in zip(low, high, strict=True)):
            raise ValueError(f"a load goes from less to more, not {text!r}")
        return cls(low, high, numbers[4] or 0)

    def draw(self, rng: random.Random, duration_ns: int) -> WorkSummary:
        """The work of one window. Its root is made up: there are no requests to commit to."""
        tokens_in, tokens_out = (
            round((least + (most - least) * rng.random()) * duration_ns / _SECOND_NS)
            for least, most in zip(self.low, self.high, strict=True)
        )
        if not tokens_in and not tokens_out:
            return WorkSummary.empty()
        return WorkSummary(
            root=sha256(b"weighbridge/emulated-work/%d/%d" % (tokens_in, tokens_out)),
            requests=max(1, tokens_out // _TOKENS_A_REQUEST),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            batch_max=max(1, self.streams),
            decode_ns=self.streams * duration_ns if tokens_out else 0,
        )


def by_the_second(rng: random.Random, work: WorkSummary, seconds: int) -> list[WorkSummary]:
    """How the work of a window lies within it: evenly in half of all; in others, a second has none up to twice as much.

    All together they have the tokens and the decoding time of ``work``; what else they say is made up.
    """
    swing = max(0.0, 2 * rng.random() - 1)
    weights = [1 + swing * (2 * rng.random() - 1) for _ in range(seconds)]
    done = [0.0, *accumulate(weights)]
    marks = [amount / done[-1] for amount in done]

    def part(amount: int, number: int) -> int:
        return round(amount * marks[number + 1]) - round(amount * marks[number])

    return [
        replace(
            work,
            tokens_in=part(work.tokens_in, number),
            tokens_out=part(work.tokens_out, number),
            decode_ns=work.decode_ns // seconds,
        )
        for number in range(seconds)
    ]
