"""What the store needs of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

__all__ = ["Database"]

_T = TypeVar("_T")


class Database(Protocol):
    """One database that is open, for several threads. Every error of it is one of ours, or :class:`.Conflict`."""

    @property
    def where(self) -> str:
        """For messages."""
        ...

    def transaction(self, *, version: int) -> AbstractContextManager[sa.Connection]:
        """Write: all of the block or nothing, durable when it is left; nobody else writes meanwhile.

        So what a transaction has read is so until it ends, as if all of them ran one after another.

        Raises:
            Conflict: the block has broken a rule of the tables.
            EnvironmentFault: ``STATE_VERSION`` where the tables are not those of ``version``; or the database is at
                fault, and the block has had no effect unless it was its end that failed: then it may have had.
        """
        ...

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """Read what was durable when the block began; waits for no other transaction.

        Raises:
            EnvironmentFault: the database is at fault.
        """
        ...

    def look(self, act: Callable[[sa.Connection], _T]) -> _T:
        """What ``act`` makes of statements that read, each of what is durable when it runs; waits for nobody.

        Less than :meth:`reading`, for what every window asks: nothing is begun and ended. ``act`` may be run twice.

        Raises:
            EnvironmentFault: the database is at fault.
        """
        ...

    def migrating(self) -> AbstractContextManager[sa.Connection]:
        """As :meth:`transaction`, whatever the version is; waits longer; may change tables."""
        ...

    def describe(self) -> dict[str, str]:
        """What there is to be told of the database itself, as it was found: name and value."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
