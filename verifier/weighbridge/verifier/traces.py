"""What GPUs' samples were like, beyond their sessions, in the verifier's durable state. See :mod:`.store`.

The last reading of each energy counter, so that work between two sessions shows; where each stretch of samples was
seen first, so that a recording shows that is played again; and what the record of each GPU has come to, so that no new
session escapes it. What a window brings is remembered in the transaction that takes it into its session's chain; a
window that is looked up again, because power failed in between, does not find itself. Fingerprints are bounded
(:mod:`.fingerprint_memory`), and what has gone can be played again unnoticed. Of each GPU there is one past by each
profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, final

import sqlalchemy as sa

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.database.prepared import Changes, Prepared, together
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.fingerprint_memory import Brought, FingerprintMemory, Place
from weighbridge.verifier.tables import counters, pasts, sessions
from weighbridge.verifier.telemetry.history import Copy, History, Reading
from weighbridge.verifier.telemetry.past import Past, read_evidence, write_evidence
from weighbridge.verifier.telemetry.remains import Remains
from weighbridge.verifier.telemetry.samples.fingerprints import MATCHES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.verifier.database.prepared import Row
    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["Beside", "Brought", "Question", "Traces"]

_SIGN: Final = 1 << 63
# Numbers of origins that have none yet: behind all there are, and before those of the window itself.
_BESIDE: Final = 1 << 62

_OWN: Final = sessions.alias("own")
_READING: Final = ["session", "seq", "wall_ns", "energy_mj"]
_READ: Final = Prepared(
    sa.select(counters.c.device, *(counters.c[name] for name in _READING)).where(
        counters.c.device.in_(sa.bindparam("of_devices", expanding=True))
    ),
    lists=["of_devices"],
)
_KEEP_READING: Final = Prepared(Upsert(counters, replaced=_READING), sets=["device", *_READING])
_PAST: Final = ["session", "seq", "evidence", "in_row", "lapses", "remains_ns", "drawn_uj", "explained_uj"]
_PASTS: Final = Prepared(
    sa.select(pasts.c.device, pasts.c.profile, *(pasts.c[name] for name in _PAST))
    .where(pasts.c.device.in_(sa.bindparam("of_devices", expanding=True)))
    .order_by(pasts.c.device, pasts.c.profile),
    lists=["of_devices"],
)
_KEEP_PAST: Final = Prepared(Upsert(pasts, replaced=_PAST), sets=["device", "profile", *_PAST])
# Which of some sessions are other tenants' than this one.
_THEIRS: Final = Prepared(
    sa.select(sessions.c.id).where(
        sessions.c.id.in_(sa.bindparam("of_sessions", expanding=True)),
        sessions.c.tenant != sa.select(_OWN.c.tenant).where(_OWN.c.id == sa.bindparam("of_session")).scalar_subquery(),
    ),
    lists=["of_sessions"],
)


class Beside(NamedTuple):
    """A window of another session that is judged just before, and what it brings."""

    session: bytes
    seq: int
    traces: Sequence[Trace]


class Question(NamedTuple):
    """A window, of which it is asked what is remembered that concerns it.

    Attributes:
        session: of which it is.
        seq: its number.
        traces: what it brings.
        wanted: GPUs with the digests of profiles: of these it is said what their record had come to.
    """

    session: bytes
    seq: int
    traces: Sequence[Trace]
    wanted: Sequence[tuple[bytes, bytes]]

    @property
    def values(self) -> set[int]:
        """Its fingerprints."""
        return {value for trace in self.traces for value in trace.fingerprints}

    @property
    def coming(self) -> Beside:
        """What the windows behind it are compared with."""
        return Beside(self.session, self.seq, self.traces)


@final
class Traces:
    """The memory within one transaction, of ``kept`` fingerprints at most. Given by :class:`.Transaction`."""

    __slots__ = ("_connection", "_memory")

    def __init__(self, connection: sa.Connection, *, kept: int) -> None:
        self._connection = connection
        self._memory = FingerprintMemory(connection, kept=kept)

    def recall(
        self,
        session: bytes,
        seq: int,
        traces: Sequence[Trace],
        wanted: Sequence[tuple[bytes, bytes]] = (),
        *,
        beside: Sequence[Beside] = (),
    ) -> History:
        """What is remembered that concerns one window; see :class:`Question` and :meth:`recall_all`."""
        (history,) = self.recall_all([Question(session, seq, traces, wanted)], beside=beside)
        return history

    def recall_all(self, asked: Sequence[Question], *, beside: Sequence[Beside] = ()) -> list[History]:
        """What is remembered that concerns each of some windows.

        ``beside`` are windows of other sessions that will be remembered before all of them, in their order; of those
        asked about, each is taken to be remembered before the next.

        Whose session another tenant's was, and when in it, is not said: a history is written into records, and tenants
        get theirs. Of the session itself, only what another GPU brought counts, or a window before those that a trace
        is made of. Of one window, a GPU's samples may be those of another GPU as well: the first by identity is the
        original.
        """
        devices = _READ.pieces("of_devices", [trace.device for one in asked for trace in one.traces])
        profiles = _PASTS.pieces("of_devices", [device for one in asked for device, _ in one.wanted])
        values = self._memory.seen(sorted({value for one in asked for value in one.values}))
        found = together(self._connection, *devices, *profiles, *values)
        read, judged = len(devices), len(devices) + len(profiles)
        readings = sorted((_reading(row) for rows in found[:read] for row in rows), key=lambda item: item.device)
        pasts = [row for rows in found[read:judged] for row in rows]
        seen = self._memory.places(found[judged:])
        coming = [*beside, *(one.coming for one in asked)]
        return [
            self._history(one, readings, pasts, _known(one, seen, coming[: len(beside) + number]))
            for number, one in enumerate(asked)
        ]

    def _history(
        self, asked: Question, readings: Sequence[Reading], pasts: Sequence[Row], seen: dict[int, Place]
    ) -> History:
        """Of what was found what concerns one window; ``seen`` is where its fingerprints were, and is added to."""
        session, devices = asked.session, {trace.device for trace in asked.traces}
        copies: list[Copy] = []
        for number, trace in enumerate(sorted(asked.traces, key=lambda item: item.device)):
            places = [
                place
                for value in trace.fingerprints
                if (place := seen.get(value)) is not None
                and (place.session != session or place.device != trace.device or place.seq < trace.first_seq)
            ]
            if (copy := _copy_of(trace.device, places)) is not None:
                copies.append(copy)
            for value in trace.fingerprints:
                seen.setdefault(value, Place(_SIGN + number, session, trace.device, asked.seq))
        own = tuple(item for item in readings if item.device in devices and item.session != session)
        past = tuple(_past(row) for row in pasts if row[:2] in asked.wanted)
        return self._own(session, History(own, tuple(copies), past))

    def remember(self, brought: Sequence[Brought]) -> None:
        """Keep what windows bring, one after another.

        What was seen before stays where it was seen first; what the record of a GPU has come to, and what its counter
        read, takes the place of what it was before.
        """
        changes = Changes()
        changes.add(_KEEP_PAST, [_columns(item) for one in brought for item in one.past])
        changes.add(
            _KEEP_READING,
            [
                {
                    "device": trace.device,
                    "session": one.session,
                    "seq": one.seq,
                    "wall_ns": trace.reading[0],
                    "energy_mj": trace.reading[1],
                }
                for one in brought
                for trace in one.traces
                if trace.reading is not None
            ],
        )
        changes.write(self._connection)
        self._memory.keep(brought)

    def forget(self, device: bytes) -> tuple[Past, ...]:
        """Let the record of ``device`` begin anew, by every profile: an operator's act. Returns what is forgotten."""
        found = self.pasts(device)
        self._connection.execute(sa.delete(pasts).where(pasts.c.device == device))
        return found

    def pasts(self, device: bytes) -> tuple[Past, ...]:
        """What the record of ``device`` has come to, by each profile, in the order of their digests."""
        return tuple(_past(row) for row in _PASTS.rows(self._connection, of_devices=[device]))

    def _own(self, session: bytes, history: History) -> History:
        """``history`` without the names of sessions of another tenant than that of ``session``."""
        named = sorted(history.sessions - {session})
        if not named:
            return history
        pieces = together(self._connection, *_THEIRS.pieces("of_sessions", named, of_session=session))
        return history.without(frozenset(theirs for rows in pieces for (theirs,) in rows))


def _known(asked: Question, seen: Mapping[int, Place], beside: Sequence[Beside]) -> dict[int, Place]:
    """Where the fingerprints of a window were ``seen``, or will have been in windows ``beside`` it."""
    own = asked.values
    known = {value: place for value in own if (place := seen.get(value)) is not None}
    # What is coming adds to what its session has brought before: of a copy, some may be known and some beside it.
    numbers = {(place.session, place.device): place.number for place in known.values()}
    for value, coming in _places(beside, own):
        number = numbers.get((coming.session, coming.device), coming.number)
        known.setdefault(value, coming._replace(number=number))
    return known


def _places(beside: Sequence[Beside], wanted: set[int]) -> Iterator[tuple[int, Place]]:
    """Where fingerprints of windows that are not remembered yet will have been seen, if ``wanted``; behind all others.

    Each window of a turn asks about all before it, which nearly never have one in common.
    """
    for number, window in enumerate(beside):
        first = _BESIDE + number * limits.GPUS_MAX
        if all(wanted.isdisjoint(trace.fingerprints) for trace in window.traces):
            continue
        for place, trace in enumerate(sorted(window.traces, key=lambda item: item.device)):
            for value in wanted.intersection(trace.fingerprints):
                yield value, Place(first + place, window.session, trace.device, window.seq)


def _columns(past: Past) -> dict[str, object]:
    return {
        "device": past.device,
        "profile": past.profile,
        "session": past.session,
        "seq": past.seq,
        "evidence": write_evidence(past.evidence),
        "in_row": past.row,
        "lapses": past.lapses,
        "remains_ns": past.remains.lasts_ns,
        "drawn_uj": past.remains.drawn_uj,
        "explained_uj": past.remains.explained_uj,
    }


def _reading(row: Row) -> Reading:
    device, session, seq, wall_ns, energy_mj = row
    return Reading(device=device, session=session, seq=seq, wall_ns=wall_ns, energy_mj=energy_mj)


def _past(row: Row) -> Past:
    device, profile, session, seq, evidence, in_row, lapses, *remains = row
    try:
        read = read_evidence(evidence, where="pasts.evidence")
    except MalformedEvidence as error:
        raise EnvironmentFault(
            Code.STATE_CORRUPT, "what a GPU's record has come to cannot be read", where=device.hex()
        ) from error
    return Past(
        device=device,
        profile=profile,
        session=session,
        seq=seq,
        evidence=read,
        row=in_row,
        lapses=lapses,
        remains=Remains(*remains),
    )


def _copy_of(device: bytes, places: Sequence[Place]) -> Copy | None:
    """The origin with which there is most in common, the oldest of several; ``None`` where that is too little."""
    counts = Counter((place.number, place.session, place.device) for place in places)
    if not counts:
        return None
    (number, session, original), matches = min(counts.items(), key=lambda item: (-item[1], item[0]))
    if matches < MATCHES:
        return None
    first = min(place.seq for place in places if place.number == number)
    return Copy(device=device, original=original, session=session, seq=first, matches=matches)
