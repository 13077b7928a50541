"""Whether a window answers the spot check that it was asked: step 14 of :mod:`.procedure`.

An answer shows that somebody had the declared bytes within the window. Not shown: that this host has them on its own
disk, nor that they are what runs.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from weighbridge.proto.spot import SpotAnswer, SpotExpectation

__all__ = ["check_answer"]


def check_answer(answer: SpotAnswer | None, expected: SpotExpectation | None) -> None:
    """Require exactly the answer that is due, compared in constant time, and none where none is.

    Args:
        answer: the header's claim.
        expected: what left with the window's own challenge, if anything did.

    Raises:
        NotAuthentic: ``SPOT_ABSENT``, ``SPOT_WRONG``, or ``EVIDENCE_UNEXPECTED`` for an answer to what was not asked.
    """
    where = "header.spot"
    if expected is None:
        if answer is not None:
            raise NotAuthentic(
                Code.EVIDENCE_UNEXPECTED, "no spot check was asked for in this window", where=where, got=answer.id
            )
        return
    wanted = expected.challenge.id
    if answer is None:
        raise NotAuthentic(
            Code.SPOT_ABSENT,
            "the spot check that was due in this window is not answered",
            where=where,
            expected=wanted,
            hint="the attester says why it could not read the model's files; in a later window it is too late",
        )
    if answer.id != wanted:
        raise NotAuthentic(
            Code.SPOT_WRONG, "another spot check is answered", where=where, expected=wanted, got=answer.id
        )
    if not hmac.compare_digest(expected.mac, answer.mac):
        raise NotAuthentic(
            Code.SPOT_WRONG,
            "the spot check is not answered from the bytes of the declared model",
            where=where,
            expected=expected.mac,
            got=answer.mac,
            hint="the model's files on the host are not, or no longer, the declared ones",
        )
