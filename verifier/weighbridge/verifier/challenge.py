"""Challenges: issued by the verifier, remembered, each good for one window.

The digest names the ledger's root, the session and the window, so that a challenge dates what answers it and fits
nowhere else. A window of one number is recorded once; that is what makes a challenge serve once.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from weighbridge.proto import binding, limits
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.gpu.nonces import check_nonce
from weighbridge.verifier.record import ChallengePreimage
from weighbridge.verifier.transaction import Issued

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["issue", "preimage_of"]


def issue(ledger_root: bytes, session: bytes, seq: int | None, *, at: datetime) -> Issued:
    """A new challenge for window ``seq`` of ``session``, or for its enrolment.

    Raises:
        NotAuthentic: ``NONCE_DENIED``: the random number generator has failed.
    """
    random = secrets.token_bytes(limits.NONCE_SIZE)
    # A generator that failed must not go unnoticed: zero, constant and published values are refused.
    check_nonce(random)
    return Issued(seq, binding.challenge(ledger_root, session, seq, random), ledger_root, random, nanoseconds(at))


def preimage_of(issued: Issued) -> ChallengePreimage:
    """What the challenge hashes, for the record."""
    return ChallengePreimage(issued.ledger_root, issued.random)
