"""Those of a GPU's sensors that cost microseconds to read (``docs/measurements/nvml-h200.md``).

What a device says that it does not support when it is opened is *absent* and not asked for again; every later refusal
is a fault of that reading. What no answer says: when the sensor was read. The driver's timestamp is that of the
question, and a re-read shows by nothing but an equal value.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.telemetry.nvml_layout import MEMORY_TEMPERATURE, POWER_AVERAGE, POWER_INSTANT, timestamp_ns
from weighbridge.attester.telemetry.nvml_questions import REFUSED, Fields, Question
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from weighbridge.attester.telemetry.nvml_questions import Library
    from weighbridge.attester.telemetry.sampler import Tick

__all__ = ["COLUMNS", "QuickReader"]

COLUMNS: Final = (
    "power_instant",
    "power",
    "temperature",
    "memory_temperature",
    "sm_clock",
    "memory_clock",
    "utilisation",
    "memory_utilisation",
    "clock_reasons",
    "read_at",
)
_READ_AT: Final = COLUMNS.index("read_at")
_FIELDS: Final = (
    (POWER_INSTANT, COLUMNS.index("power_instant"), 1),
    (POWER_AVERAGE, COLUMNS.index("power"), 1),
    (MEMORY_TEMPERATURE, COLUMNS.index("memory_temperature"), 1000),
)
# NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM.
_GPU, _SM, _MEMORY = 0, 1, 2


@final
class QuickReader:
    """Reads them into the columns of :data:`COLUMNS`.

    Attributes:
        absent: names of what the device does not support.
    """

    __slots__ = ("_fields", "_has_fields", "_questions", "absent")

    def __init__(self, library: Library, handle: object) -> None:
        self._fields = Fields(library, handle, _FIELDS).supported()
        self._questions = tuple(item for item in _questions(library, handle) if item.ask() not in REFUSED)
        present = {*self._fields.columns, *(column for item in self._questions for column in item.columns)}
        self._has_fields = bool(self._fields.columns)
        if self._has_fields:
            present.add(_READ_AT)
        self.absent = frozenset(name for column, name in enumerate(COLUMNS) if column not in present)

    def read(self, tick: Tick, first: int) -> None:
        """Fill in the columns from ``first`` on."""
        if self._has_fields:
            said = self._fields.read(tick, first)
            at = timestamp_ns(said)
            if at is None:
                tick.note(EventKind.FAULT if said is None else EventKind.SENTINEL, first + _READ_AT)
            else:
                tick.row[first + _READ_AT] = at
        for question in self._questions:
            question.read(tick, first)


def _questions(library: Library, handle: object) -> tuple[Question, ...]:
    one, two, wide = ctypes.c_uint * 1, ctypes.c_uint * 2, ctypes.c_ulonglong * 1
    clock = library("nvmlDeviceGetClockInfo")
    # Its name before driver 535.
    reasons = library("nvmlDeviceGetCurrentClocksEventReasons") or library("nvmlDeviceGetCurrentClocksThrottleReasons")
    at = COLUMNS.index
    return (
        Question(
            library("nvmlDeviceGetTemperature"), (handle, ctypes.c_uint(_GPU)), one(), ((at("temperature"), 1000),)
        ),
        Question(clock, (handle, ctypes.c_uint(_SM)), one(), ((at("sm_clock"), 1),)),
        Question(clock, (handle, ctypes.c_uint(_MEMORY)), one(), ((at("memory_clock"), 1),)),
        Question(
            library("nvmlDeviceGetUtilizationRates"),
            (handle,),
            two(),
            ((at("utilisation"), 10), (at("memory_utilisation"), 10)),
        ),
        Question(reasons, (handle,), wide(), ((at("clock_reasons"), 1),)),
    )
