"""Rows A70: what is refused before anything is believed, within bounds of time and memory."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from support.forge import Forgery, parts, seal
from support.world import requirements
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cbor, limits
from weighbridge.proto.window import Evidence
from weighbridge.verifier import anchors
from weighbridge.verifier.requirements import Requirements

if TYPE_CHECKING:
    from corpus.arena import Arena
    from weighbridge.verifier.core import Answer


def _sent(arena: Arena, data: bytes) -> Answer:
    return arena.submit(arena.settled(1), data)


def case_001_too_large(arena: Arena) -> Answer:
    return _sent(arena, bytes(limits.EVIDENCE_MAX + 1))


def case_002_nested_deeply(arena: Arena) -> Answer:
    return _sent(arena, b"\x81" * 100_000 + b"\x00")


def case_003_key_twice(arena: Arena) -> Answer:
    world = arena.settled(1)
    honest = seal(world.host).evidence
    entry = cbor.encode("log") + cbor.encode(["application/vnd.weighbridge.measurement-log+cbor", b"\x80", 4])
    # A map of eight entries becomes one of nine.
    assert honest[0] == 0xA8
    return arena.submit(world, b"\xa9" + honest[1:] + entry)


def case_004_bytes_behind(arena: Arena) -> Answer:
    world = arena.settled(1)
    return arena.submit(world, seal(world.host).evidence + b"\x00")


def case_005_compressed(arena: Arena) -> Answer:
    return _sent(arena, gzip.compress(bytes(10_000_000), mtime=0))


def case_006_indefinite_length(arena: Arena) -> Answer:
    return _sent(arena, b"\xbf\xff")


def case_007_floating_point(arena: Arena) -> Answer:
    return _sent(arena, b"\xa1\x00\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00")


def case_008_length_without_bytes(arena: Arena) -> Answer:
    return _sent(arena, b"\x5b\x00\x00\x00\x7f\xff\xff\xff\xff")


def case_009_cyclic_reference(arena: Arena) -> Answer:
    return _sent(arena, b"\xd8\x1c\x81\xd8\x1d\x00")


def case_010_unknown_part(arena: Arena) -> Answer:
    world = arena.settled(1)
    value = cbor.decode(seal(world.host).evidence, limit=limits.EVIDENCE_MAX, what="evidence")
    assert isinstance(value, dict)
    return arena.submit(world, cbor.encode({**value, "extra": None}))


def case_011_part_left_out(arena: Arena) -> Answer:
    world = arena.settled(1)
    value = cbor.decode(seal(world.host).evidence, limit=limits.EVIDENCE_MAX, what="evidence")
    assert isinstance(value, dict)
    return arena.submit(world, cbor.encode({key: item for key, item in value.items() if key != "gpu"}))


def case_012_longer_integer(arena: Arena) -> Answer:
    world = arena.settled(1)
    honest = seal(world.host).evidence
    # The indicator of the last part.
    place = honest.rindex(b"\x04")
    return arena.submit(world, honest[:place] + b"\x18\x04" + honest[place + 1 :])


def case_013_another_collection(arena: Arena) -> Answer:
    world = arena.settled(1)
    value = cbor.decode(seal(world.host).evidence, limit=limits.EVIDENCE_MAX, what="evidence")
    assert isinstance(value, dict)
    return arena.submit(world, cbor.encode({**value, "__cmwc_t": "tag:weighbridge.example,2026:evidence/v0"}))


def case_014_too_many_records(arena: Arena) -> Answer:
    world = arena.settled(1)
    records = cbor.encode([b""] * (limits.LOG_RECORDS_MAX + 1))
    return arena.submit(world, parts(seal(world.host).evidence, log=records))


def case_015_header_too_large(arena: Arena) -> Answer:
    world = arena.settled(1)
    return arena.submit(world, seal(world.host, Forgery(claims=lambda claims: claims + bytes(limits.HEADER_MAX))))


def case_016_json_nested_deeply(arena: Arena) -> None:
    del arena
    Requirements.parse(b'{"tenant":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def case_017_json_key_twice(arena: Arena) -> None:
    del arena
    Requirements.parse(requirements().encode().replace(b'"gpus":2', b'"gpus":2,"gpus":0'))


def case_018_json_not_a_number(arena: Arena) -> None:
    del arena
    Requirements.parse(requirements().encode().replace(b'"gpus":2', b'"gpus":NaN'))


def case_019_json_key_twice_in_reference(arena: Arena) -> None:
    reference = arena.world().reference.to_json()
    Reference.parse(reference.replace(b'"models":', b'"models":{},"models":'))


def case_020_json_key_twice_in_anchors(arena: Arena) -> None:
    document = arena.world().anchors.encode()
    anchors.load(document.replace(b'"schema":', b'"schema":"weighbridge/anchors/v0","schema":', 1))


def case_021_empty(arena: Arena) -> Answer:
    return _sent(arena, b"")


def case_022_another_window_inside(arena: Arena) -> Answer:
    """A collection of the right form that carries a quote where the header belongs."""
    world = arena.settled(1)
    honest = seal(world.host).evidence
    return arena.submit(world, parts(honest, window=Evidence.parse(honest).quote))
