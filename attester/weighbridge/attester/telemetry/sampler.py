"""The background thread that reads sensors on a fixed grid of the monotonic clock, and the ring that it fills.

1.  Ticks are due at multiples of the period by the monotonic clock, whenever sampling began: sources of one period
    share their ticks, and nothing drifts.
2.  A tick that is due is read once. One that is reached a whole period late, or that passed while another was read, is
    left out: a *gap* in the offsets and an event, never filled in. A read that itself takes longer than a period is a
    *stall*. A sample's offset is when its tick was begun, in whole :data:`RESOLUTION_NS`.
3.  A reading that failed is :data:`MISSING` in its row. Of a row of equal events of one column only the first of each
    window is kept: the missing readings show the others.
4.  The wall clock is compared with the monotonic one at every tick: a difference that jumps is a *clock step*.
5.  Rows go into a ring that is made once. A window that reaches back beyond it begins with a gap.

Whoever takes a window waits for no sensor: the lock is held while rows are copied, never while one is read. A driver
that hangs leaves its thread behind (it keeps no process from ending), and every window says that it stalls.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.attester.telemetry.bounds import ADJACENT_NS
from weighbridge.attester.telemetry.samples import MISSING, Samples
from weighbridge.proto import limits
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.telemetry import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MISSING", "PERIOD_MIN_NS", "RESOLUTION_NS", "SampleClock", "Sampler", "SystemSampleClock", "Tick"]

PERIOD_MIN_NS: Final = 1_000_000
RESOLUTION_NS: Final = 10_000
_SECOND_NS: Final = 1_000_000_000
# How much of the past is kept, unless the caller says otherwise.
_KEPT_NS: Final = 300 * _SECOND_NS
_ROWS_MIN: Final = 64
_EVENTS_KEPT: Final = limits.TELEMETRY_EVENTS_MAX // 2
# Clocks that are disciplined slew by 0.5 ms a second; a difference read across a pause says nothing.
_STEP_NS: Final = 5_000_000
_PAUSE_NS: Final = 1_000_000
_JOIN_S: Final = 1.0


class SampleClock(Protocol):
    """The host's clocks, and how a thread waits. Tests have their own."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, which may be set at any time."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary moment; never goes back."""
        ...

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        """Return at ``monotonic_ns`` or soon after, or when ``stop`` is set."""
        ...


@final
class SystemSampleClock:
    """The system's clocks."""

    __slots__ = ()

    def wall_ns(self) -> int:
        """See :meth:`SampleClock.wall_ns`."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """See :meth:`SampleClock.monotonic_ns`."""
        return time.monotonic_ns()

    def wait_until(self, monotonic_ns: int, stop: threading.Event) -> None:
        """See :meth:`SampleClock.wait_until`."""
        stop.wait(max(0, monotonic_ns - time.monotonic_ns()) / _SECOND_NS)


@final
class Tick:
    """One reading of everything, as the reader fills it in; the same object every time, so that nothing is allocated.

    Attributes:
        row: a value per column, all :data:`MISSING` when the reader gets it.
        number: of the tick on the grid: what is to be read at every tenth is read where ``number % 10 == 0``.
    """

    __slots__ = ("_noted", "number", "row")

    def __init__(self, columns: int) -> None:
        self.row = array("q", [MISSING]) * columns
        self.number = 0
        self._noted: list[tuple[EventKind, int | None]] = []

    def note(self, kind: EventKind, column: int | None = None) -> None:
        """Something happened to a column, or to the whole source, that its value does not show."""
        self._noted.append((kind, column))

    def noted(self) -> list[tuple[EventKind, int | None]]:
        """What was noted; nothing is left of it."""
        found, self._noted = self._noted, []
        return found


@dataclass(slots=True)
class _Taken:
    """Up to where windows were taken: monotonic time, row, and the wall clock's lead over the monotonic one then.

    ``until_ns`` is ``None`` before the first.
    """

    until_ns: int | None
    row: int
    lead_ns: int


@final
class Sampler:
    """Reads at every tick into the ring, in a thread of its own from :meth:`start` on.

    Args:
        read: fills in a :class:`Tick`. May take its time. A ``WeighbridgeError`` or ``OSError`` leaves the whole row
            missing, with a *fault*.
        columns: values a row.
        period_ns: between ticks, at least :data:`PERIOD_MIN_NS`.
        clock: the host's by default.
        rows: how many the ring keeps; five minutes by default, and no more than one source may carry.

    Attributes:
        period_ns: between ticks.
        due_ns: when the next one is due, by the monotonic clock.
    """

    def __init__(
        self,
        read: Callable[[Tick], None],
        *,
        columns: int,
        period_ns: int,
        clock: SampleClock | None = None,
        rows: int | None = None,
    ) -> None:
        if period_ns < PERIOD_MIN_NS or columns < 1:
            raise ValueError("the period is at least a millisecond, and there is something to read")
        self.period_ns = period_ns
        self._read = read
        self._clock = clock or SystemSampleClock()
        kept = max(_ROWS_MIN, _KEPT_NS // period_ns) if rows is None else rows
        self._rows = min(kept, limits.TELEMETRY_SAMPLES_MAX)
        self._tick = Tick(columns)
        self._blank = array("q", [MISSING]) * columns
        # A row is its time and its values.
        self._width = columns + 1
        self._ring = array("q", bytes(8 * self._width * self._rows))
        self._written = 0
        self._events: deque[tuple[int, EventKind, int | None]] = deque(maxlen=_EVENTS_KEPT)
        self._quiet: set[tuple[EventKind, int | None]] = set()
        self._reading_since: int | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weighbridge-sampler", daemon=True)
        now = self._clock.monotonic_ns()
        self.due_ns = -(-now // period_ns) * period_ns
        self._lead = self._clock.wall_ns() - now
        self._taken = _Taken(None, 0, self._lead)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def close(self) -> bool:
        """Stop; whether the thread has ended. It has not, after a second, where a driver hangs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        return not self._thread.is_alive()

    def tick(self) -> int:
        """Take the sample that is due, or note that it was missed; the monotonic time at which the next one is due.

        What the thread does, over and over; called by nobody else but tests.
        """
        period = self.period_ns
        now = self._clock.monotonic_ns()
        if now < self.due_ns:
            return self.due_ns
        if now - self.due_ns >= period:
            # Reached too late: what was due lies in the past. The newest of it is due still.
            self._commit(None, [(self.due_ns, EventKind.GAP, None)])
            self.due_ns = now // period * period
        tick = self._tick
        tick.row[:] = self._blank
        tick.number = self.due_ns // period
        self._reading_since = now
        try:
            self._read(tick)
        except (WeighbridgeError, OSError):
            tick.row[:] = self._blank
            tick.note(EventKind.FAULT)
        done = self._clock.monotonic_ns()
        self._reading_since = None
        found = [(now, kind, column) for kind, column in self._news(tick.noted())]
        if self._stepped():
            found.append((now, EventKind.CLOCK_STEP, None))
        self.due_ns += period
        if done - now > period:
            found.append((now, EventKind.STALL, None))
        if done - self.due_ns >= period:
            found.append((self.due_ns, EventKind.GAP, None))
            self.due_ns = done // period * period
        self._commit(now // RESOLUTION_NS * RESOLUTION_NS, found)
        return self.due_ns

    def take(self, *, start_wall_ns: int, duration_ns: int) -> Samples:
        """What was sampled in the window that ends now, and in none before.

        Where its beginning and the end of the last one differ by no more than :data:`ADJACENT_NS`, which is how much
        later one of them was cut, it begins where that ended, or with the sample that was being read then;
        :attr:`Samples.start_wall_ns` says so. Waits for no sensor.

        Args:
            start_wall_ns: host's wall clock when the window began.
            duration_ns: of the window, nominally.
        """
        with self._lock:
            now, lead = self._clock.monotonic_ns(), self._clock.wall_ns()
            taken = self._taken
            nominal = start_wall_ns - taken.lead_ns
            until = nominal if taken.until_ns is None else taken.until_ns
            oldest = max(taken.row, self._written - self._rows)
            follows = taken.until_ns is not None and nominal - until <= ADJACENT_NS
            begin = self._follow(until, oldest) if follows else nominal
            start = start_wall_ns + (begin - nominal if abs(nominal - until) <= ADJACENT_NS else 0)
            end = nominal + duration_ns
            if not 0 <= now - end <= self.period_ns // 2:
                # Cut early, as a last window is, or late, with what was sampled until then: no later than the window
                # can have ended, though, of a host that stood still since, where its beginning is known to be right.
                known = taken.until_ns is not None and abs(nominal - until) <= ADJACENT_NS
                end = min(now, end + ADJACENT_NS) if known else now
            end = max(begin, end)
            rows, row = self._copied(oldest, begin, end)
            since = self._reading_since
            events = [(max(begin, at), kind, column) for at, kind, column in self._events if at < end]
            if oldest > taken.row and self._at(oldest) - begin > self.period_ns:
                events.insert(0, (begin, EventKind.GAP, None))
            later = [event for event in self._events if event[0] >= end]
            self._events.clear()
            self._events.extend(later)
            self._quiet.clear()
            self._taken = _Taken(end, row, lead - now)
        if since is not None and now - since > self.period_ns:
            events.append((max(begin, since), EventKind.STALL, None))
        return Samples(
            start_wall_ns=start,
            period_ns=self.period_ns,
            begin_ns=begin,
            rows=rows,
            width=self._width,
            events=tuple(events),
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self._clock.wait_until(self.tick(), self._stop)

    def _news(self, noted: list[tuple[EventKind, int | None]]) -> list[tuple[EventKind, int | None]]:
        """Those of ``noted`` that go on from no earlier tick of this window."""
        current = set(noted)
        with self._lock:
            news = [item for item in dict.fromkeys(noted) if item not in self._quiet]
            self._quiet = current
        return news

    def _stepped(self) -> bool:
        before = self._clock.monotonic_ns()
        lead = self._clock.wall_ns() - before
        if self._clock.monotonic_ns() - before > _PAUSE_NS:
            return False
        stepped = abs(lead - self._lead) > _STEP_NS
        self._lead = lead
        return stepped

    def _commit(self, at: int | None, events: list[tuple[int, EventKind, int | None]]) -> None:
        with self._lock:
            if at is not None:
                place = self._written % self._rows * self._width
                self._ring[place] = at
                self._ring[place + 1 : place + self._width] = self._tick.row
                self._written += 1
            self._events.extend(events)

    def _follow(self, until: int, row: int) -> int:
        """Where a window begins that follows on one ``until`` then: earlier for a sample that was being read then."""
        if row >= self._written:
            return until
        at = self._at(row)
        return at if until - ADJACENT_NS <= at < until else until

    def _at(self, row: int) -> int:
        return self._ring[row % self._rows * self._width]

    def _copied(self, row: int, begin: int, end: int) -> tuple[array[int], int]:
        """The rows from ``row`` on whose time lies from ``begin`` to ``end``, and the number of the first one after."""
        width, ring, kept = self._width, self._ring, self._rows
        while row < self._written and self._at(row) < begin:
            row += 1
        first = row
        while row < self._written and self._at(row) < end:
            row += 1
        low, high = first % kept * width, row % kept * width
        if first == row:
            return array("q"), row
        return (ring[low:high] if low < high else ring[low:] + ring[:high]), row
