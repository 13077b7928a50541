"""Calls that may never return: what they return, raise, and what happens when they are late."""

from __future__ import annotations

import threading

import pytest

from weighbridge.attester.gpu.bounded import BoundedCalls
from weighbridge.proto.errors import Code, EnvironmentFault


def test_results_are_in_the_order_of_the_questions() -> None:
    gate = threading.Event()

    def first() -> str:
        assert gate.wait(5)
        return "first"

    def second() -> str:
        gate.set()
        return "second"

    assert BoundedCalls(5).together({"a": first, "b": second}) == ["first", "second"]


def test_whatever_is_raised_is_raised_here() -> None:
    def fails() -> None:
        raise KeyError("anything")

    with pytest.raises(KeyError, match="anything"):
        BoundedCalls(5).one("a", fails)


def test_nothing_is_asked_while_a_call_is_late() -> None:
    gate, calls = threading.Event(), BoundedCalls(0.05)
    asked: list[str] = []

    def hangs() -> None:
        assert gate.wait(30)

    with pytest.raises(EnvironmentFault) as caught:
        calls.together({"a": lambda: asked.append("a"), "b": hangs})
    assert (caught.value.code, caught.value.where) == (Code.GPU_TIMEOUT, "b")
    assert calls.stuck
    with pytest.raises(EnvironmentFault) as caught:
        calls.one("c", lambda: asked.append("c"))
    assert (caught.value.code, caught.value.where) == (Code.GPU_TIMEOUT, "b")
    assert asked == ["a"]
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "b":
            thread.join(5)
    calls.one("c", lambda: asked.append("c"))
    assert asked == ["a", "c"]


def test_the_process_can_end_while_a_call_hangs() -> None:
    gate, calls = threading.Event(), BoundedCalls(0.01)
    with pytest.raises(EnvironmentFault):
        calls.one("hangs", lambda: gate.wait(30))
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "hangs")
    assert thread.daemon
    gate.set()
    thread.join(5)
