"""JUnit reports are well-formed XML whatever a test printed, and say what came of each test."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.authoring.coverage import Coverage
from weighbridge.policy.authoring.junit import encode
from weighbridge.policy.authoring.testing import Report, Result

GOOD = Result("rule", "a_test.rego", 3, "test_a", (), (), 0.25)
BAD = Result("rule", "a_test.rego", 9, "test_b", ('"x" < 1 & more',), ("a\x1b[31m line",), 0.5, ("because",))
GOLDEN = Result("golden", "g/x.golden.json", None, "", ("- deny A",), (), 0.0)


def read(*results: Result) -> ET.Element:
    return ET.fromstring(encode(Report(results, Coverage(()))))  # noqa: S314 - what we wrote ourselves


def test_each_file_is_a_suite_and_each_test_a_case() -> None:
    root = read(GOOD, BAD, GOLDEN)
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("time")) == ("testsuites", "3", "2", "0.750000")
    assert [(suite.get("name"), suite.get("failures")) for suite in root] == [
        ("a_test.rego", "1"),
        ("g/x.golden.json", "1"),
    ]
    good, bad, golden = root.iter("testcase")
    assert (good.get("name"), good.get("line"), len(good)) == ("test_a", "3", 0)
    failure, printed = bad
    assert (failure.tag, failure.get("message")) == ("failure", '"x" < 1 & more')
    assert failure.text == '"x" < 1 & more\nbecause'
    assert (printed.tag, printed.text) == ("system-out", "a\\x1b[31m line")
    assert (golden.get("name"), golden.get("line")) == ("g/x.golden.json", None)


@given(st.text(), st.text(), st.text())
def test_any_text_is_well_formed(name: str, failure: str, printed: str) -> None:
    root = read(Result("golden", name, None, name, (failure, failure), (printed,), 0.0))
    (case,) = root.iter("testcase")
    if all(0x20 <= ord(char) < 0xD800 for char in name) and name:
        assert case.get("name") == name
    assert [part.tag for part in case] == ["failure", "system-out"]
