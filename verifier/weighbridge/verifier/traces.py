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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import sqlalchemy as sa

from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.fingerprint_memory import FingerprintMemory, Place
from weighbridge.verifier.tables import counters, pasts, sessions
from weighbridge.verifier.telemetry.history import Copy, History, Reading
from weighbridge.verifier.telemetry.past import Past, read_evidence, write_evidence
from weighbridge.verifier.telemetry.remains import Remains
from weighbridge.verifier.telemetry.samples.fingerprints import MATCHES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["Beside", "Traces"]

_SIGN: Final = 1 << 63
# Numbers of origins that have none yet: behind all there are, and before those of the window itself.
_BESIDE: Final = 1 << 62

# Put together once: building a statement takes longer than running it.
_READ: Final = (
    sa.select(counters)
    .where(counters.c.device.in_(sa.bindparam("devices", expanding=True)), counters.c.session != sa.bindparam("of"))
    .order_by(counters.c.device)
)
_KEEP_READING: Final = Upsert(counters, replaced=["session", "seq", "wall_ns", "energy_mj"])
_PASTS: Final = sa.select(pasts).where(pasts.c.device.in_(sa.bindparam("devices", expanding=True)))
_KEEP_PAST: Final = Upsert(
    pasts,
    replaced=["session", "seq", "evidence", "in_row", "lapses", "remains_ns", "drawn_uj", "explained_uj"],
)


class Beside(NamedTuple):
    """A window of another session that is judged just before, and what it brings."""

    session: bytes
    seq: int
    traces: Sequence[Trace]


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
        """What is remembered that concerns ``traces``, which window ``seq`` of ``session`` brings.

        ``wanted`` are GPUs with the digests of profiles: of these it is said what their record had come to. ``beside``
        are windows of other sessions that will be remembered before this one, in their order.

        Whose session another tenant's was, and when in it, is not said: a history is written into records, and tenants
        get theirs. Of the session itself, only what another GPU brought counts, or a window before those that a trace
        is made of. Of one window, a GPU's samples may be those of another GPU as well: the first by identity is the
        original.
        """
        devices = [trace.device for trace in traces]
        readings = tuple(
            Reading(device=row.device, session=row.session, seq=row.seq, wall_ns=row.wall_ns, energy_mj=row.energy_mj)
            for row in self._connection.execute(_READ, {"devices": devices, "of": session})
        )
        values = sorted({value for trace in traces for value in trace.fingerprints})
        seen = dict(self._memory.seen(values)) if values else {}
        for value, coming in _places(beside):
            seen.setdefault(value, coming)
        copies: list[Copy] = []
        for number, trace in enumerate(sorted(traces, key=lambda item: item.device)):
            places = [
                place
                for value in trace.fingerprints
                if (place := seen.get(value)) is not None
                and (place.session != session or place.device != trace.device or place.seq < trace.first_seq)
            ]
            if (copy := _copy_of(trace.device, places)) is not None:
                copies.append(copy)
            for value in trace.fingerprints:
                seen.setdefault(value, Place(_SIGN + number, session, trace.device, seq))
        return self._own(session, History(readings, tuple(copies), self._pasts(wanted) if wanted else ()))

    def remember(
        self, session: bytes, seq: int, traces: Sequence[Trace], past: Sequence[Past] = (), *, at_ns: int
    ) -> None:
        """Keep what window ``seq`` of ``session`` brings, received at ``at_ns``.

        What was seen before stays where it was seen first.
        ``past`` is what the record of each GPU has come to behind the window, in place of what it was before.
        """
        if past:
            self._connection.execute(_KEEP_PAST.on(self._connection), [_columns(item) for item in past])
        readings = [
            {
                "device": trace.device,
                "session": session,
                "seq": seq,
                "wall_ns": trace.reading[0],
                "energy_mj": trace.reading[1],
            }
            for trace in traces
            if trace.reading is not None
        ]
        if readings:
            self._connection.execute(_KEEP_READING.on(self._connection), readings)
        self._memory.keep(session, seq, traces, at_ns=at_ns)

    def forget(self, device: bytes) -> tuple[Past, ...]:
        """Let the record of ``device`` begin anew, by every profile: an operator's act. Returns what is forgotten."""
        found = self.pasts(device)
        self._connection.execute(sa.delete(pasts).where(pasts.c.device == device))
        return found

    def pasts(self, device: bytes) -> tuple[Past, ...]:
        """What the record of ``device`` has come to, by each profile, in the order of their digests."""
        rows = self._connection.execute(_PASTS.order_by(pasts.c.profile), {"devices": [device]})
        return tuple(_past(row) for row in rows)

    def _own(self, session: bytes, history: History) -> History:
        """``history`` without the names of sessions of another tenant than that of ``session``."""
        named = history.sessions - {session}
        if not named:
            return history
        tenant = sa.select(sessions.c.tenant).where(sessions.c.id == session).scalar_subquery()
        theirs = frozenset(
            self._connection.scalars(
                sa.select(sessions.c.id).where(sessions.c.id.in_(named), sessions.c.tenant != tenant)
            )
        )
        return history.without(theirs)

    def _pasts(self, wanted: Sequence[tuple[bytes, bytes]]) -> tuple[Past, ...]:
        rows = self._connection.execute(_PASTS.order_by(pasts.c.device), {"devices": [device for device, _ in wanted]})
        return tuple(_past(row) for row in rows if (row.device, row.profile) in wanted)


def _places(beside: Sequence[Beside]) -> Iterator[tuple[int, Place]]:
    """Where each fingerprint of windows that are not remembered yet will have been seen; behind all that are."""
    number = _BESIDE
    for window in beside:
        for trace in sorted(window.traces, key=lambda item: item.device):
            for value in trace.fingerprints:
                yield value, Place(number, window.session, trace.device, window.seq)
            number += 1


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


def _past(row: sa.Row[Any]) -> Past:
    try:
        evidence = read_evidence(row.evidence, where="pasts.evidence")
    except MalformedEvidence as error:
        raise EnvironmentFault(
            Code.STATE_CORRUPT, "what a GPU's record has come to cannot be read", where=row.device.hex()
        ) from error
    return Past(
        device=row.device,
        profile=row.profile,
        session=row.session,
        seq=row.seq,
        evidence=evidence,
        row=row.in_row,
        lapses=row.lapses,
        remains=Remains(row.remains_ns, row.drawn_uj, row.explained_uj),
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
