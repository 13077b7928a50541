"""`weighbridge policy replay`: what would change, by rule, over sessions of every kind; and nothing is passed over."""

from __future__ import annotations

import contextlib
import io
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from support.recorded import FAILING, LENIENT, STRICT, record
from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.recorded_state import session_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.recorded import Recorded
    from support.world import Engines
    from weighbridge.verifier.recorded import RecordedWindow

    Run = Callable[..., tuple[int, str, str]]

WINDOWS = 10


@pytest.fixture(scope="module")
def made(quick_dir: Path, engines: Engines) -> Iterator[Recorded]:
    directory = quick_dir / "replayed"
    directory.mkdir()
    recorded = record(directory, engines)
    yield recorded
    recorded.world.close()
    shutil.rmtree(directory)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["policy", "replay", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


class Asked:
    """Documents of replays of the state, each made once; in this process unless told otherwise."""

    def __init__(self, made: Recorded) -> None:
        self._made = made
        self._found: dict[tuple[object, ...], tuple[int, dict[str, Any]]] = {}

    def __call__(self, text: str, *more: object) -> tuple[int, dict[str, Any]]:
        """The status and document under the policy ``text``, which is the file new.rego."""
        policy = self._made.state / "new.rego"
        policy.write_text(text)
        if (text, *more) not in self._found:
            jobs = () if "--jobs" in more else ("--jobs", 1)
            given = ("--policy", policy, "--manifest", self._made.manifest, *jobs, *more, "--json")
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                status = main(["policy", "replay", *map(str, (self._made.state, *given))])
            document = strict.json_decode(out.getvalue().encode(), what="document")
            assert isinstance(document, dict)
            self._found[text, *more] = status, document
        return self._found[text, *more]


@pytest.fixture(scope="module")
def asked(made: Recorded) -> Asked:
    return Asked(made)


def changes(document: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(item["from"], item["to"]): item["windows"] for item in document["changes"]}


def rules(document: dict[str, Any]) -> dict[tuple[str, str | None, str | None], int]:
    return {(item["effect"], item["code"], item["rule"]): item["windows"] for item in document["rules"]}


def test_the_policy_that_judged_changes_nothing(run: Run, made: Recorded) -> None:
    paths = [made.bundle(kind) for kind in ("affirmed", "held", "refused")]
    status, out, err = run(
        *paths, "--policy", "insecure_development", "--anchors", made.state / "anchors.json", "--jobs", 1
    )
    assert (status, err) == (ExitCode.AFFIRMED, "")
    assert out.splitlines() == [
        "NO CHANGE: 0 of 8 windows would be judged otherwise by insecure_development",
        "  looked at    3 sessions, 8 windows, 2026-06-01T12:00:01Z to 2026-06-01T12:00:19Z",
        "  unchanged    7",
        "  no policy    1 were refused before any policy: none changes that",
        "  recorded     7 windows: the policy that judged gives the recorded verdict again",
    ]


def test_the_verifiers_own_keys_may_be_named_as_well(run: Run, made: Recorded) -> None:
    status, out, err = run(
        made.state, "--policy", "insecure_development", "--anchors", made.state / "anchors.json",
        "--manifest", made.manifest, "--jobs", 1, "--exit-zero",
    )  # fmt: skip
    assert (status, err) == (ExitCode.AFFIRMED, "")
    assert "not verified" not in out


def test_what_more_is_denied_is_told_by_the_rule_that_denies_it(
    asked: Asked,
) -> None:
    status, document = asked(STRICT)
    assert status == ExitCode.DENIED
    assert (document["schema"], document["complete"]) == ("weighbridge/policy-replay/v1", True)
    assert (document["windows"], document["same"], document["before_any_policy"]) == (WINDOWS, 4, 1)
    # The window that was denied for what its machine is would be denied for its number.
    assert changes(document) == {("affirmed", "denied"): 3, ("held", "denied"): 1, ("denied", "denied"): 1}
    came = {key: count for key, count in rules(document).items() if key[0] == "came"}
    assert {code for _, code, _ in came} == {"TOO_LONG"}
    assert {rule for _, _, rule in came} == {"new.rego:12 deny"}
    (first, *_) = next(item for item in document["rules"] if item["from"] == "affirmed")["examples"]
    assert (first["seq"], first["message"]) == (1, "sessions of more than one window are not wanted")
    assert document["recorded_policy"]["asked"] == 9
    assert document["recorded_policy"]["other_verdicts"]["changed"] == 0


def test_what_is_denied_no_more_is_told_by_the_rule_that_denied_it(
    asked: Asked,
) -> None:
    status, document = asked(LENIENT)
    assert status == ExitCode.DENIED
    assert changes(document) == {("denied", "affirmed"): 1}
    # The rules of the policy that judged it then: another one than judged the windows around it.
    gone = rules(document)
    assert {(effect, code) for effect, code, _ in gone} == {("went", "PLATFORM_EMULATED")}
    assert all(rule is not None and rule.startswith("weighbridge/lib.rego:") for _, _, rule in gone)
    assert document["recorded_policy"]["other_verdicts"]["changed"] == 0
    assert asked(LENIENT, "--exit-zero")[0] == ExitCode.AFFIRMED


def test_a_policy_that_fails_denies_and_says_where(asked: Asked) -> None:
    status, document = asked(FAILING)
    assert status == ExitCode.DENIED
    assert changes(document)["affirmed", "denied"] == 7
    row = next(item for item in document["rules"] if item["from"] == "affirmed")
    assert (row["code"], row["rule"], row["windows"]) == ("POLICY_ERROR", "the policy gave no answer", 7)
    assert row["examples"][0]["message"].startswith("new.rego:13: ")


def test_other_values_are_judged_by_instead_of_the_recorded(asked: Asked, made: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "next.json"
    path.write_bytes(made.world.reference.to_json().replace(b"tiny", b"small"))
    status, document = asked(LENIENT, "--reference", path)
    assert (status, document["reference"]) == (ExitCode.DENIED, str(path))
    assert document["recorded_policy"]["asked"] == 0


def test_several_processes_find_the_same(asked: Asked) -> None:
    assert asked(STRICT, "--jobs", 2) == asked(STRICT, "--jobs", 1)


def test_bundles_are_looked_at_like_the_directory(run: Run, asked: Asked, made: Recorded) -> None:
    _, of_state = asked(STRICT)
    paths = [made.bundle(kind) for kind in made.sessions]
    status, out, _ = run(
        *paths, "--policy", made.state / "new.rego", "--anchors", made.state / "anchors.json", "--jobs", 1, "--json"
    )
    document = strict.json_decode(out.encode(), what="document")
    assert isinstance(document, dict)
    assert status == ExitCode.DENIED
    # One session is in no bundle: it has no window.
    assert (document["sessions"], of_state["sessions"]) == (4, 5)
    for name in ("windows", "same", "changes", "rules", "recorded_policy", "first", "last"):
        assert document[name] == of_state[name], name


def test_only_what_came_since_counts(asked: Asked) -> None:
    _, everything = asked(STRICT)
    _, document = asked(STRICT, "--since", everything["last"])
    assert (document["windows"], document["first"]) == (1, everything["last"])
    # Whoever looks at nothing is not told that all is well.
    status, document = asked(STRICT, "--since", "2027-01-01T00:00:00Z")
    assert (status, document["windows"], document["sessions"]) == (ExitCode.AFFIRMED, 0, 0)


def test_as_many_windows_are_named_as_asked_for(asked: Asked) -> None:
    for limit in (0, 2):
        _, document = asked(STRICT, "--limit", limit)
        assert max(len(item["examples"]) for item in document["rules"]) == limit


def test_a_session_that_is_not_verified_is_told_and_the_others_count(run: Run, made: Recorded, tmp_path: Path) -> None:
    damaged, good = tmp_path / "damaged.wb", made.bundle("affirmed")
    damaged.write_bytes(made.bundle("held").read_bytes()[:-1])
    status, out, err = run(
        damaged, good, tmp_path / "none.wb", "--policy", "insecure_development",
        "--anchors", made.state / "anchors.json", "--jobs", 1,
    )  # fmt: skip
    assert (status, err) == (ExitCode.MALFORMED, "")
    lines = out.splitlines()
    assert lines[0].startswith("NO CHANGE: 0 of 3 windows")
    assert "not verified: 2 sessions; what is told is of the others" in lines
    assert f"  {damaged}" in lines
    assert any(line.startswith("    FILE_UNREADABLE: no such file") for line in lines)


def test_who_is_not_believed_is_not_looked_at(run: Run, made: Recorded) -> None:
    status, out, _ = run(made.bundle("affirmed"), "--policy", "insecure_development", "--jobs", 1)
    assert status == ExitCode.NOT_AUTHENTIC
    assert out.startswith("NOTHING TO COMPARE: no window would be judged otherwise by insecure_development")
    assert "CHAIN_UNTRUSTED" in out
    assert "    hint: name the anchors of the verifier that kept it: --anchors" in out.splitlines()


def test_a_policy_that_does_not_load_is_refused_at_once(run: Run, made: Recorded, tmp_path: Path) -> None:
    policy = tmp_path / "bad.rego"
    policy.write_text(LENIENT.replace("count(deny)", "cuont(deny)"))
    status, out, err = run(made.state, "--policy", policy)
    assert (status, out) == (ExitCode.DENIED, "")
    assert "POLICY_INVALID" in err
    status, _, err = run(made.state, "--policy", tmp_path / "none")
    assert status == ExitCode.ENVIRONMENT
    assert "hint: name a policy's directory, its files, or one of: production, " in err


def test_what_is_no_state_is_refused(run: Run, tmp_path: Path) -> None:
    status, _, err = run(tmp_path, "--policy", "production")
    assert status == ExitCode.ENVIRONMENT
    assert "no verifier's state here" in err


@pytest.mark.parametrize(
    "arguments", [["--jobs", "0"], ["--jobs", "x"], ["--limit", "-1"], ["--since", "yesterday"], ["--models", "a.set"]]
)
def test_arguments_that_mean_nothing_are_refused(run: Run, made: Recorded, arguments: list[str]) -> None:
    try:
        status = run(made.state, "--policy", "production", *arguments)[0]
    except SystemExit as stop:
        status = stop.code  # type: ignore[assignment] # ours are numbers
    assert status == ExitCode.USAGE


def test_what_was_found_before_an_interrupt_is_printed(
    run: Run, made: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second session is looked at."""
    calls: list[object] = []

    def interrupted(*arguments: object, **more: object) -> Iterator[RecordedWindow]:
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return session_windows(*arguments, **more)  # type: ignore[arg-type] # what it is called with

    monkeypatch.setattr("weighbridge.verifier.commands.policy_evidence.session_windows", interrupted)
    status, out, _ = run(made.state, "--policy", "insecure_development", "--jobs", 1)
    assert status == ExitCode.ENVIRONMENT
    assert out.startswith("INTERRUPTED: of the first 3 windows, 0 would be judged otherwise by insecure_development")
