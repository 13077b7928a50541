"""What the verifier remembers of GPUs beyond a session, as far as one window is judged by it.

Two questions are put to the memory (:mod:`weighbridge.verifier.traces`) for each window: what the energy counter of
each GPU read at the end of the session before, and whether a stretch of these samples was seen before; and a third one
where a session first judges a GPU by a profile: what its record had come to (:mod:`.past`). What came out is a
:class:`History`: it is written into the window's record, so that whoever judges the window again sees what was seen
then, whatever the memory has forgotten or learned since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.telemetry.past import Past

if TYPE_CHECKING:
    from collections.abc import Collection

    from weighbridge.proto import strict

__all__ = ["ANOTHER_TENANTS", "FINGERPRINTS_KEPT", "NOTHING", "Copy", "History", "Reading", "Trace"]

_SESSION: Final = 16
_COUNT_MAX: Final = 2**53
# What stands for a session that was another tenant's, and for the GPU in it that samples were copied from.
ANOTHER_TENANTS: Final = bytes(_SESSION)
NO_DEVICE: Final = bytes(limits.DIGEST_SIZE)
_PARTS: Final = 5
_LISTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The energy counter of ``device`` as it was last read in ``session``, before the present one.

    ``device`` is 32 bytes, ``session`` 16; ``seq`` is the window that has the reading; ``wall_ns`` counts from 1970, by
    the host's clock; ``energy_mj`` is the counter.
    """

    device: bytes
    session: bytes
    seq: int
    wall_ns: int
    energy_mj: int

    def document(self) -> strict.JsonObject:
        """The reading as verdicts show it."""
        return {
            "device": self.device.hex(),
            "session": self.session.hex(),
            "seq": self.seq,
            "wall_ns": self.wall_ns,
            "energy_mj": self.energy_mj,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Samples of ``device`` that were seen before: of ``original``, in window ``seq`` of ``session``.

    ``matches`` is the number of fingerprints that the two have in common.
    """

    device: bytes
    original: bytes
    session: bytes
    seq: int
    matches: int

    def document(self) -> strict.JsonObject:
        """The copy as verdicts show it."""
        return {
            "device": self.device.hex(),
            "original": self.original.hex(),
            "session": self.session.hex(),
            "seq": self.seq,
            "matches": self.matches,
        }


@dataclass(frozen=True, slots=True)
class History:
    """What was remembered when a window came. Ordered by device, each once in each of the three."""

    readings: tuple[Reading, ...] = ()
    copies: tuple[Copy, ...] = ()
    pasts: tuple[Past, ...] = ()

    def reading(self, device: bytes) -> Reading | None:
        """The last reading before this session, where there is one."""
        return next((item for item in self.readings if item.device == device), None)

    def copy(self, device: bytes) -> Copy | None:
        """What the samples of ``device`` repeat, if anything."""
        return next((item for item in self.copies if item.device == device), None)

    def past(self, device: bytes, profile: bytes) -> Past | None:
        """What the record of ``device`` had come to by the profile of this digest, if it was asked for and known."""
        return next((item for item in self.pasts if (item.device, item.profile) == (device, profile)), None)

    @property
    def sessions(self) -> frozenset[bytes]:
        """The sessions that it names."""
        named = {item.session for item in self.readings} | {item.session for item in self.copies}
        return frozenset(named | {item.session for item in self.pasts}) - {ANOTHER_TENANTS}

    def without(self, sessions: Collection[bytes]) -> History:
        """The same of the GPUs, with nothing that says where in which of ``sessions`` it was."""
        if not sessions:
            return self
        return History(
            tuple(
                replace(item, session=ANOTHER_TENANTS, seq=0) if item.session in sessions else item
                for item in self.readings
            ),
            tuple(
                replace(item, session=ANOTHER_TENANTS, original=NO_DEVICE, seq=0) if item.session in sessions else item
                for item in self.copies
            ),
            tuple(
                replace(item, session=ANOTHER_TENANTS, seq=0) if item.session in sessions else item
                for item in self.pasts
            ),
        )

    def to_cbor(self) -> list[cbor.CborValue]:
        """The history as records hold it: ``docs/protocol.md`` §7."""
        return [
            [[item.device, item.session, item.seq, item.wall_ns, item.energy_mj] for item in self.readings],
            [[item.device, item.original, item.session, item.seq, item.matches] for item in self.copies],
            [item.to_cbor() for item in self.pasts],
        ]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read a history.

        Raises:
            MalformedEvidence: ``FIELD_TYPE``, ``FIELD_RANGE`` or ``TOO_LARGE``; ``NOT_DETERMINISTIC`` for devices that
                are not in order, each once; what :meth:`.Past.from_cbor` raises.
        """
        parts = cbor.read_array(value, where=where, limit=_LISTS, size=_LISTS)
        fields = cbor.Reader(dict(enumerate(parts)), where)
        readings = tuple(_reading(item, f"{where}[0]") for item in fields.array(0, limit=limits.GPUS_MAX))
        copies = tuple(_copy(item, f"{where}[1]") for item in fields.array(1, limit=limits.GPUS_MAX))
        pasts = tuple(Past.from_cbor(item, where=f"{where}[2]") for item in fields.array(2, limit=limits.GPUS_MAX))
        for items in (readings, copies, pasts):
            devices = [item.device for item in items]
            if devices != sorted(set(devices)):
                raise MalformedEvidence(Code.NOT_DETERMINISTIC, "devices are not in order, each once", where=where)
        return cls(readings, copies, pasts)

    def document(self) -> strict.JsonObject:
        """The history as verdicts show it."""
        return {
            "readings": [item.document() for item in self.readings],
            "copies": [item.document() for item in self.copies],
            "pasts": [item.document() for item in self.pasts],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one window brings of ``device`` that is looked up in the memory, and then kept there.

    Attributes:
        device: 32 bytes.
        first_seq: the first window that has a sample among those that were hashed: what of this session is as late as
            this is the trace itself, and no copy.
        fingerprints: of the samples, 64 bits each, each once, in ascending order.
        hourly: how many of them are kept in an hour at most, by how often the GPU is sampled; none where the samples
            are of no use.
        reading: wall clock in ns and energy in mJ of the last sample with a reading of the counter, if there is one.
    """

    device: bytes
    first_seq: int
    fingerprints: tuple[int, ...]
    hourly: int
    reading: tuple[int, int] | None


NOTHING: Final = History()
# 120 MB or so: 8 GPUs at 10 Hz bring 70 a window of 10 s, so that is three days of such a host without a pause.
FINGERPRINTS_KEPT: Final = 2_000_000


def _reading(value: cbor.CborValue, where: str) -> Reading:
    fields = _row(value, where)
    return Reading(
        device=fields.digest(0),
        session=fields.octets(1, size=_SESSION),
        seq=fields.uint(2, limit=_COUNT_MAX),
        wall_ns=fields.uint(3),
        energy_mj=fields.uint(4),
    )


def _copy(value: cbor.CborValue, where: str) -> Copy:
    fields = _row(value, where)
    return Copy(
        device=fields.digest(0),
        original=fields.digest(1),
        session=fields.octets(2, size=_SESSION),
        seq=fields.uint(3, limit=_COUNT_MAX),
        matches=fields.integer(4, low=1, high=_COUNT_MAX),
    )


def _row(value: cbor.CborValue, where: str) -> cbor.Reader:
    return cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=_PARTS, size=_PARTS))), where)
