"""The head that a ledger publishes, opened under its key: with it every reader begins, and all fail alike.

Whatever is refused names the file, or the address, that it was read from.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.proto import tlog
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Generator

    from weighbridge.proto.note import NoteKey

__all__ = ["CHECKPOINT", "COSIGNED", "about", "no_ledger", "open_head", "told_of"]

CHECKPOINT: Final = "checkpoint"
"""The file of the newest head."""
COSIGNED: Final = "cosigned"
"""The file of the newest head that witnesses cosigned, where there is one."""

_Error = TypeVar("_Error", bound=WeighbridgeError)


def no_ledger(where: object) -> EnvironmentFault:
    """The fault of a place without a checkpoint; ``where`` is where it would be."""
    return EnvironmentFault(
        Code.FILE_UNREADABLE,
        "no ledger here",
        where=str(where),
        hint="name what its `checkpoint` lies in, such as STATE/ledger of a verifier",
    )


def open_head(data: bytes | None, key: NoteKey, *, origin: str, where: object) -> tlog.VerifiedCheckpoint:
    """The checkpoint that ``data`` is, of the ledger ``origin``.

    Does not show that it is recent, nor that others were given the same one.

    Args:
        data: the signed note, untrusted; ``None`` where there is no such file.
        key: trusted by the caller.
        origin: the ledger that the caller means.
        where: the file or address that it was read from.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE``: there is none.
        WeighbridgeError: as :func:`.tlog.open_checkpoint`, naming the file.
    """
    if data is None:
        raise no_ledger(where)
    with about(where):
        return tlog.open_checkpoint(data, key, origin=origin)


@contextlib.contextmanager
def about(where: object, *, hint: str = "") -> Generator[None]:
    """Have a refusal of what was read from ``where`` name it, and have ``hint`` where it has none.

    Raises:
        WeighbridgeError: the one that was raised inside, with its code and class.
    """
    try:
        yield
    except WeighbridgeError as error:
        raise told_of(error, where, hint=hint) from error


def told_of(error: _Error, where: object, *, hint: str = "") -> _Error:
    """The same refusal, which names ``where`` and has ``hint`` where it has none."""
    place = str(where)
    is_named = error.where == place or error.where.startswith((f"{place}:", f"{place}/"))
    return type(error)(
        error.code,
        error.message,
        where=error.where if is_named or not place else f"{place}: {error.where}" if error.where else place,
        expected=error.expected,
        got=error.got,
        clause=error.clause,
        hint=error.hint or hint,
    )
