"""What authors' other tools are given: made from the types and the tables, and never behind them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import policy_files
import pytest

from weighbridge.policy.authoring.builtins import SIGNATURES, capabilities
from weighbridge.policy.authoring.editor import generated, library, write_editor_files
from weighbridge.policy.authoring.sources import collect
from weighbridge.policy.checker.functions import ALLOWED, FORBIDDEN, TESTS
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path


def test_shipped_files_are_what_the_types_say() -> None:
    """`scripts/policy_files.py` writes them."""
    assert [path.name for path in policy_files.stale()] == []


def test_types_are_those_of_the_builtins_that_may_be_called() -> None:
    assert SIGNATURES.keys() == {*ALLOWED, *TESTS}
    for name, arity in {**ALLOWED, **TESTS}.items():
        assert len(SIGNATURES[name][0]) == arity, name


def test_capabilities_have_the_form_that_opa_reads() -> None:
    """OPA's ast/capabilities.go and types/types.go: what it does not know there is an error, or any type."""
    value = json.loads(json.dumps(capabilities()))
    assert value.keys() == {"builtins", "future_keywords", "features", "allow_net"}
    assert {"rego_v1", "rego_v1_import"} <= set(value["features"])
    names = [builtin["name"] for builtin in value["builtins"]]
    assert names == sorted(set(names))
    assert {"eq", "assign", "internal.member_2", "internal.member_3", "print", *ALLOWED} <= set(names)
    assert not [name for name in names if name.startswith(tuple(FORBIDDEN)) and name not in ALLOWED]
    for builtin in value["builtins"]:
        assert builtin.keys() <= {"name", "decl", "infix"}
        decl = builtin["decl"]
        assert decl["type"] == "function"
        for item in (*decl.get("args", ()), *([decl["result"]] if "result" in decl else [])):
            check_type(item)


def check_type(item: object) -> None:
    assert isinstance(item, dict)
    match item:
        case {"type": "any" | "null" | "boolean" | "number" | "string", **rest} if not rest:
            pass
        case {"type": "any", "of": [*arms]}:
            for arm in arms:
                check_type(arm)
        case {"type": "array", "dynamic": inner} | {"type": "set", "of": inner}:
            check_type(inner)
        case {"type": "object", "dynamic": {"key": key, "value": value}}:
            check_type(key)
            check_type(value)
        case _:
            pytest.fail(f"{item} is no type")


def test_files_lie_beside_a_policy_and_are_no_part_of_it(tmp_path: Path) -> None:
    policy = tmp_path / "policy.rego"
    policy.write_text("package weighbridge.policy\n")
    written = write_editor_files(tmp_path)
    assert all(path.exists() for path in written)
    names = {str(path.relative_to(tmp_path)) for path in written}
    assert {".weighbridge/README.md", ".weighbridge/schemas/input.json", ".regal/config.yaml"} <= names
    assert (tmp_path / ".weighbridge/capabilities.json").read_bytes() == generated()["capabilities.json"]
    assert (tmp_path / ".weighbridge/library/lib.rego").read_bytes() == library()
    assert collect([tmp_path]).files == (policy,)


def test_what_is_ours_is_replaced_and_what_is_the_authors_is_not(tmp_path: Path) -> None:
    write_editor_files(tmp_path)
    (tmp_path / ".weighbridge/capabilities.json").write_text("{}")
    (tmp_path / ".regal/config.yaml").write_text("mine")
    written = write_editor_files(tmp_path)
    assert (tmp_path / ".weighbridge/capabilities.json").read_bytes() == generated()["capabilities.json"]
    assert (tmp_path / ".regal/config.yaml").read_text() == "mine"
    assert tmp_path / ".regal/config.yaml" not in written


def test_a_directory_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / ".weighbridge").write_text("in the way")
    with pytest.raises(EnvironmentFault) as caught:
        write_editor_files(tmp_path)
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_every_rule_that_regal_is_told_to_leave_has_its_reason(tmp_path: Path) -> None:
    write_editor_files(tmp_path)
    lines = (tmp_path / ".regal/config.yaml").read_text().split("\n")
    assert all(re.search(r"# [\w`].{15,}", line) for line in lines if "ignore" in line and "level" in line)
