"""What ends, slows or leaps while a session runs: gates close in time, nothing is lost, nobody else is to blame."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from fakes.broken_files import FaultyFiles
from support.world import NOON, World, requirements
from weighbridge.proto.errors import Code, NotAuthentic, PolicyDenied
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.ledger.audit import audit
from weighbridge.verifier.ledger.log import Ledger
from weighbridge.verifier.told import GateState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.world import Engines
    from weighbridge.verifier.told import Told

LASTS = timedelta(seconds=3.5)


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    made = World.make(tmp_path, engines=engines)
    yield made
    made.close()


def told(world: World) -> Told:
    return world.verifier.standing(world.host.session, world.clock.now())


def end(world: World, purpose: str, until: timedelta | None) -> None:
    """The verifier comes up with its anchors of this purpose good until then, or as they were made."""
    made = {"tpm-ek-root": world.host.tpm.authority.anchors("insecure-emulated").anchors[0]}
    world.anchors = TrustAnchors(
        tuple(
            replace(anchor, not_after=made.get(anchor.purpose, anchor).not_after if until is None else NOON + until)
            if anchor.purpose == purpose
            else anchor
            for anchor in world.anchors.anchors
        )
    )
    world.restart()


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["tpm-ek-root", "nvidia-device-root"])
def test_what_vouches_for_a_device_ends_in_mid_session(world: World, purpose: str) -> None:
    """The window after it is refused and recorded, the gate shuts at once; the host comes again when it is renewed."""
    good = world.anchors
    end(world, purpose, LASTS)
    world.open_session()
    assert [world.window().verdict.outcome for _ in range(3)] == ["affirmed"] * 3
    assert told(world).is_open
    verdict = world.window().verdict
    assert (verdict.outcome, [denial.code for denial in verdict.denials]) == ("denied", [Code.CHAIN_EXPIRED])
    assert told(world).state is GateState.ENDED
    with pytest.raises(PolicyDenied) as caught:
        world.window()
    assert caught.value.code is Code.SESSION_FAILED
    # Whoever comes while it lasts no more is not enrolled; nothing sticks to the AK or the GPUs.
    with pytest.raises(NotAuthentic) as refused:
        world.open_session()
    assert refused.value.code is Code.CHAIN_EXPIRED
    world.anchors = good
    world.restart()
    world.host.wall_ns += 2_000_000_000
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"


def test_what_is_renewed_in_time_keeps_its_sessions(world: World) -> None:
    _renewed_in_time(world, "tpm-ek-root")


def test_what_vouches_for_gpus_is_renewed_between_their_reports(tmp_path: Path, engines: Engines) -> None:
    """The last report before is believed by what vouches for it now."""
    world = World.make(tmp_path, engines=engines, wanted=requirements(gpu_every=20))
    _renewed_in_time(world, "nvidia-device-root")
    world.close()


def _renewed_in_time(world: World, purpose: str) -> None:
    good = world.anchors
    end(world, purpose, LASTS)
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    world.anchors = good
    world.restart()
    assert [world.window().verdict.outcome for _ in range(4)] == ["affirmed"] * 4


# -- the driver --------------------------------------------------------------------------------------------------------


def test_a_driver_that_is_reloaded_as_it_was_ends_nothing_and_another_one_ends_the_session(world: World) -> None:
    """Reports name the driver: one without a reference is not admitted, which says nothing against the GPUs."""
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    gpus = world.host.gpus
    loaded = gpus.devices
    gpus.devices = tuple(replace(device) for device in loaded)
    assert world.window().verdict.outcome == "affirmed"
    gpus.devices = tuple(replace(it, firmware=replace(it.firmware, driver="590.48.01")) for it in loaded)
    verdict = world.window().verdict
    assert (verdict.outcome, {denial.code for denial in verdict.denials}) == ("denied", {Code.GPU_REFERENCE_ABSENT})
    assert told(world).state is GateState.ENDED
    gpus.devices = loaded
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"


# -- a slow disk -------------------------------------------------------------------------------------------------------


class SlowFiles(FaultyFiles):
    """Each operation takes a while of the world's time."""

    def __init__(self, world: World, seconds: float) -> None:
        super().__init__(number=errno.EIO)
        self._world = world
        self.seconds = seconds

    def _do(self, operation: Callable[[], None], half: Callable[[], None] | None = None) -> None:
        super()._do(operation, half)
        self._world.clock.advance(self.seconds)


def test_a_disk_that_takes_longer_than_a_token_lasts_opens_no_gate_and_loses_no_window(world: World) -> None:
    """A window counts from its receipt: an answer that the disk has held up too long is none that opens."""
    slow = SlowFiles(world, 0.0)
    world.ledger.close()
    world.ledger = Ledger.open(
        world.directory / "ledger", origin="ledger.example/test", key=world.keys.ledger, files=slow
    )
    world.files = slow
    world.restart()
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    assert told(world).is_open
    slow.seconds = 1.0
    received = world.clock.now() + timedelta(seconds=1)
    answer = world.window()
    assert answer.verdict.outcome == "affirmed"
    late = world.clock.now()
    assert late - received > timedelta(seconds=5)
    assert not told(world).is_open
    assert told(world).code == Code.TOKEN_EXPIRED
    # As quick as it was: the challenge that came with the late answer is old by then; the one after it opens.
    slow.seconds = 0.0
    world.host.wall_ns += int((late - received).total_seconds()) * 1_000_000_000
    assert [world.window().verdict.outcome for _ in range(2)] == ["held", "affirmed"]
    assert told(world).is_open
    key = world.ledger.key
    assert audit(world.directory / "ledger", key, key.name).size == world.ledger.size
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    assert [world.archive.records.record(index).seq for index in indices] == [0, 1, 2, 3]


# -- the clock of the verifier -----------------------------------------------------------------------------------------


def test_a_verifier_whose_clock_leaps_forward_opens_nothing_that_was_sealed_before(world: World) -> None:
    """What came in time by the old clock is late by the new one: held, recorded, and the next window opens again."""
    world.open_session()
    assert world.window().verdict.outcome == "affirmed"
    world.clock.advance(3600)
    assert not told(world).is_open
    assert world.window().verdict.outcome == "held"
    assert not told(world).is_open
    world.host.wall_ns += 3600 * 1_000_000_000
    assert world.window().verdict.outcome == "affirmed"
    assert told(world).is_open
