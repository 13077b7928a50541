"""What every error promises whoever reads it: one line, nothing that steers a terminal, and a way on."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, ExitCode, MalformedEvidence, NotAuthentic

# The codes under "this machine" in the enum, and those of the weights on its disk.
FAULTS = (*list(Code)[list(Code).index(Code.PORT_UNAVAILABLE) :], Code.WEIGHTS_UNREADABLE)


@given(st.text(st.characters()))
@example("\x1b[31mred\r\nweighbridge: all is well")
@example("\udcff half a character, and \u202e text the other way round")
def test_text_from_whoever_is_refused_stays_on_one_line(text: str) -> None:
    error = MalformedEvidence(
        Code.FIELD_RANGE, text, where=text, expected=text, got=text, clause=text, hint=f"{text} and so on"
    )
    assert str(error).isprintable()
    assert error.hint.isprintable()
    document = error.document()
    assert all(value is None or value.isprintable() for value in document.values())
    assert strict.json_decode(strict.json_encode({**document}), what="document") == document


def test_text_that_can_be_printed_is_not_touched() -> None:
    error = NotAuthentic(Code.WINDOW_PEER, "größer", where="Modell „λ“ [0]", got=b"\x01\xff")
    assert str(error) == "WINDOW_PEER: größer, at Modell „λ“ [0], got 01ff"


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_of_this_machine_says_what_to_do(code: Code) -> None:
    fault = EnvironmentFault(code, "it does not work")
    assert fault.hint
    assert fault.exit_code is ExitCode.ENVIRONMENT
    assert EnvironmentFault(code, "it does not work", hint="do this").hint == "do this"


def test_a_refusal_needs_no_hint() -> None:
    assert NotAuthentic(Code.WINDOW_FORK, "two windows").document()["hint"] is None


def test_a_file_is_named_once() -> None:
    for where, told in (("", "a.json: "), ("evidence[0]", "a.json: evidence[0]"), ("a.json.rim", "a.json.rim")):
        refused = MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where).in_file("a.json", what="it", hint="")
        assert refused.where == told
