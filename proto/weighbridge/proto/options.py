"""What both command lines hold of options: one that takes one value is given once.

``argparse`` lets the last one win and says nothing, so that what a reader of the command saw first is not what counts.
Options that collect their values, and flags, may be repeated.

Example::

    parser.register("action", None, Once)
    parser.register("action", "store", Once)
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Once"]

# Beside the values, of which each has the name of its option.
_GIVEN: Final = "options given"


@final
class Once(argparse.Action):
    """Stores a value as argparse's own action ``store`` does, and refuses an option that is there again."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's signature
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        """Store ``values``.

        Raises:
            argparse.ArgumentError: the option was given before, under this name or another.
        """
        if option_string is not None:
            given: set[str] = vars(namespace).setdefault(_GIVEN, set())
            if self.dest in given:
                raise argparse.ArgumentError(self, "given twice: which one counts is not for us to guess")
            given.add(self.dest)
        setattr(namespace, self.dest, values)
