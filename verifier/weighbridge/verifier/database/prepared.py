"""Statements that every window needs, put together once for each database and run by its driver.

SQLAlchemy writes a statement; the driver gets its text and the values. What lies between, for each execution, takes
several times as long as the statement: finding what was compiled, types, events, a result with names. The tables'
columns are numbers, bytes and text, which both drivers take and give as they are.

Many rows of one kind go together: one call of SQLite's, and on PostgreSQL one message there and back, for them and for
the statements around them (PostgreSQL 15, §34.5 "Pipeline Mode").
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, cast, final

from sqlalchemy import exc

from weighbridge.verifier.database.conflict import Conflict
from weighbridge.verifier.database.upsert import Upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    import sqlalchemy as sa
    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["AT_ONCE", "Changes", "Prepared", "Row", "part", "together"]

Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Mapping[str, object]

AT_ONCE: Final = 8192
"""How many values a list in a condition may have: SQLite takes 32,766 parameters, PostgreSQL 65,535."""


class _Cursor(Protocol):
    @property
    def rowcount(self) -> int: ...
    def execute(self, text: str, values: object = ..., /) -> object: ...
    def executemany(self, text: str, rows: object, /) -> object: ...
    def fetchall(self) -> list[Row]: ...


class _Driver(Protocol):
    def cursor(self) -> _Cursor: ...


class _Form(NamedTuple):
    """A statement as one database has it, with lists of some lengths.

    ``values`` makes of parameters by name what the driver takes; ``lists`` are the names of each list's values.
    """

    text: str
    values: Callable[[Values], object]
    lists: Mapping[str, Sequence[str]]


@final
class Prepared:
    """One statement, for either database.

    Args:
        statement: with named parameters; one whose name is in ``lists`` is a list (``expanding``).
        sets: the columns that it sets by parameters of their names.
        lists: parameters that are lists.
    """

    __slots__ = ("_forms", "_lists", "_sets", "_statement")

    def __init__(
        self, statement: sa.ClauseElement | Upsert, *, sets: Sequence[str] = (), lists: Sequence[str] = ()
    ) -> None:
        self._statement = statement
        self._sets = sets
        self._lists = lists
        self._forms: dict[tuple[object, ...], _Form] = {}

    def rows(self, connection: sa.Connection, **parameters: object) -> list[Row]:
        """What it finds, or the rows that it says it has written.

        Raises:
            Conflict: it breaks a rule of the tables.
        """
        (found,) = together(connection, (self, parameters))
        return found

    def pieces(self, name: str, values: Sequence[object], **parameters: object) -> list[tuple[Prepared, Values]]:
        """It for ``values`` as the list ``name``, in as many pieces as that takes: for :func:`together`."""
        return [
            (self, {**parameters, name: values[first : first + AT_ONCE]}) for first in range(0, len(values), AT_ONCE)
        ]

    def filled(self, connection: sa.Connection, parameters: Values) -> tuple[str, object]:
        """Its text, and ``parameters`` as the driver takes them. No list is empty."""
        full = dict(parameters)
        lists = [cast("Sequence[object]", full.pop(name)) for name in self._lists]
        # Filled up with the last one: of few lengths, a text and the database's plan for it are found again.
        sizes = [1 << (len(given) - 1).bit_length() for given in lists]
        form = self._form(connection, sizes)
        for name, size, given in zip(self._lists, sizes, lists, strict=True):
            full.update(zip(form.lists[name], [*given, *[given[-1]] * (size - len(given))], strict=True))
        return form.text, form.values(full)

    def many(self, connection: sa.Connection, rows: Iterable[Values]) -> tuple[str, object]:
        """Its text, and each of ``rows`` as the driver takes them."""
        form = self._form(connection, ())
        return form.text, list(map(form.values, rows))

    def _form(self, connection: sa.Connection, sizes: Sequence[int]) -> _Form:
        key = (connection.dialect.name, *sizes)
        form = self._forms.get(key)
        if form is None:
            # Two threads may make the same one.
            form = self._forms[key] = self._made(connection.dialect, dict(zip(self._lists, sizes, strict=True)))
        return form

    def _made(self, dialect: sa.Dialect, sizes: Mapping[str, int]) -> _Form:
        of = self._statement.named(dialect.name) if isinstance(self._statement, Upsert) else self._statement
        compiled = cast("SQLCompiler", of.compile(dialect=dialect, column_keys=list(self._sets)))
        given = dict.fromkeys(compiled.binds) | {name: range(size) for name, size in sizes.items()}
        expanded = compiled.construct_expanded_state(given)
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        return _Form(expanded.statement, _filling(expanded.positiontup, constants), expanded.parameter_expansion)


def _filling(order: Sequence[str] | None, constants: Values) -> Callable[[Values], object]:
    """What puts parameters by name in the ``order`` of their places, if the driver knows places and no names."""
    picked = _picking(order)
    # As a rule there are none: a turn has some hundred rows, and each is put in order.
    return (lambda parameters: picked({**constants, **parameters})) if constants else picked


def _picking(order: Sequence[str] | None) -> Callable[[Values], object]:
    if order is None:
        return lambda parameters: parameters
    if len(order) == 1:
        return lambda parameters: (parameters[order[0]],)
    return itemgetter(*order) if order else lambda _: ()


def together(connection: sa.Connection, *asked: tuple[Prepared, Values]) -> list[list[Row]]:
    """What each of some statements finds, with the parameters beside it: one after another, waited for once.

    Raises:
        Conflict: one breaks a rule of the tables.
    """
    filled = [statement.filled(connection, parameters) for statement, parameters in asked]
    with _said_at_once(connection, len(filled)) as driver:
        cursors = [driver.cursor() for _ in filled]
        for cursor, (text, values) in zip(cursors, filled, strict=True):
            cursor.execute(text, values)
        return [cursor.fetchall() for cursor in cursors]


@final
class Changes:
    """Rows that are going to be written, by statement; :meth:`write` does so, in the order in which they were begun."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[tuple[Prepared, Collection[Values], str | None]] = []

    def add(self, statement: Prepared, rows: Collection[Values], *, otherwise: str | None = None) -> None:
        """Have ``statement`` be run with each of ``rows``.

        ``otherwise`` is what is wrong where it does not change one row of the table for each of them.
        """
        if rows:
            self._rows.append((statement, rows, otherwise))

    def write(self, connection: sa.Connection) -> None:
        """Run them all.

        Raises:
            Conflict: one breaks a rule of the tables, or does not change what it has to. Others may have been written.
        """
        with _said_at_once(connection, len(self._rows)) as driver:
            cursors = [driver.cursor() for _ in self._rows]
            for cursor, (statement, rows, _) in zip(cursors, self._rows, strict=True):
                cursor.executemany(*statement.many(connection, rows))
        for cursor, (_, rows, otherwise) in zip(cursors, self._rows, strict=True):
            if otherwise is not None and cursor.rowcount != len(rows):
                raise Conflict(otherwise)


@contextlib.contextmanager
def part(connection: sa.Connection) -> Generator[None]:
    """All of the block or nothing of it, within a transaction; what was done before stays.

    But where the database is at fault: then the whole transaction may be undone already, as it is by SQLite where the
    disk is full, and what raised is what there is to tell.
    """
    driver = _driver(connection)
    driver.cursor().execute("SAVEPOINT part")
    try:
        yield
    except BaseException as error:
        try:
            driver.cursor().execute("ROLLBACK TO SAVEPOINT part")
            driver.cursor().execute("RELEASE SAVEPOINT part")
        except connection.dialect.loaded_dbapi.Error:
            # After a conflict the transaction goes on: not with what could not be undone.
            if isinstance(error, Conflict | exc.IntegrityError):
                raise
        raise
    driver.cursor().execute("RELEASE SAVEPOINT part")


@contextlib.contextmanager
def _said_at_once(connection: sa.Connection, statements: int) -> Generator[_Driver]:
    """The driver's connection; on PostgreSQL, several statements do not wait for each other's answers."""
    driver = _driver(connection)
    pipeline = getattr(driver, "pipeline", None)
    try:
        with contextlib.nullcontext() if pipeline is None or statements < 2 else pipeline():  # noqa: PLR2004
            yield driver
    except connection.dialect.loaded_dbapi.IntegrityError as error:
        raise Conflict(str(error)) from error


def _driver(connection: sa.Connection) -> _Driver:
    return cast("_Driver", connection.connection.driver_connection)
