"""What a record names is kept before the record is, or there is no record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from corpus.bundle import export
from support.baseline_owners import BaselineOwner
from support.contents import contents, remove
from weighbridge.proto.errors import Code, Indeterminate
from weighbridge.verifier import baseline_set, keeping
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.archive import Records
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.bundle import assemble
from weighbridge.verifier.bundle_assembly import declared
from weighbridge.verifier.ledger.content import ContentStore

if TYPE_CHECKING:
    from corpus.arena import Arena

# What only the kept policy has in it, of all that the store keeps.
ADMITTING = b"package weighbridge.policy\n"


def test_no_verdict_of_a_policy_whose_files_nobody_has_is_recorded(arena: Arena) -> None:
    world = arena.world()
    world.restart(replace(world.appraiser, files={}))
    world.open_session()
    size = world.ledger.size
    with pytest.raises(RuntimeError, match="files of its policy"):
        world.window()
    assert world.ledger.size == size


def test_no_verdict_by_a_baseline_whose_file_nobody_has_is_recorded(arena: Arena) -> None:
    owner = BaselineOwner()
    taken = baseline_set.verify(owner.sign(owner.content()), anchors=TrustAnchors((owner.anchor(),)))
    world = arena.world()
    known = Baselines([taken])
    named = world.reference.with_baselines([taken.named])
    world.restart(replace(world.appraiser, reference=named))
    world.open_session()
    size = world.ledger.size
    with pytest.raises(RuntimeError, match="files of its baselines"):
        world.window()
    assert world.ledger.size == size
    world.restart(replace(world.appraiser, reference=named, baselines=known))
    world.open_session()
    assert world.window().verdict.opens
    assert world.archive.records.baseline(taken.digest) == taken.data


def test_what_was_forgotten_is_kept_again(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_KNOWN_MAX", 0)
    world = arena.settled(3)
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    for index in indices:
        record = world.archive.records.record(index)
        assert world.archive.records.policy(record.policy)
        assert world.archive.records.reference(record.reference)


def test_a_policy_that_the_state_has_lost_can_be_named(arena: Arena) -> None:
    world = arena.settled(1)
    files = export(world).policies
    for digest, content in contents(world.directory / "content").items():
        if ADMITTING in content:
            remove(world.directory / "content", digest)
    with pytest.raises(Indeterminate) as refusal:
        export(world)
    assert (refusal.value.code, "--policy" in refusal.value.hint) == (Code.EVIDENCE_ABSENT, True)
    with world.store.transaction() as tx:
        indices = (0, *tx.window_indices(world.host.session))
    made = assemble(world.archive.records, world.ledger.reader(), indices, policies=files, manifests=[])
    assert made.policies == files


def test_the_declared_manifests_are_kept(arena: Arena) -> None:
    world = arena.settled(1)
    with world.store.transaction() as tx:
        indices = (0, *tx.window_indices(world.host.session))
    records, model = world.archive.records, world.host.model
    assert declared(records, indices, given=()) == (model,)
    # Of no window that is shown.
    assert declared(records, indices, given=(), withhold=indices[1:]) == ()
    remove(world.directory / "content", model.digest)
    records = Records(ContentStore(world.directory / "content"), world.ledger)
    with pytest.raises(Indeterminate) as refusal:
        declared(records, indices, given=())
    assert (refusal.value.code, "--manifest" in refusal.value.hint) == (Code.EVIDENCE_ABSENT, True)
    assert declared(records, indices, given=(model,)) == (model,)


def test_a_manifest_that_the_verifier_did_not_have_is_left_out(arena: Arena) -> None:
    world = arena.world()
    world.restart(replace(world.appraiser, manifests={}))
    world.open_session()
    world.window()
    with world.store.transaction() as tx:
        indices = (0, *tx.window_indices(world.host.session))
    for given in ((), (world.host.model,)):
        assert declared(world.archive.records, indices, given=given) == ()
