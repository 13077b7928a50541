"""The verifier as one object over its stores: restarts, resumptions, junk, closings, forgiveness, a clock set back."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.arena import Arena
from corpus.weights import OTHER
from fakes.broken_files import FaultyFiles
from support.contents import alter, remove
from support.forge import claim, random_bytes, seal
from support.mutations import inputs
from weighbridge.proto import strict
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
    WeighbridgeError,
)
from weighbridge.verifier.clearing import clear, clear_all
from weighbridge.verifier.clock import SystemClock, nanoseconds
from weighbridge.verifier.failures import Which
from weighbridge.verifier.record import Record
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.steps import subjects_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import Engines, World


@pytest.fixture
def world(arena: Arena) -> World:
    """Two good windows into a session."""
    return arena.settled(2)


def code_of(call: Callable[[], object], kind: type[WeighbridgeError] = WeighbridgeError) -> Code:
    with pytest.raises(kind) as refusal:
        call()
    return refusal.value.code


def state_of(world: World) -> SessionState:
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
    assert row is not None
    return row.state


def last_record(world: World) -> tuple[Record, dict[str, Any]]:
    record = world.archive.records.record(world.ledger.size - 1)
    document = strict.json_decode(record.verdict, what="verdict")
    assert isinstance(document, dict)
    return record, document


# -- restarted in mid-session ------------------------------------------------------------------------------------------


def test_a_session_is_re_made_from_its_records(world: World) -> None:
    late = world.host.seal()
    world.clock.advance(30)
    assert world.deliver(late).verdict.outcome == "held"
    world.host.wall_ns += 29_000_000_000
    assert world.window().verdict.opens
    before = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    world.restart()
    after = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    assert after is not before
    assert (after.state, after.issued) == (before.state, before.issued)
    assert (after.position.seq, after.position.prev) == (before.position.seq, before.position.prev)
    assert after.position.log == before.position.log
    assert dict(after.position.manifests) == dict(before.position.manifests)
    assert after.position.quote.state == before.position.quote.state
    assert world.window().verdict.opens


def test_a_restart_between_any_two_windows_changes_no_verdict(arena: Arena) -> None:
    world = arena.settled(0)
    for _ in range(4):
        world.restart()
        assert world.window().verdict.opens


def test_the_outstanding_challenge_survives_a_restart(world: World) -> None:
    """A window that was on its way when the verifier restarted is still fresh."""
    sealed = world.host.seal()
    world.clock.advance(1)
    world.restart()
    assert world.deliver(sealed).verdict.opens


def test_an_enrolment_that_was_open_does_not(arena: Arena) -> None:
    world = arena.world()
    challenge = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    proof = world.host.proof(challenge)
    world.restart()
    refused = code_of(lambda: world.verifier.prove(proof.encode(), peer=world.host.peer), NotAuthentic)
    assert refused is Code.CHALLENGE_UNKNOWN


def test_a_row_that_its_records_do_not_make_is_not_believed(world: World) -> None:
    """A50: somebody set the store back to before the last window."""
    with closing(sqlite3.connect(world.directory / "sessions.sqlite")) as raw, raw:
        raw.execute("DELETE FROM windows WHERE seq = 1")
    world.restart()
    assert code_of(lambda: world.send(b""), EnvironmentFault) is Code.STATE_CORRUPT


def test_records_that_are_gone_or_altered_are_not_replaced_by_belief(world: World) -> None:
    with world.store.transaction() as tx:
        (first, _) = tx.window_indices(world.host.session)
    evidence = world.archive.records.record(first).evidence
    assert evidence is not None
    content = world.directory / "content"
    alter(content, evidence)
    world.restart()
    assert code_of(lambda: world.send(b""), LedgerInconsistent) is Code.LEDGER_INCONSISTENT
    alter(content, evidence)
    kept = shutil.copytree(content, world.directory / "kept")
    remove(content, evidence)
    assert code_of(lambda: world.send(b""), Indeterminate) is Code.EVIDENCE_ABSENT
    shutil.rmtree(content)
    kept.rename(content)
    assert world.window().verdict.opens


# -- resumed -----------------------------------------------------------------------------------------------------------


def test_resuming_issues_a_new_challenge_and_the_old_one_is_stale(world: World) -> None:
    """A76: one fresh window per challenge, whoever asks how often."""
    sealed = world.host.seal()
    first = world.verifier.resume(world.host.session, peer=world.host.peer)
    second = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert first.next_seq == second.next_seq == 2
    assert len({first.challenge, second.challenge, world.host.challenge}) == 3
    world.clock.advance(1)
    assert world.deliver(sealed).verdict.outcome == "held"
    assert world.window().verdict.opens


def test_resuming_after_a_restart(world: World) -> None:
    world.restart()
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    world.host.challenge = resumed.challenge
    assert world.window().verdict.opens


@pytest.mark.parametrize("restarted", [False, True])
def test_what_cannot_be_resumed(world: World, *, restarted: bool) -> None:
    if restarted:
        world.restart()
    session, peer = world.host.session, world.host.peer
    unknown = code_of(lambda: world.verifier.resume(bytes(16), peer=peer), NotAuthentic)
    stranger = code_of(lambda: world.verifier.resume(session, peer=random_bytes("a stranger")), NotAuthentic)
    world.verifier.close(session, peer=peer)
    closed = code_of(lambda: world.verifier.resume(session, peer=peer), PolicyDenied)
    assert (unknown, stranger, closed) == (Code.SESSION_UNKNOWN, Code.WINDOW_PEER, Code.SESSION_STATE)


# -- junk --------------------------------------------------------------------------------------------------------------


def test_junk_is_one_leaf_whatever_the_amount(world: World) -> None:
    """A78: counted by code, recorded once, and the session does not notice."""
    before = world.ledger.size
    forged = seal(world.host, claim(session=bytes(16)))
    for _ in range(50):
        code_of(lambda: world.send(b"junk"), MalformedEvidence)
    for _ in range(3):
        code_of(lambda: world.send(forged.evidence), NotAuthentic)
    world.verifier.count_junk(NotAuthentic(Code.SESSION_UNKNOWN, "no such session"))
    assert world.ledger.size == before
    world.verifier.record_junk()
    assert world.ledger.size == before + 1
    record, document = last_record(world)
    assert (record.kind, record.session, record.seq, record.evidence) == ("junk", bytes(16), None, None)
    assert document["counts"] == {"NOT_CBOR": 50, "SESSION_UNKNOWN": 1, "WINDOW_SESSION": 3}
    world.verifier.record_junk()
    assert world.ledger.size == before + 1
    assert world.window().verdict.opens


def test_junk_that_could_not_be_recorded_is_not_forgotten(world: World) -> None:
    files = FaultyFiles()
    world.files = files
    world.restart()
    code_of(lambda: world.send(b"junk"))
    files.arm(1)
    assert code_of(world.verifier.record_junk, EnvironmentFault) is Code.DISK_FULL
    world.verifier.record_junk()
    assert last_record(world)[1]["counts"] == {"NOT_CBOR": 1}


# -- closed ------------------------------------------------------------------------------------------------------------


def test_closing_is_recorded_and_final(world: World) -> None:
    session, peer = world.host.session, world.host.peer
    summary = world.verifier.close(session, peer=peer)
    assert (summary["state"], summary["windows"], summary["session"]) == ("closed", 2, session.hex())
    record, document = last_record(world)
    assert (record.kind, record.session, record.seq) == ("closing", session, 2)
    assert document == summary
    assert state_of(world) is SessionState.CLOSED
    assert code_of(lambda: world.verifier.close(session, peer=peer), PolicyDenied) is Code.SESSION_STATE
    world.restart()
    assert code_of(lambda: world.verifier.close(session, peer=peer), PolicyDenied) is Code.SESSION_STATE


def test_a_closed_session_taints_nobody(world: World) -> None:
    world.verifier.close(world.host.session, peer=world.host.peer)
    world.open_session()
    assert world.window().verdict.opens


# -- failed, and forgiven ----------------------------------------------------------------------------------------------


def fail(world: World) -> None:
    world.clock.advance(1)
    answer = world.send(seal(world.host, claim(prev=bytes(32))).evidence)
    assert (answer.verdict.outcome, answer.token, answer.challenge) == ("denied", None, None)


def test_a_failure_is_forgiven_for_a_recorded_reason_only(world: World) -> None:
    """A72, A78"""
    fail(world)
    assert world.host.terms is not None
    subjects = subjects_of(world.host.terms.terms)
    for kind, identity in subjects:
        for empty in ("", "  \n"):
            with pytest.raises(ValueError, match="reason"):
                clear(world.archive, world.store, kind, identity, reason=empty, at=world.clock.at)
        assert code_of(world.open_session, PolicyDenied) is Code.SUBJECT_FAILED
        code, index = clear(world.archive, world.store, kind, identity, reason="mended", at=world.clock.at)
        record, document = last_record(world)
        assert (code, index, record.kind) == (Code.WINDOW_PREV, world.ledger.size - 1, "clearing")
        assert document == {
            "schema": "weighbridge/clearing/v1",
            "kind": kind,
            "identity": identity.hex(),
            "code": "WINDOW_PREV",
            "reason": "mended",
            "forgotten": [],
        }
    world.open_session()
    assert world.window().verdict.opens


def test_hosts_that_a_store_put_back_has_failed_are_forgiven_together(world: World) -> None:
    """They hold challenges of which the copy knows nothing; cleared by that code and its time, they come again."""
    assert world.host.terms is not None
    failed = {identity for _, identity in subjects_of(world.host.terms.terms)}
    file = world.directory / "sessions.sqlite"
    with closing(sqlite3.connect(file)) as store, closing(sqlite3.connect(":memory:")) as kept:
        store.backup(kept)
        assert world.window().verdict.opens
        kept.backup(store)
    world.restart()
    since = world.clock.at
    assert [denial.code for denial in world.window().verdict.denials] == [Code.CHALLENGE_UNKNOWN]
    assert code_of(world.open_session, PolicyDenied) is Code.SUBJECT_FAILED
    which = Which(code=Code.CHALLENGE_UNKNOWN, tenant=world.host.tenant, since_ns=nanoseconds(since))
    earlier = replace(which, since_ns=None, before_ns=nanoseconds(since))
    refused = code_of(lambda: next(clear_all(world.archive, world.store, earlier, reason="x", at=since)), Indeterminate)
    assert refused is Code.SESSION_UNKNOWN
    turns = clear_all(world.archive, world.store, which, reason="store put back", at=since)
    assert {one.failure.identity for some in turns for one in some} == failed
    world.open_session()
    assert world.window().verdict.opens


def test_nothing_is_forgiven_that_did_not_happen(world: World) -> None:
    assert world.host.terms is not None
    size = world.ledger.size
    for identity in (world.host.terms.terms.ak, random_bytes("nobody")):
        refused = code_of(
            lambda identity=identity: clear(  # type: ignore[misc]
                world.archive, world.store, "ak", identity, reason="mended", at=world.clock.at
            ),
            Indeterminate,
        )
        assert refused is Code.SESSION_UNKNOWN
    assert world.ledger.size == size


def test_a_forgiven_session_stays_failed(world: World) -> None:
    fail(world)
    assert world.host.terms is not None
    for kind, identity in subjects_of(world.host.terms.terms):
        clear(world.archive, world.store, kind, identity, reason="mended", at=world.clock.at)
    assert code_of(lambda: world.send(world.host.seal().evidence), PolicyDenied) is Code.SESSION_FAILED


@pytest.mark.parametrize(("field", "code"), [("tenant", Code.WINDOW_TENANT), ("audience", Code.WINDOW_AUDIENCE)])
def test_an_opening_for_somebody_else_says_which_argument_to_change(world: World, field: str, code: Code) -> None:
    setattr(world.host, field, "somebody-else")
    with pytest.raises(NotAuthentic) as refusal:
        world.host.enrol(world.verifier)
    assert (refusal.value.code, refusal.value.got) == (code, "somebody-else")
    assert f"--{field}" in refusal.value.hint


def test_all_findings_of_an_enrolment_are_told_at_once(world: World) -> None:
    fail(world)
    world.host.log.load(OTHER)
    world.host.log.entries.pop(0)
    with pytest.raises(PolicyDenied) as refusal:
        world.host.enrol(world.verifier)
    text = str(refusal.value)
    assert all(code in text for code in ("BASELINE_UNEXPLAINED", "SUBJECT_FAILED"))
    _, document = last_record(world)
    assert document["outcome"] == "denied"
    assert [item["code"] for item in document["denials"]].count("SUBJECT_FAILED") == 3


# -- enrolments --------------------------------------------------------------------------------------------------------


def test_enrolments_that_nobody_proves_are_forgotten(arena: Arena) -> None:
    world = arena.world()
    challenge = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    proof = world.host.proof(challenge)
    world.clock.advance(61)
    other = arena.another_host(world)
    world.verifier.open(other.opening().encode(), peer=other.peer)
    refused = code_of(lambda: world.verifier.prove(proof.encode(), peer=world.host.peer), NotAuthentic)
    assert refused is Code.CHALLENGE_UNKNOWN


def test_enrolments_that_are_open_have_a_limit(arena: Arena) -> None:
    world = arena.world()
    for number in range(64):
        peer = random_bytes(f"peer {number}")
        opening = replace(world.host.opening(), peer=peer).encode()
        for _ in range(5):
            world.verifier.open(opening, peer=peer)
    refused = code_of(
        lambda: world.verifier.open(world.host.opening().encode(), peer=world.host.peer), EnvironmentFault
    )
    # Not for good: an attester waits and asks again.
    assert refused is Code.RATE_LIMITED
    world.clock.advance(61)
    world.verifier.open(world.host.opening().encode(), peer=world.host.peer)


def test_a_verifier_is_named_by_its_key(arena: Arena) -> None:
    world = arena.settled(0)
    assert world.host.terms is not None
    assert world.host.terms.terms.verifier == world.verifier.thumbprint == world.keys.thumbprint


def test_a_challenge_names_the_ledger_as_it_stands(arena: Arena) -> None:
    """Once witnesses cosign the roots, a proof of not-before that does not rest on the verifier."""
    world = arena.settled(1)
    root = world.ledger.root
    world.verifier.resume(world.host.session, peer=world.host.peer)
    with world.store.transaction() as tx:
        issued = tx.challenges.last(world.host.session)
    assert issued is not None
    assert issued.ledger_root == root
    assert issued.issued_ns == nanoseconds(world.clock.at)


@pytest.fixture(scope="module")
def target(quick_dir: Path, engines: Engines) -> Iterator[World]:
    """A verifier for any bytes; nothing that it is sent may harm it."""
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        made = Arena(Path(directory), engines)
        yield made.world()
        made.close()


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_opening_is_answered_or_refused(target: World, data: st.DataObject) -> None:
    octets = data.draw(inputs(target.host.opening().encode()))
    try:
        target.verifier.open(octets, peer=target.host.peer)
    except (MalformedEvidence, NotAuthentic):
        return


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_proof_is_answered_or_refused(target: World, data: st.DataObject) -> None:
    """One value exchanged in an honest proof, or bytes of it damaged."""
    challenge = target.verifier.open(target.host.opening().encode(), peer=target.host.peer)
    octets = data.draw(inputs(target.host.proof(challenge).encode()))
    try:
        target.verifier.prove(octets, peer=target.host.peer)
    except (MalformedEvidence, NotAuthentic):
        return


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_nothing_is_judged_while_the_clock_stands_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A69: certificates that have expired and keys that were revoked must not look good again."""
    now = world.clock.at

    def set_to(seconds: float) -> None:
        present = nanoseconds(now + timedelta(seconds=seconds))
        monkeypatch.setattr("time.time_ns", lambda: present)

    set_to(0)
    # As it is served: what was recorded last bounds it, so that a restart is no way to set the clock back.
    world.clock = SystemClock(world.archive.latest())  # type: ignore[assignment] # the product's own
    world.restart()
    sealed = world.host.seal()
    set_to(-3600)
    size = world.ledger.size
    peer, session = world.host.peer, world.host.session
    for call in (
        lambda: world.send(sealed.evidence),
        lambda: world.verifier.resume(session, peer=peer),
        lambda: world.verifier.close(session, peer=peer),
        lambda: world.verifier.open(world.host.opening().encode(), peer=peer),
    ):
        assert code_of(call, EnvironmentFault) is Code.CLOCK_STEPPED
    assert world.ledger.size == size
    set_to(1)
    assert world.deliver(sealed).verdict.opens


def test_nothing_is_recorded_for_which_no_challenge_can_be_drawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that was recorded and not answered would be a duplicate when it comes again."""
    sealed = world.host.seal()
    size = world.ledger.size
    with monkeypatch.context() as stuck:
        stuck.setattr("secrets.token_bytes", bytes)
        assert code_of(lambda: world.send(sealed.evidence), NotAuthentic) is Code.NONCE_DENIED
    assert world.ledger.size == size
    assert world.deliver(sealed).verdict.opens


# -- judgements that a loss of power cut off ---------------------------------------------------------------------------


def test_a_window_that_was_recorded_and_not_answered_is_in_the_chain_after_a_restart(world: World) -> None:
    """Sent again, it is a duplicate; the host resumes and goes on behind it."""
    before = world.ledger.size
    sealed = world.host.seal()
    world.clock.advance(1)
    _while_cut(lambda: world.send(sealed.evidence))
    size = world.ledger.size
    assert size == before + 1
    world.restart()
    assert world.ledger.size == size
    assert code_of(lambda: world.send(sealed.evidence), NotAuthentic) is Code.WINDOW_DUPLICATE
    world.host.advance(sealed)
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    assert resumed.next_seq == world.host.seq == 3
    world.host.challenge = resumed.challenge
    assert world.window().verdict.opens


class _PowerCutError(BaseException):
    """The machine is off."""


def _power_cut(*_: object, **__: object) -> None:
    raise _PowerCutError


def test_a_denial_that_did_not_latch_latches_after_a_restart(world: World) -> None:
    """A72: no loss of power forgives."""
    sealed = seal(world.host, claim(prev=bytes(32)))
    world.clock.advance(1)
    _while_cut(lambda: world.send(sealed.evidence))
    assert state_of(world) is SessionState.RUNNING
    world.restart()
    assert state_of(world) is SessionState.FAILED
    assert code_of(world.open_session, PolicyDenied) is Code.SUBJECT_FAILED


def test_a_closing_that_was_recorded_is_one_after_a_restart(world: World) -> None:
    _while_cut(lambda: world.verifier.close(world.host.session, peer=world.host.peer))
    assert state_of(world) is SessionState.RUNNING
    world.restart()
    assert state_of(world) is SessionState.CLOSED


def test_an_enrolment_that_was_refused_sticks_after_a_restart(arena: Arena) -> None:
    """A78"""
    world = arena.world()
    world.host.log.load(OTHER)
    _while_cut(lambda: world.host.enrol(world.verifier))
    world.restart()
    world.host.tpm.reset()
    world.host.log.entries.clear()
    assert code_of(world.open_session, PolicyDenied) is Code.SUBJECT_FAILED


def test_an_enrolment_that_an_old_failure_refused_brings_no_new_one(world: World) -> None:
    fail(world)
    size = world.ledger.size
    assert code_of(lambda: world.host.enrol(world.verifier), PolicyDenied) is Code.SUBJECT_FAILED
    world.restart()
    assert world.ledger.size == size + 1
    with world.store.transaction() as tx:
        assert world.host.terms is not None
        subject = tx.subjects.of("ak", world.host.terms.terms.ak)
    assert subject is not None
    assert subject.failed_code is Code.WINDOW_PREV


def test_a_last_record_without_a_verdict_is_not_believed(world: World) -> None:
    note = Record.note("window", session=world.host.session, seq=2, received_ns=0, verdict=b"[]")
    world.archive.commit(note, None)
    assert code_of(world.restart, LedgerInconsistent) is Code.LEDGER_INCONSISTENT


def _while_cut(call: Callable[[], object]) -> None:
    """Have ``call`` interrupted where the store would learn of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("transaction.Transaction.advance", "transaction.Transaction.set_state", "subjects.Subjects.fail"):
            patch.setattr(f"weighbridge.verifier.{name}", _power_cut)
        with pytest.raises(_PowerCutError):
            call()
