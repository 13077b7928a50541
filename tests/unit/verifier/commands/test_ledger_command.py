"""``weighbridge ledger``, as a user sees it: output, JSON and exit status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from weighbridge.proto import merkle, note
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.cli import main
from weighbridge.verifier.ledger import Ledger

ORIGIN = "ledger.example/windows"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VKEY = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw()).vkey


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    with Ledger.create(path, origin=ORIGIN, key=KEY) as ledger:
        (tmp_path / "kept").write_bytes(ledger.append([b"entry 0", b"entry 1"]).checkpoint_note)
        ledger.append([b"entry 2"])
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["ledger", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_prove_and_verify(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "prove", directory, 1, "--key", VKEY)
    assert (status, err) == (0, "")
    assert out.startswith("c2sp.org/tlog-proof@v1\nindex 1\n")
    (tmp_path / "proof").write_text(out)
    (tmp_path / "entry").write_bytes(b"entry 1")
    leaf = merkle.leaf_hash(b"entry 1").hex()
    for what in (("--entry", tmp_path / "entry"), ("--leaf-hash", leaf)):
        status, out, err = run(capsys, "verify", tmp_path / "proof", *what, "--key", VKEY)
        assert (status, out, err) == (0, f"in the ledger: entry 1 of 3 in {ORIGIN}\n", "")
    by_file = run(capsys, "prove", directory, 1, "--key", VKEY, "-o", tmp_path / "1.tlog-proof")
    assert by_file == (0, f"wrote {tmp_path}/1.tlog-proof: entry 1 of 3 in {ORIGIN}\n", "")
    assert (tmp_path / "1.tlog-proof").read_bytes() == (tmp_path / "proof").read_bytes()
    (tmp_path / "entry").write_bytes(b"entry X")
    status, out, err = run(capsys, "verify", tmp_path / "proof", "--entry", tmp_path / "entry", "--key", VKEY)
    assert (status, out) == (ExitCode.LEDGER_INCONSISTENT, "")
    assert f"LEDGER_PROOF: inclusion proof leads to another root, at {tmp_path / 'proof'}: " in err
    assert "hint: it is the proof of another entry" in err


def test_json(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proved = json.loads(run(capsys, "prove", directory, 2, "--key", VKEY, "--json")[1])
    assert (proved["schema"], proved["index"], proved["size"]) == ("weighbridge/ledger-prove/v1", 2, 3)
    assert proved["leaf_hash"] == merkle.leaf_hash(b"entry 2").hex()
    (tmp_path / "proof").write_text(proved["proof"])
    verified = json.loads(
        run(capsys, "verify", tmp_path / "proof", "--leaf-hash", proved["leaf_hash"], "--key", VKEY, "--json")[1]
    )
    assert (verified["schema"], verified["root"]) == ("weighbridge/ledger-verify/v1", proved["root"])
    audited = json.loads(run(capsys, "audit", directory, "--key", VKEY, "--json")[1])
    assert audited == {
        "schema": "weighbridge/ledger-audit/v1",
        "origin": ORIGIN,
        "size": 3,
        "root": proved["root"],
        "entry_bytes": 21,
        "tiles": 1,
        "consistent_with": None,
        "witnesses": [],
    }


def test_audit(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "audit", directory, "--key", VKEY)
    assert (status, out.startswith("consistent: 3 entries, 1 tile, root ")) == (0, True)
    status, out, _ = run(capsys, "audit", directory, "--since", tmp_path / "kept", "--key", VKEY)
    assert (status, out.endswith("extends the checkpoint of 2\n")) == (0, True)
    (directory / "tile/entries/000.p/3").write_bytes(b"\x00\x00" * 3)
    status, out, err = run(capsys, "audit", directory, "--key", VKEY)
    assert (status, out) == (ExitCode.LEDGER_INCONSISTENT, "")
    assert "LEDGER_INCONSISTENT" in err


def test_key_from_an_anchors_document(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def anchors(*names: str) -> Path:
        spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        other = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        listed = (
            Anchor("ledger", name, "weighbridge", key, at, at, "a test")
            for name, key in zip(names, (spki, other), strict=False)
        )
        path = tmp_path / f"{len(names)}.json"
        path.write_bytes(TrustAnchors(tuple(listed)).encode())
        return path

    by_key = run(capsys, "audit", directory, "--key", VKEY)
    assert run(capsys, "audit", directory, "--key", anchors(ORIGIN)) == by_key
    assert run(capsys, "audit", directory, "--key", anchors("another"))[0] == ExitCode.NOT_AUTHENTIC
    for path in (anchors(), anchors(ORIGIN, "another"), directory / "checkpoint", "x" * 5000):
        assert run(capsys, "audit", directory, "--key", path)[0] == ExitCode.MALFORMED


def test_refusals(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = note.NoteKey(ORIGIN, bytes(32)).vkey
    (tmp_path / "junk").write_bytes(b"junk")
    for status, *arguments in (
        (ExitCode.NOT_AUTHENTIC, "audit", directory, "--key", stranger),
        (ExitCode.MALFORMED, "audit", directory, "--key", "no key"),
        (ExitCode.ENVIRONMENT, "audit", tmp_path, "--key", VKEY),
        (ExitCode.MALFORMED, "audit", directory, "--since", tmp_path / "junk", "--key", VKEY),
        (ExitCode.INDETERMINATE, "prove", directory, 3, "--key", VKEY),
        (ExitCode.MALFORMED, "verify", tmp_path / "junk", "--leaf-hash", "00" * 32, "--key", VKEY),
        (ExitCode.MALFORMED, "verify", tmp_path / "junk", "--leaf-hash", "00", "--key", VKEY),
        (ExitCode.ENVIRONMENT, "verify", tmp_path / "none", "--leaf-hash", "00" * 32, "--key", VKEY),
    ):
        got, out, err = run(capsys, *arguments)
        assert (got, out, "\nhint: " in err) == (status, "", True), err


def test_one_word_for_a_place_without_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_key(tmp_path / "key.pem", KEY)
    (tmp_path / "head").write_bytes(b"")
    state, key = ("--state", tmp_path / "state", "--once"), ("--key", VKEY)
    witness = note.encode_vkey("witness.example/w1", bytes(32), kind=b"\x04")
    said = {
        run(capsys, *arguments)[2]
        for arguments in (
            ("audit", tmp_path, *key),
            ("prove", tmp_path, 0, *key),
            ("receipt", tmp_path, 0, "--key-file", tmp_path / "key.pem", "-o", tmp_path / "r"),
            ("monitor", tmp_path, *state, *key),
            ("cosign", tmp_path, tmp_path / "head", "--witness", witness, *key),
        )
    }
    (text,) = said
    assert text.startswith(f"weighbridge: error: FILE_UNREADABLE: no ledger here, at {tmp_path / 'checkpoint'}\nhint: ")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("key.pem", "an Ed25519 private key"),
        ("checkpoint", "a signed note"),
        ("vkey", 'a key spelled name+keyid+base64\nhint: give the key itself: --key "$(cat FILE)"'),
        ("empty", "an empty file"),
    ],
)
def test_a_key_that_is_another_file(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    write_key(tmp_path / "key.pem", KEY)
    (tmp_path / "checkpoint").write_bytes((directory / "checkpoint").read_bytes())
    (tmp_path / "vkey").write_text(VKEY + "\n")
    (tmp_path / "empty").touch()
    status, _, err = run(capsys, "audit", directory, "--key", tmp_path / name)
    assert (status, f"KEY_MALFORMED: a file of another kind, at {tmp_path / name}" in err) == (3, True)
    assert f"expected an anchors document, got {kind}" in err


def test_a_key_of_the_other_kind_or_none(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    witness = note.encode_vkey("witness.example/w1", bytes(32), kind=b"\x04")
    status, _, err = run(capsys, "audit", directory, "--key", witness)
    assert (status, "expected a ledger's key, got a witness's key" in err) == (3, True)
    _, _, err = run(capsys, "audit", directory, "--key", "anchors.json.old")
    assert "no such file, and not a key" in err
    assert "hint: --key is the public key that `weighbridge init` printed" in err
    _, _, err = run(capsys, "audit", directory, "--key", VKEY, "--witness", VKEY)
    assert "hint: --witness is the key that `weighbridge ledger witness-key` printed" in err


def test_a_proof_that_is_another_file(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = run(capsys, "prove", directory, 1, "--key", VKEY)[1].encode()
    (tmp_path / "file").write_bytes(proof[:40])
    verify = ("verify", tmp_path / "file", "--leaf-hash", "00" * 32, "--key", VKEY)
    assert f"proof ends before its checkpoint: it is cut short, at {tmp_path / 'file'}: " in run(capsys, *verify)[2]
    (tmp_path / "file").write_bytes(TrustAnchors(()).encode())
    status, _, err = run(capsys, *verify)
    assert (status, "neither a proof nor a receipt, at " in err, "got a JSON document" in err) == (3, True, True)


@pytest.mark.parametrize(
    "command", ["prove", "receipt", "verify", "audit", "monitor", "witness", "witness-key", "cosign", "compare"]
)
def test_help_says_what_it_does_and_how_it_ends(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, command, "--help")
    about = out.partition("\n\n")[2].partition("positional arguments")[0]
    assert (status, "Exit" in about, len(about) > 200) == (0, True, True)


@pytest.mark.parametrize("index", ["-1", "+1", "1_0", "one", " 1"])
def test_no_lenient_index(directory: Path, index: str) -> None:
    assert main(["ledger", "prove", str(directory), index, "--key", VKEY]) == ExitCode.USAGE
