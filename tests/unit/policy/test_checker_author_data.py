"""Paths under ``data.author``, looked at beside the author's own data; without data nothing is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from support.checked import NAME, TESTS, WHOLE, importing, library, of_check, parsed
from weighbridge.policy.authoring.checking import check_sources
from weighbridge.policy.authoring.sources import collect
from weighbridge.policy.authoring.trial import Trial
from weighbridge.policy.checker.check import check, check_tests
from weighbridge.policy.engines.regorus import RegorusEngine
from weighbridge.policy.policy_set import LIBRARY, AuthorData
from weighbridge.proto.errors import Code, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto.strict import JsonObject

CHECK: Final = "author-data-unknown"
AUTHOR: Final[JsonObject] = {
    "tenants": ["acme"],
    "limits": {"requests": 8},
    "sites": [{"name": "a"}],
    "owner": "us",
    "nothing": None,
}
FOUND: Final = {
    "a misspelt name": ("x if input.session.tenant in data.author.tenents\n", "data.author has no tenents", "tenants?"),
    "under not": ("x if not data.author.ownr == `us`\n", "data.author has no ownr", "did you mean owner?"),
    "in brackets": ('x if data.author["ownr"] == `us`\n', "data.author has no ownr", "did you mean owner?"),
    "further down": ("x if data.author.limits.request > 1\n", "data.author.limits has no request", "requests?"),
    "what leads on from nowhere": (
        "x if data.author.zzz.requests > 1\n",
        "data.author has no zzz",
        "there are: tenants",
    ),
    "inside of a text": (
        "x if data.author.owner.name == `us`\n",
        "data.author.owner has no name",
        "add it to data.json",
    ),
    "inside of null": ("x if data.author.nothing.name == `us`\n", "data.author.nothing has no name", "data.json"),
    "over it": ("x if { some t in data.author.tenents; t == `a` }\n", "data.author has no tenents", "tenants?"),
    "before a computed index": ("x if { some i in [0]; data.author.site[i] }\n", "data.author has no site", "sites?"),
}
SILENT: Final = {
    "names that are there": "x if data.author.limits.requests > 1\n\ny := data.author.tenants\n",
    "null": "x := data.author.nothing\n",
    "below a list": "x if data.author.sites[0].nam == `a`\n",
    "each of a list": "x if { some s in data.author.sites; s.nam == `a` }\n",
    "a computed index": "x if { some n in [`zzz`]; data.author[n].b == `a` }\n",
    "behind a variable": "x if { mine := data.author; mine.zzz == 1 }\n",
    "with a default": "x := object.get(data.author, `zzz`, 1)\n",
    "a variable of that name": "x if { some author in [{`zzz`: 1}]; author.zzz == 1 }\n",
    "all of them": "x := count(data.author)\n",
}


def of_policy(text: str, author: JsonObject | None) -> list[CheckerFinding]:
    (module,) = parsed({"policy": text}).values()
    return of_check(check((library(), module), LIBRARY, author), CHECK)


@pytest.mark.parametrize("name", FOUND)
def test_what_is_not_in_the_data_is_found_once_and_what_was_meant_is_said(name: str) -> None:
    rules, message, safe = FOUND[name]
    (found,) = of_policy(WHOLE + rules, AUTHOR)
    assert (found.module, found.severity, found.message) == (NAME, "error", message)
    assert safe in found.safe


@pytest.mark.parametrize("name", FOUND)
def test_nothing_is_said_where_there_are_no_data(name: str) -> None:
    assert of_policy(WHOLE + FOUND[name][0], None) == []


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said_of_what_is_there_or_cannot_be_known(name: str) -> None:
    assert of_policy(WHOLE + SILENT[name], AUTHOR) == []


def test_imports_are_looked_at() -> None:
    assert [found.line for found in of_policy(importing("import data.author.zzz.b") + "x := b\n", AUTHOR)] == [3]
    assert of_policy(importing("import data.author.limits") + "x := limits.requests\n", AUTHOR) == []
    (found,) = of_policy(importing("import data.author.limits as most") + "x := most.request\n", AUTHOR)
    assert found.message == "data.author.limits has no request"


def test_of_many_names_none_is_offered() -> None:
    many: JsonObject = {f"name{i}": i for i in range(1000)}
    (found,) = of_policy(WHOLE + "x := data.author.nam\n", many)
    assert "did you mean" not in found.safe


HEAD: Final = "package weighbridge.policy_test\n\n"


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("test_a if data.author.zzz == 1\n", 1),
        ("test_a if data.author.zzz == 1 with data.author as {`zzz`: 1}\n", 0),
        ("test_a if data.author.zzz == 1 with data.author.zzz as 1\n", 0),
        ("test_a if data.author.zzz == 1\n\ntest_b if input.gpus with data.author.owner as 1\n", 0),
        ("test_a if data.author.zzz == 1 with input as {}\n", 1),
    ],
)
def test_tests_that_replace_the_data_may_name_what_only_they_have(tests: str, expected: int) -> None:
    modules = parsed({"policy": WHOLE, "tests": HEAD + tests})
    own, beside = modules["policy"], replace(modules["tests"], name=TESTS)
    found = check_tests(
        (library(), own, beside), LIBRARY, tests=frozenset({TESTS}), examples=frozenset(), author=AUTHOR
    )
    assert len(of_check(found, CHECK)) == expected


RULES: Final = WHOLE + "allow if input.session.tenant in data.author.tenants\n"


def with_data(policy: PolicySet, author: JsonObject) -> PolicySet:
    return replace(policy, data=AuthorData(json.dumps(author).encode()))


def test_a_policy_is_not_loaded_with_data_that_lack_what_it_looks_at(policy_of: Callable[[str], PolicySet]) -> None:
    """Also where the same modules were loaded with other data before."""
    policy = policy_of(RULES)
    RegorusEngine().load(policy).close()
    RegorusEngine().load(with_data(policy, {"tenants": []})).close()
    with pytest.raises(PolicyDenied, match=r"data\.author has no tenants") as caught:
        RegorusEngine().load(with_data(policy, {"tenant": []})).close()
    assert caught.value.code == Code.POLICY_INVALID
    assert "did you mean tenant?" in str(caught.value.hint)
    RegorusEngine().load(with_data(policy, {"tenants": ["a"]})).close()


def test_a_policy_is_not_tried_with_them_either(policy_of: Callable[[str], PolicySet]) -> None:
    trial = Trial(with_data(policy_of(RULES), {"tenant": []}))
    try:
        with pytest.raises(PolicyDenied, match=r"data\.author has no tenants"):
            trial.refuse_errors()
    finally:
        trial.close()


def test_an_authors_files_are_checked_with_the_data_beside_them(tmp_path: Path) -> None:
    (tmp_path / "gate.rego").write_text(RULES, encoding="utf-8")
    assert of_check(check_sources(collect([tmp_path])).findings, CHECK) == []
    (tmp_path / "data.json").write_text('{"tenant": []}', encoding="utf-8")
    checked = check_sources(collect([tmp_path]))
    assert [found.module for found in of_check(checked.findings, CHECK)] == ["gate.rego"]
    assert not checked.loads
