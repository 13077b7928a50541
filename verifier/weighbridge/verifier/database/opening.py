"""Opens the database at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database.address import Address, SqliteAddress
from weighbridge.verifier.database.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from weighbridge.verifier.database.interface import Database

__all__ = ["database_at"]


def database_at(address: Address, *, make: bool = False) -> Database:
    """The database at ``address``, whatever tables it has; ``make``: with a file where there is none.

    Raises:
        EnvironmentFault: it cannot be opened or reached, or is not set as it has to be; ``TOOL_MISSING`` where what
            PostgreSQL takes is not installed.
    """
    if isinstance(address, SqliteAddress):
        return SqliteDatabase.open(address.path, make=make)
    try:
        # Apart: most verifiers have a file, and no psycopg.
        from weighbridge.verifier.database.postgres import PostgresDatabase  # noqa: PLC0415
    except ImportError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"{error.name} is not installed", hint="pip install 'weighbridge[fleet]'"
        ) from error
    return PostgresDatabase.open(address)
