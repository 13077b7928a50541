"""Accepted windows, changed in one place: every claim of the header, every part of the evidence, single bits.

The windows are of the kinds that differ in what they carry: the first with its manifest, one that owes GPU reports, one
that owes none, one with new log records, one that came too late. Each is accepted as it is; nothing of it may differ.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.arena import Arena
from support.forge import header_of, parts, random_bytes, resealed, unsigned
from support.mutations import inputs
from support.world import CNF, requirements
from weighbridge.proto import cbor, measurement_log
from weighbridge.proto.cc_state import ENVIRONMENT_PRODUCTION, CcState
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.measurement_log import AttesterStart
from weighbridge.proto.spot import SpotAnswer
from weighbridge.proto.window import Evidence, Header, Interval
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.procedure import VerifiedWindow, authenticate, verify_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from support.world import Engines, World
    from weighbridge.verifier.session import Enrolled, Position

FLIPS: Final = 300


@dataclass(frozen=True)
class Scenario:
    """A window, and where its session stood just before it."""

    name: str
    world: World
    enrolled: Enrolled
    position: Position
    at: datetime
    evidence: bytes
    held: bool = False

    def judge(self, data: bytes) -> VerifiedWindow:
        """The whole procedure on ``data`` in the window's place; changes nothing."""
        window = authenticate(data, enrolled=self.enrolled, peer=self.world.host.peer)
        return verify_window(
            window,
            enrolled=self.enrolled,
            position=self.position,
            held=self.held,
            spot=None,
            anchors=self.world.anchors,
            at=self.at,
        )

    def refusal(self, data: bytes) -> Code:
        """The code with which ``data`` is refused."""
        with pytest.raises(WeighbridgeError) as refusal:
            self.judge(data)
        assert isinstance(refusal.value, MalformedEvidence | NotAuthentic)
        return refusal.value.code


def _next(name: str, world: World, *, late: bool = False) -> Scenario:
    """The world's next window, taken down, then delivered."""
    live = world.verifier._sessions.find(world.host.session, peer=world.host.peer)
    enrolled, position = live.enrolled, live.position
    sealed = world.host.seal()
    world.clock.advance(60 if late else 1)
    answer = world.deliver(sealed)
    assert answer.verdict.outcome == ("held" if late else "affirmed")
    return Scenario(name, world, enrolled, position, world.clock.at, sealed.evidence, late)


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory, engines: Engines) -> Iterator[dict[str, Scenario]]:
    arena = Arena(tmp_path_factory.mktemp("mutations"), engines)
    world = arena.settled(0, wanted=requirements(gpu_every=2))
    first, without = _next("first", world), _next("without reports", world)
    world.host.log.append(AttesterStart("0.1.0", bytes(16)))
    records = _next("with records", world)
    world.window()
    reports = _next("with reports", world)
    late = _next("late", world, late=True)
    yield {made.name: made for made in (first, without, records, reports, late)}
    arena.close()


NAMES = ("first", "without reports", "with records", "with reports", "late")


@pytest.fixture(params=NAMES)
def scenario(request: pytest.FixtureRequest, scenarios: dict[str, Scenario]) -> Scenario:
    return scenarios[request.param]


def test_window_is_accepted_as_it_is(scenario: Scenario) -> None:
    verified = scenario.judge(scenario.evidence)
    assert verified.digest
    assert (verified.gpus is not None) == scenario.enrolled.terms.gpu_due(verified.header.seq)


# -- claims ------------------------------------------------------------------------------------------------------------

OTHER = random_bytes("something else")
DEV_TOOLS = CcState(environment=ENVIRONMENT_PRODUCTION, feature="on", dev_tools=True, multi_gpu="none")
# A claim that no step compares with anything is still bound: the reports are over H, or the quote is.
BOUND: Final = None


def _span(**changes: int) -> Callable[[Header], Header]:
    return lambda header: replace(header, interval=replace(header.interval, **changes))


CLAIMS: dict[str, tuple[Callable[[Header], Header], Code | None]] = {
    "tenant": (lambda h: replace(h, tenant="tenant-b"), Code.WINDOW_TENANT),
    "session": (lambda h: replace(h, session=OTHER[:16]), Code.WINDOW_SESSION),
    "audience": (lambda h: replace(h, audience="ni:///sha-256;AAAA"), Code.WINDOW_AUDIENCE),
    "terms": (lambda h: replace(h, terms=OTHER), Code.WINDOW_TERMS),
    "seq": (lambda h: replace(h, seq=h.seq + 1), Code.WINDOW_SEQ),
    "prev": (lambda h: replace(h, prev=OTHER), Code.WINDOW_PREV),
    "challenge": (lambda h: replace(h, challenge=OTHER), BOUND),
    "spot": (lambda h: replace(h, spot=SpotAnswer(OTHER[:16], OTHER)), BOUND),
    "interval.tpm_start_ms": (_span(tpm_start_ms=2**40), Code.WINDOW_INTERVAL),
    "interval.tpm_end_ms": (_span(tpm_end_ms=0), Code.WINDOW_INTERVAL),
    "interval.wall_start_ns": (_span(wall_start_ns=2**62), Code.WINDOW_INTERVAL),
    "interval.wall_end_ns": (_span(wall_end_ns=0), Code.WINDOW_INTERVAL),
    "interval by one": (
        lambda h: replace(h, interval=replace(h.interval, wall_end_ns=h.interval.wall_end_ns - 1)),
        BOUND,
    ),
    "telemetry": (lambda h: replace(h, telemetry=OTHER), Code.TELEMETRY_DIGEST),
    "work.root": (lambda h: replace(h, work=replace(h.work, root=OTHER)), BOUND),
    "work.requests": (lambda h: replace(h, work=replace(h.work, requests=2)), BOUND),
    "work.tokens_in": (lambda h: replace(h, work=replace(h.work, tokens_in=65)), BOUND),
    "work.tokens_out": (lambda h: replace(h, work=replace(h.work, tokens_out=1)), BOUND),
    "work.batch_max": (lambda h: replace(h, work=replace(h.work, batch_max=2)), BOUND),
    "work.prefill_ns": (lambda h: replace(h, work=replace(h.work, prefill_ns=1)), BOUND),
    "work.decode_ns": (lambda h: replace(h, work=replace(h.work, decode_ns=1)), BOUND),
    "work": (lambda h: replace(h, work=WorkSummary.empty()), BOUND),
    "log_length": (lambda h: replace(h, log_length=h.log_length + 1), Code.LOG_HEAD),
    "log_head": (lambda h: replace(h, log_head=OTHER), Code.LOG_HEAD),
    "model": (lambda h: replace(h, model=OTHER), Code.WINDOW_TERMS),
    "telemetry_key": (lambda h: replace(h, telemetry_key=OTHER), Code.TELEMETRY_KEY_MISMATCH),
    "cnf": (lambda h: replace(h, cnf=OTHER), Code.WINDOW_CNF),
    "peer": (lambda h: replace(h, peer=CNF), Code.WINDOW_PEER),
    "kem": (lambda h: replace(h, kem=OTHER), Code.WINDOW_CNF),
    "cc_state": (lambda h: replace(h, cc_state=DEV_TOOLS), BOUND),
    "cc_state not said": (lambda h: replace(h, cc_state=None), BOUND),
}


def test_every_claim_is_changed_by_a_test() -> None:
    named = {name.partition(".")[0].partition(" ")[0] for name in CLAIMS}
    assert named == set(Header.__slots__)
    assert {name.partition(".")[2] for name in CLAIMS if name.startswith("interval.")} == set(Interval.__slots__)
    assert {name.partition(".")[2] for name in CLAIMS if name.startswith("work.")} == set(WorkSummary.__slots__)


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_changed_and_signed_anew_is_refused_by_its_code(scenario: Scenario, name: str) -> None:
    """A07: the telemetry key signs whatever the host wants; what was said to GPUs and TPM cannot be taken back."""
    change, code = CLAIMS[name]
    header = change(header_of(scenario.evidence))
    bound = Code.TPM_NONCE if Evidence.parse(scenario.evidence).gpus is None else Code.GPU_NONCE
    assert scenario.refusal(resealed(scenario.evidence, header.encode(), scenario.world.host)) == (code or bound)


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_changed_under_the_old_signature_is_junk(scenario: Scenario, name: str) -> None:
    change, _ = CLAIMS[name]
    header = change(header_of(scenario.evidence))
    assert scenario.refusal(unsigned(scenario.evidence, header.encode())) is Code.COSE_SIGNATURE


def test_claim_left_out_or_added_is_malformed(scenario: Scenario) -> None:
    claims = cbor.decode(header_of(scenario.evidence).encode(), limit=10_000, what="header")
    assert isinstance(claims, dict)
    for key in claims:
        fewer = cbor.encode({other: value for other, value in claims.items() if other != key})
        assert scenario.refusal(resealed(scenario.evidence, fewer, scenario.world.host)) is Code.FIELD_MISSING
    more = cbor.encode({**claims, -70115: None})
    assert scenario.refusal(resealed(scenario.evidence, more, scenario.world.host)) is Code.FIELD_UNKNOWN


def test_the_channel_is_part_of_who_speaks(scenario: Scenario) -> None:
    """A68, A74"""
    for peer in (CNF, b"", scenario.world.host.peer[:31]):
        with pytest.raises(NotAuthentic) as refusal:
            authenticate(scenario.evidence, enrolled=scenario.enrolled, peer=peer)
        assert refusal.value.code is Code.WINDOW_PEER


# -- parts -------------------------------------------------------------------------------------------------------------

# Each part replaced by that of another accepted window of the same session.
EXCHANGED: Final = {
    "window": Code.WINDOW_SEQ,
    "quote": Code.TPM_NONCE,
    "telemetry": Code.TELEMETRY_DIGEST,
}


@pytest.mark.parametrize(("part", "code"), EXCHANGED.items())
def test_part_of_another_window_is_refused(
    scenario: Scenario, scenarios: dict[str, Scenario], part: str, code: Code
) -> None:
    """A01, A56: replayed, or exchanged between two windows."""
    for other in scenarios.values():
        if other is not scenario:
            theirs: bytes = getattr(Evidence.parse(other.evidence), part)
            assert scenario.refusal(parts(scenario.evidence, **{part: theirs})) is code


def test_gpu_reports_of_another_window_are_refused(scenario: Scenario, scenarios: dict[str, Scenario]) -> None:
    """A08, A79: replayed, left out, or brought where none is owed."""
    ours = Evidence.parse(scenario.evidence).gpus
    if ours is None:
        theirs = Evidence.parse(scenarios["with reports"].evidence).gpus
        assert scenario.refusal(parts(scenario.evidence, gpus=theirs)) is Code.EVIDENCE_UNEXPECTED
        return
    assert scenario.refusal(parts(scenario.evidence, gpus=None)) is Code.EVIDENCE_ABSENT
    assert scenario.refusal(parts(scenario.evidence, gpus=b"\x80")) is Code.GPU_MISSING
    for other in scenarios.values():
        theirs = Evidence.parse(other.evidence).gpus
        if other is not scenario and theirs is not None:
            assert scenario.refusal(parts(scenario.evidence, gpus=theirs)) is Code.GPU_NONCE


def test_log_records_of_another_window_are_refused(scenario: Scenario, scenarios: dict[str, Scenario]) -> None:
    """A52: left out, repeated, or another window's."""
    ours = Evidence.parse(scenario.evidence).log
    for other in scenarios.values():
        theirs = Evidence.parse(other.evidence).log
        if theirs != ours:
            assert scenario.refusal(parts(scenario.evidence, log=theirs)) in {Code.LOG_GAP, Code.LOG_HEAD}
    records = measurement_log.parse_records(ours)
    if records:
        twice = measurement_log.encode_records([*records, *records])
        assert scenario.refusal(parts(scenario.evidence, log=b"\x80")) is Code.LOG_HEAD
        assert scenario.refusal(parts(scenario.evidence, log=twice)) is Code.LOG_GAP


def test_manifests_of_another_window_are_refused(scenario: Scenario, scenarios: dict[str, Scenario]) -> None:
    """A54: nothing signs the manifests but the digests in the log."""
    ours = Evidence.parse(scenario.evidence).manifests
    for other in scenarios.values():
        theirs = Evidence.parse(other.evidence).manifests
        if theirs != ours:
            refusal = scenario.refusal(parts(scenario.evidence, manifests=theirs))
            assert refusal in {Code.MANIFEST_MISSING, Code.MANIFEST_DIGEST}


@pytest.mark.parametrize("part", ["window", "quote", "telemetry", "log", "manifests"])
def test_part_emptied_is_refused(scenario: Scenario, part: str) -> None:
    assert scenario.refusal(parts(scenario.evidence, **{part: b""})) in {
        Code.NOT_CBOR,
        Code.TELEMETRY_DIGEST,
    }


@pytest.mark.parametrize("part", ["window", "quote", "gpus", "telemetry", "log", "manifests"])
def test_part_of_another_session_is_refused(scenarios: dict[str, Scenario], part: str, arena: Arena) -> None:
    """A08, A58, A74: a neighbour's genuine evidence, one part of it in our window."""
    theirs: bytes = getattr(Evidence.parse(arena.settled(0).host.seal().evidence), part)
    expected = {
        "window": Code.TELEMETRY_KEY_MISMATCH,
        "quote": Code.TPM_NONCE,
        "gpus": Code.CHAIN_UNTRUSTED,
        "telemetry": Code.TELEMETRY_DIGEST,
        "log": Code.LOG_GAP,
        "manifests": Code.MANIFEST_DIGEST,
    }
    scenario = scenarios["with reports"]
    assert scenario.refusal(parts(scenario.evidence, **{part: theirs})) is expected[part]


# -- bits --------------------------------------------------------------------------------------------------------------


def _borders(evidence: bytes) -> set[int]:
    """Where parts begin and end in the encoded collection, a few bytes on both sides."""
    found: set[int] = {0, len(evidence) - 1}
    parsed = Evidence.parse(evidence)
    for part in (parsed.window, parsed.quote, parsed.gpus, parsed.telemetry, parsed.log, parsed.manifests):
        if part:
            start = evidence.index(part)
            found |= {*range(start - 4, start + 4), *range(start + len(part) - 2, start + len(part) + 2)}
    return {place for place in found if 0 <= place < len(evidence)}


def test_no_single_flipped_bit_is_accepted(scenario: Scenario) -> None:
    """A26, A38: wherever it is. Every place at a border, and a sample of the rest."""
    chosen = random.Random(scenario.name)
    places = {chosen.randrange(len(scenario.evidence)) for _ in range(FLIPS)} | _borders(scenario.evidence)
    for place in sorted(places):
        flipped = bytearray(scenario.evidence)
        flipped[place] ^= 1 << chosen.randrange(8)
        scenario.refusal(bytes(flipped))


# Whatever the session's own key signs or carries: the host may be anybody's.
CARRIED: Final = ("header", "quote", "gpus", "telemetry", "log", "manifests")


@pytest.mark.parametrize("part", CARRIED)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_content_of_a_part_is_refused_or_the_same(
    scenarios: dict[str, Scenario], part: str, data: st.DataObject
) -> None:
    """A70: parsers behind the signature are as total as those before it."""
    scenario = scenarios[data.draw(st.sampled_from(["first", "with reports", "with records"]))]
    evidence = Evidence.parse(scenario.evidence)
    if part == "header":
        honest = evidence.signed_header().payload
        changed = data.draw(inputs(honest))
        octets = resealed(scenario.evidence, changed, scenario.world.host)
    else:
        honest = getattr(evidence, part)
        changed = data.draw(inputs(honest))
        octets = parts(scenario.evidence, **{part: changed})
    if changed != honest:
        scenario.refusal(octets)


def test_no_truncation_is_accepted(scenario: Scenario) -> None:
    """A28"""
    chosen = random.Random(scenario.name)
    for length in {0, 1, len(scenario.evidence) - 1, *(chosen.randrange(len(scenario.evidence)) for _ in range(20))}:
        with pytest.raises(MalformedEvidence):
            scenario.judge(scenario.evidence[:length])


def test_refusals_by_flipped_bits_change_no_session(scenarios: dict[str, Scenario]) -> None:
    """A78: the whole verifier, on junk that nobody signed: counted, and the honest window after it is affirmed."""
    world = scenarios["late"].world
    world.host.wall_ns += 60_000_000_000
    sealed = world.host.seal()
    signature = Evidence.parse(sealed.evidence).window
    start = sealed.evidence.index(signature)
    for place in range(start, start + len(signature), 37):
        flipped = bytearray(sealed.evidence)
        flipped[place] ^= 1
        with pytest.raises(WeighbridgeError):
            world.send(bytes(flipped))
    world.clock.advance(1)
    assert world.deliver(sealed).verdict.opens
