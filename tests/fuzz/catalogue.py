"""All targets by name: every parser of the four rooms, and the composite appraiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuzz import composite, parsers_attester, parsers_proto, parsers_verifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuzz.specs import Spec, Workshop
    from fuzz.target import Target

__all__ = ["COMPOSITES", "NAMES", "SPECS", "load"]

SPECS: Final[dict[str, Spec]] = {
    spec.name: spec for spec in (*parsers_proto.SPECS, *parsers_verifier.SPECS, *parsers_attester.SPECS)
}
COMPOSITES: Final = ("windows", "enrolments", "bundles")
NAMES: Final = (*COMPOSITES, *SPECS)


def load(shop: Workshop, names: Iterable[str]) -> list[Target]:
    """The targets of these names."""
    wanted = list(names)
    found = shop.made([SPECS[name] for name in wanted if name in SPECS])
    composites = set(wanted) & set(COMPOSITES)
    return [*found, *(target for target in composite.targets(shop, composites) if composites)]
