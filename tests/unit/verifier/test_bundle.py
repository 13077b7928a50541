"""The proof bundle: what was exported is verified to the same verdicts, and nothing that differs in a bit is."""

from __future__ import annotations

import random
import tempfile
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given

from corpus.arena import Arena
from corpus.bundle import Exported, believed, export, indices_of
from fakes.soft_tpm import derive_key
from support.mutations import check_total, inputs
from support.world import NOON, manifest
from weighbridge.proto import cbor, cose, limits, zstd
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.bundle import Bundle, Entry, assemble
from weighbridge.verifier.bundle_format import ShownRequest, Withheld
from weighbridge.verifier.bundle_proof import open_bundle
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import Engines

FLIPS: Final = 120
SMALL: Final = Bundle(
    checkpoint=b"checkpoint",
    entries=(Entry(0, (bytes(32),), b"record", b"evidence"), Entry(1, (), b"record", None)),
    policies=((("a.rego", b"package x"), ("weighbridge/lib.rego", b"package x")), ()),
    references=(b"{}",),
    manifests=(b"manifest",),
    collaterals=(b"collateral",),
    baselines=(b"baselines",),
    withheld=(Withheld(2, (bytes(32), bytes(32)), b"leaf"),),
    requests=(ShownRequest(seq=1, index=2, proof=(), salt=bytes(32), request=bytes(32), response=bytes(32)),),
    redaction=b"signed",
)


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Exported]:
    """A closed session of three windows, one of them held, exported."""
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        world = arena.settled(1)
        late = world.host.seal()
        world.clock.advance(10)
        assert world.deliver(late).verdict.outcome == "held"
        world.host.wall_ns += 9_000_000_000
        assert world.window().verdict.opens
        world.verifier.close(world.host.session, peer=world.host.peer)
        yield Exported(engines, world, export(world))
        arena.close()


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_is_encoded_is_parsed_to_the_same(made: Exported) -> None:
    assert Bundle.parse(SMALL.encode()) == SMALL
    assert Bundle.parse(made.bundle.encode()) == made.bundle


@given(inputs(SMALL.encode()))
def test_any_bytes_are_a_bundle_or_malformed(data: bytes) -> None:
    # One content has many frames: what is read out of them is compared by the test below.
    check_total(Bundle.parse, None, data)


@given(inputs(SMALL.content()))
def test_any_content_is_a_bundle_or_malformed(content: bytes) -> None:
    check_total(
        lambda data: Bundle.parse(packed(data)),
        lambda bundle: bundle.content(),  # type: ignore[attr-defined]
        content,
    )


def packed(content: bytes, **changes: cbor.CborValue) -> bytes:
    """The file of ``content``; ``changes`` go to the map around it."""
    fields: dict[int | str, cbor.CborValue] = {
        0: "weighbridge/v2/bundle",
        1: len(content),
        2: zstd.compress_long(content),
    }
    for name, value in changes.items():
        fields[{"version": 0, "size": 1, "frame": 2, "more": 3}[name]] = value
    return cbor.encode(fields)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (0, None, Code.FIELD_UNKNOWN),
        (1, bytes(limits.CHECKPOINT_MAX + 1), Code.TOO_LARGE),
        (2, [[0, [], b"", None, 1]], Code.TOO_LARGE),
        (2, [[0, [], b""]], Code.FIELD_RANGE),
        (2, [[-1, [], b"", None]], Code.FIELD_RANGE),
        (2, [[0, [bytes(33)], b"", None]], Code.FIELD_TYPE),
        (2, [[0, [b""] * 65, b"", None]], Code.TOO_LARGE),
        (2, [[0, [], None, None]], Code.FIELD_TYPE),
        (2, [[0, [], b"", 1]], Code.FIELD_TYPE),
        (2, {}, Code.FIELD_TYPE),
        (3, [["a", b""]], Code.FIELD_TYPE),  # the one policy of an earlier draft
        (3, [[["a"]]], Code.FIELD_RANGE),
        (3, [[[1, b""]]], Code.FIELD_TYPE),
        (3, [[["a", "text"]]], Code.FIELD_TYPE),
        (3, [[["b", b""], ["a", b""]]], Code.NOT_DETERMINISTIC),
        (3, [[["a", b""], ["a", b""]]], Code.NOT_DETERMINISTIC),
        (3, [[["a", b""]] * 66], Code.TOO_LARGE),
        (3, [[]] * 1025, Code.TOO_LARGE),
        (4, None, Code.FIELD_TYPE),
        (5, [1], Code.FIELD_TYPE),
        (6, [1], Code.FIELD_TYPE),
        (7, [1], Code.FIELD_TYPE),
        (7, [b""] * 1025, Code.TOO_LARGE),
        (8, [[0, [], b"", None]], Code.TOO_LARGE),
        (8, [[0, [], None]], Code.FIELD_TYPE),
        (8, [[0, [], bytes(65_536)]], Code.TOO_LARGE),
        (9, [[0, 0, [], bytes(31), bytes(32), bytes(32)]], Code.FIELD_RANGE),
        (9, [[0, 0, [], bytes(32), bytes(32)]], Code.FIELD_RANGE),
        (9, [None] * (limits.BUNDLE_REQUESTS_MAX + 1), Code.TOO_LARGE),
        (10, "text", Code.FIELD_TYPE),
        (11, None, Code.FIELD_UNKNOWN),
    ],
)
def test_fields_out_of_range_are_refused(key: int, value: cbor.CborValue, code: Code) -> None:
    fields = cbor.decode(SMALL.content(), limit=10_000, what="bundle")
    assert isinstance(fields, dict)
    assert code_of(lambda: Bundle.parse(packed(cbor.encode({**fields, key: value})))) is code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": "weighbridge/v1/bundle"}, Code.VERSION_UNSUPPORTED),
        ({"size": None}, Code.FIELD_TYPE),
        ({"frame": None}, Code.FIELD_TYPE),
        ({"more": None}, Code.FIELD_UNKNOWN),
        ({"frame": b""}, Code.NOT_ZSTD),
        ({"size": len(SMALL.content()) + 1}, Code.NOT_ZSTD),
        ({"frame": zstd.compress(SMALL.content()) + b"\0"}, Code.NOT_ZSTD),
        ({"frame": 2 * zstd.compress(SMALL.content())}, Code.NOT_ZSTD),
        ({"frame": zstd.compress(SMALL.content())[:-1]}, Code.NOT_ZSTD),
        ({"frame": SMALL.content()}, Code.NOT_ZSTD),
    ],
)
def test_what_is_not_exactly_one_packed_content_is_refused(changes: dict[str, cbor.CborValue], code: Code) -> None:
    assert Bundle.parse(packed(SMALL.content())) == SMALL
    assert code_of(lambda: Bundle.parse(packed(SMALL.content(), **changes))) is code


def test_bytes_behind_it_are_refused() -> None:
    assert code_of(lambda: Bundle.parse(SMALL.encode() + b"\0")) is Code.NOT_DETERMINISTIC


def test_a_bomb_is_refused_before_it_takes_any_memory() -> None:
    """Some kilobytes of a frame can stand for any number of bytes: what it states is looked at first."""
    most = limits.BUNDLE_CONTENT_MAX
    frame = zstd.compress(bytes(1_000_000))
    tracemalloc.start()
    try:
        assert code_of(lambda: Bundle.parse(packed(b"", size=most + 1, frame=frame))) is Code.TOO_LARGE
        assert code_of(lambda: Bundle.parse(packed(b"", size=most, frame=frame))) is Code.TOO_LARGE
        assert code_of(lambda: Bundle.parse(packed(b"", size=16 * 1024 * 1024, frame=frame))) is Code.NOT_ZSTD
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# -- made again --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [b"\x80", b"\xa0", b"\x40"])
def test_many_small_items_are_refused_before_any_is_made(item: bytes) -> None:
    """They take a byte each here, and eighty in memory."""
    count = 200_000
    content = b"\xa1\x01" + bytes([4 << 5 | 26]) + count.to_bytes(4) + count * item
    data = packed(content)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedEvidence, match="too many items") as refusal:
            Bundle.parse(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(content)
    finally:
        tracemalloc.stop()
    assert refusal.value.code is Code.TOO_LARGE


def test_no_small_frame_stands_for_much() -> None:
    size = 16 * 1024 * 1024
    within, beyond = (packed(cbor.encode(bytes(length - 5))) for length in (size, size + 1))
    assert code_of(lambda: Bundle.parse(within)) is Code.FIELD_TYPE
    with pytest.raises(MalformedEvidence, match="too large for a frame") as refusal:
        Bundle.parse(beyond)
    assert refusal.value.code is Code.TOO_LARGE
    with pytest.raises(MalformedEvidence, match="too large for a frame"):
        replace(SMALL, references=(bytes(size),)).encode()


@pytest.mark.parametrize("times", [1, 2])
def test_manifests_that_no_terms_declare_are_not_unpacked(made: Exported, times: int) -> None:
    """What is behind their heads may be anything: it is not looked at."""
    head = (b"head", made.world.host.model.raw)[times - 1]
    other = cbor.encode([head, {"tables": 7}])
    bundle = replace(made.bundle, manifests=(*made.bundle.manifests, other))
    with pytest.raises(MalformedEvidence, match=("no terms declare", "there twice")[times - 1]) as refusal:
        open_bundle(bundle, believed(made.world))
    assert refusal.value.code is Code.BUNDLE_MALFORMED


def test_manifests_that_a_session_has_not_declared_are_not_brought(made: Exported) -> None:
    reader, indices = indices_of(made.world, made.world.host.session)
    manifests = [manifest("another", weights=b"another"), made.world.host.model]
    bundle = assemble(made.world.archive.records, reader, indices, manifests=manifests)
    assert bundle.manifests == (made.world.host.model.pack(),)


def test_every_verdict_is_the_recorded_one(made: Exported) -> None:
    result = made.verify()
    assert [verdict.outcome for verdict in result.verdicts] == ["affirmed", "held", "affirmed"]
    assert [verdict.received for verdict in result.verdicts] == sorted(verdict.received for verdict in result.verdicts)
    assert (result.admitted, result.same_policy, result.denied) == (True, True, ())
    assert (result.session, result.model) == (made.world.host.session, made.world.host.model.digest)
    assert (result.origin, result.size) == ("ledger.example/test", made.world.ledger.size)
    recorded = [Record.parse(entry.record).verdict for entry in made.bundle.entries[1:-1]]
    assert [verdict.encode() for verdict in result.verdicts] == recorded


def test_under_another_policy_the_verdicts_are_its_own(made: Exported) -> None:
    """Exit 5 at the command line: an emulated platform is nothing to production."""
    result = made.verify(policy="production")
    assert (result.admitted, result.same_policy, result.recorded_policy) == (False, False, False)
    assert {verdict.outcome for verdict in result.denied} == {"denied"}
    assert all(denial.code == "PLATFORM_EMULATED" for verdict in result.denied for denial in verdict.denials[:1])


def test_a_session_without_windows_admits_nothing(arena: Arena) -> None:
    """A10: nothing that was checked is not the same as nothing that was wrong."""
    world = arena.settled(0)
    result = Exported(arena.engines, world, export(world)).verify()
    assert (result.verdicts, result.admitted) == ((), False)


def test_held_windows_alone_admit_nothing(arena: Arena) -> None:
    """A76"""
    world = arena.settled(0)
    sealed = world.host.seal()
    world.clock.advance(10)
    world.deliver(sealed)
    result = Exported(arena.engines, world, export(world)).verify()
    assert [verdict.outcome for verdict in result.verdicts] == ["held"]
    assert not result.admitted


# -- whom it rests on --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["ledger", "verifier", "tpm-ek-root", "nvidia-device-root"])
def test_every_anchor_is_needed(made: Exported, purpose: str) -> None:
    anchors = believed(made.world)
    fewer = TrustAnchors(tuple(anchor for anchor in anchors.anchors if anchor.purpose != purpose))
    with pytest.raises(NotAuthentic) as refusal:
        made.verify(anchors=fewer)
    assert refusal.value.code is Code.CHAIN_UNTRUSTED


@pytest.mark.parametrize("purpose", ["ledger", "verifier"])
def test_an_anchor_of_another_time_says_nothing(made: Exported, purpose: str) -> None:
    """A82: the verifier's receipt time decides whether a key was believed then."""
    anchors = believed(made.world)
    before = NOON - timedelta(seconds=1)
    ended = [replace(anchor, not_after=before) if anchor.purpose == purpose else anchor for anchor in anchors.anchors]
    with pytest.raises(NotAuthentic) as refusal:
        made.verify(anchors=TrustAnchors(tuple(ended)))
    assert refusal.value.code is Code.CHAIN_EXPIRED


# -- bits --------------------------------------------------------------------------------------------------------------


def _places(data: bytes, bundle: Bundle) -> set[int]:
    """A sample of the whole, and some of every part however small it is."""
    chosen = random.Random("bundle")
    places = {chosen.randrange(len(data)) for _ in range(FLIPS)}
    small = [
        bundle.checkpoint,
        *bundle.references,
        *bundle.manifests,
        *(text for files in bundle.policies for _, text in files),
        *(entry.record for entry in bundle.entries),
        *(node for entry in bundle.entries for node in entry.proof[:1]),
    ]
    for part in small:
        start = data.index(part)
        places |= {start, start + len(part) - 1, *(start + chosen.randrange(len(part)) for _ in range(3))}
    return places


def test_no_single_flipped_bit_is_accepted(made: Exported) -> None:
    """A64, A71: anywhere in the file: in the evidence, a record, a proof, the checkpoint, the policy, a reason."""
    data = made.bundle.content()
    chosen = random.Random("bits")
    for place in sorted(_places(data, made.bundle)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << chosen.randrange(8)
        try:
            bundle = Bundle.parse(packed(bytes(flipped)))
        except MalformedEvidence:
            continue
        with pytest.raises((WeighbridgeError, ValueError)) as refusal:
            made.verify(bundle)
        # A set without its library, or with two modules of one name, is what the command calls malformed.
        assert isinstance(refusal.value, WeighbridgeError) or bundle.policies != made.bundle.policies


def test_no_truncation_is_accepted(made: Exported) -> None:
    data = made.bundle.encode()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        with pytest.raises(MalformedEvidence):
            Bundle.parse(data[:length])


@pytest.mark.parametrize("index", range(5))
def test_no_entry_can_be_left_out(made: Exported, index: int) -> None:
    """A55: but for the closing: that a session had an end, only the ledger's monitors see."""
    entries = made.bundle.entries
    assert len(entries) == 5
    fewer = replace(made.bundle, entries=(*entries[:index], *entries[index + 1 :]))
    if index == 4:
        assert made.verify(fewer).admitted
    else:
        assert code_of(lambda: made.verify(fewer)) is Code.BUNDLE_MALFORMED


@pytest.mark.parametrize("index", range(5))
def test_no_entry_can_be_repeated(made: Exported, index: int) -> None:
    entries = made.bundle.entries
    more = replace(made.bundle, entries=(*entries[: index + 1], entries[index], *entries[index + 1 :]))
    assert code_of(lambda: made.verify(more)) is Code.BUNDLE_MALFORMED


def test_a_policy_that_the_records_do_not_name_is_not_taken(made: Exported) -> None:
    """A64: nor one that is named, with its files under each other's names."""
    (files,) = made.bundle.policies
    (first, one), (second, other) = files
    for policies in ((), (files[1:],), (((first, other), (second, one)),)):
        assert code_of(partial(made.verify, replace(made.bundle, policies=policies))) is Code.BUNDLE_VERDICT


# -- a verifier that records nonsense ----------------------------------------------------------------------------------


def _recorded(arena: Arena, *more: Callable[[Record], Record]) -> Exported:
    """A session of two windows whose records were entered into the ledger once more, changed, by its own verifier."""
    world = arena.settled(2)
    with world.store.transaction() as tx:
        row, (first, second) = tx.session(world.host.session), tx.window_indices(world.host.session)
    assert row is not None
    records = [world.archive.records.record(index) for index in (first, second)]
    indices = []
    for change in more:
        changed = change(records[0])
        evidence = None if changed.evidence is None else world.archive.records.evidence(changed)
        indices.append(world.archive.commit(changed, evidence).index)
    return Exported(arena.engines, world, export(world, indices=[row.enrolment_index, *indices, second]))


@pytest.mark.parametrize(
    ("library", "code"), [("weighbridge/lib.rego", Code.POLICY_INVALID), ("weighbridge/other.rego", None)]
)
def test_a_policy_that_is_recorded_and_none(arena: Arena, library: str, code: Code | None) -> None:
    """Its verdicts cannot be made again, whoever recorded them. One without a library, the command calls malformed."""
    world = arena.settled(1)
    with world.store.transaction() as tx:
        row, (first,) = tx.session(world.host.session), tx.window_indices(world.host.session)
    assert row is not None
    named = world.archive.keep_policy((("a.rego", b"package"), (library, b"package weighbridge.lib")))
    record = replace(world.archive.records.record(first), policy=named)
    index = world.archive.commit(record, world.archive.records.evidence(record)).index
    made = Exported(arena.engines, world, export(world, indices=[row.enrolment_index, index]))
    if code is None:
        with pytest.raises(ValueError, match="library"):
            made.verify()
    else:
        assert code_of(made.verify) is code


def test_records_in_another_order_than_the_ledgers(arena: Arena) -> None:
    """A55: window 0 was recorded after window 1, by a verifier that made it up."""
    made = _recorded(arena, lambda first: replace(first, received_ns=first.received_ns + 1000))
    assert [entry.index for entry in made.bundle.entries] != sorted(entry.index for entry in made.bundle.entries)
    assert code_of(made.verify) is Code.BUNDLE_MALFORMED


def test_a_window_without_evidence(arena: Arena) -> None:
    """A79: a record that names no evidence shows nothing."""
    world = arena.settled(1)
    with world.store.transaction() as tx:
        row, (first,) = tx.session(world.host.session), tx.window_indices(world.host.session)
    assert row is not None
    bare = world.archive.commit(replace(world.archive.records.record(first), evidence=None), None)
    made = Exported(arena.engines, world, export(world, indices=[row.enrolment_index, bare.index]))
    assert code_of(made.verify) is Code.BUNDLE_MALFORMED


def test_a_window_recorded_twice_is_no_fork(arena: Arena) -> None:
    world = arena.settled(2)
    with world.store.transaction() as tx:
        row, (first, second) = tx.session(world.host.session), tx.window_indices(world.host.session)
    assert row is not None
    record = world.archive.records.record(first)
    again = world.archive.commit(record, world.archive.records.evidence(record))
    indices = [row.enrolment_index, first, second, again.index]
    made = Exported(arena.engines, world, export(world, indices=indices))
    assert code_of(made.verify) is Code.LEDGER_INCONSISTENT


def test_the_verifiers_key_is_found_among_others(made: Exported) -> None:
    own = believed(made.world)
    stranger = replace(
        next(anchor for anchor in own.anchors if anchor.purpose == "verifier"),
        name="another verifier",
        spki=cose.spki(derive_key("another verifier").public_key()),
    )
    assert made.verify(anchors=TrustAnchors((stranger, *own.anchors))).admitted
