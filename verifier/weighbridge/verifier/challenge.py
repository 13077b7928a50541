"""Challenges: issued by the verifier, remembered, each good for one window.

The digest names the ledger's root, the session and the window, so that a challenge dates what answers it and fits
nowhere else. A window of one number is recorded once; that is what makes a challenge serve once.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from weighbridge.proto import binding, limits
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.gpu.nonces import check_nonce
from weighbridge.verifier.record import ChallengePreimage
from weighbridge.verifier.transaction import Issued

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.terms import Terms
    from weighbridge.verifier.session import Position
    from weighbridge.verifier.transaction import Transaction

__all__ = ["CHANCE", "Chance", "draw", "hand_out", "hardly_asked", "issue", "preimage_of"]


class Chance:
    """What nobody can know before a challenge leaves. Who tests a verifier by recorded evidence gives it another one.

    Evidence answers one challenge: a verifier can be shown it again only if it hands out that challenge again
    (:mod:`.conformance`).
    """

    def token(self, size: int) -> bytes:
        """``size`` random bytes."""
        return secrets.token_bytes(size)

    def dated(self, root: bytes) -> bytes:
        """The ledger's root that dates a challenge, where the ledger has ``root``."""
        return root


CHANCE: Final = Chance()


def draw(chance: Chance = CHANCE) -> bytes:
    """The 32 random bytes of a challenge, drawn before anything is recorded that the challenge answers.

    Raises:
        NotAuthentic: ``NONCE_DENIED``: the random number generator has failed.
    """
    random = chance.token(limits.NONCE_SIZE)
    # A generator that failed must not go unnoticed: zero, constant and published values are refused.
    check_nonce(random)
    return random


def issue(ledger_root: bytes, session: bytes, seq: int | None, *, random: bytes, at: datetime) -> Issued:
    """A new challenge for window ``seq`` of ``session``, or for its enrolment, out of what was drawn for it."""
    return Issued(seq, binding.challenge(ledger_root, session, seq, random), ledger_root, random, nanoseconds(at))


def hand_out(
    tx: Transaction, issued: Issued, *, terms: Terms, position: Position, unanswered: Issued | None = None
) -> Issued:
    """Make ``issued`` the outstanding challenge for the window after ``position``, with a spot challenge if one is due.

    Both may leave once ``tx`` is durable: whatever happens then, the spot challenge is spent. With it goes nothing when
    the pool has none left, which the verdict on the window says (``SPOT_POOL_EMPTY``).

    Args:
        tx: the transaction.
        issued: new.
        terms: the session's.
        position: behind which the chain stands.
        unanswered: the outstanding challenge before this one, where a recorded window has its number and did not answer
            its spot challenge. If that left lately, it goes on with ``issued``: else delivering what was held back
            would empty the pool.

    Raises:
        Conflict: as :meth:`.Challenges.issue`.
    """
    tx.challenges.issue([(terms.session, issued)])
    return beside(tx, issued, terms=terms, position=position, unanswered=unanswered)


def beside(
    tx: Transaction, issued: Issued, *, terms: Terms, position: Position, unanswered: Issued | None = None
) -> Issued:
    """``issued`` with the spot challenge that leaves beside it, if one is due and left: the second half of handing out.

    See :func:`hand_out`; ``issued`` is outstanding in ``tx``.
    """
    if not position.spot_due(terms):
        return issued
    if unanswered is not None and hardly_asked(unanswered, terms, at=moment(issued.issued_ns)):
        tx.spots.carry(unanswered.digest, issued=issued.digest)
        return replace(issued, spot=unanswered.spot, asked_ns=unanswered.asked_ns)
    spot = tx.spots.spend(terms.model, issued=issued.digest, asked_ns=issued.issued_ns)
    return replace(issued, spot=spot, asked_ns=issued.issued_ns)


def hardly_asked(issued: Issued, terms: Terms, *, at: datetime) -> bool:
    """Whether the spot challenge of ``issued`` left less than half a window's period ago, for the first time."""
    if issued.spot is None or issued.asked_ns is None:
        return False
    return timedelta() <= at - moment(issued.asked_ns) < timedelta(microseconds=terms.period_ns // 2000)


def preimage_of(issued: Issued) -> ChallengePreimage:
    """What the challenge hashes, for the record."""
    return ChallengePreimage(issued.ledger_root, issued.random)
