"""What relying parties are told of a session, on both sides of the line. See :mod:`.standing` for the rule."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["GateState", "Model", "Told"]


class GateState(StrEnum):
    """What a relying party is told of a session's gate."""

    WAITING = "waiting"
    OPEN = "open"
    CLOSED = "closed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a session stands at one time. ``expires_ns`` is given exactly where it is open, ``code`` where it is not.

    Attributes:
        state: whether it is open.
        at_ns: the time, nanoseconds since 1970.
        expires_ns: when it closes by itself.
        code: why it is not open.
        reason: the same for people; empty where it is open.
        seq: the window that was affirmed, or that says why not.
    """

    state: GateState
    at_ns: int
    expires_ns: int | None
    code: str | None
    reason: str
    seq: int | None

    @property
    def is_open(self) -> bool:
        """Whether the gate is open."""
        return self.state is GateState.OPEN

    def same_as(self, other: Told) -> bool:
        """Whether nothing has changed but the time."""
        return (self.state, self.expires_ns, self.code, self.seq) == (
            other.state,
            other.expires_ns,
            other.code,
            other.seq,
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model of one tenant, whose sessions are asked for together: the digest of its manifest, 32 bytes."""

    tenant: str
    digest: bytes
