"""Spot checks: challenges that only somebody who has a model's bytes can answer, made ahead by whoever has them.

A stored digest, of a file or of any piece of it, answers a question about digests without the file. So the question is
a key and some ranges: the answer is an HMAC over the bytes that stand there, which nobody can compute before he knows
the key, and nobody without the bytes. Byte layout: ``docs/protocol.md`` §6.8.

The owner makes a pool of challenges with their answers; the verifier keeps it secret and spends each challenge once.
Not proven by an answer: that these bytes are the ones that run, or that they lie on this host rather than on one that
it can ask in time.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import check_name, check_path

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["POOL_SCHEMA", "PoolEntry", "SpotAnswer", "SpotChallenge", "SpotExpectation", "SpotPool", "SpotRange"]

_VERSION: Final = "weighbridge/v1/spot-challenge"
_MAC: Final = "weighbridge/v1/spot"
POOL_SCHEMA: Final = "weighbridge/spot-pool/v1"
_ID_SIZE: Final = 16
_KEY_SIZE: Final = 32
_PATH_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class SpotRange:
    """``length`` bytes of the file ``path`` (relative to the model's directory), from byte ``offset`` on."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotChallenge:
    """A one-time question about the bytes of the model whose manifest has the digest ``manifest`` (32 bytes).

    ``id`` is 16 bytes, ``key`` 32; both are random. Whoever reads the key before the host that is asked can have the
    answer computed ahead: it is secret until the challenge is spent, and never printed.
    """

    id: bytes
    manifest: bytes
    key: bytes = field(repr=False)
    ranges: tuple[SpotRange, ...]

    def encode(self) -> bytes:
        """The challenge's bytes, as issued and recorded."""
        return cbor.encode({0: _VERSION, 1: self.id, 2: self.manifest, 3: self.key, 4: self._rows()})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a challenge.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` would not have written, no range, or more of them, or
                more bytes in them, than the limits.
        """
        fields = cbor.read_versioned(data, version=_VERSION, limit=limits.SPOT_CHALLENGE_MAX, what="spot")
        challenge = cls(
            id=fields.octets(1, size=_ID_SIZE),
            manifest=fields.digest(2),
            key=fields.octets(3, size=_KEY_SIZE),
            ranges=_ranges(fields.array(4, limit=limits.SPOT_RANGES_MAX), "spot[4]"),
        )
        fields.end()
        return challenge

    def answer(self, pieces: Iterable[bytes]) -> SpotAnswer:
        """The answer to this challenge.

        Args:
            pieces: the bytes of each range, in order.

        Raises:
            ValueError: a piece does not have its range's length, or there are more or fewer pieces than ranges.
        """
        head = cbor.encode([_MAC, self.manifest, self.id, self._rows()])
        mac = hmac.new(self.key, head, "sha256")
        for part, piece in zip(self.ranges, pieces, strict=True):
            if len(piece) != part.length:
                raise ValueError(f"{len(piece)} bytes for a range of {part.length}")
            mac.update(piece)
        return SpotAnswer(self.id, mac.digest())

    def _rows(self) -> list[cbor.CborValue]:
        return [[part.path, part.offset, part.length] for part in self.ranges]


@dataclass(frozen=True, slots=True)
class SpotAnswer:
    """What a header carries: which challenge (16 bytes), and the HMAC over its ranges (32 bytes)."""

    id: bytes
    mac: bytes

    def to_cbor(self) -> list[cbor.CborValue]:
        """The claim's value."""
        return [self.id, self.mac]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self | None:
        """The claim, or ``None`` for null.

        Raises:
            MalformedEvidence: anything else.
        """
        if value is None:
            return None
        parts = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=2, size=2))), where)
        return cls(parts.octets(0, size=_ID_SIZE), parts.digest(1))


@dataclass(frozen=True, slots=True)
class SpotExpectation:
    """A challenge with its answer, as its owner computed it. The answer to one that is not spent is secret."""

    challenge: SpotChallenge
    mac: bytes = field(repr=False)

    def to_cbor(self) -> list[cbor.CborValue]:
        """As a record keeps it: the challenge's bytes and the answer."""
        return [self.challenge.encode(), self.mac]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self | None:
        """What :meth:`to_cbor` wrote, or ``None`` for null.

        Raises:
            MalformedEvidence: anything else.
        """
        if value is None:
            return None
        parts = cbor.Reader(dict(enumerate(cbor.read_array(value, where=where, limit=2, size=2))), where)
        return cls(SpotChallenge.parse(parts.octets(0, limit=limits.SPOT_CHALLENGE_MAX)), parts.digest(1))


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One challenge of a pool. ``tensors`` says, for people, where each of its ranges lies; nothing checks it."""

    expectation: SpotExpectation
    tensors: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class SpotPool:
    """A pool of challenges for one model, made by its owner. JSON, schema ``weighbridge/spot-pool/v1``.

    Whoever has it can answer all of them without the model. ``name`` is that of the manifest with digest ``manifest``.
    """

    manifest: bytes
    name: str
    entries: tuple[PoolEntry, ...]

    def to_json(self) -> bytes:
        """The document, canonical."""
        entries = [_entry_to_json(entry) for entry in self.entries]
        document = {"schema": POOL_SCHEMA, "manifest": self.manifest.hex(), "name": self.name, "challenges": entries}
        return strict.json_encode(document)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the document.

        Raises:
            MalformedEvidence: for anything but a pool; ``DUPLICATE_KEY`` for a challenge that stands there twice.
        """
        fields = cbor.read_map(
            _whole(strict.json_decode(data, what="pool", limit=limits.SPOT_POOL_MAX), "pool"), where="pool"
        )
        schema = fields.text("schema")
        if schema != POOL_SCHEMA:
            raise MalformedEvidence(
                Code.VERSION_UNSUPPORTED, "unknown schema", where="pool", expected=POOL_SCHEMA, got=schema
            )
        manifest = strict.hex_decode(fields.text("manifest"), what="pool.manifest", size=limits.DIGEST_SIZE)
        name = fields.text("name")
        check_name(name, where="pool.name")
        items = fields.array("challenges", limit=limits.SPOT_POOL_CHALLENGES_MAX)
        fields.end()
        entries = tuple(
            _entry_from_json(item, manifest, f"pool.challenges[{index}]") for index, item in enumerate(items)
        )
        if len({entry.expectation.challenge.id for entry in entries}) != len(entries):
            raise MalformedEvidence(Code.DUPLICATE_KEY, "a challenge stands there twice", where="pool.challenges")
        return cls(manifest, name, entries)


def _ranges(rows: list[cbor.CborValue], where: str) -> tuple[SpotRange, ...]:
    if not rows:
        raise MalformedEvidence(Code.FIELD_RANGE, "a challenge of no range asks for nothing", where=where)
    ranges = tuple(_range(row, f"{where}[{index}]") for index, row in enumerate(rows))
    if sum(part.length for part in ranges) > limits.SPOT_BYTES_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "the ranges are too long", where=where, expected=f"<= {limits.SPOT_BYTES_MAX} bytes"
        )
    return ranges


def _range(row: cbor.CborValue, where: str) -> SpotRange:
    parts = cbor.Reader(dict(enumerate(cbor.read_array(row, where=where, limit=3, size=3))), where)
    path = parts.text(0, limit=_PATH_MAX)
    check_path(path, where=f"{where}.path")
    return SpotRange(path, parts.uint(1, limit=2**53), parts.integer(2, low=1, high=limits.SPOT_BYTES_MAX))


def _entry_to_json(entry: PoolEntry) -> strict.JsonObject:
    challenge = entry.expectation.challenge
    return {
        "id": challenge.id.hex(),
        "key": challenge.key.hex(),
        "mac": entry.expectation.mac.hex(),
        "ranges": [
            [part.path, part.offset, part.length, tensor]
            for part, tensor in zip(challenge.ranges, entry.tensors, strict=True)
        ],
    }


def _entry_from_json(value: cbor.CborValue, manifest: bytes, where: str) -> PoolEntry:
    fields = cbor.read_map(value, where=where)
    secrets = {
        key: strict.hex_decode(fields.text(key), what=f"{where}.{key}", size=size)
        for key, size in (("id", _ID_SIZE), ("key", _KEY_SIZE), ("mac", limits.DIGEST_SIZE))
    }
    rows = fields.array("ranges", limit=limits.SPOT_RANGES_MAX)
    fields.end()
    places: list[cbor.CborValue] = []
    tensors: list[str | None] = []
    for index, row in enumerate(rows):
        place = f"{where}.ranges[{index}]"
        columns = cbor.read_array(row, where=place, limit=4, size=4)
        tensors.append(cbor.Reader({"tensor": columns[3]}, place).optional_text("tensor", limit=_PATH_MAX))
        places.append(columns[:3])
    made = SpotChallenge(
        id=secrets["id"], manifest=manifest, key=secrets["key"], ranges=_ranges(places, f"{where}.ranges")
    )
    # What cannot be issued is no challenge: one of paths that are too long together is found out here.
    if len(made.encode()) > limits.SPOT_CHALLENGE_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "the challenge is too long", where=where, expected=f"<= {limits.SPOT_CHALLENGE_MAX} bytes"
        )
    return PoolEntry(SpotExpectation(made, secrets["mac"]), tuple(tensors))


def _whole(value: strict.JsonValue, where: str) -> cbor.CborValue:
    """JSON without what a pool has no use for: fractions."""
    if isinstance(value, float):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="integer", got=value)
    if isinstance(value, list):
        return [_whole(item, where) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item, where) for key, item in value.items()}
    return value
