"""Which lines of a policy its tests have reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weighbridge.policy.engines.workbench import Lines
    from weighbridge.policy.policy_set import PolicyModule

__all__ = ["Coverage", "ModuleCoverage", "coverage_of"]

_WHOLE: Final = 100


@dataclass(frozen=True, slots=True)
class ModuleCoverage:
    """Of one module: the lines that can be reached, counted from 1, in order."""

    name: str
    covered: tuple[int, ...]
    missed: tuple[tuple[int, str], ...]
    """Each with its text."""

    @property
    def lines(self) -> int:
        """How many can be reached."""
        return len(self.covered) + len(self.missed)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of all modules together. An empty policy is not covered."""

    modules: tuple[ModuleCoverage, ...]

    @property
    def covered(self) -> int:
        """How many lines were reached."""
        return sum(len(module.covered) for module in self.modules)

    @property
    def lines(self) -> int:
        """How many lines can be reached."""
        return sum(module.lines for module in self.modules)

    @property
    def tenths(self) -> int:
        """Tenths of a percent, rounded down, so that only everything is 100 %."""
        return _WHOLE * 10 * self.covered // self.lines if self.lines else 0

    def reaches(self, percent: int) -> bool:
        """Whether at least so much was reached."""
        return self.tenths >= percent * 10


def coverage_of(modules: Iterable[PolicyModule], reports: Iterable[Mapping[str, Lines]]) -> Coverage:
    """What all ``reports`` together say of ``modules``; of other modules nothing."""
    reached: dict[str, set[int]] = {}
    counted: dict[str, set[int]] = {}
    for report in reports:
        for name, lines in report.items():
            reached.setdefault(name, set()).update(lines.covered)
            counted.setdefault(name, set()).update(lines.covered | lines.not_covered)
    return Coverage(
        tuple(_module(module, reached.get(module.name, set()), counted.get(module.name, set())) for module in modules)
    )


def _module(module: PolicyModule, reached: set[int], counted: set[int]) -> ModuleCoverage:
    source = module.text.decode().split("\n")
    missed = tuple((number, source[number - 1].strip()) for number in sorted(counted - reached))
    return ModuleCoverage(module.name, tuple(sorted(reached)), missed)
