"""Models that their owners accept by signed reference sets, and take back: rows A64, A72 and A82."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from corpus.bundle import Exported, export
from support.gate import LAB, Gate
from support.owners import DAY, Issuer, Owner
from support.world import manifest

if TYPE_CHECKING:
    from corpus.arena import Arena
    from weighbridge.verifier.bundle import BundleVerdict
    from weighbridge.verifier.core import Answer


def _opened(arena: Arena, *, number: int = 1) -> Gate:
    """A session with one good window, of a model that only its owner accepts."""
    gate = Gate.make(arena)
    gate.opened(gate.owner.content(gate.world.host.model, number=number))
    return gate


def _revoke(gate: Gate, *, number: int = 2) -> None:
    gate.publish(gate.owner.content(number=number, revoked={gate.world.host.model.digest: "weights leaked"}))


def _begun(gate: Gate) -> None:
    gate.start()
    gate.world.open_session()


def case_001_accepted_by_its_owner(arena: Arena) -> Answer:
    gate = Gate.make(arena)
    model = gate.world.host.model
    gate.opened(gate.owner.content(model, statements=[LAB.in_toto(model.digest), LAB.ml_bom(model.digest)]))
    return gate.world.window()


def case_002_revoked_while_it_is_served(arena: Arena) -> Answer:
    gate = _opened(arena)
    _revoke(gate)
    return gate.world.window()


def case_003_revoked_though_the_relying_party_accepts_it(arena: Arena) -> Answer:
    gate = Gate.make(arena, own_models=True)
    _revoke(gate)
    _begun(gate)
    return gate.world.window()


def case_004_revoked_by_another_owner(arena: Arena) -> Answer:
    gate = Gate.make(arena)
    beta, model = Owner("Beta"), gate.world.host.model
    gate.publish(gate.owner.content(model))
    other = gate.path.with_name("beta.set")
    other.write_bytes(beta.sign(beta.content(revoked={model.digest: "not ours to serve"})))
    gate.start(other)
    gate.world.open_session()
    return gate.world.window()


def case_005_expired_while_it_is_served(arena: Arena) -> Answer:
    gate = Gate.make(arena)
    gate.opened(gate.owner.content(gate.world.host.model, not_after=gate.world.clock.at + timedelta(seconds=1)))
    return gate.world.window()


def case_006_not_valid_yet(arena: Arena) -> Answer:
    gate = Gate.make(arena)
    gate.publish(gate.owner.content(gate.world.host.model, not_before=gate.world.clock.at + DAY))
    _begun(gate)
    return gate.world.window()


def case_007_sealed_before_the_revocation_and_sent_after_it(arena: Arena) -> Answer:
    gate = _opened(arena)
    sealed = gate.world.host.seal()
    _revoke(gate)
    gate.world.clock.advance(10)
    return gate.world.deliver(sealed)


def case_008_revoked_model_in_a_new_session(arena: Arena) -> Answer:
    gate = _opened(arena)
    _revoke(gate)
    gate.world.window()
    gate.world.host.enrol(gate.world.verifier)
    return gate.world.window()


def case_009_older_set_in_place_of_the_revocation(arena: Arena) -> Answer:
    gate = _opened(arena, number=7)
    _revoke(gate, number=8)
    gate.world.verifier.refresh()
    gate.publish(gate.owner.content(gate.world.host.model, number=7))
    return gate.world.window()


def case_010_older_set_after_a_restart(arena: Arena) -> None:
    gate = Gate.make(arena)
    _revoke(gate, number=8)
    gate.start()
    gate.publish(gate.owner.content(gate.world.host.model, number=7))
    gate.start()


def case_011_another_set_of_the_same_number(arena: Arena) -> None:
    gate = Gate.make(arena)
    _revoke(gate, number=7)
    gate.start()
    gate.publish(gate.owner.content(gate.world.host.model, number=7))
    gate.start()


def case_012_set_of_an_unknown_owner(arena: Arena) -> None:
    gate = Gate.make(arena)
    mallory = Owner("Mallory")
    gate.put(mallory.sign(mallory.content(gate.world.host.model)))
    gate.start()


def case_013_set_in_another_owners_name(arena: Arena) -> None:
    gate = Gate.make(arena)
    beta = Owner("Beta")
    gate.put(beta.sign(replace(beta.content(gate.world.host.model), owner=gate.owner.name)))
    gate.start()


def case_014_statement_of_an_unknown_issuer(arena: Arena) -> None:
    gate = Gate.make(arena)
    model = gate.world.host.model
    gate.publish(gate.owner.content(model, statements=[Issuer("Mallory").in_toto(model.digest)]))
    gate.start()


def case_015_statement_about_another_model(arena: Arena) -> None:
    gate = Gate.make(arena)
    gate.publish(gate.owner.content(gate.world.host.model, statements=[LAB.in_toto(manifest("other").digest)]))
    gate.start()


def case_016_set_with_a_bad_statement_that_revokes(arena: Arena) -> Answer:
    gate = _opened(arena)
    other = manifest("other")
    bad = [Issuer("Mallory").in_toto(other.digest)]
    gone = {gate.world.host.model.digest: "weights leaked"}
    gate.publish(gate.owner.content(other, number=2, statements=bad, revoked=gone))
    return gate.world.window()


def case_017_bundle_of_a_session_whose_model_was_revoked(arena: Arena) -> BundleVerdict:
    gate = _opened(arena)
    _revoke(gate)
    gate.world.window()
    arena.forget()
    return Exported(arena.engines, gate.world, export(gate.world)).verify()


def case_018_bundle_with_the_values_from_before_the_revocation(arena: Arena) -> BundleVerdict:
    gate = _opened(arena)
    _revoke(gate)
    gate.world.window()
    arena.forget()
    made = Exported(arena.engines, gate.world, export(gate.world))
    return made.verify(replace(made.bundle, references=made.bundle.references[:1]))
