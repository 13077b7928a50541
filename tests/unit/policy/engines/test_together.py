"""Several windows asked about at once: of each comes what comes of it by itself, whatever comes of another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from weighbridge.policy import document as doc
from weighbridge.policy.engine import Decision, Limits, decide_all
from weighbridge.policy.engines.conformance import BenchEngine
from weighbridge.policy.engines.pool import Pool, _taken_apart
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import WorkerCrashed, WorkerRefused
from weighbridge.proto.errors import MalformedEvidence

PastChecker = Callable[..., PreparedPolicy]
LIMITS = Limits(decide_seconds=5.0)
# Of window 7 it is an error.
RULES = """allow if {
	input.window.seq != 7
	format_int(time.now_ns(), 10) == input.received_ns
}

allow if {
	input.window.seq == 7
	numbers.range(1, 1000000000)
}
"""


def windows(good: doc.PolicyInput, *numbers: int) -> list[doc.PolicyInput]:
    """Of these numbers, each received a day after the one before."""
    made: list[doc.PolicyInput] = []
    for day, seq in enumerate(numbers, 1):
        at, ns = doc.instant(datetime(2026, 11, day, tzinfo=UTC))
        made.append(replace(good, window=replace(good.window, seq=seq), received_at=at, received_ns=ns))
    return made


@pytest.fixture
def bench(engine: BenchEngine) -> Iterator[Pool]:
    made = engine.bench((), {}, LIMITS)
    assert isinstance(made, Pool)
    yield made
    made.close()


def values(answers: object) -> list[object]:
    assert isinstance(answers, list)
    return [json.loads(answer)["result"][0]["expressions"][0]["value"] for answer in answers]


def test_each_has_its_own_input_and_time(bench: Pool) -> None:
    asked = [(b'{"n": %d}' % number, 100 + number) for number in range(3)]
    assert values(bench.evaluate_all(b"[input.n, time.now_ns()]", asked)) == [[0, 100], [1, 101], [2, 102]]
    # More than a pipe holds, there and back.
    large = [(json.dumps("x" * 100_000).encode(), number) for number in range(3)]
    assert values(bench.evaluate_all(b"[count(input), input]", large)) == [[100_000, "x" * 100_000]] * 3


def test_where_one_is_an_error_nothing_is_said_and_the_worker_is_not_used_again(bench: Pool) -> None:
    (before, *_) = bench.pids[-1:]
    with pytest.raises(WorkerRefused):
        bench.evaluate_all(b"[numbers.range(1, input.n)]", [(b'{"n": 2}', 0), (b'{"n": "x"}', 0)])
    assert not Path(f"/proc/{before}").exists()
    assert values([bench.evaluate(b"[input.n]", b'{"n": 2}', now_ns=0)]) == [[2]]


@pytest.mark.parametrize(
    "answers", [b"", b"\0\0\0\1a", b"\0\0\0\1a\0\0\0\1b\0\0\0\1c", b"\0\0\0\1a\0\0\0\2b", b"\0\0\0\1a\0\0\0\3bcd"]
)
def test_answers_out_of_form_are_none(answers: bytes) -> None:
    assert _taken_apart(b"\0\0\0\1a\0\0\0\2bc", 2, 3) == [b"a", b"bc"]
    with pytest.raises(WorkerCrashed):
        _taken_apart(answers, 2, 3)


def test_decided_together_is_decided_each(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput
) -> None:
    prepared = past_checker(engine, RULES, replace(LIMITS, decide_seconds=1.0))
    asked = windows(good, 3, 4, 5)
    together = decide_all(prepared, asked)
    assert together == [prepared.decide(one) for one in asked]
    assert [one.outcome for one in together if isinstance(one, Decision)] == ["allow"] * 3
    # One of them has the engine die: it alone has no decision.
    found = decide_all(prepared, windows(good, 3, 7, 5))
    outcomes = [one.outcome for one in found if isinstance(one, Decision)]
    assert (outcomes[0], outcomes[2]) == ("allow", "allow")
    assert outcomes[1] in {"crashed", "timeout", "error"}
    # For a minute nobody waits for that once more.
    with mock.patch.object(Pool, "evaluate_all", autospec=True, side_effect=Pool.evaluate_all) as several:
        assert decide_all(prepared, asked) == together
        assert not several.called
        prepared._apart_until = time.monotonic()
        assert decide_all(prepared, asked) == together
        assert several.called


def test_a_policy_that_fails_keeps_no_other_from_being_asked_once(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput
) -> None:
    """Each tenant's policy waits for its own faults."""
    failing, other = past_checker(engine, RULES, LIMITS), past_checker(engine, RULES, LIMITS)
    with mock.patch.object(Pool, "evaluate_all", autospec=True, side_effect=WorkerCrashed("a test")):
        decide_all(failing, windows(good, 3, 4))
    with mock.patch.object(Pool, "evaluate_all", autospec=True, side_effect=Pool.evaluate_all) as several:
        decide_all(failing, windows(good, 3, 4))
        assert several.call_count == 0
        decide_all(other, windows(good, 3, 4))
        assert several.call_count == 1


def test_a_document_that_cannot_be_written_is_that_windows_fault(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput
) -> None:
    prepared = past_checker(engine, RULES, LIMITS)
    first, second = windows(good, 3, 4)
    odd = replace(second, session=replace(second.session, tenant="\ud800"))
    decided, error, last = decide_all(prepared, [first, odd, second])
    assert isinstance(error, MalformedEvidence)
    assert [decided, last] == [prepared.decide(first), prepared.decide(second)]


def test_more_than_one_may_be_is_asked_one_by_one(
    past_checker: PastChecker, engine: BenchEngine, good: doc.PolicyInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = windows(good, 3, 4)
    prepared = past_checker(engine, RULES, replace(LIMITS, input_max=len(asked[0].to_json()) + 100))
    monkeypatch.setattr(Pool, "evaluate_all", None)
    assert [one.outcome for one in decide_all(prepared, asked) if isinstance(one, Decision)] == ["allow"] * 2
