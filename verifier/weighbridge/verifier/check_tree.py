"""What was checked of a proof bundle, as a tree: each check with its result, what it found, and what it leaves open.

A tree is made beside a verification and decides nothing: whoever wants an answer asks :mod:`.bundle`, which raises or
returns verdicts.

>>> Check("ledger", "passed", "every record is in it", "", (Check("order", "failed", "a gap"),)).worst
'failed'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from weighbridge.proto import strict

__all__ = ["RESULTS", "Check", "Result"]

Result = Literal["passed", "failed", "withheld", "not checked"]
# From what says least against a bundle to what says most.
RESULTS: Final[tuple[Result, ...]] = ("passed", "not checked", "withheld", "failed")


@dataclass(frozen=True, slots=True)
class Check:
    """One check, or several under one name.

    Attributes:
        name: a few words, the same in every bundle.
        result: ``withheld`` where the bundle does not show what would be needed, ``not checked`` where nobody asked or
            where it was not come to.
        detail: what was found, for people.
        residual: what stays open where it passed, for people; empty if nothing.
        children: what it is made of.
    """

    name: str
    result: Result
    detail: str
    residual: str = ""
    children: tuple[Check, ...] = ()

    @property
    def worst(self) -> Result:
        """The result that says most against the bundle, of this check and of all below it."""
        found: list[Result] = [self.result, *(child.worst for child in self.children)]
        return max(found, key=RESULTS.index)

    def document(self) -> strict.JsonObject:
        """The check as JSON, every field present."""
        return {
            "name": self.name,
            "result": self.result,
            "detail": self.detail,
            "residual": self.residual,
            "children": [child.document() for child in self.children],
        }
