"""In what is shipped nothing is found: policies, their tests, and the scenarios that authors begin from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from weighbridge.policy.authoring.checking import check_sources
from weighbridge.policy.authoring.sources import collect

ROOM: Final = Path(__file__).parents[3] / "policy" / "weighbridge" / "policy"
POLICIES: Final = sorted(path for path in (ROOM / "rego").glob("*.rego") if path.name != "lib.rego")
SCENARIOS: Final = sorted(path for path in (ROOM / "authoring" / "scenarios").iterdir() if path.is_dir())


def test_there_are_policies_and_scenarios() -> None:
    assert {path.stem for path in POLICIES} >= {"production", "insecure_development", "audit_only"}
    assert len(SCENARIOS) > 1


@pytest.mark.parametrize("path", POLICIES, ids=[path.stem for path in POLICIES])
def test_a_shipped_policy_and_its_tests(path: Path) -> None:
    sources = collect([path, path.parent / "tests" / f"{path.stem}_test.rego"])
    assert sources.tests
    checked = check_sources(sources)
    assert (checked.parsed, checked.findings) == (True, ())


def test_the_librarys_tests() -> None:
    folder = ROOM / "rego"
    assert check_sources(collect([folder / "production.rego", folder / "tests" / "lib_test.rego"])).findings == ()


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.name for path in SCENARIOS])
def test_a_scenario(path: Path) -> None:
    checked = check_sources(collect([path]))
    assert (checked.parsed, checked.findings) == (True, ())
