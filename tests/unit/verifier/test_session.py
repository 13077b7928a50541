"""Where a session can go, and where it never can."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from corpus.arena import Arena
from corpus.weights import OTHER
from weighbridge.proto import binding
from weighbridge.verifier.procedure import VerifiedWindow, authenticate, verify_window
from weighbridge.verifier.session import Position, SessionState, ledgered_log
from weighbridge.verifier.telemetry.state import DeviceState, TelemetryState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import Engines
    from weighbridge.proto.terms import Terms

S = SessionState
LEGAL = {
    S.OPENED: {S.ENROLLED, S.FAILED, S.INTERRUPTED, S.CLOSED},
    S.ENROLLED: {S.MEASURED, S.RUNNING, S.FAILED, S.INTERRUPTED, S.CLOSED},
    S.MEASURED: {S.MEASURED, S.RUNNING, S.FAILED, S.INTERRUPTED, S.CLOSED},
    S.RUNNING: {S.RUNNING, S.FAILED, S.INTERRUPTED, S.CLOSED},
    S.CLOSED: set(),
    S.FAILED: set(),
    S.INTERRUPTED: set(),
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("following", S)
def test_steps(state: SessionState, following: SessionState) -> None:
    """A72: nothing leads out of an end, least of all back to an admission."""
    if following in LEGAL[state]:
        assert state.to(following) is following
    else:
        with pytest.raises(RuntimeError, match=f"{state.value} -> {following.value}"):
            state.to(following)


def test_ends_are_final() -> None:
    assert {state for state in S if state.final} == {state for state, steps in LEGAL.items() if not steps}


def test_nothing_runs_before_it_was_enrolled() -> None:
    assert all(S.RUNNING not in LEGAL[state] for state in (S.OPENED, S.CLOSED, S.FAILED, S.INTERRUPTED))


# -- where the chain stands --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stood:
    """A session before its first window, and that window, verified."""

    terms: Terms
    start: Position
    window: VerifiedWindow


@pytest.fixture(scope="module")
def stood(quick_dir: Path, engines: Engines) -> Iterator[Stood]:
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        world = arena.settled(0)
        live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
        window = verify_window(
            authenticate(world.host.seal().evidence, enrolled=live.enrolled, peer=world.host.peer),
            enrolled=live.enrolled,
            position=live.position,
            held=False,
            spot=None,
            anchors=world.anchors,
            at=world.clock.at,
        )
        yield Stood(live.terms, live.position, window)
        arena.close()


def behind(position: Position, window: VerifiedWindow, *, obliged: bool = False) -> Position:
    return position.after(window, obliged=obliged, telemetry=position.telemetry)


def test_before_the_first_window(stood: Stood) -> None:
    start = stood.start
    assert (start.seq, start.prev, start.window) == (0, stood.terms.prev, None)
    assert (start.wall_end_ns, start.held, start.held_since_ns) == (0, 0, None)
    assert (start.spot_seq, start.spot_owed, start.telemetry) == (None, False, TelemetryState())


def test_what_the_next_window_must_continue(stood: Stood) -> None:
    window, telemetry = stood.window, TelemetryState(devices={bytes(32): DeviceState()})
    first = stood.start.after(window, obliged=False, telemetry=telemetry)
    assert (first.seq, first.window) == (1, window.digest)
    assert first.prev == binding.link(window.digest, window.qualifying_data)
    assert (first.quote, first.log, first.runtime) == (window.quote, window.log, window.runtime)
    assert first.wall_end_ns == window.header.interval.wall_end_ns
    assert first.telemetry == telemetry
    assert behind(first, window).seq == 2
    logged = ledgered_log(window)
    assert (logged.reset_count, logged.length, logged.head) == (1, len(window.log.records), window.log.head)


def test_gpu_reports_and_manifests_stand_until_there_are_others(stood: Stood) -> None:
    window = stood.window
    first = behind(stood.start, window)
    assert window.gpus is not None
    assert window.gpus != stood.start.gpus
    assert (first.gpus, first.manifests) == (window.gpus, window.manifests)
    second = behind(first, replace(window, gpus=None, manifests={OTHER.digest: OTHER}))
    assert (second.gpus, second.manifests) == (window.gpus, {**window.manifests, OTHER.digest: OTHER})


def test_held_windows_are_counted_from_the_first_until_a_fresh_one(stood: Stood) -> None:
    position, window, span = stood.start, stood.window, stood.window.header.interval
    since = span.wall_start_ns
    held = replace(window, held=True)
    late = replace(held, header=replace(window.header, interval=replace(span, wall_start_ns=since + 1)))
    counted: list[tuple[int, int, int | None]] = []
    for item in (held, late, late, window, late):
        position = behind(position, item)
        counted.append((position.seq, position.held, position.held_since_ns))
    assert counted == [(1, 1, since), (2, 2, since), (3, 3, since), (4, 0, None), (5, 1, since + 1)]


@pytest.mark.parametrize("owed", [False, True])
@pytest.mark.parametrize("obliged", [False, True])
@pytest.mark.parametrize(("answered", "held"), [(True, False), (True, True), (False, False), (False, True)])
def test_only_a_fresh_answer_passes_a_spot_check(
    stood: Stood, answered: bool, held: bool, obliged: bool, owed: bool
) -> None:
    """Whoever lets the window arrive late had more time. What a policy demands anew is owed whatever was passed."""
    window = replace(stood.window, spot=bytes(16) if answered else None, held=held)
    after = behind(replace(stood.start, spot_owed=owed), window, obliged=obliged)
    if answered and not held:
        assert (after.spot_seq, after.spot_owed) == (0, obliged)
    else:
        assert (after.spot_seq, after.spot_owed) == (None, obliged or owed)


def due(position: Position, terms: Terms, *, last: int | None) -> list[bool]:
    """Of windows 0 to 11, where ``last`` is the last one that passed a spot check."""
    return [replace(position, seq=seq, spot_seq=last).spot_due(terms) for seq in range(12)]


def test_a_spot_check_is_due_from_every_so_many_windows_on_until_one_is_passed(stood: Stood) -> None:
    terms = replace(stood.terms, spot_every=5)
    assert all(due(stood.start, terms, last=None))
    assert due(stood.start, terms, last=0) == [False] * 5 + [True] * 7
    assert due(stood.start, terms, last=4) == [False] * 5 + [True] * 7
    assert due(stood.start, terms, last=5) == [False] * 10 + [True] * 2
    assert not any(due(stood.start, terms, last=10))


def test_where_terms_demand_no_spot_check_only_a_policy_does(stood: Stood) -> None:
    terms = replace(stood.terms, spot_every=0)
    assert not any(due(stood.start, terms, last=None))
    assert all(due(replace(stood.start, spot_owed=True), terms, last=11))
