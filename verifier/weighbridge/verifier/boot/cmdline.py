"""A kernel's command line, read as the kernel reads it.

It (Linux 6.12 ``lib/cmdline.c`` ``next_arg``, ``kernel/params.c``) splits at white space outside double quotes, takes
quotes off around a value or a whole argument, knows no escapes, takes ``-`` and ``_`` in a name for the same, and stops
at a lone ``--``. systemd and initial RAM disks read on behind it: so what *must not* be there is looked for in all of
the line (:meth:`Parameters.mentions`), what *must* be there in the kernel's part (:meth:`Parameters.values`). A line
that others read differently, for quotes that are single or never closed, is not read at all.

What a parameter does is up to the kernel that reads it: nothing here knows which kernel that is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LENGTH_MAX", "Parameter", "Parameters", "parse"]

LENGTH_MAX: Final = 2047
"""Of x86: COMMAND_LINE_SIZE less the final zero. The kernel does not see what is beyond."""

_SPACES: Final = " \t\n\v\f\r"
# ASCII without control characters and without single quotes.
_PLAIN: Final = re.compile(r"[ -&(-~\t\n\v\f\r]*")
_QUOTE: Final = '"'
_SYSCTL: Final = "sysctl"


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument: ``value`` is ``None`` where there is no equals sign. ``spelt`` is its name as it stands there."""

    spelt: str
    value: str | None

    @property
    def name(self) -> str:
        """The name, in the one spelling that stands for all that the kernel takes for it."""
        name = self.spelt.replace("-", "_")
        return name.replace("/", ".") if name.startswith(_SYSCTL) else name


_REST: Final = Parameter("--", None)


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """A command line's parameters in order: ``kernel`` are the kernel's, ``rest`` stands behind ``--``."""

    kernel: tuple[Parameter, ...]
    rest: tuple[Parameter, ...]

    def values(self, name: str) -> tuple[str | None, ...]:
        """The values of every occurrence of ``name`` that the kernel sees, in order."""
        return tuple(item.value for item in self.kernel if item.name == name)

    def always(self, name: str, *accepted: str) -> bool:
        """Whether ``name`` is there, spelt so, and each of its values is one of ``accepted``.

        Whether the first or the last of several values counts is up to each parameter: so all must be good.
        """
        found = [item for item in self.kernel if item.name == name]
        return bool(found) and all(item.spelt == name and item.value in accepted for item in found)

    def mentions(self, name: str) -> tuple[Parameter, ...]:
        """Every occurrence of ``name``, behind ``--`` too."""
        return tuple(item for item in (*self.kernel, *self.rest) if item.name == name)


def parse(text: str) -> Parameters | None:
    """The parameters of ``text``, or ``None`` for a line of which the kernel would not see all, or not as others do.

    Args:
        text: whatever a log holds; whether it is what was measured is the caller's question.
    """
    if len(text) > LENGTH_MAX or not _PLAIN.fullmatch(text) or text.count(_QUOTE) % 2:
        return None
    parameters = tuple(map(_parameter, _arguments(text)))
    end = parameters.index(_REST) if _REST in parameters else len(parameters)
    return Parameters(parameters[:end], parameters[end + 1 :])


def _arguments(text: str) -> Iterator[str]:
    """Splits at white space outside double quotes, which stay in."""
    word = ""
    quoted = False
    for character in text:
        if character in _SPACES and not quoted:
            if word:
                yield word
            word = ""
        else:
            word += character
            quoted ^= character == _QUOTE
    if word:
        yield word


def _parameter(argument: str) -> Parameter:
    """Takes quotes off as ``next_arg`` does: one that begins it all, one that begins the value, one at the end."""
    whole = argument.startswith(_QUOTE)
    body = argument[1:] if whole else argument
    # An equals sign in the first place is part of the name.
    equals = body.find("=", 1)
    if equals < 0:
        return Parameter(body.removesuffix(_QUOTE) if whole else body, None)
    value = body[equals + 1 :]
    if value.startswith(_QUOTE):
        value = value[1:].removesuffix(_QUOTE)
    elif whole:
        value = value.removesuffix(_QUOTE)
    return Parameter(body[:equals], value)
