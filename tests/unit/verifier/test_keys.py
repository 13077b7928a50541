"""The verifier's keys on disk: both or none, private or refused."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fakes.broken_files import Broken, FaultyFiles
from weighbridge.proto import cose
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.note import NoteKey
from weighbridge.verifier.anchors import TrustAnchors, load
from weighbridge.verifier.keys import VerifierKeys


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    VerifierKeys.create(tmp_path / "keys")
    return tmp_path / "keys"


def code_of(directory: Path) -> Code:
    with pytest.raises(EnvironmentFault) as caught:
        VerifierKeys.open(directory)
    return caught.value.code


def test_create_and_open(tmp_path: Path) -> None:
    created = VerifierKeys.create(tmp_path / "keys")
    opened = VerifierKeys.open(tmp_path / "keys")
    assert opened.thumbprint == created.thumbprint == cose.thumbprint(created.signing.public_key())
    assert opened.ledger_spki == created.ledger_spki
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {
        "signing.pem": 0o600,
        "ledger.pem": 0o600,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_signatures_are_those_of_cose(directory: Path) -> None:
    keys = VerifierKeys.open(directory)
    message = cose.sign(b"payload", kid=keys.thumbprint, typ="test", signer=keys.sign)
    parsed = cose.parse(message, typ="test", limit=1000, what="message")
    assert cose.verify(parsed, keys.signing.public_key()) == b"payload"


def test_keys_are_not_printed(directory: Path) -> None:
    keys = VerifierKeys.open(directory)
    assert repr(keys) == f"VerifierKeys(thumbprint={keys.thumbprint.hex()})"


def test_anchors(directory: Path) -> None:
    keys = VerifierKeys.open(directory)
    anchors = keys.anchors(
        name="verifier.example",
        origin="ledger.example/windows",
        platform="weighbridge",
        not_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2027, 1, 1, tzinfo=UTC),
    )
    again = load(TrustAnchors(anchors).encode())
    (ledger,) = again.select("ledger")
    assert NoteKey.from_spki(ledger.name, ledger.spki).public == keys.ledger.public_key().public_bytes_raw()
    assert [anchor.spki for anchor in again.select("verifier")] == [keys.signing_spki]


def test_nothing_is_overwritten(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(EnvironmentFault) as caught:
        VerifierKeys.create(directory)
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in directory.parent.iterdir()] == ["keys"]


def test_an_empty_directory_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    VerifierKeys.create(tmp_path / "keys")
    VerifierKeys.open(tmp_path / "keys")


@pytest.mark.parametrize("how", Broken)
def test_every_write_broken(tmp_path: Path, how: Broken) -> None:
    """Both keys are there, or none and creating them again works."""
    for at in range(1, 6):
        directory = tmp_path / f"{at}"
        with pytest.raises(EnvironmentFault) as caught:
            VerifierKeys.create(directory, files=FaultyFiles(at=at, how=how))
        assert caught.value.code is Code.DISK_FULL
        if not directory.exists():
            VerifierKeys.create(directory)
        VerifierKeys.open(directory)
    assert len(list(tmp_path.iterdir())) == 5


def test_parent_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        VerifierKeys.create(tmp_path / "a" / "keys")
    assert caught.value.code is Code.FILE_UNWRITABLE


@pytest.mark.parametrize(
    ("name", "mode"), [(".", 0o750), (".", 0o701), ("signing.pem", 0o640), ("ledger.pem", 0o604), ("ledger.pem", 0o620)]
)
def test_exposed_keys_are_refused(directory: Path, name: str, mode: int) -> None:
    (directory / name).chmod(mode)
    assert code_of(directory) is Code.KEY_EXPOSED


def test_keys_of_somebody_else_are_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    assert code_of(directory) is Code.KEY_EXPOSED


def pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_files_that_are_not_such_keys(directory: Path) -> None:
    good = (directory / "signing.pem").read_bytes()
    for name, content in (
        ("signing.pem", b"junk"),
        ("signing.pem", (directory / "ledger.pem").read_bytes()),
        ("signing.pem", pem(ec.generate_private_key(ec.SECP384R1()))),
        ("ledger.pem", good),
    ):
        before = (directory / name).read_bytes()
        (directory / name).write_bytes(content)
        assert code_of(directory) is Code.STATE_CORRUPT
        (directory / name).write_bytes(before)
    VerifierKeys.open(directory)


def test_files_that_are_not_there(directory: Path, tmp_path: Path) -> None:
    assert code_of(tmp_path / "none") is Code.FILE_UNREADABLE
    (tmp_path / "file").touch(mode=0o600)
    assert code_of(tmp_path / "file") is Code.FILE_UNREADABLE
    (directory / "ledger.pem").unlink()
    assert code_of(directory) is Code.FILE_UNREADABLE
    (directory / "ledger.pem").symlink_to(directory / "signing.pem")
    assert code_of(directory) is Code.FILE_UNREADABLE
    (directory / "ledger.pem").unlink()
    (directory / "ledger.pem").mkdir(mode=0o700)
    assert code_of(directory) is Code.FILE_UNREADABLE
