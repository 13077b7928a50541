"""``weighbridge policy invariants``: what holds of every window that a policy is asked about."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from weighbridge.verifier.commands.outcome import Outcome
from weighbridge.verifier.commands.tree import Branch, render

if TYPE_CHECKING:
    from weighbridge.proto import strict
    from weighbridge.verifier.invariants import Invariant

__all__ = ["configure"]

_SCHEMA: Final = "weighbridge/policy-invariants/v1"
_HEAD: Final = "No policy sees past a broken one of these, and none can switch one off."
_EPILOG: Final = """\
examples:
  weighbridge policy invariants
  weighbridge policy invariants --json | jq '.invariants[] | select(.codes[] == "TPM_NONCE")'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``invariants`` to ``parser``."""
    parser.description = (
        "What holds of every window that any policy is asked about, the codes with which it is refused otherwise, and "
        "the module and step that enforce it. A policy need not ask for any of it."
    )
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=_run)


def _run(_arguments: argparse.Namespace) -> Outcome:
    from weighbridge.verifier.invariants import GROUPS, INVARIANTS  # noqa: PLC0415 - of no use elsewhere

    lines = [_HEAD]
    for group in GROUPS:
        found = tuple(_branch(item) for item in INVARIANTS if item.group == group)
        lines += ["", *render(Branch(group, found))]
    listed: list[strict.JsonValue] = [_document(item) for item in INVARIANTS]
    return Outcome("".join(f"{line}\n" for line in lines), {"schema": _SCHEMA, "invariants": listed})


def _branch(item: Invariant) -> Branch:
    return Branch(
        f"{item.name}: {item.holds}",
        (
            Branch(f"else      {', '.join(code.value for code in item.codes)}", indent=10),
            Branch(f"enforced  {'; '.join(str(place) for place in item.where)}", indent=10),
        ),
        indent=3,
    )


def _document(item: Invariant) -> strict.JsonObject:
    return {
        "group": item.group,
        "name": item.name,
        "holds": item.holds,
        "codes": [code.value for code in item.codes],
        "enforced": [{"module": place.module, "steps": list(place.steps)} for place in item.where],
    }
