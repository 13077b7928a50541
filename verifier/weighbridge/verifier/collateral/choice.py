"""What of a store is judged by at once, and how near to its bounds that is.

All pieces, where they are few. At most the newest four OCSP responses and lists of one subject, but everything that
takes trust away; and of all that at most ``limits.COLLATERAL_SNAPSHOT_MAX`` pieces, and no more bytes than one record
may name: first what takes trust away, then the newest. What claims to be of later than the time of judging comes last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from weighbridge.verifier.collateral.describe import Description

__all__ = ["Fill", "choose", "fill"]

# How many issues of one thing are handed out where each replaces the one before.
_ISSUES_MAX: Final = 4
_REPLACING: Final = frozenset({"ocsp", "crl"})
# Of CONTENT_MAX, for what stands around the pieces.
_OVERHEAD: Final = 64
_FRAME: Final = 1024


@dataclass(frozen=True, slots=True)
class Fill:
    """How much is taken of what can be handed out at once, of pieces or bytes, whichever is more; 1 is all.

    Attributes:
        revoking: by what takes trust away: above 1, nothing is judged.
        whole: by all that there is to hand out: above 1, the oldest is left out.
    """

    revoking: float
    whole: float


def choose(pieces: Sequence[Description], at: datetime, *, where: str) -> list[Description]:
    """What to judge by at ``at``, of ``pieces``; ``where`` they are, for the message.

    Raises:
        EnvironmentFault: ``TOO_LARGE``, where not all that takes trust away has room.
    """
    chosen: list[Description] = []
    room = limits.CONTENT_MAX - _FRAME
    for piece in _candidates(pieces, at):
        room -= len(piece.item.data) + _OVERHEAD
        if room < 0 or len(chosen) == limits.COLLATERAL_SNAPSHOT_MAX:
            if piece.revokes:
                raise _crowded(pieces, where)
            break
        chosen.append(piece)
    return chosen


def fill(pieces: Sequence[Description], at: datetime) -> Fill:
    """How near to its bounds a choice of ``pieces`` at ``at`` is."""
    candidates = list(_candidates(pieces, at))
    return Fill(revoking=_share([piece for piece in candidates if piece.revokes]), whole=_share(candidates))


def _crowded(pieces: Sequence[Description], where: str) -> EnvironmentFault:
    """Whoever brings enough made-up revocations must not make a genuine one disappear."""
    revoking = [piece for piece in pieces if piece.revokes]
    size = sum(len(piece.item.data) for piece in revoking)
    return EnvironmentFault(
        Code.TOO_LARGE,
        "there are more revocations in the collateral store than can be judged by at once",
        where=where,
        expected=f"<= {limits.COLLATERAL_SNAPSHOT_MAX} pieces, {limits.CONTENT_MAX} bytes",
        got=f"{len(revoking)} pieces, {size} bytes",
        hint="weighbridge collateral list shows them: `weighbridge collateral remove DIGEST…` forgets superseded "
        "lists, and what is of no maker's",
    )


def _candidates(pieces: Sequence[Description], at: datetime) -> Iterator[Description]:
    """What is to be handed out at ``at``, the first first, if there is room."""
    ordered = sorted(pieces, key=lambda piece: (piece.issued, piece.digest), reverse=True)
    ordered.sort(key=lambda piece: (not piece.revokes, piece.issued > at))
    issues: dict[tuple[str, str], int] = {}
    for piece in ordered:
        subject = piece.kind, piece.subject
        issues[subject] = issues.get(subject, 0) + (not piece.revokes)
        if piece.revokes or piece.kind not in _REPLACING or issues[subject] <= _ISSUES_MAX:
            yield piece


def _share(pieces: Sequence[Description]) -> float:
    """How much of a snapshot they take: see :class:`Fill`."""
    size = sum(len(piece.item.data) + _OVERHEAD for piece in pieces)
    return max(len(pieces) / limits.COLLATERAL_SNAPSHOT_MAX, size / (limits.CONTENT_MAX - _FRAME))
