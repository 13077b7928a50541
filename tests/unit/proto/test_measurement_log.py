"""The measurement log: records whose digests fit, numbered without gap, replayed to a register."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.models import plain, safetensors
from weighbridge.proto import cbor
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.manifest import SHARD_SIZE, FileEntry, Manifest, Part
from weighbridge.proto.measurement_log import (
    HEAD_ZERO,
    AttesterStart,
    Event,
    Handed,
    Loaded,
    ModelHanded,
    ModelLoad,
    ModelUnload,
    Record,
    bank_value,
    check_gapless,
    encode_record,
    encode_records,
    ever_loaded,
    guarded,
    head,
    loaded,
    make_record,
    must_be_handed,
    parse_record,
    parse_records,
    refused,
    replay,
)
from weighbridge.proto.tpm.constants import HashAlgorithm

SHA1, SHA256, SHA384 = HashAlgorithm.SHA1, HashAlgorithm.SHA256, HashAlgorithm.SHA384
PCR = 15
A, B, C = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
EVENTS: list[Event] = [
    AttesterStart("0.1.0", bytes(16)),
    ModelLoad(A, "declared"),
    ModelLoad(B, "second", "dm-verity", C),
    ModelUnload(1),
    ModelHanded(2, "model.safetensors", C, 3, 96, "match"),
    ModelHanded(2, "other.safetensors", None, 1, 8, "mismatch", "tensor layer.weight"),
]


def log(*events: Event, algs: tuple[HashAlgorithm, ...] = (SHA256, SHA384)) -> tuple[Record, ...]:
    chosen = events or EVENTS
    return tuple(make_record(event, recnum=number, pcr=PCR, algs=algs) for number, event in enumerate(chosen))


def test_records_return_byte_for_byte() -> None:
    records = log(algs=(SHA1, SHA256, SHA384))
    assert parse_records(encode_records(records)) == records
    assert [record.event for record in records] == EVENTS
    assert parse_record(encode_record(records[0])) == records[0]
    assert parse_records(cbor.encode([])) == ()


def test_digest_is_over_exactly_the_content() -> None:
    (record,) = log(ModelLoad(A, "declared"))
    content = cbor2.loads(record.raw)[87]
    assert cbor2.loads(content) == ["weighbridge/v1/model.load", {0: A, 1: "declared", 2: "none", 3: None}]
    assert record.digest(SHA256) == hashlib.sha256(content).digest()
    assert record.digest(SHA384) == hashlib.sha384(content).digest()
    assert record.digest(SHA1) is None


def test_head_chains_records() -> None:
    records = log()
    first = D("log", HEAD_ZERO, records[0].raw)
    assert head(()) == HEAD_ZERO == bytes(32)
    assert head(records[:1]) == first
    assert head(records[:2]) == D("log", first, records[1].raw)
    assert head(records) == head(records[2:], after=head(records[:2]))


@pytest.mark.parametrize(("alg", "name"), [(SHA256, "sha256"), (SHA384, "sha384")])
def test_replay_is_what_a_tpm_does(alg: HashAlgorithm, name: str) -> None:
    records = log()
    value = bytes(hashlib.new(name).digest_size)
    for record in records:
        value = hashlib.new(name, value + (record.digest(alg) or b"")).digest()
    start = bytes(len(value))
    assert replay(start, records, alg, pcr=PCR) == value
    assert replay(replay(start, records[:2], alg, pcr=PCR), records[2:], alg, pcr=PCR) == value


def test_replay_refuses_another_register_and_a_missing_bank() -> None:
    records = log()
    for wrong, alg, pcr in ((records, SHA256, 8), (log(algs=(SHA256,)), SHA384, PCR)):
        with pytest.raises(NotAuthentic) as caught:
            replay(bytes(48 if alg is SHA384 else 32), wrong, alg, pcr=pcr)
        assert caught.value.code == Code.LOG_REPLAY


def test_sha1_bank_is_extended_but_never_judged_by() -> None:
    records = log(algs=(SHA1, SHA256))
    with pytest.raises(ValueError, match="SHA1"):
        replay(bytes(20), records, SHA1, pcr=PCR)
    assert len(bank_value(bytes(20), records, SHA1, pcr=PCR)) == 20
    with pytest.raises(ValueError, match="32 bytes"):
        replay(bytes(20), records, SHA256, pcr=PCR)


@pytest.mark.parametrize("order", [(0, 2), (0, 0), (1, 0), (1,), (0, 1, 1)])
def test_gap_repetition_and_reordering_are_refused(order: tuple[int, ...]) -> None:
    """A52: a record left out, repeated or moved."""
    records = log()
    with pytest.raises(NotAuthentic) as caught:
        check_gapless([records[index] for index in order], 0)
    assert caught.value.code == Code.LOG_GAP


def test_consecutive_numbers_pass_from_any_first() -> None:
    records = log()
    check_gapless(records, 0)
    check_gapless(records[2:], 2)
    check_gapless((), 7)


def test_loaded_is_every_model_not_unloaded_since() -> None:
    """A51: a second model stays visible; a restart of the attester (A77) hides nothing."""
    records = log(*EVENTS[:3], AttesterStart("0.1.0", bytes([1] * 16)))
    both = (Loaded(A, "declared", 1), Loaded(B, "second", 2, "dm-verity", C))
    assert loaded(records) == both == ever_loaded(records)
    assert loaded(log()[:4]) == both[1:]
    assert ever_loaded(log()[:4]) == both
    for split in range(len(log())):
        assert loaded(log()[split:], before=loaded(log()[:split])) == loaded(log())


def test_what_was_handed_over_stays_with_its_model() -> None:
    handed = tuple(Handed(record.event, record.recnum) for record in log() if isinstance(record.event, ModelHanded))
    assert [item.recnum for item in handed] == [4, 5]
    assert loaded(log()) == (Loaded(B, "second", 2, "dm-verity", C, handed),)
    assert ever_loaded(log())[1].handed == handed
    assert ever_loaded(log()[3:]) == ()
    assert refused(log()) == handed[1:]
    assert refused(log()[:5]) == ()


def model_of(*files: FileEntry) -> Manifest:
    return Manifest.build("m", files)


def says(manifest: Manifest, *events: ModelHanded) -> Loaded:
    return Loaded(manifest.digest, "m", 0, handed=tuple(Handed(event, 1 + i) for i, event in enumerate(events)))


def match(file: FileEntry, digest: bytes | None = None) -> ModelHanded:
    return ModelHanded(0, file.path, digest or file.digest, 1, file.size, "match")


def test_a_model_is_guarded_when_all_of_its_weights_were_handed_over() -> None:
    config = plain("config.json", b"{}")
    one, two = (safetensors(f"{name}.safetensors", {name: name.encode()}) for name in "ab")
    manifest = model_of(config, one, two)
    assert guarded(says(manifest, match(one), match(two)), manifest)
    assert guarded(says(manifest, match(one), match(two), match(config)), manifest)
    for events in (
        (),
        (match(config),),
        (match(one),),
        (match(one), match(two, one.digest)),
        (match(one), replace(match(two), digest=None)),
        (match(one), match(two), ModelHanded(0, config.path, None, 0, 0, "changed", "shorter")),
    ):
        assert not guarded(says(manifest, *events), manifest)
    with pytest.raises(ValueError, match="another model"):
        guarded(says(manifest, match(one), match(two)), model_of(config, one))


def test_what_may_hold_weights_has_to_be_handed_over() -> None:
    """A pickle of any size above one shard counts; a model of small plain files alone is never guarded."""
    config = plain("config.json", b"{}")
    shards = (A, B)
    pickle = FileEntry.of(
        "pytorch_model.bin", "plain", [Part.of(None, "", (), offset=0, size=SHARD_SIZE + 1, shards=shards)]
    )
    gguf = FileEntry.of("x.gguf", "gguf", [Part.of(None, "", (), offset=0, size=1, shards=[A])])
    assert [must_be_handed(file) for file in (config, pickle, gguf)] == [False, True, True]
    assert not guarded(says(model_of(config), match(config)), model_of(config))
    assert guarded(says(model_of(pickle), match(pickle)), model_of(pickle))


@pytest.mark.parametrize(
    "event",
    [
        ModelUnload(0),
        ModelUnload(1),
        ModelUnload(9),
        ModelHanded(1, "model.safetensors", None, 0, 0, "match"),
        ModelHanded(9, "model.safetensors", None, 0, 0, "mismatch", "header"),
    ],
)
def test_unloading_and_handing_over_what_is_not_loaded_is_refused(event: Event) -> None:
    with pytest.raises(NotAuthentic) as caught:
        loaded(log(*EVENTS, event))
    assert caught.value.code == Code.LOG_EVENT


def test_sha256_bank_is_required() -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        log(algs=(SHA384,))


def edited(event: Event, change: Callable[[Any], object]) -> bytes:
    """A record whose fields were changed, with digests that fit its content again."""
    value = cbor2.loads(make_record(event, recnum=0, pcr=PCR, algs=(SHA256,)).raw)
    value[87] = cbor2.loads(value[87])
    change(value)
    value[87] = cbor.encode(value[87])
    if isinstance(value.get(3), dict) and value[3].get(11):
        value[3][11] = hashlib.sha256(value[87]).digest()
    return cbor.encode(value)


LOAD, UNLOAD, START, VERITY, HANDED, REFUSED = EVENTS[1], EVENTS[3], EVENTS[0], EVENTS[2], EVENTS[4], EVENTS[5]


@pytest.mark.parametrize(
    ("event", "change", "code"),
    [
        (LOAD, lambda v: v.update({0: -1}), Code.FIELD_RANGE),
        (LOAD, lambda v: v.update({0: 2**33}), Code.FIELD_RANGE),
        (LOAD, lambda v: v.update({1: 24}), Code.FIELD_RANGE),
        (LOAD, lambda v: v.update({2: 0}), Code.FIELD_UNKNOWN),
        (LOAD, lambda v: v.update({3: {}}), Code.LOG_DIGEST),
        (LOAD, lambda v: v.update({3: []}), Code.FIELD_TYPE),
        (LOAD, lambda v: v[3].update({12: bytes(48)}), Code.LOG_DIGEST),
        (LOAD, lambda v: v[3].update({12: bytes(32)}), Code.FIELD_RANGE),
        (LOAD, lambda v: v[3].update({18: bytes(32)}), Code.FIELD_UNKNOWN),
        (LOAD, lambda v: v[87].append(0), Code.TOO_LARGE),
        (LOAD, lambda v: v.update({87: {}}), Code.FIELD_TYPE),
        (LOAD, lambda v: v[87].__setitem__(0, "weighbridge/v2/model.load"), Code.VERSION_UNSUPPORTED),
        (LOAD, lambda v: v[87].__setitem__(0, 7), Code.VERSION_UNSUPPORTED),
        (LOAD, lambda v: v[87].__setitem__(1, []), Code.FIELD_TYPE),
        (LOAD, lambda v: v[87][1].update({0: bytes(31)}), Code.FIELD_RANGE),
        (LOAD, lambda v: v[87][1].update({1: ""}), Code.FIELD_RANGE),
        (LOAD, lambda v: v[87][1].update({2: 0}), Code.FIELD_TYPE),
        (LOAD, lambda v: v[87][1].update({2: "fsverity"}), Code.FIELD_RANGE),
        (LOAD, lambda v: v[87][1].update({3: A}), Code.FIELD_RANGE),
        (LOAD, lambda v: v[87][1].update({4: 0}), Code.FIELD_UNKNOWN),
        (LOAD, lambda v: v[87][1].pop(3), Code.FIELD_MISSING),
        (VERITY, lambda v: v[87][1].update({3: None}), Code.FIELD_RANGE),
        (VERITY, lambda v: v[87][1].update({3: bytes(20)}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({0: 2**33}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({1: "../model.safetensors"}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({2: bytes(31)}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({3: -1}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({4: None}), Code.FIELD_TYPE),
        (HANDED, lambda v: v[87][1].update({5: "equal"}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({5: "mismatch"}), Code.FIELD_RANGE),
        (HANDED, lambda v: v[87][1].update({6: "all is well"}), Code.FIELD_RANGE),
        (REFUSED, lambda v: v[87][1].update({2: C}), Code.FIELD_RANGE),
        (REFUSED, lambda v: v[87][1].update({5: "match"}), Code.FIELD_RANGE),
        (REFUSED, lambda v: v[87][1].update({6: ""}), Code.FIELD_RANGE),
        (REFUSED, lambda v: v[87][1].update({6: "a\nb"}), Code.FIELD_RANGE),
        (REFUSED, lambda v: v[87][1].update({6: "x" * 513}), Code.TOO_LARGE),
        (UNLOAD, lambda v: v[87][1].update({0: -1}), Code.FIELD_RANGE),
        (START, lambda v: v[87][1].update({0: "a\tb"}), Code.FIELD_RANGE),
        (START, lambda v: v[87][1].update({1: bytes(15)}), Code.FIELD_RANGE),
    ],
)
def test_each_field_refuses_what_is_wrong_by_code(event: Event, change: Callable[[Any], object], code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse_record(edited(event, change))
    assert caught.value.code == code


def test_content_without_its_digest_is_refused() -> None:
    """A52: the event is exchanged, the digests stay those that were extended."""
    value, other = cbor2.loads(log(LOAD)[0].raw), cbor2.loads(log(ModelLoad(B, "declared"))[0].raw)
    with pytest.raises(MalformedEvidence) as caught:
        parse_record(cbor.encode({**value, 87: other[87]}))
    assert caught.value.code == Code.LOG_DIGEST


def test_exchanged_event_with_its_own_digests_does_not_replay() -> None:
    """A52: a consistent lie is another register value."""
    records = log()
    lie = (records[0], replace(log(START, ModelLoad(B, "x"))[1]), *records[2:])
    assert replay(bytes(32), lie, SHA256, pcr=PCR) != replay(bytes(32), records, SHA256, pcr=PCR)


@given(st.binary(max_size=200))
def test_parsers_are_total_on_any_bytes(data: bytes) -> None:
    for parser in (parse_record, parse_records):
        try:
            parser(data)
        except MalformedEvidence:
            continue


@given(st.sampled_from(EVENTS), st.data())
def test_a_flipped_bit_is_refused_or_another_record(event: Event, data: st.DataObject) -> None:
    (record,) = log(event)
    mutated = bytearray(record.raw)
    mutated[data.draw(st.integers(0, len(mutated) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = parse_record(bytes(mutated))
    except MalformedEvidence:
        return
    assert (other.recnum, other.pcr) != (record.recnum, record.pcr)
