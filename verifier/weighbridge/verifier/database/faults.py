"""What PostgreSQL's errors mean to a caller (PostgreSQL, appendix A: "PostgreSQL Error Codes")."""

from __future__ import annotations

from typing import Final

import psycopg
from sqlalchemy import exc

from weighbridge.proto.errors import Code

__all__ = ["hint", "is_gone", "meaning"]

# By SQLSTATE, the longest match first: a condition, or a class of them.
_MEANINGS: Final[tuple[tuple[str, Code, str], ...]] = (
    # Waiting.
    ("55P03", Code.STATE_LOCKED, "another process holds the state"),
    ("57014", Code.STATE_LOCKED, "the database took too long"),
    ("40", Code.STATE_LOCKED, "the transaction came between others"),
    # The line, or the server.
    ("08", Code.STATE_UNREACHABLE, "the line to the database was cut"),
    ("57P", Code.STATE_UNREACHABLE, "the database is going down or coming up"),
    ("25P03", Code.STATE_UNREACHABLE, "the database has ended a transaction in which nothing was said"),
    ("53100", Code.DISK_FULL, "no space left where the database writes"),
    ("53", Code.STATE_UNREACHABLE, "the database has nothing left to serve us with"),
    # Rights.
    ("25006", Code.STATE_FORBIDDEN, "the database can only be read"),
    ("28", Code.STATE_FORBIDDEN, "the database does not let us in"),
    ("3D000", Code.STATE_FORBIDDEN, "there is no such database"),
    ("42501", Code.STATE_FORBIDDEN, "the role may not do this"),
    # Damage.
    ("58", Code.STATE_CORRUPT, "the database cannot read or write its own files"),
    ("XX001", Code.STATE_CORRUPT, "the state is damaged"),
    ("XX002", Code.STATE_CORRUPT, "the state is damaged"),
)
# libpq's own words (fe-auth.c), which it does not translate into a state.
_UNSUPPLIED: Final = "no password supplied"


def meaning(error: psycopg.Error) -> tuple[Code, str] | None:
    """The code of ``error`` with what to say of it; ``None`` where it says that a statement of ours is wrong."""
    told = " ".join(str(error).split())
    if error.sqlstate is None:
        # libpq's own: no server has said it. A mistake in how we use the driver is another class.
        if isinstance(error, psycopg.OperationalError):
            return Code.STATE_UNREACHABLE, f"the database cannot be reached: {told}"
        return None
    for state, code, message in _MEANINGS:
        if error.sqlstate.startswith(state):
            return code, f"{message}: {told}"
    return None


def hint(error: psycopg.Error) -> str:
    """What to do about ``error``; nothing where its code says that."""
    if _UNSUPPLIED not in str(error):
        return ""
    return (
        "write HOST:PORT:NAME:USER:PASSWORD into ~/.pgpass, or the file that PGPASSFILE names (chmod 600, or it is not "
        "read), or set PGPASSWORD: a password is never taken from the address"
    )


def is_gone(error: BaseException) -> bool:
    """Whether ``error`` says that the connection is no more."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return False
    meant = meaning(cause)
    return meant is not None and meant[0] is Code.STATE_UNREACHABLE
