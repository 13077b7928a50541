"""From verified evidence to a verdict: what is told, what refuses, what a policy never sees past."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Self, cast

import pytest

from corpus.policy import genuine
from corpus.weights import OTHER
from support.forge import interval, seal, with_telemetry
from support.world import EMULATED, LOG_PCR, PERIOD_NS, manifest
from weighbridge.policy.document import PolicyInput
from weighbridge.proto import limits, measurement_log, strict
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.errors import Code, Indeterminate, NotAuthentic
from weighbridge.proto.telemetry import Channel, Source, Telemetry
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.appraisal import NOT_PROVEN
from weighbridge.verifier.enrolment import verify_opening, verify_proof
from weighbridge.verifier.invariants import APPRAISED
from weighbridge.verifier.procedure import authenticate, verify_window

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.engine import Decision
    from weighbridge.verifier.appraisal import Verdict


def judge(world: World, *, change: Telemetry | None = None) -> Verdict:
    observed = world.host.observe()
    if change is not None:
        observed = with_telemetry(change.encode(), observed)
    world.clock.advance(1)
    return world.deliver(world.host.seal(observed)).verdict


def warnings(verdict: Verdict) -> list[str]:
    assert verdict.decision is not None
    return [item.message for item in verdict.decision.warnings]


# -- the verdict -------------------------------------------------------------------------------------------------------


def test_every_verdict_says_everything(arena: Arena) -> None:
    world = arena.settled(1)
    documents = [world.window().verdict.document()]
    sealed = world.host.seal()
    world.clock.advance(30)
    documents.append(world.deliver(sealed).verdict.document())
    world.host.log.load(OTHER)
    documents.append(world.deliver(world.host.seal()).verdict.document())
    assert [document["outcome"] for document in documents] == ["affirmed", "held", "denied"]
    assert [document["freshness"] for document in documents] == ["fresh", "held", "fresh"]
    assert len({frozenset(document) for document in documents}) == 1
    for document in documents:
        assert document["schema"] == "weighbridge/verdict/v1"
        code = cast("dict[str, Any]", document["attester_code"])
        assert code["status"] == "unproven"
        assert {"boot-log", "secure-boot", "closed-set", "attester-measured"} <= set(code["missing"])
        assert document["platform"] == {
            "provenance": "ek-credential",
            "name": "insecure-emulated",
            "anchor": "CN=authority root",
            "detail": "",
            "state_held_by": "unknown",
        }
        assert document["telemetry"] == "no_baseline"
        own, said, *rest = cast("list[str]", document["not_proven"])
        assert "the EK certificate proves a genuine TPM, not that it is in this guest" in own
        assert "attester code is unproven" in said
        assert rest == list(NOT_PROVEN)
        assert strict.json_decode(strict.json_encode(document), what="verdict") == document
    assert documents[0]["denials"] == []
    assert documents[2]["policy"] is None


def test_every_invariant_refuses_before_any_policy(arena: Arena) -> None:
    """A63: no policy judged, so none can have been switched on or off."""
    world = arena.world()
    world.host.enrol(world.verifier)
    world.host.log.load(manifest(weights=b"Weights"))
    verdict = judge(world)
    assert {Code(denial.code) for denial in verdict.denials} <= APPRAISED
    assert verdict.decision is None


def test_files_that_a_guard_refused_are_named(arena: Arena) -> None:
    """A53: which, in which record; and a flood of them makes no verdict that cannot be recorded."""
    world = arena.settled(1)
    for number in range(20):
        path, detail = f"{number:02d}.safetensors", "tensor " + "x" * 500
        world.host.log.append(measurement_log.ModelHanded(0, path, None, 0, 0, "mismatch", detail))
    verdict = judge(world)
    assert verdict.decision is None
    assert {denial.code for denial in verdict.denials} == {Code.LOAD_MISMATCH}
    assert len(verdict.denials) == 17
    assert "00.safetensors, tensor xxx" in verdict.denials[0].message
    assert "log record 1, loaded by record 0" in verdict.denials[0].message
    assert all(len(denial.message) < 512 for denial in verdict.denials)
    assert "4 more files" in verdict.denials[-1].message


def test_a_changed_tensor_is_named(arena: Arena) -> None:
    """A51, A54: the demonstration's second act."""
    world = arena.world()
    world.host.enrol(world.verifier)
    world.host.log.load(manifest(weights=b"Weights"))
    first = judge(world).denials[0]
    assert first.code == "WEIGHTS_MISMATCH"
    assert "model.safetensors, tensor layer.weight" in first.message


def test_many_undeclared_models_are_told_of_and_not_all_named(arena: Arena) -> None:
    world = arena.settled(0)
    for number in range(40):
        world.host.log.load(manifest(f"model {number}", weights=b"%d" % number))
    denials = judge(world).denials
    assert len(denials) < 64
    assert "8 more models" in denials[-1].message


def test_an_undeclared_model_is_refused_where_nobody_has_the_declared_manifest(arena: Arena) -> None:
    """There is nothing to compare with, and nothing is compared: it is not the declared one."""
    world = arena.settled(1)
    world.models.clear()
    world.restart()
    world.host.log.load(manifest("another", weights=b"other weights"))
    assert [denial.code for denial in judge(world).denials] == ["MODEL_UNDECLARED"]


def test_a_log_has_a_limit(arena: Arena) -> None:
    """A70: of all its records together, not of each window's."""
    world = arena.settled(1)
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    (record,) = live.position.log.records
    full = replace(live.position.log, records=(record,) * limits.LOG_RECORDS_MAX)
    event = measurement_log.AttesterStart("0.1.0", bytes(16))
    next_ = measurement_log.make_record(event, recnum=limits.LOG_RECORDS_MAX, pcr=LOG_PCR, algs=world.host.tpm.banks)
    with pytest.raises(NotAuthentic) as refusal:
        full.extended([next_], bank=HashAlgorithm.SHA256, pcr=LOG_PCR)
    assert refusal.value.code is Code.TOO_LARGE


# -- what is only noticed ----------------------------------------------------------------------------------------------


def test_a_gap_is_noticed(arena: Arena) -> None:
    world = arena.settled(1)
    world.clock.advance(5)
    world.host.wall_ns += 5 * PERIOD_NS
    resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
    world.host.challenge = resumed.challenge
    verdict = judge(world)
    assert verdict.opens
    assert any("uncovered" in message for message in warnings(verdict))


def test_an_interval_of_another_length_is_noticed(arena: Arena) -> None:
    world = arena.settled(1)
    world.clock.advance(1)
    verdict = world.deliver(seal(world.host, interval(wall_end_ns=world.host.wall_ns + 3 * PERIOD_NS))).verdict
    assert verdict.opens
    assert any("twice as long" in message for message in warnings(verdict))


def test_an_interval_of_long_ago_is_noticed(arena: Arena) -> None:
    """The challenge dates the seal, not the samples."""
    world = arena.settled(1)
    for _ in range(2):
        world.clock.advance(3600)
        resumed = world.verifier.resume(world.host.session, peer=world.host.peer)
        world.host.challenge = resumed.challenge
    verdict = judge(world)
    assert verdict.opens
    assert any("long before" in message for message in warnings(verdict))


def test_no_samples_are_noticed(arena: Arena) -> None:
    world = arena.settled(1)
    said = Telemetry.parse(world.host.observe().telemetry)
    silent = tuple(
        replace(source, offsets=(), channels={name: replace(it, values=()) for name, it in source.channels.items()})
        for source in said.sources
    )
    verdict = judge(world, change=replace(said, sources=silent))
    assert verdict.opens
    assert any("no sample" in message for message in warnings(verdict))


# -- whose word the samples are ----------------------------------------------------------------------------------------


def _host_source(name: str, world: World) -> Source:
    return Source(device=None, name=name, start_wall_ns=world.host.wall_ns, period_ns=10**8, offsets=(0,), channels={})


@pytest.mark.parametrize(("name", "outcome"), [("rapl", "affirmed"), ("emulated", "denied"), ("replay", "denied")])
def test_an_emulated_sensor_is_none_whatever_it_names(arena: Arena, name: str, outcome: str) -> None:
    world = arena.world(**genuine())
    world.open_session()
    said = Telemetry.parse(world.host.observe().telemetry)
    verdict = judge(world, change=replace(said, sources=(*said.sources, _host_source(name, world))))
    assert verdict.outcome == outcome
    if outcome == "denied":
        assert [denial.code for denial in verdict.denials] == ["PLATFORM_EMULATED"]


def test_samples_of_an_emulated_device_are_emulated_whatever_their_name(arena: Arena) -> None:
    world = arena.world(**genuine(platforms=("tpm", EMULATED)))
    world.open_session()
    codes = {denial.code for denial in judge(world).denials}
    assert codes == {"PLATFORM_EMULATED"}


def test_samples_are_packed_in_integers(arena: Arena) -> None:
    world = arena.settled(0)
    said = Telemetry.parse(world.host.observe().telemetry)
    values = said.sources[0].channels["power"].values
    assert values is not None
    assert all(type(value) is int for value in values)
    assert Telemetry.parse(said.encode()) == said


# -- a policy that does not answer -------------------------------------------------------------------------------------


class Wordless:
    """A policy that has no answer."""

    def decide(self, document: PolicyInput) -> Decision:
        assert document.window.freshness == "fresh"
        raise Indeterminate(Code.REFERENCE_ABSENT, "reference values are absent", where="reference", hint="bring them")

    def close(self) -> None:
        """Nothing was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was opened."""


def test_no_answer_is_a_denial(arena: Arena) -> None:
    """A63"""
    world = arena.settled(1)
    world.prepared = Wordless()
    world.restart()
    verdict = judge(world)
    (denial,) = verdict.denials
    assert (verdict.outcome, denial.code, denial.hint) == ("denied", "REFERENCE_ABSENT", "bring them")
    assert denial.message == "reference values are absent (reference)"


# -- verified is made by verifying only --------------------------------------------------------------------------------


def _verified(arena: Arena) -> dict[str, Any]:
    world = arena.settled(1)
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    sealed = world.host.seal()
    window = authenticate(sealed.evidence, enrolled=live.enrolled, peer=world.host.peer)
    verified = verify_window(
        window,
        enrolled=live.enrolled,
        position=live.position,
        held=False,
        spot=None,
        anchors=world.anchors,
        at=world.clock.at,
    )
    other = arena.another_host(world)
    other.pinned = False
    challenge = world.verifier.open(other.opening().encode(), peer=other.peer)
    pending = world.verifier._enroller._pending[challenge.session]
    proof = other.proof(challenge)
    enrolment = verify_proof(
        proof,
        candidate=verify_opening(
            pending.opening,
            requirements=world.wanted,
            anchors=world.anchors,
            collateral=Collateral(),
            peer=other.peer,
            at=world.clock.at,
        ),
        secret=pending.secret,
        challenge=challenge,
        requirements=world.wanted,
        anchors=world.anchors,
        at=world.clock.at,
    )
    return {"AuthenticWindow": window, "VerifiedWindow": verified, "VerifiedEnrolment": enrolment}


@pytest.mark.parametrize("name", ["AuthenticWindow", "VerifiedWindow", "VerifiedEnrolment"])
def test_what_is_verified_is_made_by_verifying_only(arena: Arena, name: str) -> None:
    value = _verified(arena)[name]
    with pytest.raises(TypeError, match=f"{name} is made by"):
        replace(value, seal=None)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(value)


# -- what the inference server counts ----------------------------------------------------------------------------------


def _counted(world: World, tokens_in: int) -> Telemetry:
    """The window's telemetry, with what the server's own counter says of the tokens."""
    said = Telemetry.parse(world.host.observe().telemetry)
    engine = Source(
        device=None,
        name="engine",
        start_wall_ns=said.sources[0].start_wall_ns,
        period_ns=10**9,
        offsets=(0,),
        channels={"tokens_in": Channel("1", (tokens_in,))},
    )
    return replace(said, sources=(*said.sources, engine))


def test_counts_that_the_servers_own_counters_contradict_are_told(arena: Arena) -> None:
    """A window declares 64 tokens; what two accounts may differ by is many requests in flight."""
    world = arena.settled()
    verdicts = [judge(world, change=_counted(world, total)) for total in (7, 100_000, 9_000_000, 9_000_064)]
    said = [[message for message in warnings(verdict) if "declared in this session" in message] for verdict in verdicts]
    assert [len(messages) for messages in said] == [0, 0, 1, 1]
    assert "tokens_in: 192 declared in this session, 9000057 by the server's own counters" in said[-1][0]
    assert [verdict.document()["outcome"] for verdict in verdicts] == ["affirmed"] * 4
