"""Every check, as a tree: what passed, what failed, what was not looked at, and what each leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.verifier.report.markup import Markup, element, joined
from weighbridge.verifier.report.parts import section, tag
from weighbridge.verifier.report.words import Said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.verifier.check_tree import Check, Result

__all__ = ["checks"]

_RESULTS: Final[Mapping[Result, Said]] = {
    "passed": Said("good", "passed", "what was demanded is shown"),
    "failed": Said("bad", "failed", "it was looked at, and does not hold"),
    "withheld": Said("held", "withheld", "the evidence for it is not in this bundle"),
    "not checked": Said("none", "not checked", "nobody asked for it, or it was not come to"),
}
_LEGEND: Final = "Open a line to see what it is made of. What a check leaves open, though it passed, stands below it."


def checks(roots: Sequence[Check], *, title: str = "Every check") -> Markup:
    """The section, under ``title``."""
    counts = dict.fromkeys(_RESULTS, 0)
    for check in _leaves(roots):
        counts[check.result] += 1
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return section(
        "checks",
        title,
        element("p", f"Checked for this report: {told}. {_LEGEND}"),
        element("div", element("ul", *(_node(check) for check in roots)), class_="tree"),
    )


def _node(check: Check) -> Markup:
    name = joined([tag(_RESULTS[check.result]), element("b", check.name)])
    detail = element("span", check.detail, class_="detail") if check.detail else None
    residual = element("span", check.residual, class_="residual") if check.residual else None
    if not check.children:
        return element("li", element("div", name, detail, residual, class_="leaf"))
    inside = element("ul", *(_node(child) for child in check.children))
    opened = check.worst in {"failed", "withheld"}
    summary = element("summary", name, detail)
    return element("li", element("details", summary, residual, inside, open="" if opened else None))


def _leaves(of: Sequence[Check]) -> Iterator[Check]:
    for check in of:
        if check.children:
            yield from _leaves(check.children)
        else:
            yield check
