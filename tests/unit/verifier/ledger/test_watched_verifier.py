"""The log of a verifier at work, as its watcher sees it: what honest hosts leave there, and what others do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corpus.weights import OTHER
from support.authors import LIMITS, PolicyGate
from support.forge import claim, seal
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.ledger.monitor import Monitor
from weighbridge.verifier.ledger.source import DirectorySource

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World


def told(world: World, *, later: float = 0) -> list[str]:
    """What somebody tells who looks at the log for the first time, ``later`` seconds from now."""
    monitor = Monitor(
        DirectorySource(world.directory / "ledger"),
        world.ledger.key,
        silence_ns=30 * 10**9,
        stall_ns=None,
        keep=lambda name, data: Path(name, str(len(data))),
    )
    look = monitor.look(None, now_ns=nanoseconds(world.clock.at) + round(later * 10**9))
    return [event.kind for event in look.events]


def test_a_session_from_its_enrolment_to_its_closing(arena: Arena) -> None:
    world = arena.settled(3)
    assert told(world, later=20) == []
    assert told(world, later=40) == ["silent"]
    world.verifier.close(world.host.session, peer=world.host.peer)
    assert told(world, later=40) == []


def test_held_windows_continue_their_chain(arena: Arena) -> None:
    world = arena.settled(1)
    late = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000
    world.window()
    assert told(world) == []


def test_a_session_that_failed_is_missed(arena: Arena) -> None:
    """Its last window is there, and nothing after it."""
    world = arena.settled(2)
    world.host.log.load(OTHER)
    assert world.window().verdict.outcome == "denied"
    assert (told(world), told(world, later=40)) == ([], ["silent"])


def test_a_fork_of_a_host_stays_in_the_log(arena: Arena) -> None:
    world = arena.settled(2)
    assert arena.submit(world, seal(world.host, claim(seq=0))).verdict.outcome == "denied"
    assert told(world) == ["twice"]


def test_another_policy_judges(arena: Arena) -> None:
    gate = PolicyGate.make(arena)
    gate.opened(gate.author.content({"gate.rego": LIMITS, "data.json": b'{"most": 1}'}))
    gate.publish(gate.author.content(number=2))
    assert gate.world.window().verdict.opens
    assert told(gate.world) == ["policy"]
