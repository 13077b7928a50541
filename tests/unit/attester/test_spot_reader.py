"""Answering spot challenges on the host: what is read, what is refused, and what a restart remembers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

import pytest

from weighbridge.attester.spot import ModelDirectories, SpotReader, read_answer
from weighbridge.attester.spot import directories as module
from weighbridge.proto import cbor
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.spot import SpotChallenge, SpotRange

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL: Final = sha256(b"model")


def challenge(*ranges: tuple[str, int, int]) -> SpotChallenge:
    return SpotChallenge(
        id=bytes(16), manifest=MODEL, key=sha256(b"key"), ranges=tuple(SpotRange(*place) for place in ranges)
    )


def fault_of(call: Callable[[], object]) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as refusal:
        call()
    return refusal.value


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "extra").mkdir(parents=True)
    (directory / "weights").write_bytes(bytes(range(256)) * 8)
    (directory / "extra" / "vocab").write_bytes(b"[PAD]")
    return directory


@pytest.fixture
def directories(tmp_path: Path) -> ModelDirectories:
    return ModelDirectories(tmp_path / "model-directories")


# -- reading -----------------------------------------------------------------------------------------------------------


def test_the_bytes_of_each_range_are_read_in_order(model: Path) -> None:
    asked = challenge(("weights", 250, 10), ("extra/vocab", 0, 5), ("weights", 0, 1))
    expected = asked.answer([bytes([*range(250, 256), *range(4)]), b"[PAD]", b"\0"])
    assert read_answer(asked, model) == expected


def test_what_comes_in_pieces_is_read_whole(model: Path) -> None:
    read = os.pread

    def few(file: int, size: int, offset: int) -> bytes:
        return read(file, min(size, 3), offset)

    asked = challenge(("weights", 0, 100))
    with mock.patch("os.pread", few):
        assert read_answer(asked, model) == asked.answer([bytes(range(100))])


def test_links_that_stay_below_the_directory_are_followed(model: Path) -> None:
    (model / "blobs").mkdir()
    (model / "weights").rename(model / "blobs" / "0")
    (model / "weights").symlink_to("blobs/0")
    (model / "more").symlink_to("extra")
    asked = challenge(("weights", 0, 1), ("more/vocab", 0, 5))
    assert read_answer(asked, model) == asked.answer([b"\0", b"[PAD]"])


def test_a_link_to_the_model_is_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(model)
    asked = challenge(("extra/vocab", 0, 5))
    assert read_answer(asked, tmp_path / "current") == asked.answer([b"[PAD]"])


def out(model: Path) -> str:
    (model.parent / "secret").write_bytes(b"secret")
    (model / "leak").symlink_to("../secret")
    return "leak"


def folder_out(model: Path) -> str:
    (model.parent / "elsewhere").mkdir()
    (model.parent / "elsewhere" / "secret").write_bytes(b"secret")
    (model / "leak").symlink_to(model.parent / "elsewhere")
    return "leak/secret"


def circle(model: Path) -> str:
    (model / "circle").symlink_to("circle")
    return "circle"


def fifo(model: Path) -> str:
    os.mkfifo(model / "fifo")
    return "fifo"


def root(model: Path) -> str:
    (model / "root").symlink_to(".")
    return "root"


@pytest.mark.parametrize(
    "prepare",
    [
        lambda _: "missing",
        lambda _: "extra/missing",
        lambda _: "extra",
        lambda _: "weights/more",
        out,
        folder_out,
        circle,
        fifo,
        root,
    ],
    ids=["missing", "missing below", "folder", "file for a folder", "out", "folder out", "circle", "FIFO", "root"],
)
def test_what_is_no_file_of_the_model_is_not_read(model: Path, prepare: Callable[[Path], str]) -> None:
    path = prepare(model)
    fault = fault_of(lambda: read_answer(challenge((path, 0, 1)), model))
    assert fault.code is Code.WEIGHTS_UNREADABLE
    assert fault.where == path


@pytest.mark.parametrize(("offset", "length"), [(2048, 1), (2047, 2), (0, 2049), (2**50, 1)])
def test_a_file_that_is_shorter_is_not_padded(model: Path, offset: int, length: int) -> None:
    fault = fault_of(lambda: read_answer(challenge(("weights", offset, length)), model))
    assert (fault.code, fault.where) == (Code.WEIGHTS_UNREADABLE, "weights")


def test_a_link_that_appears_while_the_file_is_opened_is_not_followed(model: Path) -> None:
    """Between resolving a path and opening it somebody exchanges what lies there."""
    (model.parent / "secret").write_bytes(b"secret")
    resolve = Path.resolve

    def exchanged(path: Path, *, strict: bool = False) -> Path:
        found = resolve(path, strict=strict)
        if path.name == "vocab" and not (model / "extra" / "vocab").is_symlink():
            (model / "extra" / "vocab").unlink()
            (model / "extra" / "vocab").symlink_to(model.parent / "secret")
        return found

    with mock.patch.object(Path, "resolve", exchanged):
        fault = fault_of(lambda: read_answer(challenge(("extra/vocab", 0, 5)), model))
    assert fault.code is Code.WEIGHTS_UNREADABLE


def test_a_disk_that_fails_is_told(model: Path) -> None:
    with mock.patch("os.pread", side_effect=OSError(5, "Input/output error")):
        fault = fault_of(lambda: read_answer(challenge(("weights", 0, 1)), model))
    assert (fault.code, "Input/output error" in fault.message) == (Code.WEIGHTS_UNREADABLE, True)


def test_no_file_stays_open(model: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    read_answer(challenge(("weights", 0, 1), ("extra/vocab", 0, 1)), model)
    fault_of(lambda: read_answer(challenge(("weights", 0, 1), ("extra", 0, 1)), model))
    fault_of(lambda: read_answer(challenge(("extra/vocab", 0, 9)), model))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- which directory ---------------------------------------------------------------------------------------------------


def test_the_model_is_found_where_it_was_loaded_from(model: Path, directories: ModelDirectories) -> None:
    directories.remember(MODEL, model)
    asked = challenge(("extra/vocab", 0, 5))
    assert SpotReader(directories).answer(asked) == asked.answer([b"[PAD]"])


def test_a_model_that_nobody_loaded_is_told(model: Path, directories: ModelDirectories) -> None:
    directories.remember(sha256(b"another"), model)
    fault = fault_of(lambda: SpotReader(directories).answer(challenge(("weights", 0, 1))))
    assert (fault.code, fault.where) == (Code.WEIGHTS_UNREADABLE, MODEL.hex())


def test_a_restart_remembers(tmp_path: Path, model: Path, directories: ModelDirectories) -> None:
    assert directories.find(MODEL) is None
    (tmp_path / "current").symlink_to(model)
    directories.remember(MODEL, tmp_path / "current")
    again = ModelDirectories(tmp_path / "model-directories")
    # A link that leads elsewhere tomorrow does not lead elsewhere what was loaded today.
    assert again.find(MODEL) == model.resolve()
    again.remember(MODEL, tmp_path)
    assert ModelDirectories(tmp_path / "model-directories").find(MODEL) == tmp_path.resolve()


def test_what_is_known_already_is_not_written_again(tmp_path: Path, model: Path, directories: ModelDirectories) -> None:
    directories.remember(MODEL, model)
    (tmp_path / "model-directories").unlink()
    directories.remember(MODEL, model)
    assert not (tmp_path / "model-directories").exists()


def test_only_the_last_models_are_remembered(tmp_path: Path, directories: ModelDirectories) -> None:
    for number in range(70):
        directories.remember(sha256(bytes([number])), tmp_path / str(number))
    again = ModelDirectories(tmp_path / "model-directories")
    assert [again.find(sha256(bytes([number]))) is not None for number in range(70)] == [False] * 6 + [True] * 64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        cbor.encode({0: "weighbridge/v2/model-directories", 1: []}),
        cbor.encode({0: "weighbridge/v1/model-directories", 1: [[MODEL]]}),
        cbor.encode({0: "weighbridge/v1/model-directories", 1: [[MODEL, b"/"]]}),
        cbor.encode({0: "weighbridge/v1/model-directories", 1: [], 2: None}),
        bytes(300_000),
    ],
    ids=["empty", "version", "short row", "bytes for a path", "more", "too large"],
)
def test_a_damaged_list_is_not_guessed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model-directories"
    path.write_bytes(data)
    fault = fault_of(lambda: ModelDirectories(path).find(MODEL))
    assert (fault.code, fault.where) == (Code.STATE_CORRUPT, str(path))


def test_a_disk_that_is_full_is_told(model: Path, directories: ModelDirectories) -> None:
    full = EnvironmentFault(Code.DISK_FULL, "no space left")
    with mock.patch.object(module, "write_file", side_effect=full):
        assert fault_of(lambda: directories.remember(MODEL, model)) is full


def test_another_manifest_is_another_model(model: Path, directories: ModelDirectories) -> None:
    directories.remember(MODEL, model)
    other = replace(challenge(("weights", 0, 1)), manifest=sha256(b"another"))
    assert fault_of(lambda: SpotReader(directories).answer(other)).code is Code.WEIGHTS_UNREADABLE
