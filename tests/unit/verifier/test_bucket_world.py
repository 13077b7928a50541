"""A verifier whose ledger and evidence lie in object storage: sessions live through restarts and lost requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.buckets import FaultyObjects, Lost, MemoryObjects, bucket, shown
from support.world import World
from weighbridge.proto.errors import Code, EnvironmentFault, Indeterminate, NotAuthentic
from weighbridge.verifier.ledger import Ledger, audit
from weighbridge.verifier.ledger.bucket_content import BucketContents
from weighbridge.verifier.ledger.source import BucketSource
from weighbridge.verifier.readiness import reachable_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import Engines

ORIGIN = "ledger.example/test"


class Storage:
    """Two prefixes of one bucket, behind one way on which requests can be lost."""

    def __init__(self) -> None:
        self.objects = {"ledger": MemoryObjects(), "content": MemoryObjects()}
        self.ways = {name: FaultyObjects(objects) for name, objects in self.objects.items()}

    def contents(self) -> BucketContents:
        return BucketContents(bucket(self.ways["content"]))


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def world(quick_dir: Path, request: pytest.FixtureRequest, engines: Engines, storage: Storage) -> Iterator[World]:
    directory = quick_dir / request.node.name.replace("/", "-")
    directory.mkdir()
    world = World.make(directory, engines=engines)
    world.ledger.close()
    world.ledger = Ledger.create(bucket(storage.ways["ledger"]), origin=ORIGIN, key=world.keys.ledger)
    world.contents = storage.contents
    world.restart()
    yield world
    world.close()


def check(world: World, storage: Storage) -> None:
    """The published ledger is whole, has no window twice, and each of its records and their evidence can be read."""
    shown(world.ledger)
    source = BucketSource(bucket(storage.objects["ledger"]))
    report = audit(source, world.ledger.key, ORIGIN)
    assert report.size == world.ledger.size
    records = world.archive.records
    windows: list[tuple[bytes, int | None]] = []
    for index in range(report.size):
        record = records.record(index)
        if record.evidence is not None:
            assert records.evidence(record)
        if record.kind == "window":
            windows.append((record.session, record.seq))
    assert len(windows) == len(set(windows))


def test_a_session_lives_through_restarts(world: World, storage: Storage) -> None:
    world.open_session()
    assert world.window().verdict.opens
    for _ in range(2):
        # All that was in memory is gone; the session is made again out of the bucket.
        world.ledger.close()
        world.ledger = Ledger.open(bucket(storage.ways["ledger"]), origin=ORIGIN, key=world.keys.ledger)
        world.restart()
        assert world.window().verdict.opens
    check(world, storage)
    names = [name.split("/")[0] for name in storage.objects["content"].objects]
    # Enrolment and three windows: one object each; what they share, and policy and reference, by digest.
    assert names.count("segments") == world.ledger.size == 4


@pytest.mark.parametrize("how", Lost)
@pytest.mark.parametrize("part", ["content", "ledger"])
def test_every_request_of_a_window_lost(world: World, storage: Storage, part: str, how: Lost) -> None:
    """No window is lost and none doubled, whatever becomes of any request; the session goes on."""
    world.open_session()
    assert world.window().verdict.opens
    way = storage.ways[part]
    way.how = how
    at = lost = 0
    while lost == at:
        at += 1
        world.clock.advance(1)
        sealed = world.host.seal()
        way.arm(at)
        refused = False
        try:
            assert world.deliver(sealed).verdict.opens
        except EnvironmentFault as error:
            assert error.code is Code.STORAGE_UNREACHABLE  # noqa: PT017 - or what is published behind it is lost
            refused = True
        shown(world.ledger)
        lost = min(way.count, at)
        way.arm(0)
        if refused:
            try:
                assert world.deliver(sealed).verdict.opens
            except NotAuthentic as known:
                # It was recorded all the same, and has been carried out by now.
                assert known.code is Code.WINDOW_DUPLICATE  # noqa: PT017 - one of two good ends
                world.host.advance(sealed)
                world.host.challenge = world.verifier.resume(world.host.session, peer=world.host.peer).challenge
        way.arrive()
        assert world.window().verdict.opens
    assert at > 1
    check(world, storage)


def test_evidence_that_is_gone_is_said_to_be(world: World, storage: Storage) -> None:
    world.open_session()
    index = world.window().index
    assert index is not None
    for name in [name for name in storage.objects["content"].objects if name.startswith("segments/")]:
        del storage.objects["content"].objects[name]
    with pytest.raises(Indeterminate) as caught:
        world.archive.records.record(index)
    assert caught.value.code is Code.EVIDENCE_ABSENT


def test_whoever_asks_whether_it_is_ready_is_told_that_the_ledger_cannot_be_read(
    world: World, storage: Storage
) -> None:
    check_ledger = reachable_ledger(BucketSource(bucket(storage.objects["ledger"])))
    check_ledger()
    world.ledger.close()
    storage.objects["ledger"].objects.clear()
    with pytest.raises(EnvironmentFault) as caught:
        check_ledger()
    assert caught.value.code is Code.FILE_UNREADABLE
