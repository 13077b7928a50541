"""Rows A60 and A62: a record that agrees with its baseline opens a gate, and proves no weights: verdicts say so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from corpus.boot import case_001_known_host, case_002_attester_code_proven_in_production
from corpus.bundle import Exported, export
from corpus.telemetry import SERVING, UNIT, admitted_though, answers, baselined
from support.sensors import Undeclared
from weighbridge.verifier import result_token
from weighbridge.verifier.appraisal import NOT_PROVEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.core import Answer

WORDS = "telemetry can contradict and corroborate; it can never vouch for weights"


@pytest.fixture
def shaped(arena: Arena) -> World:
    """A session whose GPUs do a little more than is declared: no more than what their baseline's runs differ by."""
    world = baselined(arena, windows=0, work=SERVING)
    world.open_session()
    assert world.host.telemetry is not None
    world.host.telemetry = Undeclared(world.host.telemetry, tokens=100)
    return world


def test_what_is_admitted_says_what_is_not_proven(shaped: World) -> None:
    found = answers(shaped, UNIT + 2)
    for answer in found[UNIT - 1 :]:
        admitted_though(answer)
    # The word for the record says no more than that it agrees: of which baseline, and which change it would have seen.
    document = json.loads(found[-1].verdict.encode())
    for device in document["physical"]["devices"]:
        assert device["verdict"] == "in_baseline"
        assert device["baseline"]
        assert device["uncertainty_mw"] is not None


def test_verdicts_that_open_nothing_say_it_as_well(shaped: World) -> None:
    for answer in answers(shaped, UNIT):
        assert WORDS in json.loads(answer.verdict.encode())["not_proven"]
    assert WORDS in NOT_PROVEN


def test_a_bundle_of_it_says_so(arena: Arena, shaped: World) -> None:
    answers(shaped, UNIT + 1)
    result = Exported(arena.engines, shaped, export(shaped)).verify()
    assert result.verdicts[-1].opens
    assert WORDS in result.not_proven


@pytest.mark.parametrize(
    ("case", "status"),
    [(case_002_attester_code_proven_in_production, "affirming"), (case_001_known_host, "warning")],
    ids=["genuine by its anchors", "insecure-emulated"],
)
def test_a_token_for_emulated_hardware_is_never_better_than_a_warning(
    arena: Arena, case: Callable[[Arena], Answer], status: str
) -> None:
    """Everything else is proven: whoever reads no more than the status is not told that hardware vouches for it."""
    answer = case(arena)
    assert answer.verdict.outcome == "affirmed"
    assert answer.token is not None
    assert answer.verdict.attester_code is not None
    assert answer.verdict.attester_code.status == "proven"
    world = arena.worlds[-1]
    key = world.keys.signing.public_key()
    token = result_token.verify(answer.token, key, audience="relying-party", at=world.clock.at)
    assert token.status == status
