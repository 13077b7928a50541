"""`weighbridge policy diff`: what is written otherwise, and what of recorded and golden inputs is decided otherwise."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from support.recorded import LENIENT, STRICT, record
from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.authoring.golden import Expectation, Golden
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
    directory = quick_dir / "compared"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "diff", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def policies(tmp_path: Path) -> tuple[Path, Path]:
    found = []
    for name, text in (("old", LENIENT), ("new", STRICT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gate.rego").write_text(text)
        found.append(tmp_path / name)
    return found[0], found[1]


def document_of(out: str) -> dict[str, Any]:
    document = strict.json_decode(out.encode(), what="document")
    assert isinstance(document, dict)
    return document


def test_what_is_written_otherwise(run: Run, policies: tuple[Path, Path]) -> None:
    old, new = policies
    status, out, err = run(old, new)
    assert (status, err) == (ExitCode.DENIED, "")
    lines = out.splitlines()
    assert lines[0] == "DIFFERENT: 1 rule"
    assert [line.split(",")[0] for line in lines[1:3]] == [f"  old  {old}", f"  new  {new}"]
    assert lines[3:] == [
        "",
        "rules",
        "  ~ deny  + gate.rego:12",
        "",
        "looks at",
        "  + paths     input.window.seq",
        "  + library   lib.denial",
    ]
    assert run(old, new, "--exit-zero")[0] == ExitCode.AFFIRMED


def test_a_policy_is_like_itself(run: Run, policies: tuple[Path, Path]) -> None:
    old, _ = policies
    (old / "data.json").write_text('{"a": 1}')
    status, out, _ = run(old, old)
    assert (status, out.splitlines()[0]) == (ExitCode.AFFIRMED, "NO DIFFERENCE: the same rules and data")
    copy = old.parent / "copy"
    shutil.copytree(old, copy)
    (copy / "data.json").write_text('{"a": 2}')
    status, out, _ = run(old, copy)
    assert (status, out.splitlines()[0]) == (ExitCode.DENIED, "DIFFERENT: 0 rules, 1 member of data.json")
    assert "data.json  ~ a" in out.splitlines()


def test_what_was_recorded_is_decided_by_both(run: Run, policies: tuple[Path, Path], made: Recorded) -> None:
    status, out, err = run(*policies, "--recorded", made.state, "--manifest", made.manifest, "--jobs", 1, "--json")
    assert (status, err) == (ExitCode.DENIED, "")
    document = document_of(out)
    assert document["schema"] == "weighbridge/policy-diff/v1"
    recorded = document["recorded"]
    # The one that was denied then would be affirmed by the old policy: the verdicts then are not what is compared.
    assert {(item["from"], item["to"]): item["windows"] for item in recorded["changes"]} == {
        ("affirmed", "denied"): 4,
        ("held", "denied"): 1,
    }
    assert {(item["effect"], item["code"], item["rule"]) for item in recorded["rules"]} >= {
        ("came", "TOO_LONG", "gate.rego:12 deny")
    }
    assert (recorded["windows"], recorded["before_any_policy"], recorded["not_verified"]) == (10, 1, [])
    assert document["inputs"] is None
    assert document["looks_at"]["came"]["paths"] == ["input.window.seq"]


def test_golden_inputs_are_decided_by_both(run: Run, policies: tuple[Path, Path], tmp_path: Path) -> None:
    example = EXAMPLES["emulated"]
    golden = Golden("a machine", example.input, example.reference, Expectation("allow", (), {}))
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    path = inputs / "machine.golden.json"
    path.write_bytes(golden.to_json())
    old, new = policies
    status, out, _ = run(old, new, "--inputs", inputs)
    assert status == ExitCode.DENIED
    assert "GOLDEN INPUTS: 1 of 1 are judged otherwise" in out.splitlines()
    assert f"{path} window {example.input.window.seq}, {example.input.received_at}" in out
    status, out, _ = run(old, old, "--inputs", path)
    assert (status, out.splitlines()[-1]) == (ExitCode.AFFIRMED, "GOLDEN INPUTS: 0 of 1 are judged otherwise")
    path.write_text("{}")
    assert run(old, new, "--inputs", path)[0] == ExitCode.MALFORMED
    path.unlink()
    status, _, err = run(old, new, "--inputs", inputs)
    assert (status, "no golden inputs here" in err) == (ExitCode.ENVIRONMENT, True)


def test_what_is_no_policy_is_refused(run: Run, policies: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.rego").write_text(LENIENT.replace("count(deny)", "cuont(deny)"))
    status, out, err = run(policies[0], tmp_path / "bad.rego")
    assert (status, out) == (ExitCode.DENIED, "")
    assert "bad.rego" in err
    status, _, err = run(policies[0], policies[1], "--hosts", "a.set")
    assert (status, "need --reference" in err) == (ExitCode.USAGE, True)
