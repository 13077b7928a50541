"""``weighbridge verify token``, as a relying party sees it, on the protocol's own token: its status is ``warning``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import protocol_example as example
import protocol_vectors as document
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import strict
from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.cli import main


@pytest.fixture
def arguments(root: Path, tmp_path: Path) -> list[str]:
    vectors = document.read_vectors((root / "docs" / "protocol.md").read_text(encoding="utf-8"))
    spki = example.VERIFIER_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    since, until = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC)
    anchor = Anchor("verifier", "an example", "weighbridge", spki, since, until, "a test")
    (tmp_path / "anchors.json").write_bytes(TrustAnchors((anchor,)).encode())
    (tmp_path / "token").write_bytes(vectors["token"]["token"])
    given = [str(tmp_path / "token"), "--anchors", str(tmp_path / "anchors.json"), "--audience", example.AUDIENCE]
    return ["verify", "token", *given, "--at", strict.time_encode(example.RECEIVED)]


def test_a_status_that_is_not_accepted_is_said_to_be_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.DENIED
    out = capsys.readouterr().out
    assert out.startswith("REFUSED: ")
    assert "hint: --accept warning" in out


def test_a_status_that_is_accepted_is_not(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--accept", "warning"]) == ExitCode.AFFIRMED
    out = capsys.readouterr().out
    assert out.startswith("WARNING: session ")
    assert "REFUSED" not in out
    assert "hint" not in out
