"""Transcripts of ``weighbridge-attester``: command, standard output, standard error, exit status."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.models import write_model
from fakes.soft_tpm import derive_key
from weighbridge.attester import cli, entry
from weighbridge.attester.commands import run as run_command
from weighbridge.attester.weights import measure
from weighbridge.proto import cose
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.pki import create_authority, issue_client

if TYPE_CHECKING:
    from typing import Never


@dataclass(frozen=True)
class Transcript:
    code: int
    out: str
    err: str


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Transcript:
        code = cli.main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Transcript(code, captured.out, captured.err)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Host:
    """A state directory with everything that ``run`` reads."""

    def __init__(self, tmp_path: Path, shell: Shell) -> None:
        self.state = tmp_path / "state"
        self.initialised = shell("init", "--state", self.state)
        authority = tmp_path / "authority"
        authority.mkdir()
        at = datetime.now(UTC)
        create_authority(authority, name="test", at=at)
        self.ca = authority / "ca.pem"
        certificate = issue_client(authority, (self.state / "channel.csr").read_bytes(), at=at)
        (self.state / "channel.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        self.manifest = tmp_path / "manifest.json"
        self.manifest.write_bytes(measure(write_model(tmp_path / "model")).to_json())
        key = derive_key("verifier").public_key()
        far = datetime(9999, 1, 1, tzinfo=UTC)
        anchor = Anchor("verifier", "v", "verifier", cose.spki(key), datetime(2020, 1, 1, tzinfo=UTC), far, "a test")
        self.anchors = tmp_path / "anchors.json"
        self.anchors.write_bytes(TrustAnchors((anchor,)).encode())

    def arguments(self, **changes: object) -> list[object]:
        options: dict[str, object] = {
            "verifier": "localhost:1",
            "verifier-ca": self.ca,
            "verifier-key": self.anchors,
            "manifest": self.manifest,
            "state": self.state,
            "tenant": "t",
            "audience": "a",
            "tcti": "swtpm:path=/nonexistent/tpm",
            "gpu": "none",
            **changes,
        }
        return ["run", *(part for name, value in options.items() if value is not None for part in (f"--{name}", value))]


@pytest.fixture
def host(tmp_path: Path, shell: Shell) -> Host:
    return Host(tmp_path, shell)


def test_version(shell: Shell) -> None:
    done = shell("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("weighbridge-attester 0.")


@pytest.mark.parametrize("verb", ["init", "measure", "run"])
def test_every_verb_has_help(shell: Shell, verb: str) -> None:
    done = shell(verb, "--help")
    assert done.code == 0
    assert f"usage: weighbridge-attester {verb}" in done.out
    if verb != "measure":
        assert "example" in done.out


def test_the_help_shows_examples_and_exit_statuses(shell: Shell) -> None:
    done = shell("--help")
    assert done.code == 0
    assert "weighbridge-attester run --verifier" in done.out
    assert "8 this machine" in done.out


def test_init(shell: Shell, host: Host) -> None:
    done = host.initialised
    assert done.code == 0
    lines = dict(line.split(maxsplit=2)[0::2] for line in done.out.splitlines()[:2])
    assert list(lines) == ["serving", "channel"]
    assert f"request      {host.state / 'channel.csr'}\n" in done.out
    assert "weighbridge admit" in done.out
    again = shell("init", "--state", host.state, "--json")
    document = json.loads(again.out)
    assert document["schema"] == "weighbridge/attester-keys/v1"
    assert document["cnf"] in done.out
    assert document["peer"] in done.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["init"], "required: --state"),
        (["init", "--sta", "x"], "required: --state"),
        (["measure", ".", "--", "x"], "only `run` takes a command"),
        (["run", "--gpu", "cuda"], "must be nvml, emulated:N or none, not 'cuda'"),
        (["run", "--gpu-timeout", "601"], "must be a whole number from 1 to 600, not '601'"),
        (["run", "--gpu", "emulated:9"], "must be a whole number from 1 to 8, not '9'"),
        (["run", "--gpu", "emulated:0"], "must be a whole number from 1 to 8, not '0'"),
        (["run", "--windows", "0"], "must be a whole number from 1"),
        (["run", "--windows", "+1"], "must be a whole number from 1"),
        (["run", "--log-pcr", "24"], "must be a whole number from 0 to 23"),
        (["run"], "required: --verifier,"),
    ],
)
def test_usage(shell: Shell, arguments: list[str], text: str) -> None:
    done = shell(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("weighbridge-attester: error: ")
    assert text in done.err
    assert done.err.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("ak", [[], ["--ak", "srk"], ["--ak", "gce"], ["--ak", "handle:0x81000004"]])
def test_a_quote_that_would_not_be_shown_is_said(shell: Shell, host: Host, ak: list[str]) -> None:
    """Left out without a word, it would be missed at the verifier, long after it was fetched."""
    done = shell(*host.arguments(), "--td-quote", "td.quote", *ak)
    assert (done.code, done.out) == (2, "")
    assert "--td-quote is shown for the key of --ak handle:0x81000003, and for no other" in done.err


def test_a_quote_beside_the_key_that_it_is_for_is_read(shell: Shell, host: Host) -> None:
    done = shell(*host.arguments(), "--td-quote", "td.quote", "--ak", "handle:0x81000003")
    assert done.code == 8
    assert "td.quote" in done.err


def test_a_command_that_is_not_there(shell: Shell, host: Host) -> None:
    done = shell(*host.arguments(), "--")
    assert done.code == 2
    assert "there is no command after --" in done.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fly", "--json"], "invalid choice: 'fly'"),
        (["measure", "--json", ".", "--windows", "1"], "unrecognized arguments: --windows 1"),
        (["measure", "--json", ".", "--", "x"], "only `run` takes a command"),
        (["measure", "--json", ".", "-o", "./m.json"], "-o FILE lies in DIR"),
        (["telemetry", "record", "--json"], "required: --seconds, --label, -o/--out"),
        (["measure", "--json", "\udcff", "--fly"], "--fly"),
    ],
)
def test_whoever_reads_json_gets_a_document_of_wrong_arguments(shell: Shell, arguments: list[str], text: str) -> None:
    done = shell(*arguments)
    document = json.loads(done.out)
    assert done.code == document["exit"] == 2
    assert (document["schema"], document["code"]) == ("weighbridge/error/v1", None)
    assert text in document["message"]
    assert done.err.startswith(f"weighbridge-attester: error: {document['message']}\n")


def test_the_servers_json_is_not_ours(shell: Shell) -> None:
    assert shell("measure", ".", "--", "server", "--json").out == ""


def error_of(done: Transcript) -> str:
    lines = done.err.splitlines()
    assert lines[0].startswith("weighbridge-attester: error: ")
    assert lines[1:] == [] or lines[1].startswith("hint: ")
    assert len(lines) <= 2
    assert "Traceback" not in done.err
    return lines[0]


@pytest.mark.parametrize(
    ("option", "content", "code", "text"),
    [
        ("verifier-key", None, 8, "FILE_UNREADABLE: cannot read verifier's key"),
        ("verifier-key", b"{}", 3, "FIELD_MISSING"),
        ("verifier-ca", None, 8, "FILE_UNREADABLE: cannot read verifier's certificate authority"),
        ("manifest", None, 8, "FILE_UNREADABLE: cannot read manifest"),
        ("manifest", b"[]", 3, "FIELD_TYPE"),
    ],
)
def test_files_are_read_before_anything_is_touched(
    shell: Shell, host: Host, tmp_path: Path, option: str, content: bytes | None, code: int, text: str
) -> None:
    path = tmp_path / "given"
    if content is not None:
        path.write_bytes(content)
    done = shell(*host.arguments(**{option: path}))
    assert (done.code, done.out) == (code, "")
    assert text in error_of(done)


def test_a_host_without_keys(shell: Shell, host: Host, tmp_path: Path) -> None:
    done = shell(*host.arguments(state=tmp_path / "empty"))
    assert done.code == 8
    assert "FILE_UNREADABLE" in error_of(done)
    assert "hint: run `weighbridge-attester init --state DIR` first" in done.err


def test_a_host_without_a_certificate(shell: Shell, host: Host) -> None:
    (host.state / "channel.pem").unlink()
    done = shell(*host.arguments())
    assert done.code == 8
    assert "there is no certificate for the attester's channel key yet" in error_of(done)
    assert "channel.csr" in done.err


@pytest.mark.parametrize(
    ("tcti", "text"),
    [
        ("swtpm:path=/nonexistent/tpm", "TPM_ABSENT: no TPM there"),
        ("device:/dev/nonexistent", "TPM_ABSENT: no TPM there"),
        ("tabrmd:", "TPM_ABSENT: not a known way to reach a TPM"),
    ],
)
def test_no_tpm(shell: Shell, host: Host, tcti: str, text: str) -> None:
    done = shell(*host.arguments(tcti=tcti))
    assert (done.code, done.out) == (8, "")
    assert text in error_of(done)
    assert done.err.splitlines()[1].startswith("hint: ")


def test_json_says_errors_too(shell: Shell, host: Host) -> None:
    done = shell(*host.arguments(), "--json")
    document = json.loads(done.out)
    assert (document["schema"], document["code"], document["exit"]) == ("weighbridge/error/v1", "TPM_ABSENT", 8)
    assert done.code == 8


def test_a_traceback_only_when_asked_for(shell: Shell, host: Host) -> None:
    done = shell("--debug", *host.arguments())
    assert done.code == 8
    assert "Traceback" in done.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyError("x"), 1, "internal error: KeyError: 'x'"),
        (KeyboardInterrupt(), 8, "interrupted"),
        (BrokenPipeError(), 8, "output closed"),
    ],
)
def test_what_is_nobodys_error(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("weighbridge.attester.commands.init.run", fail)
    done = shell("init", "--state", "x")
    assert done.code == code
    assert text in done.err
    assert "Traceback" not in done.err
    if code == 1:
        assert "Traceback" in shell("--debug", "init", "--state", "x").err


def interrupted(_: object = None) -> Never:
    raise KeyboardInterrupt


def test_an_interrupt_while_the_grammar_is_built(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.attester.cli._parser", interrupted)
    done = shell("doctor")
    assert (done.code, done.out, done.err) == (8, "", "weighbridge-attester: interrupted\n")


def test_an_interrupt_while_the_command_line_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = ModuleType("weighbridge.attester.cli")
    vars(loading)["__getattr__"] = interrupted
    monkeypatch.setitem(sys.modules, loading.__name__, loading)
    assert entry.main() == ExitCode.ENVIRONMENT
    assert capsys.readouterr() == ("", "weighbridge-attester: interrupted\n")


def test_measure_is_there(shell: Shell, tmp_path: Path) -> None:
    done = shell("measure", write_model(tmp_path / "model"))
    assert done.code == 0
    assert done.out.startswith("model    model\n")


def test_the_epilog_names_what_the_command_is_told() -> None:
    for name in ("WEIGHBRIDGE_WORKLOAD", "WEIGHBRIDGE_TLS_CERT", "WEIGHBRIDGE_TLS_KEY", "WEIGHBRIDGE_PORT_FILE"):
        assert name in run_command.EPILOG
