"""``weighbridge policy``: everything for policy authors. Each verb is a module of its own, ``policy_…``."""

from __future__ import annotations

import argparse
from typing import Final

__all__ = ["configure"]

_EPILOG: Final = """\
examples:

  weighbridge policy check my.rego
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to ``parser``; each sets ``run`` to a function from the arguments to an ``Outcome``."""
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    _ = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
