"""Both command lines as their users meet them: mistakes, help, streams that are closed, output that nobody reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.options import changed
from support.site import BIN, Done, here, run
from weighbridge.proto.errors import Code, ExitCode
from weighbridge.verifier import cli as verifier_cli
from weighbridge.verifier.commands import sessions

if TYPE_CHECKING:
    from pathlib import Path

VERIFIER, ATTESTER = "weighbridge", "weighbridge-attester"
COMMANDS = [
    (VERIFIER,),
    (VERIFIER, "inspect"),
    (VERIFIER, "inspect", "gpu"),
    (VERIFIER, "verify"),
    (VERIFIER, "verify", "gpu"),
    (VERIFIER, "verify", "bundle"),
    (VERIFIER, "verify", "token"),
    (VERIFIER, "init"),
    (VERIFIER, "admit"),
    (VERIFIER, "serve"),
    (VERIFIER, "config"),
    (VERIFIER, "config", "check"),
    (VERIFIER, "config", "show"),
    (VERIFIER, "config", "keys"),
    (VERIFIER, "sessions"),
    (VERIFIER, "export"),
    (VERIFIER, "failures"),
    (VERIFIER, "failures", "list"),
    (VERIFIER, "failures", "clear"),
    (VERIFIER, "clear"),
    (VERIFIER, "model"),
    (VERIFIER, "model", "key"),
    (VERIFIER, "model", "trust"),
    (VERIFIER, "model", "sign"),
    (VERIFIER, "model", "revoke"),
    (VERIFIER, "model", "show"),
    (VERIFIER, "model", "diff"),
    (VERIFIER, "policy"),
    (VERIFIER, "policy", "check"),
    (VERIFIER, "policy", "test"),
    (VERIFIER, "policy", "eval"),
    (VERIFIER, "policy", "explain"),
    (VERIFIER, "policy", "replay"),
    (VERIFIER, "policy", "diff"),
    (VERIFIER, "policy", "init"),
    (VERIFIER, "policy", "docs"),
    (VERIFIER, "policy", "invariants"),
    (VERIFIER, "policy", "input"),
    (VERIFIER, "policy", "engines"),
    (VERIFIER, "policy", "bundle"),
    (VERIFIER, "policy", "key"),
    (VERIFIER, "policy", "trust"),
    (VERIFIER, "policy", "bundle", "sign"),
    (VERIFIER, "policy", "bundle", "verify"),
    (VERIFIER, "policy", "bundle", "show"),
    (VERIFIER, "ledger"),
    (VERIFIER, "ledger", "prove"),
    (VERIFIER, "ledger", "verify"),
    (VERIFIER, "ledger", "audit"),
    (ATTESTER,),
    (ATTESTER, "init"),
    (ATTESTER, "measure"),
    (ATTESTER, "run"),
]
SERVE = (VERIFIER, "serve", "S", "--requirements", "F", "--policy", "production", "--reference", "F")
EXPORT = (VERIFIER, "export", "S", "00" * 16, "-o", "F", "--policy", "production", "--reference", "F")
SIGN = (VERIFIER, "model", "sign", "F", "--valid-until", "2027-06-30T00:00:00Z", "--key", "F", "-o", "F")
RUN = (
    ATTESTER, "run", "--verifier", "v.example:1", "--verifier-ca", "F", "--verifier-key", "F", "--state", "S",
    "--manifest", "F", "--tenant", "t", "--audience", "a", "--tcti", "device:F", "--gpu", "none",
)  # fmt: skip


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: tuple[str, ...]) -> None:
    done = here(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"usage: {' '.join(command)}")
    # Every option says what it is for.
    for line in re.findall(r"^  (?:-\w, )?--[a-z-]+.*(?:\n {10,}.*)*", done.out, re.MULTILINE):
        assert re.search(r"(?:  |\n) *\S+.*\S", line.partition("--")[2]), line


def test_versions_agree() -> None:
    first, second = here(VERIFIER, "--version"), here(ATTESTER, "--version")
    assert (first.status, second.status) == (0, 0)
    assert first.out.split()[1] == second.out.split()[1]


# -- mistakes ----------------------------------------------------------------------------------------------------------

MISTAKES = [
    ((VERIFIER,), "required: COMMAND"),
    ((VERIFIER, "frobnicate"), "invalid choice: 'frobnicate'"),
    ((VERIFIER, "verify"), "required: KIND"),
    ((VERIFIER, "verify", "bundle"), "required: FILE"),
    ((VERIFIER, "verify", "bundle", "F", "--frob"), "unrecognized arguments: --frob"),
    # An abbreviation that is clear today names something else tomorrow.
    ((VERIFIER, "verify", "bundle", "F", "--anch", "F"), "unrecognized arguments: --anch"),
    ((VERIFIER, "verify", "token", "F"), "required: --audience"),
    ((VERIFIER, "verify", "token", "F", "--audience", "a", "--at", "yesterday"), "not a UTC time"),
    ((VERIFIER, "verify", "token", "F", "--audience", "a", "--at", "2026-01-31T12:00:00"), "not a UTC time"),
    ((VERIFIER, "verify", "gpu", "F", "--chain", "F", "--nonce", "xyz", "--at", "now"), "64 hexadecimal digits"),
    ((VERIFIER, "init", "S", "--origin", "two words"), "is not a ledger's name"),
    ((VERIFIER, "init", "S", "--origin", ""), "is not a ledger's name"),
    ((VERIFIER, "init", "S", "--origin", "o.example", "--host", "two words"), "neither a DNS name nor an IP address"),
    ((VERIFIER, "admit", "S", "F", "-o", "-"), "name a file"),
    ((*SERVE, "--reference", "G"), "argument --reference: given twice"),
    ((*SIGN, "-o", "F"), "argument -o/--output: given twice"),
    (changed(SERVE, "--listen", "8443"), "not HOST:PORT"),
    (changed(SERVE, "--listen", "127.0.0.1:99999"), "too large"),
    (changed(SERVE, "--listen", "::1:8443"), "not HOST:PORT"),
    (SERVE[:5], "no --reference: reference values (judging.reference)"),
    ((*SERVE[:5], "--reference", "R"), "nothing to judge by: --policy or --policy-bundle"),
    ((VERIFIER, "export", "S", "xyz", *EXPORT[4:]), "not lower-case hexadecimal"),
    ((VERIFIER, "export", "S", "00", *EXPORT[4:]), "wrong length"),
    ((VERIFIER, "clear", "S", "cpu", "00" * 32, "--reason", "x"), "invalid choice: 'cpu'"),
    ((VERIFIER, "clear", "S", "ak", "00", "--reason", "x"), "wrong length"),
    ((VERIFIER, "clear", "S", "ak", "00" * 32, "--reason", " "), "say why"),
    ((VERIFIER, "model"), "required: VERB"),
    ((*SIGN, "--number", "0"), "numbers begin with 1"),
    ((*SIGN, "--number", "1e3"), "not a decimal number"),
    ((*SIGN, "--owner", ""), "empty or not printable"),
    (changed(SIGN, "--valid-until", "2027-06-30"), "not a UTC time"),
    (changed(SIGN, "--valid-until", "9999-12-31T23:59:59Z"), "not between 1970 and 2261"),
    ((*SIGN, "--revoke", "00" * 32), "write DIGEST=REASON"),
    ((*SIGN, "--revoke", "00=leaked"), "wrong length"),
    ((*SIGN, "--revoke", "00" * 32 + "= "), "say why"),
    ((*SIGN[:-1], "-"), "name a file"),
    ((VERIFIER, "model", "revoke", "F", "xyz", "--reason", "x", "--key", "F", "-o", "F"), "not lower-case hexadecimal"),
    ((VERIFIER, "model", "diff", "F"), "required: B"),
    ((VERIFIER, "model", "trust", "F", "-o", "F"), "one of the arguments --owner --issuer is required"),
    ((VERIFIER, "ledger", "prove", "D", "-1", "--key", "k"), "not a decimal number"),
    ((ATTESTER,), "required: VERB"),
    ((ATTESTER, "frobnicate"), "invalid choice: 'frobnicate'"),
    ((ATTESTER, "init", "--state", "S", "--name", "zwei Wörter"), "neither a DNS name nor an IP address"),
    ((ATTESTER, "measure", "D", "-o", "-"), "name a file"),
    ((*RUN, "--tenant", "t"), "argument --tenant: given twice"),
    ((ATTESTER, "measure", "D", "--", "ls"), "only `run` takes a command"),
    ((*RUN, "--"), "there is no command after --"),
    ((*changed(RUN, "--gpu", "emulated:1"), "--set-ready"), "--set-ready is for --gpu nvml"),
    ((*RUN, "--set-ready"), "--set-ready is for --gpu nvml"),
    ((*RUN, "--windows", "0"), "whole number from 1"),
    ((*RUN, "--windows", "1e3"), "whole number from 1"),
    ((*RUN, "--spool-max", "5"), "at least"),
    (changed(RUN, "--gpu", "emulated:9"), "whole number from 1 to 8"),
    (changed(RUN, "--gpu", "all"), "must be nvml, emulated:N or none"),
    ((*RUN, "--log-pcr", "24"), "whole number from 0 to 23"),
    (changed(RUN, "--verifier", "verifier.example"), "not HOST:PORT"),
    ((*RUN, "--verif", "verifier.example:1"), "unrecognized arguments: --verif"),
]


@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=[" ".join(command)[:60] for command, _ in MISTAKES])
def test_a_mistake_in_the_command(command: tuple[str, ...], said: str) -> None:
    """Exit 2 before anything is touched, in one line, and where to read on."""
    done = here(*command)
    assert (done.status, done.out) == (ExitCode.USAGE, "")
    error, hint = done.err.splitlines()
    assert error.startswith(f"{command[0]}: error: ")
    assert said in error
    assert re.fullmatch(rf"hint: `{command[0]}[a-z ]* --help` shows the arguments", hint)


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("verify", "bundle", "-"), Code.NOT_CBOR, 3),
        (("verify", "token", "-", "--audience", "a"), Code.CHAIN_UNTRUSTED, 4),
        (("inspect", "gpu", "-"), Code.TRUNCATED, 3),
        (("admit", "STATE", "-", "-o", "OUT"), Code.CERT_MALFORMED, 3),
    ],
)
def test_standard_input(tmp_path: Path, arguments: tuple[str, ...], code: Code, status: int) -> None:
    """Empty, it is malformed; closed, it cannot be read."""
    command = [str(BIN / VERIFIER), *arguments]
    places = {"STATE": str(tmp_path / "state"), "OUT": str(tmp_path / "out")}
    command = [places.get(argument, argument) for argument in command]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert (done.returncode, f"error: {code}: " in done.stderr.decode()) == (status, True)
    closed = shell(" ".join(command) + " <&-")
    assert closed.status == ExitCode.ENVIRONMENT
    assert closed.err.startswith("weighbridge: error: FILE_UNREADABLE: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("program", [VERIFIER, ATTESTER])
def test_names_that_are_not_text(program: str) -> None:
    """A path of any bytes, in any locale: one printable line, and a JSON document that is one."""
    verb = ("verify", "bundle") if program == VERIFIER else ("measure",)
    for env in ({}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}):
        for name in (b"no\xffsuch", "nö\u2028\x1b[31m".encode()):
            done = run(program, *verb, os.fsdecode(name), "--json", env=env)
            assert done.status == ExitCode.ENVIRONMENT, done
            assert json.loads(done.out)["schema"] == "weighbridge/error/v1"
            assert all(line.isprintable() for line in done.err.splitlines())
            assert "\x1b" not in done.out + done.err


# -- what is written ---------------------------------------------------------------------------------------------------


def shell(command: str) -> Done:
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=60)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    return tmp_path / "model"


def test_a_reader_that_goes_away(model: Path) -> None:
    """No traceback, not 0, nothing from the interpreter on its way out."""
    # It has gone before anything is written.
    done = shell(f"{{ sleep 0.2; {BIN / ATTESTER} measure {model}; }} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.status, done.err) == (ExitCode.ENVIRONMENT, "weighbridge-attester: output closed\n")
    done = shell(f"{{ sleep 0.2; {BIN / VERIFIER} verify bundle {model} --json; }} | true; exit ${{PIPESTATUS[0]}}")
    assert done.status == ExitCode.ENVIRONMENT
    assert len(done.err.splitlines()) <= 2
    for program in (VERIFIER, ATTESTER):
        # Newer releases of argparse pass over what cannot be printed; older ones let us say so.
        assert shell(f"{{ sleep 0.2; {BIN / program} --help; }} | true").err in {"", f"{program}: output closed\n"}


@pytest.mark.parametrize(
    "command", [f"{BIN / ATTESTER} measure {{model}}", f"{BIN / VERIFIER} verify bundle {{model}}"]
)
def test_closed_streams(model: Path, command: str) -> None:
    """Without standard output there is no result; without standard error nobody wants to read about it."""
    text = command.format(model=model)
    done = shell(f"{text} >&-")
    assert (done.status, done.out) == (ExitCode.ENVIRONMENT, "")
    assert "error: standard output is closed\nhint: " in done.err
    done = shell(f"{text} >&- 2>&-")
    assert (done.status, done.out, done.err) == (ExitCode.ENVIRONMENT, "", "")
    quiet, loud = shell(f"{text} 2>&-"), shell(text)
    # What is said on standard error does not end up in the result.
    assert (quiet.status, quiet.out, quiet.err) == (loud.status, loud.out, "")


def test_nothing_moves_where_there_is_no_terminal(model: Path) -> None:
    done = run(ATTESTER, "measure", model)
    assert (done.status, done.err) == (0, "")
    assert "\r" not in done.out
    assert "\x1b" not in done.out


# -- defects of ours ---------------------------------------------------------------------------------------------------


def test_a_defect_is_one_line_and_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise KeyError(path.name)

    monkeypatch.setattr(sessions, "open_store", broken)
    done = here(VERIFIER, "sessions", tmp_path / "x")
    assert (done.status, done.out) == (ExitCode.INTERNAL, "")
    assert done.err.splitlines() == [
        "weighbridge: internal error: KeyError: 'x'",
        "hint: run again with --debug before the command, and report what it prints",
    ]
    done = here(VERIFIER, "sessions", tmp_path / "x", "--json")
    document = json.loads(done.out)
    assert (document["schema"], document["code"], document["exit"]) == ("weighbridge/error/v1", None, 1)
    assert "Traceback" in here(VERIFIER, "--debug", "sessions", tmp_path / "x").err
    assert "Traceback" in here(VERIFIER, "--debug", "verify", "bundle", tmp_path / "x").err


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sessions, "open_store", interrupted)
    done = here(VERIFIER, "sessions", tmp_path / "x")
    assert (done.status, done.out, done.err) == (ExitCode.ENVIRONMENT, "", "weighbridge: interrupted\n")


def test_the_help_tells_every_exit_status() -> None:
    for program in (VERIFIER, ATTESTER):
        text = here(program, "--help").out
        assert all(re.search(rf"\b{int(status)} [a-z]", text) for status in ExitCode)
    assert verifier_cli.parser().epilog
