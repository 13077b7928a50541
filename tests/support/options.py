"""Command lines of tests that differ in an option: one that takes one value may not be given twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["changed"]

_T = TypeVar("_T")


def changed(command: Sequence[_T], *options: _T) -> list[_T]:
    """``command`` with ``options`` behind it, and without those of its own, each with a value, that they name again."""
    kept: list[_T] = []
    parts = iter(command)
    for part in parts:
        if isinstance(part, str) and part.startswith("-") and part in options:
            next(parts)
        else:
            kept.append(part)
    return [*kept, *options]
