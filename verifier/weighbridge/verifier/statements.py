"""What every window asks of the database, put together once: building a statement takes longer than running it.

Parameters that begin with ``of_`` or ``expected_`` are conditions; all others have the names of the columns they set.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from weighbridge.verifier.session import SessionState
from weighbridge.verifier.tables import challenges, sessions, spots, subjects, windows

__all__ = [
    "ADVANCE_AK",
    "ADVANCE_SESSION",
    "FINAL_STATES",
    "ISSUED",
    "ISSUE_CHALLENGE",
    "RECORD_WINDOW",
    "SPEND_SPOT",
    "STANDING",
]

FINAL_STATES: Final = tuple(state.value for state in SessionState if state.final)

# Where a session stands: its state and its AK.
STANDING: Final = sa.select(sessions.c.state, sessions.c.ak).where(sessions.c.id == sa.bindparam("of_session"))

_HEAD: Final = (
    sa.select(subjects.c.head)
    .where(subjects.c.kind == "ak", subjects.c.identity == sa.bindparam("of_ak"))
    .scalar_subquery()
)

# One row, when the session has not ended, waits for this window, and its AK's chain stands there as well.
ADVANCE_SESSION: Final = sa.update(sessions).where(
    sessions.c.id == sa.bindparam("of_session"),
    *(sessions.c.state != state for state in FINAL_STATES),
    sessions.c.next_seq == sa.bindparam("expected_seq"),
    sessions.c.prev == sa.bindparam("expected_prev"),
    sa.bindparam("expected_prev") == _HEAD,
)

# One row, when the AK is known.
ADVANCE_AK: Final = sa.update(subjects).where(subjects.c.kind == "ak", subjects.c.identity == sa.bindparam("of_ak"))

RECORD_WINDOW: Final = sa.insert(windows)

# Numbered by the index from its end, and not by counting: a session has as many challenges as windows.
_LAST: Final = (
    sa.select(sa.func.max(challenges.c.number))
    .where(challenges.c.session == sa.bindparam("of_session"))
    .scalar_subquery()
)
ISSUE_CHALLENGE: Final = sa.insert(challenges).values(number=sa.func.coalesce(_LAST + 1, 0))

# Challenges, each with the spot challenge that left with it, if one did.
ISSUED: Final = (
    sa.select(challenges, spots.c.challenge.label("spot"), spots.c.mac)
    .select_from(challenges)
    .outerjoin(spots, spots.c.issued == challenges.c.digest)
)

# The first of a model that is left, if any.
_LEFT: Final = (
    sa.select(spots.c.number)
    .where(spots.c.manifest == sa.bindparam("of_manifest"), spots.c.issued.is_(None))
    .order_by(spots.c.number)
    .limit(1)
    .scalar_subquery()
)
SPEND_SPOT: Final = sa.update(spots).where(spots.c.number == _LEFT).returning(spots.c.challenge, spots.c.mac)
