"""What both command lines hold of options, and in which form they say what is wrong.

An option that takes one value is given once: ``argparse`` lets the last one win and says nothing, so that what a reader
of the command saw first is not what counts. Options that collect their values, and flags, may be repeated. Whoever asks
for JSON gets a document on failure too, also where the arguments are what is wrong.

Example::

    parser.register("action", None, Once)
    parser.register("action", "store", Once)
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.errors import ExitCode, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.proto import strict

__all__ = ["Once", "UsageFault", "asks_json", "error_document", "fault_document"]

_SCHEMA: Final = "weighbridge/error/v1"
_JSON: Final = "--json"

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


@final
class UsageFault(Exception):
    """Arguments that a command cannot be called with: exit status 2. About no evidence, so that it has no code.

    Args:
        message: what is wrong.
        hint: what to do; empty for nothing.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def document(self) -> strict.JsonObject:
        """What is printed for programs."""
        return fault_document(self.message, ExitCode.USAGE, hint=self.hint)


def asks_json(arguments: Sequence[str]) -> bool:
    """Whether whoever gave ``arguments`` reads JSON. For those that are wrong; of others the parser knows it."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return _JSON in own


def error_document(error: WeighbridgeError) -> strict.JsonObject:
    """A refusal, for programs."""
    return {"schema": _SCHEMA, "exit": error.exit_code.value, **error.document()}


def fault_document(message: str, status: ExitCode, *, hint: str = "") -> strict.JsonObject:
    """What is no refusal and has no code, for programs: arguments that are wrong, a defect of ours."""
    empty = dict.fromkeys(("code", "where", "expected", "got", "clause"))
    return {
        "schema": _SCHEMA,
        "exit": status.value,
        **empty,
        "message": message,
        "hint": hint or None,
    }
