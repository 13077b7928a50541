"""Commands by name, whose code is loaded only for those that are called: most of a short command's time was that.

argparse accepts a sub-command by its whole name alone, so whichever is called is among the words of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Sequence

__all__ = ["Command", "add"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a group of them.

    Attributes:
        name: as it is typed.
        help: one line for the list that it stands in.
        module: in ``package``.
        configure: the function in it that gives a parser its arguments and its ``run``; that of a group takes the
            words of the command line as well.
        group: whether it is one.
        package: where its module is; another one than the verifier's for what stands above both roles.
    """

    name: str
    help: str
    module: str
    configure: str = "configure"
    group: bool = False
    package: str = "weighbridge.verifier.commands"


class _Commands(Protocol):
    """What argparse gives for sub-commands, which has no public name."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's word
        """Add a sub-command."""
        ...


def add(commands: _Commands, listed: Sequence[Command], words: Collection[str] | None) -> None:
    """Add what is ``listed``, in its order, each with its one line of help.

    Args:
        commands: where they belong.
        listed: what there is.
        words: of the command line: only commands among them get arguments. ``None``: all do.
    """
    for command in listed:
        parser = commands.add_parser(command.name, help=command.help)
        if words is not None and command.name not in words:
            continue
        configure = getattr(import_module(f"{command.package}.{command.module}"), command.configure)
        if command.group:
            configure(parser, words)
        else:
            configure(parser)
