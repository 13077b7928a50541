"""One session after the other: what speaks against a GPU is not escaped by closing one and opening another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from corpus.bundle import Exported, export
from corpus.telemetry import UNIT, baselined, sensing
from support.sensors import Undeclared
from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.proto.telemetry import Channel
from weighbridge.verifier.clearing import clear
from weighbridge.verifier.record import Record
from weighbridge.verifier.steps import subjects_of
from weighbridge.verifier.telemetry.remains import NO_REMAINS

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.core import Answer

# Tokens in each second that nobody declares: more than twice the power, and a tenth more.
MUCH = 600
LITTLE = 20


@pytest.fixture
def world(arena: Arena) -> World:
    """Under the production policy, which demands a baseline; nothing is enrolled yet."""
    return baselined(arena, windows=0)


def session(world: World, windows: int, hidden: Callable[[int], int] = lambda _: 0) -> list[Answer]:
    """Another session, of so many windows unless one is denied, each with undeclared work beside what is declared."""
    if world.host.terms is not None:
        world.verifier.close(world.host.session, peer=world.host.peer)
    world.open_session()
    assert world.host.telemetry is not None
    sensors = world.host.telemetry = Undeclared(world.host.telemetry, tokens=0)
    answers: list[Answer] = []
    while len(answers) < windows and not (answers and answers[-1].verdict.outcome == "denied"):
        sensors.tokens = hidden(len(answers))
        answers.append(world.window())
    return answers


def at_the_end(number: int) -> int:
    return MUCH if number >= UNIT else 0


def device(answer: Answer) -> dict[str, Any]:
    physical = json.loads(answer.verdict.encode())["physical"]
    assert isinstance(physical, dict)
    found = physical["devices"][0]
    assert isinstance(found, dict)
    return found


def record_of(world: World, answer: Answer) -> Record:
    return world.archive.records.record(answer.index)


def caught(world: World) -> Answer:
    """The window in which it is seen what two sessions had hidden behind their last unit."""
    for _ in range(2):
        answers = session(world, UNIT + 8, at_the_end)
        assert [answer.verdict.outcome for answer in answers[: UNIT + 4]] == ["indeterminate"] * 9 + ["affirmed"] * 5
        # The unit that has begun is half there by then.
        assert {answer.verdict.outcome for answer in answers[UNIT + 4 :]} == {"indeterminate"}
    (answer,) = session(world, UNIT + 8)
    return answer


def test_what_sessions_hide_behind_their_last_unit_is_found(arena: Arena, world: World) -> None:
    answer = caught(world)
    verdict = answer.verdict
    assert (verdict.outcome, verdict.telemetry) == ("denied", "out_of_baseline")
    assert {denial.code for denial in verdict.denials} == {Code.TELEMETRY_OUT_OF_BASELINE}
    assert "above what declared work explains, in 16.0 s that no unit has, as sessions ended" in device(answer)["why"]
    for gpu in world.host.gpus.identities():
        with world.store.transaction() as tx:
            subject = tx.subjects.of("gpu", gpu)
        assert subject is not None
        assert subject.failed_code == Code.TELEMETRY_OUT_OF_BASELINE
    with pytest.raises(PolicyDenied) as refusal:
        world.open_session()
    assert refusal.value.code == Code.SUBJECT_FAILED
    # Whoever judges this session alone, elsewhere, has nothing of those before it but what its record says.
    history = record_of(world, answer).history
    assert history is not None
    assert [past.device for past in history.pasts] == sorted(world.host.gpus.identities())
    assert {past.seq for past in history.pasts} == {UNIT + 7}
    again = Exported(arena.engines, world, export(world)).verify()
    assert again.denied[0].encode() == verdict.encode()


def test_a_restart_between_sessions_forgives_nothing(world: World) -> None:
    session(world, UNIT + 8, at_the_end)
    world.restart()
    session(world, UNIT + 8, at_the_end)
    world.restart()
    (answer,) = session(world, 1)
    assert answer.verdict.telemetry == "out_of_baseline"


def test_an_operator_who_forgives_lets_the_record_begin_anew(world: World) -> None:
    caught(world)
    assert world.host.terms is not None
    for kind, identity in subjects_of(world.host.terms.terms):
        _, index = clear(world.archive, world.store, kind, identity, reason="a test of ours", at=world.clock.at)
        forgotten = json.loads(world.archive.records.record(index).verdict)["forgotten"]
        assert [past["units"] for past in forgotten] == ([2] if kind == "gpu" else [])
    world.host.terms = None
    answers = session(world, UNIT + 1)
    assert [answer.verdict.outcome for answer in answers] == ["indeterminate"] * (UNIT - 1) + ["affirmed"] * 2
    history = record_of(world, answers[0]).history
    assert history is not None
    assert history.pasts == ()


def test_a_little_all_the_time_is_found_though_no_session_fills_a_block(world: World) -> None:
    # A block of this baseline is six units; sessions of four never come to its end.
    found: list[Answer] = []
    for _ in range(3):
        found += session(world, 5 * UNIT - 1, lambda _: LITTLE)
        if found[-1].verdict.outcome == "denied":
            break
    assert found[-1].verdict.telemetry == "out_of_baseline"
    assert "statistic" in device(found[-1])["why"]
    assert 5 * UNIT <= len(found) < 10 * UNIT


def test_honest_sessions_that_end_amid_a_unit_are_affirmed_one_after_the_other(world: World) -> None:
    # Two blocks of six units, and six times two ends of sessions.
    for number in range(12):
        answers = session(world, UNIT + 5)
        words = [answer.verdict.outcome for answer in answers]
        assert words == ["indeterminate"] * (UNIT - 1) + ["affirmed"] * 6, (number, device(answers[-1])["why"])
    with world.store.transaction() as tx:
        (past,) = tx.traces.pasts(world.host.gpus.identities()[0])
    assert (past.evidence.units, past.row, past.lapses) == (12, 12, 0)
    # Two sessions' ends are a unit: that much was looked at each time, and let go.
    assert past.remains.lasts_ns <= 10_000_000_000


def test_what_was_lost_in_one_session_is_held_against_the_next(world: World) -> None:
    def failing(source: Source) -> Source:
        return replace(source, channels={**source.channels, "power": Channel("mW", None)})

    for _ in range(2):
        assert session(world, UNIT)[-1].verdict.outcome == "affirmed"
        sensing(world, failing)
        assert world.window().verdict.outcome == "indeterminate"
    answers = session(world, 2 * UNIT)
    assert [answer.verdict.outcome for answer in answers] == ["indeterminate"] * (2 * UNIT - 1) + ["affirmed"]
    assert device(answers[-2])["why"].startswith("1 of 2 units in a row")


def test_a_session_without_a_unit_is_owed_nothing(world: World) -> None:
    session(world, UNIT)
    session(world, UNIT - 1, lambda _: MUCH)
    with world.store.transaction() as tx:
        (past,) = tx.traces.pasts(world.host.gpus.identities()[0])
    # No gate was open in it.
    assert (past.row, past.remains) == (1, NO_REMAINS)
    assert session(world, UNIT)[-1].verdict.outcome == "affirmed"
