"""docs/ledger.md does what it says: ledgers are audited by our command line, and by readers that are not ours."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.console import follow
from weighbridge.proto import note
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.ledger import Ledger

ORIGIN: Final = "ledger.example/windows"
PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY: Final = note.NoteKey(ORIGIN, PRIVATE.public_key().public_bytes_raw())
_OURS: Final = "## With our command line"
_THEIRS: Final = "## Without a line of our code"
_END: Final = "## Watching a log"


def entry(number: int) -> bytes:
    return b"entry %d" % number * (1 + number % 7)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the document begins with: the ledger, what was kept of it, two entries, and keys."""
    with Ledger.create(tmp_path / "ledger", origin=ORIGIN, key=PRIVATE) as ledger:
        kept = ledger.append([entry(number) for number in range(300)]).checkpoint_note
        ledger.append([entry(number) for number in range(300, 700)])
    (tmp_path / "checkpoint.kept").write_bytes(kept)
    for number in (301, 302):
        (tmp_path / f"{number}.entry").write_bytes(entry(number))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ledger.pem").touch(mode=0o600)
    pem = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "keys/ledger.pem").write_bytes(pem)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    anchor = Anchor("ledger", ORIGIN, "weighbridge", KEY.spki, at, at, "a test")
    (tmp_path / "anchors.json").write_bytes(TrustAnchors((anchor,)).encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _sections(root: Path, begin: str, end: str) -> str:
    text = (root / "docs/ledger.md").read_text(encoding="utf-8")
    return text[text.index(begin) : text.index(end)]


def test_with_our_command_line(root: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = follow(_sections(root, "## What is served", _THEIRS), folder, capfd)
    verbs = {command.split()[2] for command in done}
    assert verbs == {"audit", "prove", "verify", "receipt"}
    assert (folder / "ledger.vkey").read_text() == f"{KEY.vkey}\n"


@pytest.mark.peer
def test_without_a_line_of_our_code(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [root / ".peers/tlog/bin", root / ".peers/scitt-cose/bin"]
    if not (folders[0] / "ledger-audit").exists() or not (folders[1] / "scitt-cose").exists():
        pytest.skip("no independent readers of the ledger: run scripts/setup --peers")
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    done = follow(_sections(root, "## What is served", _END), folder, capfd)
    theirs = [command.split()[0] for command in done if not command.startswith("weighbridge ")]
    assert theirs == [*["ledger-audit"] * 3, *["tlog-tiles"] * 2, "(printf", "scitt-cose"]
