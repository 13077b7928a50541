"""Tasks in several processes: every part arrives, what fails fails alone, and a process that dies is not waited for."""

from __future__ import annotations

import os

import pytest

from support.counting import Counting
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.pool import Failed, run


def parts_of(results: list[object]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for result in results:
        if isinstance(result, tuple) and result[1] is not None:
            found.setdefault(result[0], []).append(result[1][0])
    return found


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_part_of_every_task_arrives(jobs: int) -> None:
    results: list[object] = list(run([3, 1, 0, 2, 4], Counting(), jobs=jobs))
    assert parts_of(results) == {3: [0, 1, 2], 1: [0], 2: [0, 1], 4: [0, 1, 2, 3]}
    assert sorted(item[0] for item in results if isinstance(item, tuple) and item[1] is None) == [0, 1, 2, 3, 4]
    pids = {item[1][1] for item in results if isinstance(item, tuple) and item[1] is not None}
    assert (pids == {os.getpid()}) is (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_fails_fails_alone(jobs: int) -> None:
    results: list[object] = list(run([2, 3, 1], Counting(fails=3), jobs=jobs))
    (failed,) = [item for item in results if isinstance(item, Failed)]
    assert (failed.task, failed.hint, failed.exit_code) == (3, "do not", ExitCode.MALFORMED)
    assert (failed.text, failed.document["code"]) == ("FIELD_RANGE: it fails, at task 3", "FIELD_RANGE")
    # What was found before it counts; nobody said that it was all.
    assert parts_of(results) == {2: [0, 1], 3: [0], 1: [0]}
    assert (3, None) not in results


def test_a_process_that_is_killed_takes_one_task_with_it() -> None:
    results: list[object] = list(run([3, 2, 1, 2, 1], Counting(dies=3), jobs=2))
    (failed,) = [item for item in results if isinstance(item, Failed)]
    assert (failed.task, failed.document["code"], failed.exit_code) == (3, "COMMAND_FAILED", ExitCode.ENVIRONMENT)
    assert failed.hint
    assert parts_of(results) == {3: [0], 2: [0, 1, 0, 1], 1: [0, 0]}


def test_a_defect_is_not_taken_for_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="a defect in another process"):
        list(run([2, 2], Counting(wrong=2), jobs=2))
    assert "ValueError: a defect" in capfd.readouterr().err
    with pytest.raises(ValueError, match="a defect"):
        list(run([2], Counting(wrong=2), jobs=1))


def test_whoever_stops_listening_ends_the_processes() -> None:
    results = run([50, 50], Counting(), jobs=2)
    first = next(results)
    assert not isinstance(first, Failed)
    assert first[1] is not None
    pid = first[1][1]
    assert pid != os.getpid()
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_there_may_be_nothing_to_do() -> None:
    assert list(run([], Counting(), jobs=2)) == []
