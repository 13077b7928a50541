"""A verifier's state directory with sessions of every kind in it, and policies to judge them by once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from corpus.bundle import believed, export
from support.world import PERIOD_NS, Host, World, manifest
from weighbridge.verifier.clock import nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

    from support.world import Engines

LENIENT: Final = """package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if count(deny) == 0

deny contains d if some d in lib.always
"""
"""Denies what every policy denies; an emulated machine is as good as any."""
STRICT: Final = f"""{LENIENT}
deny contains d if {{
	not input.window.seq == 0
	d := lib.denial("TOO_LONG", null, "sessions of more than one window are not wanted", null, null, null)
}}
"""
FAILING: Final = f"""{LENIENT}
deny contains d if {{
	to_number(input.session.tenant) > 1
	d := lib.denial("NOT_SO", null, "not so", null, null, null)
}}
"""


@dataclass(frozen=True)
class Recorded:
    """A state directory, and what is in it.

    Attributes:
        state: the directory, with its own anchors in it.
        world: whose it is.
        sessions: by what came of each: ``affirmed``, ``held``, ``denied``, ``refused``.
        manifest: of the model that all of them declare.
    """

    state: Path
    world: World
    sessions: dict[str, bytes]
    manifest: Path

    def bundle(self, kind: str) -> Path:
        """The bundle of a session."""
        path = self.state / f"{kind}.wb"
        path.write_bytes(export(self.world, session=self.sessions[kind]).encode())
        return path


def record(directory: Path, engines: Engines) -> Recorded:
    """Four sessions of four hosts, and one that interrupts the second.

    Three windows affirmed, and closed; affirmed, held, affirmed, and interrupted; the second window denied by another
    policy, which was in force for it alone; the second window refused before any policy.
    """
    world = World.make(directory, engines=engines)
    sessions: dict[str, bytes] = {}
    first = world.host
    world.open_session()
    for _ in range(3):
        assert world.window().verdict.opens
    world.verifier.close(world.host.session, peer=world.host.peer)
    sessions["affirmed"] = first.session

    _turn_to(world, "the held one")
    assert world.window().verdict.opens
    late = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000
    assert world.window().verdict.opens
    sessions["held"] = world.host.session
    world.open_session()

    _turn_to(world, "the denied one")
    assert world.window().verdict.opens
    world.policy = "production"
    world.judge_by(engines, world.reference)
    assert world.window().verdict.outcome == "denied"
    sessions["denied"] = world.host.session
    world.policy = "insecure_development"
    world.judge_by(engines, world.reference)

    _turn_to(world, "the refused one")
    assert world.window().verdict.opens
    world.host.log.load(manifest("undeclared", weights=b"others"))
    assert world.window().verdict.outcome == "denied"
    sessions["refused"] = world.host.session

    (directory / "origin").write_text(world.ledger.key.name, encoding="ascii")
    (directory / "anchors.json").write_bytes(believed(world).encode())
    path = directory / "tiny.json"
    path.write_bytes(first.model.to_json())
    return Recorded(directory, world, sessions, path)


def _turn_to(world: World, name: str) -> Host:
    world.host = world.another_host(name)
    world.host.wall_ns = nanoseconds(world.clock.at) - PERIOD_NS
    world.open_session()
    return world.host
