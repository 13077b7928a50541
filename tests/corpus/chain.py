"""Rows A55 and A56: windows that are good by themselves and do not follow one another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import Forgery, claim, interval, parts, random_bytes, seal
from support.world import PERIOD_NS
from weighbridge.proto import cbor
from weighbridge.proto.spdm import evidence as gpu_evidence
from weighbridge.proto.window import Evidence, Header

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.forge import Reports
    from support.world import World
    from weighbridge.attester.sealing import SealedWindow
    from weighbridge.verifier.core import Answer

# The order of P-256: (r, n - s) is a second valid signature over the same bytes.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _ahead(world: World) -> tuple[SealedWindow, SealedWindow]:
    """The next window and the one behind it, both sealed before any is sent."""
    host = world.host
    first = host.seal()
    host.advance(first)
    return first, host.seal()


# -- A55 ---------------------------------------------------------------------------------------------------------------


def case_001_gap(arena: Arena) -> Answer:
    world = arena.settled()
    kept = replace(world.host)
    _, second = _ahead(world)
    world.host.prev, world.host.seq, world.host.wall_ns = kept.prev, kept.seq, kept.wall_ns
    return arena.submit(world, second)


def case_002_reordered(arena: Arena) -> Answer:
    """Numbers exchanged: the later window bears the earlier one's place in the chain."""
    world = arena.settled()
    first = seal(world.host)
    header = claim(prev=first.next_prev)
    return arena.submit(world, seal(world.host, header))


def case_003_duplicate(arena: Arena) -> Answer:
    world = arena.settled(1)
    sealed = world.host.seal()
    world.clock.advance(1)
    world.deliver(sealed)
    return arena.submit(world, sealed)


def case_004_duplicate_signed_otherwise(arena: Arena) -> Answer:
    world = arena.settled(1)
    sealed = world.host.seal()
    world.clock.advance(1)
    world.deliver(sealed)
    signed = Evidence.parse(sealed.evidence).signed_header()
    r, s = signed.signature[:32], int.from_bytes(signed.signature[32:])
    other = b"\xd2" + cbor.encode([signed.protected, {}, signed.payload, r + (_ORDER - s).to_bytes(32)])
    return arena.submit(world, parts(sealed.evidence, window=other))


def case_005_fork(arena: Arena) -> Answer:
    world = arena.settled(1)
    other = seal(world.host)
    world.window()
    return arena.submit(world, other)


def case_006_another_chain(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(prev=random_bytes("another chain"))))


def case_007_no_predecessor(arena: Arena) -> Answer:
    world = arena.world()
    world.open_session()
    return arena.submit(world, seal(world.host, claim(prev=bytes(32))))


def case_008_not_from_the_beginning(arena: Arena) -> Answer:
    world = arena.world()
    world.open_session()
    world.host.seq = 1
    try:
        return arena.submit(world, seal(world.host))
    finally:
        world.host.seq = 0


def case_009_backdated(arena: Arena) -> Answer:
    world = arena.settled()
    start = world.host.wall_ns - 3 * PERIOD_NS
    return arena.submit(world, seal(world.host, interval(wall_start_ns=start, wall_end_ns=start + PERIOD_NS)))


def case_010_backdated_by_the_tpm_clock(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, interval(tpm_start_ms=1_000)))


def case_011_postdated(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, interval(wall_end_ns=world.host.wall_ns + 60 * PERIOD_NS)))


def case_012_ends_before_it_starts(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, interval(wall_end_ns=world.host.wall_ns)))


def case_013_ends_behind_its_quote(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, interval(tpm_end_ms=10_000_000)))


def case_014_tpm_interval_runs_backwards(arena: Arena) -> Answer:
    world = arena.settled()
    now = world.host.tpm.clock
    return arena.submit(world, seal(world.host, interval(tpm_start_ms=now + 2, tpm_end_ms=now + 1)))


def case_015_number_of_the_last(arena: Arena) -> Answer:
    """Renumbered to the window that is recorded: two with one number, both signed."""
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(seq=world.host.seq - 1)))


# -- A56 ---------------------------------------------------------------------------------------------------------------


def case_016_overlapping(arena: Arena) -> Answer:
    world = arena.settled()
    start = world.host.wall_ns - PERIOD_NS // 2
    return arena.submit(world, seal(world.host, interval(wall_start_ns=start)))


def case_017_one_report_for_two(arena: Arena) -> Answer:
    world = arena.settled(1)
    sealed = world.host.seal()
    world.clock.advance(1)
    world.deliver(sealed)
    old = Evidence.parse(sealed.evidence).gpus
    assert old is not None
    reports: Reports = list(gpu_evidence.parse(old))
    return arena.submit(world, seal(world.host, Forgery(reports=lambda _: reports)))


def case_018_same_interval_again(arena: Arena) -> Answer:
    world = arena.settled(1)
    sealed = world.host.seal()
    world.clock.advance(1)
    world.deliver(sealed)
    before = Header.parse(Evidence.parse(sealed.evidence).signed_header().payload)
    return arena.submit(world, seal(world.host, claim(interval=before.interval)))
