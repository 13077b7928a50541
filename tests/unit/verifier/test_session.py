"""Where a session can go, and where it never can."""

from __future__ import annotations

import pytest

from weighbridge.verifier.session import SessionState

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
