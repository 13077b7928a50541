"""The script that keeps skips honest."""

from __future__ import annotations

from pathlib import Path

import check_skips
import pytest

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_runs"/>
<testcase classname="tests.unit.test_a" name="test_y[a/b]"><skipped type="pytest.skip" message="no TPM"/></testcase>
<testcase classname="tests.unit.test_a.TestZ" name="test_w"><skipped type="pytest.skip" message="no GPU"/></testcase>
<testcase classname="tests.unit.test_a" name="test_x"><skipped type="pytest.xfail" message="bug"/></testcase>
<testcase classname="" name="tests.unit.test_b"><skipped type="pytest.skip" message="no peer"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def skips(tmp_path: Path) -> list[check_skips.Skip]:
    report = tmp_path / "junit.xml"
    report.write_text(REPORT)
    return check_skips.skips_in(report)


def test_reads_skips_but_not_expected_failures(skips: list[check_skips.Skip]) -> None:
    assert [skip.node for skip in skips] == [
        "tests/unit/test_a.py::test_y[a/b]",
        "tests/unit/test_a.py::TestZ::test_w",
        "tests/unit/test_b.py::*",
    ]


def test_only_a_named_skip_is_allowed(skips: list[check_skips.Skip]) -> None:
    allowed = check_skips.parse_list("# why\ntests/unit/test_a.py::test_y* | needs a discrete TPM\n")
    assert [skip.reason for skip in check_skips.not_allowed(skips, allowed)] == ["no GPU", "no peer"]


@pytest.mark.parametrize(
    "line", ["tests/a.py::x", "tests/a.py::x | short", "* | everything at once", "tests/* | whole folder"]
)
def test_refuses_a_line_without_a_reason_or_a_test(line: str) -> None:
    with pytest.raises(check_skips.MalformedListError):
        check_skips.parse_list(line)
