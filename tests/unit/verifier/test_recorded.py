"""Recorded windows: each is laid out as it was when it was judged, and nothing that a bundle cannot show is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.bundle import believed, export
from support.world import NOON, manifest
from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier import anchors as default_anchors
from weighbridge.verifier.record import Record
from weighbridge.verifier.recorded import RecordedWindow, read_verdict, windows

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.bundle import Bundle

VERDICT = strict.json_encode({"schema": "weighbridge/verdict/v1", "outcome": "denied", "denials": []})
_NAMES = st.sampled_from(["schema", "outcome", "denials"])
_LEAVES = st.none() | st.integers(0, 9) | st.sampled_from(["weighbridge/verdict/v1", "denied", "affirmed"])
JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner), max_leaves=5)
DAMAGED = st.tuples(st.integers(0, len(VERDICT) - 1), st.integers(0, 255)).map(
    lambda change: VERDICT[: change[0]] + bytes([change[1]]) + VERDICT[change[0] + 1 :]
)


def recorded(world: World, bundle: Bundle | None = None) -> list[RecordedWindow]:
    """The windows of the world's session, as a relying party sees them."""
    return list(windows(bundle or export(world), anchors=believed(world)))


def input_of(window: RecordedWindow) -> object:
    """The digest of the document that the recorded policy saw."""
    policy = window.recorded["policy"]
    assert isinstance(policy, dict)
    return policy["input"]


def late(world: World) -> None:
    """A window that comes too late, then a good one."""
    sealed = world.host.seal()
    world.clock.advance(10)
    assert world.deliver(sealed).verdict.outcome == "held"
    world.host.wall_ns += 9_000_000_000
    assert world.window().verdict.opens


def test_each_document_is_the_one_that_was_judged(arena: Arena) -> None:
    """Also the first one's, whose session nobody had admitted, and that after a gap."""
    world = arena.settled(2)
    late(world)
    found = recorded(world)
    assert [window.outcome for window in found] == ["affirmed", "affirmed", "held", "affirmed"]
    assert [(window.seq, window.held) for window in found] == [(0, False), (1, False), (2, True), (3, False)]
    for window in found:
        assert window.document is not None
        assert sha256(window.document.to_json()).hex() == input_of(window)
        assert window.document.received_at == strict.time_encode(window.received)
        assert window.reference == world.reference
        assert window.refused == ()
    states = [window.document.session.state for window in found if window.document is not None]
    assert states == ["enrolled", "running", "running", "running"]


def test_a_window_that_an_invariant_refused_has_no_document(arena: Arena) -> None:
    world = arena.settled(1)
    world.host.log.load(manifest("undeclared", weights=b"others"))
    assert world.window().verdict.outcome == "denied"
    *_, last = recorded(world)
    assert (last.document, last.outcome) == (None, "denied")
    assert Code.MODEL_UNDECLARED in {denial.code for denial in last.refused}
    assert [denial.code for denial in last.refused] == codes(last)


def test_a_window_whose_verification_failed_has_no_document(arena: Arena) -> None:
    """The reference values that its record names are none; it is refused for what it was refused for."""
    world = arena.settled(1)
    observed = replace(world.host.observe(), prev=bytes(32))
    assert world.window(observed).verdict.outcome == "denied"
    *_, last = recorded(world)
    assert last.document is None
    assert [denial.code for denial in last.refused] == codes(last) != []
    assert last.reference == Reference({}, {}, {})


def test_a_window_that_the_policy_denied_has_one(arena: Arena) -> None:
    world = arena.world(policy="production")
    world.open_session()
    assert world.window().verdict.outcome == "denied"
    (only,) = recorded(world)
    assert only.document is not None
    assert "PLATFORM_EMULATED" in codes(only)
    prepared = arena.engines.load(policy_set.shipped("production", reference=world.reference))
    assert [denial.code for denial in prepared.decide(only.document).denials] == codes(only)


def test_own_values_take_the_place_of_the_recorded(arena: Arena) -> None:
    world = arena.settled(1)
    own = Reference({}, {}, {})
    (only,) = windows(export(world), anchors=believed(world), reference=own)
    assert only.reference is own
    assert only.document is not None
    assert sha256(only.document.to_json()).hex() != input_of(only)
    assert {gpu.reference for gpu in only.document.gpus} == {"absent"}


def test_who_is_not_believed_shows_nothing(arena: Arena) -> None:
    world = arena.settled(1)
    with pytest.raises(NotAuthentic) as refusal:
        list(windows(export(world), anchors=default_anchors.default()))
    assert refusal.value.code is Code.CHAIN_UNTRUSTED


def test_a_record_that_no_leaf_commits_to_shows_nothing(arena: Arena) -> None:
    world = arena.settled(2)
    bundle = export(world)
    entry = bundle.entries[1]
    other = replace(Record.parse(entry.record), verdict=VERDICT).encode()
    entries = (bundle.entries[0], replace(entry, record=other), *bundle.entries[2:])
    with pytest.raises(WeighbridgeError) as refusal:
        list(windows(replace(bundle, entries=entries), anchors=believed(world)))
    assert refusal.value.code is Code.LEDGER_PROOF


def test_values_that_are_not_there_are_missed(arena: Arena) -> None:
    world = arena.settled(1)
    with pytest.raises(LedgerInconsistent) as refusal:
        list(windows(replace(export(world), references=()), anchors=believed(world)))
    assert refusal.value.code is Code.BUNDLE_VERDICT


@given(st.binary(max_size=100) | JSON.map(strict.json_encode) | DAMAGED)
def test_any_bytes_are_a_verdict_or_malformed(data: bytes) -> None:
    try:
        document = read_verdict(data)
    except MalformedEvidence:
        return
    assert document["outcome"] in {"affirmed", "held", "denied"}


@pytest.mark.parametrize(
    "document",
    [[], {}, {"schema": "weighbridge/verdict/v2", "outcome": "denied"}, {"schema": "weighbridge/verdict/v1"}],
)
def test_what_is_no_verdict_is_refused(document: strict.JsonValue) -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        read_verdict(strict.json_encode(document))
    assert refusal.value.code is Code.FIELD_RANGE


def codes(window: RecordedWindow) -> list[object]:
    """The codes for which the recorded verdict denies."""
    denials = window.recorded["denials"]
    assert isinstance(denials, list)
    return [denial["code"] for denial in denials if isinstance(denial, dict)]


def test_the_receipt_time_is_the_recorded_one(arena: Arena) -> None:
    world = arena.settled(2)
    assert [(window.received - NOON).total_seconds() for window in recorded(world)] == [1, 2]
