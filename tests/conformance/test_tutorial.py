"""docs/policy-tutorial.md does what it says: its files are written, its commands run, their output compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from corpus.bundle import believed, export
from support.console import follow, pattern
from support.world import World, requirements

if TYPE_CHECKING:
    from pathlib import Path

    from support.world import Engines

TUTORIAL: Final = "policy-tutorial.md"
WINDOWS: Final = 3


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engines: Engines) -> Path:
    """A directory in which the demonstration has left what the tutorial looks at."""
    (tmp_path / "demo-out" / "verifier").mkdir(parents=True)
    wanted = requirements(tenant="demo-tenant", audience="demo-gate")
    world = World.make(tmp_path / "demo-out" / "verifier", engines=engines, wanted=wanted)
    world.host.tenant, world.host.audience = "demo-tenant", "demo-gate"
    world.open_session()
    for _ in range(WINDOWS):
        assert world.window().verdict.opens
    world.verifier.close(world.host.session, peer=world.host.peer)
    (tmp_path / "demo-out" / "session.wb").write_bytes(export(world).encode())
    (tmp_path / "demo-out" / "anchors.json").write_bytes(believed(world).encode())
    (tmp_path / "demo-out" / "reference.json").write_bytes(world.reference.to_json())
    world.close()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tutorial_does_what_it_says(root: Path, desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (root / "docs" / TUTORIAL).read_text(encoding="utf-8")
    done = follow(text, desk, capfd)
    assert len(done) >= 20
    for verb in ("init", "check", "test", "eval", "docs", "explain", "replay", "key", "bundle sign", "bundle verify"):
        assert f"$ weighbridge policy {verb} " in text


def test_links_of_the_tutorial_lead_somewhere(root: Path) -> None:
    text = (root / "docs" / TUTORIAL).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((root / "docs" / link).is_file() for link in links)


@pytest.mark.parametrize(
    ("expected", "printed", "matches"),
    [
        ("a b\n", "a b\n", True),
        ("a b\n", "a c\n", False),
        ("a … c\n", "a bb c\n", True),
        ("a … c\n", "a bb\nc\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nc\n", "a\nb\nd\n", False),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_only_what_is_marked_is_left_out(expected: str, printed: str, *, matches: bool) -> None:
    assert bool(pattern(expected).fullmatch(printed)) == matches
