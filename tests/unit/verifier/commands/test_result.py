"""``weighbridge result`` and ``serve``: what is missing is named, with what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from weighbridge.proto.errors import ExitCode
from weighbridge.verifier.cli import main

if TYPE_CHECKING:
    from pathlib import Path

LINE = ["--verifier", "localhost:1", "--verifier-ca", "x", "--key", "x", "--certificate", "x"]


def test_without_grpc_it_says_which_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "weighbridge.verifier.result_client", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert main(["result", "00" * 16, *LINE]) == ExitCode.ENVIRONMENT
    said = capsys.readouterr().err
    assert "TOOL_MISSING" in said
    assert "weighbridge[server]" in said


def test_a_session_has_32_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["result", "00", *LINE]) == ExitCode.USAGE
    assert "SESSION" in capsys.readouterr().err


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["result", "00" * 16, *LINE[:2], "--verifier-ca", str(tmp_path / "none"), *LINE[4:]]) == (
        ExitCode.ENVIRONMENT
    )
    assert "FILE_UNREADABLE" in capsys.readouterr().err


def test_an_authority_of_nobody_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--requirements", "r", "--reference", "v", "--policy", "production", "--relying-party-ca", "ca.pem"]
    assert main(["serve", str(tmp_path), *given]) == ExitCode.USAGE
    assert "--relying-parties" in capsys.readouterr().err
