"""Rows that are written whether or not there is one already, for whichever database has them.

Both databases know ``INSERT … ON CONFLICT``, and in SQLAlchemy each has its own of it. Built once, as all that every
window asks for: building a statement takes longer than running it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

__all__ = ["Upsert"]


@final
class Upsert:
    """A row for a key: where there is one already, what of it changes.

    Args:
        table: whose.
        replaced: columns that take the value of the new row. With none of these nor of ``added`` the old one stays.
        added: columns to which the value of the new row is added.
        key: columns of the key, if it is not the primary one.
        unless: where the old row is so, it stays as it is.
    """

    __slots__ = ("_statements",)

    def __init__(
        self,
        table: sa.Table,
        *,
        replaced: Sequence[str] = (),
        added: Sequence[str] = (),
        key: Sequence[str] = (),
        unless: sa.ColumnElement[bool] | None = None,
    ) -> None:
        self._statements: dict[str, sa.Insert] = {}
        where = None if unless is None else ~unless
        columns = [table.c[name] for name in key] or list(table.primary_key)
        for name, insert in (("sqlite", sqlite.insert(table)), ("postgresql", postgresql.insert(table))):
            changed: dict[str, sa.ColumnElement[Any]] = {column: insert.excluded[column] for column in replaced}
            changed |= {column: table.c[column] + insert.excluded[column] for column in added}
            # Inline: nobody asks for what the database has numbered, and then it says how many rows there were.
            self._statements[name] = (
                insert.on_conflict_do_update(index_elements=columns, set_=changed, where=where)
                if changed
                else insert.on_conflict_do_nothing(index_elements=columns)
            ).inline()

    def on(self, connection: sa.Connection) -> sa.Insert:
        """The statement for the database of ``connection``."""
        return self.named(connection.dialect.name)

    def named(self, dialect: str) -> sa.Insert:
        """The statement for the databases that SQLAlchemy calls ``dialect``."""
        return self._statements[dialect]
