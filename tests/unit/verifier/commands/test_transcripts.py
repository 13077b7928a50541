"""The verifier's command line as its users see it: command, standard output, standard error, exit code."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from corpus.arena import Arena
from corpus.bundle import believed, export
from support.forge import claim, seal
from support.options import changed
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.clock import moment
from weighbridge.verifier.collateral.describe import recognise
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.world import Engines, World
    from weighbridge.verifier.bundle import Bundle

COMMANDS: Final = (
    ("inspect", "gpu"),
    ("verify", "gpu"),
    ("verify", "bundle"),
    ("verify", "token"),
    ("init",),
    ("admit",),
    ("serve",),
    ("sessions",),
    ("export",),
    ("failures", "list"),
    ("failures", "clear"),
    ("clear",),
    ("model", "key"),
    ("model", "trust"),
    ("model", "sign"),
    ("model", "revoke"),
    ("model", "show"),
    ("model", "diff"),
    *(("baseline", verb) for verb in ("key", "trust", "record", "fit", "show", "compare", "power")),
    ("spot", "import"),
    ("spot", "list"),
    ("anchors", "list"),
    ("anchors", "show"),
    ("anchors", "import"),
    ("anchors", "check"),
    ("ledger", "prove"),
    ("ledger", "verify"),
    ("ledger", "audit"),
)


@dataclass(frozen=True)
class Done:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command in this process."""

    def command(*arguments: str | Path) -> Done:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return command


@dataclass(frozen=True)
class Site:
    """A verifier's directory with what its operator and its relying parties hold, made by a world that is over."""

    state: Path
    files: Path
    world: World
    bundles: dict[str, Bundle]
    failed: bytes
    at: datetime

    def file(self, name: str) -> Path:
        return self.files / name


@pytest.fixture(scope="module")
def site(quick_dir: Path, engines: Engines) -> Iterator[Site]:
    """Three sessions: one good and closed, one with nothing but a held window, one that a broken chain failed."""
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        world = arena.settled(2)
        answer = world.window()
        assert answer.token is not None
        world.verifier.close(world.host.session, peer=world.host.peer)
        good, at = export(world), world.clock.at
        world.open_session()
        late = world.host.seal()
        world.clock.advance(10)
        world.deliver(late)
        held = export(world)
        world.open_session()
        world.clock.advance(1)
        world.host.wall_ns += 20_000_000_000
        assert world.send(seal(world.host, claim(prev=bytes(32))).evidence).verdict.outcome == "denied"
        bundles = {"good": good, "held": held, "failed": export(world)}
        files = Path(directory) / "files"
        files.mkdir()
        _write_files(files, world, bundles, answer.token)
        # The directory as `weighbridge init` makes it, but for the channel's keys.
        (world.directory / "origin").write_text("ledger.example/test")
        world.close()
        yield Site(world.directory, files, world, bundles, world.host.session, at)


def _write_files(files: Path, world: World, bundles: dict[str, Bundle], token: str) -> None:
    for name, bundle in bundles.items():
        (files / f"{name}.wb").write_bytes(bundle.encode())
    good = bundles["good"]
    first, second, *rest = good.entries
    record = Record.parse(second.record)
    edited = replace(second, record=replace(record, received_ns=record.received_ns + 1).encode())
    (files / "edited.wb").write_bytes(replace(good, entries=(first, edited, *rest)).encode())
    (files / "cut.wb").write_bytes(good.encode()[:-1])
    (files / "anchors.json").write_bytes(believed(world).encode())
    (files / "reference.json").write_bytes(world.reference.to_json())
    (files / "manifest.json").write_bytes(world.host.model.to_json())
    (files / "token.jwt").write_text(token + "\n")
    (files / "other.jwt").write_text(token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1])


# -- help, usage -------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_every_exit(run: Callable[..., Done]) -> None:
    done = run("--help")
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    assert all(command[0] in done.out for command in COMMANDS)
    assert all(f"{status.value} " in done.out for status in ExitCode)


@pytest.mark.parametrize("command", COMMANDS, ids="-".join)
def test_every_command_has_help(run: Callable[..., Done], command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    assert done.out.startswith(f"usage: weighbridge {' '.join(command)}")
    assert "--json" in done.out


def test_version(run: Callable[..., Done]) -> None:
    done = run("--version")
    assert (done.status, done.out.split()[0]) == (0, "weighbridge")


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("another",),
        ("verify",),
        ("verify", "another"),
        ("verify", "bundle"),
        ("verify", "bundle", "a", "b"),
        ("verify", "bundle", "a", "--another"),
        ("verify", "bundle", "a", "--polic", "production"),
        ("verify", "token", "a"),
        ("verify", "token", "a", "--audience", "b", "--at", "yesterday"),
        ("verify", "token", "a", "--audience", "b", "--accept", "contraindicated"),
        ("init", "a"),
        ("init", "a", "--origin", "with space"),
        ("init", "a", "--origin", "a", "--host", "not a host"),
        ("export", "a", "zz", "-o", "b", "--policy", "production", "--reference", "c"),
        ("clear", "a", "tpm", "00" * 32, "--reason", "b"),
        ("clear", "a", "ak", "00" * 31, "--reason", "b"),
        ("clear", "a", "ak", "00" * 32, "--reason", " "),
        ("clear", "a", "ak", "00" * 32),
        ("serve", "a", "--requirements", "b", "--policy", "c", "--reference", "d", "--listen", "nowhere"),
    ],
    ids=" ".join,
)
def test_mistakes_in_a_command_touch_nothing(run: Callable[..., Done], command: tuple[str, ...]) -> None:
    done = run(*command)
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    first, hint = done.err.splitlines()
    assert first.startswith("weighbridge: error: ")
    assert hint.startswith("hint: `weighbridge")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("another", "--json"), "invalid choice: 'another'"),
        (("verify", "bundle", "--json"), "required: FILE"),
        (("verify", "bundle", "a", "--models", "b", "--json"), "--models and --hosts need --reference"),
        (("inspect", "gpu", "-", "--chain", "-", "--json"), "cannot both be standard input"),
        (("verify", "log", "a", "--json"), "at least one value"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_whoever_reads_json_gets_a_document_of_wrong_arguments(
    run: Callable[..., Done], command: tuple[str, ...], text: str
) -> None:
    done = run(*command)
    assert done.status == done.document["exit"] == ExitCode.USAGE
    assert (done.document["schema"], done.document["code"]) == ("weighbridge/error/v1", None)
    assert text in done.document["message"]
    assert done.err == f"weighbridge: error: {done.document['message']}\nhint: {done.document['hint']}\n"


# -- verify bundle -----------------------------------------------------------------------------------------------------


def verified(site: Site, name: str, *more: str) -> list[str | Path]:
    return ["verify", "bundle", site.file(name), "--anchors", site.file("anchors.json"), *more]


def test_a_good_bundle_is_admitted(run: Callable[..., Done], site: Site) -> None:
    done = run(*verified(site, "good.wb", "--closed"))
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    first, *rest = done.out.splitlines()
    session = site.bundles["good"]
    assert first.startswith("ADMITTED: session ")
    # On fakes no answer goes without saying so.
    assert first.endswith("under policy recorded (insecure-emulated hardware, 8 checks left out)")
    assert max(map(len, rest)) <= 102
    assert Record.parse(session.entries[0].record).session.hex() in first
    assert any("3: 3 affirmed, 0 held, 0 denied" in line for line in rest)
    assert any(line.startswith("  attester   unproven: boot-log, boot-chain, ") for line in rest)
    assert sum(line.startswith("  not proven ") for line in rest) >= 4
    assert sum(line.startswith("  rests on   the verifier's word") for line in rest) == 1
    tree = rest[rest.index("  checks") :]
    assert [line[5:].split()[0] for line in tree if line.startswith(("  ├─ ", "  └─ "))] == [
        "bundle",
        "ledger",
        "enrolment",
        "windows",
    ]
    assert any("as recorded" in line and "passed: 3 of 3" in line for line in tree)
    # What it gives away is said, to whoever might hand it on.
    assert [line.split()[1] for line in rest if line.startswith("  identifies ")].count("device") == 2


def test_a_good_bundle_as_json(run: Callable[..., Done], site: Site) -> None:
    done = run(*verified(site, "good.wb", "--json"))
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    document = done.document
    assert document["schema"] == "weighbridge/verify-bundle/v2"
    assert (document["outcome"], document["recorded_policy"], len(document["windows"])) == ("admitted", True, 3)
    assert strict.json_decode(done.out.encode(), what="it") == document


@pytest.mark.parametrize(
    ("name", "more", "status", "code"),
    [
        ("cut.wb", (), ExitCode.MALFORMED, Code.NOT_CBOR),
        ("token.jwt", (), ExitCode.MALFORMED, Code.NOT_DETERMINISTIC),
        ("edited.wb", (), ExitCode.LEDGER_INCONSISTENT, Code.LEDGER_PROOF),
        ("absent.wb", (), ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE),
        ("", (), ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE),
        ("good.wb", ("--policy", "absent.rego"), ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE),
        ("good.wb", ("--reference", "absent.json"), ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE),
        ("good.wb", ("--anchors", "absent.json"), ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_verified(
    run: Callable[..., Done],
    site: Site,
    name: str,
    more: tuple[str, ...],
    status: ExitCode,
    code: Code,
    *,
    as_json: bool,
) -> None:
    done = run(*verified(site, name, *more, *(["--json"] if as_json else [])))
    assert done.status == status
    assert done.err.splitlines()[0].startswith(f"weighbridge: error: {code.value}: ")
    if not as_json:
        # Once a bundle was come to, the checks say how far.
        assert done.out.startswith(f"NOT VERIFIED: {code.value}\n" if name == "edited.wb" else "")
        assert bool(done.out) == (name == "edited.wb")
        return
    document = done.document
    assert document["schema"] == "weighbridge/error/v1"
    assert (document["exit"], document["code"]) == (status, code.value)
    assert set(document) == {"schema", "exit", "code", "message", "where", "expected", "got", "clause", "hint"}


def test_collateral_of_ones_own(run: Callable[..., Done], site: Site, tmp_path: Path) -> None:
    """The devices' digests are reference values here, so that manifests of other devices change nothing."""
    store = CollateralStore.create(tmp_path / "store")
    for place in (tmp_path / "none", tmp_path / "store"):
        done = run(*verified(site, "good.wb", "--collateral", str(place)))
        assert (done.status, done.out) == (ExitCode.ENVIRONMENT, "")
        assert done.err.startswith(f"weighbridge: error: {Code.FILE_UNREADABLE.value}: ")
        assert "hint: " in done.err
    store.put(piece for rim in EmulatedGpus.create(1).rims() for piece in recognise(rim, where="here"))
    done = run(*verified(site, "good.wb", "--collateral", str(tmp_path / "store"), "--json"))
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    assert done.document["outcome"] == "admitted"


def test_with_the_shipped_anchors_nobody_is_trusted(run: Callable[..., Done], site: Site) -> None:
    done = run("verify", "bundle", site.file("good.wb"))
    assert done.status == ExitCode.NOT_AUTHENTIC
    assert done.out.startswith("NOT VERIFIED: CHAIN_UNTRUSTED\n  checks\n")
    assert "─ ledger          failed: CHAIN_UNTRUSTED" in done.out
    assert "─ windows         not checked: not reached\n" in done.out
    error, hint = done.err.splitlines()
    assert error.startswith("weighbridge: error: CHAIN_UNTRUSTED: the ledger is not trusted")
    assert hint.startswith("hint: ")
    assert "--anchors" in hint


@pytest.mark.parametrize(
    ("name", "more", "status", "word"),
    [
        ("good.wb", ("--policy", "production"), ExitCode.DENIED, "DENIED"),
        ("failed.wb", (), ExitCode.DENIED, "DENIED"),
        ("held.wb", (), ExitCode.INDETERMINATE, "INDETERMINATE"),
    ],
)
def test_what_is_verified_and_not_admitted(
    run: Callable[..., Done], site: Site, name: str, more: tuple[str, ...], status: ExitCode, word: str
) -> None:
    done = run(*verified(site, name, *more))
    assert (done.status, done.err) == (status, "")
    assert done.out.startswith(f"{word}: session ")
    document = run(*verified(site, name, *more, "--json")).document
    assert document["outcome"] == word.lower()
    codes = {denial["code"] for window in document["windows"] for denial in window["denials"]}
    expected = {"good.wb": "PLATFORM_EMULATED", "failed.wb": "WINDOW_PREV", "held.wb": "WINDOW_HELD"}
    assert expected[name] in codes


def test_what_is_no_bundle_or_no_document_is_named(run: Callable[..., Done], site: Site, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"odd")
    done = run("verify", "bundle", tmp_path / "odd", "--anchors", site.file("anchors.json"))
    assert (done.status, done.out) == (ExitCode.MALFORMED, "")
    assert "not a proof bundle: " in done.err
    assert f"at {tmp_path}/odd: bundle" in done.err
    assert "hint: name a whole file that `weighbridge export` wrote" in done.err
    for option, what in (("--anchors", "an anchors document"), ("--reference", "reference values")):
        done = run(*verified(site, "good.wb", option, str(tmp_path / "odd")))
        assert (done.status, done.out) == (ExitCode.MALFORMED, "")
        assert f"not {what}: " in done.err
        assert f"at {tmp_path}/odd: " in done.err
    done = run("verify", "bundle", tmp_path)
    assert (done.status, done.out) == (ExitCode.ENVIRONMENT, "")
    assert "hint: name a file in it" in done.err


def test_a_bundle_from_standard_input(run: Callable[..., Done], site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with site.file("good.wb").open("rb") as file:
        monkeypatch.setattr("sys.stdin", type("Input", (), {"buffer": file})())
        done = run("verify", "bundle", "-", "--anchors", site.file("anchors.json"))
    assert done.status == ExitCode.AFFIRMED


def test_a_defect_of_ours_is_neither_an_admission_nor_a_traceback(
    run: Callable[..., Done], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("weighbridge.verifier.commands.bundle.verify", broken)
    done = run(*verified(site, "good.wb"))
    assert (done.status, done.out) == (ExitCode.INTERNAL, "")
    assert done.err.splitlines()[0] == "weighbridge: internal error: RuntimeError: a defect"
    assert "Traceback" not in done.err
    assert "Traceback" in run("--debug", *verified(site, "good.wb")).err
    assert run(*verified(site, "good.wb", "--json")).document["exit"] == ExitCode.INTERNAL


# -- verify token ------------------------------------------------------------------------------------------------------


def token(site: Site, name: str = "token.jwt", *more: str, after: float = 0) -> list[str | Path]:
    at = strict.time_encode(site.at + timedelta(seconds=after))
    anchors: list[str | Path] = ["--anchors", site.file("anchors.json")]
    command: list[str | Path] = ["verify", "token", site.file(name), "--audience", "relying-party", "--at", at]
    return [*changed(command, *more), *anchors]


def test_a_token_of_an_emulated_platform_is_a_warning(run: Callable[..., Done], site: Site) -> None:
    done = run(*token(site))
    assert (done.status, done.err) == (ExitCode.DENIED, "")
    refused, *rest, hint = done.out.splitlines()
    assert refused == "REFUSED: authentic, but its status is warning; accepted: affirming"
    assert hint == "hint: --accept warning, if a warning is enough for you"
    accepted = run(*token(site, "token.jwt", "--accept", "warning"))
    assert (accepted.status, accepted.out.splitlines()) == (ExitCode.AFFIRMED, rest)
    assert rest[0].startswith("WARNING: session ")
    assert site.world.host.cnf.hex() in done.out


def test_a_token_as_json(run: Callable[..., Done], site: Site) -> None:
    document = run(*token(site, "token.jwt", "--json")).document
    assert (document["schema"], document["outcome"]) == ("weighbridge/verify-token/v1", "denied")
    assert document["claims"]["aud"] == "relying-party"
    assert run(*token(site, "token.jwt", "--accept", "warning", "--json")).document["outcome"] == "accepted"


@pytest.mark.parametrize(
    ("name", "more", "after", "status", "code"),
    [
        ("token.jwt", (), 4, ExitCode.NOT_AUTHENTIC, Code.TOKEN_EXPIRED),
        ("token.jwt", (), -60, ExitCode.NOT_AUTHENTIC, Code.TOKEN_NOT_YET_VALID),
        ("token.jwt", ("--audience", "another"), 0, ExitCode.NOT_AUTHENTIC, Code.TOKEN_AUDIENCE),
        ("other.jwt", (), 0, ExitCode.NOT_AUTHENTIC, Code.TOKEN_SIGNATURE),
        ("good.wb", (), 0, ExitCode.MALFORMED, Code.TOKEN_MALFORMED),
        ("reference.json", (), 0, ExitCode.MALFORMED, Code.TOKEN_MALFORMED),
        ("absent.jwt", (), 0, ExitCode.ENVIRONMENT, Code.FILE_UNREADABLE),
    ],
)
def test_what_is_no_good_token(
    run: Callable[..., Done],
    site: Site,
    name: str,
    more: tuple[str, ...],
    after: float,
    status: ExitCode,
    code: Code,
) -> None:
    """A29, A31, A34"""
    done = run(*token(site, name, *more, after=after))
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"weighbridge: error: {code.value}: ")
    assert run(*token(site, name, *more, "--json", after=after)).document["code"] == code.value


def test_a_token_of_a_verifier_that_nobody_named(run: Callable[..., Done], site: Site) -> None:
    done = run("verify", "token", site.file("token.jwt"), "--audience", "relying-party")
    assert done.status == ExitCode.NOT_AUTHENTIC
    assert "CHAIN_UNTRUSTED" in done.err
    assert "hint: name its anchors: --anchors FILE" in done.err


def test_a_token_that_is_not_text(run: Callable[..., Done], site: Site, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    done = run("verify", "token", tmp_path / "binary", "--audience", "a", "--anchors", site.file("anchors.json"))
    assert (done.status, done.err.split(":")[2]) == (ExitCode.MALFORMED, " TOKEN_MALFORMED")


# -- operating ---------------------------------------------------------------------------------------------------------


def judging(site: Site) -> list[str | Path]:
    manifest, reference = site.file("manifest.json"), site.file("reference.json")
    return ["--policy", "insecure_development", "--reference", reference, "--manifest", manifest]


def test_sessions_are_listed(run: Callable[..., Done], site: Site) -> None:
    done = run("sessions", site.state)
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    words = [line.split() for line in done.out.splitlines()]
    assert [[*row[1:3], *row[-2:]] for row in words] == [
        ["closed", "3", "tenant-a", "-"],
        ["interrupted", "1", "tenant-a", "-"],
        ["failed", "1", "tenant-a", "WINDOW_PREV"],
    ]
    document = run("sessions", site.state, "--json").document
    assert [(row["state"], row["code"]) for row in document["sessions"]] == [
        ("closed", None),
        ("interrupted", None),
        ("failed", "WINDOW_PREV"),
    ]
    assert (document["counts"], document["left_out"]) == ({"closed": 1, "failed": 1, "interrupted": 1}, 0)
    # As many windows as in its bundle, the last of them with the one that failed it; when that was received.
    for row, bundle in zip(document["sessions"], site.bundles.values(), strict=True):
        records = [record for entry in bundle.entries if (record := Record.parse(entry.record)).kind == "window"]
        assert row["windows"] == len(records)
        assert row["last_window_at"] == strict.time_encode(moment(records[-1].received_ns))
        assert row["opened_at"] <= row["last_window_at"] <= row["ended_at"]


def test_sessions_are_listed_by_what_they_are(run: Callable[..., Done], site: Site) -> None:
    def listed(*arguments: str) -> list[str]:
        return [row["state"] for row in run("sessions", site.state, "--json", *arguments).document["sessions"]]

    assert listed("--state", "closed", "--state", "failed") == ["closed", "failed"]
    assert listed("--code", "WINDOW_PREV") == ["failed"]
    assert listed("--code", "SESSION_STATE") == []
    assert listed("--tenant", "somebody-else") == []
    # The last ones; how many others there are is said.
    assert listed("--limit", "2") == ["interrupted", "failed"]
    lines = run("sessions", site.state, "--limit", "1").out.splitlines()
    assert lines[1:] == ["… and 2 earlier ones: --limit", "1 closed, 1 failed, 1 interrupted"]


def test_an_export_is_the_bundle(run: Callable[..., Done], site: Site, tmp_path: Path) -> None:
    session = Record.parse(site.bundles["good"].entries[0].record).session.hex()
    target = tmp_path / "session.wb"
    done = run("export", site.state, session, "-o", target, *judging(site))
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    first, *given_away = done.out.splitlines()
    assert first == f"wrote {target}: full, 3 windows, {target.stat().st_size} bytes"
    assert all(line.startswith("  identifies ") for line in given_away)
    assert [line.split()[1] for line in given_away] == ["device", "device", "attestation", "channel", "endorsement"]
    verifying = run("verify", "bundle", target, "--anchors", site.file("anchors.json"))
    assert verifying.out.startswith("ADMITTED")


def test_an_export_of_a_failed_session_says_so(run: Callable[..., Done], site: Site, tmp_path: Path) -> None:
    target = tmp_path / "session.wb"
    assert run("export", site.state, site.failed.hex(), "-o", target, *judging(site), "--json").document["windows"] == 1
    done = run("verify", "bundle", target, "--anchors", site.file("anchors.json"))
    assert done.status == ExitCode.DENIED
    assert "window 0: WINDOW_PREV" in done.out


def test_what_cannot_be_exported(run: Callable[..., Done], site: Site, tmp_path: Path) -> None:
    unknown = run("export", site.state, "00" * 16, "-o", tmp_path / "a.wb", *judging(site))
    assert (unknown.status, unknown.err.split(":")[2]) == (ExitCode.INDETERMINATE, " SESSION_UNKNOWN")
    nowhere = run("export", site.state, site.failed.hex(), "-o", tmp_path / "no" / "a.wb", *judging(site))
    assert (nowhere.status, nowhere.err.split(":")[2]) == (ExitCode.ENVIRONMENT, " FILE_UNWRITABLE")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["sessions", "export", "clear", "serve"])
def test_there_is_no_verifier_here(run: Callable[..., Done], site: Site, tmp_path: Path, command: str) -> None:
    more: dict[str, list[str | Path]] = {
        "sessions": [],
        "export": ["00" * 16, "-o", tmp_path / "a.wb", *judging(site)],
        "clear": ["ak", "00" * 32, "--reason", "a test"],
        "serve": ["--requirements", site.file("requirements.json"), *judging(site)],
    }
    (site.file("requirements.json")).write_bytes(site.world.wanted.encode())
    done = run(command, tmp_path, *more[command])
    assert (done.status, done.out) == (ExitCode.ENVIRONMENT, "")
    error, hint = done.err.splitlines()[-2:]
    assert error.startswith("weighbridge: error: FILE_UNREADABLE: no verifier's state here")
    made = "name a directory that `weighbridge init` made"
    assert hint == f"hint: {made}, or make one: weighbridge init STATE --origin NAME"
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_cleared_once(run: Callable[..., Done], site: Site) -> None:
    assert site.world.host.terms is not None
    for gpu in site.world.host.terms.terms.gpus:
        done = run("clear", site.state, "gpu", gpu.hex(), "--reason", "exchanged the cable")
        assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
        assert done.out.startswith(f"cleared WINDOW_PREV of gpu {gpu.hex()}; recorded at ledger index ")
        again = run("clear", site.state, "gpu", gpu.hex(), "--reason", "once more", "--json")
        assert again.status == ExitCode.INDETERMINATE
        assert again.document["code"] == "SESSION_UNKNOWN"


def test_a_new_verifier_and_its_first_attester(run: Callable[..., Done], tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run("init", state, "--origin", "ledger.example/new", "--host", "verifier.example")
    assert (done.status, done.err) == (ExitCode.AFFIRMED, "")
    assert done.out.startswith(f"made a verifier in {state}\n")
    assert run("sessions", state).out == "no sessions\n"
    assert state.stat().st_mode & 0o777 == 0o700

    again = run("init", state, "--origin", "ledger.example/new", "--json")
    assert (again.status, again.document["code"]) == (ExitCode.ENVIRONMENT, "FILE_UNWRITABLE")

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a host")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    (tmp_path / "request.pem").write_bytes(request.public_bytes(Encoding.PEM))
    admitted = run("admit", state, tmp_path / "request.pem", "-o", tmp_path / "peer.pem", "--json")
    assert admitted.status == ExitCode.AFFIRMED
    certificate = x509.load_pem_x509_certificate((tmp_path / "peer.pem").read_bytes())
    assert certificate.public_key() == key.public_key()
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=800)

    (tmp_path / "junk.pem").write_bytes(b"junk")
    refused = run("admit", state, tmp_path / "junk.pem", "-o", tmp_path / "never.pem")
    assert (refused.status, refused.err.split(":")[2]) == (ExitCode.MALFORMED, " CERT_MALFORMED")
    assert not (tmp_path / "never.pem").exists()
    elsewhere = run("admit", tmp_path, tmp_path / "request.pem", "-o", tmp_path / "never.pem")
    assert (elsewhere.status, elsewhere.err.split(":")[2]) == (ExitCode.ENVIRONMENT, " FILE_UNREADABLE")
