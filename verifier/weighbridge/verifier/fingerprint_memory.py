"""Where each stretch of samples was seen first: the fingerprints that :mod:`.traces` keeps, within their bounds.

The memory is all hosts', and none may have it filled by what it sends. So a GPU has two bounds beside the whole's:

1. *A rate*: what is new of it is taken from a credit, which grows with the verifier's time and not with the host's
   windows, by what its sample rate makes (:attr:`.Trace.hourly`). It is an hour's when the GPU is seen first, and a
   day's at most, for windows that a host delivers late.
2. *A share*: where there is too much, the GPU that has most loses its oldest. None is left with less than seven
   eighths of an equal part because of what others send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import sqlalchemy as sa

from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.tables import fingerprints, memory, origins, shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.verifier.telemetry.history import Trace

__all__ = ["FingerprintMemory", "Place"]

# SQLite takes 32,766 parameters in one statement, PostgreSQL 65,535.
_CHUNK: Final = 10_000
_SIGN: Final = 1 << 63
# Credit counts millionths of a fingerprint.
_WHOLE: Final = 1_000_000
_HOUR_NS: Final = 3_600_000_000_000
_HOURS_MAX: Final = 24
# Of an equal part, the share by which the GPU with most may be left with less, so that not each window has to forget;
# and how many rows are enough at once, as others wait meanwhile.
_SLACK: Final = 8
_AT_ONCE: Final = 1_000

# Put together once: building a statement takes longer than running it.
_SEEN: Final = (
    sa.select(fingerprints.c.value, fingerprints.c.seq, origins.c.session, origins.c.device, origins.c.number)
    .join(origins, origins.c.number == fingerprints.c.origin)
    .where(fingerprints.c.value.in_(sa.bindparam("values", expanding=True)))
)
_KNOWN: Final = sa.select(fingerprints.c.value).where(fingerprints.c.value.in_(sa.bindparam("values", expanding=True)))
_KEEP_ORIGIN: Final = sa.insert(origins)
_ORIGIN: Final = sa.select(origins.c.number, origins.c.device).where(origins.c.session == sa.bindparam("of"))
_KEEP: Final = sa.insert(fingerprints)
_SHARES: Final = sa.select(shares).where(shares.c.device.in_(sa.bindparam("devices", expanding=True)))
_KEEP_SHARE: Final = Upsert(shares, replaced=["kept", "credit", "at_ns"])
_ADD: Final = Upsert(memory, added=["kept"])
_ALL: Final = sa.select(memory.c.kept)
_MOST: Final = sa.select(shares.c.device, shares.c.kept).order_by(shares.c.kept.desc(), shares.c.device).limit(1)
_GPUS: Final = sa.select(sa.func.count()).select_from(shares)
_OF_DEVICE: Final = (
    sa.select(fingerprints.c.number, fingerprints.c.origin)
    .join(origins, origins.c.number == fingerprints.c.origin)
    .where(origins.c.device == sa.bindparam("of"))
    .order_by(origins.c.number, fingerprints.c.number)
)
_FORGET: Final = sa.delete(fingerprints).where(
    fingerprints.c.number.in_(
        _OF_DEVICE.with_only_columns(fingerprints.c.number)
        .limit(sa.bindparam("part", type_=sa.Integer))
        .scalar_subquery()
    )
)
_FORGET_ORIGINS: Final = sa.delete(origins).where(
    origins.c.device == sa.bindparam("of"),
    origins.c.number < _OF_DEVICE.with_only_columns(fingerprints.c.origin).limit(1).scalar_subquery(),
)
_LESS: Final = (
    sa.update(shares).where(shares.c.device == sa.bindparam("of")).values(kept=shares.c.kept - sa.bindparam("part"))
)


class Place(NamedTuple):
    """Where a fingerprint was seen first; ``number`` is that of its origin."""

    number: int
    session: bytes
    device: bytes
    seq: int


@final
class FingerprintMemory:
    """The memory within one transaction, of ``kept`` fingerprints at most."""

    __slots__ = ("_connection", "_kept")

    def __init__(self, connection: sa.Connection, *, kept: int) -> None:
        self._connection = connection
        self._kept = kept

    def seen(self, values: Sequence[int]) -> Iterator[tuple[int, Place]]:
        """Where those of ``values`` were seen first that are remembered."""
        for row in self._rows(_SEEN, values):
            yield row.value + _SIGN, Place(row.number, row.session, row.device, row.seq)

    def keep(self, session: bytes, seq: int, traces: Sequence[Trace], *, at_ns: int) -> None:
        """Keep what window ``seq`` of ``session`` brings, received at ``at_ns``: what is new of it, within the bounds.

        Of two GPUs with the same, the first by identity is the origin. Of more than its credit, a GPU's least values
        are kept, which are the same of a copy.
        """
        taken = self._taken([trace for trace in traces if trace.fingerprints and trace.hourly], at_ns)
        if not taken:
            return
        numbers = self._origins(session)
        if new := [device for device in taken if device not in numbers]:
            self._connection.execute(_KEEP_ORIGIN, [{"session": session, "device": device} for device in new])
            numbers = self._origins(session)
        rows = [
            {"value": value - _SIGN, "origin": numbers[device], "seq": seq}
            for device, values in taken.items()
            for value in values
        ]
        self._connection.execute(_KEEP, rows)
        self._connection.execute(_ADD.on(self._connection), {"id": 0, "kept": len(rows)})
        total: int = self._connection.execute(_ALL).scalar_one()
        if total > self._kept:
            self._forget(total - self._kept)

    def _taken(self, traces: Sequence[Trace], at_ns: int) -> Mapping[bytes, Sequence[int]]:
        """What of each GPU is new and within its credit, which is less by as much."""
        values = sorted({value for trace in traces for value in trace.fingerprints})
        known = {row.value + _SIGN for row in self._rows(_KNOWN, values)}
        found: dict[bytes, list[int]] = {}
        rows: dict[bytes, dict[str, object]] = {}
        before = self._shares([trace.device for trace in traces])
        for trace in sorted(traces, key=lambda item: item.device):
            kept, credit, since_ns = before.get(trace.device, (0, trace.hourly * _WHOLE, at_ns))
            earned = trace.hourly * max(0, at_ns - since_ns) // (_HOUR_NS // _WHOLE)
            credit = min(trace.hourly * _HOURS_MAX * _WHOLE, credit + earned)
            new = [value for value in trace.fingerprints if value not in known][: credit // _WHOLE]
            if not new:
                continue
            known.update(new)
            found[trace.device] = new
            rows[trace.device] = {
                "device": trace.device,
                "kept": kept + len(new),
                "credit": credit - len(new) * _WHOLE,
                "at_ns": max(since_ns, at_ns),
            }
        if rows:
            self._connection.execute(_KEEP_SHARE.on(self._connection), list(rows.values()))
        return found

    def _origins(self, session: bytes) -> dict[bytes, int]:
        """The numbers of the GPUs of ``session`` that have one."""
        return {row.device: row.number for row in self._connection.execute(_ORIGIN, {"of": session})}

    def _shares(self, devices: Sequence[bytes]) -> dict[bytes, tuple[int, int, int]]:
        """What each GPU has, its credit, and as of when."""
        rows = self._connection.execute(_SHARES, {"devices": devices})
        return {row.device: (row.kept, row.credit, row.at_ns) for row in rows}

    def _forget(self, excess: int) -> None:
        """Forget as many, and some more, each time the oldest of the GPU that has most."""
        equal = self._kept // max(1, self._connection.execute(_GPUS).scalar_one())
        forgotten = 0
        while forgotten < excess:
            most = self._connection.execute(_MOST).one()
            # Whoever has most of too much has more than an equal part.
            part = min(most.kept - (equal - equal // _SLACK), max(excess - forgotten, _AT_ONCE))
            self._connection.execute(_FORGET, {"of": most.device, "part": part})
            self._connection.execute(_FORGET_ORIGINS, {"of": most.device})
            self._connection.execute(_LESS, {"of": most.device, "part": part})
            forgotten += part
        self._connection.execute(_ADD.on(self._connection), {"id": 0, "kept": -forgotten})

    def _rows(self, statement: sa.Executable, values: Sequence[int]) -> Iterator[sa.Row[Any]]:
        for first in range(0, len(values), _CHUNK):
            chunk = [value - _SIGN for value in values[first : first + _CHUNK]]
            yield from self._connection.execute(statement, {"values": chunk})
