"""`weighbridge-attester verity`, as a function of its arguments and of a kernel."""

from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path

import pytest

from fakes.kernel_verity import FakeKernel, reference_digest
from fakes.models import write_model
from weighbridge.attester.commands import verity as command
from weighbridge.attester.weights.dm_verity import DeviceMapper
from weighbridge.attester.weights.protection import Kernel, verity_root
from weighbridge.proto.errors import Code, EnvironmentFault

FILES = ["config.json", "extra/vocab.txt", "model.safetensors"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def fake() -> FakeKernel:
    return FakeKernel()


def run(fake: FakeKernel, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    nowhere = Path("/nonexistent")
    kernel = Kernel(ioctl=fake, devices=DeviceMapper(sys=nowhere, control=nowhere, ioctl=fake))
    return command.run(parser.parse_args([str(argument) for argument in arguments]), kernel=kernel)


def lines(model: Path) -> list[str]:
    return [f"sha256:{reference_digest((model / path).read_bytes()).hex()} {path}" for path in FILES]


def test_enable_then_show(model: Path, fake: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "show", model) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == lines(model)
    assert shown.err == "fs-verity: not-enabled on 3 of 3 files\nprotection: none\n"
    assert run(fake, "enable", model) == 0
    assert capsys.readouterr().out == "fs-verity enabled on 3 files, 0 had it before\n"
    assert run(fake, "enable", model) == 0
    assert capsys.readouterr().out == "fs-verity enabled on 0 files, 3 had it before\n"
    assert run(fake, "show", model) == 0
    shown = capsys.readouterr()
    root = verity_root([(path, reference_digest((model / path).read_bytes())) for path in FILES]).hex()
    assert shown.out.splitlines() == lines(model)
    assert shown.err == f"fs-verity: enabled on 3 of 3 files\nprotection: fs-verity, root {root}\n"


def test_names_that_would_steer_the_terminal_are_shown_escaped(
    model: Path, fake: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "a\u202eb").touch()
    assert run(fake, "show", model) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_long_work_says_how_far_it_is(
    model: Path, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("weighbridge.attester.commands.progress._LOG_INTERVAL_S", 1e-9)
    assert run(fake, "show", model) == 0
    assert capsys.readouterr().err.startswith("hashed ")


def test_document_says_of_each_file_what_the_kernel_does(
    model: Path, fake: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "enable", model) == 0
    fake.enabled[(model / "config.json").stat().st_ino] = bytes(32)
    del fake.enabled[(model / "extra/vocab.txt").stat().st_ino]
    capsys.readouterr()
    assert run(fake, "show", model, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["protection"], document["root"]) == ("weighbridge/verity/v1", "none", None)
    assert [(file["path"], file["kernel"]) for file in document["files"]] == list(
        zip(FILES, ["different", "not-enabled", "enabled"], strict=True)
    )
    assert [f"{file['digest']} {file['path']}" for file in document["files"]] == lines(model)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOTTY, "VERITY_UNSUPPORTED"), (errno.ETXTBSY, "FILE_UNWRITABLE")])
def test_enable_is_never_well_where_the_kernel_does_not(model: Path, fake: FakeKernel, number: int, code: str) -> None:
    fake.fails = number
    with pytest.raises(EnvironmentFault, match=r"config\.json") as caught:
        run(fake, "enable", model)
    assert caught.value.code == code


def test_show_works_where_the_kernel_cannot(model: Path, fake: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    fake.supported = False
    assert run(fake, "show", model) == 0
    assert capsys.readouterr().err.startswith("fs-verity: unsupported on 3 of 3 files\n")


def test_directory_that_is_none_is_refused(tmp_path: Path, fake: FakeKernel) -> None:
    for action in ("show", "enable"):
        with pytest.raises(EnvironmentFault) as caught:
            run(fake, action, tmp_path / "nothing")
        assert caught.value.code == Code.WEIGHTS_UNREADABLE
