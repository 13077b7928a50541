"""Sessions made again from their records: what does not fit together is not believed, whoever signed it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fakes.forged_snp import ForgedSnp
from fakes.soft_tpm import SoftTpm
from support.forge import random_bytes
from support.spots import spotted
from support.world import NOON, requirements
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, NotAuthentic, WeighbridgeError
from weighbridge.proto.terms import SignedTerms
from weighbridge.verifier.record import ChallengePreimage, Record
from weighbridge.verifier.replay import replay_enrolment, replay_window

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Any

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.replay import ReplayedEnrolment


def enrolment(world: World) -> tuple[Record, bytes]:
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
    assert row is not None
    record = world.archive.records.record(row.enrolment_index)
    return record, world.archive.records.evidence(record)


def first_window(world: World) -> tuple[Record, bytes]:
    with world.store.transaction() as tx:
        (index, *_) = tx.window_indices(world.host.session)
    record = world.archive.records.record(index)
    return record, world.archive.records.evidence(record)


def again(world: World, record: Record, proof: bytes) -> ReplayedEnrolment:
    return replay_enrolment(
        record, proof, anchors=world.anchors, verifier_key=world.keys.signing.public_key(), collateral=Collateral()
    )


def code_of(call: Callable[[], object], kind: type[WeighbridgeError]) -> Code:
    with pytest.raises(kind) as refusal:
        call()
    return refusal.value.code


def test_an_enrolment_is_made_again(arena: Arena) -> None:
    world = arena.settled(1)
    replayed = again(world, *enrolment(world))
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    assert replayed.enrolled.signed_terms == live.enrolled.signed_terms
    assert replayed.enrolled.telemetry_key == live.enrolled.telemetry_key
    assert (replayed.position.seq, replayed.requirements) == (0, world.wanted)


def confidential(arena: Arena, snp: ForgedSnp, *, until: datetime) -> World:
    """A world whose host is a confidential machine on ``snp``; its revocation list is current ``until`` then."""
    tpm = SoftTpm(ak="RSA-2048")
    world = arena.world(tpm=tpm, extra_anchors=list(snp.anchors().anchors))
    assert isinstance(tpm.ak_key, rsa.RSAPrivateKey)
    world.host.endorsement = snp.endorsement(tpm.ak_key.public_key())
    world.host.collateral = Collateral.of(CollateralItem("crl", snp.crl(next_update=until)))
    return world


def test_what_goes_stale_between_opening_and_proof_is_stale_whenever_it_is_judged(arena: Arena) -> None:
    world = confidential(arena, ForgedSnp.create(), until=NOON + timedelta(seconds=10))
    host = world.host
    challenge = world.verifier.open(host.opening().encode(), peer=host.peer)
    world.clock.advance(30)
    host.session = world.verifier.prove(host.proof(challenge).encode(), peer=host.peer).terms.terms.session
    live = world.verifier._sessions.find(host.session, peer=host.peer)
    made_again = again(world, *enrolment(world)).enrolled
    assert [kept.ak.tee.revocation for kept in (live.enrolled, made_again) if kept.ak.tee] == ["stale", "stale"]


def test_what_ends_between_opening_and_proof_enrols_nobody(arena: Arena) -> None:
    """Else there would be a session that no restart and no bundle could make again."""
    snp = replace(ForgedSnp.create(), end=NOON + timedelta(seconds=10))
    world = confidential(arena, snp, until=NOON + timedelta(days=1))
    challenge = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    world.clock.advance(30)
    proof = world.host.proof(challenge).encode()
    refused = code_of(lambda: world.verifier.prove(proof, peer=world.host.peer), NotAuthentic)
    assert refused is Code.CHAIN_EXPIRED


@pytest.mark.parametrize("name", ["opening", "terms", "preimage", "secret", "requirements"])
def test_a_record_that_is_no_enrolments(arena: Arena, name: str) -> None:
    world = arena.settled(1)
    record, proof = enrolment(world)
    emptied: dict[str, Any] = {name: None}
    refused = code_of(lambda: again(world, replace(record, **emptied), proof), LedgerInconsistent)
    assert refused is Code.LEDGER_INCONSISTENT


def test_a_window_is_no_enrolment(arena: Arena) -> None:
    world = arena.settled(1)
    record, evidence = first_window(world)
    assert code_of(lambda: again(world, record, evidence), LedgerInconsistent) is Code.LEDGER_INCONSISTENT


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"preimage": ChallengePreimage(bytes(32), random_bytes("another"))}, Code.TPM_NONCE),
        ({"secret": random_bytes("another")}, Code.AK_UNPROVEN),
        ({"session": bytes(16)}, Code.WINDOW_SESSION),
    ],
)
def test_a_record_that_its_proof_does_not_answer(arena: Arena, changes: dict[str, Any], code: Code) -> None:
    """A01, A44"""
    world = arena.settled(1)
    record, proof = enrolment(world)
    assert code_of(lambda: again(world, replace(record, **changes), proof), NotAuthentic) is code


def test_a_proof_of_another_enrolment(arena: Arena) -> None:
    world = arena.settled(1)
    record, _ = enrolment(world)
    world.open_session()
    _, other = enrolment(world)
    assert code_of(lambda: again(world, record, other), NotAuthentic) is Code.WINDOW_SESSION


CHANGES: dict[str, Callable[[Terms], Terms]] = {
    "session": lambda terms: replace(terms, session=bytes(16)),
    "tenant": lambda terms: replace(terms, tenant="tenant-b"),
    "audience": lambda terms: replace(terms, audience="another"),
    "ak": lambda terms: replace(terms, ak=bytes(32)),
    "telemetry_key": lambda terms: replace(terms, telemetry_key=bytes(32)),
    "cnf": lambda terms: replace(terms, cnf=bytes(32)),
    "peer": lambda terms: replace(terms, peer=bytes(32)),
    "kem": lambda terms: replace(terms, kem=b"key"),
    "model": lambda terms: replace(terms, model=bytes(32)),
    "adapters": lambda terms: replace(terms, adapters=(sha256(b"another"),)),
    "evidence": lambda terms: replace(terms, evidence=("telemetry", "tpm", "workload")),
    "gpus": lambda terms: replace(terms, gpus=terms.gpus[:1]),
    "bank": lambda terms: replace(terms, bank=0x000C),
    "pcrs": lambda terms: replace(terms, pcrs=(*terms.pcrs, 16)),
    "boot_pcrs": lambda terms: replace(terms, boot_pcrs=(0,)),
    "log_pcr": lambda terms: replace(terms, log_pcr=7),
    "period_ns": lambda terms: replace(terms, period_ns=2 * terms.period_ns),
    "gpu_every": lambda terms: replace(terms, gpu_every=1000),
    "spot_every": lambda terms: replace(terms, spot_every=1000),
    "lateness_ns": lambda terms: replace(terms, lateness_ns=0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_terms_that_do_not_say_what_was_proven(arena: Arena, name: str) -> None:
    """A79: the verifier's own signature is no excuse: the record was put together."""
    world = arena.settled(1)
    record, proof = enrolment(world)
    assert world.host.terms is not None
    forged = SignedTerms.sign(CHANGES[name](world.host.terms.terms), world.keys.sign)
    refused = code_of(lambda: again(world, replace(record, terms=forged.raw), proof), LedgerInconsistent)
    assert refused is Code.LEDGER_INCONSISTENT


def test_requirements_that_are_not_those_of_the_terms(arena: Arena) -> None:
    world = arena.settled(1)
    record, proof = enrolment(world)
    lenient = replace(record, requirements=requirements(gpu_every=1000).encode())
    assert code_of(lambda: again(world, lenient, proof), LedgerInconsistent) is Code.LEDGER_INCONSISTENT


def test_a_window_is_made_again_as_fresh_under_its_challenge_only(arena: Arena) -> None:
    """A04: fresh is what the recorded preimage says, not what the record claims."""
    world = arena.settled(1)
    start = again(world, *enrolment(world))
    record, evidence = first_window(world)

    def replayed(changed: Record) -> bool:
        return replay_window(
            changed, evidence, enrolled=start.enrolled, position=start.position, anchors=world.anchors
        ).held

    assert not replayed(record)
    assert replayed(replace(record, held=True))
    for preimage in (None, ChallengePreimage(bytes(32), random_bytes("another"))):
        changed = replace(record, preimage=preimage)
        assert code_of(lambda changed=changed: replayed(changed), NotAuthentic) is Code.CHALLENGE_UNKNOWN  # type: ignore[misc]


def test_a_window_that_was_asked_about_another_model(arena: Arena) -> None:
    """A80: a spot check is about the model that the terms name, or shows nothing of it."""
    world = spotted(arena, 1)
    start = again(world, *enrolment(world))
    record, evidence = first_window(world)
    assert record.spot is not None
    asked = replace(record.spot.challenge, manifest=sha256(b"another"))

    def replayed(changed: Record) -> bytes | None:
        return replay_window(
            changed, evidence, enrolled=start.enrolled, position=start.position, anchors=world.anchors
        ).spot

    assert replayed(record) == asked.id
    other = replace(record, spot=replace(record.spot, challenge=asked))
    assert code_of(lambda: replayed(other), LedgerInconsistent) is Code.LEDGER_INCONSISTENT


# -- the archive -------------------------------------------------------------------------------------------------------


def test_an_archive_keeps_what_a_record_names_and_nothing_else(arena: Arena) -> None:
    world = arena.world()
    assert world.archive.latest() is None
    note = Record.note("junk", session=bytes(16), seq=None, received_ns=10**9, verdict=b"{}")
    with pytest.raises(ValueError, match="other evidence"):
        world.archive.commit(note, b"evidence")
    assert world.ledger.size == 0
    committed = world.archive.commit(note, None)
    assert world.archive.records.record(committed.index) == note
    with pytest.raises(ValueError, match="no evidence"):
        world.archive.records.evidence(note)
    latest = world.archive.latest()
    assert latest is not None
    assert latest.timestamp() == 1


def test_a_record_names_the_window_before_it(arena: Arena) -> None:
    """As its leaf does: so whoever has the leaves alone follows the chain that is verified here."""
    world = arena.settled(2)
    with world.store.transaction() as tx:
        records = [world.archive.records.record(index) for index in tx.window_indices(world.host.session)]
    assert [record.previous for record in records] == [None, records[0].window]
    record, evidence = first_window(world)
    replayed = again(world, *enrolment(world))

    def replay() -> object:
        forged = replace(record, previous=sha256(b"another"))
        return replay_window(
            forged, evidence, enrolled=replayed.enrolled, position=replayed.position, anchors=world.anchors
        )

    assert code_of(replay, LedgerInconsistent) is Code.LEDGER_INCONSISTENT
