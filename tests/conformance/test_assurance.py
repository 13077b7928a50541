"""docs/assurance.md holds the figures that the repository does, and names a test for every fault that is promised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import assurance
import pytest
from spec_coverage import rows

if TYPE_CHECKING:
    from pathlib import Path

# What has to be survived. Each is the beginning of a row of the table, or more.
FAULTS = (
    "kill",
    "pause",
    "partition",
    "clock steps",
    "disk full",
    "corrupted files",
    "slow disk",
    "TPM death",
    "TPM reset",
    "GPU lost",
    "driver reload",
    "database failover",
    "certificate expiry",
)


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs" / "assurance.md").read_text(encoding="utf-8")


def test_what_is_written_by_the_script_is_up_to_date(text: str) -> None:
    assert assurance.render(text) == text


def test_every_fault_says_what_must_hold_and_names_tests_that_exist(root: Path, text: str) -> None:
    found = assurance.fault_rows(text)
    assert {fault.partition(":")[0] for fault, _, _ in found} == set(FAULTS)
    for fault, holds, tests in found:
        assert holds, fault
        assert tests, fault
        for path, name in tests:
            source = (root / path).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{path}::{name}"


def test_no_row_is_empty_and_no_piece_is_unaccounted_for(text: str) -> None:
    counted = re.findall(r"^\| (A\d\d) \| .* \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [number for number, *_ in counted] == [row.number for row in rows()]
    for number, cases, *kinds in counted:
        assert int(cases) == sum(map(int, kinds)), number
    (whole,) = re.findall(r"^\| all \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert int(whole[0]) == int(whole[1]) + int(whole[2]) > 0
