"""Steps of several pieces of work take turns; what each comes to is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier.side_by_side import at_once, finished, side_by_side

if TYPE_CHECKING:
    from weighbridge.verifier.side_by_side import Steps


def noting(name: str, steps: int, told: list[str], *, ends: Exception | None = None) -> Steps[str]:
    for number in range(steps):
        told.append(f"{name}{number}")
        yield
    if ends is not None:
        raise ends
    return name


def test_a_step_of_each_and_then_the_next_of_each() -> None:
    told: list[str] = []
    assert side_by_side([noting("a", 2, told), noting("b", 0, told), noting("c", 3, told)]) == ["a", "b", "c"]
    assert told == ["a0", "c0", "a1", "c1", "c2"]


def test_what_one_is_refused_with_keeps_no_other_from_going_on() -> None:
    told: list[str] = []
    refusal = NotAuthentic(Code.GPU_SIG, "refused")
    work = [noting("a", 1, told, ends=refusal), noting("b", 2, told)]
    assert side_by_side(work) == [refusal, "b"]
    assert told == ["a0", "b0", "b1"]


def test_a_defect_ends_all_of_them() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side([noting("a", 3, []), noting("b", 1, [], ends=ZeroDivisionError())])


def test_nothing_to_do_comes_to_nothing() -> None:
    assert side_by_side([]) == []


def test_one_alone_is_done_at_once() -> None:
    told: list[str] = []
    assert finished(noting("a", 2, told)) == "a"
    assert at_once(noting)("b", 1, told) == "b"
    assert told == ["a0", "a1", "b0"]
    with pytest.raises(NotAuthentic):
        at_once(noting)("c", 1, told, ends=NotAuthentic(Code.GPU_SIG, "refused"))
