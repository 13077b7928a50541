"""What ``scripts/fuzz`` says of a run, and how it replays what was found; the fuzzer itself is a peer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import fuzz_targets
import pytest

from fuzz.campaign import Outcome, Place, failure_name
from fuzz.target import Broken
from weighbridge.proto.spdm import report

if TYPE_CHECKING:
    from pathlib import Path

NAME = "attester.tpm.options:parse_handle"
LOG = """\
#12	INITED cov: 31 ft: 64 corp: 5/60b exec/s: 0 rss: 56Mb
#700	NEW    cov: 40 ft: 80 corp: 6/70b lim: 706 exec/s: 171 rss: 56Mb L: 9/9 MS: 2 ChangeBit-CopyPart-
#1231	DONE   cov: 42 ft: 90 corp: 7/71b lim: 832 exec/s: 205 rss: 56Mb
stat::number_of_executed_units: 1231
stat::new_units_added:          2
"""


def test_figures_are_those_of_the_log() -> None:
    outcome = Outcome(NAME, seconds=2.0)
    outcome.read(LOG)
    assert (outcome.executions, outcome.covered_before, outcome.covered, outcome.corpus) == (1231, 31, 42, 7)
    assert outcome.document()["executions_per_second"] == 616


def test_a_failure_is_named_by_what_was_raised_and_where() -> None:
    with pytest.raises(TypeError) as caught:
        report.parse(None)  # type: ignore[arg-type] # what is not to happen
    assert failure_name(caught.value).startswith("TypeError-")
    assert failure_name(Broken("took 9.0 s / 3 bytes")) == "Broken-took_9.0_s_3_bytes"


def test_replaying(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Place(tmp_path).of("crashes", NAME)
    (folder / "input").write_bytes(b"0x81000003")
    assert fuzz_targets.main(["--replay", str(folder / "input")]) == 0
    assert "accepted; every property holds" in capsys.readouterr().out
    assert fuzz_targets.main(["--replay", str(tmp_path / "input")]) == 2
    assert "no file in a folder that is called as a target is" in capsys.readouterr().err


def test_without_a_fuzzer_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz_targets, "find_spec", lambda _: None)
    assert fuzz_targets.main(["--minutes", "1"]) == 8
    assert "scripts/setup --peers" in capsys.readouterr().err


def test_what_was_found_and_what_never_ran_are_failures(capsys: pytest.CaptureFixture[str]) -> None:
    clean = Outcome("a", seconds=1.0, executions=10, covered=5)
    assert fuzz_targets._summary([clean], as_json=False) == 0
    found = Outcome("b", seconds=1.0, executions=10, covered=5, crashes=["x/y"])
    assert fuzz_targets._summary([clean, found], as_json=False) == 1
    assert "scripts/fuzz --replay x/y" in capsys.readouterr().out
    assert fuzz_targets._summary([replace(clean, covered=0)], as_json=False) == 1
    assert "not counted" in capsys.readouterr().err
    assert fuzz_targets._summary([clean, Outcome("c")], as_json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["executions"]) == ("weighbridge/fuzz/v1", 10)
    assert [target["target"] for target in said["targets"]] == ["a", "c"]
