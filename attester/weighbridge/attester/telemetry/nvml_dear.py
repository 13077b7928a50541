"""Those of a GPU's sensors that cost milliseconds to read: the energy counter, PCIe's counters, GPM.

They are read more rarely than the others, and by a thread that holds nobody up. What a device says that it does not
support when it is opened is *absent*; every later refusal is a fault of that reading.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.telemetry.nvml_gpm import Gpm
from weighbridge.attester.telemetry.nvml_layout import COUNTER_MODULUS, GPM_METRICS, PCIE_RX, PCIE_TX
from weighbridge.attester.telemetry.nvml_questions import REFUSED, Fields, Question
from weighbridge.attester.telemetry.samples import MISSING
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from weighbridge.attester.telemetry.nvml_questions import Library
    from weighbridge.attester.telemetry.sampler import Tick

__all__ = ["COLUMNS", "DearReader"]

COLUMNS: Final = ("energy", "energy_at", "power_limit", "pcie_tx", "pcie_rx", *GPM_METRICS)
_ENERGY, _ENERGY_AT, _LIMIT = COLUMNS.index("energy"), COLUMNS.index("energy_at"), COLUMNS.index("power_limit")
_GPM: Final = len(COLUMNS) - len(GPM_METRICS)
_FIELDS: Final = ((PCIE_TX, COLUMNS.index("pcie_tx"), 1), (PCIE_RX, COLUMNS.index("pcie_rx"), 1))


@final
class DearReader:
    """Reads them into the columns of :data:`COLUMNS`, energy apart: of several devices it is to be read first of all.

    ``energy_at`` is the monotonic time in the middle of the energy counter's reading. GPM's shares are of the time
    since the reading before, so that the first has none.

    Attributes:
        absent: names of what the device does not support.
        limit_due: whether the power limit is to be read the next time; cleared when that was done.
    """

    __slots__ = ("_counters", "_energy", "_fields", "_gpm", "_limit", "absent", "limit_due")

    def __init__(self, library: Library, handle: object) -> None:
        one, wide = ctypes.c_uint * 1, ctypes.c_ulonglong * 1
        self._energy = _if_supported(
            Question(library("nvmlDeviceGetTotalEnergyConsumption"), (handle,), wide(), ((_ENERGY, 1),))
        )
        self._limit = _if_supported(
            Question(library("nvmlDeviceGetEnforcedPowerLimit"), (handle,), one(), ((_LIMIT, 1),))
        )
        self._fields = Fields(library, handle, _FIELDS).supported()
        self._counters = {column: _Counter() for column in self._fields.columns}
        self._gpm = Gpm.open(library, handle)
        self.limit_due = True
        present = set(self._fields.columns)
        present.update(() if self._energy is None else (_ENERGY, _ENERGY_AT))
        present.update(() if self._limit is None else (_LIMIT,))
        present.update(() if self._gpm is None else range(_GPM, len(COLUMNS)))
        self.absent = frozenset(name for column, name in enumerate(COLUMNS) if column not in present)

    def read_energy(self, tick: Tick, first: int) -> None:
        """Fill in the energy counter and when it was read, of the columns from ``first`` on."""
        if self._energy is not None:
            began = time.monotonic_ns()
            self._energy.read(tick, first)
            if tick.row[first + _ENERGY] != MISSING:
                tick.row[first + _ENERGY_AT] = (began + time.monotonic_ns()) // 2

    def read_others(self, tick: Tick, first: int) -> None:
        """Fill in all other columns."""
        if self._limit is not None and self.limit_due:
            self._limit.read(tick, first)
            self.limit_due = tick.row[first + _LIMIT] == MISSING
        if self._fields.columns:
            self._fields.read(tick, first)
            for column, counter in self._counters.items():
                value = tick.row[first + column]
                if value != MISSING:
                    tick.row[first + column], wrapped = counter.after(value)
                    if wrapped:
                        tick.note(EventKind.WRAP, first + column)
        if self._gpm is not None:
            self._gpm.read(tick, first + _GPM)

    def close(self) -> None:
        """Give back what the driver holds. Not while it is reading."""
        if self._gpm is not None:
            self._gpm.close()


@final
class _Counter:
    """A counter of 32 bits that begins anew, as one that does not.

    Several wraps between two readings look like one: traffic of more than 4.29 GB a reading is told too low.
    """

    __slots__ = ("_last", "_total")

    def __init__(self) -> None:
        self._last: int | None = None
        self._total = 0

    def after(self, value: int) -> tuple[int, bool]:
        """The counter after another reading, and whether it began anew before that."""
        last, self._last = self._last, value
        if last is None:
            self._total = value
            return value, False
        self._total += (value - last) % COUNTER_MODULUS
        return self._total, value < last


def _if_supported(question: Question) -> Question | None:
    return None if question.ask() in REFUSED else question
