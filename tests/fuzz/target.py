"""What a fuzz target is, and what has to hold for every input: an answer or a refusal of ours, in time and in space."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weighbridge.proto.errors import Code, MalformedEvidence, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MEMORY_MAX", "SECONDS_MAX", "Broken", "Target"]

SECONDS_MAX: Final = 5.0
"""Of processor time for one input, with the fuzzer counting along. What is refused for its length comes sooner."""
MEMORY_MAX: Final = 512 * 1024 * 1024
"""Bytes by which one input may raise the most that the process ever held."""


class Broken(Exception):
    """A property does not hold for an input."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing that takes bytes from outside.

    Attributes:
        name: as on the command line.
        run: gives it an input.
        seeds: inputs to begin with; the first one is accepted.
        errors: what it may raise.
        again: encodes what was parsed; where the format has one encoding, that is the input.
    """

    name: str
    run: Callable[[bytes], Any]
    seeds: Sequence[bytes]
    errors: tuple[type[Exception], ...] = (MalformedEvidence,)
    again: Callable[[Any], bytes] | None = None

    def accepts(self, data: bytes) -> bool:
        """Whether ``data`` is taken.

        Raises:
            Broken: a property does not hold.
            Exception: what the target raised and may not.
        """
        before, started = _peak(), time.process_time()
        accepted = self._answered(data)
        if (took := time.process_time() - started) > SECONDS_MAX:
            raise Broken(f"took {took:.1f} s of the processor for {len(data)} bytes")
        if (grown := _peak() - before) > MEMORY_MAX:
            raise Broken(f"took {grown} bytes of memory for {len(data)} bytes")
        return accepted

    def _answered(self, data: bytes) -> bool:
        try:
            value = self.run(data)
        except self.errors as refused:
            if isinstance(refused, WeighbridgeError):
                _check_refusal(refused)
            return False
        if self.again is not None and (encoded := self.again(value)) != data:
            raise Broken(f"is encoded to other bytes than it was parsed from: {encoded[:64].hex()}")
        return True


def _check_refusal(refused: WeighbridgeError) -> None:
    """A refusal has its code, and can be told: printed, and sent as text."""
    if refused.code not in set(Code):
        raise Broken(f"refused without a code: {refused!r}")
    for text in (str(refused), refused.where, refused.hint):
        try:
            (text or "").encode("utf-8")
        except UnicodeEncodeError as error:
            raise Broken(f"a refusal that no terminal can show: {text!r}") from error


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
