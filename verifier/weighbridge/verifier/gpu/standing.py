"""What verified statements, taken together, say of one certificate: steps 3 to 7 of :mod:`.revocation`.

Pure: no signature is looked at here, and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.verifier.gpu.ocsp import CertStatus

__all__ = ["STATUSES", "Ignored", "RevocationStatus", "Word", "decide"]

RevocationStatus = Literal["good", "stale", "absent", "unknown", "hold", "revoked"]
STATUSES: Final[tuple[RevocationStatus, ...]] = ("good", "stale", "absent", "unknown", "hold", "revoked")
"""From best to worst."""
_Source = Literal["crl", "ocsp"]


@dataclass(frozen=True, slots=True)
class Ignored:
    """A statement that was left aside: its SHA-256, and why."""

    digest: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What one verified statement says of one certificate. Current from ``begin`` to ``end``; without an end, never."""

    source: _Source
    digest: bytes
    says: CertStatus
    this_update: datetime
    begin: datetime
    end: datetime | None
    since: datetime | None = None
    delegate: int | None = None

    @property
    def age(self) -> tuple[datetime, datetime, int]:
        """Greater is newer; of two of one time, the worse."""
        return self.this_update, self.begin, STATUSES.index(self.says)

    def is_current(self, at: datetime) -> bool:
        """Whether it may be relied on at ``at``, if it says *good*."""
        return self.end is not None and self.begin <= at <= self.end


def decide(
    words: Sequence[Word], at: datetime, ignored: list[Ignored]
) -> tuple[RevocationStatus, tuple[Word, ...], str]:
    """Status, the words that decided it, and a sentence: steps 3 to 7."""
    # 3.
    revoked = tuple(word for word in words if word.says == "revoked")
    if revoked:
        return "revoked", revoked, f"revoked{_since(revoked[0])}"
    # 4.
    counted: list[Word] = []
    for word in words:
        if word.says == "hold" or word.begin <= at:
            counted.append(word)
        else:
            reason = f"produced later than {at:%Y-%m-%dT%H:%M:%SZ}, on {word.begin:%Y-%m-%dT%H:%M:%SZ}"
            ignored.append(Ignored(word.digest, reason))
    if not counted:
        return "absent", (), "nobody has said whether it is revoked"
    # 5.
    newest = [
        max(of_kind, key=lambda word: word.age)
        for source in ("ocsp", "crl")
        if (of_kind := [word for word in counted if word.source == source])
    ]
    held = tuple(word for word in newest if word.says == "hold")
    if held:
        return "hold", held, f"on hold{_since(held[0])}"
    # 6.
    last = max(newest, key=lambda word: word.age)
    if last.says == "unknown":
        return "unknown", (last,), f"its issuer's responder does not know it, on {last.this_update:%Y-%m-%d}"
    # 7.
    good = [word for word in counted if word.says == "good"]
    current = [word for word in good if word.is_current(at)]
    if not current:
        until = "with no end stated" if last.end is None else f"until {last.end:%Y-%m-%dT%H:%M:%SZ}"
        return "stale", (last,), f"not revoked on {last.this_update:%Y-%m-%dT%H:%M:%SZ}, {until}"
    best = max(current, key=lambda word: word.age)
    return "good", (best,), f"not revoked on {best.this_update:%Y-%m-%dT%H:%M:%SZ}"


def _since(word: Word) -> str:
    return "" if word.since is None else f" since {word.since:%Y-%m-%dT%H:%M:%SZ}"
