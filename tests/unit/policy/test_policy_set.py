"""Modules are bounded before a parser sees them, and every byte of them is in the digest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.policy.policy_set import DATA, LIBRARY, PolicyModule, PolicySet, authored, load, recorded, shipped
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import limits
from weighbridge.proto.digest import D
from weighbridge.proto.errors import Code, EnvironmentFault, PolicyDenied


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        (b"a\n" * 140_000, "too large", "m:1"),
        (b"package p\n\xff", "UTF-8", "m:2"),
        (b"package p\n\x00", "control", "m:2"),
        (b"package p\r\n", "control", "m:1"),
        ("package p #\u2028x".encode(), "control", "m:1"),
        ("\ufeffpackage p".encode(), "control", "m:1"),
        ("package p # read so: \x85allow if false".encode(), "control", "m:1"),
        ("package p # \u202e eslaf fi wolla \u2066".encode(), "control", "m:1"),
        (b"\n" * 5_001, "too many lines", "m:5000"),
        (b"\n" + b"a" * 513, "too long", "m:2"),
        (b'p := "x', "not closed", "m:1"),
        (b'p := "x\n"', "not closed", "m:1"),
        (b"p := `x", "not closed", "m:1"),
        (b"p := \n" + b"[" * 13 + b"]" * 13, "too deeply", "m:2"),
        (b"[{(" * 5, "too deeply", "m:1"),
    ],
)
def test_bounds_come_before_parsing(text: bytes, message: str, where: str) -> None:
    with pytest.raises(PolicyDenied, match=message) as caught:
        PolicyModule("m", text)
    assert caught.value.code is Code.POLICY_INVALID
    assert caught.value.where == where


@pytest.mark.parametrize(
    "text",
    [
        b"p := " + b"[" * 12 + b"]" * 12,
        b'p := "' + b"[" * 40 + b'"',
        b'p := "\\"' + b"[" * 40 + b'"',
        b"p := `" + b"{" * 40 + b"\n`",
        b"# " + b"(" * 40,
        b"p := [[1], [2], [3]]\n" * 30,
        b"\n" * 4_999,
        b"# \xc3\xa9",
    ],
)
def test_what_is_within_the_bounds_passes(text: bytes) -> None:
    assert PolicyModule("m", text).text == text


@given(st.binary(max_size=64))
def test_any_bytes_give_a_module_or_a_refusal(text: bytes) -> None:
    with suppress(PolicyDenied):
        PolicyModule("m", text)


def test_the_digest_is_that_of_all_modules_in_order_of_name(reference: Callable[..., Reference]) -> None:
    library = shipped("production", reference=reference()).modules[0]
    one, two = PolicyModule("a", b"# 1"), PolicyModule("b", b"# 2")
    there = PolicySet((library, one, two), reference())
    back = PolicySet((two, library, one), reference())
    assert there.digest == back.digest == D("policy", [["a", b"# 1"], ["b", b"# 2"], [LIBRARY, library.text]])
    assert there.reference_digest == reference().digest


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=127))
def test_the_digest_changes_with_every_byte_of_every_module(place: int, flip: int) -> None:
    """A64: a policy cannot be exchanged under a verdict."""
    base = shipped("production", reference=Reference({}, {}, {}))
    for index, module in enumerate(base.modules):
        text = bytearray(module.text)
        text[place % len(text)] ^= flip
        try:
            changed = PolicyModule(module.name, bytes(text))
        except PolicyDenied:
            continue
        modules = (*base.modules[:index], changed, *base.modules[index + 1 :])
        assert replace(base, modules=modules).digest != base.digest
    renamed = PolicyModule("other", base.modules[1].text)
    assert replace(base, modules=(base.modules[0], renamed)).digest != base.digest


def test_the_shipped_policies_differ(reference: Callable[..., Reference]) -> None:
    one = shipped("production", reference=reference())
    two = shipped("insecure_development", reference=reference())
    assert one.digest != two.digest
    assert [module.name for module in one.modules] == [LIBRARY, "weighbridge/production.rego"]


def test_author_modules_are_read_beside_the_library(tmp_path: Path, reference: Callable[..., Reference]) -> None:
    (tmp_path / "a.rego").write_bytes(b"package weighbridge.policy\n")
    here = load([tmp_path / "a.rego"], reference=reference())
    assert [module.name for module in here.modules] == [LIBRARY, "a.rego"]
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "a.rego").write_bytes(b"package weighbridge.policy\n")
    assert load([other / "a.rego"], reference=reference()).digest == here.digest
    with pytest.raises(PolicyDenied, match="same file name"):
        load([tmp_path / "a.rego", other / "a.rego"], reference=reference())


def test_no_module_or_too_many_are_refused(tmp_path: Path, reference: Callable[..., Reference]) -> None:
    """An empty policy says nothing, and nothing must come of it."""
    with pytest.raises(PolicyDenied, match="wrong number"):
        load([], reference=reference())
    many = [tmp_path / f"{number}.rego" for number in range(64)]
    for path in many:
        path.write_bytes(b"package weighbridge.policy\n")
    with pytest.raises(PolicyDenied, match="wrong number"):
        load(many, reference=reference())


def test_an_unreadable_module_is_the_machines_fault(tmp_path: Path, reference: Callable[..., Reference]) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        load([tmp_path / "none.rego"], reference=reference())
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_set_without_the_library_or_with_one_name_twice_is_misuse(reference: Callable[..., Reference]) -> None:
    library = shipped("production", reference=reference()).modules[0]
    module = PolicyModule("a", b"")
    for modules in ((module,), (library,), (library, module, module), (module, PolicyModule("b", b""))):
        with pytest.raises(ValueError, match="policy set"):
            PolicySet(modules, reference())


# -- files that come from elsewhere than a directory -------------------------------------------------------------------


def test_an_authors_files_stand_beside_this_librarys(reference: Callable[..., Reference]) -> None:
    made = authored([("a.rego", b"package weighbridge.policy\n"), (DATA, b'{"most": 3}')], reference=reference())
    assert [module.name for module in made.modules] == [LIBRARY, "a.rego"]
    assert made.document()["author"] == {"most": 3}
    again = recorded(sorted(made.files), reference=reference())
    assert (again.digest, again.document()) == (made.digest, made.document())


@pytest.mark.parametrize(
    "files",
    [
        [],
        [(DATA, b"{}")],
        [("a.rego", b""), ("a.rego", b"")],
        [("a.rego", b""), (DATA, b"{}"), (DATA, b"{}")],
        [("a.rego", b""), (LIBRARY, b"package weighbridge.lib\n")],
        [("a.rego", b'"')],
    ],
    ids=["none", "data alone", "a name twice", "data twice", "the library", "an open quote"],
)
def test_files_that_are_no_policy(files: list[tuple[str, bytes]], reference: Callable[..., Reference]) -> None:
    with pytest.raises(PolicyDenied) as refusal:
        authored(files, reference=reference())
    assert refusal.value.code is Code.POLICY_INVALID


def test_all_files_together_can_be_kept(reference: Callable[..., Reference]) -> None:
    """One item of the content store takes them: each is within its bounds, and they are not."""
    text = b"# a line of a module that is as large as one may be\n" * 4900
    files = [(f"{number}.rego", text) for number in range(limits.POLICY_MAX // len(text) + 1)]
    with pytest.raises(PolicyDenied, match="too large together"):
        authored(files, reference=reference())
    assert authored(files[:-2], reference=reference()).files
