"""Transcripts of ``weighbridge-attester model``: command, standard output, standard error, exit status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.model_signers import END, NOW, certify, hierarchy, private_pem, public_pem
from fakes.models import flip_bit, write_model
from weighbridge.attester import cli
from weighbridge.proto import cose, strict
from weighbridge.proto.model_signing import Bundle

KEY = ec.generate_private_key(ec.SECP256R1())
PKI = hierarchy()


@dataclass(frozen=True)
class Transcript:
    code: int
    out: str
    err: str


class Desk:
    """A model, and files of keys beside it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.folder = folder
        self.model = write_model(folder / "model")
        self.key = self.write("key.pem", private_pem(KEY))
        self.public = self.write("public.pem", public_pem(KEY))
        self.signature = folder / "model.sig"

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def __call__(self, action: str, *arguments: object) -> Transcript:
        code = cli.main(["model", action, str(self.model), *(str(argument) for argument in arguments)])
        captured = self._capsys.readouterr()
        return Transcript(code, captured.out, captured.err)

    def sign(self, *arguments: object) -> Transcript:
        return self("sign", "--private-key", self.key, "-o", self.signature, *arguments)

    def verify(self, *arguments: object) -> Transcript:
        return self("verify", "--signature", self.signature, "--public-key", self.public, *arguments)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_key(desk: Desk) -> None:
    thumbprint = cose.thumbprint(KEY.public_key()).hex()
    signed = desk.sign()
    root = Bundle.parse(desk.signature.read_bytes()).statement.root.hex()
    assert (signed.code, signed.err) == (0, "")
    assert signed.out.splitlines() == [
        "model       model",
        f"signer      sha256 {thumbprint}",
        "resources   3 files, sha256",
        f"digest      sha256 {root}",
        "ignored     .git, .gitattributes, .github, .gitignore",
        f"signature   {desk.signature}",
    ]
    verified = desk.verify()
    assert (verified.code, verified.err) == (0, "")
    lines = verified.out.splitlines()
    assert lines[:7] == [
        "model       model",
        f"signer      the holder of the trusted key, sha256 {thumbprint}",
        "resources   3 files, sha256",
        f"digest      sha256 {root}",
        "bytes       0.0 MB, all read",
        "ignored     .git, .gitattributes, .github, .gitignore",
        "unsigned    nothing",
    ]
    assert [line.split()[1] for line in lines[7:]] == ["config.json", "extra/vocab.txt", "model.safetensors"]


def test_long_work_says_how_far_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighbridge.attester.commands.progress._LOG_INTERVAL_S", 1e-9)
    for transcript in (desk.sign(), desk.verify()):
        assert transcript.code == 0
        assert transcript.err.startswith("hashed ")


def test_certificate(desk: Desk) -> None:
    key = desk.write("owner.key", PKI.signer.key_pem)
    own = desk.write("owner.pem", PKI.signer.pem)
    between = desk.write("between.pem", PKI.intermediate.pem)
    root = desk.write("root.pem", PKI.root.pem)
    at = strict.time_encode(NOW)
    signed = desk("sign", "--private-key", key, "--certificate", own, "--chain", between, "-o", desk.signature)
    assert (signed.code, signed.err) == (0, "")
    assert "signer      CN=Model Owner\n" in signed.out
    check = ("verify", "--signature", desk.signature, "--root", root)
    verified = desk(*check, "--at", at)
    assert (verified.code, verified.err) == (0, "")
    assert verified.out.splitlines()[1:5] == [
        "signer      CN=Model Owner",
        "issuer      CN=Model Authority",
        "root        CN=Model Root",
        "valid       2026-05-02 to 2026-07-01, judged at 2026-06-01T00:00:00Z",
    ]
    document = json.loads(desk(*check, "--at", at, "--json").out)
    assert document["signer"]["mode"] == "certificate"
    assert document["signer"]["judged_at"] == at
    late = desk(*check, "--at", strict.time_encode(END + timedelta(days=1)))
    assert late.code == 4
    assert late.err.startswith("weighbridge-attester: error: CHAIN_EXPIRED: ")
    assert "hint: " in late.err


def test_time_is_now_where_none_is_stated(desk: Desk) -> None:
    now = datetime.now(UTC)
    root = certify("Root", ca=True, begin=now - timedelta(days=2), end=now + timedelta(days=1))
    trust = desk.write("root.pem", root.pem)
    for end, code in ((now - timedelta(days=1), 4), (now + timedelta(days=1), 0)):
        owner = certify("Owner", issuer=root, begin=now - timedelta(days=2), end=end)
        key, own = desk.write("owner.key", owner.key_pem), desk.write("owner.pem", owner.pem)
        assert desk("sign", "--private-key", key, "--certificate", own, "-o", desk.signature).code == 0
        verified = desk("verify", "--signature", desk.signature, "--root", trust)
        assert (verified.code, "CHAIN_EXPIRED" in verified.err) == (code, code == 4)


def test_json_has_every_resource(desk: Desk) -> None:
    signed = json.loads(desk.sign("--method", "shards", "--json").out)
    assert signed["schema"] == "weighbridge/model-signature/v1"
    assert signed["signature"] == str(desk.signature)
    document = json.loads(desk.verify("--json").out)
    assert document["signer"] == {"mode": "key", "key": cose.thumbprint(KEY.public_key()).hex()}
    assert document["algorithm"] == "sha256-sharded-67108864"
    assert [resource["name"].split(":")[0] for resource in document["resources"]] == [
        "config.json",
        "extra/vocab.txt",
        "model.safetensors",
    ]
    assert {key: document[key] for key in ("ignored", "unsigned", "allow_symlinks")} == {
        "ignored": [],
        "unsigned": [],
        "allow_symlinks": False,
    }


def test_signature_within_the_directory_does_not_name_itself(desk: Desk) -> None:
    desk.signature = desk.model / "model.sig"
    assert desk.sign("--ignore", "extra/", "--json").code == 0
    document = json.loads(desk.verify("--json").out)
    assert document["ignored"] == ["model.sig"]
    assert document["ignored_by_signer"] == [
        ".git",
        ".gitattributes",
        ".github",
        ".gitignore",
        "extra",
        "model.sig",
    ]
    assert document["unsigned"] == ["extra/vocab.txt", "model.sig"]
    assert desk.sign().code == 0
    assert desk.verify().code == 0


def test_git_is_signed_where_it_is_asked_for(desk: Desk) -> None:
    (desk.model / ".gitattributes").write_text("*\n")
    assert ".gitattributes" not in desk.sign("--json").out.split('"resources"')[1]
    assert ".gitattributes" in desk.sign("--include-git", "--json").out.split('"resources"')[1]


@pytest.mark.parametrize("as_json", [False, True])
def test_difference_names_the_file(desk: Desk, as_json: bool) -> None:
    desk.sign()
    flip_bit(desk.model / "model.safetensors", 300)
    refused = desk.verify(*["--json"] if as_json else [])
    assert refused.code == 4
    assert "MODEL_FILE_DIFFERS" in refused.err
    assert "model.safetensors" in refused.err
    if as_json:
        assert json.loads(refused.out)["code"] == "MODEL_FILE_DIFFERS"
    else:
        assert refused.out == ""


def test_exit_status_by_what_is_wrong(desk: Desk) -> None:
    assert desk.verify().code == 8  # no signature there
    desk.signature.write_bytes(b"{}")
    assert desk.verify().code == 3
    desk.sign()
    desk.public.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    assert desk.verify().code == 4
    desk.public.write_bytes(b"")
    assert desk.verify().code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--signature", "s"], "one of the arguments --public-key --root --trusted-root is required"),
        (["verify", "--signature", "s", "--root", "r", "--public-key", "p"], "not allowed with argument"),
        (["verify", "--signature", "s", "--trusted-root", "t", "--identity", "i"], "belong together"),
        (["verify", "--signature", "s", "--root", "r", "--issuer", "i"], "belong together"),
        (["verify", "--signature", "-", "--root", "r"], "name a file"),
        (["verify", "--signature", "s", "--root", "r", "--at", "yesterday"], "not a UTC time"),
        (["verify", "--signature", "s", "--root", "r", "--ignore", "../x"], "name a path below DIR"),
        (["sign", "--private-key", "k"], "required: -o/--output"),
        (["sign", "--private-key", "k", "-o", "s", "--method", "both"], "invalid choice"),
        (["sign", "--private-key", "k", "-o", "s", "--chain", "c"], "--chain without --certificate"),
    ],
)
def test_mistakes(desk: Desk, arguments: list[str], message: str) -> None:
    refused = desk(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err


def test_long_lists_are_cut(desk: Desk) -> None:
    for index in range(30):
        (desk.model / f"{index:02}").touch()
        (desk.model / "extra" / f"{index:02}").touch()
    desk.sign("--ignore", "extra")
    out = desk.verify().out
    assert "… and 12 more; --json lists all" in out
    assert "extra/19, and 11 more" in out


def test_names_that_steer_a_terminal_are_escaped(desk: Desk) -> None:
    (desk.model / "\u202etxt.exe").touch()
    desk.sign()
    out = desk.verify().out
    assert "\\u202etxt.exe" in out
    assert "\u202e" not in out
