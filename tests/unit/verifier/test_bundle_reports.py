"""What the devices of a recorded session signed, and what is not taken for it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import believed, export
from support.forge import claim, random_bytes, seal
from support.world import requirements
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic
from weighbridge.verifier.bundle_reports import recorded_reports

if TYPE_CHECKING:
    from corpus.arena import Arena


def test_made_by_the_verification_alone(arena: Arena) -> None:
    world = arena.settled(1)
    found = recorded_reports(export(world), anchors=believed(world), seq=0)
    assert {report.nonce for report in found.devices} == {found.nonce}
    with pytest.raises(TypeError, match="recorded_reports"):
        replace(found, seal=object())
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(found)


def test_window_that_failed_is_not_taken_for_one(arena: Arena) -> None:
    """It is recorded, and so is why it was refused: the same again."""
    world = arena.settled(2)
    arena.submit(world, seal(world.host, claim(challenge=random_bytes("of my own"))))
    assert recorded_reports(export(world), anchors=believed(world), seq=1).outcome == "affirmed"
    with pytest.raises(NotAuthentic) as refusal:
        recorded_reports(export(world), anchors=believed(world), seq=2)
    assert refusal.value.code is Code.CHALLENGE_UNKNOWN


def test_fork_does_not_stand_for_the_window_that_was_there_first(arena: Arena) -> None:
    world = arena.settled(2)
    first = recorded_reports(export(world), anchors=believed(world), seq=0)
    arena.submit(world, seal(world.host, claim(seq=0)))
    assert recorded_reports(export(world), anchors=believed(world), seq=0).nonce == first.nonce
    with pytest.raises(NotAuthentic) as refusal:
        recorded_reports(export(world), anchors=believed(world), seq=2)
    assert refusal.value.code is Code.WINDOW_FORK


def test_window_without_reports(arena: Arena) -> None:
    world = arena.settled(2, wanted=requirements(gpu_every=2))
    bundle, anchors = export(world), believed(world)
    assert len(recorded_reports(bundle, anchors=anchors, seq=0).devices) == 2
    with pytest.raises(Indeterminate) as refusal:
        recorded_reports(bundle, anchors=anchors, seq=1)
    assert (refusal.value.code, refusal.value.where) == (Code.EVIDENCE_ABSENT, "window 1")


def test_enrolment_is_there_before_any_window(arena: Arena) -> None:
    world = arena.settled(0)
    bundle, anchors = export(world), believed(world)
    assert recorded_reports(bundle, anchors=anchors, seq=None).outcome == "enrolled"
    with pytest.raises(MalformedEvidence) as refusal:
        recorded_reports(bundle, anchors=anchors, seq=0)
    assert (refusal.value.code, refusal.value.expected) == (Code.BUNDLE_MALFORMED, "the enrolment alone")
