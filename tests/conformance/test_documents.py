"""The documents name only what is there: links, files, modules, tests, corpus cases."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from weighbridge.verifier.appraisal import NOT_PROVEN

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PARTS: Final = ("attester", "verifier", "policy", "proto")
DOCUMENTS: Final = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / part / "README.md" for part in PARTS),
        ROOT / "tests" / "vectors" / "README.md",
    ]
)
ADRS: Final = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))

_LINK: Final = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_ROOMS: Final = "|".join(PARTS)
_MODULE: Final = re.compile(rf"weighbridge\.(?:{_ROOMS})(?:\.[a-z0-9_]+)*(?:\.[A-Z]\w+)?")
_TEST: Final = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_CASE: Final = re.compile(r"([a-z]+)/([0-9]{3})-([a-z0-9-]+)")
_PATH: Final = re.compile(rf"(?:{_ROOMS}|docs|scripts|tests|requirements|typings)/[\w./-]+")
# Paths of somebody's machine, and numbers of somebody's tickets, mean nothing to a reader elsewhere.
_FOREIGN: Final = re.compile(r"(?<![\w.~])/(?:home|root|tmp|work|mnt|srv|Users)/|\bissue #?[0-9]+", re.IGNORECASE)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _prose(path: Path) -> str:
    """The document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def _anchors(path: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(path), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in _LINK.findall(_prose(path)):
        if target.startswith("https://"):
            continue
        file, _, fragment = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{_name(path)}: {target}"
        if fragment:
            assert fragment in _anchors(linked), f"{_name(path)}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_names_in_code_type_exist(path: Path) -> None:
    """Modules import, test functions and corpus cases are there, paths below the known folders exist."""
    for code in _CODE.findall(_prose(path)):
        if _MODULE.fullmatch(code):
            _resolve(code)
        elif found := _TEST.fullmatch(code):
            assert f"def {found[2]}(" in (ROOT / found[1]).read_text(encoding="utf-8"), code
        elif found := _CASE.fullmatch(code):
            assert _is_case(*found.groups()), f"{_name(path)}: {code}"
        elif _PATH.fullmatch(code) and not any(mark in code for mark in ("*", "<", "…", "nnn", "NNNN")):
            assert _exists(code), f"{_name(path)}: {code}"


def _resolve(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if attribute[:1].isupper():
        assert hasattr(importlib.import_module(module), attribute), name
    else:
        importlib.import_module(name)


def _is_case(stage: str, number: str, slug: str) -> bool:
    builder = ROOT / "tests" / "corpus" / f"{stage}.py"
    function = f"case_{number}_{slug.replace('-', '_')}"
    return builder.exists() and any(
        isinstance(node, ast.FunctionDef) and node.name == function
        for node in ast.parse(builder.read_text(encoding="utf-8")).body
    )


def _exists(code: str) -> bool:
    """As it stands, or inside the room that it names: `verifier/core.py`."""
    room, _, rest = code.rstrip("/").partition("/")
    return (ROOT / code).exists() or (room in PARTS and (ROOT / room / "weighbridge" / room / rest).exists())


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_nothing_names_a_machine_or_a_ticket(path: Path) -> None:
    found = _FOREIGN.search(path.read_text(encoding="utf-8"))
    assert found is None, f"{_name(path)}: {found}"


def test_trust_model_prints_what_every_verdict_prints() -> None:
    text = (ROOT / "docs" / "trust-model.md").read_text(encoding="utf-8")
    section = text.partition("## Printed with every verdict\n")[2].partition("\n## ")[0]
    _, _, listing = section.partition("Then:\n")
    listed = [" ".join(item.split()) for item in listing.strip().removeprefix("- ").split("\n- ")]
    assert listed == list(NOT_PROVEN)


def test_trust_model_shows_every_numbered_claim_by_something() -> None:
    text = (ROOT / "docs" / "trust-model.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [section[:2] for section in sections[:7]] == [f"{number}." for number in range(1, 8)]
    for section in sections[:7]:
        for word in ("**Proven.**", "**Shown by**"):
            assert word in section, section.partition("\n")[0]


def test_every_decision_is_listed_and_has_its_four_parts() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert [path.name[:4] for path in ADRS] == [f"{number:04}" for number in range(1, len(ADRS) + 1)]
    for path in ADRS:
        text = path.read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        assert f"| [{path.name[:4]}]({path.name}) | {title[5:]} |" in listed
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Options", "Decision", "Consequences"]
        assert len(text.splitlines()) <= 60, f"{path.name} is longer than a page"
