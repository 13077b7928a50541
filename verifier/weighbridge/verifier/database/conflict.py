"""What a database says to a change that does not start from what it has."""

from __future__ import annotations

from typing import final

__all__ = ["Conflict"]


@final
class Conflict(RuntimeError):
    """The database refused a change: another writer was first, or the session never stood where it was assumed."""
