"""Where checks on one clause put what they find."""

from __future__ import annotations

from typing import Final, final

from weighbridge.policy.checker.findings import CheckerFinding
from weighbridge.policy.checker.syntax import Module, Node, Span

__all__ = ["Notes", "shown"]

_QUOTED_MAX: Final = 60
_WRITTEN_MAX: Final = 400


@final
class Notes:
    """The findings in one module so far."""

    def __init__(self, module: Module) -> None:
        self._module: Module = module
        self.found: list[CheckerFinding] = []

    def add(self, at: Node | Span, check: str, message: str, *, hint: str = "") -> None:
        """Note a finding where ``at`` begins."""
        line, column = self._module.place(at.span[0] if isinstance(at, Node) else at[0])
        self.found.append(CheckerFinding(self._module.name, line, column, check, message, hint))

    def text(self, node: Node, *, most: int = _QUOTED_MAX) -> str:
        """The source of ``node`` on one line, shortened to ``most`` characters."""
        text = " ".join(self._module.source(node.span).split())
        return text if len(text) <= most else f"{text[: most - 1]}…"

    def whole(self, node: Node) -> str:
        """The source of ``node`` on one line, for what is to be written in its place."""
        return self.text(node, most=_WRITTEN_MAX)


def shown(node: Node) -> tuple[object, ...]:
    """The node without its place, for comparing two expressions."""
    return (node.kind, node.text, tuple((role, shown(part)) for role, part in node.parts))
