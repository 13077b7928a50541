"""Spot checks in a world: the model's files on the host's disk, and a pool at its verifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.world import requirements
from weighbridge.attester.spot import make_pool

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.proto.spot import SpotPool

# What support.world.manifest is the manifest of.
FILES = {"config.json": b"{}", "model.safetensors": b"headerweights"}


def stock(world: World, count: int = 8) -> SpotPool:
    """Put the model's files where the host has them, and ``count`` challenges into the verifier's pool."""
    world.host.directory = directory = world.directory / "model"
    directory.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    pool = make_pool(world.host.model, directory, count=count, ranges=2, range_bytes=4)
    with world.store.transaction() as tx:
        assert tx.spots.add(pool) == count
    return pool


def left(world: World) -> tuple[int, int]:
    """How many challenges are left, and how many are spent."""
    with world.store.transaction() as tx:
        counts = tx.spots.counts()
    return sum(count.left for count in counts), sum(count.spent for count in counts)


def spotted(arena: Arena, windows: int, *, every: int = 2, count: int = 8) -> World:
    """A world whose terms demand a spot check in every ``every``-th window, after ``windows`` good ones."""
    world = arena.world(wanted=requirements(spot_every=every))
    stock(world, count)
    world.open_session()
    for _ in range(windows):
        answer = world.window()
        assert answer.verdict.opens, answer.verdict.denials
    return world
