"""What the record of one GPU had come to when a session of it was judged last: where the next session goes on.

Nobody is to escape what speaks against him by closing a session and opening another. So the evidence, the block of
units that has begun, the last strays, lapses, and what sessions ended with (:mod:`.remains`) belong to the GPU and the
profile that it is judged by, not to a session. A :class:`Past` is written with each window, is read when a session
first judges the GPU by that profile, and stands in the record of that window. By another profile a GPU begins anew: its
owner signed that one. An alarm is no part of it: that fails the session, and sticks to the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.profile import FEATURES, GROSS_UNITS
from weighbridge.verifier.telemetry.detector.evidence import BETS, RICH, SessionEvidence, evidence_of, log10_milli
from weighbridge.verifier.telemetry.detector.metric import CLIP, SPAN
from weighbridge.verifier.telemetry.remains import Remains

if TYPE_CHECKING:
    from weighbridge.proto import strict
    from weighbridge.proto.profile import Profile

__all__ = ["LAPSES_MAX", "PAST_MAX", "Past", "digest_of", "read_evidence", "write_evidence"]

LAPSES_MAX: Final = 20
"""As many units in a row are asked for at most, and make good one lapse."""
PAST_MAX: Final = 8_192
"""Bytes of the evidence, encoded: 19 units of 33 numbers, and little beside."""
_SESSION: Final = 16
_COUNT_MAX: Final = 2**53
_NUMBER_MAX: Final = 2**63 - 1
_PARTS: Final = 8
_EVIDENCE_PARTS: Final = 5
_CAPITAL_MAX: Final = -(-RICH.bit_length() // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the record of ``device`` had come to by ``profile``, behind window ``seq`` of ``session``.

    Attributes:
        device: 32 bytes.
        profile: its digest, 32 bytes.
        session: 16 bytes.
        seq: the window.
        evidence: without an alarm.
        row: how many units were scored one after the other.
        lapses: how many units were lost while a gate may have been open, less what was made good.
        remains: of this session and those before it, had it ended there.
    """

    device: bytes
    profile: bytes
    session: bytes
    seq: int
    evidence: SessionEvidence
    row: int
    lapses: int
    remains: Remains

    def to_cbor(self) -> list[cbor.CborValue]:
        """As records hold it: ``docs/protocol.md`` §7."""
        return [
            self.device,
            self.profile,
            self.session,
            self.seq,
            write_evidence(self.evidence),
            self.row,
            self.lapses,
            self.remains.to_cbor(),
        ]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read what :meth:`to_cbor` writes.

        Raises:
            MalformedEvidence: ``FIELD_TYPE``, ``FIELD_RANGE``, ``TOO_LARGE`` or ``NOT_DETERMINISTIC``.
        """
        fields = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=_PARTS, size=_PARTS))), where)
        return cls(
            device=fields.digest(0),
            profile=fields.digest(1),
            session=fields.octets(2, size=_SESSION),
            seq=fields.uint(3, limit=_COUNT_MAX),
            evidence=read_evidence(fields.octets(4, limit=PAST_MAX), where=fields.path(4)),
            row=fields.uint(5, limit=_COUNT_MAX),
            lapses=fields.uint(6, limit=LAPSES_MAX),
            remains=Remains.from_cbor(fields.take(7), where=fields.path(7)),
        )

    def document(self) -> strict.JsonObject:
        """What of it verdicts show."""
        return {
            "device": self.device.hex(),
            "profile": self.profile.hex(),
            "session": self.session.hex(),
            "seq": self.seq,
            "units": self.evidence.units,
            "begun": len(self.evidence.block),
            "strays": list(self.evidence.strays),
            "e_log10_milli": self.evidence.e_log10_milli,
            "row": self.row,
            "lapses": self.lapses,
            "remains_ns": self.remains.lasts_ns,
            "remains_drawn_uj": self.remains.drawn_uj,
            "remains_explained_uj": self.remains.explained_uj,
        }


@lru_cache(maxsize=256)
def digest_of(profile: Profile) -> bytes:
    """The digest of a profile, computed once."""
    return profile.digest


# Most windows complete no unit: what they leave as it was is encoded once.
@lru_cache(maxsize=256)
def write_evidence(evidence: SessionEvidence) -> bytes:
    """The evidence without its alarm: a CBOR array of its own, in records as in the verifier's state."""
    return cbor.encode(
        [
            evidence.units,
            [list(row) for row in evidence.block],
            list(evidence.strays),
            evidence.statistic,
            [amount.to_bytes(-(-amount.bit_length() // 8)) for amount in evidence.capital],
        ]
    )


def read_evidence(data: bytes, *, where: str) -> SessionEvidence:
    """Read what :func:`write_evidence` writes.

    Raises:
        MalformedEvidence: for any other bytes.
    """
    value = cbor.decode(data, limit=PAST_MAX, what=where)
    parts = cbor.read_array(value, where=where, limit=_EVIDENCE_PARTS, size=_EVIDENCE_PARTS)
    fields = cbor.Reader(dict(enumerate(parts)), where)
    units = fields.uint(0, limit=_COUNT_MAX)
    block = tuple(_row(row, fields.path(1)) for row in fields.array(1, limit=SPAN - 1))
    strays = _integers(fields.array(2, limit=max(SPAN - 1, GROSS_UNITS[-1])), fields.path(2))
    statistic = fields.uint(3)
    amounts = fields.octet_strings(4, count=BETS, limit=_CAPITAL_MAX)
    if len(amounts) != BETS or any(amount[:1] == b"\0" for amount in amounts):
        raise MalformedEvidence(Code.NOT_DETERMINISTIC, "not what each bet has, each written once", where=where)
    capital = tuple(int.from_bytes(amount) for amount in amounts)
    return SessionEvidence(
        units=units,
        block=block,
        strays=strays,
        statistic=statistic,
        capital=capital,
        e_log10_milli=log10_milli(evidence_of(capital, units)),
    )


def _row(value: cbor.CborValue, where: str) -> tuple[int, ...]:
    """One unit of a block: features cut, and the level, which is not."""
    cells = cbor.read_array(value, where=where, limit=FEATURES + 1, size=FEATURES + 1)
    return (*_integers(cells[:FEATURES], where, most=CLIP), *_integers(cells[FEATURES:], where))


def _integers(values: list[cbor.CborValue], where: str, *, most: int = _NUMBER_MAX) -> tuple[int, ...]:
    fields = cbor.Reader(dict(enumerate(values)), where)
    return tuple(fields.integer(place, low=-most, high=most) for place in range(len(values)))
