"""Enrolments that are opened and not proven: so many, and whoever is one too many is asked to come again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from support.world import World
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier import enroller

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import Engines, Host
    from weighbridge.proto.enrolment import EnrolmentChallenge
    from weighbridge.verifier.core import Verifier


@pytest.fixture
def world(tmp_path: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(enroller, "_PENDING_MAX", 2)
    made = World.make(tmp_path, engines=engines)
    yield made
    made.close()


class Silent(Exception):
    """The host has its challenge and says no more."""


class Opening:
    """A verifier whose challenges are not answered."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def open(self, data: bytes, *, peer: bytes) -> NoReturn:
        challenge: EnrolmentChallenge = self._verifier.open(data, peer=peer)
        raise Silent(challenge)


def opens(world: World, host: Host) -> None:
    with pytest.raises(Silent):
        host.enrol(Opening(world.verifier))  # type: ignore[arg-type]  # it opens, and no more is asked of it


def test_too_many_open_enrolments_are_asked_to_come_again(world: World) -> None:
    hosts = [world.host, *(world.another_host(f"host {number}") for number in range(2))]
    for host in hosts[:2]:
        opens(world, host)
    with pytest.raises(EnvironmentFault) as caught:
        opens(world, hosts[2])
    assert caught.value.code is Code.RATE_LIMITED
    # Whoever was silent for a minute has no place any more.
    world.clock.advance(61)
    opens(world, hosts[2])
    world.open_session(hosts[2])
    assert world.verifier.resume(hosts[2].session, peer=hosts[2].peer).next_seq == 0
