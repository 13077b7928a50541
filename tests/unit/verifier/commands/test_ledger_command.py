"""``weighbridge ledger``, as a user sees it: output, JSON and exit status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import merkle, note
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.cli import main
from weighbridge.verifier.ledger import Ledger

ORIGIN = "ledger.example/windows"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VKEY = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw()).vkey


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
    assert "LEDGER_PROOF" in err


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
    }


def test_audit(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "audit", directory, "--key", VKEY)
    assert (status, out.startswith("consistent: 3 entries, 1 tiles, root ")) == (0, True)
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
        assert run(capsys, *arguments)[0] == status


@pytest.mark.parametrize("index", ["-1", "+1", "1_0", "one", " 1"])
def test_no_lenient_index(directory: Path, index: str) -> None:
    assert main(["ledger", "prove", str(directory), index, "--key", VKEY]) == ExitCode.USAGE
