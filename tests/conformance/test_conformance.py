"""`weighbridge conformance`: a corpus from files alone, by our driver and by drivers that are wrong, slow or dead."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import conformance_schema
import jsonschema  # type: ignore[import-untyped] # without stubs; it only validates here
import pytest

from forge.portable import export
from weighbridge.verifier.cli import main
from weighbridge.verifier.conformance.process import Driver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# One of each kind of step, sessions that are started again, and what has to be accepted.
NAMES = (
    "freshness/001-old-quote",
    "freshness/005-empty-expected-nonce",
    "decode/017-json-key-twice",
    "honest/006-verifier-restarted",
    "honest/012-enrolled",
    "honest/013-window-after-a-cleared-failure",
    "identity/002-upstream-is-the-attested-host",
    "identity/018-terms-of-another-verifier",
    "bundle/004-window-dropped",
    "gpu/008-under-the-others-chain",
    "logs/003-digest-edited",
    "ledger/006-put-back-and-gone-on",
    "ledger/009-a-witness-that-saw-another-tree",
    "models/009-older-set-in-place-of-the-revocation",
    "nras/028-device-without-secure-boot",
    "session/012-resumed-after-a-failure",
    "session/016-window-after-closing",
    "spot/004-not-answered",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("conformance") / "corpus"
    export(directory, NAMES)
    return directory


def run(capsys: pytest.CaptureFixture[str], corpus: Path, *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["conformance", "run", "--corpus", str(corpus), "--json", *words])
    return status, json.loads(capsys.readouterr().out)


def driver(path: Path, body: str) -> Sequence[str]:
    """The arguments for a driver in Python: ``body`` is done for every ``case``, and says what is printed."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(f"import json, sys, time\nfor line in sys.stdin:\n    case = json.loads(line)\n{lines}\n")
    return "--driver", shlex.join([sys.executable, str(path)])


ANSWER = "print(json.dumps({'schema': 'weighbridge/conformance-answer/v1', 'id': case['id'], **said}), flush=True)"
ADMITTING = (
    "one = {'outcome': 'affirmed', 'codes': [], 'exit': 0, 'window': None, 'device': None}\n"
    "said = {'said': [one] * len(case['steps'])}\n" + ANSWER
)


def test_our_own_driver_passes_from_the_files_alone(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Nothing of a checkout is there.
    monkeypatch.chdir(tmp_path)
    status, found = run(capsys, corpus)
    assert (status, found["failed"], found["unsupported"]) == (0, 0, 0), found
    # One of them is about who watches a log: it is told as what is not in the corpus.
    assert found["passed"] == len(NAMES) - 1
    assert set(found["not_in_corpus"]) == {"ledger/009-a-witness-that-saw-another-tree"}


def test_what_is_given_and_expected_is_as_the_schema_says(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(conformance_schema.schema())
    for name in NAMES[:3]:
        assert main(["conformance", "show", name, "--corpus", str(corpus), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        for kind, document in (("Case", shown["case"]), ("Expected", shown["expected"])):
            jsonschema.validate(document, {**schema, "$ref": f"#/$defs/{kind}"})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**shown["case"], "more": 1}, {**schema, "$ref": "#/$defs/Case"})


def test_a_verifier_that_admits_everything_fails(
    corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, found = run(capsys, corpus, *driver(tmp_path / "driver.py", ADMITTING), "--compare", "outcome")
    assert (status, found["passed"]) == (5, 0)


def test_what_a_driver_cannot_do_is_never_green(
    corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lacking = "said = {'unsupported': case['requires'][:1]}\n" + ANSWER
    words = driver(tmp_path / "driver.py", lacking)
    status, found = run(capsys, corpus, *words)
    assert (status, found["unsupported"], found["passed"]) == (6, len(NAMES) - 1, 0)
    assert main(["conformance", "run", "--corpus", str(corpus), *words]) == 6
    assert "UNSUPPORTED  freshness/001-old-quote: sessions" in capsys.readouterr().out
    # Nor is what it says it lacks, when nobody asks for it.
    status, found = run(
        capsys,
        corpus,
        *driver(tmp_path / "other.py", "said = {'unsupported': ['luck']}\n" + ANSWER),
        "--only",
        "honest",
    )
    assert (status, found["failed"]) == (5, 3)


def test_what_the_caller_leaves_out_is_told(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["conformance", "run", "--corpus", str(corpus), "--without", "sessions", "--only", "gpu", "--only", "logs"]
    assert main(words) == 0
    assert "1 cases were left out by --without" in capsys.readouterr().out
    status, found = run(capsys, corpus, "--without", "sessions", "--only", "gpu")
    assert (status, found["left_out"]) == (6, 1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("time.sleep(60)", "no answer within 0.3 s"),
        ("sys.exit(3)", "the driver has ended: exit status 3"),
        ("print('{}', flush=True)", "not an answer"),
        ("said = {'said': []}\n" + ANSWER, "0 steps answered"),
        ("case['id'] = 'another'\nsaid = {'said': []}\n" + ANSWER, "an answer to another case"),
        ("print('1\\n2', flush=True)", "more than one line"),
        ("while True: print('x' * 1000000, end='', flush=True)", "more than"),
        ("print('{', end='', flush=True)\nsys.exit()", "in the middle of its answer"),
    ],
    ids=["slow", "dead", "not-an-answer", "too-few", "another-case", "two-lines", "endless", "half-an-answer"],
)
def test_a_driver_that_does_not_answer_has_failed_the_case(
    corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, body: str, why: str
) -> None:
    only = ("--only", "logs", "--only", "decode", "--timeout", "0.3" if "sleep" in body else "20")
    status, found = run(capsys, corpus, *driver(tmp_path / "driver.py", body), *only)
    assert status == 5
    assert [why in case["why"] for case in found["cases"]] == [True, True], found["cases"]


def test_a_driver_that_ends_behind_each_case_is_started_again(
    corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # It is still there when the next case is given to it, and never reads that.
    body = "said = {'unsupported': case['requires'][:1]}\n" + ANSWER + "\ntime.sleep(0.1)\nsys.exit()"
    status, found = run(capsys, corpus, *driver(tmp_path / "driver.py", body), "--only", "honest")
    assert (status, found["unsupported"]) == (6, 3), found["cases"]


@pytest.mark.parametrize(
    "words",
    [("--driver", ""), ("--driver", "it 'is"), ("--timeout", "0"), ("--timeout", "nan"), ("--without", "luck")],
    ids=["no-driver", "half-a-quotation", "no-time", "any-time", "no-capability"],
)
def test_words_that_mean_nothing_are_no_run(
    corpus: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str]
) -> None:
    assert main(["conformance", "run", "--corpus", str(corpus), *words]) == 2
    assert f"argument {words[0]}: " in capsys.readouterr().err


def test_a_run_that_is_broken_off_waits_for_no_driver() -> None:
    began = time.monotonic()
    command = [sys.executable, "-c", "import time; print(input(), flush=True); time.sleep(60)"]
    driven = Driver(command, timeout=30)
    assert driven.ask(b"{}") == b"{}\n"
    with pytest.raises(KeyboardInterrupt), driven:
        raise KeyboardInterrupt
    assert time.monotonic() - began < 20


def test_a_driver_that_is_not_there(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, found = run(capsys, corpus, "--driver", str(tmp_path / "none"))
    assert (status, found["code"]) == (8, "TOOL_MISSING")


@pytest.mark.parametrize("file", ["input.json", "expected.json", "manifest.yaml", "blob"])
def test_a_file_that_was_changed_is_refused(corpus: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    name = "logs/003-digest-edited"
    at = corpus / name / file
    if file == "blob":
        name = "honest/012-enrolled"
        blobs = (corpus / name / "input.json").read_text()
        at = corpus / "blobs" / blobs.partition('"blob": "')[2][:64]
    before = at.read_bytes()
    at.write_bytes(before.replace(b"a", b"b", 1))
    status, found = run(capsys, corpus, "--only", name)
    at.write_bytes(before)
    assert (status, found["code"]) == (8, "STATE_CORRUPT")


def test_list_and_show(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "list", "--corpus", str(corpus), "--row", "A01"]) == 0
    assert capsys.readouterr().out.startswith("freshness/001-old-quote  A01, A56  denied TPM_NONCE  ")
    assert main(["conformance", "show", "freshness/001-old-quote", "--corpus", str(corpus)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("->  denied TPM_NONCE")
    assert main(["conformance", "show", "ledger/009-a-witness-that-saw-another-tree", "--corpus", str(corpus)]) == 2
    assert "it cannot be told in steps: heads of a log" in capsys.readouterr().err
    assert main(["conformance", "list", "--corpus", str(corpus), "--only", "none"]) == 2


def test_export_takes_a_checkout(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["conformance", "export", str(tmp_path / "corpus"), "--checkout", str(tmp_path)]) == 8
    words = ["conformance", "export", str(tmp_path / "corpus"), "--checkout", str(root), "--only", "logs/00"]
    assert main(words) == 0
    assert "9 cases in" in capsys.readouterr().out
    assert main(words) == 8
    assert "choose another directory" in capsys.readouterr().err
    # Of one that was broken off nothing is left in the way of the next.
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "conformance_corpus.py").write_text(
        "import os, sys\nos.makedirs(sys.argv[1] + '/blobs')\nsys.exit(130)\n"
    )
    assert main(["conformance", "export", str(tmp_path / "other"), "--checkout", str(tmp_path)]) == 8
    assert not (tmp_path / "other").exists()
    stated = (root / "tests" / "vectors" / "digests.txt").read_text()
    assert (tmp_path / "corpus" / "digests.txt").read_text() in stated


def test_a_line_that_is_no_case_ends_the_driver() -> None:
    command = [sys.executable, "-c", "from weighbridge.verifier.entry import main; raise SystemExit(main())"]
    done = subprocess.run([*command, "conformance", "driver"], input=b"{}\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"")


def test_what_is_stated_is_up_to_date(root: Path) -> None:
    document = (root / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert conformance_schema.document(document) == document
    assert conformance_schema.schema() == (root / "docs" / "conformance.schema.json").read_text(encoding="utf-8")
