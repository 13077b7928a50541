"""`weighbridge baseline key | fit | show | compare | power`: what they say, what they refuse, and how they end."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from support.runs import GPU, SCOPE, record_run, write_runs
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.proto.recording import Recording
from weighbridge.proto.workload import WorkSummary
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.proto.recording import RecordedWindow

    Run = Callable[..., tuple[int, str, str]]

OWNER: Final = "Acme Physics"
PLACE: Final = ("--owner", OWNER, "--name", "gate", "--number", "1", "--days", "90")


@dataclass(frozen=True)
class Desk:
    """Recordings, an owner's key and a baseline.

    Attributes:
        directory: where all of it is.
        runs: twelve of them.
        held_out: five more.
        hidden: four with undeclared work from their fifth window on.
        baseline: fitted to ``runs``.
    """

    directory: Path
    runs: tuple[str, ...]
    held_out: tuple[str, ...]
    hidden: tuple[str, ...]
    baseline: str

    @property
    def key(self) -> str:
        return str(self.directory / "physics.pem")

    @property
    def anchors(self) -> str:
        return str(self.directory / "physics.json")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    directory = tmp_path_factory.mktemp("baselines")
    made = Desk(
        directory,
        tuple(write_runs(directory, "run", [record_run(seed, windows=8) for seed in range(1, 25, 2)])),
        tuple(write_runs(directory, "held", [record_run(seed, windows=8) for seed in range(2, 12, 2)])),
        tuple(
            write_runs(
                directory, "hidden", [record_run(seed, windows=8, extra_w=40, since=4) for seed in range(12, 20, 2)]
            )
        ),
        str(directory / "gate.baseline"),
    )
    assert main(["baseline", "key", OWNER, "-o", made.key, "--anchors", made.anchors]) == 0
    assert main(["baseline", "fit", *made.runs, *PLACE, "--key", made.key, "-o", made.baseline]) == 0
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["baseline", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def asked(run: Run) -> Callable[..., tuple[int, Any]]:
    def command(*arguments: object) -> tuple[int, Any]:
        status, out, _ = run(*arguments, "--json")
        return status, json.loads(out)

    return command


def other(desk: Desk, tmp_path: Path, **changes: object) -> str:
    """A copy of a run on another stack."""
    first = Recording.parse((desk.directory / "run-01.wbr").read_bytes())
    path = tmp_path / "other.wbr"
    path.write_bytes(replace(first, scope=replace(SCOPE, **changes)).encode())  # type: ignore[arg-type]  # by name
    return str(path)


# -- fit --------------------------------------------------------------------------------------------------------------


def test_a_fit_says_what_it_promises_and_by_what(run: Run, desk: Desk, tmp_path: Path) -> None:
    target = tmp_path / "gate.baseline"
    status, out, _ = run(
        "fit", *desk.runs, "--held-out", *desk.held_out, *PLACE, "--key", desk.key, "-o", target, "--note", "first"
    )
    assert status == 0
    assert f"signed gate, number 1, of {OWNER}: 1 GPU" in out
    assert "0 of 5 runs raised a false alarm: 0 % (95 %: 0 % to 52.2 %)" in out
    assert "12 runs cannot give a distribution-free 1 %: that takes 99" in out
    assert f"… all of it: weighbridge baseline show {target} --all" in out
    assert "threshold" not in out
    assert "it says nothing of weights" in out
    assert "verified" not in out
    assert all(len(line) <= 100 or str(target) in line for line in out.splitlines())
    signed = SignedBaselineSet.parse(target.read_bytes()).claimed
    assert [profile.device for profile in signed.profiles] == [GPU]
    assert signed.profiles[0].scope == SCOPE
    assert {item.recording for item in signed.profiles[0].runs} == {
        Recording.parse((desk.directory / f"run-{number:02}.wbr").read_bytes()).digest for number in range(1, 13)
    }
    _, every, _ = run("fit", *desk.runs, *PLACE, "--key", desk.key, "-o", tmp_path / "all.baseline", "--all")
    assert "12, 96 units of 10 s at 10 Hz" in every
    assert "false alarms in at most 7.69 % of sessions, if" in " ".join(every.split())
    assert "--all" not in every


def test_runs_that_never_were_idle_open_no_gate(run: Run, desk: Desk, tmp_path: Path) -> None:
    said = "sessions begin idle"
    assert said in run("fit", *desk.runs, *PLACE, "--key", desk.key, "-o", tmp_path / "busy.baseline")[1]
    assert said in run("show", tmp_path / "busy.baseline")[1]
    begun: list[Recording] = []
    for path in desk.runs:
        first, *others = (busy := Recording.parse(Path(path).read_bytes())).windows
        begun.append(replace(busy, windows=(replace(first, work=WorkSummary.empty()), *others)))
    idle = write_runs(tmp_path, "idle", begun)
    status, out, _ = run("fit", *idle, *PLACE, "--key", desk.key, "-o", tmp_path / "idle.baseline")
    assert status == 0
    assert said not in out


def test_exceeded_bounds_are_told_with_what_they_were(
    asked: Callable[..., tuple[int, Any]], run: Run, desk: Desk, tmp_path: Path
) -> None:
    arguments = ("fit", *desk.runs, "--held-out", *desk.hidden, *PLACE, "--key", desk.key, "-o")
    status, out, _ = run(*arguments, tmp_path / "x")
    assert status == 0
    assert "EXCEEDED    held-out runs raised more false alarms than is claimed" in out
    assert "threshold pooled: " in out
    assert "a bound was exceeded on held-out runs, and widened" in out
    _, document = asked(*arguments, tmp_path / "y")
    (profile,) = document["profiles"]
    assert profile["held_out"]["widened"]
    assert profile["held_out"]["runs"] == 4
    limits = {bound["basis"]: bound["limit_milli"] for bound in profile["bounds"]}
    assert limits["pooled"] > profile["widened_from"]["limits_milli"]["pooled"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"driver": "999.1"}, "driver"),
        ({"engine": "vllm 1.0", "workload": "code"}, "engine, workload"),
        ({"model": sha256(b"another")}, "model"),
        ({"power_limit_mw": 500_000}, "power_limit_mw"),
    ],
)
def test_runs_of_several_stacks_are_refused_by_what_differs(
    asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path, changes: dict[str, object], names: str
) -> None:
    strange = other(desk, tmp_path, **changes)
    status, document = asked("fit", *desk.runs[1:], strange, *PLACE, "--key", desk.key, "-o", tmp_path / "x")
    assert status == ExitCode.DENIED
    assert document["code"] == Code.BASELINE_SCOPE
    assert document["message"].endswith(f"first run: {names}")
    assert document["where"] == strange
    assert not (tmp_path / "x").exists()


def test_a_run_counts_once(asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "copy.wbr"
    copy.write_bytes((desk.directory / "run-01.wbr").read_bytes())
    for twice in (copy, desk.runs[0]):
        status, document = asked("fit", *desk.runs, twice, *PLACE, "--key", desk.key, "-o", tmp_path / "x")
        assert (status, document["code"]) == (ExitCode.DENIED, Code.BASELINE_SCOPE)
        assert document["message"] == "the same recording twice"


def test_fewer_runs_are_no_baseline(asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path) -> None:
    status, document = asked("fit", *desk.runs[:11], *PLACE, "--key", desk.key, "-o", tmp_path / "x")
    assert (status, document["code"]) == (ExitCode.INDETERMINATE, Code.BASELINE_RUNS)
    assert "12" in str(document["expected"])


def test_what_only_some_runs_report_is_said_and_taking_it_away_needs_a_word(
    asked: Callable[..., tuple[int, Any]], run: Run, desk: Desk, tmp_path: Path
) -> None:
    """Whoever makes the recordings need only leave the energy counter out of one of them."""
    first = Recording.parse((desk.directory / "run-01.wbr").read_bytes())
    lacking = tmp_path / "lacking.wbr"
    lacking.write_bytes(replace(first, windows=tuple(without_energy(window) for window in first.windows)).encode())
    runs = (lacking, *desk.runs[1:])
    target = tmp_path / "less.baseline"
    status, out, _ = run("fit", *runs, *PLACE, "--key", desk.key, "-o", target)
    assert status == 0
    assert "BEWARE      only some of the runs have energy: sessions that leave it out are judged by the" in out
    again = ("--merge", desk.baseline, "--days", "90", "--key", desk.key, "-o", tmp_path / "next.baseline")
    status, _, err = run("fit", *runs, *again)
    assert status == ExitCode.DENIED
    assert Code.BASELINE_DRIFT in err
    assert "it asks for no energy, the one in force does" in err
    status, told = asked("fit", *runs, *again, "--accept-drift", "its counter is broken")
    assert status == 0
    assert [profile["in_some"] for profile in told["profiles"]] == [["energy"]]
    assert "it asks for no energy" in told["drift"][0]
    _, whole = asked("fit", *desk.runs, *PLACE, "--key", desk.key, "-o", tmp_path / "whole.baseline")
    assert [profile["in_some"] for profile in whole["profiles"]] == [[]]


def without_energy(window: RecordedWindow) -> RecordedWindow:
    said = window.readings()
    sources = (
        replace(source, channels={name: made for name, made in source.channels.items() if name != "energy"})
        for source in said.sources
    )
    return replace(window, telemetry=replace(said, sources=tuple(sources)).encode())


def test_a_gpu_is_in_all_runs_or_not_fitted(asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.wbr"
    elsewhere.write_bytes(record_run(99, windows=8, device=sha256(b"another GPU")).encode())
    status, document = asked("fit", *desk.runs, elsewhere, *PLACE, "--key", desk.key, "-o", tmp_path / "x")
    assert (status, document["code"]) == (ExitCode.INDETERMINATE, Code.RECORDING_EMPTY)


def test_the_next_number_keeps_other_gpus(asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path) -> None:
    device = sha256(b"another GPU")
    runs = write_runs(tmp_path, "two", [record_run(seed, windows=8, device=device) for seed in range(1, 13)])
    target = tmp_path / "both.baseline"
    status, document = asked("fit", *runs, "--merge", desk.baseline, "--days", 9, "--key", desk.key, "-o", target)
    assert (status, document["number"], document["kept"]) == (0, 2, 1)
    both = SignedBaselineSet.parse(target.read_bytes()).claimed
    assert {profile.device for profile in both.profiles} == {GPU, device}
    # Fitted again, a GPU's old profile goes.
    again = ("fit", *desk.runs, "--merge", target, "--days", 9, "--key", desk.key, "-o", tmp_path / "third")
    assert asked(*again)[1]["kept"] == 1


def test_a_drift_is_accepted_in_so_many_words_or_refused(
    asked: Callable[..., tuple[int, Any]], run: Run, desk: Desk, tmp_path: Path
) -> None:
    moved = write_runs(tmp_path, "moved", [record_run(seed, windows=8, extra_w=30) for seed in range(1, 13)])
    target = tmp_path / "x.baseline"
    arguments = ("fit", *moved, "--merge", desk.baseline, "--days", 9, "--key", desk.key, "-o", target)
    status, document = asked(*arguments)
    assert (status, document["code"]) == (ExitCode.DENIED, Code.BASELINE_DRIFT)
    assert "the power that the same work explains differs by" in document["message"]
    assert not target.exists()
    assert run(*arguments, "--accept-drift", "short")[0] == ExitCode.USAGE
    status, out, _ = run(*arguments, "--accept-drift", "another cold plate was mounted")
    assert status == 0
    assert "accepted    GPU " in out
    assert SignedBaselineSet.parse(target.read_bytes()).claimed.note == "accept_drift: another cold plate was mounted"


def test_another_engine_replaces_what_no_verifier_could_choose_between(
    asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path
) -> None:
    for number, (changes, kept) in enumerate([({"engine": "vllm 0.12"}, 0), ({"driver": "590.1"}, 1)]):
        scope = replace(SCOPE, **changes)  # type: ignore[arg-type]  # by name
        runs = write_runs(tmp_path, f"{number}", [record_run(seed, windows=8, scope=scope) for seed in range(1, 25, 2)])
        target = tmp_path / f"{number}.baseline"
        arguments = ("fit", *runs, "--merge", desk.baseline, "--days", 9, "--key", desk.key, "-o", target)
        assert asked(*arguments)[1]["kept"] == kept


def test_a_set_is_replaced_by_the_next_of_its_line_only(
    asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path
) -> None:
    target = tmp_path / "gate.baseline"
    first = Path(desk.baseline).read_bytes()
    target.write_bytes(first)

    def fitted(number: int, *, owner: str = OWNER, name: str = "gate", into: Path = target) -> tuple[int, Any]:
        line = ("--owner", owner, "--name", name, "--number", number, "--days", 9)
        return asked("fit", *desk.runs, *line, "--key", desk.key, "-o", into)

    status, document = fitted(1)
    assert (status, document["code"]) == (ExitCode.ENVIRONMENT, Code.FILE_UNWRITABLE)
    assert document["got"] == f"number 1 of {OWNER}, gate"
    assert "--number 2" in document["hint"]
    for owner, name in (("Acme", "gate"), (OWNER, "chat")):
        status, document = fitted(2, owner=owner, name=name)
        assert (status, document["code"]) == (ExitCode.ENVIRONMENT, Code.FILE_UNWRITABLE)
        assert document["hint"] == "name another file with -o"
    (recording := tmp_path / "run.wbr").write_bytes(Path(desk.runs[0]).read_bytes())
    assert fitted(2, into=recording)[1]["got"] == "something that is no baseline set"
    assert recording.read_bytes() == Path(desk.runs[0]).read_bytes()
    assert target.read_bytes() == first
    assert fitted(2)[0] == 0
    # What is merged is replaced: the number is one more without a word.
    arguments = ("fit", *desk.runs, "--merge", target, "--days", 9, "--key", desk.key, "-o", target)
    assert asked(*arguments)[1]["number"] == 3


def test_the_key_is_its_owners_where_anchors_are_given(run: Run, desk: Desk, tmp_path: Path) -> None:
    arguments = ("fit", *desk.runs, "--name", "gate", "--number", "1", "--days", "9", "--key", desk.key)
    status, _, err = run(*arguments, "--owner", "Acme", "--anchors", desk.anchors, "-o", tmp_path / "x")
    assert status == ExitCode.NOT_AUTHENTIC
    assert f"CHAIN_UNTRUSTED: the key is another owner's, at --owner, expected Acme, got {OWNER}" in err
    key, anchors = tmp_path / "s.pem", tmp_path / "s.json"
    assert run("key", "Stranger", "-o", key, "--anchors", anchors)[0] == 0
    status, _, err = run(*arguments, "--owner", OWNER, "--anchors", anchors, "-o", tmp_path / "x")
    assert status == ExitCode.NOT_AUTHENTIC
    assert "no anchor of purpose baseline-owner has this key" in err
    assert not (tmp_path / "x").exists()
    status, out, _ = run(*arguments, "--owner", OWNER, "--anchors", desk.anchors, "-o", tmp_path / "x")
    assert status == 0
    assert "  key         sha256 " in out
    assert "nobody checked" not in out
    _, out, _ = run(*arguments, "--owner", "Acme", "-o", tmp_path / "y")
    assert "(no --anchors: nobody checked that it is Acme's)" in out
    # Whoever has changed keys names both: the old one for what is merged, the new one for what is signed.
    changed = tmp_path / "changed.json"
    assert run("key", OWNER, "-o", tmp_path / "new.pem", "--anchors", changed)[0] == 0
    merging = ("fit", *desk.runs, "--merge", desk.baseline, "--days", "9", "--key", tmp_path / "new.pem")
    assert run(*merging, "--anchors", changed, "-o", tmp_path / "z")[0] == ExitCode.NOT_AUTHENTIC
    assert run(*merging, "--anchors", changed, "--anchors", desk.anchors, "-o", tmp_path / "z")[0] == 0


def test_nobody_continues_what_a_stranger_signed(run: Run, desk: Desk, tmp_path: Path) -> None:
    key, anchors = tmp_path / "s.pem", tmp_path / "s.json"
    assert run("key", "Stranger", "-o", key, "--anchors", anchors)[0] == 0
    status, _, err = run("fit", *desk.runs, "--merge", desk.baseline, "--days", 9, "--key", key, "-o", tmp_path / "x")
    assert status == ExitCode.NOT_AUTHENTIC
    assert "another key" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--owner", OWNER, "--name", "gate", "--days", "9"), "--owner, --name and --number are needed"),
        ((*PLACE[:6], "--not-after", "2020-01-01T00:00:00Z"), "--not-after is in the past"),
    ],
)
def test_arguments_that_do_not_go_together(
    run: Run, desk: Desk, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    status, _, err = run("fit", *desk.runs, *arguments, "--key", desk.key, "-o", tmp_path / "x")
    assert status == ExitCode.USAGE
    assert says in err


@pytest.mark.parametrize("data", [b"", b"no recording", bytes(100)])
def test_what_is_no_recording_is_named(
    asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "junk.wbr"
    path.write_bytes(data)
    status, document = asked("fit", *desk.runs, path, *PLACE, "--key", desk.key, "-o", tmp_path / "x")
    assert status == ExitCode.MALFORMED
    assert str(path) in document["where"]
    assert "baseline record" in document["hint"]


# -- show -------------------------------------------------------------------------------------------------------------


def test_unverified_comes_first_unless_anchors_verify(run: Run, desk: Desk) -> None:
    status, out, _ = run("show", desk.baseline)
    assert status == 0
    assert out.startswith("UNVERIFIED: no signature was checked")
    status, out, _ = run("show", desk.baseline, "--anchors", desk.anchors)
    assert status == 0
    assert out.startswith(f"VERIFIED: signed by {OWNER}")
    assert "no run was held out" in out


def test_what_counts_fits_a_screen_and_the_rest_is_asked_for(run: Run, desk: Desk) -> None:
    _, short, _ = run("show", desk.baseline)
    lines = short[short.index("GPU ") :].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines if line[2:3].strip()][1:6] == [
        "stack",
        "model",
        "sees",
        "together",
        "held",
    ]
    assert len(lines) <= 14
    assert "claims add up; not in it, 0.252 % of sessions that begin with a look at what earlier" in " ".join(
        short.split()
    )
    assert "threshold" not in short
    assert "--all" in short
    _, every, _ = run("show", desk.baseline, "--all")
    assert set(lines) < set(every.splitlines())
    assert " ".join(every.split()).count("it does not decide") == 1
    assert "times as far as a typical run strays" in " ".join(every.split())
    assert "--all" not in every


def test_an_altered_baseline_is_not_authentic(run: Run, desk: Desk, tmp_path: Path) -> None:
    data = bytearray((desk.directory / "gate.baseline").read_bytes())
    data[-1] ^= 1
    path = tmp_path / "altered"
    path.write_bytes(bytes(data))
    assert run("show", path, "--anchors", desk.anchors)[0] == ExitCode.NOT_AUTHENTIC
    assert run("show", path)[0] == 0
    assert run("compare", path, desk.runs[0], "--anchors", desk.anchors)[0] == ExitCode.NOT_AUTHENTIC


def test_an_expired_baseline_is_called_so(asked: Callable[..., tuple[int, Any]], run: Run, desk: Desk) -> None:
    at = ("--at", "2099-01-01T00:00:00Z")
    assert run("show", desk.baseline, *at)[1].startswith("UNVERIFIED, EXPIRED: ")
    status, out, _ = run("show", desk.baseline, *at, "--anchors", desk.anchors)
    assert out.startswith(f"VERIFIED, EXPIRED: signed by {OWNER}")
    # As of other sets: to show one decides nothing.
    assert status == 0
    out = run("show", desk.baseline, "--at", "2020-01-01T00:00:00Z", "--anchors", desk.anchors)[1]
    assert out.startswith("VERIFIED, NOT YET VALID: ")
    assert asked("show", desk.baseline, "--at", "2099-01-01T00:00:00Z")[1]["valid"] is False
    assert asked("show", desk.baseline)[1]["valid"] is True


@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_baseline_is_drawn_with_its_runs(run: Run, desk: Desk, tmp_path: Path, form: str) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"baseline.{form}"
    status, out, _ = run("show", desk.baseline, "--runs", *desk.runs, *desk.held_out, "--figure", target)
    assert status == 0
    assert f"figure      {target}" in out
    assert target.stat().st_size > 10_000


def test_figures_need_runs_a_form_and_matplotlib(
    run: Run, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("show", desk.baseline, "--figure", tmp_path / "x.svg")[0] == ExitCode.USAGE
    assert run("show", desk.baseline, "--runs", desk.runs[0])[0] == ExitCode.USAGE
    status, _, err = run("show", desk.baseline, "--runs", desk.runs[0], "--figure", tmp_path / "x.pdf")
    assert status == ExitCode.USAGE
    assert ".svg or .png" in err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run("show", desk.baseline, "--runs", desk.runs[0], "--figure", tmp_path / "x.svg")
    assert status == ExitCode.ENVIRONMENT
    assert "hint: install it: pip install 'weighbridge[figures]'" in err


def test_a_recording_is_no_baseline(asked: Callable[..., tuple[int, Any]], desk: Desk) -> None:
    status, document = asked("show", desk.runs[0])
    assert status == ExitCode.MALFORMED
    assert "baseline fit" in document["hint"]


# -- compare ----------------------------------------------------------------------------------------------------------


def test_a_genuine_run_is_consistent_and_no_more(run: Run, desk: Desk) -> None:
    status, out, _ = run("compare", desk.baseline, desk.held_out[0], "--anchors", desk.anchors)
    assert status == 0
    assert out.startswith("IN BASELINE: held-01.wbr")
    assert f"physical signature consistent with baseline gate, number 1, of {OWNER};" in " ".join(out.split())
    assert "or more would have been seen" in " ".join(out.split())
    assert "beyond 10^2.0 it is an alarm" in out
    assert "it says nothing of weights" in out
    assert max(map(len, out.splitlines())) <= 100


def test_hidden_work_names_unit_window_and_channel(asked: Callable[..., tuple[int, Any]], run: Run, desk: Desk) -> None:
    status, out, _ = run("compare", desk.baseline, desk.held_out[0], desk.hidden[0])
    assert status == ExitCode.DENIED
    assert out.startswith("UNVERIFIED: ")
    assert "OUT OF BASELINE: hidden-01.wbr" in out
    assert "channel power" in out
    assert "<< alarm behind this unit" in out
    _, document = asked("compare", desk.baseline, desk.held_out[0], desk.hidden[0])
    assert document["verdict"] == "out_of_baseline"
    assert [item["verdict"] for item in document["runs"]] == ["in_baseline", "out_of_baseline"]
    hidden = document["runs"][1]
    assert hidden["alarm_unit"] >= 4
    assert hidden["units"][5]["score"]["residual_mw"] > 30_000


@pytest.mark.parametrize("columns", [40, 80, 84, 92, 100, 200])
def test_what_is_compared_fits_the_terminal(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run("compare", desk.baseline, desk.hidden[0])[1]
    body = out[out.index("OUT OF BASELINE") : out.index("it says nothing")]
    assert max(map(len, body.splitlines())) <= min(100, max(80, columns))
    assert "out_of_baseline" in body
    assert "<< alarm behind this unit" in body
    # Bars go first, and then the seconds: what they show is said by other columns.
    assert ("█" in body[body.index("unit  ") :]) == (columns >= 92)
    assert ("from s" in body) == (columns >= 84)


def test_another_gpu_or_stack_has_no_baseline(
    asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.wbr"
    elsewhere.write_bytes(record_run(99, device=sha256(b"another GPU")).encode())
    (unsaid := tmp_path / "unsaid").mkdir()
    for path, why in (
        (str(elsewhere), "does not name this GPU"),
        (other(desk, tmp_path, driver="1"), "of driver"),
        (other(desk, unsaid, model=None), "says no manifest"),
    ):
        status, document = asked("compare", desk.baseline, path)
        assert (status, document["verdict"]) == (ExitCode.INDETERMINATE, "no_baseline")
        assert why in document["runs"][0]["why"]


def test_what_no_verifier_compares_is_told(run: Run, desk: Desk, tmp_path: Path) -> None:
    status, out, _ = run("compare", desk.baseline, other(desk, tmp_path, engine="vllm 2"))
    assert status == 0
    assert "other than in the baseline: engine vllm 2, not vllm 0.11.0" in out


def test_a_session_is_drawn(run: Run, desk: Desk, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "session.png"
    status, out, _ = run("compare", desk.baseline, desk.hidden[0], desk.held_out[0], "--figure", target)
    assert status == ExitCode.DENIED
    for number in (1, 2):
        assert f"wrote {tmp_path / f'session-{number}.png'}" in out
        assert (tmp_path / f"session-{number}.png").stat().st_size > 10_000


def test_runs_or_a_bundle_are_named(run: Run, desk: Desk) -> None:
    assert run("compare", desk.baseline)[0] == ExitCode.USAGE
    assert run("compare", desk.baseline, desk.runs[0], "--bundle", "session.wb")[0] == ExitCode.USAGE


# -- power ------------------------------------------------------------------------------------------------------------


def test_power_says_yes_no_and_cannot_say(run: Run, asked: Callable[..., tuple[int, Any]], desk: Desk) -> None:
    status, out, _ = run("power", "--a", *desk.runs, "--b", *desk.hidden)
    assert status == 0
    assert "YES: GPU " in out
    assert "4 of 4 runs of B: 100 % (95 %: 39.8 % to 100 %)" in out
    assert "for weights    nothing" in out
    assert "no intent" in out
    status, out, _ = run("power", "--a", *desk.runs[:6], "--b", *desk.runs[6:])
    assert status in {0, ExitCode.INDETERMINATE}
    assert "YES" not in out
    assert "A was recorded before B" in out
    status, out, _ = run("power", "--a", *desk.runs[:3], "--b", *desk.hidden[:2])
    assert status == ExitCode.INDETERMINATE
    assert "CANNOT SAY: 3 runs of A, 2 of B" in out
    assert "so few runs cannot tell" in out
    assert "time        0 s" not in out
    status, document = asked("power", "--a", *desk.runs[:3], "--b", *desk.hidden[:2])
    assert status == ExitCode.INDETERMINATE
    (device,) = document["devices"]
    assert (device["answer"], device["p"], device["runs"]) == ("cannot_say", None, {"a": 3, "b": 2})


def test_conditions_may_differ_in_what_is_asked_about_only(
    asked: Callable[..., tuple[int, Any]], desk: Desk, tmp_path: Path
) -> None:
    code = other(desk, tmp_path, workload="shutdown scenario")
    _, document = asked("power", "--a", *desk.runs[1:5], "--b", code)
    assert document["scope_b"]["workload"] == "shutdown scenario"
    status, document = asked("power", "--a", *desk.runs[1:5], "--b", other(desk, tmp_path, driver="1"))
    assert (status, document["code"]) == (ExitCode.DENIED, Code.BASELINE_SCOPE)


def test_emulated_runs_are_called_so_wherever_they_go(run: Run, desk: Desk, tmp_path: Path) -> None:
    made = [record_run(seed, windows=8, origin="emulated") for seed in range(50, 63)]
    runs = write_runs(tmp_path, "emulated", made)
    target = tmp_path / "e.baseline"
    _, out, _ = run("fit", *runs[:12], *PLACE, "--key", desk.key, "-o", target)
    assert "no rate of detection follows" in out
    for arguments in (("compare", target, runs[12]), ("power", "--a", *runs[:3], "--b", runs[12]), ("show", target)):
        assert "no rate of detection follows" in run(*arguments)[1]


# -- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["key", "trust", "record", "fit", "show", "compare", "power"])
def test_every_verb_explains_itself(run: Run, verb: str) -> None:
    status, out, _ = run(verb, "--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    if verb not in {"key", "trust"}:
        assert "examples:" in out
