"""Numbers of things as people read them, in commands, checks and reports.

>>> counted(1, "entry", "entries"), counted(51, "entry", "entries"), counted(0, "window")
('1 entry', '51 entries', '0 windows')
"""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, what: str, many: str = "", *, form: str = "") -> str:
    """``1 model``, ``2 models``.

    Args:
        number: how many there are.
        what: of one; may go on with its verb.
        many: of several, where that is not ``what`` and an ``s``.
        form: a format specification for the number, such as ``,`` for thousands that are parted.
    """
    return f"{number:{form}} {what if number == 1 else many or f'{what}s'}"
