"""What moves sessions on, as statements: compared and swapped, put together once.

Parameters that begin with ``of_`` or ``expected_`` are conditions; all others have the names of the columns they set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from weighbridge.verifier.database.prepared import Prepared
from weighbridge.verifier.session import SessionState
from weighbridge.verifier.tables import sessions, spots, subjects, windows

if TYPE_CHECKING:
    from weighbridge.verifier.enrolment import LedgeredLog

__all__ = [
    "ADVANCE_AK",
    "ADVANCE_SESSION",
    "CARRY_SPOT",
    "END",
    "FINAL_STATES",
    "RECORD_WINDOW",
    "SPEND_SPOT",
    "STANDING",
    "ak_values",
]

FINAL_STATES: Final = tuple(state.value for state in SessionState if state.final)

# Where a session stands.
STANDING: Final = Prepared(sa.select(sessions.c.state).where(sessions.c.id == sa.bindparam("of_session")))

_HEAD: Final = (
    sa.select(subjects.c.head)
    .where(subjects.c.kind == "ak", subjects.c.identity == sa.bindparam("of_ak"))
    .scalar_subquery()
)

# One row, when the session has this state, waits for this window, and its AK's chain stands there as well.
ADVANCE_SESSION: Final = Prepared(
    sa.update(sessions).where(
        sessions.c.id == sa.bindparam("of_session"),
        sessions.c.ak == sa.bindparam("of_ak"),
        sessions.c.state == sa.bindparam("expected_state"),
        sessions.c.next_seq == sa.bindparam("expected_seq"),
        sessions.c.prev == sa.bindparam("expected_prev"),
        sa.bindparam("expected_prev") == _HEAD,
    ),
    sets=["state", "next_seq", "prev"],
)

# One row, when the AK is known.
ADVANCE_AK: Final = Prepared(
    sa.update(subjects).where(subjects.c.kind == "ak", subjects.c.identity == sa.bindparam("of_ak")),
    sets=["head", "reset_count", "log_length", "log_head"],
)

RECORD_WINDOW: Final = Prepared(sa.insert(windows), sets=[column.name for column in windows.c])

# One row, when the session has this state.
END: Final = Prepared(
    sa.update(sessions).where(
        sessions.c.id == sa.bindparam("of_session"), sessions.c.state == sa.bindparam("expected_state")
    ),
    sets=["state"],
)

# The first of a model that is left, if any.
_LEFT: Final = (
    sa.select(spots.c.number)
    .where(spots.c.manifest == sa.bindparam("of_manifest"), spots.c.issued.is_(None))
    .order_by(spots.c.number)
    .limit(1)
    .scalar_subquery()
)
SPEND_SPOT: Final = Prepared(
    sa.update(spots).where(spots.c.number == _LEFT).returning(spots.c.challenge, spots.c.mac),
    sets=["issued", "asked_ns"],
)
CARRY_SPOT: Final = Prepared(sa.update(spots).where(spots.c.issued == sa.bindparam("of_issued")), sets=["issued"])


def ak_values(ak: bytes, head: bytes, log: LedgeredLog) -> dict[str, object]:
    """What :data:`ADVANCE_AK` takes: the AK, the head of its chain, and its log as it was ledgered."""
    return {
        "of_ak": ak,
        "head": head,
        "reset_count": log.reset_count,
        "log_length": log.length,
        "log_head": log.head,
    }
