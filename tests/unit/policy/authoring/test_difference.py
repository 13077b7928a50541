"""Two policies side by side: what is written otherwise is told, and what is only laid out otherwise is not."""

from __future__ import annotations

from functools import cache

import pytest

from support.recorded import LENIENT, STRICT
from weighbridge.policy import policy_set
from weighbridge.policy.authoring.difference import Difference, Looks, Written, difference, written
from weighbridge.policy.policy_set import AuthorData, PolicyModule, PolicySet
from weighbridge.policy.values.reference import Reference
from weighbridge.proto.errors import Code, PolicyDenied

NOTHING = Reference({}, {}, {})
NONE = Looks((), (), ())


@cache
def read(text: str, data: bytes | None = None, name: str = "a.rego") -> Written:
    library = policy_set.shipped("production", reference=NOTHING).modules[0]
    module = PolicyModule(name, text.encode())
    return written(PolicySet((library, module), NOTHING, None if data is None else AuthorData(data)))


def places(found: Difference) -> list[tuple[str, str, list[int], list[int]]]:
    return [
        (rule.name, rule.effect, [clause.line for clause in rule.came], [clause.line for clause in rule.went])
        for rule in found.rules
    ]


def test_layout_comments_order_and_names_of_files_are_no_difference() -> None:
    head, _, rules = STRICT.partition("default allow")
    clauses = f"default allow{rules}".strip().split("\n\n")
    text = head + "# another order\n" + "\n\n\n".join(reversed(clauses)).replace("\t", "  ") + "\n"
    found = difference(read(STRICT), read(text, name="b.rego"))
    assert found == Difference((), NONE, NONE, ())
    assert found.none


def test_a_clause_more_is_told_with_what_it_looks_at() -> None:
    found = difference(read(LENIENT), read(STRICT))
    assert places(found) == [("deny", "changed", [12], [])]
    assert (found.came, found.went) == (Looks(("input.window.seq",), ("lib.denial",), ()), NONE)
    back = difference(read(STRICT), read(LENIENT))
    assert places(back) == [("deny", "changed", [], [12])]
    assert (back.came, back.went) == (found.went, found.came)


def test_a_clause_that_is_written_otherwise_comes_and_goes() -> None:
    found = difference(read(STRICT), read(STRICT.replace("window.seq == 0", "window.seq == 1")))
    assert places(found) == [("deny", "changed", [12], [12])]
    assert found.came == found.went == NONE


def test_a_clause_that_stands_there_twice_is_not_one() -> None:
    clause = "\ndeny contains d if some d in lib.always\n"
    assert places(difference(read(LENIENT), read(LENIENT + clause))) == [("deny", "changed", [12], [])]


def test_a_rule_comes_or_goes_as_a_whole() -> None:
    more = LENIENT + '\nwarn contains {"code": "LOOK", "message": "look"} if startswith(input.session.tenant, "a")\n'
    found = difference(read(LENIENT), read(more))
    assert places(found) == [("warn", "added", [12], [])]
    assert found.came == Looks(("input.session.tenant",), (), ("startswith",))
    assert places(difference(read(more), read(LENIENT))) == [("warn", "removed", [], [12])]


def test_the_way_by_the_library_is_looked_at_too() -> None:
    looks = read(LENIENT).looks
    assert looks.library == ("lib.always",)
    assert "input.window.freshness" in looks.paths
    assert "input.gpus[].revocation" in looks.paths
    # Not an element beside its members.
    assert "input.gpus[]" not in looks.paths


def test_data_are_compared_by_their_members() -> None:
    one, other = b'{"tenants": ["a"], "same": 1, "none": null}', b'{"tenants": ["b"], "same": 1, "more": 2}'
    found = difference(read(LENIENT, one), read(LENIENT, other))
    assert (found.rules, found.data) == ((), ("more", "none", "tenants"))
    assert not found.none
    assert difference(read(LENIENT), read(LENIENT, b"{}")).none


def test_what_does_not_parse_is_refused() -> None:
    with pytest.raises(PolicyDenied) as refusal:
        read(LENIENT + "\ndeny contains\n")
    assert refusal.value.code is Code.POLICY_INVALID
