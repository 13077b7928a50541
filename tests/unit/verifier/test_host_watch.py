"""Host sets while a verifier serves: taken beside sets of models, replaced, refused, recorded with every verdict."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import Exported, export
from support.gate import Gate
from support.host_owners import HostOwner, accepted
from support.owners import DAY
from support.world import NOON, reference_for
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.reference_watch import ReferenceWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from corpus.arena import Arena
    from weighbridge.proto.host_set import HostSet

OWNER = HostOwner()
FILES = (accepted("python", attester=True), accepted("bash"))


class Hosted:
    """A gate that also watches the file of a host set."""

    def __init__(self, arena: Arena) -> None:
        self.gate = Gate.make(arena, own_models=True)
        self.path = self.gate.world.directory / "host.set"

    def publish(self, content: HostSet) -> None:
        self.put(OWNER.sign(content))

    def put(self, data: bytes) -> None:
        staging = self.path.with_name("host staging")
        staging.write_bytes(data)
        staging.replace(self.path)

    def start(self, *paths: Path) -> ReferenceWatch:
        world, gate = self.gate.world, self.gate
        watch = ReferenceWatch(
            [self.path, *paths],
            own=reference_for(world.host.gpus, list(world.models.values())),
            anchors=TrustAnchors((OWNER.anchor(), HostOwner("Beta").anchor(), *gate.anchors.anchors)),
            store=world.store,
            policies=gate.policies(),
            manifests=world.models,
            report=gate.lines.append,
        )
        appraiser = watch.open(world.clock.at)
        world.prepared, world.reference = appraiser.policy, appraiser.reference
        world.restart(appraiser).follow(watch)
        return watch

    def recorded(self) -> list[Reference]:
        """The values by which each window was judged."""
        world = self.gate.world
        with world.store.transaction() as tx:
            indices = tx.window_indices(world.host.session)
        names = [world.archive.records.record(index).reference for index in indices]
        return [Reference.recorded(world.archive.records.reference(name)) for name in names]


@pytest.fixture
def hosted(arena: Arena) -> Hosted:
    return Hosted(arena)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


def test_the_set_in_force_is_recorded_with_each_verdict_and_judged_by_again(hosted: Hosted, arena: Arena) -> None:
    world = hosted.gate.world
    hosted.publish(OWNER.content(files=FILES))
    hosted.start()
    begin, end = NOON - DAY, NOON + 10 * DAY
    valid = f"{strict.time_encode(begin)} to {strict.time_encode(end)}"
    assert hosted.gate.lines == [f"host set of Acme Hosting, gpu-node, number 1: 1 register, 2 files, valid {valid}"]
    world.open_session()
    assert world.window().verdict.opens
    hosted.publish(OWNER.content({1: [bytes(32)]}, number=2, files=FILES[:1]))
    assert world.window().verdict.opens
    first, second = hosted.recorded()
    assert [item.number for values in (first, second) for item in values.hosts] == [1, 2]
    assert first.hosts[0].files == {file.name for file in FILES}
    assert dict(second.hosts[0].pcrs) == {1: (bytes(32),)}
    assert second.hosts[0].attester == {FILES[0].name}
    made = Exported(arena.engines, world, export(world))
    result = made.verify()
    assert (result.same_policy, result.recorded_reference, len(made.bundle.references)) == (True, True, 2)


def test_sets_of_models_and_of_hosts_are_watched_together(hosted: Hosted) -> None:
    gate = hosted.gate
    gate.publish(gate.owner.content(gate.world.host.model))
    hosted.publish(OWNER.content())
    watch = hosted.start(gate.path)
    at = gate.world.clock.at
    gate.publish(gate.owner.content(gate.world.host.model, number=2))
    renewed = watch.renew(at)
    assert renewed is not None
    assert ([item.number for item in renewed.reference.sets], [item.number for item in renewed.reference.hosts]) == (
        [2],
        [1],
    )
    hosted.publish(OWNER.content(number=2))
    renewed = watch.renew(at)
    assert renewed is not None
    assert [item.number for item in renewed.reference.hosts] == [2]
    assert watch.renew(at) is None


def test_an_older_set_is_not_taken_and_not_even_after_a_restart(hosted: Hosted) -> None:
    hosted.publish(OWNER.content(number=2))
    watch = hosted.start()
    hosted.publish(OWNER.content({1: [bytes(32)]}, number=1))
    assert watch.renew(hosted.gate.world.clock.at) is None
    assert "REFERENCE_ROLLBACK" in hosted.gate.lines[-2]
    assert code_of(hosted.start) is Code.REFERENCE_ROLLBACK


def test_what_cannot_be_taken_leaves_what_was_there_until_its_own_end(hosted: Hosted) -> None:
    world = hosted.gate.world
    hosted.publish(OWNER.content(not_after=world.clock.at + timedelta(seconds=2)))
    watch = hosted.start()
    stranger, beta = HostOwner("Mallory"), HostOwner("Beta")
    for data, code in (
        (b"", Code.NOT_CBOR),
        (OWNER.sign(OWNER.content(number=2))[:-1], Code.NOT_CBOR),
        (stranger.sign(stranger.content(number=9)), Code.CHAIN_UNTRUSTED),
        (beta.sign(beta.content(number=9)), Code.REFERENCE_ROLLBACK),
        (OWNER.sign(OWNER.content(number=9, name="other")), Code.REFERENCE_ROLLBACK),
    ):
        hosted.put(data)
        told = len(hosted.gate.lines)
        assert watch.renew(world.clock.at) is None
        assert code.value in hosted.gate.lines[told]
    (kept,) = world.reference.hosts
    assert (kept.number, kept.valid(world.clock.at + timedelta(seconds=3))) == (1, False)


def test_a_set_that_is_not_valid_now_is_told(hosted: Hosted) -> None:
    hosted.publish(OWNER.content(not_before=hosted.gate.world.clock.at + timedelta(days=1)))
    hosted.start()
    assert hosted.gate.lines[-1].endswith("NOT VALID NOW: no host matches it")


def test_two_files_of_one_line_are_refused(hosted: Hosted, tmp_path: Path) -> None:
    other = tmp_path / "other.set"
    hosted.publish(OWNER.content())
    other.write_bytes(OWNER.sign(OWNER.content(name="cpu-node")))
    hosted.start(other)
    other.write_bytes(OWNER.sign(OWNER.content(number=2)))
    assert code_of(lambda: hosted.start(other)) is Code.DUPLICATE_KEY
