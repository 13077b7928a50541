"""`weighbridge-attester measure DIR`, as a function of its arguments."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fakes.models import flip_bit, write_model
from weighbridge.attester.commands import measure as command
from weighbridge.attester.weights import measure
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.options import UsageFault


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return write_model(tmp_path / "model")


@pytest.fixture
def declared(model: Path) -> Path:
    path = model.parent / "declared.json"
    path.write_bytes(measure(model, name="declared").to_json())
    return path


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
        "content  sha256 over 6 ranges",
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


def test_output_inside_the_model_is_refused(model: Path) -> None:
    with pytest.raises(UsageFault, match="would be part of"):
        run(model, "-o", model / "manifest.json")
    assert not (model / "manifest.json").exists()


def test_output_that_cannot_be_written_leaves_nothing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        run(model, "-o", tmp_path / "none" / "manifest.json")
    assert caught.value.code == Code.FILE_UNWRITABLE


def test_manifest_is_readable_by_any_json_tool(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "weighbridge/manifest/v1"
    names = [part["name"] for part in document["files"][2]["parts"]]
    assert sorted(name for name in names if name is not None) == ["empty", "layer.0.bias", "layer.0.weight"]


def test_algorithm_and_what_is_ignored_are_in_manifest_and_summary(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, "--algorithm", "blake3", "--ignore", "extra/", "--ignore", "config.json") == 0
    lines = capsys.readouterr().out.splitlines()
    manifest = measure(model, algorithm="blake3", ignore=["extra", "config.json"])
    assert f"digest   {manifest.digest.hex()}" in lines
    assert "content  blake3 over 4 ranges" in lines
    assert lines[-2:] == ["ignored  config.json", "ignored  extra"]


def test_directory_as_declared_is_affirmed(model: Path, declared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--check", declared) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "model    declared"
    assert captured.out.splitlines()[-1] == "as declared"
    assert captured.err == ""


def test_what_differs_is_named_by_file_and_tensor(
    model: Path, declared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Completeness: a file more and a file less are differences as a changed tensor is."""
    flip_bit(model / "model.safetensors", -1)
    (model / "adapter.bin").write_text("lora")
    (model / "config.json").unlink()
    assert run(model, "--check", declared) == 5
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs")]
    assert [line.split(", declared")[0].split(", measured")[0] for line in lines] == [
        "differs  adapter.bin: file unexpected",
        "differs  config.json: file missing",
        "differs  model.safetensors, tensor layer.0.bias: tensor changed",
    ]


def test_names_that_would_steer_the_terminal_are_shown_escaped(
    model: Path, declared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"\x1b[2J": np.zeros(1, np.int8)}, model / "model.safetensors")
    (model / "a\u202eb").touch()
    assert run(model, "--check", declared) == 5
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert run(model, "--ignore", "a\u202eb") == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_differences_as_json(model: Path, declared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--check", declared, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["as_declared"]) == ("weighbridge/check/v1", True)
    (model / "config.json").write_text("{}")
    assert run(model, "--check", declared, "--json") == 5
    document = json.loads(capsys.readouterr().out)
    assert document["as_declared"] is False
    assert {found["path"] for found in document["differences"]} == {"config.json"}


def test_differences_show_digests_shortened(model: Path, declared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "config.json").write_text("{}")
    assert run(model, "--check", declared) == 5
    got = hashlib.sha256(b"{}").hexdigest()
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("differs  config.json: content")
    )
    assert line.endswith(f", measured {got[:16]}…")


def test_check_of_what_is_no_manifest_or_not_there(model: Path, declared: Path) -> None:
    declared.write_text("{}")
    with pytest.raises(MalformedEvidence) as refusal:
        run(model, "--check", declared)
    assert refusal.value.where.startswith(f"{declared}: ")
    assert "measure -o" in refusal.value.hint
    with pytest.raises(EnvironmentFault) as caught:
        run(model, "--check", declared.parent / "none.json")
    assert caught.value.code == Code.FILE_UNREADABLE


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--check", "m.json", "--name", "other"], "from the manifest"),
        (["--check", "m.json", "--algorithm", "sha256"], "from the manifest"),
        (["--check", "m.json", "--ignore", "extra"], "from the manifest"),
        (["--check", "m.json", "-o", "other.json"], "from the manifest"),
        (["--ignore", "../x"], "not a path below"),
    ],
)
def test_arguments_that_contradict_are_a_usage_error(model: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(UsageFault, match=text):
        run(model, *arguments)


def test_named_cache_is_used_and_none_by_default_for_small_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(model) == 0
    assert not (tmp_path / "home").exists()
    assert run(model, "--cache", tmp_path / "cache") == 0
    assert (tmp_path / "cache").exists()
    monkeypatch.setattr(command, "_CACHED_FROM", 0)
    assert run(model, "--no-cache") == 0
    assert not (tmp_path / "home").exists()
    assert run(model) == 0
    assert (tmp_path / "home" / "weighbridge" / "measurements.sqlite").exists()


def test_check_reads_everything_unless_a_cache_is_named(
    model: Path, declared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_CACHED_FROM", 0)
    assert run(model, "--check", declared) == 0
    assert not (tmp_path / "home").exists()
    assert run(model, "--check", declared, "--cache", tmp_path / "cache") == 0
    assert (tmp_path / "cache").exists()


def test_cache_inside_the_model_is_refused(model: Path) -> None:
    with pytest.raises(UsageFault, match="--cache FILE lies in DIR"):
        run(model, "--cache", model / "cache")


def test_cache_that_is_none_is_a_notice(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("x" * 1000)
    assert run(model, "--cache", tmp_path / "cache") == 0
    assert capsys.readouterr().err.startswith("weighbridge-attester: notice: measuring without the cache")


def test_interruption_says_how_to_go_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(model, "--cache", tmp_path / "cache")
    assert "measure again to go on" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        run(model, "--no-cache")
    assert capsys.readouterr().err == ""


def test_directory_that_leads_in_a_circle_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(EnvironmentFault) as refused:
        run(loop)
    assert (refused.value.code, refused.value.where) == (Code.WEIGHTS_UNREADABLE, str(loop))
