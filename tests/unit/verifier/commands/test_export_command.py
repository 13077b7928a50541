"""``export`` in each of its kinds, and what ``verify bundle`` says of the files that it writes."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from corpus.arena import Arena
from corpus.bundle import believed
from support.world import NOON
from weighbridge.proto import merkle, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import ExitCode
from weighbridge.proto.merkle import leaf_hash
from weighbridge.proto.workload import WorkSummary, commit
from weighbridge.verifier.cli import main
from weighbridge.verifier.database import SqliteAddress
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import Engines

SALTS: Final = [sha256(b"salt %d" % number) for number in range(3)]
COMMITMENTS: Final = [commit(salt, b"request", b"response") for salt in SALTS]


@dataclass(frozen=True)
class Site:
    """A verifier's directory with a session of four windows that is still running, and what others hold of it."""

    state: Path
    anchors: Path
    session: str
    gpus: tuple[bytes, ...]


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


class Line:
    """Commands about the one session."""

    def __init__(self, site: Site, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.site, self.file, self._capsys = site, files / "session.wb", capsys

    def export(self, *more: object, session: str | None = None) -> Said:
        named = session or self.site.session
        return self._run("export", self.site.state, named, "-o", self.file, *more)

    def verify(self, *more: object) -> Said:
        return self._run("verify", "bundle", self.file, "--anchors", self.site.anchors, *more)

    def _run(self, *arguments: object) -> Said:
        status = main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return Said(status, out, err)


@pytest.fixture(scope="module")
def site(quick_dir: Path, engines: Engines) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(dir=quick_dir) as directory:
        arena = Arena(Path(directory), engines)
        world = arena.world()
        root = merkle.root([leaf_hash(commitment) for commitment in COMMITMENTS])
        world.host.work = WorkSummary(root=root, requests=3, tokens_in=64, tokens_out=0, batch_max=1)
        world.open_session()
        for _ in range(4):
            assert world.window().verdict.opens
        (world.directory / "origin").write_text("ledger.example/test")
        anchors = Path(directory) / "anchors.json"
        anchors.write_bytes(believed(world).encode())
        world.close()
        yield Site(world.directory, anchors, world.host.session.hex(), world.host.gpus.identities())


@pytest.fixture
def line(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(site, tmp_path, capsys)


def test_a_session_whose_windows_left_the_store_is_exported_as_before(line: Line, tmp_path: Path) -> None:
    state, session = tmp_path / "state", bytes.fromhex(line.site.session)
    assert line.export().status == ExitCode.AFFIRMED
    before = line.file.read_bytes()
    shutil.copytree(line.site.state, state)
    with closing(Store.open(SqliteAddress(state / "sessions.sqlite"))) as store, store.transaction() as tx:
        tx.set_state(session, SessionState.CLOSED, at_ns=0)
    said = line._run("store", "prune", state, "--ended-before", "now", "--json").document
    assert (said["windows"], said["challenges"], said["sessions"]) == (3, 4, 1)
    assert line._run("export", state, line.site.session, "-o", line.file).status == ExitCode.AFFIRMED
    assert line.file.read_bytes() == before
    part = line._run("export", state, line.site.session, "-o", line.file, "--windows", "1..2", "--json").document
    assert (part["windows"], part["withheld"]) == (2, 2)


def test_a_part_is_judged_as_far_as_it_goes(line: Line) -> None:
    done = line.export("--windows", "1..2", "--json")
    assert (done.status, done.err) == (0, "")
    document = done.document
    assert (document["kind"], document["windows"], document["withheld"]) == ("partial", 2, 2)
    assert len(document["identifiers"]) == 5
    said = line.verify()
    assert (said.status, said.err) == (ExitCode.INDETERMINATE, "")
    assert said.out.startswith("EVIDENCE WITHHELD: session ")
    assert "  withheld   2 judgements: nothing is known of them\n" in said.out
    assert "shown alone     passed: 2 windows behind withheld ones: header, quote, samples, 4 GPU reports\n" in said.out
    assert said.out.count("not checked: none judged again: windows 1 to 2 stand behind withheld ones\n") == 7
    assert "evidence withheld withheld: 2 judgements" in said.out
    assert "  windows    2 shown, 0 judged again: 0 affirmed" in said.out
    assert "─ windows         passed: 2 shown, 0 judged again\n" in said.out
    assert "verdicts        not checked: not judged again: windows 1 to 2 stand behind withheld ones\n" in said.out
    assert "as recorded     not checked: nothing to compare\n" in said.out
    document = line.verify("--json").document
    assert (document["schema"], document["kind"]) == ("weighbridge/verify-bundle/v2", "partial")
    assert [(window["seq"], window["judged"]) for window in document["windows"]] == [(1, "recorded"), (2, "recorded")]
    told = line.verify("--records-only")
    assert (told.status, told.err) == (ExitCode.INDETERMINATE, "")
    assert told.out.startswith("EVIDENCE WITHHELD: session ")
    assert "  not told   2 judgements: any of them may be a denial\n" in told.out
    assert "of which 2 are told: 2 affirmed" in told.out


def test_a_closing_can_be_demanded(line: Line) -> None:
    assert line.export().status == 0
    for more in ((), ("--records-only",)):
        said = line.verify(*more)
        assert said.status == ExitCode.AFFIRMED
        first, *rest = said.out.splitlines()
        assert first.endswith(
            " (insecure-emulated hardware, 8 checks left out), so far: the session was not closed in it"
        )
        assert "whoever gave you the file that no later window was left out" in " ".join(said.out.split())
        assert "  platform   insecure-emulated: ek-credential under " in said.out
        assert sum(line.startswith("  attester   unproven: boot-log, ") for line in rest) == 1
        assert sum(line.startswith("  unchecked  ") for line in rest) == 8
        demanded = line.verify("--closed", *more)
        assert demanded.status == ExitCode.INDETERMINATE
        assert "BUNDLE_UNCLOSED" in demanded.err


def test_one_window_from_the_beginning_is_judged_again(line: Line) -> None:
    done = line.export("--windows", "0")
    assert (done.status, ": partial, 1 window, 3 judgements withheld, " in done.out) == (0, True)
    assert [window["judged"] for window in line.verify("--json").document["windows"]] == ["again"]


@pytest.mark.parametrize("text", ["4", "3..50", "9..12", "2..1"])
def test_windows_that_are_not_there(line: Line, text: str) -> None:
    done = line.export("--windows", text)
    assert done.status == ExitCode.USAGE
    assert "--windows: the session has 4 windows" in done.err
    assert not line.file.exists()


@pytest.mark.parametrize("text", ["", "..", "1..", "-1", "1...2", "a"])
def test_what_is_no_range(line: Line, text: str) -> None:
    assert line.export(f"--windows={text}").status == ExitCode.USAGE


def test_a_redacted_bundle_is_told_and_not_judged(line: Line, tmp_path: Path) -> None:
    salt = tmp_path / "salt"
    salt.write_text(sha256(b"salt").hex() + "\n")
    done = line.export("--redact", salt)
    assert done.out == f"wrote {line.file}: redacted, 4 verdicts told, no evidence, {line.file.stat().st_size} bytes\n"
    judged = line.verify()
    assert judged.status == ExitCode.INDETERMINATE
    assert judged.out.startswith("EVIDENCE WITHHELD: BUNDLE_WITHHELD\n")
    assert "─ ledger          passed: " in judged.out
    assert "─ enrolment       withheld: the bundle is redacted: its evidence is withheld (enrolment)\n" in judged.out
    assert "─ windows         not checked: not reached\n" in judged.out
    assert judged.err.startswith("weighbridge: error: BUNDLE_WITHHELD: the bundle is redacted")
    assert "--records-only" in judged.err
    document = line.verify("--json").document
    assert (document["schema"], document["code"]) == ("weighbridge/error/v1", "BUNDLE_WITHHELD")
    told = line.verify("--records-only")
    assert told.status == 0
    assert "devices    go by pseudonyms under the tenant's salt" in told.out
    assert told.out.startswith("RECORDED AS ADMITTED: session ")
    assert " (insecure-emulated hardware, 8 checks left out)" in told.out.splitlines()[0]
    # Of each check it has the name, of the code the word, of the platform no anchor.
    for said in (
        "  unchecked  attester_code\n",
        "  attester   unproven\n",
        "  platform   insecure-emulated: ek-credential\n",
    ):
        assert said in told.out
    document = line.verify("--records-only", "--json").document
    assert (document["kind"], document["outcome"]) == ("redacted", "recorded as admitted")
    text = json.dumps(document)
    assert not [gpu for gpu in line.site.gpus if gpu.hex() in text]


def test_a_salt_that_is_named_itself_is_not_repeated(line: Line) -> None:
    salt = sha256(b"salt").hex()
    done = line.export("--redact", salt)
    assert (done.status, salt in done.err + done.out) == (ExitCode.USAGE, False)
    assert "the file in which the salt is" in done.err


def test_what_does_not_fit_together(line: Line, tmp_path: Path) -> None:
    (tmp_path / "salt").write_text(sha256(b"salt").hex())
    done = line.export("--redact", tmp_path / "salt", "--windows", "1")
    assert (done.status, line.file.exists()) == (ExitCode.USAGE, False)
    assert "no --windows" in done.err
    assert line.export().status == 0
    for more in (("--policy", "production"), ("--engine", "opa"), ("--collateral", tmp_path), ("--reference", "x")):
        said = line.verify("--records-only", *more)
        assert said.status == ExitCode.USAGE
        assert f"nothing is judged again, so it takes no {more[0]}\n" in said.err


@pytest.mark.parametrize(
    "content",
    [b"", b"00", b"00" * 32, b"0011" * 16, sha256(b"salt").hex().encode() + b"\n\n", b"\xff" * 64, b"zz" * 32],
)
def test_what_is_no_salt(line: Line, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "salt").write_bytes(content)
    done = line.export("--redact", tmp_path / "salt")
    assert done.status == ExitCode.MALFORMED
    assert "openssl rand -hex 32" in done.err or "TOO_LARGE" in done.err


def test_a_request_is_shown(line: Line, tmp_path: Path) -> None:
    listed = tmp_path / "requests.json"
    shown: strict.JsonObject = {
        "index": 1,
        "salt": SALTS[1].hex(),
        "request": sha256(b"request").hex(),
        "response": sha256(b"response").hex(),
    }
    window: strict.JsonObject = {"seq": 2, "commitments": [item.hex() for item in COMMITMENTS], "shown": [shown]}
    listed.write_bytes(strict.json_encode({"schema": "weighbridge/requests/v1", "windows": [window]}))
    assert line.export("--request", listed, "--windows", "2", "--json").document["requests"] == 1
    said = line.verify()
    assert "─ requests        passed: 1 is among those that the header of window 2 counts\n" in said.out
    assert line.verify("--json").document["requests"][0]["request"] == shown["request"]
    assert line.export("--request", listed, "--windows", "1").status == ExitCode.NOT_AUTHENTIC
    (tmp_path / "salt").write_text(sha256(b"salt").hex())
    assert line.export("--request", listed, "--redact", tmp_path / "salt").status == ExitCode.USAGE


def test_a_bundle_is_its_tenants(line: Line) -> None:
    """A66"""
    assert line.export("--tenant", "tenant-a").status == 0
    line.file.unlink()
    done = line.export("--tenant", "tenant-b", "--json")
    assert (done.status, done.document["code"]) == (ExitCode.DENIED, "BUNDLE_TENANT")
    assert not line.file.exists()


def test_the_time_from_which_one_looks(line: Line) -> None:
    assert line.export().status == 0
    assert line.verify("--at", "2026-06-02T00:00:00Z").status == 0
    for more in ((), ("--records-only",)):
        before = line.verify("--at", strict.time_encode(NOON), *more)
        assert before.status == ExitCode.INDETERMINATE
        assert before.err.startswith("weighbridge: error: BUNDLE_FUTURE: ")
