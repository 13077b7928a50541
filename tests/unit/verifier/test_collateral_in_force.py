"""What makers publish while a verifier serves: judged by from the next window on, named in records, put in bundles."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Self

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from corpus.bundle import Exported, believed, export
from fakes import rims
from fakes.forged_snp import ForgedSnp
from fakes.ocsp_responder import Order, RevocableVendor
from fakes.soft_tpm import SoftTpm
from support.contents import alter, remove
from support.gate import Gate
from support.world import EMULATED, NOON
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.emulated_rims import gpu_manifests
from weighbridge.policy import policy_set
from weighbridge.proto import strict
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.digest import preimage
from weighbridge.proto.errors import (
    Code,
    EnvironmentFault,
    Indeterminate,
    LedgerInconsistent,
    MalformedEvidence,
    WeighbridgeError,
)
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.certs import load_certificate
from weighbridge.verifier.collateral import CollateralStore, recognise
from weighbridge.verifier.policy_watch import PolicyWatch
from weighbridge.verifier.published import Published
from weighbridge.verifier.record import NO_DIGEST, Record
from weighbridge.verifier.reference_watch import ReferenceWatch
from weighbridge.verifier.replay import replay_enrolment
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.core import Answer

_OF_DRIVER = 22


def codes(answer: Answer) -> list[str]:
    return [denial.code for denial in answer.verdict.denials]


def code_of(call: Callable[[], object], kind: type[WeighbridgeError] = WeighbridgeError) -> Code:
    with pytest.raises(kind) as refusal:
        call()
    return refusal.value.code


def makers_word_alone(reference: Reference) -> Reference:
    return replace(reference, gpu_measurements={})


def rim_anchor(gpus: EmulatedGpus) -> Anchor:
    root = load_certificate(gpus.vendor.rim_root_certificate, what="root")
    return Anchor.from_certificate("nvidia-rim-root", root, platform=EMULATED, source="a test")


def items(*files: bytes) -> list[CollateralItem]:
    return [CollateralItem("rim", data) for data in files]


def records(world: World) -> list[Record]:
    """The enrolment's, and those of the windows, as they were judged."""
    return [world.archive.records.record(index) for index in range(world.ledger.size)]


# -- a store that changes while the verifier serves --------------------------------------------------------------------


@dataclass
class Served:
    """A world whose verifier looks at a store of collateral, and at nothing else, before each window."""

    world: World
    store: CollateralStore
    directory: Path
    watch: ReferenceWatch
    lines: list[str]
    prepared: list[Reference] = field(default_factory=list)

    @classmethod
    def make(cls, arena: Arena, *files: bytes, gpus: EmulatedGpus | None = None) -> Self:
        """With ``files`` in the store; nobody but the maker says what the GPUs should measure."""
        world = arena.world(reference=makers_word_alone, gpus=gpus)
        directory = world.directory / "collateral"
        store = CollateralStore.create(directory)
        lines: list[str] = []
        prepared: list[Reference] = []

        def load(policy: PolicySet) -> Prepared:
            prepared.append(policy.reference)
            return arena.engines.load(policy)

        watch = ReferenceWatch(
            [],
            own=world.reference,
            anchors=TrustAnchors((*world.anchors.anchors, rim_anchor(world.host.gpus))),
            store=world.store,
            policies=PolicyWatch(
                [],
                own=policy_set.shipped(world.policy, reference=world.reference),
                anchors=world.anchors,
                store=world.store,
                load=load,
                report=lines.append,
            ),
            manifests=world.models,
            report=lines.append,
            collateral=store,
        )
        world.anchors = watch._anchors
        served = cls(world, store, directory, watch, lines, prepared)
        served.put(*files)
        world.restart(watch.open(world.clock.at)).follow(watch)
        return served

    def put(self, *files: bytes) -> None:
        self.store.put(piece for data in files for piece in recognise(data, where="a test"))

    def contradicting(self, *, issued: timedelta) -> bytes:
        """A newer manifest of the driver, by which the devices are wrong."""
        gpus = self.world.host.gpus
        driver, _ = gpu_manifests(gpus.devices[0].firmware)
        wrong = rims.with_hash(driver, _OF_DRIVER, rims.ZERO)
        return gpus.vendor.rim_signer.issue(wrong, validity=rims.issued(NOON + issued))


def served(arena: Arena) -> Served:
    gpus = EmulatedGpus.create(2)
    return Served.make(arena, *gpus.rims(), gpus=gpus)


def test_a_piece_that_comes_counts_from_the_next_window_on(arena: Arena) -> None:
    """A82"""
    made = served(arena)
    world = made.world
    world.open_session()
    assert world.window().verdict.opens
    made.put(made.contradicting(issued=timedelta(days=-1)))
    answer = world.window()
    assert set(codes(answer)) == {Code.GPU_MEASUREMENT_MISMATCH}
    assert "measurement 22" in answer.verdict.denials[0].message
    assert made.lines == ["collateral: 2 pieces", "collateral: 3 pieces"]
    enrolment, first, second = records(world)
    assert enrolment.collateral == first.collateral != second.collateral
    for record, size in ((enrolment, 2), (first, 2), (second, 3)):
        kept = world.archive.records.collateral(record.collateral)
        assert (kept.digest, len(kept.items)) == (record.collateral, size)
    # The policy was judged by all the while: only what it is asked about has changed.
    assert len(made.prepared) == 1
    # Later and offline, from the file alone: both collections, both verdicts.
    exported = Exported(arena.engines, world, export(world))
    assert len(exported.bundle.collaterals) == 2
    result = exported.verify()
    assert [verdict.outcome for verdict in result.verdicts] == ["affirmed", "denied"]
    assert [verdict.encode() for verdict in result.verdicts] == [first.verdict, second.verdict]


def test_a_revocation_that_comes_counts_from_the_next_window_on(arena: Arena) -> None:
    """A22"""
    maker = RevocableVendor.create()
    gpus = EmulatedGpus(maker.vendor, [EmulatedH100.make(maker.vendor) for _ in range(2)])
    made = Served.make(arena, *gpus.rims(), gpus=gpus)
    made.world.open_session()
    assert made.world.window().verdict.opens
    made.put(maker.responses(gpus.devices[1].keys.chain, Order(status="revoked"))[0])
    answer = made.world.window()
    assert codes(answer) == [Code.GPU_REVOKED]
    assert answer.verdict.denials[0].device == gpus.devices[1].identity.hex()


def test_an_issue_counts_from_its_time_on_though_no_file_changes(arena: Arena) -> None:
    made = served(arena)
    made.put(made.contradicting(issued=timedelta(seconds=2)))
    world = made.world
    world.open_session()
    assert world.window().verdict.opens
    assert set(codes(world.window())) == {Code.GPU_MEASUREMENT_MISMATCH}


def test_while_nothing_changes_nothing_is_made_anew(arena: Arena) -> None:
    made = served(arena)
    world = made.world
    world.open_session()
    first = made.store.snapshot(world.clock.at)
    judge = world.verifier._first.appraiser
    for _ in range(3):
        assert world.window().verdict.opens
        assert made.watch.renew(world.clock.at) is None
    assert world.verifier._first.appraiser is judge
    assert judge.published.collateral is first is made.store.snapshot(world.clock.at)
    made.put(made.contradicting(issued=timedelta(days=-9000)))
    renewed = made.watch.renew(world.clock.at)
    assert renewed is not None
    assert (renewed.policy, renewed.reference) == (judge.policy, judge.reference)
    assert made.watch.renew(world.clock.at) is None
    assert (len(made.prepared), made.lines[-1]) == (1, "collateral: 3 pieces")


def test_a_store_with_nothing_in_it_names_nothing(arena: Arena) -> None:
    made = Served.make(arena)
    world = made.world
    world.open_session()
    assert set(codes(world.window())) == {Code.GPU_REFERENCE_ABSENT}
    assert {record.collateral for record in records(world)} == {NO_DIGEST}
    assert made.lines == ["collateral: 0 pieces"]


@pytest.mark.parametrize("damage", ["a piece", "the directory"])
def test_while_the_store_is_damaged_nothing_is_judged(arena: Arena, damage: str) -> None:
    """What was lost may have been a revocation: no window is admitted by what is left of it, and none fails for it."""
    made = served(arena)
    world = made.world
    world.open_session()
    assert world.window().verdict.opens
    path, aside = made.directory / "items", made.directory / "aside"
    shutil.copytree(path, aside)
    if damage == "a piece":
        next(path.iterdir()).write_bytes(b"what is left of it")
        (path / ("0" * 64)).write_bytes(b"nothing of this digest")
    else:
        shutil.rmtree(path)
    world.clock.advance(1)
    sealed, before = world.host.seal(), world.ledger.size
    expected = Code.STATE_CORRUPT if damage == "a piece" else Code.FILE_UNREADABLE
    for _ in range(2):
        assert code_of(lambda: world.send(sealed.evidence), EnvironmentFault) is expected
    assert code_of(world.verifier.refresh, EnvironmentFault) is expected
    assert world.ledger.size == before
    with world.store.transaction() as tx:
        row = tx.session(world.host.session)
    assert row is not None
    assert row.state is SessionState.RUNNING
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)
    assert world.deliver(sealed).verdict.opens


def test_a_verifier_does_not_begin_with_a_damaged_store(arena: Arena) -> None:
    made = served(arena)
    (made.directory / "items" / ("0" * 64)).write_bytes(b"nothing of this digest")
    assert code_of(lambda: made.watch.open(NOON), EnvironmentFault) is Code.STATE_CORRUPT


def test_without_a_store_nothing_is_published(arena: Arena) -> None:
    gate = Gate.make(arena)
    watch = gate.opened(gate.owner.content(gate.world.host.model))
    assert watch.renew(NOON) is None
    assert {record.collateral for record in records(gate.world)} == {NO_DIGEST}
    assert not [line for line in gate.lines if line.startswith("collateral")]


def test_what_came_while_the_engine_was_at_fault_is_judged_by_when_it_is_not(arena: Arena) -> None:
    """The owner's set and the makers' pieces changed at once, and the policy could not be loaded with the former."""
    gate, broken = Gate.make(arena), False
    gate.collateral = CollateralStore.create(gate.world.directory / "collateral")

    def prepare(reference: Reference) -> Prepared:
        if broken:
            raise EnvironmentFault(Code.COMMAND_FAILED, "cannot start the policy worker")
        return gate.prepare(reference)

    world = gate.world
    gate.publish(gate.owner.content(world.host.model))
    gate.start(prepare=prepare)
    world.open_session()
    assert world.window().verdict.opens
    broken = True
    gate.publish(gate.owner.content(world.host.model, number=2))
    gate.collateral.put(recognise(world.host.gpus.rims()[0], where="a test"))
    world.clock.advance(1)
    sealed = world.host.seal()
    for _ in range(2):
        assert code_of(lambda: world.send(sealed.evidence), EnvironmentFault) is Code.COMMAND_FAILED
    broken = False
    verdict = world.deliver(sealed).verdict
    assert verdict.opens
    assert verdict.collateral == gate.collateral.snapshot(world.clock.at).digest
    assert world.verifier._first.appraiser.reference.sets[0].number == 2


# -- a restart, and records --------------------------------------------------------------------------------------------


def judged(arena: Arena, windows: int = 2) -> World:
    """A session whose every window rests on its maker's manifests."""
    world = arena.world(reference=makers_word_alone)
    world.publish(*items(*world.host.gpus.rims()), believing=[rim_anchor(world.host.gpus)])
    world.open_session()
    for _ in range(windows):
        assert world.window().verdict.opens
    return world


def enrolment(world: World) -> tuple[Record, bytes]:
    record = world.archive.records.record(0)
    return record, world.archive.records.evidence(record)


def again(world: World, record: Record, proof: bytes, collateral: Collateral) -> object:
    return replay_enrolment(
        record, proof, anchors=world.anchors, verifier_key=world.keys.signing.public_key(), collateral=collateral
    )


def test_an_enrolment_is_made_again_from_the_collateral_that_its_record_names(arena: Arena) -> None:
    world = judged(arena)
    record, proof = enrolment(world)
    named = world.published.collateral
    assert record.collateral == named.digest
    assert again(world, record, proof, named)
    for other in (Collateral(), Collateral.of(*named.items[:1]), named.with_items((CollateralItem("crl", b"x"),))):
        refused = code_of(partial(again, world, record, proof, other), LedgerInconsistent)
        assert refused is Code.LEDGER_INCONSISTENT
    nameless = replace(record, collateral=NO_DIGEST)
    assert code_of(lambda: again(world, nameless, proof, named), LedgerInconsistent) is Code.LEDGER_INCONSISTENT


def test_a_restart_replays_by_what_was_recorded_and_judges_by_what_is_published_now(arena: Arena) -> None:
    """A confidential machine's list was in the verifier's store, and is not any more."""
    snp, tpm = ForgedSnp.create(), SoftTpm(ak="RSA-2048")
    world = arena.world(tpm=tpm, extra_anchors=list(snp.anchors().anchors))
    assert isinstance(tpm.ak_key, rsa.RSAPrivateKey)
    world.host.endorsement = snp.endorsement(tpm.ak_key.public_key())
    listed = CollateralItem("crl", snp.crl(next_update=NOON + timedelta(days=1)))
    world.publish(listed)
    world.host.enrol(world.verifier)
    world.publish()
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    assert live.enrolled.ak.tee is not None
    assert live.enrolled.ak.tee.revocation == "good"
    world.host.enrol(world.verifier)
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    assert live.enrolled.ak.tee is not None
    assert live.enrolled.ak.tee.revocation == "absent"
    assert [record.collateral for record in records(world)] == [Collateral.of(listed).digest, NO_DIGEST]


def test_a_session_goes_on_after_a_restart(arena: Arena) -> None:
    world = judged(arena)
    world.restart()
    assert world.window().verdict.opens
    assert {record.collateral for record in records(world)} == {world.published.digest}


def test_a_session_whose_collateral_was_lost_or_altered_does_not_go_on(arena: Arena) -> None:
    world = judged(arena)
    content, collateral = world.directory / "content", world.published.digest
    alter(content, collateral)
    world.restart()
    sealed = world.host.seal()
    assert code_of(lambda: world.send(sealed.evidence), LedgerInconsistent) is Code.LEDGER_INCONSISTENT
    alter(content, collateral)
    kept = shutil.copytree(content, world.directory / "kept")
    remove(content, collateral)
    assert code_of(lambda: world.send(sealed.evidence), Indeterminate) is Code.EVIDENCE_ABSENT
    shutil.rmtree(content)
    kept.rename(content)
    world.clock.advance(1)
    assert world.deliver(sealed).verdict.opens


def test_what_is_kept_is_read_back_under_its_name(arena: Arena) -> None:
    archive = arena.world().archive
    made = Collateral.of(*items(b"a", b"b"), CollateralItem("ocsp", b"a"))
    assert archive.keep_collateral(made) == made.digest
    assert archive.records.collateral(made.digest) == made
    before = archive.ledger.size
    assert archive.keep_collateral(Collateral()) == NO_DIGEST
    assert archive.records.collateral(NO_DIGEST) == Collateral()
    assert code_of(lambda: archive.records.collateral(b"\x01" * 32), Indeterminate) is Code.EVIDENCE_ABSENT
    assert archive.ledger.size == before


@pytest.mark.parametrize("what", [b"junk", preimage("reference", b"{}"), preimage("collateral", b"junk")])
def test_something_else_under_the_name_of_collateral(arena: Arena, what: bytes) -> None:
    archive = arena.world().archive
    digest = archive._content.put(what)
    with pytest.raises(MalformedEvidence):
        archive.records.collateral(digest)


# -- bundles -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(arena: Arena) -> Exported:
    world = judged(arena, 3)
    world.verifier.close(world.host.session, peer=world.host.peer)
    return Exported(arena.engines, world, export(world))


def test_a_bundle_brings_what_its_verdicts_rest_on_once(exported: Exported) -> None:
    (kept,) = exported.bundle.collaterals
    assert Collateral.parse(kept) == exported.world.published.collateral
    result = exported.verify()
    assert [verdict.outcome for verdict in result.verdicts] == ["affirmed"] * 3
    assert (result.same_policy, result.recorded_policy, result.recorded_reference) == (True, True, True)
    recorded = [Record.parse(entry.record).verdict for entry in exported.bundle.entries[1:4]]
    assert [verdict.encode() for verdict in result.verdicts] == recorded
    document = strict.json_decode(recorded[0], what="verdict")
    assert isinstance(document, dict)
    assert result.verdicts[0].collateral == exported.world.published.digest


def test_without_it_or_with_another_nothing_is_judged(exported: Exported) -> None:
    """A64: whoever wrote the file must not choose which revocations count."""
    (kept,) = exported.bundle.collaterals
    fewer = Collateral.of(*Collateral.parse(kept).items[:1]).encode()
    more = Collateral.parse(kept).with_items((CollateralItem("ocsp", b"x"),)).encode()
    for collaterals in ((), (fewer,), (more, fewer), (Collateral().encode(),), (b"junk",), (kept[:-1],)):
        forged = replace(exported.bundle, collaterals=collaterals)
        assert code_of(partial(exported.verify, forged), LedgerInconsistent) is Code.BUNDLE_VERDICT
    # What no record names has no place in it.
    more_of_it = replace(exported.bundle, collaterals=(kept, more))
    assert code_of(lambda: exported.verify(more_of_it), MalformedEvidence) is Code.BUNDLE_MALFORMED


@pytest.mark.parametrize("entry", [0, 1])
def test_a_record_that_names_other_collateral_is_not_the_ledgers(exported: Exported, entry: int) -> None:
    entries = list(exported.bundle.entries)
    record = replace(Record.parse(entries[entry].record), collateral=NO_DIGEST)
    entries[entry] = replace(entries[entry], record=record.encode())
    forged = replace(exported.bundle, entries=tuple(entries))
    assert code_of(lambda: exported.verify(forged), LedgerInconsistent) is Code.LEDGER_PROOF


def test_whoever_does_not_believe_the_maker_comes_to_no_such_verdict(exported: Exported) -> None:
    anchors = [each for each in believed(exported.world).anchors if each.purpose != "nvidia-rim-root"]
    refused = code_of(lambda: exported.verify(anchors=TrustAnchors(tuple(anchors))), LedgerInconsistent)
    assert refused is Code.BUNDLE_VERDICT


def test_a_policy_of_ones_own_judges_by_the_recorded_collateral(exported: Exported) -> None:
    result = exported.verify(policy="production")
    assert {denial.code for verdict in result.verdicts for denial in verdict.denials} == {Code.PLATFORM_EMULATED}
    assert {verdict.collateral for verdict in result.verdicts} == {exported.world.published.digest}


def test_collateral_of_ones_own_counts_in_place_of_the_recorded(exported: Exported) -> None:
    """What was revoked since shows, and with nothing at hand what was affirmed is so no more."""
    anchors = believed(exported.world)
    recorded = exported.world.published.collateral
    same = exported.verify(published=Published(recorded, anchors))
    assert same.same_policy
    assert same.admitted
    junk = Collateral.of(CollateralItem("ocsp", b"nothing of these devices"))
    own = exported.verify(published=Published(junk, anchors))
    assert not own.same_policy
    assert not own.admitted
    assert {denial.code for denial in own.verdicts[0].denials} == {Code.GPU_REFERENCE_ABSENT}
    assert own.verdicts[0].collateral == junk.digest
