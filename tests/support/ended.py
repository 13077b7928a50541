"""Sessions that are rows of a store and nothing else, to be ended and taken out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from weighbridge.proto.digest import sha256
from weighbridge.verifier.enrolment import LedgeredLog
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.store import Issued
from weighbridge.verifier.tables import challenges, windows
from weighbridge.verifier.transaction import Move

if TYPE_CHECKING:
    from weighbridge.verifier.store import Store

__all__ = ["ENDED", "INTERRUPTED", "LIVE", "fill", "issued", "rows"]

ENDED, INTERRUPTED, LIVE = (bytes([number] * 16) for number in range(3))
LOG: Final = LedgeredLog(5, 2, sha256(b"log"))


def fill(store: Store, session: bytes, *, of: int, count: int = 7) -> None:
    """A session of the AK ``of`` with ``count`` windows, each received in the second of its number."""
    ak, first = sha256(b"ak %d" % of), 1000 * session[0]
    with store.transaction() as tx:
        subject = tx.subjects.of("ak", ak)
        prev = subject.head if subject is not None and subject.head is not None else sha256(b"genesis")
        tx.open_session(
            session=session,
            tenant="tenant",
            ak=ak,
            gpus=(),
            prev=prev,
            enrolment_index=first,
            state=SessionState.ENROLLED,
            opened_ns=first,
        )
        tx.challenges.issue([(session, issued(session, 0))])
        for seq in range(count):
            head = sha256(session + b"link %d" % seq)
            tx.advance(
                [
                    Move(
                        session=session,
                        ak=ak,
                        before=SessionState.RUNNING if seq else SessionState.ENROLLED,
                        seq=seq,
                        prev=prev,
                        after=SessionState.RUNNING,
                        head=head,
                        window=sha256(session + b"window %d" % seq),
                        index=first + 1 + seq,
                        held=False,
                        received_ns=first + seq,
                        log=LOG,
                    )
                ]
            )
            tx.challenges.issue([(session, issued(session, seq + 1))])
            prev = head


def issued(session: bytes, seq: int) -> Issued:
    return Issued(seq, sha256(session + b"challenge %d" % seq), bytes(32), sha256(b"r"), seq)


def rows(store: Store, session: bytes) -> tuple[list[int], list[int]]:
    """The numbers of the windows that are here, and those for which there are challenges."""
    with store.reading() as tx:
        found = [
            tx._connection.scalars(sa.select(table.c.seq).where(table.c.session == session).order_by(table.c.seq)).all()
            for table in (windows, challenges)
        ]
    return list(found[0]), list(found[1])
