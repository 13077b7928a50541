"""The owner's side: which bytes are asked for, and `weighbridge-attester spot-pool` as a function of its arguments."""

from __future__ import annotations

import argparse
import json
import stat
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fakes.models import flip_bit, write_model
from support.models import plain, safetensors
from weighbridge.attester.commands import spot_pool as command
from weighbridge.attester.spot import make_pool, read_answer
from weighbridge.attester.spot.pool import Blocks
from weighbridge.attester.weights import measure
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.options import UsageFault
from weighbridge.proto.spot import SpotPool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def manifest(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_bytes(measure(model, name="tiny").to_json())
    return path


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 4, 100])
def test_blocks_cover_every_byte_of_every_tensor_once(length: int) -> None:
    made = Manifest.build(
        "m", [plain("config.json", b"{}"), safetensors("a", {"x": bytes(10), "empty": b"", "y": bytes(4)})]
    )
    blocks = Blocks(made, length)
    drawn = blocks.draw(len(blocks) + 1)
    assert len(drawn) == len(blocks)
    touched = Counter(
        (place.path, tensor, byte)
        for place, tensor in drawn
        for byte in range(place.offset, place.offset + place.length)
    )
    begin = {part.name: part.offset for part in made.files[0].tensors}
    assert touched == {
        ("a", name, begin[name] + byte): 1 for name, size in (("x", 10), ("y", 4)) for byte in range(size)
    }


def test_where_no_tensor_is_named_every_byte_may_be_asked_for() -> None:
    made = Manifest.build("m", [plain("a.bin", bytes(5)), plain("b.bin", b""), plain("c.bin", bytes(3))])
    drawn = Blocks(made, 2).draw(100)
    assert sorted((place.path, place.offset, place.length, tensor) for place, tensor in drawn) == [
        ("a.bin", 0, 2, None),
        ("a.bin", 2, 2, None),
        ("a.bin", 4, 1, None),
        ("c.bin", 0, 2, None),
        ("c.bin", 2, 1, None),
    ]


def test_a_model_without_a_byte_has_nothing_to_ask_for() -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        Blocks(Manifest.build("m", [plain("a", b"")]), 4)
    assert refusal.value.code is Code.FIELD_RANGE


def test_no_place_is_asked_for_twice_in_a_challenge_and_each_sometime() -> None:
    blocks = Blocks(Manifest.build("m", [safetensors("a", {"x": bytes(40)})]), 4)
    draws = [[place.offset for place, _ in blocks.draw(3)] for _ in range(200)]
    assert all(len(set(draw)) == 3 for draw in draws)
    # One of ten in none of two hundred draws of three: less likely than 1e-29.
    assert len({offset for draw in draws for offset in draw}) == 10


def test_each_challenge_is_new_and_answered_by_the_files(model: Path) -> None:
    made = measure(model)
    pool = make_pool(made, model, count=5, ranges=4, range_bytes=8)
    assert (pool.manifest, pool.name, len(pool.entries)) == (made.digest, "model", 5)
    challenges = [entry.expectation.challenge for entry in pool.entries]
    assert len({challenge.id for challenge in challenges}) == len({challenge.key for challenge in challenges}) == 5
    for entry in pool.entries:
        assert entry.expectation.challenge.manifest == made.digest
        assert read_answer(entry.expectation.challenge, model).mac == entry.expectation.mac
        assert set(entry.tensors) <= {"layer.0.weight", "layer.0.bias"}
    assert SpotPool.from_json(pool.to_json()) == pool


def test_progress_is_told(model: Path) -> None:
    told: list[tuple[int, int]] = []
    make_pool(measure(model), model, count=3, ranges=1, range_bytes=8, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_paths_that_are_too_long_together_are_found_out_by_the_owner() -> None:
    name = "a" * 1000
    made = Manifest.build("m", [safetensors(name, {"x": bytes(64)})])
    with pytest.raises(MalformedEvidence) as refusal:
        make_pool(made, None, count=1, ranges=64, range_bytes=1)  # type: ignore[arg-type]  # nothing is read
    assert refusal.value.code is Code.TOO_LARGE


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_pool_is_written_for_its_owner_only(
    model: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pool.json"
    assert run(model, "--manifest", manifest, "--count", 3, "--ranges", 2, "--range-bytes", 16, "-o", output) == 0
    pool = SpotPool.from_json(output.read_bytes())
    assert (pool.name, len(pool.entries)) == ("tiny", 3)
    assert all(len(entry.expectation.challenge.ranges) == 2 for entry in pool.entries)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "model       tiny",
        f"digest      {pool.manifest.hex()}",
        "challenges  3",
        f"pool        {output} (secret: see --help)",
    ]
    assert captured.err == ""


def test_long_work_says_how_far_it_is(
    model: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("weighbridge.attester.commands.progress._LOG_INTERVAL_S", 1e-9)
    assert run(model, "--manifest", manifest, "--count", 3, "-o", tmp_path / "pool.json") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("measured ") for line in lines)
    assert lines[-1].startswith("made 3 of 3 challenges, ")


def test_json_says_how_many_and_no_secret(
    model: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pool.json"
    assert run(model, "--manifest", manifest, "--count", 1, "-o", output, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    pool = SpotPool.from_json(output.read_bytes())
    assert said == {
        "schema": "weighbridge/spot-pool-made/v1",
        "manifest": pool.manifest.hex(),
        "challenges": 1,
    }


def test_a_pool_over_other_bytes_is_not_made(model: Path, manifest: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    flip_bit(weights, weights.stat().st_size - 1)
    with pytest.raises(NotAuthentic) as refusal:
        run(model, "--manifest", manifest, "--count", 1, "-o", tmp_path / "pool.json")
    assert refusal.value.code is Code.WEIGHTS_MISMATCH
    assert "model.safetensors" in refusal.value.message
    assert not (tmp_path / "pool.json").exists()


def test_a_directory_that_is_not_there_is_told(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as fault:
        run(tmp_path / "nowhere", "--manifest", manifest, "--count", 1, "-o", tmp_path / "pool.json")
    assert fault.value.code is Code.WEIGHTS_UNREADABLE


def test_output_inside_the_model_is_refused(model: Path, manifest: Path) -> None:
    with pytest.raises(UsageFault, match="would be part of"):
        run(model, "--manifest", manifest, "--count", 1, "-o", model / "pool.json")
    assert not (model / "pool.json").exists()


def test_more_bytes_than_a_challenge_may_ask_for_are_refused(model: Path, manifest: Path, tmp_path: Path) -> None:
    arguments = ("--count", 1, "--ranges", 64, "--range-bytes", limits.SPOT_BYTES_MAX // 64 + 1)
    with pytest.raises(UsageFault, match=f"more than {limits.SPOT_BYTES_MAX} bytes"):
        run(model, "--manifest", manifest, *arguments, "-o", tmp_path / "pool.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", 0),
        ("--count", limits.SPOT_POOL_CHALLENGES_MAX + 1),
        ("--count", "+1"),
        ("--count", 1, "--ranges", 65),
        ("--count", 1, "--range-bytes", 0),
        ("--count", 1, "-o", "-"),
    ],
)
def test_arguments_out_of_range_are_refused(
    model: Path, manifest: Path, tmp_path: Path, arguments: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(model, "--manifest", manifest, "-o", tmp_path / "pool.json", *arguments)
    assert stop.value.code == 2
    assert "must be a whole number" in (said := capsys.readouterr().err) or "a pool is secret" in said


def test_a_manifest_of_another_name_is_of_another_model(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    made = measure(model, name="other")
    other.write_bytes(made.to_json())
    output = tmp_path / "pool.json"
    assert run(model, "--manifest", other, "--count", 1, "-o", output) == 0
    assert SpotPool.from_json(output.read_bytes()).manifest == made.digest
