"""Which signed sets the verifier has seen, one table of its durable state. See :mod:`.store`.

A row per line of sets (:class:`.Line`), and only the newest set counts: an older one is not taken. Neither a restart
nor the absence of a set in between makes the verifier forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.proto.errors import Code, PolicyDenied
from weighbridge.verifier.database.upsert import Upsert
from weighbridge.verifier.tables import owners

if TYPE_CHECKING:
    from weighbridge.verifier.owner_signature import Line, SignedByOwner

__all__ = ["Newest", "Owners"]

_SEE: Final = Upsert(owners, replaced=["number", "digest", "origin", "seen_ns"])


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest set of a line: its digest; of baselines also that of the set from which no later one may be far."""

    digest: bytes
    origin: bytes | None


@final
class Owners:
    """The newest set of each line within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def newest(self, line: Line) -> Newest | None:
        """The newest set of ``line`` that was seen."""
        row = self._connection.execute(sa.select(owners).where(_is(line))).one_or_none()
        return None if row is None else Newest(row.digest, row.origin)

    def see(self, signed: SignedByOwner, *, at_ns: int, origin: bytes | None = None) -> None:
        """Require that ``signed`` is not older than a set of its line that was seen before, and remember it.

        Args:
            signed: by its owner, whatever became of its statements.
            at_ns: nanoseconds since 1970.
            origin: as :class:`Newest` says.

        Raises:
            PolicyDenied: ``REFERENCE_ROLLBACK``, of policies ``POLICY_ROLLBACK``, for a lower number, or another set of
                the same number.
        """
        line, number = signed.line, signed.number
        code = Code.POLICY_ROLLBACK if line.purpose == "policy-author" else Code.REFERENCE_ROLLBACK
        row = self._connection.execute(sa.select(owners).where(_is(line))).one_or_none()
        if row is not None and number < row.number:
            raise PolicyDenied(
                code,
                f"a newer {line.what} of this owner was seen before",
                where=str(line),
                expected=f"number >= {row.number}",
                got=number,
                hint="fetch the owner's newest one; nothing that it took back comes back by itself",
            )
        if row is not None and number == row.number and signed.digest != row.digest:
            raise PolicyDenied(
                code,
                f"another {line.what} of this owner and number was seen before",
                where=f"{line}, number {number}",
                expected=row.digest,
                got=signed.digest,
                hint="ask the owner which one is meant: each has a number of its own",
            )
        if row is None or number > row.number:
            values = {"number": number, "digest": signed.digest, "origin": origin, "seen_ns": at_ns}
            self._connection.execute(_SEE.on(self._connection), {**_key(line), **values})


def _key(line: Line) -> dict[str, str]:
    return {"purpose": line.purpose, "owner": line.owner, "name": line.name, "tenant": line.tenant}


def _is(line: Line) -> sa.ColumnElement[bool]:
    return sa.and_(*(owners.c[column] == value for column, value in _key(line).items()))
