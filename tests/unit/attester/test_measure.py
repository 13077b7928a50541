"""Measuring a model: each byte hashed once, by file, shard and tensor; never silently incomplete."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from safetensors.numpy import load_file

from fakes.gguf import STRING, Gguf, real, text
from fakes.models import flip_bit, minilm_directory, write_model
from weighbridge.attester.weights import compare, hashing, measure, plan
from weighbridge.attester.weights import directory as directory_module
from weighbridge.attester.weights.directory import check_ignored
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.manifest import SHARD_SIZE, Manifest, range_digest
from weighbridge.proto.manifest_diff import DifferenceKind, diff


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def fault(action: Callable[[], object]) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        action()
    return caught.value


def test_every_file_and_tensor_is_hashed(model: Path) -> None:
    manifest = measure(model)
    assert (manifest.name, manifest.algorithm, manifest.ignored) == ("model", "sha256", ())
    assert [(file.path, file.kind) for file in manifest.files] == [
        ("config.json", "plain"),
        ("extra/vocab.txt", "plain"),
        ("model.safetensors", "safetensors"),
    ]
    for file in manifest.files:
        data = (model / file.path).read_bytes()
        assert file.size == len(data)
        assert file.parts is not None
        for part in file.parts:
            assert part.digest == hashlib.sha256(data[part.offset : part.offset + part.size]).digest()
            assert part.shards == ()
    assert manifest.files[0].digest == hashlib.sha256((model / "config.json").read_bytes()).digest()
    weights = manifest.files[-1]
    expected = load_file(model / "model.safetensors")
    assert {tensor.name: tensor.digest for tensor in weights.tensors} == {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest() for name, value in expected.items()
    }
    assert {tensor.name: tensor.shape for tensor in weights.tensors}["layer.0.weight"] == (8, 4)


def test_gguf_is_hashed_by_tensor(tmp_path: Path) -> None:
    file = real()
    (tmp_path / "model.gguf").write_bytes(file.data())
    (entry,) = measure(tmp_path).files
    assert entry.kind == "gguf"
    assert {tensor.name: tensor.digest for tensor in entry.tensors} == {
        tensor.name.decode(): hashlib.sha256(tensor.data).digest() for tensor in file.tensors
    }


def test_gguf_whose_header_is_long_is_read_in_steps(tmp_path: Path) -> None:
    pair = (b"vocabulary", STRING, text(b"x" * 100_000))
    (tmp_path / "model.gguf").write_bytes(Gguf(metadata=(pair,)).data())
    assert measure(tmp_path).tensor_count == 3


def test_gguf_whose_header_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_PREFIXES", (64, 128))
    (tmp_path / "model.gguf").write_bytes(real().data())
    with pytest.raises(MalformedEvidence) as caught:
        measure(tmp_path)
    assert (caught.value.code, caught.value.where) == (Code.TOO_LARGE, "model.gguf")


def test_header_that_cannot_be_read_names_the_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    error = fault(lambda: measure(model))
    assert (error.code, error.where) == (Code.WEIGHTS_UNREADABLE, "model.safetensors")
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    error = fault(lambda: measure(model))
    assert (error.code, error.where) == (Code.WEIGHTS_CHANGED, "model.safetensors")


def test_empty_file_has_the_digest_of_nothing(model: Path) -> None:
    (model / "empty").touch()
    file = next(file for file in measure(model).files if file.path == "empty")
    assert (file.size, file.digest) == (0, hashlib.sha256(b"").digest())


def test_blake3_by_choice(model: Path) -> None:
    """The digests of the library's own, over the same ranges."""
    manifest = measure(model, algorithm="blake3")
    assert manifest.algorithm == "blake3"
    assert manifest.files[0].digest == blake3((model / "config.json").read_bytes()).digest()
    assert manifest.digest != measure(model).digest


def test_large_files_are_cut_into_shards(tmp_path: Path) -> None:
    """Sparse, so that it takes no disk: a plain file of three shards, the last of them a single byte."""
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(2 * SHARD_SIZE + 1)
    (entry,) = measure(tmp_path, algorithm="blake3").files
    whole, rest = blake3(bytes(SHARD_SIZE)).digest(), blake3(b"\0").digest()
    assert entry.parts is not None
    assert entry.parts[0].shards == (whole, whole, rest)
    assert entry.digest == range_digest([whole, whole, rest])


def test_measuring_twice_gives_the_same_manifest_elsewhere(model: Path, tmp_path: Path) -> None:
    assert measure(model, name="m").raw == measure(write_model(tmp_path / "copy"), name="m").raw


def test_tensors_do_not_depend_on_how_reads_cut_them(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(model)
    monkeypatch.setattr(hashing, "_BUFFER", {"sha256": 7})
    assert measure(model) == whole


def test_one_flipped_bit_is_named_by_file_and_tensor(model: Path) -> None:
    """A54: one bit of one tensor."""
    before = measure(model)
    tensor = next(t for t in before.files[-1].tensors if t.name == "layer.0.bias")
    flip_bit(model / "model.safetensors", tensor.offset + 3, 6)
    (found,) = diff(before, measure(model))
    assert (found.kind, found.path, found.tensor) == (
        DifferenceKind.TENSOR_CHANGED,
        "model.safetensors",
        "layer.0.bias",
    )


def test_changed_metadata_is_named_as_the_header(model: Path) -> None:
    before = measure(model)
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"pt"', b'"tf"'))
    (found,) = diff(before, measure(model))
    assert (found.kind, found.tensor) == (DifferenceKind.HEADER, None)


def test_added_adapter_tokenizer_and_removed_file_show(model: Path) -> None:
    """A54: an adapter beside the weights, another tokenizer, a file less."""
    before = measure(model)
    (model / "adapter.bin").write_bytes(b"lora")
    (model / "extra" / "vocab.txt").write_text("[UNK]\n[PAD]\n")
    (model / "config.json").unlink()
    assert [(found.kind, found.path) for found in diff(before, measure(model))] == [
        (DifferenceKind.FILE_UNEXPECTED, "adapter.bin"),
        (DifferenceKind.FILE_MISSING, "config.json"),
        (DifferenceKind.CONTENT, "extra/vocab.txt"),
    ]


def test_progress_is_monotonic_and_ends_at_the_total(model: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = measure(model, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (manifest.size, manifest.size)


def test_links_are_followed_inside_only(model: Path, tmp_path: Path) -> None:
    (model / "linked.json").symlink_to("config.json")
    (model / "again").symlink_to("extra")
    manifest = measure(model)
    digests = {file.path: file.digest for file in manifest.files}
    assert digests["linked.json"] == digests["config.json"]
    assert digests["again/vocab.txt"] == digests["extra/vocab.txt"]
    (tmp_path / "outside").write_text("x")
    (model / "leak").symlink_to(tmp_path / "outside")
    error = fault(lambda: measure(model))
    assert (error.code, error.where) == (Code.WEIGHTS_UNREADABLE, "leak")
    assert error.hint


def make_loop(model: Path) -> str:
    (model / "extra" / "up").symlink_to("..")
    return "extra/up"


def make_self_link(model: Path) -> str:
    (model / "loop").symlink_to("loop")
    return "loop"


def make_dangling(model: Path) -> str:
    (model / "gone").symlink_to("nothing")
    return "gone"


def make_fifo(model: Path) -> str:
    os.mkfifo(model / "pipe")
    return "pipe"


def make_socket(model: Path) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(model / "s"))
    return "s"


def make_bad_name(model: Path) -> str:
    Path(os.fsdecode(bytes(model) + b"/bad\xff")).write_text("x")
    return "'bad\\udcff'"


def make_newline(model: Path) -> str:
    (model / "a\nb").write_text("x")
    return "'a\\nb'"


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (make_loop, "may this user read"),
        (make_self_link, "may this user read"),
        (make_dangling, "--ignore"),
        (make_fifo, "--ignore"),
        (make_socket, "--ignore"),
        (make_bad_name, "rename it"),
        (make_newline, "rename it"),
    ],
)
def test_what_cannot_be_measured_is_an_error_that_names_it(
    model: Path, make: Callable[[Path], str], advice: str
) -> None:
    where = make(model)
    error = fault(lambda: measure(model))
    assert (error.code, error.where) == (Code.WEIGHTS_UNREADABLE, where)
    assert advice in error.hint
    assert str(error).isprintable()


def test_unreadable_file_and_folder_are_errors(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom no mode stops: the system calls refuse instead.
    real_open = os.open

    def refuse(path: str | Path, flags: int, *rest: int) -> int:
        if str(path).endswith("config.json"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    error = fault(lambda: measure(model))
    assert (error.code, error.where) == (Code.WEIGHTS_UNREADABLE, "config.json")
    monkeypatch.undo()

    def refuse_listing(_path: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse_listing)
    assert fault(lambda: measure(model)).code == Code.WEIGHTS_UNREADABLE


def test_missing_directory_file_and_empty_directory_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    for name in ("nothing", "file", "empty"):
        error = fault(lambda name=name: measure(tmp_path / name))  # type: ignore[misc]
        assert (error.code, error.where) == (Code.WEIGHTS_UNREADABLE, str(tmp_path / name))


def test_too_many_files_or_folders_are_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "_DIRECTORIES_MAX", 1)
    assert fault(lambda: measure(model)).code == Code.WEIGHTS_UNREADABLE
    monkeypatch.undo()
    monkeypatch.setattr(limits, "MANIFEST_FILES_MAX", 2)
    assert fault(lambda: measure(model)).code == Code.WEIGHTS_UNREADABLE


def test_malformed_safetensors_is_refused_by_path(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MalformedEvidence) as caught:
        measure(model)
    assert (caught.value.code, caught.value.where) == (Code.TRUNCATED, "model.safetensors")
    path.write_bytes(b"\x02")
    with pytest.raises(MalformedEvidence):
        measure(model)


def changing(model: Path, change: Callable[[], object]) -> EnvironmentFault:
    """Measure while `change` happens once something has been read."""
    # It may fall into the same tick of the kernel's clock as the writing before.
    os.utime(model / "model.safetensors", (1, 1))
    pending = [change]

    def progress(_done: int, _total: int) -> None:
        if pending:
            pending.pop()()

    return fault(lambda: measure(model, progress=progress))


def test_file_that_changes_while_it_is_read_is_refused(model: Path) -> None:
    """A53, as far as reading can see: size, time, or another file in its place."""
    weights = model / "model.safetensors"
    for change in (
        lambda: weights.write_bytes(weights.read_bytes() + b"x"),
        lambda: flip_bit(weights, -1),
        lambda: (weights.rename(model.parent / "old"), weights.write_bytes((model.parent / "old").read_bytes())),
    ):
        assert changing(model, change).code == Code.WEIGHTS_CHANGED
        write_again(model)


def write_again(model: Path) -> None:
    for path in sorted(model.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    model.rmdir()
    write_model(model)


def test_directory_that_changes_meanwhile_is_refused(model: Path) -> None:
    error = changing(model, lambda: (model / "late.bin").write_text("x"))
    assert (error.code, error.where) == (Code.WEIGHTS_CHANGED, "late.bin")


def test_file_swapped_before_it_is_opened_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def swap(path: str | Path, flags: int, *rest: int) -> int:
        if str(path).endswith("config.json"):
            (model / "new").write_text("other")
            (model / "new").rename(path)
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", swap)
    error = fault(lambda: measure(model))
    assert (error.code, error.where) == (Code.WEIGHTS_CHANGED, "config.json")


def test_header_is_judged_before_anything_is_hashed(model: Path) -> None:
    (model / "zzz.safetensors").write_bytes(b"\x01")
    seen: list[int] = []
    with pytest.raises(MalformedEvidence) as caught:
        measure(model, progress=lambda done, _total: seen.append(done))
    assert (caught.value.where, seen) == ("zzz.safetensors", [])


def test_what_is_ignored_is_left_out_and_named(model: Path) -> None:
    (model / ".git" / "objects").mkdir(parents=True)
    (model / ".git" / "HEAD").write_text("x")
    os.mkfifo(model / ".git" / "pipe")
    (model / "extra" / "notes.txt").write_text("x")
    manifest = measure(model, ignore=["extra/notes.txt", ".git/", "nothing"])
    assert manifest.ignored == (".git", "extra/notes.txt", "nothing")
    assert [file.path for file in manifest.files] == ["config.json", "extra/vocab.txt", "model.safetensors"]
    assert manifest.digest != measure(write_model(model.parent / "same"), name="model").digest


@pytest.mark.parametrize("path", ["", "/etc", "../other", "a//b", ".", "a\0b", "\udcff", "extra//"])
def test_only_plain_paths_can_be_ignored(path: str) -> None:
    with pytest.raises(ValueError, match="not a path below"):
        check_ignored([path])


def test_ignoring_a_directory_spares_what_only_begins_like_it(model: Path) -> None:
    (model / "extra.txt").write_text("x")
    paths = [file.path for file in measure(model, ignore=["extra"]).files]
    assert paths == ["config.json", "extra.txt", "model.safetensors"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Config.json", "config.json"),
        ("stra\u00dfe.bin", "STRASSE.bin"),
        ("caf\u00e9.bin", "cafe\u0301.bin"),
        ("CAF\u00c9.bin", "cafe\u0301.bin"),
        ("Extra", "extra"),
    ],
)
def test_names_that_differ_only_by_case_or_normalisation_are_refused(model: Path, one: str, other: str) -> None:
    for name in (one, other):
        if not (model / name).exists():
            (model / name).write_text("x")
    error = fault(lambda: measure(model))
    assert error.code == Code.WEIGHTS_AMBIGUOUS
    assert ascii(one) in error.where
    assert ascii(other) in error.where
    assert error.hint
    assert measure(model, ignore=[one]).ignored == (one,)


def test_same_name_in_two_directories_is_no_matter(model: Path) -> None:
    (model / "extra" / "CONFIG.json").write_text("x")
    assert len(measure(model).files) == 4


def test_comparison_measures_as_was_declared(model: Path) -> None:
    declared = measure(model, name="declared", algorithm="blake3", ignore=["extra"])
    assert compare(declared, model) == ()
    (model / "extra" / "vocab.txt").write_text("other")
    assert compare(declared, model) == ()
    (model / "adapter.bin").write_text("lora")
    (model / "config.json").unlink()
    assert [(found.kind, found.path) for found in compare(declared, model)] == [
        (DifferenceKind.FILE_UNEXPECTED, "adapter.bin"),
        (DifferenceKind.FILE_MISSING, "config.json"),
    ]


def test_model_beyond_the_manifest_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MANIFEST_MAX", 100)
    with pytest.raises(MalformedEvidence) as caught:
        measure(model)
    assert caught.value.code == Code.TOO_LARGE


def test_real_model() -> None:
    """The packaged MiniLM: 104 tensors in 90 MB, its weights' published digest."""
    manifest = measure(minilm_directory())
    weights = next(file for file in manifest.files if file.path == "model.safetensors")
    assert (weights.size, len(weights.tensors)) == (90_868_376, 104)
    assert weights.parts is not None
    assert weights.parts[0].name is None
    assert Manifest.from_json(manifest.to_json()) == manifest
