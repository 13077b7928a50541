"""Checks that pyproject.toml and CHANGELOG.md agree about the version: released there, or named as the next one."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def problems(version: str, changelog: str) -> list[str]:
    """What does not agree, one sentence each; nothing if all does."""
    headings = [(match["version"], match["date"]) for match in _HEADING.finditer(changelog)]
    if not headings or headings[0][0] != "Unreleased":
        return ["CHANGELOG.md: the first section is not [Unreleased]"]
    found: list[str] = []
    released = [name for name, _ in headings[1:]]
    found += [f"CHANGELOG.md: [{name}] has no date" for name, date in headings[1:] if date is None]
    found += [
        f"CHANGELOG.md: [{name}] appears twice" for name in sorted({n for n in released if released.count(n) > 1})
    ]
    if re.fullmatch(r"\d+\.\d+\.\d+", version) is None:
        found.append(f"pyproject.toml: {version} is not of the form 1.2.3")
    elif released and _key(version) < _key(released[0]):
        found.append(f"pyproject.toml says {version}, but CHANGELOG.md has already released {released[0]}")
    elif version not in released and f"## [Unreleased]\n\nTo be released as {version}." not in changelog:
        found.append(f'CHANGELOG.md: {version} is neither released nor named ("To be released as {version}.")')
    return found


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main() -> int:
    """Prints what does not agree. Returns the exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = problems(project["version"], (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
