"""Challenges that were issued, with what they hash: a table of the verifier's durable state. See :mod:`.store`.

The last one of a session is the outstanding one. A spot challenge stands beside the one with which it left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

import sqlalchemy as sa

from weighbridge.proto.spot import SpotChallenge, SpotExpectation
from weighbridge.verifier.database.prepared import Changes, Prepared
from weighbridge.verifier.tables import challenges, spots

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Challenges", "Issued"]

# Numbered by the index from its end, and not by counting: a session has as many challenges as windows.
_LAST: Final = (
    sa.select(sa.func.max(challenges.c.number))
    .where(challenges.c.session == sa.bindparam("of_session"))
    .scalar_subquery()
)
_ISSUE: Final = Prepared(
    sa.insert(challenges).values(number=sa.func.coalesce(_LAST + 1, 0)),
    sets=[column.name for column in challenges.c if column.name != "number"],
)
# Each with the spot challenge that left with it, if one did.
_ISSUED: Final = (
    sa.select(challenges, spots.c.challenge.label("spot"), spots.c.mac, spots.c.asked_ns)
    .select_from(challenges)
    .outerjoin(spots, spots.c.issued == challenges.c.digest)
)


@dataclass(frozen=True, slots=True)
class Issued:
    """A challenge as given out: for which window (``None``: an enrolment), what it hashes, and when.

    ``digest``, ``ledger_root`` and ``random`` are 32 bytes; ``issued_ns`` counts from 1970. ``spot`` is the spot
    challenge that was spent with it, or goes on with it, and ``asked_ns`` when that left first.
    """

    seq: int | None
    digest: bytes
    ledger_root: bytes
    random: bytes
    issued_ns: int
    spot: SpotExpectation | None = None
    asked_ns: int | None = None

    def spot_for(self, seq: int) -> SpotExpectation | None:
        """What window ``seq``, sealed under this challenge, has to answer: nothing, if it is not the challenge's own.

        A window that is sealed under the challenge of an earlier one is held, and answers nothing a second time.
        """
        return self.spot if self.seq == seq else None


@final
class Challenges:
    """The table within one transaction. Given by :class:`.Transaction`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def issue(self, issued: Iterable[tuple[bytes, Issued]]) -> None:
        """Remember challenges, each with its session, whose outstanding one it is from now on.

        Raises:
            Conflict: when there is no such session, or one was issued before.
        """
        changes = Changes()
        changes.add(
            _ISSUE,
            [
                {
                    "of_session": session,
                    "digest": item.digest,
                    "session": session,
                    "seq": item.seq,
                    "ledger_root": item.ledger_root,
                    "random": item.random,
                    "issued_ns": item.issued_ns,
                }
                for session, item in issued
            ],
        )
        changes.write(self._connection)

    def of(self, session: bytes, digest: bytes) -> Issued | None:
        """The challenge, if it was ever issued in this session."""
        return self._issued(challenges.c.session == session, challenges.c.digest == digest)

    def last(self, session: bytes) -> Issued | None:
        """The outstanding challenge of a session."""
        return self._issued(challenges.c.session == session)

    def _issued(self, *where: sa.ColumnElement[bool]) -> Issued | None:
        row = self._connection.execute(
            _ISSUED.where(*where).order_by(challenges.c.number.desc()).limit(1)
        ).one_or_none()
        if row is None:
            return None
        issued = Issued(row.seq, row.digest, row.ledger_root, row.random, row.issued_ns)
        if row.spot is None:
            return issued
        spot = SpotExpectation(SpotChallenge.parse(row.spot), row.mac)
        return replace(issued, spot=spot, asked_ns=row.issued_ns if row.asked_ns is None else row.asked_ns)
