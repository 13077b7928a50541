"""A model's owner takes it back while it is served: the next window is refused, and all of it can be shown later."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from corpus.bundle import Exported, export
from support.gate import Gate
from support.owners import DAY, Issuer, Owner
from support.world import manifest
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, LedgerInconsistent, PolicyDenied, WeighbridgeError
from weighbridge.verifier import store as stores
from weighbridge.verifier.attestation_service import AttestationService
from weighbridge.verifier.database import sqlite
from weighbridge.verifier.live import LiveSessions
from weighbridge.verifier.peers import Peers
from weighbridge.verifier.quotas import Quotas
from weighbridge.verifier.relying_parties import RelyingParties
from weighbridge.verifier.service_limits import Limits
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from corpus.arena import Arena
    from weighbridge.policy.engine import Prepared
    from weighbridge.verifier.core import Answer


class PowerLost(BaseException):
    """Nothing after this point has happened."""


LAB, STRANGER = Issuer(), Issuer("Mallory")


@pytest.fixture
def gate(arena: Arena) -> Gate:
    return Gate.make(arena)


def codes(answer: Answer) -> list[str]:
    return [denial.code for denial in answer.verdict.denials]


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


# -- from the opening to the bundle ------------------------------------------------------------------------------------


def test_a_revoked_model_closes_the_gate_at_the_next_window(gate: Gate, arena: Arena) -> None:
    world, model = gate.world, gate.world.host.model
    gate.opened(gate.owner.content(model, statements=[LAB.in_toto(model.digest)]))
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    answer = world.window()
    assert codes(answer) == [Code.MODEL_REVOKED]
    assert "weights leaked" in answer.verdict.denials[0].message
    assert (answer.token, answer.challenge, gate.state()) == (None, None, SessionState.FAILED)
    # Later and offline, from the file alone: both sets of values, both verdicts, byte for byte.
    made = Exported(arena.engines, world, export(world))
    assert len(made.bundle.references) == 2
    result = made.verify()
    assert [verdict.outcome for verdict in result.verdicts] == ["affirmed", "denied"]
    assert (result.same_policy, result.recorded_policy, result.recorded_reference) == (True, True, True)
    assert [denial.code for denial in result.denied[0].denials] == [Code.MODEL_REVOKED]
    before, after = (Reference.recorded(data) for data in made.bundle.references)
    assert before.data()["models"] != after.data()["models"]
    assert (before.sets[0].number, after.sets[0].number) == (1, 2)


def test_a_bundle_needs_all_the_values_that_its_records_name(gate: Gate, arena: Arena) -> None:
    model = gate.world.host.model
    gate.opened(gate.owner.content(model))
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    gate.world.window()
    made = Exported(arena.engines, gate.world, export(gate.world))
    for kept in (made.bundle.references[:1], made.bundle.references[1:], ()):
        with pytest.raises(LedgerInconsistent) as refusal:
            made.verify(replace(made.bundle, references=kept))
        assert refusal.value.code is Code.BUNDLE_VERDICT


def test_values_that_would_still_admit_cannot_take_the_place_of_those_that_refused(gate: Gate, arena: Arena) -> None:
    """A64: an operator exports the session as if the owner had never taken the model back."""
    model = gate.world.host.model
    gate.opened(gate.owner.content(model))
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    gate.world.window()
    made = Exported(arena.engines, gate.world, export(gate.world))
    first, _ = made.bundle.references
    with pytest.raises(LedgerInconsistent):
        made.verify(replace(made.bundle, references=(first, first)))


def test_a_revocation_sticks_to_the_model_and_not_to_the_host(gate: Gate) -> None:
    """A fleet whose model was taken back goes on with another one, and no operator has to clear a thousand keys."""
    world, model, other = gate.world, gate.world.host.model, manifest("other", weights=b"other")
    gate.opened(gate.owner.content(model, other))
    gate.publish(gate.owner.content(other, number=2, revoked={model.digest: "weights leaked"}))
    assert codes(world.window()) == [Code.MODEL_REVOKED]
    world.host.enrol(world.verifier)
    assert codes(world.window()) == [Code.MODEL_REVOKED]
    with world.store.transaction() as tx:
        subjects = [tx.subjects.of("ak", world.host.terms.terms.ak)] if world.host.terms else []
    assert [row.failed_code for row in subjects if row is not None] == [None]


def test_what_speaks_against_the_host_sticks_all_the_same(gate: Gate) -> None:
    world, model = gate.world, gate.world.host.model
    gate.opened(gate.owner.content(model))
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    world.host.log.load(manifest("other", weights=b"other"))
    assert set(codes(world.window())) >= {Code.MODEL_REVOKED, Code.MODEL_UNDECLARED}
    with pytest.raises(PolicyDenied, match="SUBJECT_FAILED"):
        world.host.enrol(world.verifier)


def test_new_values_are_those_of_the_next_window_and_of_its_record(gate: Gate) -> None:
    world, model = gate.world, gate.world.host.model
    gate.opened(gate.owner.content(model))
    gate.publish(gate.owner.content(model, manifest("other"), number=2))
    assert world.window().verdict.opens
    assert world.window().verdict.opens
    with world.store.transaction() as tx:
        indices = tx.window_indices(world.host.session)
    named = [world.archive.records.record(index).reference for index in indices]
    assert named[0] != named[1] == named[2]
    for digest in named:
        assert Reference.recorded(world.archive.records.reference(digest)).digest == digest


def test_a_revocation_survives_a_loss_of_power(gate: Gate) -> None:
    """The judgement is in the ledger, the store does not know yet: the session has failed, and nothing sticks."""
    world, model = gate.world, gate.world.host.model
    gate.opened(gate.owner.content(model))
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    world.clock.advance(1)
    sealed = world.host.seal()
    with mock.patch.object(LiveSessions, "_write_end", side_effect=PowerLost), pytest.raises(PowerLost):
        world.verifier.window(world.host.session, sealed.evidence, peer=world.host.peer)
    assert gate.state() is SessionState.RUNNING
    gate.start()
    assert gate.state() is SessionState.FAILED
    world.host.enrol(world.verifier)


# -- validity ----------------------------------------------------------------------------------------------------------


def test_an_expired_set_accepts_nothing(gate: Gate) -> None:
    world = gate.world
    gate.opened(gate.owner.content(world.host.model, not_after=world.clock.at + timedelta(seconds=2)))
    assert world.window().verdict.opens
    answer = world.window()
    assert codes(answer) == [Code.MODEL_EXPIRED]
    assert (answer.token, gate.state()) == (None, SessionState.FAILED)


def test_a_set_that_is_not_valid_yet_accepts_nothing_yet(gate: Gate) -> None:
    world = gate.world
    gate.publish(gate.owner.content(world.host.model, not_before=world.clock.at + DAY))
    gate.start()
    assert "NOT VALID NOW" in gate.lines[-1]
    world.open_session()
    assert codes(world.window()) == [Code.MODEL_EXPIRED]


def test_an_expired_set_still_revokes(gate: Gate) -> None:
    world, model = gate.world, gate.world.host.model
    gate.own_models = True
    begin, end = world.clock.at - 9 * DAY, world.clock.at - 8 * DAY
    gate.publish(
        gate.owner.content(revoked={model.digest: "weights leaked"}, issued=begin, not_before=begin, not_after=end)
    )
    gate.start()
    world.open_session()
    assert codes(world.window()) == [Code.MODEL_REVOKED]


def test_the_relying_partys_own_acceptance_does_not_expire(gate: Gate) -> None:
    world = gate.world
    gate.own_models = True
    gate.opened(gate.owner.content(world.host.model, not_after=world.clock.at + timedelta(seconds=2)))
    for _ in range(3):
        assert world.window().verdict.opens


def test_a_model_in_nobodys_set_is_refused_by_the_policy(gate: Gate) -> None:
    gate.publish(gate.owner.content(manifest("other")))
    gate.start()
    gate.world.open_session()
    answer = gate.world.window()
    assert set(codes(answer)) == {Code.REFERENCE_ABSENT}
    assert answer.verdict.decision is not None


def test_any_owners_revocation_wins(gate: Gate, tmp_path: Path) -> None:
    world, model = gate.world, gate.world.host.model
    gate.own_models = True
    beta, path = Owner("Beta"), tmp_path / "beta.set"
    path.write_bytes(beta.sign(beta.content(revoked={model.digest: "not ours to serve"})))
    gate.publish(gate.owner.content(model))
    gate.start(path)
    world.open_session()
    answer = world.window()
    assert codes(answer) == [Code.MODEL_REVOKED]
    assert "Beta has revoked" in answer.verdict.denials[0].message


# -- files that cannot be taken ----------------------------------------------------------------------------------------


def test_what_is_no_set_is_reported_once_and_changes_nothing(gate: Gate) -> None:
    gate.opened(gate.owner.content(gate.world.host.model))
    for data in (b"", b"half", gate.owner.sign(gate.owner.content(number=2))[:-1]):
        gate.put(data)
        told = len(gate.lines)
        assert gate.world.window().verdict.opens
        assert "is not taken" in gate.lines[told]
        told = len(gate.lines)
        assert gate.world.window().verdict.opens
        assert len(gate.lines) == told


def test_a_file_that_is_gone_is_reported_and_changes_nothing(gate: Gate) -> None:
    gate.opened(gate.owner.content(gate.world.host.model))
    gate.path.unlink()
    assert gate.world.window().verdict.opens
    assert "FILE_UNREADABLE" in gate.lines[-2]
    told = len(gate.lines)
    assert gate.world.window().verdict.opens
    assert len(gate.lines) == told


def test_a_stranger_in_the_owners_place_changes_nothing(gate: Gate) -> None:
    gate.opened(gate.owner.content(gate.world.host.model))
    mallory = Owner("Mallory")
    gate.put(mallory.sign(mallory.content(number=9, revoked={gate.world.host.model.digest: "I say so"})))
    assert gate.world.window().verdict.opens
    assert any("CHAIN_UNTRUSTED" in line for line in gate.lines)


def test_another_trusted_owner_does_not_take_the_place(gate: Gate) -> None:
    """Or the revocations of the first would be gone."""
    model = gate.world.host.model
    gate.opened(gate.owner.content(model))
    beta = Owner("Beta")
    gate.put(beta.sign(beta.content(model)))
    assert gate.world.window().verdict.opens
    assert any("REFERENCE_ROLLBACK" in line and "another set" in line for line in gate.lines)
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    assert codes(gate.world.window()) == [Code.MODEL_REVOKED]


def test_of_a_set_with_a_bad_statement_the_revocations_count(gate: Gate) -> None:
    """Nothing becomes more permissive by failing: the owner's word is known, whatever is wrong with an issuer's."""
    model, other = gate.world.host.model, manifest("other")
    gate.opened(gate.owner.content(model))
    bad = [STRANGER.in_toto(other.digest)]
    gate.publish(gate.owner.content(other, number=2, statements=bad, revoked={model.digest: "weights leaked"}))
    assert codes(gate.world.window()) == [Code.MODEL_REVOKED]
    assert any("STATEMENT_UNTRUSTED" in line for line in gate.lines)
    # Nor does anything that comes after it, short of the owner's next word.
    gate.put(b"nonsense")
    gate.world.host.enrol(gate.world.verifier)
    assert codes(gate.world.window()) == [Code.MODEL_REVOKED]


def test_of_a_set_with_a_bad_statement_nothing_else_counts(gate: Gate) -> None:
    model = gate.world.host.model
    gate.opened(gate.owner.content(model))
    gate.publish(gate.owner.content(manifest("other"), number=2, statements=[STRANGER.in_toto(model.digest)]))
    assert gate.world.window().verdict.opens
    assert (
        gate.world.verifier._first.appraiser.reference.data()["models"]
        == Reference.recorded(gate.world.reference.to_json()).data()["models"]
    )


@pytest.mark.parametrize("statement", [STRANGER.in_toto(bytes(32)), b"{}"])
def test_a_verifier_does_not_begin_with_a_set_that_is_not_good(gate: Gate, statement: bytes) -> None:
    gate.publish(gate.owner.content(gate.world.host.model, statements=[statement]))
    with pytest.raises(WeighbridgeError):
        gate.start()
    gate.path.unlink()
    assert code_of(gate.start) is Code.FILE_UNREADABLE


def test_while_this_machine_is_at_fault_nothing_is_judged(gate: Gate) -> None:
    """The model was taken back; that no engine can be started now is no reason to go on with it."""
    world, model = gate.world, gate.world.host.model
    broken = False

    def prepare(reference: Reference) -> Prepared:
        if broken:
            raise EnvironmentFault(Code.COMMAND_FAILED, "cannot start the policy worker")
        return gate.prepare(reference)

    gate.publish(gate.owner.content(model))
    gate.start(prepare=prepare)
    world.open_session()
    assert world.window().verdict.opens
    broken = True
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    sealed = world.host.seal()
    for _ in range(2):
        assert code_of(lambda: world.send(sealed.evidence)) is Code.COMMAND_FAILED
    broken = False
    assert codes(world.send(sealed.evidence)) == [Code.MODEL_REVOKED]


def test_a_policy_that_did_not_load_in_time_is_a_fault_and_forgets_no_revocation(gate: Gate) -> None:
    """On a busy machine the engine says that the policy is at fault; the window after that was judged as before."""
    world, model = gate.world, gate.world.host.model
    slow = False

    def prepare(reference: Reference) -> Prepared:
        if slow:
            raise PolicyDenied(Code.POLICY_INVALID, "the policy does not load: no answer after 5.0 s")
        return gate.prepare(reference)

    gate.publish(gate.owner.content(model))
    watch = gate.start(prepare=prepare)
    world.open_session()
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    slow = True
    world.clock.advance(1)
    sealed = world.host.seal()
    for _ in range(2):
        with pytest.raises(EnvironmentFault) as refused:
            world.send(sealed.evidence)
        assert refused.value.code is Code.POLICY_CRASHED
        with pytest.raises(EnvironmentFault):
            watch.renew(world.clock.at)
    slow = False
    assert codes(world.deliver(sealed)) == [Code.MODEL_REVOKED]


def test_a_fault_is_told_once_while_no_window_comes(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    broken = False

    def prepare(reference: Reference) -> Prepared:
        if broken:
            raise EnvironmentFault(Code.COMMAND_FAILED, "cannot start the policy worker")
        return gate.prepare(reference)

    gate.publish(gate.owner.content(gate.world.host.model))
    gate.start(prepare=prepare)
    service = AttestationService(gate.world.verifier, Peers(RelyingParties.none()), Quotas(Limits()))
    for number in (2, 3):
        broken = True
        gate.publish(gate.owner.content(number=number))
        for _ in range(3):
            service._refresh()
        assert capsys.readouterr().err.count("nothing is judged for now") == 1
        broken = False
        service._refresh()
        assert capsys.readouterr().err == ""
    service.close()


def test_while_the_store_is_at_fault_nothing_is_judged(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the set is the newest cannot be remembered: it counts as soon as it can."""
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    model, at = gate.world.host.model, gate.world.clock.at
    gate.world.store.close()
    gate.world.store = stores.Store.create_or_open(gate.world.directory / "sessions.sqlite")
    gate.publish(gate.owner.content(model))
    watch = gate.start()
    gate.publish(gate.owner.content(number=2, revoked={model.digest: "weights leaked"}))
    other = stores.Store.create_or_open(gate.world.directory / "sessions.sqlite")
    with other.transaction():
        assert code_of(lambda: watch.renew(at)) is Code.STATE_LOCKED
    other.close()
    renewed = watch.renew(at)
    assert renewed is not None
    assert [item.number for item in renewed.reference.sets] == [2]
    watch.close()


def test_values_too_large_to_be_kept_are_not_judged_by(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.publish(gate.owner.content(gate.world.host.model))
    monkeypatch.setattr(limits, "REFERENCE_MAX", 100)
    assert code_of(gate.start) is Code.FILE_UNREADABLE


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_an_older_set_is_not_taken_while_serving(gate: Gate) -> None:
    world, model = gate.world, gate.world.host.model
    gate.opened(gate.owner.content(model, number=7))
    gate.publish(gate.owner.content(number=8, revoked={model.digest: "weights leaked"}))
    world.verifier.refresh()
    gate.publish(gate.owner.content(model, number=7))
    assert codes(world.window()) == [Code.MODEL_REVOKED]
    assert any("REFERENCE_ROLLBACK" in line for line in gate.lines)


def test_an_older_set_is_not_taken_after_a_restart(gate: Gate) -> None:
    model = gate.world.host.model
    gate.publish(gate.owner.content(number=8, revoked={model.digest: "weights leaked"}))
    gate.start()
    gate.publish(gate.owner.content(model, number=7))
    assert code_of(gate.start) is Code.REFERENCE_ROLLBACK


def test_another_set_of_the_same_number_is_not_taken(gate: Gate) -> None:
    gate.publish(gate.owner.content(gate.world.host.model, number=7))
    gate.start()
    gate.start()
    gate.publish(gate.owner.content(number=7))
    assert code_of(gate.start) is Code.REFERENCE_ROLLBACK


def test_an_untaken_set_is_remembered(gate: Gate) -> None:
    """Its owner signed it: what came before it is old, though a statement in it was not believed."""
    model = gate.world.host.model
    gate.opened(gate.owner.content(model, number=7))
    gate.publish(gate.owner.content(model, number=8, statements=[STRANGER.in_toto(model.digest)]))
    gate.world.window()
    gate.publish(gate.owner.content(model, number=7))
    assert code_of(gate.start) is Code.REFERENCE_ROLLBACK


def test_two_sets_of_one_owner_are_one_too_many(gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "older.set"
    path.write_bytes(gate.owner.sign(gate.owner.content(gate.world.host.model, number=8)))
    gate.publish(gate.owner.content(number=7))
    assert code_of(lambda: gate.start(path)) is Code.DUPLICATE_KEY


# -- asking ------------------------------------------------------------------------------------------------------------


def test_nothing_is_read_that_has_not_changed(gate: Gate) -> None:
    watch = gate.opened(gate.owner.content(gate.world.host.model))
    told = len(gate.lines)
    assert watch.renew(gate.world.clock.at) is None
    assert len(gate.lines) == told
    watch.ask()
    assert watch.renew(gate.world.clock.at) is None
    assert len(gate.lines) == told + 1
