"""Test modules without import aliases of packages: regorus loses names where those are used.

Where a rule is reached by an alias (``policy.deny``), and its package has several modules, regorus resolves the imports
of the first of them alone: what the others write as ``lib.always`` is undefined then, so that denials vanish. By the
full path (``data.weighbridge.policy.deny``) all is well; decisions are asked for by full paths. So test modules are
loaded as if their authors had written full paths. Lines stay what they are.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.policy.policy_set import PolicyModule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.policy.checker.syntax import Module, Span

__all__ = ["unaliased"]


def unaliased(modules: Sequence[PolicyModule], syntax: Sequence[Module]) -> tuple[PolicyModule, ...]:
    """``modules`` with full paths in place of aliases of packages that have several modules.

    Args:
        modules: of tests; no name has two meanings in them, which the checker sees to.
        syntax: of everything that is loaded.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: a line is too long then.
    """
    counts = Counter(module.package for module in syntax)
    several = {f"data.{package}" for package, count in counts.items() if count > 1}
    read = {module.name: module for module in syntax}
    return tuple(
        PolicyModule(module.name, _spelt_out(module.text, list(_aliases(read[module.name], several))))
        for module in modules
    )


def _aliases(module: Module, packages: set[str]) -> Iterator[tuple[Span, str]]:
    """Where an alias of one of ``packages`` stands, and its path."""
    paths = {alias: path for alias, path in module.imports.items() if path in packages}
    for rule in module.rules:
        for node in rule.walk():
            if node.kind == "Var" and node.text in paths:
                yield node.span, paths[node.text]


def _spelt_out(text: bytes, found: list[tuple[Span, str]]) -> bytes:
    for (start, end), path in sorted(set(found), reverse=True):
        text = text[:start] + path.encode() + text[end:]
    return text
