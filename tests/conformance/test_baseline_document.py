"""docs/baseline.md does what it says: its commands are run on emulated GPUs, what they print is compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.console import follow
from weighbridge.proto.baseline import BaselineSet, Profile, SignedBaselineSet
from weighbridge.verifier import baseline_set
from weighbridge.verifier.anchors import load
from weighbridge.verifier.baselines import Baselines
from weighbridge.verifier.clock import moment
from weighbridge.verifier.telemetry.detector.calibration import ASSUMPTIONS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def text(root: Path) -> str:
    return (root / "docs" / "baseline.md").read_text(encoding="utf-8")


def test_the_document_does_what_it_says(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    done = follow(text, tmp_path, capfd)
    assert len(done) >= 12
    for verb in ("key", "fit", "show", "compare", "power"):
        assert any(command.startswith(f"weighbridge baseline {verb} ") for command in done)
    assert (tmp_path / "baseline.png").stat().st_size > 10_000
    # What it ends with is what a verifier takes in force, for the GPU and the manifest that were recorded.
    anchors = load((tmp_path / "physics.json").read_bytes())
    verified = baseline_set.verify((tmp_path / "chat.baseline").read_bytes(), anchors=anchors)
    (profile,) = verified.content.profiles
    assert profile.device is not None
    assert profile.scope.model is not None
    at = moment(verified.content.not_before_ns)
    assert Baselines([verified]).choose(profile.device, profile.scope.model, at) is not None
    _files_are_as_described(text, verified.content, profile)
    SignedBaselineSet.parse((tmp_path / "chat.baseline").read_bytes())


def _files_are_as_described(text: str, content: BaselineSet, profile: Profile) -> None:
    """Every member of the files is in the document, in its place."""
    files = text[text.index("## The files") :]
    for key in profile.document():
        assert f"`{key}`" in files, key
    for key in profile.scope.to_json():
        assert f"`{key}`" in files, key
    for line in ("owner", "name", "number", "issued_ns", "not_before_ns", "not_after_ns", "profiles", "note"):
        assert f'"{line}"' in files
        assert hasattr(content, line)


def test_every_promise_has_its_assumption(text: str) -> None:
    promises = text[text.index("## What is promised") : text.index("## Poisoning")]
    assert len(ASSUMPTIONS) == 3
    for words in ("exchangeable", "strays from its baseline", "scores as the calibration's did"):
        assert words in promises
    assert "a distribution-free 1 % takes 99" in promises


def test_weights_are_never_said_to_be_verified_by_it(text: str) -> None:
    assert "weights verified" not in text.lower()
    assert "never vouch for weights" in text


def test_links_lead_somewhere(root: Path, text: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert [link for link in links if not (root / "docs" / link).is_file()] == []
