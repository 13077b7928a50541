"""A policy's denial ends the session; it sticks to the host unless the policy says that it speaks of something else."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from weighbridge.policy.engine import Decision, Denial
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.verifier.live import LiveSessions

if TYPE_CHECKING:
    from collections.abc import Generator

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.document import PolicyInput

HOLIDAY = Denial("HOLIDAY", None, None, None, None, None, "nobody works today", sticks=False)
RUDE = replace(HOLIDAY, code="RUDE", sticks=True)


class PowerLost(BaseException):
    """Nothing after this point has happened."""


@contextlib.contextmanager
def denying(world: World, *denials: Denial) -> Generator[None]:
    decide = world.prepared.decide

    def refused(document: PolicyInput) -> Decision:
        mine = tuple(replace(denial, window=document.window.seq) for denial in denials)
        return replace(decide(document), outcome="deny", denials=mine)

    with mock.patch.object(world.prepared, "decide", refused):
        yield


def failed_code(world: World) -> str | None:
    assert world.host.terms is not None
    with world.store.transaction() as tx:
        subject = tx.subjects.of("ak", world.host.terms.terms.ak)
    return None if subject is None else subject.failed_code


@pytest.mark.parametrize(
    ("denials", "sticks"), [((HOLIDAY,), None), ((RUDE,), Code.POLICY_DENIED), ((HOLIDAY, RUDE), Code.POLICY_DENIED)]
)
@pytest.mark.parametrize("power_fails", [False, True])
def test_what_sticks(arena: Arena, denials: tuple[Denial, ...], sticks: Code | None, power_fails: bool) -> None:
    world = arena.world()
    world.open_session()
    world.window()
    with denying(world, *denials):
        if power_fails:
            with mock.patch.object(LiveSessions, "_write_end", side_effect=PowerLost), pytest.raises(PowerLost):
                world.window()
            world.restart()
        else:
            answer = world.window()
            assert answer.verdict.outcome == "denied"
            assert [item["sticks"] for item in answer.verdict.document()["denials"]] == [  # type: ignore[union-attr, call-overload, index]
                denial.sticks for denial in denials
            ]
    assert failed_code(world) == sticks
    with pytest.raises(PolicyDenied) as refused:
        world.verifier.resume(world.host.session, peer=world.host.peer)
    assert refused.value.code is Code.SESSION_FAILED
    if sticks is None:
        world.host.enrol(world.verifier)
        assert world.window().verdict.opens


@pytest.mark.parametrize(
    ("code", "sticks"),
    [
        (Code.TELEMETRY_UNUSABLE, False),
        (Code.TELEMETRY_NO_BASELINE, False),
        (Code.TELEMETRY_OUT_OF_BASELINE, True),
        (Code.TELEMETRY_IMPLAUSIBLE, True),
    ],
)
def test_an_alarm_of_the_physical_record_sticks_and_its_absence_does_not(
    arena: Arena, code: Code, sticks: bool
) -> None:
    """Nobody escapes an alarm by enrolling again; an owner who signs no baseline in time has no fleet to clear."""
    world = arena.world()
    world.open_session()
    world.window()
    with denying(world, replace(RUDE, code=code.value), HOLIDAY):
        assert world.window().verdict.outcome == "denied"
    assert failed_code(world) == (code if sticks else None)
