"""`weighbridge policy explain`: what is told of windows that were refused, held or admitted, and of documents."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from support.recorded import LENIENT, record
from weighbridge.policy.authoring.examples import EXAMPLES
from weighbridge.policy.policy_set import shipped
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.commands.policy_reasons import invariants_of
from weighbridge.verifier.invariants import INVARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.recorded import Recorded
    from support.world import Engines

    Run = Callable[..., tuple[int, str, str]]
    Asked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "explained"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "explain", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def asked(run: Run) -> Asked:
    """The document of the command; nothing was said to people."""

    def ask(*arguments: object) -> tuple[int, dict[str, Any]]:
        status, out, err = run(*arguments, "--json")
        assert err == ""
        document = strict.json_decode(out.encode(), what="document")
        assert isinstance(document, dict)
        assert document["schema"] == "weighbridge/policy-explain/v1"
        return status, document

    return ask


@pytest.fixture
def asked_code(run: Run) -> Asked:
    def ask(*arguments: object) -> tuple[int, dict[str, Any]]:
        status, out, _ = run(*arguments, "--json")
        document = strict.json_decode(out.encode(), what="document")
        assert isinstance(document, dict)
        return status, document

    return ask


def bundle(made: Recorded, kind: str) -> tuple[object, ...]:
    return made.bundle(kind), "--anchors", made.state / "anchors.json"


def test_a_window_that_the_policy_denied_names_rule_line_and_both_sides(run: Run, asked: Asked, made: Recorded) -> None:
    status, out, err = run(*bundle(made, "denied"))
    assert (status, err) == (ExitCode.DENIED, "")
    assert out.startswith("REFUSED: window 1 of session ")
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "PLATFORM_EMULATED: the GPU is not a genuine one" in out
    status, document = asked(*bundle(made, "denied"))
    assert status == ExitCode.DENIED
    (window,) = document["windows"]
    assert (window["seq"], window["outcome"], window["policy_asked"]) == (1, "refused", True)
    reason = next(item for item in window["reasons"] if item["message"] == "the GPU is not a genuine one")
    assert reason["sentence"].startswith("GPU ")
    assert 'needs gpu.platform == "nvidia", and gpu.platform is "insecure-emulated"' in reason["sentence"]
    (rule,) = reason["rules"]
    files = {module.name: module.text.decode().split("\n") for module in shipped_modules(made)}
    assert "contains d if" in files[rule["module"]][rule["line"] - 1]
    assert rule["name"] == "lib.platform_denials"
    assert rule["passed_on_by"]["name"] == "deny"


def shipped_modules(made: Recorded) -> tuple[Any, ...]:
    return shipped("production", reference=made.world.reference).modules


def test_a_window_that_an_invariant_refused_says_that_no_policy_was_asked(
    run: Run, asked: Asked, made: Recorded
) -> None:
    status, out, _ = run(*bundle(made, "refused"))
    assert status == ExitCode.DENIED
    assert out.splitlines()[0].endswith(": no policy was asked")
    assert "rule     none: always, every model that is loaded, or was since the last window, is" in out
    _, document = asked(*bundle(made, "refused"))
    (window,) = document["windows"]
    assert (window["policy_asked"], window["decision"]) == (False, None)
    told = {reason["code"]: reason for reason in window["reasons"]}
    assert told["MODEL_UNDECLARED"]["invariants"][0]["name"] == "declared"
    assert (
        ": no policy was asked, since this holds always: every model that is loaded"
        in told["MODEL_UNDECLARED"]["sentence"]
    )
    # Whichever policy is named: none is asked.
    assert asked(*bundle(made, "refused"), "--policy", "production", "--window", 1)[1] == document


def test_a_held_window_is_refused_by_an_invariant_and_by_a_rule(run: Run, asked: Asked, made: Recorded) -> None:
    status, out, _ = run(*bundle(made, "held"))
    assert status == ExitCode.DENIED
    assert out.startswith("HELD: window 1 of session ")
    assert "WINDOW_HELD" in out
    (window,) = asked(*bundle(made, "held"))[1]["windows"]
    assert window["outcome"] == "held"
    assert window["reasons"][0]["because"].endswith('and input.window.freshness is "held"')


def test_an_admitted_window_says_what_held(run: Run, asked: Asked, made: Recorded) -> None:
    status, out, _ = run(*bundle(made, "affirmed"))
    assert status == ExitCode.AFFIRMED
    assert out.startswith("ADMITTED: window 2 of session ")
    assert "count(deny) == 0: count(deny) is 0" in out
    assert "rules could have denied it, and did not" in out
    assert "left out, for a written reason" in out
    status, document = asked(*bundle(made, "affirmed"), "--window", 0)
    assert status == ExitCode.AFFIRMED
    (window,) = document["windows"]
    assert (window["seq"], window["outcome"], window["reasons"]) == (0, "admitted", [])
    assert len(window["examined"]) > 20


def test_everything_is_in_the_long_text(run: Run, made: Recorded) -> None:
    brief, full = (run(*bundle(made, "denied"), *more)[1] for more in ((), ("--verbose",)))
    assert full.startswith(brief.split("\n")[0])
    assert len(full) > len(brief)
    assert "does not hold: " in full
    assert "statements hold" in full


OURS = """
deny contains d if {
	not input.session.tenant == "acme"
	d := lib.denial("NOT_OURS", null, "m", 1, 2, "x")
}
"""


def test_another_policy_is_named_with_its_own_lines(asked: Asked, made: Recorded, tmp_path: Path) -> None:
    policy = tmp_path / "mine.rego"
    policy.write_text(LENIENT + OURS)
    status, document = asked(*bundle(made, "affirmed"), "--policy", policy)
    assert status == ExitCode.DENIED
    assert [window["seq"] for window in document["windows"]] == [0, 1, 2]
    for window in document["windows"]:
        (reason,) = window["reasons"]
        assert (reason["rules"][0]["module"], reason["rules"][0]["line"]) == ("mine.rego", 12)
        assert 'because input.session.tenant == "acme" is not so: input.session.tenant is "' in reason["sentence"]


def test_a_state_directory_is_asked_by_session(asked: Asked, run: Run, made: Recorded) -> None:
    session = made.sessions["denied"].hex()
    found = asked(made.state, "--session", session, "--manifest", made.manifest)
    assert found == asked(*bundle(made, "denied"))
    status, _, err = run(made.state, "--session", "00" * 16)
    assert status == ExitCode.ENVIRONMENT
    assert "SESSION_UNKNOWN" in err


def test_a_document_is_explained_without_evidence(asked: Asked, run: Run, tmp_path: Path) -> None:
    example = EXAMPLES["emulated"]
    document, reference = tmp_path / "document.json", tmp_path / "reference.json"
    document.write_bytes(example.input.to_json())
    reference.write_bytes(example.reference.to_json())
    status, told = asked("--input", document, "--policy", "production", "--reference", reference)
    assert status == ExitCode.DENIED
    sentences = [reason["sentence"] for window in told["windows"] for reason in window["reasons"]]
    assert any("genuine_gpu(gpu)" in one and 'gpu.platform is "insecure-emulated"' in one for one in sentences)
    assert any("GPU " in one and "the GPU is not a genuine one" in one for one in sentences)
    assert asked("--input", document, "--policy", "insecure_development", "--reference", reference)[0] == 0
    document.write_bytes(b"{}")
    status, _, err = run("--input", document, "--policy", "production")
    assert status == ExitCode.MALFORMED
    assert "FIELD_MISSING" in err


WRONG = """deny contains d if {
	to_number("x") == 1
	d := {"code": "NEVER"}
}
"""
SLOW = """deny contains d if {
	ten := concat("", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])
	hundred := concat("", [ten, ten, ten, ten, ten, ten, ten, ten, ten, ten])
	thousand := split(concat("", [hundred, hundred, hundred, hundred, hundred, hundred, hundred, hundred]), "")
	some a in thousand
	some b in thousand
	some c in thousand
	a == concat(b, [c, "x"])
	d := {"code": "NEVER"}
}
"""


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [(WRONG, "POLICY_ERROR", "mine.rego:9"), (SLOW, "POLICY_TIMEOUT", "it takes too long")],
    ids=["error", "timeout"],
)
def test_a_policy_without_an_answer_names_the_rule(run: Run, tmp_path: Path, rules: str, code: str, words: str) -> None:
    policy, document = tmp_path / "mine.rego", tmp_path / "document.json"
    head = "package weighbridge.policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if count(deny) == 0\n\n"
    policy.write_text(head + rules)
    document.write_bytes(EXAMPLES["emulated"].input.to_json())
    status, out, err = run("--input", document, "--policy", policy)
    assert (status, err) == (ExitCode.DENIED, "")
    assert code in out
    assert "deny, mine.rego:9" in out
    assert words in out
    assert "what is not answered is not allowed" in out


def test_an_allow_that_does_not_hold_says_what_it_lacks(run: Run, asked: Asked, tmp_path: Path) -> None:
    policy, document = tmp_path / "mine.rego", tmp_path / "document.json"
    example = EXAMPLES["emulated"]
    policy.write_text(
        LENIENT.replace("count(deny) == 0", '{\n\tcount(deny) == 0\n\tinput.session.tenant == "globex"\n}')
    )
    (tmp_path / "reference.json").write_bytes(example.reference.to_json())
    document.write_bytes(example.input.to_json())
    status, out, _ = run("--input", document, "--policy", tmp_path)
    assert status == ExitCode.DENIED
    wanted = (
        'allow does not hold: mine.rego:8 needs input.session.tenant == "globex", and input.session.tenant is "acme"'
    )
    assert wanted in " ".join(out.split())
    _, told = asked("--input", document, "--policy", policy, "--reference", tmp_path / "reference.json")
    assert [way["held"] for way in told["windows"][0]["allow_refused"]] == [1]


def test_arguments_that_do_not_fit_are_usage(run: Run, made: Recorded, tmp_path: Path) -> None:
    document = tmp_path / "document.json"
    document.write_bytes(EXAMPLES["emulated"].input.to_json())
    for arguments in (
        (),
        (made.bundle("held"), "--input", document),
        ("--input", document),
        ("--input", document, "--policy", "production", "--window", 1),
        ("--code", "COSE_SIGNATURE", "--window", 1),
        ("--code", "lower"),
        (made.state,),
        (made.bundle("held"), "--session", "00" * 16),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (ExitCode.USAGE, "")
        assert "hint: " in err
    status, _, err = run(*bundle(made, "held"), "--window", 99)
    assert status == ExitCode.ENVIRONMENT
    assert "expected 0 to 2, got 99" in err


def test_a_code_alone_says_what_holds_and_which_rules_deny_with_it(run: Run, asked_code: Asked) -> None:
    status, out, _ = run("--code", "TELEMETRY_KEY_MISMATCH")
    assert status == ExitCode.AFFIRMED
    assert "always   the window's header is signed by the session's key" in out
    _, document = asked_code("--code", "PLATFORM_EMULATED")
    assert document["invariants"] == []
    assert {rule["name"] for rule in document["rules"]} == {"lib.platform_denials"}
    _, document = asked_code("--code", "MODEL_UNDECLARED", "--policy", "insecure_development")
    assert (document["invariants"][0]["name"], bool(document["rules"])) == ("declared", True)
    status, _, err = run("--code", "NOT_KNOWN_HERE")
    assert status == ExitCode.ENVIRONMENT
    assert "hint: name the policy that does" in err


def test_every_code_of_an_invariant_has_its_words() -> None:
    for code in {code for item in INVARIANTS for code in item.codes}:
        assert len(invariants_of(code)) == 1
    assert invariants_of(Code.PLATFORM_EMULATED) == ()
    assert [item.name for item in invariants_of(Code.COSE_SIGNATURE)] == ["window-signed"]
