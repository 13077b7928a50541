"""``weighbridge ledger receipt`` and ``ledger verify`` of receipts, as a user sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from weighbridge.proto import merkle, note, receipt
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main
from weighbridge.verifier.ledger import Ledger

ORIGIN: Final = "ledger.example/windows"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
VKEY: Final = note.NoteKey(ORIGIN, KEY.public_key().public_bytes_raw()).vkey
LEAF: Final = merkle.leaf_hash(b"entry 1")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A ledger of three entries; ``empty``, ``one`` and ``two`` are what was published before."""
    for name, key in (("key.pem", KEY), ("other.pem", OTHER), ("p256.pem", ec.generate_private_key(ec.SECP256R1()))):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path = tmp_path / "ledger"
    with Ledger.create(path, origin=ORIGIN, key=KEY) as ledger:
        (tmp_path / "empty").write_bytes(ledger.checkpoint())
        (tmp_path / "one").write_bytes(ledger.append([b"entry 0"]).checkpoint_note)
        (tmp_path / "two").write_bytes(ledger.append([b"entry 1"]).checkpoint_note)
        ledger.append([b"entry 2"])
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["ledger", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_of_an_entry(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "1.receipt"
    made = run(capsys, "receipt", directory, 1, "--key-file", tmp_path / "key.pem", "-o", file)
    assert made == (0, f"wrote {file}: receipt of entry 1 of 3 in {ORIGIN}\n", "")
    (tmp_path / "entry").write_bytes(b"entry 1")
    for what in (("--entry", tmp_path / "entry"), ("--leaf-hash", LEAF.hex())):
        verified = run(capsys, "verify", file, *what, "--key", VKEY)
        assert verified == (0, f"in the ledger: entry 1 of 3 in {ORIGIN}\n", "")
    wrong = merkle.leaf_hash(b"entry 2").hex()
    status, out, err = run(capsys, "verify", file, "--leaf-hash", wrong, "--key", VKEY)
    assert (status, out) == (ExitCode.NOT_AUTHENTIC, "")
    assert "LEDGER_SIGNATURE" in err
    assert "hint: it is the receipt of another entry" in err


def test_of_consistency(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grown"
    since = ("--since", tmp_path / "two")
    made = run(capsys, "receipt", directory, *since, "--key-file", tmp_path / "key.pem", "-o", file)
    assert made == (0, f"wrote {file}: receipt that the tree of 3 in {ORIGIN} begins with all of the 2\n", "")
    verified = run(capsys, "verify", file, *since, "--key", VKEY)
    assert verified == (0, f"consistent: the tree of 3 in {ORIGIN} begins with all of the 2\n", "")
    status, _, err = run(capsys, "verify", file, "--since", tmp_path / "one", "--key", VKEY)
    assert (status, "LEDGER_PROOF" in err) == (ExitCode.LEDGER_INCONSISTENT, True)


def test_json(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--key-file", tmp_path / "key.pem", "-o", tmp_path / "r", "--json")
    made = json.loads(run(capsys, "receipt", directory, 1, *arguments)[1])
    parsed = receipt.parse((tmp_path / "r").read_bytes())
    assert made == {
        "schema": "weighbridge/ledger-receipt/v1",
        "kind": "inclusion",
        "origin": ORIGIN,
        "index": 1,
        "size": 3,
        "root": merkle.root([merkle.leaf_hash(b"entry %d" % number) for number in range(3)]).hex(),
        "leaf_hash": LEAF.hex(),
        "bytes": len(parsed.raw),
    }
    verified = json.loads(run(capsys, "verify", tmp_path / "r", "--leaf-hash", LEAF.hex(), "--key", VKEY, "--json")[1])
    assert verified == {
        **{key: made[key] for key in ("origin", "index", "size", "root", "leaf_hash")},
        "schema": "weighbridge/ledger-verify/v1",
    }
    grown = json.loads(run(capsys, "receipt", directory, "--since", tmp_path / "two", *arguments)[1])
    assert (grown["kind"], grown["consistent_with"], grown["size"]) == ("consistency", 2, 3)
    verified = json.loads(
        run(capsys, "verify", tmp_path / "r", "--since", tmp_path / "two", "--key", VKEY, "--json")[1]
    )
    assert verified == {
        **{key: grown[key] for key in ("origin", "consistent_with", "size", "root")},
        "schema": "weighbridge/ledger-verify/v1",
    }


def test_what_there_is_no_receipt_of(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def receipt_of(*what: object, key: str = "key.pem") -> tuple[int, str, str]:
        return run(capsys, "receipt", *what, "--key-file", tmp_path / key, "-o", tmp_path / "r")

    (tmp_path / "junk").write_bytes(b"junk")
    for status, word, what, key in (
        (ExitCode.INDETERMINATE, "EVIDENCE_ABSENT", (directory, 3), "key.pem"),
        (ExitCode.INDETERMINATE, "EVIDENCE_ABSENT", (directory, "--since", tmp_path / "empty"), "key.pem"),
        (ExitCode.INDETERMINATE, "EVIDENCE_ABSENT", (directory, "--since", directory / "checkpoint"), "key.pem"),
        (ExitCode.NOT_AUTHENTIC, "LEDGER_SIGNATURE", (directory, 1), "other.pem"),
        (ExitCode.MALFORMED, "PEM, got a P-256 private key\nhint: a ledger's is", (directory, 1), "p256.pem"),
        (ExitCode.MALFORMED, "KEY_MALFORMED: a file of another kind, at ", (directory, 1), "two"),
        (ExitCode.ENVIRONMENT, "FILE_UNREADABLE", (directory, 1), "none.pem"),
        (ExitCode.ENVIRONMENT, "no ledger here", (tmp_path, 1), "key.pem"),
        (ExitCode.MALFORMED, "LEDGER_MALFORMED", (directory, "--since", tmp_path / "junk"), "key.pem"),
        (ExitCode.USAGE, "exactly one of INDEX and --since", (directory,), "key.pem"),
        (ExitCode.USAGE, "exactly one of INDEX and --since", (directory, 1, "--since", tmp_path / "two"), "key.pem"),
        (ExitCode.USAGE, "INDEX", (directory, "+1"), "key.pem"),
    ):
        got, out, err = receipt_of(*what, key=key)
        assert (got, out, word in err) == (status, "", True), err
    (tmp_path / "key.pem").chmod(0o640)
    assert receipt_of(directory, 1)[0] == ExitCode.ENVIRONMENT
    assert not (tmp_path / "r").exists()


def test_a_receipt_that_is_cut_short(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "1.receipt"
    run(capsys, "receipt", directory, 1, "--key-file", tmp_path / "key.pem", "-o", file)
    file.write_bytes(file.read_bytes()[:100])
    status, _, err = run(capsys, "verify", file, "--leaf-hash", LEAF.hex(), "--key", VKEY)
    assert (status, "receipt ends too early: it is cut short" in err, f"at {file}: " in err) == (3, True, True)


def test_a_ledger_of_one_entry_gives_none(tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    young = tmp_path / "young"
    Ledger.create(young, origin=ORIGIN, key=KEY).close()
    with Ledger.open(young, origin=ORIGIN, key=KEY) as ledger:
        ledger.append([b"entry 0"])
    arguments = ("--key-file", tmp_path / "key.pem", "-o", tmp_path / "r")
    status, _, err = run(capsys, "receipt", young, 0, *arguments)
    assert (status, "a ledger of one entry gives no receipts" in err) == (ExitCode.INDETERMINATE, True)
    # It is shorter than what was kept of it: nothing is signed for such a ledger.
    status, _, err = run(capsys, "receipt", young, "--since", tmp_path / "two", *arguments)
    assert (status, "ledger is shorter than it was" in err) == (ExitCode.LEDGER_INCONSISTENT, True)
    assert directory.is_dir()


def test_nothing_is_signed_for_an_altered_ledger(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tile = directory / "tile/0/000.p/3"
    tile.write_bytes(tile.read_bytes()[:32] + bytes(32) + tile.read_bytes()[64:])
    arguments = ("--key-file", tmp_path / "key.pem", "-o", tmp_path / "r")
    for what in ((1,), ("--since", tmp_path / "one")):
        status, _, err = run(capsys, "receipt", directory, *what, *arguments)
        assert (status, f"at {directory}" in err, "hint: files of the ledger were altered" in err) == (7, True, True)
    assert not (tmp_path / "r").exists()


def test_what_is_verified_by_another_option(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file = ("--key-file", tmp_path / "key.pem")
    run(capsys, "receipt", directory, 1, *key_file, "-o", tmp_path / "1.receipt")
    run(capsys, "receipt", directory, "--since", tmp_path / "two", *key_file, "-o", tmp_path / "grown")
    run(capsys, "prove", directory, 1, "--key", VKEY, "-o", tmp_path / "1.tlog-proof")
    (tmp_path / "junk").write_bytes(b"\xd2junk")
    entry, since = ("--leaf-hash", LEAF.hex()), ("--since", tmp_path / "two")
    stranger = note.NoteKey(ORIGIN, OTHER.public_key().public_bytes_raw()).vkey
    renamed = note.NoteKey("other.example/windows", KEY.public_key().public_bytes_raw()).vkey
    for status, file, what, key in (
        (ExitCode.USAGE, "1.receipt", since, VKEY),
        (ExitCode.USAGE, "1.tlog-proof", since, VKEY),
        (ExitCode.USAGE, "grown", entry, VKEY),
        (ExitCode.MALFORMED, "junk", entry, VKEY),
        (ExitCode.MALFORMED, "junk", since, VKEY),
        (ExitCode.NOT_AUTHENTIC, "1.receipt", entry, stranger),
        (ExitCode.NOT_AUTHENTIC, "grown", since, stranger),
        (ExitCode.LEDGER_INCONSISTENT, "1.receipt", entry, renamed),
    ):
        got, out, err = run(capsys, "verify", tmp_path / file, *what, "--key", key)
        assert (got, out) == (status, ""), err
