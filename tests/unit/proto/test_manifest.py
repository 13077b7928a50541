"""The manifest: one encoding, strictly parsed; and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cbor, limits
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import FileEntry, Manifest, TensorEntry, check_path, encode_manifests, parse_manifests
from weighbridge.proto.manifest_diff import Difference, DifferenceKind, diff

DIGEST = bytes(range(32))
OTHER = bytes(reversed(range(32)))
BIAS = TensorEntry("bias", "F16", (8,), 100, 16, DIGEST)
WEIGHT = TensorEntry("weight", "F32", (8, 4), 116, 128, OTHER)
MODEL = FileEntry("model.safetensors", 244, DIGEST, (BIAS, WEIGHT))
CONFIG = FileEntry("config.json", 20, OTHER)


def manifest(*files: FileEntry, name: str = "m") -> Manifest:
    return Manifest.build(name, files or (MODEL, CONFIG))


def refused(action: Callable[[], object]) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        action()
    return caught.value.code


def test_one_manifest_has_one_encoding_and_digest() -> None:
    one = manifest(MODEL, CONFIG)
    assert one == manifest(CONFIG, replace(MODEL, tensors=(WEIGHT, BIAS)))
    assert [file.path for file in one.files] == ["config.json", "model.safetensors"]
    assert one.digest == D("manifest", one.raw)
    assert Manifest.parse(one.raw) == one
    assert (one.size, one.tensor_count) == (264, 2)


def test_json_renders_and_returns() -> None:
    one = manifest()
    text = one.to_json()
    assert Manifest.from_json(text) == one
    assert json.loads(text)["digest"] == one.digest.hex()
    assert text.endswith(b"}\n")


def test_evidence_part_carries_several() -> None:
    pair = (manifest(), manifest(name="other"))
    assert parse_manifests(encode_manifests(pair)) == pair
    assert parse_manifests(encode_manifests(())) == ()
    assert refused(lambda: parse_manifests(cbor.encode([1]))) == Code.FIELD_TYPE
    assert refused(lambda: parse_manifests(cbor.encode([b""] * 65))) == Code.TOO_LARGE


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
        (lambda v: v.update({2: []}), Code.FIELD_RANGE),
        (lambda v: v.update({3: 0}), Code.FIELD_UNKNOWN),
        (lambda v: v.pop(2), Code.FIELD_MISSING),
        (lambda v: v[2].reverse(), Code.NOT_DETERMINISTIC),
        (lambda v: v[2].append(v[2][1]), Code.DUPLICATE_KEY),
        (lambda v: v[2][0].append(0), Code.TOO_LARGE),
        (lambda v: v[2][0].pop(), Code.FIELD_RANGE),
        (lambda v: v[2][0].__setitem__(0, "x" * 4097), Code.TOO_LARGE),
        (lambda v: v[2][0].__setitem__(1, -1), Code.FIELD_RANGE),
        (lambda v: v[2][0].__setitem__(2, bytes(31)), Code.FIELD_RANGE),
        (lambda v: v[2][1][3].reverse(), Code.NOT_DETERMINISTIC),
        (lambda v: v[2][1][3].append(v[2][1][3][1]), Code.DUPLICATE_KEY),
        (lambda v: v[2][1][3][0].__setitem__(0, 7), Code.FIELD_TYPE),
        (lambda v: v[2][1][3][0].__setitem__(1, "D" * 17), Code.TOO_LARGE),
        (lambda v: v[2][1][3][0].__setitem__(2, [1] * 65), Code.TOO_LARGE),
        (lambda v: v[2][1][3][0].__setitem__(2, [-1]), Code.FIELD_RANGE),
        (lambda v: v[2][1][3][0].__setitem__(3, 240), Code.FIELD_RANGE),
        (lambda v: v[2][1][3][0].__setitem__(4, 2**63), Code.FIELD_RANGE),
        (lambda v: v[2][1][3][0].__setitem__(5, None), Code.FIELD_TYPE),
    ],
)
def test_each_field_refuses_what_is_wrong_by_code(change: Callable[[Any], object], code: Code) -> None:
    value = cbor2.loads(manifest().raw)
    change(value)
    assert refused(lambda: Manifest.parse(cbor.encode(value))) == code


def test_too_many_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = manifest().raw
    monkeypatch.setattr(limits, "MANIFEST_TENSORS_MAX", 1)
    # In one file by the array's bound, over all files by their sum.
    assert refused(lambda: Manifest.parse(data)) == Code.TOO_LARGE
    one = FileEntry("a.safetensors", 244, DIGEST, (BIAS,))
    assert refused(lambda: manifest(one, replace(one, path="b.safetensors"))) == Code.TOO_LARGE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: v.update(schema="weighbridge/manifest/v2"), Code.VERSION_UNSUPPORTED),
        (lambda v: v.update(digest="00" * 32), Code.MANIFEST_DIGEST),
        (lambda v: v.update(name="other"), Code.MANIFEST_DIGEST),
        (lambda v: v.update(digest="XY"), Code.NOT_HEX),
        (lambda v: v.update(name="\ud800"), Code.NOT_UTF8),
        (lambda v: v.update(more=1), Code.FIELD_UNKNOWN),
        (lambda v: v["files"][0].update(size=1.5), Code.FIELD_TYPE),
        (lambda v: v["files"][0].update(size=True), Code.FIELD_TYPE),
        (lambda v: v["files"][0].pop("tensors"), Code.FIELD_MISSING),
        (lambda v: v["files"][0].update(sha256="00"), Code.FIELD_RANGE),
        (lambda v: v["files"][1]["tensors"][0].update(more=1), Code.FIELD_UNKNOWN),
        (lambda v: v["files"][1]["tensors"][0].update(shape=[10**30]), Code.FIELD_RANGE),
        (lambda v: v["files"][1]["tensors"][0].update(sha256="0" * 64), Code.MANIFEST_DIGEST),
    ],
)
def test_json_refuses_what_is_wrong_by_code(change: Callable[[Any], object], code: Code) -> None:
    value = json.loads(manifest().to_json())
    change(value)
    assert refused(lambda: Manifest.from_json(json.dumps(value).encode())) == code


def test_json_that_is_no_object_is_refused() -> None:
    assert refused(lambda: Manifest.from_json(b"[]")) == Code.FIELD_TYPE


TEXT = st.text(st.characters(min_codepoint=33, exclude_categories=["C", "Z"], exclude_characters="/."), min_size=1)
SIZES = st.integers(0, 2**40)


@st.composite
def tensors(draw: st.DrawFn) -> TensorEntry:
    return TensorEntry(
        draw(TEXT),
        draw(st.sampled_from(["F32", "BF16"])),
        tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
        draw(st.integers(0, 64)),
        draw(st.integers(0, 64)),
        draw(st.sampled_from([DIGEST, OTHER])),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    found = draw(
        st.lists(
            st.builds(
                FileEntry,
                st.sampled_from(["a", "b", "c/d"]),
                st.just(128),
                st.sampled_from([DIGEST, OTHER]),
                st.lists(tensors(), max_size=3, unique_by=lambda tensor: tensor.name).map(tuple),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda file: file.path,
        )
    )
    return Manifest.build(draw(st.sampled_from(["m", "n"])), found)


@given(manifests())
def test_encodings_return(one: Manifest) -> None:
    assert Manifest.parse(one.raw) == one
    assert Manifest.from_json(one.to_json()) == one


@given(manifests(), manifests())
def test_difference_is_empty_exactly_for_equal_manifests(one: Manifest, other: Manifest) -> None:
    assert (diff(one, other) == ()) == (one.digest == other.digest)
    assert all(str(found) and found.document()["kind"] for found in diff(one, other))


@given(st.binary(max_size=300))
def test_parsers_are_total_on_any_bytes(data: bytes) -> None:
    for parser in (Manifest.parse, Manifest.from_json, parse_manifests):
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


def test_difference_names_file_and_tensor() -> None:
    """A54: whatever was exchanged after declaring, its file and its tensor are named."""
    changed = replace(MODEL, sha256=OTHER, tensors=(BIAS, replace(WEIGHT, sha256=DIGEST)))
    (found,) = diff(manifest(), manifest(changed, CONFIG))
    assert found == Difference(
        kind=DifferenceKind.TENSOR_CHANGED,
        path="model.safetensors",
        tensor="weight",
        expected=OTHER.hex(),
        got=DIGEST.hex(),
    )
    assert str(found) == (
        f"model.safetensors, tensor weight: tensor changed, declared {OTHER.hex()}, measured {DIGEST.hex()}"
    )


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((MODEL,), [(DifferenceKind.FILE_MISSING, "config.json", None)]),
        (
            (MODEL, CONFIG, replace(CONFIG, path="adapter.bin")),
            [(DifferenceKind.FILE_UNEXPECTED, "adapter.bin", None)],
        ),
        ((MODEL, replace(CONFIG, sha256=DIGEST)), [(DifferenceKind.CONTENT, "config.json", None)]),
        (
            (MODEL, replace(CONFIG, sha256=DIGEST, size=21)),
            [(DifferenceKind.SIZE, "config.json", None), (DifferenceKind.CONTENT, "config.json", None)],
        ),
        ((replace(MODEL, sha256=OTHER), CONFIG), [(DifferenceKind.HEADER, "model.safetensors", None)]),
        (
            (replace(MODEL, tensors=(replace(BIAS, offset=0), WEIGHT)), CONFIG),
            [(DifferenceKind.HEADER, "model.safetensors", None)],
        ),
        (
            (replace(MODEL, tensors=(replace(BIAS, dtype="BF16"), WEIGHT)), CONFIG),
            [(DifferenceKind.TENSOR_LAYOUT, "model.safetensors", "bias")],
        ),
        (
            (replace(MODEL, tensors=(WEIGHT, replace(BIAS, name="bios"))), CONFIG),
            [
                (DifferenceKind.TENSOR_MISSING, "model.safetensors", "bias"),
                (DifferenceKind.TENSOR_UNEXPECTED, "model.safetensors", "bios"),
            ],
        ),
    ],
)
def test_every_kind_of_difference(
    files: tuple[FileEntry, ...], expected: list[tuple[DifferenceKind, str, str | None]]
) -> None:
    assert kinds(manifest(), manifest(*files)) == expected


def test_difference_of_name() -> None:
    (found,) = diff(manifest(), manifest(name="other"))
    assert (found.kind, str(found)) == (DifferenceKind.NAME, "model: name, declared m, measured other")
