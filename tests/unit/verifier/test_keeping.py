"""What a record names is kept before the record is, or there is no record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from weighbridge.verifier import keeping

if TYPE_CHECKING:
    from corpus.arena import Arena


def test_no_verdict_of_a_policy_whose_files_nobody_has_is_recorded(arena: Arena) -> None:
    world = arena.world()
    world.restart(replace(world.appraiser, files={}))
    world.open_session()
    size = world.ledger.size
    with pytest.raises(RuntimeError, match="files of its policy"):
        world.window()
    assert world.ledger.size == size


def test_what_was_forgotten_is_kept_again(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_KNOWN_MAX", 0)
    world = arena.settled(3)
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    for index in indices:
        record = world.archive.records.record(index)
        assert world.archive.records.policy(record.policy)
        assert world.archive.records.reference(record.reference)
