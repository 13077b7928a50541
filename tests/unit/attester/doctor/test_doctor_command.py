"""The command: what it prints, what it exits with, and that nothing that breaks or hangs hides the rest."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.doctor_host import Paper
from fakes.soft_tpm import SoftTpm
from weighbridge.attester import cli
from weighbridge.attester.commands import doctor
from weighbridge.attester.doctor.catalogue import AREAS, CHECKS
from weighbridge.attester.doctor.findings import Area, Finding, Status, fail, ok, skip, warn
from weighbridge.attester.doctor.host import Host
from weighbridge.attester.doctor.running import diagnose

COMMAND_TEXT = Path(__file__).resolve().parents[4] / "docs" / "operating.md"


def test_every_check_has_its_words_and_its_area() -> None:
    assert [check for area in AREAS for check in area.ids] == list(CHECKS)
    assert all(check.name and check.why and len(check.name) < 25 for check in CHECKS.values())


def test_every_check_is_documented() -> None:
    text = COMMAND_TEXT.read_text()
    assert [check for check in CHECKS if f"`{check}`" not in text] == []


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def run(paper: Paper, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    parser = cli._parser()
    args = parser.parse_args(["doctor", *arguments])
    code = doctor.run(args, host=paper.host())
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


@pytest.mark.usefixtures("columns")
def test_a_host_with_nothing_but_a_tpm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(Paper(tmp_path, ak=SoftTpm().attestation_key()), capsys)
    assert code == 0
    assert out.startswith(
        f"""\
ok    TPM device               device:{tmp_path}/dev/tpmrm0
"""
    )
    assert (
        """\
WARN  endorsement certificate  no endorsement certificate at any index of the
                               profile
                               why: it says which maker's TPM this is; its chain
                                    is checked by the verifier
                               do:  On a cloud the key is believed in another
                                    way."""
        in out
    )
    assert "\nskip  7 checks                 no GPU to ask\n" in out
    assert max(map(len, out.splitlines()[1:])) <= 80
    assert out.splitlines()[-1] == "0 failed, 8 warnings, 10 ok, 13 skipped"


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper = Paper(tmp_path, ak=SoftTpm().attestation_key())
    paper.tpm.banks = {}
    code, out = run(paper, capsys, "--json")
    assert code == 8
    document = json.loads(out)
    assert (document["schema"], document["failed"]) == ("weighbridge/doctor/v1", 1)
    assert [check["id"] for check in document["checks"]] == list(CHECKS)
    (failed,) = [check for check in document["checks"] if check["status"] == "fail"]
    assert failed["id"] == "tpm.banks"
    assert failed["found"] == "no SHA-256 bank; active: none"
    assert failed["why"] == CHECKS["tpm.banks"].why
    assert "tpm2_pcrallocate" in failed["todo"]
    assert {check["todo"] for check in document["checks"] if check["status"] == "ok"} == {None}


def test_on_this_machine_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A root with nothing in it: no TPM, so exit 8; and no word on standard error."""
    (tmp_path / "empty").mkdir()
    state = tmp_path / "state"
    assert cli.main(["doctor", "--root", str(tmp_path / "empty"), "--state", str(state), "--verifier", "[::1]:1"]) == 8
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "FAIL  TPM device               there is no TPM: no /dev/tpmrm0" in captured.out
    assert f"do:  weighbridge-attester init --state {state}" in captured.out.replace(
        "\n                                    ", " "
    )
    assert "FAIL  verifier                 ::1:1: " in captured.out


@pytest.mark.parametrize("place", ["nowhere", "host:x", ":1"])
def test_a_place_that_is_none(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--verifier", place]) == 2
    assert "--verifier" in capsys.readouterr().err


def test_an_attestation_key_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--ak", "handle:1"]) == 2
    assert "must be a persistent handle" in capsys.readouterr().err


def test_a_root_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything would be missing there: that says nothing of the host."""
    assert cli.main(["doctor", "--root", str(tmp_path / "mistyped")]) == 2
    assert "is no directory" in capsys.readouterr().err


def test_findings_that_need_something_done_say_what() -> None:
    assert ok("a", "b").todo == ""
    assert warn("a", "b", "c").todo == fail("a", "b", "c").todo == skip("a", "b", "c").todo == "c"


def area(examine: object, *ids: str) -> Area:
    return Area("test", ids, examine)  # type: ignore[arg-type]  # the tests' own


def test_a_check_that_breaks_hides_no_other_area() -> None:
    def broken(_: Host) -> Iterator[Finding]:
        yield ok("a", "good")
        raise RuntimeError("oh")

    def whole(_: Host) -> Iterator[Finding]:
        yield ok("d", "good")

    report = diagnose(Host(), areas=[area(broken, "a", "b", "c"), area(whole, "d")])
    assert [(finding.id, finding.status) for finding in report.findings] == [
        ("a", Status.OK),
        ("b", Status.FAIL),
        ("c", Status.SKIP),
        ("d", Status.OK),
    ]
    assert report.findings[1].found == "the check itself broke: RuntimeError: oh"


def test_a_check_that_says_too_little_or_too_much() -> None:
    def short(_: Host) -> Iterator[Finding]:
        yield ok("a", "good")

    report = diagnose(Host(), areas=[area(short, "a", "b"), area(short, "b")])
    assert [(finding.id, finding.status) for finding in report.findings] == [
        ("a", Status.OK),
        ("b", Status.FAIL),
        ("b", Status.FAIL),
    ]


def test_a_check_that_hangs_is_left_behind() -> None:
    end = threading.Event()

    def hanging(_: Host) -> Iterator[Finding]:
        yield ok("a", "good")
        end.wait(60)
        yield ok("b", "late")

    began = time.monotonic()
    report = diagnose(Host(), areas=[area(hanging, "a", "b", "c")], patience=0.1)
    assert time.monotonic() - began < 30
    end.set()
    assert [finding.status for finding in report.findings] == [Status.OK, Status.FAIL, Status.SKIP]
    assert report.findings[1].found == "no answer within 0.1 s"
