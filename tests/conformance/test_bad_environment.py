"""Whatever is wrong with the machine: one line, a hint, exit 8; nothing lost, nothing half-written.

Each test runs the installed commands as an operator does: transcripts of what they say, and what is on disk after.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support import wrong_clock
from support.disks import full_disk, small_disk
from support.site import BIN, Done, Factory, Running, Site, here, run
from support.wrong_clock import WrongClock
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier import pki

if TYPE_CHECKING:
    from collections.abc import Iterator

VERIFIER, ATTESTER = "weighbridge", "weighbridge-attester"
SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("factory"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name: the path of a Unix socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="wb-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def site(factory: Factory, place: Path) -> Iterator[Site]:
    with Site(factory, place) as made:
        yield made.prepare()


def check_failed(done: Done, program: str, code: Code, *, status: ExitCode = ExitCode.ENVIRONMENT) -> str:
    """The one error line of a command that failed as it should."""
    assert done.status == status, done
    assert "Traceback" not in done.err, done.err
    lines = done.err.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1, done.err
    assert errors[0].startswith(f"{program}: error: {code}: "), done.err
    assert lines[-2] == errors[0]
    assert lines[-1].startswith("hint: ")
    assert lines[-1].isprintable()
    return errors[0]


def files_below(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*")}


# -- commands that cannot begin ----------------------------------------------------------------------------------------


def test_the_port_is_taken(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        done = run(*site.serve_command())
    assert f"address already in use, at 127.0.0.1:{site.port}" in check_failed(done, VERIFIER, Code.PORT_UNAVAILABLE)


def test_a_verifier_that_serves_already(site: Site) -> None:
    """A second one takes turns with it, on a port of its own."""
    with site.serving() as first, Running(*site.serve_command("--listen", "127.0.0.1:0")) as second:
        second.until(lambda it: any("listening on" in line for line in it.errors), "the second one listens")
        assert second.terminate().status == 0
        # GPUs are demanded, and nothing of their makers is at hand.
        assert [line for line in first.errors if "--collateral DIR" in line]
        # Reading is possible all the while.
        assert run(VERIFIER, "sessions", site.verifier).out == "no sessions\n"
        assert first.terminate().status == 0


def test_no_verifier_state(site: Site) -> None:
    missing = site.directory / "missing"
    command = site.serve_command()
    command[2] = missing
    check_failed(run(*command), VERIFIER, Code.FILE_UNREADABLE)
    check_failed(run(VERIFIER, "sessions", missing), VERIFIER, Code.FILE_UNREADABLE)
    assert not missing.exists()


def test_no_collateral_or_damaged(site: Site) -> None:
    """What was lost may have been a revocation: nothing is served by what is left."""
    store = site.directory / "collateral"
    line = check_failed(run(*site.serve_command("--collateral", store)), VERIFIER, Code.FILE_UNREADABLE)
    assert str(store) in line
    assert not store.exists()
    rim = next(iter((site.factory.vendor / "rims").iterdir()))
    assert run(VERIFIER, "collateral", "import", rim, "--store", store).status == 0
    with Running(*site.serve_command("--collateral", store)) as verifier:
        verifier.until(lambda it: any("listening on" in line for line in it.errors), "the verifier listens")
        assert not [line for line in verifier.errors if "--collateral DIR" in line]
    (piece,) = (store / "items").iterdir()
    piece.chmod(0o644)
    piece.write_bytes(b"what is left of it")
    line = check_failed(run(*site.serve_command("--collateral", store)), VERIFIER, Code.STATE_CORRUPT)
    assert str(piece) in line


@pytest.mark.parametrize(
    ("name", "mode"), [("keys/signing.pem", 0o644), ("keys/ledger.pem", 0o640), ("keys", 0o755), ("keys", 0o770)]
)
def test_exposed_keys_of_the_verifier(site: Site, name: str, mode: int) -> None:
    (site.verifier / name).chmod(mode)
    line = check_failed(run(*site.serve_command()), VERIFIER, Code.KEY_EXPOSED)
    assert str(site.verifier / name) in line
    # Refused, not repaired: they may have been read.
    assert stat.S_IMODE((site.verifier / name).stat().st_mode) == mode


def test_exposed_keys_of_the_attester(site: Site) -> None:
    (site.state / "channel.key").chmod(0o644)
    check_failed(run(*site.attester_command()), ATTESTER, Code.KEY_EXPOSED)


def test_no_attester_state(site: Site) -> None:
    done = run(*site.attester_command("--state", site.directory / "missing"))
    check_failed(done, ATTESTER, Code.FILE_UNREADABLE)
    assert "init" in done.err.splitlines()[-1]
    assert not (site.directory / "missing").exists()


def test_a_disk_full_from_the_beginning(site: Site, place: Path) -> None:
    """Making a verifier, making keys, measuring, exporting: all of it or nothing."""
    codes = {Code.DISK_FULL, Code.FILE_UNWRITABLE}
    request = site.state / "channel.csr"
    with full_disk(place / "disk") as disk:
        before = files_below(disk)
        for program, *arguments in (
            (VERIFIER, "init", disk / "verifier", "--origin", "ledger.example/test"),
            (VERIFIER, "admit", site.verifier, request, "-o", disk / "channel.pem"),
            (ATTESTER, "init", "--state", disk / "attester"),
            (ATTESTER, "measure", site.factory.model, "-o", disk / "manifest.json"),
        ):
            done = run(program, *arguments)
            (code,) = [code for code in codes if f"error: {code}: " in done.err]
            check_failed(done, program, code)
            # A directory made before the disk was found full may stay, empty.
            left = files_below(disk) - before
            assert all((disk / name).is_dir() for name in left), left
            for name in left:
                (disk / name).rmdir()


def test_a_result_that_cannot_be_printed(site: Site) -> None:
    """Never 0 when nobody got the result."""
    for program, verb, path in ((VERIFIER, "sessions", site.verifier), (ATTESTER, "measure", site.factory.model)):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run([BIN / program, verb, path], stdout=full, stderr=subprocess.PIPE, check=False)
        check_failed(Done(done.returncode, "", done.stderr.decode()), program, Code.DISK_FULL)


# -- the TPM -----------------------------------------------------------------------------------------------------------


def test_no_tpm(site: Site, place: Path) -> None:
    (place / "file").write_bytes(b"")
    for tcti in (f"swtpm:path={place}/none", f"device:{place}/none", f"device:{place}/file", "tabrmd:"):
        check_failed(run(*site.attester_command("--tcti", tcti)), ATTESTER, Code.TPM_ABSENT)


def test_a_tpm_that_this_user_may_not_open(site: Site, place: Path) -> None:
    with small_disk(place / "disk") as disk:
        device = disk.path / "tpmrm0"
        if disk.mounted:
            # Whoever may mount may open everything, but no devices where devices are not allowed.
            subprocess.run(["mount", "-o", "remount,nodev", disk.path], check=True)
            os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(10, 224))
        else:
            device.touch(mode=0)
        done = run(*site.attester_command("--tcti", f"device:{device}"))
    assert "no permission" in check_failed(done, ATTESTER, Code.TPM_ABSENT)


def test_a_tpm_that_somebody_else_uses(site: Site) -> None:
    """An emulator takes the connection and never answers a second client: seconds, not for ever."""
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(site.tpm.tcti.partition("path=")[2])
        # Until the emulator has it, either may be served.
        other.sendall(bytes.fromhex("80010000000c000001440000"))
        other.recv(64)
        begun = time.monotonic()
        done = run(*site.attester_command())
    check_failed(done, ATTESTER, Code.TPM_BUSY)
    assert time.monotonic() - begun < 20


def test_a_tpm_that_dies(site: Site) -> None:
    with site.serving() as verifier:
        with site.attesting() as attester:
            attester.until_windows("affirmed", 1)
            site.tpm.kill()
            check_failed(attester.end(), ATTESTER, Code.TPM_ABSENT)
        assert not (site.state / "token").exists()
        verifier.terminate()


# -- state that somebody else has --------------------------------------------------------------------------------------


def test_two_attesters_with_one_state(site: Site, factory: Factory, place: Path) -> None:
    with site.serving() as verifier, site.attesting() as first, Site(factory, place / "other") as other:
        first.until_windows("affirmed", 1)
        done = run(*site.attester_command("--tcti", other.tpm.tcti))
        check_failed(done, ATTESTER, Code.STATE_LOCKED)
        first.until_windows("affirmed", 2)
        assert first.terminate().status == 0
        verifier.terminate()


# -- the line ----------------------------------------------------------------------------------------------------------


def test_nobody_listens(site: Site) -> None:
    line = check_failed(run(*site.attester_command()), ATTESTER, Code.PEER_UNREACHABLE)
    assert "Connection refused" in line
    assert files_below(site.state / "spool") == set()


def test_certificates_of_other_authorities(site: Site, place: Path) -> None:
    """The verifier's, seen from the attester; the attester's, seen from the verifier."""
    stranger = place / "stranger"
    stranger.mkdir()
    pki.create_authority(stranger, name="stranger", at=datetime.now(UTC))
    with site.serving() as verifier:
        done = run(*site.attester_command("--verifier-ca", stranger / "ca.pem"))
        assert "not from the authority" in check_failed(done, ATTESTER, Code.PEER_UNREACHABLE)
        certificate = place / "foreign.pem"
        foreign = pki.issue_client(stranger, (site.state / "channel.csr").read_bytes(), at=datetime.now(UTC))
        certificate.write_bytes(foreign.public_bytes(Encoding.PEM))
        done = run(*site.attester_command("--certificate", certificate))
        check_failed(done, ATTESTER, Code.PEER_UNREACHABLE)
        verifier.terminate()
    assert site.sessions() == []


def test_a_verifier_that_is_killed(site: Site) -> None:
    """The line is cut by SIGKILL: windows are spooled, the token goes when it expires, the session goes on."""
    token = site.state / "token"
    with site.serving() as verifier, site.attesting() as attester:
        attester.until_windows("affirmed", 2)
        assert token.exists()
        verifier.kill()
        attester.until_windows("spooled", 1)
        deadline = time.monotonic() + 10
        while token.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "line-cut" in attester.notices()
        with site.serving() as again:
            before = len(attester.windows("affirmed"))
            attester.until_windows("affirmed", before + 2)
            assert "line-restored" in attester.notices()
            done = attester.terminate()
            again.terminate()
    assert done.status == 0, done.err
    check_all_recorded(site, attester)


def check_all_recorded(site: Site, attester: Running) -> None:
    """One session, closed, in which every window that was sealed is judged once; what came late is held."""
    (session,) = site.sessions()
    summary = attester.lines[-1]
    assert (summary["session"], summary["verifier"]["state"]) == (session["session"], "closed")
    assert (summary["sealed"], summary["lost"], summary["backlog"]) == (session["windows"], 0, 0)
    document = site.check_recorded(session["session"])
    outcomes = {window["seq"]: window["outcome"] for window in document["windows"]}
    assert list(outcomes) == list(range(session["windows"]))
    # The answer to a window may have been cut off with the line; whatever was heard is what is recorded.
    heard = {seq: status for status in ("affirmed", "held") for seq in attester.windows(status)}
    assert heard.items() <= outcomes.items()
    assert "held" in heard.values()


# -- disks that fill up ------------------------------------------------------------------------------------------------


def test_the_verifiers_disk_is_full(site: Site, place: Path) -> None:
    """Nothing is judged while nothing can be recorded; with space again everything is, once."""
    with small_disk(place / "disk") as disk:
        shutil.copytree(site.verifier, disk.path / "verifier")
        site.verifier = disk.path / "verifier"
        with site.serving() as verifier, site.attesting() as attester:
            attester.until_windows("affirmed", 2)
            disk.fill(verifier.process.pid)
            attester.until(lambda it: "line-cut" in it.notices(), "the verifier refuses")
            attester.until_windows("spooled", 1)
            disk.free()
            before = len(attester.windows("affirmed"))
            attester.until_windows("affirmed", before + 1)
            done = attester.terminate()
            assert done.status == 0, done.err
            said = verifier.terminate()
        assert "weighbridge: warning: nothing was judged: DISK_FULL" in said.err
        assert "Traceback" not in said.err
        check_all_recorded(site, attester)


def test_the_attesters_disk_is_full(site: Site, place: Path) -> None:
    """It goes on, says from when to when nothing was sealed, and delivers the rest: none that was sealed is lost."""
    with small_disk(place / "disk") as disk:
        shutil.copytree(site.state, disk.path / "attester")
        site.state = disk.path / "attester"
        with site.serving() as verifier, site.attesting() as attester:
            attester.until_windows("affirmed", 1)
            verifier.kill()
            attester.until_windows("spooled", 2)
            disk.fill(attester.process.pid)
            attester.until_windows("lost", 2)
            assert [file.name for file in site.state.rglob(".*")] == []
            disk.free()
            attester.until_windows("spooled", len(attester.windows("spooled")) + 1)
            with site.serving() as again:
                attester.until_windows("affirmed", len(attester.windows("affirmed")) + 1)
                done = attester.terminate()
                again.terminate()
        assert done.status == 0, done.err
        spool = json.loads(here(ATTESTER, "spool", "--state", site.state, "--json").out)
    assert (attester.notices().count("disk-full"), attester.notices().count("lost")) == (1, 1)
    summary = attester.lines[-1]
    assert (summary["lost"], summary["backlog"]) == (len(attester.windows("lost")), 0)
    assert spool["losses"] == summary["losses"]
    assert [(lost["reason"], lost["windows"]) for lost in spool["losses"]] == [("disk-full", summary["lost"])]
    (session,) = site.sessions()
    assert (session["state"], session["windows"]) == ("closed", summary["sealed"])
    site.check_recorded(session["session"])


# -- clocks that are set -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shows a process another time."""
    return wrong_clock.build(tmp_path_factory.mktemp("clock"))


def test_the_verifiers_clock_is_set_back(site: Site, place: Path, library: Path) -> None:
    """Judging stops, also after a restart, until the clock has caught up; nothing is lost."""
    clock = WrongClock(library, place / "offset")
    with site.serving(env=clock.env) as verifier, site.attesting() as attester:
        attester.until_windows("affirmed", 1)
        clock.set(wrong_by_ns=-120 * SECOND_NS)
        attester.until(lambda it: "line-cut" in it.notices(), "the verifier refuses")
        assert any("CLOCK_STEPPED" in line.get("message", "") for line in attester.lines)
        said = verifier.terminate()
        assert "nothing was judged: CLOCK_STEPPED" in said.err
        # A restart does not make the time right.
        with site.serving(env=clock.env) as again:
            attester.until(lambda _: any("CLOCK_STEPPED" in line for line in again.errors), "it refuses again")
            clock.set(wrong_by_ns=0)
            before = len(attester.windows("affirmed"))
            attester.until_windows("affirmed", before + 1)
            done = attester.terminate()
            again.terminate()
    assert done.status == 0, done.err
    check_all_recorded(site, attester)


def test_the_attesters_clock_is_set_back(site: Site, place: Path, library: Path) -> None:
    """It seals nothing that would lie in an earlier window, and ends; the next start goes on."""
    clock = WrongClock(library, place / "offset")
    with site.serving() as verifier:
        with site.attesting(env=clock.env) as attester:
            attester.until_windows("affirmed", 1)
            clock.set(wrong_by_ns=-60 * SECOND_NS)
            check_failed(attester.end(), ATTESTER, Code.CLOCK_STEPPED)
        assert not (site.state / "token").exists()
        with site.attesting("--windows", 1) as again:
            assert again.end().status == 0
        verifier.terminate()
    first, second = site.sessions()
    assert (first["state"], second["state"]) == ("interrupted", "closed")
    assert first["windows"] >= len(attester.windows("affirmed"))
    site.check_recorded(first["session"])


# -- programs ----------------------------------------------------------------------------------------------------------


def test_an_inference_server_that_does_not_start(site: Site) -> None:
    with site.serving() as verifier:
        for server in (["/nonexistent/server"], ["false"], ["true"]):
            done = run(*site.attester_command(server=server))
            check_failed(done, ATTESTER, Code.COMMAND_FAILED)
        verifier.terminate()
    assert site.sessions() == []


@pytest.mark.parametrize(
    ("library", "program", "extra"),
    [("tpm2_pytss", ATTESTER, "attester"), ("sqlalchemy", VERIFIER, "server"), ("grpc", VERIFIER, "server")],
)
def test_a_library_that_is_not_installed(site: Site, library: str, program: str, extra: str) -> None:
    """What only one role needs is missed by that role alone, and it says how to get it."""
    room = "attester" if program == ATTESTER else "verifier"
    code = (
        f"import sys; sys.modules[{library!r}] = None; from weighbridge.{room}.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    command = site.attester_command() if program == ATTESTER else site.serve_command()
    done = run(sys.executable, "-c", code, *command[1:])
    assert library in check_failed(done, program, Code.TOOL_MISSING)
    assert f"weighbridge[{extra}]" in done.err


def test_the_demonstration_without_an_emulator(place: Path, root: Path) -> None:
    done = run(
        sys.executable, root / "scripts" / "demonstration" / "acts.py", "--out", place / "out",
        env={"PATH": str(place)},
    )  # fmt: skip
    check_failed(done, "demo", Code.TOOL_MISSING)


# -- for programs ------------------------------------------------------------------------------------------------------


def test_json_says_failures_too(site: Site, place: Path) -> None:
    nothing = place / "nothing"
    cases: list[tuple[list[object], Code, int]] = [
        ([VERIFIER, "sessions", nothing], Code.FILE_UNREADABLE, 8),
        ([VERIFIER, "verify", "bundle", nothing], Code.FILE_UNREADABLE, 8),
        ([VERIFIER, "verify", "bundle", site.factory.manifest], Code.NOT_CBOR, 3),
        ([VERIFIER, "verify", "token", site.factory.manifest, "--audience", "a"], Code.CHAIN_UNTRUSTED, 4),
        ([VERIFIER, "init", site.verifier, "--origin", "ledger.example/test"], Code.FILE_UNWRITABLE, 8),
        ([VERIFIER, "ledger", "audit", nothing, "--key", "k"], Code.KEY_MALFORMED, 3),
        ([ATTESTER, "measure", nothing], Code.WEIGHTS_UNREADABLE, 8),
        (site.attester_command("--tcti", "tabrmd:"), Code.TPM_ABSENT, 8),
    ]
    for command, code, status in cases:
        done = here(str(command[0]), *command[1:], *(() if "--json" in command else ("--json",)))
        document: dict[str, Any] = json.loads(done.out)
        assert (document["schema"], document["code"], document["exit"]) == ("weighbridge/error/v1", code, status)
        assert set(document) == {
            "schema", "exit", "code", "message", "where", "expected", "got", "clause", "hint",
        }  # fmt: skip
        assert done.status == status
        assert f"error: {code}: " in done.err
