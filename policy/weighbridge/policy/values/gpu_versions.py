"""Which of two driver or VBIOS versions is the older one.

A driver's version is decimal numbers (``550.144.03``), a VBIOS's is groups of two hexadecimal digits
(``96.00.9F.00.01``); both are compared number by number, a missing one counting as nought.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Final, Literal

__all__ = ["Minimum", "VersionKind", "at_least", "is_version"]

VersionKind = Literal["driver", "vbios"]
Minimum = Literal["met", "below", "unknown"]
_FORMS: Final[dict[VersionKind, re.Pattern[str]]] = {
    "driver": re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,5}", re.ASCII),
    "vbios": re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){0,7}", re.ASCII),
}
_BASES: Final[dict[VersionKind, int]] = {"driver": 10, "vbios": 16}


def is_version(text: str, kind: VersionKind) -> bool:
    """Whether ``text`` is a version of this kind."""
    return _FORMS[kind].fullmatch(text) is not None


def at_least(version: str | None, minimum: str, kind: VersionKind) -> Minimum:
    """Whether ``version`` is ``minimum`` or newer; ``unknown`` where it is no version of this kind.

    Raises:
        ValueError: ``minimum`` is none.

    >>> at_least("550.54.15", "550.144", "driver"), at_least("96.00.9F.00.01", "96.00.5E.00.01", "vbios")
    ('below', 'met')
    """
    if not is_version(minimum, kind):
        raise ValueError("not a version")
    if version is None or not is_version(version, kind):
        return "unknown"
    base = _BASES[kind]
    for have, want in zip_longest(_numbers(version, base), _numbers(minimum, base), fillvalue=0):
        if have != want:
            return "met" if have > want else "below"
    return "met"


def _numbers(version: str, base: int) -> list[int]:
    return [int(part, base) for part in version.split(".")]  # lenient: the pattern lets no other characters pass
