"""`weighbridge policy input`: the document of a recorded window, as it was when the window was judged."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from support.recorded import record
from weighbridge.policy.document import PolicyInput
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.recorded import Recorded
    from support.world import Engines

    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "inputs"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], made: Recorded) -> Run:
    def command(kind: str, *arguments: object) -> tuple[int, str, str]:
        given = (made.bundle(kind), "--anchors", made.state / "anchors.json", *arguments)
        status = main(["policy", "input", *map(str, given)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


def document_of(out: str) -> dict[str, Any]:
    value = strict.json_decode(out.encode(), what="it")
    assert isinstance(value, dict)
    return value


def test_the_document_is_the_one_that_was_judged(run: Run, made: Recorded) -> None:
    """Its digest stands in the recorded verdict."""
    status, out, err = run("affirmed", "--window", 1)
    assert (status, err) == (0, "")
    document = PolicyInput.parse(out.encode())
    assert document.window.seq == 1
    assert document.session.id == made.sessions["affirmed"].hex()
    assert document_of(run("affirmed", "--window", 1, "--json")[1]) == document_of(out)
    with made.world.store.transaction() as tx:
        index = tx.window_indices(made.sessions["affirmed"])[1]
    verdict = document_of(made.world.archive.records.record(index).verdict.decode())
    assert verdict["policy"]["input"] == document.input_digest.hex()


def test_it_is_written_to_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "window.json"
    status, out, _ = run("denied", "--window", 1, "-o", path)
    assert status == 0
    assert out.startswith(f"{path}: window 1 of session ")
    assert out.endswith("its recorded verdict: denied\n")
    document = PolicyInput.parse(path.read_bytes())
    told = document_of(run("denied", "--window", 1, "-o", path, "--json")[1])
    assert told["schema"] == "weighbridge/policy-input-written/v1"
    assert told["input_digest"] == document.input_digest.hex()
    assert run("denied", "--window", 1, "-o", tmp_path / "no" / "such")[0] == ExitCode.ENVIRONMENT


def test_a_held_window_has_one_too(run: Run) -> None:
    assert PolicyInput.parse(run("held", "--window", 1)[1].encode()).window.freshness == "held"


def test_what_an_invariant_refused_no_policy_sees(run: Run) -> None:
    status, out, err = run("refused", "--window", 1)
    assert (status, out) == (ExitCode.DENIED, "")
    assert "WEIGHTS_MISMATCH: no policy sees the window: " in err
    assert "weighbridge policy invariants" in err


def test_windows_that_are_not_there(run: Run) -> None:
    status, _, err = run("affirmed", "--window", 99)
    assert status == ExitCode.ENVIRONMENT
    assert "expected 0 to 2, got 99" in err
    assert run("affirmed")[0] == ExitCode.USAGE
    assert run("affirmed", "--window", "-1")[0] == ExitCode.USAGE


def test_a_bundle_of_others_is_not_believed(made: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "input", str(made.bundle("affirmed")), "--window", "0"]) == ExitCode.NOT_AUTHENTIC
    assert capsys.readouterr().out == ""


def test_other_reference_values(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_text('{"schema":"weighbridge/reference/v1","models":{},"gpu_measurements":{},"unchecked":{}}')
    before, after = (run("affirmed", "--window", 0, *more)[1] for more in ((), ("--reference", path)))
    assert {gpu["reference"] for gpu in document_of(before)["gpus"]} == {"match"}
    assert {gpu["reference"] for gpu in document_of(after)["gpus"]} == {"absent"}
