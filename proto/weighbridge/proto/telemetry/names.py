"""How sources, channels and units may be called: by what one line of a terminal, a log or a page shows as it is.

A name is *the host's word*, and stands in verdicts, denials and reports. So it is printable ASCII, and no space begins
or ends it; a unit may also have the signs that units are written with. No name says anything to a terminal, ends a
line, or looks like another one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["NAME_MAX", "check_name", "check_unit", "is_name", "is_unit"]

NAME_MAX: Final = 64
"""Bytes of a name or a unit."""
_NAME: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
# Latin-1 without its soft hyphen, both ways to write a micro and an ohm, degrees Celsius, per mille.
_SIGNS: Final = "\u00a1-\u00ac\u00ae-\u00ff\u03a9\u03bc\u2030\u2103\u2126"
_UNIT: Final = re.compile(rf"[!-~{_SIGNS}]([ -~{_SIGNS}]*[!-~{_SIGNS}])?")


# A session has the same few in each of its windows.
@lru_cache(maxsize=1024)
def is_name(text: str) -> bool:
    """Whether ``text`` may be the name of a source or a channel."""
    return len(text) <= NAME_MAX and _NAME.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def is_unit(text: str) -> bool:
    """Whether ``text`` may be a unit."""
    return len(text.encode(errors="replace")) <= NAME_MAX and _UNIT.fullmatch(text) is not None


def check_name(text: str, *, where: str) -> None:
    """Require the name of a source or a channel.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    if not is_name(text):
        raise _refused("name", "1 to 64 printable ASCII characters, no space at either end", text, where)


def check_unit(text: str, *, where: str) -> None:
    """Require a unit.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``.
    """
    if not is_unit(text):
        raise _refused("unit", "1 to 64 bytes of printable ASCII and signs of units", text, where)


def _refused(what: str, expected: str, got: str, where: str) -> MalformedEvidence:
    return MalformedEvidence(Code.FIELD_RANGE, f"not a {what}", where=where, expected=expected, got=ascii(got))
