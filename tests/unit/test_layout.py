"""The layout keeps its promise: one namespace from four folders, hiding nobody else's `verifier` or `proto`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import tomllib
from pathlib import Path

import pytest

PARTS = ("attester", "verifier", "policy", "proto")
# What stands above both roles, and lies beside one of them.
ABOVE = {"attester": {"redteam"}}


@pytest.mark.parametrize("part", PARTS)
def test_part_folder_holds_its_readme_and_its_portion_only(root: Path, part: str) -> None:
    names = {path.name for path in (root / part).iterdir()} - {"__pycache__"}
    assert names == {"README.md", "weighbridge"}


@pytest.mark.parametrize("part", PARTS)
def test_namespace_folder_holds_its_portion_and_what_is_above_it_only(root: Path, part: str) -> None:
    names = {path.name for path in (root / part / "weighbridge").iterdir()} - {"__pycache__"}
    assert names == {part} | ABOVE.get(part, set())


@pytest.mark.parametrize("part", PARTS)
def test_portion_is_a_typed_package_imported_from_here(root: Path, part: str) -> None:
    portion = root / part / "weighbridge" / part
    module = importlib.import_module(f"weighbridge.{part}")
    assert module.__file__ == str(portion / "__init__.py")
    assert (portion / "py.typed").is_file()


@pytest.mark.parametrize("name", PARTS)
def test_top_level_names_are_left_to_others(root: Path, name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(root / name)


def test_both_lists_of_the_build_name_all_parts(root: Path) -> None:
    hatch = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert sorted(hatch["dev-mode-dirs"]) == sorted(PARTS)
    assert sorted(hatch["targets"]["wheel"]["packages"]) == sorted(f"{part}/weighbridge" for part in PARTS)


def _packages() -> list[str]:
    parts = [*PARTS, *(name for names in ABOVE.values() for name in names)]
    found = [f"weighbridge.{part}" for part in parts]
    for part in parts:
        portion = importlib.import_module(f"weighbridge.{part}")
        found += [info.name for info in pkgutil.walk_packages(portion.__path__, f"weighbridge.{part}.") if info.ispkg]
    return [name for name in found if not name.endswith(".v1")]  # generated


@pytest.mark.parametrize("name", _packages())
def test_every_package_says_what_is_public(name: str) -> None:
    package = importlib.import_module(name)
    public: list[str] | None = getattr(package, "__all__", None)
    if public is None:
        # A package that only holds modules has nothing to declare: a docstring, and not one statement more.
        assert package.__file__ is not None
        body = ast.parse(Path(package.__file__).read_text(encoding="utf-8")).body
        assert [type(node).__name__ for node in body] == ["Expr"]
        return
    assert len(public) == len(set(public))
    assert [entry for entry in public if not hasattr(package, entry)] == []
