"""What a host declares to have served, compared with what its server's own counters say, and with a relying party's.

The baseline explains power by declared work, so whoever declares more than was served could hide other work behind it.
Two accounts stand against that:

*   the server's counters (the source ``engine``, :data:`ENGINE`), added up over a session by :class:`EngineTally`;
*   what a relying party counted itself: :func:`compare_counts` where everything that the host serves passes its gate,
    :func:`compare_part` where it is one client among others.

**What this does not show.** The server's counters and the declared counts come from one host, and a host that forges
one forges both: that they agree shows nothing of work that neither speaks of. A relying party's own counts are the one
account here that is not the host's; they bound the tokens, and nothing else. Tokens are not work: at a given power a
batch that is not full has room for several times as many, and what a server says of prefill and decode time nobody
else can count at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Final, Literal, Self

from weighbridge.verifier.telemetry.physics.finding import Check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary
    from weighbridge.verifier.telemetry.physics.finding import Finding

__all__ = [
    "DECLARED",
    "ENGINE",
    "Counts",
    "Difference",
    "EngineTally",
    "Tolerance",
    "compare_counts",
    "compare_part",
]

ENGINE: Final = "engine"
Kind = Literal["over", "under"]
"""More declared than counted, or less."""
_MILLION: Final = 10**6
_HOUR_NS: Final = 3600 * 10**9
# Of what is tolerated at most, what a stretch that has just begun is allowed to declare beyond what was counted.
_AT_FIRST_PPM: Final = 15_625
# Channels of the source, and which count each is.
_CHANNELS: Final[Mapping[str, str]] = {
    "requests": "requests",
    "tokens_in": "tokens_in",
    "tokens_out": "tokens_out",
    "prefill_time": "prefill_ns",
    "decode_time": "decode_ns",
}
DECLARED: Final = Check(
    name="declared-work",
    channel="work",
    says="declared counts are those of the server's own counters, and those that a relying party counted",
    source="docs/baseline.md, declared work",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was served in one stretch of time; ``None`` where whoever counts does not count that."""

    requests: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    prefill_ns: int | None = None
    decode_ns: int | None = None

    @classmethod
    def of(cls, summary: WorkSummary) -> Self:
        """What a window declares. Times of zero beside requests are not said."""
        silent = summary.requests > 0 and summary.prefill_ns == summary.decode_ns == 0
        return cls(
            requests=summary.requests,
            tokens_in=summary.tokens_in,
            tokens_out=summary.tokens_out,
            prefill_ns=None if silent else summary.prefill_ns,
            decode_ns=None if silent else summary.decode_ns,
        )

    def __add__(self, other: Counts) -> Counts:
        """Both stretches; what one of them does not count, the sum does not."""
        mine, theirs = self.by_name(), other.by_name()
        return Counts(**{name: _sum(value, theirs[name]) for name, value in mine.items()})

    def by_name(self) -> dict[str, int | None]:
        """The counts by their names."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


_NOTHING: Final = Counts(requests=0, tokens_in=0, tokens_out=0, prefill_ns=0, decode_ns=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two honest accounts of one stretch differ: where a request is counted when it ends, and where at once.

    What is in flight at the end of a stretch is counted and not declared yet; what was at its beginning is declared and
    was counted before. The second could hide other work, most of all in a short session: so it is allowed little of at
    first (:meth:`within`).

    Attributes:
        ppm: of what was counted.
        requests: that were in flight when the stretch began or ended.
        tokens: of them.
        time_ns: of them.
        over_ppm: how much of the last three may be declared beyond what was counted.
    """

    ppm: int = 10_000
    requests: int = 256
    tokens: int = 256 * 1024
    time_ns: int = 256 * 60 * 10**9
    over_ppm: int = _MILLION

    def within(self, lasts_ns: int) -> Tolerance:
        """That of a stretch so long: a 64th of it may be declared beyond what was counted at first, all in an hour.

        By default 4 requests, 4,096 tokens and 4 minutes of prefill or decoding; so a session gains the time of no more
        than some four requests side by side.
        """
        grown = (_MILLION - _AT_FIRST_PPM) * min(max(0, lasts_ns), _HOUR_NS) // _HOUR_NS
        return replace(self, over_ppm=_AT_FIRST_PPM + grown)

    def allowed(self, count: str, counted: int, kind: Kind) -> int:
        """By how much the declared count may differ, over or under."""
        absolute = {"requests": self.requests, "tokens_in": self.tokens, "tokens_out": self.tokens}
        most = absolute.get(count, self.time_ns)
        return (most * self.over_ppm // _MILLION if kind == "over" else most) + counted * self.ppm // _MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One count that differs by more than it may.

    ``over``: more was declared than was counted, which could hide other work; ``under``: less, which is work that the
    baseline explains by nothing.
    """

    count: str
    declared: int
    counted: int
    allowed: int

    @property
    def kind(self) -> Kind:
        """Which way."""
        return _kind(self.declared, self.counted)

    def finding(self, *, at_ns: int) -> Finding:
        """As appraisal has it: two accounts contradict each other. ``at_ns`` is the end of the stretch."""
        check = replace(DECLARED, channel=self.count)
        return check.implausible(
            expected=f"{self.counted} counted, {self.allowed} more or less",
            got=f"{self.declared} declared",
            at_ns=at_ns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTally:
    """Declared counts and the server's own, added up over windows that follow one another.

    Pure: each window makes a new tally. Both sums begin with the window after the first in which the server was read.
    A counter that falls began at zero, and what it had counted since its last reading is lost: from then on the
    server's sums are lower bounds. What the server did not speak of at first it does not count.

    Attributes:
        declared: by the windows' headers.
        counted: by the server.
        last: newest reading of each count; empty as long as there is none.
        restarts: samples in which a counter had fallen.
        lasts_ns: how long the windows were, all together, that were added up.
    """

    declared: Counts = _NOTHING
    counted: Counts = Counts()
    last: Mapping[str, int] = field(default_factory=dict[str, int])
    restarts: int = 0
    lasts_ns: int = 0

    def after(self, sources: Sequence[Source], work: WorkSummary, *, lasts_ns: int = 0) -> EngineTally:
        """The tally behind one more window: its sources, what its header declares, and how long it was."""
        series = _series(sources)
        if not self.last and not series:
            return self
        if not self.last:
            last = {count: readings[-1][1] for count, readings in series.items()}
            return replace(self, counted=Counts(**dict.fromkeys(last, 0)), last=last)
        counted, last = self.counted.by_name(), dict(self.last)
        fell: set[int] = set()
        for count in self.last:
            total, before = counted[count] or 0, last[count]
            for offset, value in series.get(count, ()):
                if value < before:
                    fell.add(offset)
                    before = 0
                total += value - before
                before = value
            counted[count], last[count] = total, before
        return EngineTally(
            declared=self.declared + Counts.of(work),
            counted=Counts(**counted),
            last=last,
            restarts=self.restarts + len(fell),
            lasts_ns=self.lasts_ns + max(0, lasts_ns),
        )

    def differences(self, tolerance: Tolerance) -> tuple[Difference, ...]:
        """Counts that differ by more than they may; after a restart, only those of which too little was declared."""
        if not self.last:
            return ()
        compare = compare_part if self.restarts else compare_counts
        return compare(self.declared, self.counted, tolerance.within(self.lasts_ns))


def compare_counts(declared: Counts, counted: Counts, tolerance: Tolerance) -> tuple[Difference, ...]:
    """Counts that differ by more than they may, where ``counted`` is everything that was served in that time.

    What either does not count is not compared: see that ``counted`` has what matters. Both are of one stretch of time,
    the longer the better: what is in flight at its ends weighs less then.
    """
    return tuple(_differences(declared, counted, tolerance))


def compare_part(declared: Counts, counted: Counts, tolerance: Tolerance) -> tuple[Difference, ...]:
    """As :func:`compare_counts`, where others are served beside: that more is declared than was counted is no news."""
    return tuple(item for item in _differences(declared, counted, tolerance) if item.kind == "under")


def _differences(declared: Counts, counted: Counts, tolerance: Tolerance) -> list[Difference]:
    found: list[Difference] = []
    theirs = counted.by_name()
    for name, said in declared.by_name().items():
        own = theirs[name]
        if said is None or own is None:
            continue
        allowed = tolerance.allowed(name, own, _kind(said, own))
        if abs(said - own) > allowed:
            found.append(Difference(count=name, declared=said, counted=own, allowed=allowed))
    return found


def _kind(declared: int, counted: int) -> Kind:
    return "over" if declared > counted else "under"


def _series(sources: Sequence[Source]) -> dict[str, list[tuple[int, int]]]:
    """Readings of the server's counters by the count that each is, with their offsets; none that has none."""
    found: dict[str, list[tuple[int, int]]] = {}
    for source in sources:
        if source.device is not None or source.name != ENGINE:
            continue
        for name, count in _CHANNELS.items():
            channel = source.channels.get(name)
            values = () if channel is None or channel.values is None else channel.values
            read = [
                (at, value)
                for at, value in zip(source.offsets, values, strict=False)
                if value is not None and value >= 0
            ]
            if read:
                found[count] = read
    return found


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
