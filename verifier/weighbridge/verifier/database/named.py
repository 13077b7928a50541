"""Which database a verifier's directory names: that in its file ``store``, and without one a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.database.address import Address, PostgresAddress, SqliteAddress
from weighbridge.verifier.files import fault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SQLITE", "STORE", "named_in"]

STORE: Final = "store"
SQLITE: Final = "sessions.sqlite"
_MAX: Final = 4096


def named_in(directory: Path) -> Address:
    """Where the state of the verifier in ``directory`` lies; whether anything is there is not looked at.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``, or as :meth:`.PostgresAddress.parse`.
    """
    path = directory / STORE
    try:
        with path.open("rb") as file:
            text = file.read(_MAX).decode("ascii")
    except FileNotFoundError:
        return SqliteAddress(directory / SQLITE)
    except UnicodeDecodeError as error:
        message = "not the address of a store"
        raise EnvironmentFault(Code.STATE_UNFIT, message, where=str(path)) from error
    except OSError as error:
        raise fault(error, path, "reading where the store is") from error
    return PostgresAddress.parse(text.removesuffix("\n"))
