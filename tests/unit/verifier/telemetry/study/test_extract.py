"""Runs made of verified sessions: what the evidence proves is kept, what was refused is not learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from corpus.bundle import believed, export
from corpus.weights import OTHER
from support.world import World
from weighbridge.proto.errors import Code, Indeterminate, NotAuthentic, PolicyDenied
from weighbridge.proto.recording import Recording
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.telemetry.study.extract import Said, extract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.world import Engines

SAID = Said(label="a run", engine="vllm 0.11.0", workload="chat")


@pytest.fixture
def world(tmp_path: Path, engines: Engines) -> Iterator[World]:
    made = World.make(tmp_path, engines=engines)
    made.open_session()
    yield made
    made.close()


def test_a_run_has_each_window_as_it_was_signed(world: World) -> None:
    windows = [world.window() for _ in range(3)]
    found = extract(export(world), anchors=believed(world), said=SAID)
    run = found.recording
    assert (found.session, found.held, len(run.windows)) == (world.host.session, 0, len(windows))
    # Emulated devices are no source of rates, however well they are signed.
    assert (run.origin, run.label) == ("emulated", "a run")
    assert len({window.window for window in run.windows}) == 3
    assert all(window.window is not None for window in run.windows)
    assert [window.readings().seq for window in run.windows] == [0, 1, 2]
    assert run.scope.engine == "vllm 0.11.0"
    assert run.scope.model is not None
    assert run.scope.driver != "not said"
    assert Recording.parse(run.encode()) == run


def test_what_the_caller_says_fills_what_evidence_leaves_open(world: World) -> None:
    _ = world.window()
    said = Said(label="x", engine="e", workload="w", gpu_model="H100", power_limit_mw=700_000)
    scope = extract(export(world), anchors=believed(world), said=said).recording.scope
    assert (scope.gpu_model, scope.workload) == ("H100", "w")
    assert scope.power_limit_mw == 700_000


def test_a_session_without_a_window_is_no_run(world: World) -> None:
    with pytest.raises(Indeterminate) as caught:
        _ = extract(export(world), anchors=believed(world), said=SAID)
    assert caught.value.code is Code.RECORDING_EMPTY


def test_nothing_is_learned_from_a_session_that_was_denied(world: World) -> None:
    assert world.window().verdict.opens
    world.host.log.load(OTHER)
    assert not world.window().verdict.opens
    with pytest.raises(PolicyDenied) as caught:
        _ = extract(export(world), anchors=believed(world), said=SAID)
    assert caught.value.code is Code.RECORDING_DENIED
    assert caught.value.where == "window 1"


def test_a_ledger_that_nobody_trusts_gives_no_run(world: World) -> None:
    _ = world.window()
    with pytest.raises(NotAuthentic) as caught:
        _ = extract(export(world), anchors=TrustAnchors((), "none"), said=SAID)
    assert caught.value.code is Code.CHAIN_UNTRUSTED
