"""The manifest: one encoding, strictly parsed; tables that prove themselves; and how two manifests differ."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.models import part, plain, safetensors
from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import (
    SHARD_SIZE,
    Algorithm,
    FileEntry,
    Manifest,
    Part,
    check_path,
    encode_manifests,
    parse_manifests,
    range_digest,
)
from weighbridge.proto.manifest_diff import Difference, DifferenceKind, diff, unlike

DIGEST = bytes(range(32))
OTHER = bytes(reversed(range(32)))
MODEL = safetensors("model.safetensors", {"bias": b"b" * 16, "weight": b"w" * 128}, header=b"h" * 100)
CONFIG = plain("config.json", b"c" * 20)
# Nobody hashes 64 MiB here: what a manifest says of a large file is all that its digest is made of.
LARGE = FileEntry.of(
    "model.bin", "plain", [Part.of(None, "", (), offset=0, size=SHARD_SIZE + 1, shards=[DIGEST, OTHER])]
)


def manifest(*files: FileEntry, name: str = "m") -> Manifest:
    return Manifest.build(name, files or (MODEL, CONFIG))


def refused(action: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        action()
    return caught.value.code


def test_one_manifest_has_one_encoding_and_digest() -> None:
    one = manifest(MODEL, CONFIG)
    assert one == manifest(CONFIG, MODEL)
    assert [file.path for file in one.files] == ["config.json", "model.safetensors"]
    assert one.digest == D("manifest", one.raw)
    assert (one.size, one.tensor_count, one.shard_count) == (264, 2, 4)
    assert manifest(LARGE).shard_count == 2


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_tables_can_be_kept_under_the_digests_that_name_them(algorithm: Algorithm) -> None:
    whole = Manifest.build("m", [MODEL, CONFIG, LARGE], algorithm=algorithm)
    kept = {hashlib.sha256(content).digest(): content for content in whole.hashed().values()}
    bare = Manifest.parse(whole.raw)
    assert bare != whole
    named = {file.path: kept[file.digest] for file in bare.files if not file.implied}
    assert bare.with_hashed(named) == whole
    # One that is not at hand is left out, and another file's is no table.
    assert bare.with_hashed({}) == bare
    wrong = {MODEL.path: named[LARGE.path], LARGE.path: named[MODEL.path]}
    for path, content in wrong.items():
        with pytest.raises(MalformedEvidence):
            bare.with_hashed({path: content})


def test_digests_are_what_the_protocol_says() -> None:
    """A small plain file has the digest that any tool computes; everything else is a tree of such digests."""
    assert CONFIG.digest == hashlib.sha256(b"c" * 20).digest()
    assert MODEL.parts is not None
    header, bias, weight = MODEL.parts
    assert (bias.offset, bias.digest) == (100, hashlib.sha256(b"b" * 16).digest())
    rows: cbor.CborValue = [
        [None, "", [], 100, header.digest, []],
        ["bias", "U8", [16], 16, bias.digest, []],
        ["weight", "U8", [128], 128, weight.digest, []],
    ]
    assert MODEL.table == cbor.encode(rows)
    assert MODEL.digest == D("parts", MODEL.table)
    assert LARGE.digest == D("shards", DIGEST, OTHER) == range_digest([DIGEST, OTHER])
    with pytest.raises(ValueError, match="at least one"):
        range_digest([])


def test_a_head_alone_is_the_manifest_without_its_tables() -> None:
    head = Manifest.parse(manifest(MODEL, CONFIG, LARGE).raw)
    assert head.digest == manifest(MODEL, CONFIG, LARGE).digest
    config, large, model = head.files
    assert config == CONFIG
    assert (large.parts, model.parts, model.tensors) == (None, None, ())


def test_tables_travel_beside_the_head_as_far_as_there_is_room() -> None:
    one = manifest(MODEL, CONFIG, LARGE)
    assert Manifest.unpack(one.pack()) == one
    large = Manifest.unpack(one.pack(limit=150))
    assert [file.path for file in large.files if file.parts is not None] == ["config.json", "model.bin"]
    assert Manifest.unpack(one.pack(limit=0)) == Manifest.parse(one.raw)
    told = one.telling({"model.safetensors"})
    assert [file.path for file in told.files if file.parts is not None] == ["config.json", "model.safetensors"]
    assert Manifest.unpack(told.pack()) == told


def test_json_renders_and_returns() -> None:
    one = Manifest.build("m", [MODEL, CONFIG, LARGE], algorithm="blake3", ignored=["notes", ".git"])
    text = one.to_json()
    assert Manifest.from_json(text) == one
    document = json.loads(text)
    assert (document["digest"], document["ignored"]) == (one.digest.hex(), [".git", "notes"])
    assert document["files"][2]["parts"][2]["offset"] == 116
    assert text.endswith(b"}\n")


def test_evidence_part_carries_several(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (manifest(), manifest(name="other"))
    assert parse_manifests(encode_manifests(pair)) == pair
    assert parse_manifests(encode_manifests(())) == ()
    # They share the room that there is.
    monkeypatch.setattr(limits, "MANIFEST_TABLES_MAX", 200)
    assert [made.files[1].parts for made in parse_manifests(encode_manifests(pair[:1]))] == [MODEL.parts]
    assert [made.files[1].parts for made in parse_manifests(encode_manifests(pair))] == [None, None]
    assert refused(lambda: parse_manifests(cbor.encode([1]))) == Code.FIELD_TYPE
    assert refused(lambda: parse_manifests(cbor.encode([b""] * (limits.MANIFESTS_MAX + 1)))) == Code.TOO_LARGE


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../up", "a/../b", "a/./b", "./a", "a//b", "a/", "a\0b", "a\nb", "a\x7fb", ".", ".."],
)
def test_path_that_leaves_or_has_two_spellings_is_refused(path: str) -> None:
    assert refused(lambda: manifest(replace(CONFIG, path=path))) == Code.FIELD_RANGE


@pytest.mark.parametrize(("path", "code"), [("a\udcff", Code.NOT_UTF8), ("é" * 2049, Code.TOO_LARGE)])
def test_path_that_no_manifest_can_carry_is_refused(path: str, code: Code) -> None:
    assert refused(lambda: check_path(path, where="path")) == code


@pytest.mark.parametrize("name", ["", "a\nb", "a\udcff"])
def test_name_is_printable(name: str) -> None:
    assert refused(lambda: Manifest.build(name, [MODEL])) == Code.FIELD_RANGE


@pytest.mark.parametrize("path", ["é.json", "e\u0301.json", "a b", "..c", "a\\b", "x" * 4096])
def test_any_other_path_is_a_name(path: str) -> None:
    assert manifest(replace(CONFIG, path=path)).files[0].path == path


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: v.update({0: "weighbridge/v2/manifest"}), Code.VERSION_UNSUPPORTED),
        (lambda v: v.update({1: ""}), Code.FIELD_RANGE),
        (lambda v: v.update({1: "a\nb"}), Code.FIELD_RANGE),
        (lambda v: v.update({1: "n" * 513}), Code.TOO_LARGE),
        (lambda v: v.update({1: None}), Code.FIELD_TYPE),
        (lambda v: v.update({2: "md5"}), Code.FIELD_RANGE),
        (lambda v: v.update({3: ["../up"]}), Code.FIELD_RANGE),
        (lambda v: v.update({3: ["b", "a"]}), Code.NOT_DETERMINISTIC),
        (lambda v: v.update({3: ["a", "a"]}), Code.DUPLICATE_KEY),
        (lambda v: v.update({4: []}), Code.FIELD_RANGE),
        (lambda v: v.update({5: 0}), Code.FIELD_UNKNOWN),
        (lambda v: v.pop(4), Code.FIELD_MISSING),
        (lambda v: v[4].reverse(), Code.NOT_DETERMINISTIC),
        (lambda v: v[4].append(v[4][1]), Code.DUPLICATE_KEY),
        (lambda v: v[4][0].append(0), Code.TOO_LARGE),
        (lambda v: v[4][0].pop(), Code.FIELD_RANGE),
        (lambda v: v[4][0].__setitem__(0, "x" * 4097), Code.TOO_LARGE),
        (lambda v: v[4][0].__setitem__(1, -1), Code.FIELD_RANGE),
        (lambda v: v[4][0].__setitem__(2, "pickle"), Code.FIELD_RANGE),
        (lambda v: v[4][0].__setitem__(3, bytes(31)), Code.FIELD_RANGE),
    ],
)
def test_each_field_of_a_head_refuses_what_is_wrong_by_code(change: Callable[[Any], object], code: Code) -> None:
    value = cbor2.loads(manifest().raw)
    change(value)
    assert refused(lambda: Manifest.parse(cbor.encode(value))) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda rows: rows.reverse(), Code.MANIFEST_DIGEST),
        (lambda rows: rows.append(rows[2]), Code.FIELD_RANGE),
        (lambda rows: rows.append([None, "", [], 0, DIGEST, []]), Code.MANIFEST_DIGEST),
        (lambda rows: rows.pop(), Code.FIELD_RANGE),
        (lambda rows: rows[1].append(0), Code.TOO_LARGE),
        (lambda rows: rows[1].__setitem__(0, 7), Code.FIELD_TYPE),
        (lambda rows: rows[1].__setitem__(0, None), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(0, "weight"), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(0, "bios"), Code.MANIFEST_DIGEST),
        (lambda rows: rows[1].__setitem__(1, ""), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(1, "D" * 17), Code.TOO_LARGE),
        (lambda rows: rows[0].__setitem__(1, "U8"), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(2, [1] * 65), Code.TOO_LARGE),
        (lambda rows: rows[1].__setitem__(2, [-1]), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(3, 17), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(3, 2**63), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(4, None), Code.FIELD_TYPE),
        (lambda rows: rows[1].__setitem__(4, DIGEST), Code.MANIFEST_DIGEST),
        (lambda rows: rows[1].__setitem__(5, [DIGEST]), Code.FIELD_RANGE),
        (lambda rows: rows[1].__setitem__(5, [1]), Code.FIELD_TYPE),
    ],
)
def test_each_field_of_a_table_refuses_what_is_wrong_by_code(change: Callable[[Any], object], code: Code) -> None:
    head, tables = cbor2.loads(manifest().pack())
    rows = cbor2.loads(tables["model.safetensors"])
    change(rows)
    packed = cbor.encode([head, {"model.safetensors": cbor.encode(rows)}])
    assert refused(lambda: Manifest.unpack(packed)) == code


@pytest.mark.parametrize(
    ("shards", "code"),
    [
        ([], Code.FIELD_RANGE),
        ([DIGEST], Code.FIELD_RANGE),
        ([DIGEST, OTHER, OTHER], Code.FIELD_RANGE),
        ([DIGEST, OTHER[:31]], Code.FIELD_RANGE),
        ([OTHER, DIGEST], Code.MANIFEST_DIGEST),
    ],
)
def test_the_shards_of_a_large_part_are_all_there_and_make_its_digest(shards: list[bytes], code: Code) -> None:
    rows = [[None, "", [], SHARD_SIZE + 1, LARGE.digest, shards]]
    packed = cbor.encode([manifest(LARGE).raw, {"model.bin": cbor.encode(rows)}])
    assert refused(lambda: Manifest.unpack(packed)) == code


def test_a_part_takes_no_memory_for_the_size_that_it_claims() -> None:
    rows = [[None, "", [], 2**52, LARGE.digest, [DIGEST]]]
    packed = cbor.encode([manifest(LARGE).raw, {"model.bin": cbor.encode(rows)}])
    tracemalloc.start()
    try:
        assert refused(lambda: Manifest.unpack(packed)) == Code.FIELD_RANGE
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


@pytest.mark.parametrize(
    "tables", [{"other": b""}, {1: b""}, {"config.json": cbor.encode([[None, "", [], 20, CONFIG.digest, []]])}]
)
def test_a_table_is_of_a_file_that_has_one(tables: cbor.CborMap) -> None:
    assert refused(lambda: Manifest.unpack(cbor.encode([manifest().raw, tables]))) == Code.FIELD_UNKNOWN


def test_a_plain_file_has_one_part() -> None:
    assert refused(lambda: FileEntry.of("a", "plain", [])) == Code.FIELD_RANGE
    two = [part(b"a"), part(b"b", offset=1)]
    assert refused(lambda: FileEntry.of("a", "plain", two)) == Code.FIELD_RANGE
    assert refused(lambda: FileEntry.of("a", "gguf", [part(b"a", offset=1)])) == Code.FIELD_RANGE
    assert refused(lambda: FileEntry.of("a", "plain", [part(b"a", name="t")])) == Code.FIELD_RANGE


def test_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = manifest().pack()
    monkeypatch.setattr(limits, "MANIFEST_PARTS_MAX", 3)
    # In one file by the array's bound, over all files by their sum.
    assert refused(lambda: Manifest.unpack(data)) == Code.TOO_LARGE
    monkeypatch.setattr(limits, "MANIFEST_PARTS_MAX", 5)
    assert refused(lambda: manifest(MODEL, replace(MODEL, path="b.safetensors"))) == Code.TOO_LARGE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: v.update(schema="weighbridge/manifest/v2"), Code.VERSION_UNSUPPORTED),
        (lambda v: v.update(digest="00" * 32), Code.MANIFEST_DIGEST),
        (lambda v: v.update(name="other"), Code.MANIFEST_DIGEST),
        (lambda v: v.update(algorithm="blake3"), Code.MANIFEST_DIGEST),
        (lambda v: v.update(ignored=["more"]), Code.MANIFEST_DIGEST),
        (lambda v: v.update(digest="XY"), Code.NOT_HEX),
        (lambda v: v.update(name="\ud800"), Code.NOT_UTF8),
        (lambda v: v.update(more=1), Code.FIELD_UNKNOWN),
        (lambda v: v["files"][0].update(size=1.5), Code.FIELD_TYPE),
        (lambda v: v["files"][0].update(size=True), Code.FIELD_TYPE),
        (lambda v: v["files"][0].update(kind="x"), Code.FIELD_RANGE),
        (lambda v: v["files"][0].update(parts=[]), Code.FIELD_RANGE),
        (lambda v: v["files"][0].pop("parts"), Code.FIELD_MISSING),
        (lambda v: v["files"][0].update(digest="00"), Code.FIELD_RANGE),
        (lambda v: v["files"][1]["parts"][1].update(more=1), Code.FIELD_UNKNOWN),
        (lambda v: v["files"][1]["parts"][1].update(offset=99), Code.FIELD_RANGE),
        (lambda v: v["files"][1]["parts"][1].update(shape=[10**30]), Code.FIELD_RANGE),
        (lambda v: v["files"][1]["parts"][1].update(shards=["00"]), Code.FIELD_RANGE),
        (lambda v: v["files"][1]["parts"][1].update(digest="0" * 64), Code.MANIFEST_DIGEST),
    ],
)
def test_json_refuses_what_is_wrong_by_code(change: Callable[[Any], object], code: Code) -> None:
    value = json.loads(manifest().to_json())
    change(value)
    assert refused(lambda: Manifest.from_json(json.dumps(value).encode())) == code


def test_json_that_is_no_object_is_refused() -> None:
    assert refused(lambda: Manifest.from_json(b"[]")) == Code.FIELD_TYPE


TEXT = st.text(st.characters(min_codepoint=33, exclude_categories=["C", "Z"], exclude_characters="/."), min_size=1)


@st.composite
def files(draw: st.DrawFn) -> FileEntry:
    path = draw(st.sampled_from(["a", "b", "c/d"]))
    if draw(st.booleans()):
        return plain(path, draw(st.binary(max_size=8)))
    return safetensors(path, draw(st.dictionaries(TEXT, st.binary(max_size=8), max_size=3)))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    found = draw(st.lists(files(), min_size=1, max_size=3, unique_by=lambda file: file.path))
    name, ignored = draw(st.sampled_from(["m", "n"])), draw(st.sampled_from([(), ("x",)]))
    return Manifest.build(name, found, ignored=ignored)


@given(manifests())
def test_encodings_return(one: Manifest) -> None:
    assert Manifest.unpack(one.pack()) == one
    assert Manifest.from_json(one.to_json()) == one
    assert Manifest.parse(one.raw).digest == one.digest


@given(manifests(), manifests(), st.booleans())
def test_difference_is_empty_exactly_for_equal_manifests(one: Manifest, other: Manifest, told: bool) -> None:
    """Also where the tables did not travel."""
    if not told:
        other = Manifest.parse(other.raw)
    assert (diff(one, other) == ()) == (one.digest == other.digest)
    assert all(str(found) and found.document()["kind"] for found in diff(one, other))


@given(st.binary(max_size=300))
def test_parsers_are_total_on_any_bytes(data: bytes) -> None:
    for parser in (Manifest.parse, Manifest.unpack, Manifest.from_json, parse_manifests):
        try:
            parser(data)
        except MalformedEvidence:
            continue


@given(st.data())
def test_parsers_are_total_on_mutations_and_refuse_or_differ(data: st.DataObject) -> None:
    """A flipped bit anywhere is refused, or makes another manifest: never the same digest."""
    one = manifest()
    for raw, parser in ((one.raw, Manifest.parse), (one.to_json(), Manifest.from_json)):
        mutated = bytearray(raw)
        mutated[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        try:
            other = parser(bytes(mutated))
        except MalformedEvidence:
            continue
        # JSON may gain or lose a blank; a manifest may not.
        assert other.digest != one.digest or parser is not Manifest.parse


def kinds(one: Manifest, other: Manifest) -> list[tuple[DifferenceKind, str, str | None]]:
    return [(found.kind, found.path, found.tensor) for found in diff(one, other)]


CHANGED = safetensors("model.safetensors", {"bias": b"b" * 16, "weight": b"W" * 128}, header=b"h" * 100)
WEIGHT, CHANGED_WEIGHT = (hashlib.sha256(byte * 128).hexdigest() for byte in (b"w", b"W"))


def test_difference_names_file_and_tensor() -> None:
    """A54: whatever was exchanged after declaring, its file and its tensor are named."""
    (found,) = diff(manifest(), manifest(CHANGED, CONFIG))
    assert found == Difference(
        kind=DifferenceKind.TENSOR_CHANGED,
        path="model.safetensors",
        tensor="weight",
        expected=WEIGHT,
        got=CHANGED_WEIGHT,
    )
    assert str(found) == (
        f"model.safetensors, tensor weight: tensor changed, declared {WEIGHT}, measured {CHANGED_WEIGHT}"
    )


def test_difference_names_the_shard_of_a_large_range() -> None:
    size = 2 * SHARD_SIZE + 5
    one, other = (
        FileEntry.of(
            "model.gguf",
            "gguf",
            [part(b"head"), Part.of("w", "F16", (size // 2,), offset=4, size=size, shards=[DIGEST, DIGEST, last])],
        )
        for last in (DIGEST, OTHER)
    )
    (found,) = diff(manifest(one), manifest(other))
    begin = 4 + 2 * SHARD_SIZE
    assert (found.kind, found.tensor, found.begin, found.end) == (
        DifferenceKind.TENSOR_CHANGED,
        "w",
        begin,
        begin + 5,
    )
    assert found.place == f"model.gguf, tensor w, bytes {begin} to {begin + 5}"
    swapped = [Part.of(None, "", (), offset=0, size=SHARD_SIZE + 1, shards=[OTHER, OTHER])]
    (found,) = diff(manifest(LARGE), manifest(FileEntry.of("model.bin", "plain", swapped)))
    assert (found.kind, found.begin, found.end) == (DifferenceKind.CONTENT, 0, SHARD_SIZE)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((MODEL,), [(DifferenceKind.FILE_MISSING, "config.json", None)]),
        (
            (MODEL, CONFIG, plain("adapter.bin", b"")),
            [(DifferenceKind.FILE_UNEXPECTED, "adapter.bin", None)],
        ),
        ((MODEL, plain("config.json", b"C" * 20)), [(DifferenceKind.CONTENT, "config.json", None)]),
        (
            (MODEL, plain("config.json", b"c" * 21)),
            [(DifferenceKind.SIZE, "config.json", None), (DifferenceKind.CONTENT, "config.json", None)],
        ),
        ((plain("model.safetensors", b""), CONFIG), [(DifferenceKind.FORMAT, "model.safetensors", None)]),
        (
            (safetensors(MODEL.path, {"bias": b"b" * 16, "weight": b"w" * 128}, header=b"H" * 100), CONFIG),
            [(DifferenceKind.HEADER, "model.safetensors", None)],
        ),
        (
            (safetensors(MODEL.path, {"weight": b"w" * 128, "bias": b"b" * 16}, header=b"h" * 100), CONFIG),
            [(DifferenceKind.HEADER, "model.safetensors", None)],
        ),
        (
            (safetensors(MODEL.path, {"bias": b"b" * 15, "weight": b"w" * 128}, header=b"h" * 101), CONFIG),
            [(DifferenceKind.TENSOR_LAYOUT, "model.safetensors", "bias")],
        ),
        (
            (safetensors(MODEL.path, {"bios": b"b" * 16, "weight": b"w" * 128}, header=b"h" * 100), CONFIG),
            [
                (DifferenceKind.TENSOR_MISSING, "model.safetensors", "bias"),
                (DifferenceKind.TENSOR_UNEXPECTED, "model.safetensors", "bios"),
            ],
        ),
        ((replace(CHANGED, parts=None), CONFIG), [(DifferenceKind.CONTENT, "model.safetensors", None)]),
    ],
)
def test_every_kind_of_difference(
    files: tuple[FileEntry, ...], expected: list[tuple[DifferenceKind, str, str | None]]
) -> None:
    assert kinds(manifest(), manifest(*files)) == expected


def test_difference_of_the_whole_model() -> None:
    (found,) = diff(manifest(), manifest(name="other"))
    assert (found.kind, str(found)) == (DifferenceKind.NAME, "model: name, declared m, measured other")
    one, two = (Manifest.build("m", [CONFIG], ignored=ignored) for ignored in ((), ("x", "y")))
    (found,) = diff(one, two)
    assert str(found) == "model: ignored, declared nothing, measured x, y"
    other = Manifest.build("m", [replace(CONFIG, digest=OTHER, parts=None)], algorithm="blake3")
    (found,) = diff(one, other)
    assert str(found) == "model: algorithm, declared sha256, measured blake3"


def test_only_what_differs_from_a_declared_file_of_its_name_has_something_to_tell() -> None:
    measured = manifest(CHANGED, CONFIG, plain("new.bin", b""))
    assert unlike(measured, [manifest()]) == {"model.safetensors"}
    assert unlike(measured, [manifest(CHANGED), manifest()]) == {"model.safetensors"}
    assert unlike(measured, []) == frozenset()
