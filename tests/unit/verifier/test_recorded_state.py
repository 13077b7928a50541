"""Recorded windows out of a state directory: the same as its bundles show, and nothing that was altered."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import believed, export
from support.contents import remove
from support.recorded import record
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.verifier.deployment import Deployment
from weighbridge.verifier.recorded import windows
from weighbridge.verifier.recorded_state import RecordedSession, recorded_sessions, session_windows
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.recorded import Recorded
    from support.world import Engines
    from weighbridge.verifier.recorded import RecordedWindow


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "recorded-state"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


def sessions_of(made: Recorded) -> dict[bytes, RecordedSession]:
    with Deployment.reading(made.state) as (_, reader):
        return {item.session: item for item in recorded_sessions(made.world.store, reader)}


def windows_of(made: Recorded, session: RecordedSession, state: Path | None = None) -> list[RecordedWindow]:
    with Deployment.reading(state or made.state) as (records, _), made.world.store.transaction() as tx:
        indices = tx.window_indices(session.session)
        return list(
            session_windows(records, session, indices, anchors=believed(made.world), manifests=made.world.models)
        )


def test_every_session_is_found_with_the_window_that_failed_it(made: Recorded) -> None:
    found = sessions_of(made)
    assert {kind: found[session].windows for kind, session in made.sessions.items()} == {
        "affirmed": 3,
        "held": 3,
        "denied": 2,
        "refused": 2,
    }
    assert {kind: found[session].ending is not None for kind, session in made.sessions.items()} == {
        "affirmed": False,
        "held": False,
        "denied": True,
        "refused": True,
    }
    # And the one that took the place of the interrupted one, without a window.
    assert sorted(item.windows for item in found.values()) == [0, 2, 2, 3, 3]
    assert [item.enrolment for item in found.values()] == sorted(item.enrolment for item in found.values())
    assert found[made.sessions["held"]].last_ns < found[made.sessions["denied"]].last_ns


@pytest.mark.parametrize("kind", ["affirmed", "held", "denied", "refused"])
def test_a_session_has_the_windows_that_its_bundle_shows(made: Recorded, kind: str) -> None:
    session = sessions_of(made)[made.sessions[kind]]
    shown = list(windows(export(made.world, session=made.sessions[kind]), anchors=believed(made.world)))
    assert windows_of(made, session) == shown
    assert len(shown) == session.windows


def test_a_session_is_not_that_of_another(made: Recorded) -> None:
    """The table of sessions is not what proves anything."""
    found = sessions_of(made)
    one, other = found[made.sessions["affirmed"]], found[made.sessions["held"]]
    mixed = RecordedSession(one.session, other.enrolment, 3, None, one.last_ns)
    with pytest.raises(WeighbridgeError) as refusal:
        windows_of(made, mixed)
    assert refusal.value.code is Code.LEDGER_INCONSISTENT
    ended = RecordedSession(one.session, one.enrolment, 4, found[made.sessions["denied"]].ending, one.last_ns)
    with pytest.raises(WeighbridgeError) as refusal:
        windows_of(made, ended)
    assert refusal.value.code is Code.LEDGER_INCONSISTENT


def test_what_was_removed_is_missed(made: Recorded, tmp_path: Path) -> None:
    copy = tmp_path / "state"
    shutil.copytree(made.state, copy)
    session = sessions_of(made)[made.sessions["affirmed"]]
    with Deployment.reading(copy) as (records, _), made.world.store.transaction() as tx:
        evidence = records.record(tx.window_indices(session.session)[1]).evidence
    assert evidence is not None
    remove(copy / "content", evidence)
    with pytest.raises(WeighbridgeError) as refusal:
        windows_of(made, session, copy)
    assert refusal.value.code is Code.EVIDENCE_ABSENT


def test_a_store_without_sessions_has_none(made: Recorded, tmp_path: Path) -> None:
    store = Store.create_or_open(tmp_path / "sessions.sqlite")
    with Deployment.reading(made.state) as (_, reader):
        assert recorded_sessions(store, reader) == []
    store.close()
