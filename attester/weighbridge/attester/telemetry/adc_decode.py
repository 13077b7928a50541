r"""Bytes that a converter writes, to samples: framed or raw binary, or lines of text. Bounded memory, whatever comes.

A frame is ``b"WBAD"``, the number of its samples (uint32) and the number of its first sample since the converter began
(uint64), then the samples; all of it little-endian. What was lost before it was written shows in the numbers. Raw
binary has none of that: a byte too few, and everything after it is noise that nobody can tell from a signal.

>>> decoder = Decoder("int16", framed=True)
>>> decoder.feed(frame(b"\x01\x00\xff\xff", count=2, first=0))
[array([ 1., -1.])]
>>> decoder.feed(frame(b"\x05\x00", count=1, first=9))
[<EventKind.GAP: 'gap'>, array([5.])]
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, Literal, final, get_args

import numpy as np

from weighbridge.proto import strict
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["FORMATS", "Decoder", "Format", "frame"]

Format = Literal["int16", "int32", "float32", "text"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_MAGIC: Final = b"WBAD"
_COUNTS: Final = "<IQ"
_HEADER_SIZE: Final = len(_MAGIC) + struct.calcsize(_COUNTS)
# 65 ms of the highest rate; what would be longer is no header.
_FRAME_SAMPLES_MAX: Final = 65_536
_LINE_MAX: Final = 64
_NUMBER: Final = re.compile(rb"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
_TYPES: Final[Mapping[str, str]] = {"int16": "<i2", "int32": "<i4", "float32": "<f4"}
_NAN: Final = float("nan")


@final
class Decoder:
    """Takes bytes in any portions; gives samples in their order, and what interrupts them.

    A sample that is no number is NaN: its place in time is kept.

    Args:
        form: of a sample.
        framed: whether binary samples come in frames; text always comes in lines.
    """

    def __init__(self, form: Format, *, framed: bool) -> None:
        self._form: Format = form
        self._framed = framed and form != "text"
        self._type = np.dtype(_TYPES.get(form, "<f8"))
        self._tail = b""
        self._next: int | None = None
        self._lost = False

    def feed(self, data: bytes) -> list[NDArray[np.float64] | EventKind]:
        """Samples in ``data`` and what was left over before, as arrays, and between them what interrupts them.

        A *gap* is where frames say that samples are missing, a *fault* where bytes are none of the format.
        """
        self._tail += data
        if self._form == "text":
            return self._lines()
        if not self._framed:
            return self._raw()
        return self._frames()

    def end(self) -> list[NDArray[np.float64] | EventKind]:
        """The writer has gone: a *fault* where it left half a sample, line or frame. Begins anew."""
        left, self._tail, self._next, self._lost = bool(self._tail), b"", None, False
        return [EventKind.FAULT] if left else []

    def _raw(self) -> list[NDArray[np.float64] | EventKind]:
        size = self._type.itemsize
        whole = len(self._tail) // size * size
        taken, self._tail = self._tail[:whole], self._tail[whole:]
        return [self._samples(taken)] if taken else []

    def _samples(self, data: bytes) -> NDArray[np.float64]:
        return np.frombuffer(data, dtype=self._type).astype(np.float64)

    def _frames(self) -> list[NDArray[np.float64] | EventKind]:
        found: list[NDArray[np.float64] | EventKind] = []
        while True:
            if not self._at_header(found) or len(self._tail) < _HEADER_SIZE:
                return found
            count, first = strict.unpack(_COUNTS, self._tail[len(_MAGIC) : _HEADER_SIZE], what="frame")
            if not 0 < count <= _FRAME_SAMPLES_MAX:
                # Looks like a frame and is none: go on behind its first letter.
                self._lose(found, 1)
                continue
            end = _HEADER_SIZE + count * self._type.itemsize
            if len(self._tail) < end:
                return found
            if self._next is not None and first != self._next:
                found.append(EventKind.GAP)
            self._next, self._lost = first + count, False
            found.append(self._samples(self._tail[_HEADER_SIZE:end]))
            self._tail = self._tail[end:]

    def _at_header(self, found: list[NDArray[np.float64] | EventKind]) -> bool:
        """Drop what is no frame; whether there may be the beginning of one."""
        if self._tail.startswith(_MAGIC):
            return True
        if _MAGIC.startswith(self._tail):
            return False
        place = self._tail.find(_MAGIC)
        if place < 0:
            # The last three bytes may be the first of a frame.
            keep = next(keep for keep in (3, 2, 1, 0) if not keep or self._tail.endswith(_MAGIC[:keep]))
            place = len(self._tail) - keep
        self._lose(found, place)
        return self._tail.startswith(_MAGIC)

    def _lose(self, found: list[NDArray[np.float64] | EventKind], count: int) -> None:
        self._tail = self._tail[count:]
        if not self._lost:
            found.append(EventKind.FAULT)
        # Said once, and then what follows is where it says it is.
        self._lost, self._next = True, None

    def _lines(self) -> list[NDArray[np.float64] | EventKind]:
        *lines, self._tail = self._tail.split(b"\n")
        found: list[NDArray[np.float64] | EventKind] = []
        if lines and self._lost:
            # The rest of a line that was too long.
            del lines[0]
            self._lost = False
        values: list[float] = []
        for line in lines:
            if len(line) > _LINE_MAX:
                found += [*_array(values), EventKind.FAULT]
                values = []
            else:
                values.append(_number(line))
        found += _array(values)
        if len(self._tail) > _LINE_MAX:
            if not self._lost:
                found.append(EventKind.FAULT)
            self._tail, self._lost = b"", True
        return found


def frame(samples: bytes, *, count: int, first: int) -> bytes:
    """A frame, as a converter's program has to write it."""
    return _MAGIC + struct.pack(_COUNTS, count, first) + samples


def _array(values: list[float]) -> list[NDArray[np.float64]]:
    return [np.array(values, dtype=np.float64)] if values else []


def _number(line: bytes) -> float:
    """The number on a line, NaN for anything else."""
    text = line.strip(b" \t\r")
    return float(text) if _NUMBER.fullmatch(text) else _NAN
