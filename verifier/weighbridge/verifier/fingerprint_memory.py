"""Where each stretch of samples was seen first: the fingerprints that :mod:`.traces` keeps, within their bounds.

The memory is all hosts', and none may have it filled by what it sends. So a GPU has two bounds beside the whole's:

1. *A rate*: what is new of it is taken from a credit, which grows with the verifier's time and not with the host's
   windows, by what its sample rate makes (:attr:`.Trace.hourly`). It is an hour's when the GPU is seen first, and a
   day's at most, for windows that a host delivers late.
2. *A share*: where there is too much, the GPU that has most loses its oldest. None is left with less than seven
   eighths of an equal part because of what others send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, final

import sqlalchemy as sa

from weighbridge.verifier.database.prepared import Changes, Prepared, together
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.tables import fingerprints, memory, origins, shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from weighbridge.verifier.database.prepared import Row
    from weighbridge.verifier.telemetry.history import Trace
    from weighbridge.verifier.telemetry.past import Past

__all__ = ["Brought", "FingerprintMemory", "Place"]

_SIGN: Final = 1 << 63
# Credit counts millionths of a fingerprint.
_WHOLE: Final = 1_000_000
_HOUR_NS: Final = 3_600_000_000_000
_HOURS_MAX: Final = 24
# Of an equal part, the share by which the GPU with most may be left with less, so that not each window has to forget;
# and how many rows are enough at once, as others wait meanwhile.
_SLACK: Final = 8
_AT_ONCE: Final = 1_000

_SEEN: Final = Prepared(
    sa.select(fingerprints.c.value, fingerprints.c.seq, origins.c.session, origins.c.device, origins.c.number)
    .join(origins, origins.c.number == fingerprints.c.origin)
    .where(fingerprints.c.value.in_(sa.bindparam("of_values", expanding=True))),
    lists=["of_values"],
)
_KNOWN: Final = Prepared(
    sa.select(fingerprints.c.value).where(fingerprints.c.value.in_(sa.bindparam("of_values", expanding=True))),
    lists=["of_values"],
)
_KEEP_ORIGIN: Final = Prepared(sa.insert(origins), sets=["session", "device"])
_ORIGINS: Final = Prepared(
    sa.select(origins.c.session, origins.c.device, origins.c.number).where(
        origins.c.session.in_(sa.bindparam("of_sessions", expanding=True))
    ),
    lists=["of_sessions"],
)
_KEEP: Final = Prepared(sa.insert(fingerprints), sets=["value", "origin", "seq"])
_SHARES: Final = Prepared(
    sa.select(shares.c.device, shares.c.kept, shares.c.credit, shares.c.at_ns).where(
        shares.c.device.in_(sa.bindparam("of_devices", expanding=True))
    ),
    lists=["of_devices"],
)
_KEEP_SHARE: Final = Prepared(
    Upsert(shares, replaced=["kept", "credit", "at_ns"]), sets=["device", "kept", "credit", "at_ns"]
)
_ADD: Final = Prepared(Upsert(memory, added=["kept"]), sets=["id", "kept"])
_ALL: Final = Prepared(sa.select(memory.c.kept))
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


class Brought(NamedTuple):
    """What window ``seq`` of ``session`` brings, received at ``at_ns``.

    ``past`` is what the record of each GPU has come to behind the window.
    """

    session: bytes
    seq: int
    traces: Sequence[Trace]
    past: Sequence[Past]
    at_ns: int

    def counted(self) -> list[Trace]:
        """Its traces that have fingerprints which may be kept, by GPU."""
        traces = [trace for trace in self.traces if trace.fingerprints and trace.hourly]
        return sorted(traces, key=lambda trace: trace.device)


class _Share(NamedTuple):
    """How many fingerprints of a GPU are kept, what its credit is, and as of when."""

    kept: int
    credit: int
    at_ns: int

    def columns(self, device: bytes) -> dict[str, object]:
        return {"device": device, "kept": self.kept, "credit": self.credit, "at_ns": self.at_ns}


class _New(NamedTuple):
    """A fingerprint that is going to be kept."""

    value: int
    session: bytes
    device: bytes
    seq: int


class _Before(NamedTuple):
    """What is known: of fingerprints, of GPUs, of the numbers of origins, and how many fingerprints there are."""

    known: set[int]
    shares: dict[bytes, _Share]
    origins: dict[tuple[bytes, bytes], int]
    all: int


@final
class FingerprintMemory:
    """The memory within one transaction, of ``kept`` fingerprints at most."""

    __slots__ = ("_connection", "_kept")

    def __init__(self, connection: sa.Connection, *, kept: int) -> None:
        self._connection = connection
        self._kept = kept

    def seen(self, values: Sequence[int]) -> list[tuple[Prepared, Mapping[str, object]]]:
        """What to ask for where those of ``values`` were seen first; :meth:`places` reads the answers."""
        return _SEEN.pieces("of_values", [value - _SIGN for value in values])

    @staticmethod
    def places(answers: Iterable[Sequence[Row]]) -> dict[int, Place]:
        """Where those values were seen first that are remembered."""
        return {
            value + _SIGN: Place(number, session, device, seq)
            for rows in answers
            for value, seq, session, device, number in rows
        }

    def keep(self, brought: Sequence[Brought]) -> None:
        """Keep what windows bring, one after another: what is new of it, within the bounds.

        Of two GPUs with the same, the first by identity is the origin. Of more than its credit, a GPU's least values
        are kept, which are the same of a copy.
        """
        counted = [(one, trace) for one in brought for trace in one.counted()]
        if not counted:
            return
        before = self._before(brought, counted)
        changes, rows = Changes(), self._taken(counted, before)
        if not rows:
            return
        changes.add(_KEEP_SHARE, [before.shares[device].columns(device) for device in {row.device for row in rows}])
        self._name_origins(rows, before.origins)
        changes.add(
            _KEEP,
            [
                {"value": row.value - _SIGN, "origin": before.origins[row.session, row.device], "seq": row.seq}
                for row in rows
            ],
        )
        changes.add(_ADD, [{"id": 0, "kept": len(rows)}])
        changes.write(self._connection)
        if before.all + len(rows) > self._kept:
            self._forget(before.all + len(rows) - self._kept)

    def _before(self, brought: Sequence[Brought], counted: Sequence[tuple[Brought, Trace]]) -> _Before:
        """What the memory says before ``brought`` is kept."""
        values = sorted({value for _, trace in counted for value in trace.fingerprints})
        asked = _KNOWN.pieces("of_values", [value - _SIGN for value in values])
        devices = _SHARES.pieces("of_devices", sorted({trace.device for _, trace in counted}))
        sessions = _ORIGINS.pieces("of_sessions", [one.session for one in brought])
        found = together(self._connection, *asked, *devices, *sessions, (_ALL, {}))
        shared, named = len(asked), len(asked) + len(devices)
        (total,) = found[-1] or [(0,)]
        return _Before(
            known={value + _SIGN for rows in found[:shared] for (value,) in rows},
            shares={row[0]: _Share(*row[1:]) for rows in found[shared:named] for row in rows},
            origins={(session, device): number for rows in found[named:-1] for session, device, number in rows},
            all=total[0],
        )

    @staticmethod
    def _taken(counted: Sequence[tuple[Brought, Trace]], before: _Before) -> list[_New]:
        """What of each GPU is new and within its credit, which is less by as much in ``before``."""
        rows: list[_New] = []
        for one, trace in counted:
            share = before.shares.get(trace.device) or _Share(0, trace.hourly * _WHOLE, one.at_ns)
            earned = trace.hourly * max(0, one.at_ns - share.at_ns) // (_HOUR_NS // _WHOLE)
            credit = min(trace.hourly * _HOURS_MAX * _WHOLE, share.credit + earned)
            new = [value for value in trace.fingerprints if value not in before.known][: credit // _WHOLE]
            if not new:
                continue
            before.known.update(new)
            rows += [_New(value, one.session, trace.device, one.seq) for value in new]
            before.shares[trace.device] = _Share(
                share.kept + len(new), credit - len(new) * _WHOLE, max(share.at_ns, one.at_ns)
            )
        return rows

    def _name_origins(self, rows: Sequence[_New], origins: dict[tuple[bytes, bytes], int]) -> None:
        """Have a number for the session and the GPU of each of ``rows``, in ``origins``."""
        # In the order in which they come: the first is the origin.
        unnamed = list(dict.fromkeys(pair for row in rows if (pair := (row.session, row.device)) not in origins))
        if not unnamed:
            return
        changes = Changes()
        changes.add(_KEEP_ORIGIN, [{"session": session, "device": device} for session, device in unnamed])
        changes.write(self._connection)
        pieces = _ORIGINS.pieces("of_sessions", sorted({session for session, _ in unnamed}))
        for found in together(self._connection, *pieces):
            origins.update(((session, device), number) for session, device, number in found)

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
        less = Changes()
        less.add(_ADD, [{"id": 0, "kept": -forgotten}])
        less.write(self._connection)
