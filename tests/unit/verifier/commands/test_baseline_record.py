"""`weighbridge baseline record`: runs out of bundles and of a verifier's directory, and of which sessions none."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from support.baseline_owners import BaselineOwner
from support.recorded import record
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.recording import Recording
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.recorded import Recorded
    from support.world import Engines

    Asked = Callable[..., tuple[int, Any]]

SAID = ("--engine", "vllm 0.11.0", "--workload", "chat")


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "learned"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str], made: Recorded, tmp_path: Path) -> Asked:
    def command(*arguments: object) -> tuple[int, Any]:
        status = main(
            [
                *("baseline", "record", *map(str, arguments), *SAID),
                *("--anchors", str(made.state / "anchors.json"), "-o", str(tmp_path / "run.wbr"), "--json"),
            ]
        )
        out, _ = capsys.readouterr()
        return status, json.loads(out) if out else None

    return command


def test_a_bundle_and_its_verifiers_directory_give_the_same_run(asked: Asked, made: Recorded, tmp_path: Path) -> None:
    session = made.sessions["affirmed"].hex()
    found: list[bytes] = []
    for source in (
        (made.bundle("affirmed"),),
        (made.bundle("affirmed"), "--session", session),
        (made.state, "--session", session),
    ):
        status, document = asked(*source, "--label", "one")
        assert status == 0
        assert document["session"] == session
        # Its windows last a second or so: too little for a unit, and that is said.
        assert [(device["units"], device["mean_mw"]) for device in document["devices"]] == [(0, None)] * 2
        found.append((tmp_path / "run.wbr").read_bytes())
    assert found[0] == found[1] == found[2]
    run = Recording.parse(found[0])
    assert len(run.windows) == 3
    assert (run.scope.engine, run.scope.workload, run.origin) == ("vllm 0.11.0", "chat", "emulated")


def test_what_was_taken_is_said_to_people(capsys: pytest.CaptureFixture[str], made: Recorded, tmp_path: Path) -> None:
    anchors = str(made.state / "anchors.json")
    target = tmp_path / "run.wbr"
    arguments = [str(made.bundle("held")), *SAID, "--anchors", anchors, "--gpu-model", "H100", "-o", str(target)]
    assert main(["baseline", "record", *arguments]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith(f"wrote {target}: session {made.sessions['held'].hex()}")
    assert "held window" in out
    assert "stack       H100, driver " in out
    assert "emulated: made by no hardware" in out
    assert out.count("0 units of 10 s, nothing to fit") == 2


@pytest.mark.parametrize("kind", ["denied", "refused"])
def test_no_run_is_made_of_what_was_denied(asked: Asked, made: Recorded, tmp_path: Path, kind: str) -> None:
    status, document = asked(made.bundle(kind))
    assert (status, document["code"]) == (ExitCode.DENIED, Code.RECORDING_DENIED)
    assert document["where"].startswith("window ")
    assert "a host that you know to be good" in document["hint"]
    assert not (tmp_path / "run.wbr").exists()


def test_a_session_is_named_and_is_there(asked: Asked, made: Recorded) -> None:
    assert asked(made.state)[0] == ExitCode.USAGE
    assert asked(made.state, "--session", "00" * 16)[1]["code"] == Code.SESSION_UNKNOWN
    assert asked(made.bundle("affirmed"), "--session", "00" * 16)[1]["code"] == Code.BUNDLE_MALFORMED


@pytest.mark.parametrize("text", ["", "x" * 101, "two\nlines"])
def test_names_are_short_lines(asked: Asked, made: Recorded, text: str) -> None:
    assert asked(made.bundle("affirmed"), "--label", text)[0] == ExitCode.USAGE


def test_watts_are_whole_and_positive(asked: Asked, made: Recorded) -> None:
    for text in ("0", "-1", "7e2", "1000000"):
        assert asked(made.bundle("affirmed"), "--power-limit", text)[0] == ExitCode.USAGE


def test_a_bundle_is_compared_as_well(capsys: pytest.CaptureFixture[str], made: Recorded, tmp_path: Path) -> None:
    owner = BaselineOwner()
    (tmp_path / "gate.baseline").write_bytes(owner.sign(owner.content()))
    (tmp_path / "owner.json").write_bytes(TrustAnchors((owner.anchor(),)).encode())
    anchors = ("--anchors", str(made.state / "anchors.json"), "--anchors", str(tmp_path / "owner.json"))
    bundle = str(made.bundle("affirmed"))
    arguments = ["baseline", "compare", str(tmp_path / "gate.baseline"), "--bundle", bundle, *anchors, "--json"]
    # No baseline is of this emulated GPU: the verifier says so, too.
    assert main(arguments) == ExitCode.INDETERMINATE
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["verified"]) == ("no_baseline", True)
    assert document["runs"][0]["why"] == "the set does not name this GPU"
