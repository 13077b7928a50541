"""`weighbridge-attester measure DIR`, as a function of its arguments."""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import pytest

from fakes.models import write_model
from weighbridge.attester.commands import measure as command
from weighbridge.attester.weights import measure
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.manifest import Manifest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_summary_names_the_digest(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--name", "declared") == 0
    manifest = measure(model, name="declared")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "model    declared",
        f"digest   {manifest.digest.hex()}",
        "files    3 (0.0 MB)",
        "tensors  3",
    ]
    assert captured.err == ""


def test_json_on_standard_output_is_the_manifest(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--json") == 0
    assert Manifest.from_json(capsys.readouterr().out.encode()) == measure(model)


def test_file_is_written_whole(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "manifest.json"
    assert run(model, "-o", output) == 0
    assert Manifest.from_json(output.read_bytes()) == measure(model)
    assert f"manifest {output}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "model"]


def test_output_inside_the_model_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "-o", model / "manifest.json") == 2
    assert "would be part of" in capsys.readouterr().err
    assert not (model / "manifest.json").exists()


def test_output_that_cannot_be_written_leaves_nothing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        run(model, "-o", tmp_path / "none" / "manifest.json")
    assert caught.value.code == Code.FILE_UNWRITABLE


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = Terminal() if terminal else io.StringIO()
    progress = command._Progress(stream)
    progress(0, 4_000_000_000)
    now[0] += 10
    progress(1_000_000_000, 4_000_000_000)
    progress(1_000_000_001, 4_000_000_000)
    progress.finish()
    text = "measured 1000 of 4000 MB, 100 MB/s, 30 s left"
    assert stream.getvalue() == (f"\r\x1b[K{text}\r\x1b[K" if terminal else f"{text}\n")


def test_quick_measurement_shows_no_progress() -> None:
    stream = Terminal()
    progress = command._Progress(stream)
    progress(1, 1)
    progress.finish()
    assert stream.getvalue() == ""


def test_manifest_is_readable_by_any_json_tool(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "weighbridge/manifest/v1"
    tensors = document["files"][2]["tensors"]
    assert [tensor["name"] for tensor in tensors] == ["empty", "layer.0.bias", "layer.0.weight"]
