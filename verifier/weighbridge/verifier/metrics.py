"""Figures of a verifier for Prometheus. What they mean is in docs/operating.md.

Counting is done here, by hand, in the thread that judges: no locks and no copies, about a microsecond for each thing
that is told. The library is asked when somebody reads, to write the text. What takes a look at the store or the ledger
is looked at then, in the reader's thread; where that fails, those figures are left out.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.observed import Restored, Stage

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from weighbridge.verifier.session import SessionState

__all__ = ["CONTENT_TYPE", "Ends", "Metrics", "Sources"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_STAGES: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
_LATENESS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0, 604800.0)
_SECOND_NS: Final = 1_000_000_000
# So many tenants have figures of their own; of any more, all together.
_TENANTS_MAX: Final = 256
_OTHERS: Final = "(others)"
# A policy's own codes are its author's to choose: there is no end of them.
_CODES: Final = frozenset(code.value for code in Code)


Ends = Literal["server", "attester_ca", "relying_party_ca", "token_key"]
"""What may end, and takes something with it: a closed set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is looked at when figures are read, in the reader's thread; each may raise ``WeighbridgeError``.

    Attributes:
        sessions: how many there are, by state.
        waiting: how many sessions ended so long ago that their rows are to be taken out of the store, and still are in.
        entries: of the ledger.
        latest: nanoseconds since 1970: when the last entry was made that was there at the start; 0: there was none.
        junk: how much is counted and not yet recorded.
        ends: when certificates end of which that one alone may not be noticed: by what it is, seconds since 1970.
    """

    sessions: Callable[[], Mapping[SessionState, int]]
    waiting: Callable[[], int]
    entries: Callable[[], int]
    latest: int
    junk: Callable[[], int]
    ends: Callable[[], Mapping[Ends, float]]


@dataclass(slots=True)
class _Histogram:
    """How often each bucket was met, and the sum. Written by one thread, read by another."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: each with all that are lower."""
        counts, so_far = self.counts.copy(), 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
            so_far += count
            found.append((bound, so_far))
        return found


@final
class Metrics(Collector):
    """Counts what it is told, as :class:`.Observer`, and writes it all down when asked.

    Args:
        version: of this program.
        now_ns: the present, nanoseconds since 1970.
    """

    def __init__(self, *, version: str, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._version = version
        self._now_ns = now_ns
        self._stages = {stage: _Histogram(_STAGES) for stage in Stage}
        self._lateness = _Histogram(_LATENESS)
        self._windows: Counter[tuple[str, str, str]] = Counter()
        self._denials: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._restored: Counter[str] = Counter({how.value: 0 for how in Restored})
        self._replayed = 0
        self._removed: Counter[str] = Counter({"windows": 0, "challenges": 0})
        self._tenants: set[str] = set()
        self._lock = threading.Lock()
        self._appended_ns = 0
        self._sources: Sources | None = None
        self._entries: tuple[int, int] | None = None
        self._gauges: Mapping[str, tuple[str, float]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    # -- told ----------------------------------------------------------------------------------------------------------

    def took(self, stage: Stage, seconds: float) -> None:
        """See :meth:`.Observer.took`."""
        self._stages[stage].add(seconds)

    def judged(self, *, tenant: str, outcome: str, held: bool, codes: Iterable[str], late_ns: int | None) -> None:
        """See :meth:`.Observer.judged`."""
        self._appended_ns = self._now_ns()
        if tenant not in self._tenants:
            if len(self._tenants) >= _TENANTS_MAX:
                tenant = _OTHERS
            self._tenants.add(tenant)
        self._windows[tenant, outcome, "true" if held else "false"] += 1
        for code in codes:
            self._denials[code if code in _CODES else Code.POLICY_DENIED.value] += 1
        if late_ns is not None:
            self._lateness.add(late_ns / _SECOND_NS)

    def refused(self, code: Code) -> None:
        """See :meth:`.Observer.refused`."""
        with self._lock:
            self._refusals[code.value] += 1

    def restored(self, how: Restored, windows: int) -> None:
        """See :meth:`.Observer.restored`."""
        self._restored[how.value] += 1
        self._replayed += windows

    def removed(self, *, windows: int, challenges: int) -> None:
        """See :meth:`.Observer.removed`."""
        self._removed["windows"] += windows
        self._removed["challenges"] += challenges

    def look_at(self, sources: Sources) -> None:
        """Look at these from now on, when figures are read."""
        self._sources = sources

    # -- read ----------------------------------------------------------------------------------------------------------

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> bytes:
        """All figures. One caller at a time.

        Args:
            gauges: what the event loop has counted just now: by name, what it is, and how many there are.
        """
        self._gauges = gauges
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What the library asks for."""
        yield from self._counted()
        for name, (what, value) in self._gauges.items():
            yield GaugeMetricFamily(f"weighbridge_{name}", what, value)
        build = GaugeMetricFamily("weighbridge_build_info", "This program.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        if self._sources is not None:
            yield from self._looked_at(self._sources)

    def _counted(self) -> Iterator[Metric]:
        stages = HistogramMetricFamily(
            "weighbridge_stage_seconds", "How long a stage of judging and recording took.", labels=["stage"]
        )
        for stage, histogram in self._stages.items():
            stages.add_metric([stage.value], histogram.buckets(), histogram.total)
        yield stages
        yield HistogramMetricFamily(
            "weighbridge_window_lateness_seconds",
            "From the end of a window's interval, by its host's clock, to its receipt.",
            buckets=self._lateness.buckets(),
            sum_value=self._lateness.total,
        )
        windows = CounterMetricFamily(
            "weighbridge_windows", "Windows that were judged and recorded.", labels=["tenant", "outcome", "held"]
        )
        for labels, count in list(self._windows.items()):
            windows.add_metric(labels, count)
        yield windows
        yield CounterMetricFamily(
            "weighbridge_windows_replayed", "Windows that were replayed to restore their sessions.", self._replayed
        )
        for name, what, label, counter in (
            ("weighbridge_denials", "Denials in verdicts.", "code", self._denials),
            ("weighbridge_refusals", "What was refused without a judgement.", "code", self._refusals),
            ("weighbridge_sessions_restored", "Sessions that were made anew, by what from.", "from", self._restored),
            ("weighbridge_store_rows_removed", "Rows that were taken out of the store.", "table", self._removed),
        ):
            family = CounterMetricFamily(name, what, labels=[label])
            for code, count in list(counter.items()):
                family.add_metric([code], count)
            yield family

    def _looked_at(self, sources: Sources) -> Iterator[Metric]:
        yield GaugeMetricFamily("weighbridge_junk_waiting", "Junk that is not yet in the ledger.", sources.junk())
        ends = GaugeMetricFamily(
            "weighbridge_certificate_expiry_timestamp_seconds",
            "When a certificate ends that is in use, or the last key of tokens: since 1970.",
            labels=["certificate"],
        )
        with contextlib.suppress(WeighbridgeError):
            for certificate, at in sources.ends().items():
                ends.add_metric([certificate], at)
        yield ends
        try:
            counts, waiting = sources.sessions(), sources.waiting()
        except WeighbridgeError:
            counts, waiting = None, 0
        if counts is not None:
            family = GaugeMetricFamily("weighbridge_sessions", "Sessions by state.", labels=["state"])
            for state, count in counts.items():
                family.add_metric([state.value], count)
            yield family
            yield GaugeMetricFamily(
                "weighbridge_store_sessions_waiting",
                "Ended sessions whose rows are to be taken out of the store.",
                waiting,
            )
        try:
            entries = sources.entries()
        except WeighbridgeError:
            return
        yield GaugeMetricFamily("weighbridge_ledger_entries", "Entries of the ledger.", entries)
        if not entries:
            return
        age = (self._now_ns() - self._head_ns(entries, sources.latest)) / _SECOND_NS
        yield GaugeMetricFamily(
            "weighbridge_ledger_head_age_seconds",
            "Since an entry was made last, as far as is known here.",
            max(0.0, age),
        )

    def _head_ns(self, entries: int, latest: int) -> int:
        """When the ledger's head moved last: by this process, or, as was seen when figures were read, by another."""
        if self._entries is None:
            self._entries = entries, latest
        elif self._entries[0] != entries:
            self._entries = entries, self._now_ns()
        return max(self._appended_ns, self._entries[1])
