"""Version and changelog agree, or the gate says what does not."""

from __future__ import annotations

import check_version
import pytest

OPEN = "# Changelog\n\n## [Unreleased]\n\nTo be released as 0.2.0.\n\n## [0.1.0] - 2026-01-31\n"


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_agrees(version: str) -> None:
    assert check_version.problems(version, OPEN) == []


@pytest.mark.parametrize(
    ("version", "changelog"),
    [
        ("0.0.9", OPEN),
        ("0.3.0", OPEN),
        ("0.2", OPEN),
        ("0.1.0", "## [0.1.0] - 2026-01-31\n"),
        ("0.1.0", "## [Unreleased]\n\n## [0.1.0]\n"),
        ("0.1.0", "## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n\n## [0.1.0] - 2026-01-30\n"),
    ],
)
def test_disagrees(version: str, changelog: str) -> None:
    assert len(check_version.problems(version, changelog)) == 1
