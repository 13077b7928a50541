"""Questions to NVML with structures that are made once: what reading a GPU's sensors is made of.

An answer goes into a row's columns. What failed is missing there, and noted: a *fault* for an error of NVML, a
*sentinel* for a value that stands for "none".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from weighbridge.attester.gpu.nvml_errors import FUNCTION_NOT_FOUND, NOT_SUPPORTED
from weighbridge.attester.telemetry.nvml_layout import FIELD_PARTS, FieldValue, fields_layout, number_of, usable
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from weighbridge.attester.telemetry.sampler import Tick

__all__ = ["REFUSED", "Fields", "Library", "Question"]

# NVML's function of that name, or None where this driver has none.
Library = Callable[[str], Callable[..., int] | None]

REFUSED: Final = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND})
# Where they stand among the numbers of a nvmlFieldValue_t.
_TIMESTAMP, _TYPE, _RETURN, _VALUE = 2, 4, 5, 6


@final
class Question:
    """One function that writes whole numbers.

    Args:
        function: of the library; ``None`` is refused as what the driver does not know.
        arguments: before the last, prepared for ctypes.
        out: an array of unsigned integers, which the driver writes.
        columns: for each of them, the column and how many of its unit NVML's is.
    """

    __slots__ = ("_arguments", "_columns", "_function", "_out")

    def __init__(
        self,
        function: Callable[..., int] | None,
        arguments: tuple[object, ...],
        out: Any,  # noqa: ANN401 - a ctypes array; its classes are made as they are needed
        columns: tuple[tuple[int, int], ...],
    ) -> None:
        self._function = function
        self._arguments = (*arguments, ctypes.byref(out))
        self._out = out
        self._columns = columns

    @property
    def columns(self) -> tuple[int, ...]:
        """What is read, as columns."""
        return tuple(column for column, _ in self._columns)

    def ask(self) -> int:
        """NVML's return code."""
        return FUNCTION_NOT_FOUND if self._function is None else self._function(*self._arguments)

    def read(self, tick: Tick, first: int) -> None:
        """Ask, and fill in the columns, counted from ``first``."""
        if self.ask():
            for column, _ in self._columns:
                tick.note(EventKind.FAULT, first + column)
            return
        for value, (column, scale) in zip(self._out, self._columns, strict=True):
            number = usable(value)
            if number is None:
                tick.note(EventKind.SENTINEL, first + column)
            else:
                tick.row[first + column] = number * scale


@final
class Fields:
    """One nvmlDeviceGetFieldValues of several fields.

    Args:
        library: NVML's functions.
        handle: the device's.
        wanted: number of the field, its column, and how many of the column's unit NVML's is.
    """

    __slots__ = ("_arguments", "_columns", "_function", "_of", "_unpack", "_view")

    def __init__(self, library: Library, handle: object, wanted: tuple[tuple[int, int, int], ...]) -> None:
        fields = (FieldValue * max(1, len(wanted)))()
        for field, (number, _, _) in zip(fields, wanted, strict=False):
            field.fieldId = number
        self._of = library, handle, wanted
        self._columns = tuple((column, scale) for _, column, scale in wanted)
        self._function = library("nvmlDeviceGetFieldValues") if wanted else None
        self._arguments = (handle, ctypes.c_int(len(wanted)), ctypes.byref(fields))
        self._view = memoryview(fields).cast("B")
        self._unpack = fields_layout(len(fields)).unpack

    def supported(self) -> Fields:
        """Those of the fields that the device does not refuse now."""
        library, handle, wanted = self._of
        code, raw = self._ask()
        codes = [code] * len(wanted) if code else list(raw[_RETURN::FIELD_PARTS])
        kept = tuple(item for item, code in zip(wanted, codes, strict=True) if code not in REFUSED)
        return Fields(library, handle, kept)

    @property
    def columns(self) -> tuple[int, ...]:
        """What is read, as columns."""
        return tuple(column for column, _ in self._columns)

    def read(self, tick: Tick, first: int) -> int | None:
        """Ask, and fill in the columns; the driver's timestamp of the first field, in µs, ``None`` without one."""
        code, raw = self._ask()
        if code:
            for column, _ in self._columns:
                tick.note(EventKind.FAULT, first + column)
            return None
        at = 0
        for column, scale in self._columns:
            if raw[at + _RETURN]:
                tick.note(EventKind.FAULT, first + column)
            else:
                number = number_of(raw[at + _TYPE], raw[at + _VALUE])
                if number is None:
                    tick.note(EventKind.SENTINEL, first + column)
                else:
                    tick.row[first + column] = number * scale
            at += FIELD_PARTS
        return raw[_TIMESTAMP]

    def _ask(self) -> tuple[int, tuple[int, ...]]:
        """NVML's return code, and the numbers of every structure one after the other."""
        if self._function is None:
            return FUNCTION_NOT_FOUND, ()
        code = self._function(*self._arguments)
        return code, () if code else self._unpack(self._view)
