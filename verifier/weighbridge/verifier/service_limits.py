"""How much of the service one peer, one tenant and all of them together may have. Values and their meaning; no state.

A *peer* is known by its TLS key, a relying party by its entry in the list. A tenant is known once a session is: what
comes before counts for the peer and for all. Everything is counted by one process for itself: of several workers on one
port each has its part of what all may have (:meth:`Limits.of_one`), and each replica has all of it.

The defaults suit a fleet of 10,000 hosts that send a window each in 10 s. Who has less memory lowers
``total.bytes_in_flight`` and ``total.streams``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Final, Self

__all__ = ["PEER", "REMEMBERED", "TENANT", "TOTAL", "Limits", "Share"]

REMEMBERED: Final = 20_000
"""Sessions that a process keeps in memory."""

_MIB: Final = 1024 * 1024


def _at_least_one(values: Share | Limits) -> None:
    for one in fields(values):
        value = getattr(values, one.name)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{one.name} is below 1")
        if isinstance(value, float) and not 0 < value < float("inf"):
            raise ValueError(f"{one.name} is not a time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one of them may have at once, or in a time.

    Attributes:
        streams: attesters' streams.
        sessions: sessions under way: with a stream, or in the hour after they had their last one.
        openings_per_minute: openings of enrolments; of a tenant they are not known yet, and not counted.
        windows_per_second: windows, and any other requests. More wait, and are refused when they would wait for long.
        bytes_in_flight: of requests that were read and are not answered.
        calls: calls and watches of relying parties that are not answered yet; of a tenant, of those that may read its
            results alone.

    Raises:
        ValueError: one of them is below 1.
    """

    streams: int
    sessions: int
    openings_per_minute: int
    windows_per_second: int
    bytes_in_flight: int
    calls: int

    def __post_init__(self) -> None:
        _at_least_one(self)

    def part(self, count: int) -> Self:
        """What one of ``count`` processes may give: so much that all together give no less than all of it."""
        return replace(self, **{one.name: -(-getattr(self, one.name) // count) for one in fields(self)})

    def within(self, other: Share) -> Self:
        """No more than ``other``."""
        return replace(
            self, **{one.name: min(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)}
        )


PEER: Final = Share(
    streams=16, sessions=16, openings_per_minute=20, windows_per_second=50, bytes_in_flight=16 * _MIB, calls=64
)
"""Of one peer: some sessions of one host, and a week of windows of 10 s, which it has kept, in half an hour."""
TENANT: Final = Share(
    streams=20_000,
    sessions=20_000,
    openings_per_minute=1_200,
    windows_per_second=5_000,
    bytes_in_flight=256 * _MIB,
    calls=1_024,
)
"""Of one tenant: by default nearly all there is. Who serves several lowers it."""
TOTAL: Final = Share(
    streams=20_000,
    sessions=20_000,
    openings_per_minute=1_200,
    windows_per_second=5_000,
    bytes_in_flight=512 * _MIB,
    calls=4_096,
)
"""Of all together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All limits of a service. Times are seconds.

    Attributes:
        peer: what one peer may have.
        tenant: what one tenant may have.
        total: what all may have.
        credit: windows that an attester may have under way on one stream.
        patience: how long a window that comes too fast is held back before it is refused instead; and how long one may
            have to wait for its turn where more come than can be judged: up to twice as long, by the peer, and half as
            long for an opening.
        enrolment: within this time a stream has a session: it was opened and proven, or resumed.
        idle_periods: a stream without a request for so many of its session's periods, and the lateness, is ended.
        stream_age: after about this time a stream is ended between two windows. Whoever resumes shows its certificate
            again. It is never longer than the certificate is good for.
        drain: when the service is told to end: how long answers that are under way are waited for.
        handshake: within this time TLS and the beginning of HTTP/2 are done.
        connections: open connections, from whomever, also those that have not said who they are.
        keepalive: after so much silence of a connection it is asked whether anybody is there.
        keepalive_timeout: for so long the answer to that is waited for.
        connection_idle: a connection without any stream is closed after this.
        metadata_bytes: of one call's headers.

    Raises:
        ValueError: one of them is not positive, or more for one than for all.
    """

    peer: Share = field(default=PEER)
    tenant: Share = field(default=TENANT)
    total: Share = field(default=TOTAL)
    credit: int = 4
    patience: float = 2.0
    enrolment: float = 60.0
    idle_periods: int = 4
    stream_age: float = 12 * 3600.0
    drain: float = 10.0
    handshake: float = 10.0
    connections: int = 25_000
    keepalive: float = 30.0
    keepalive_timeout: float = 10.0
    connection_idle: float = 300.0
    metadata_bytes: int = 16 * 1024

    def __post_init__(self) -> None:
        _at_least_one(self)
        for one in fields(Share):
            name = one.name
            if not getattr(self.peer, name) <= getattr(self.tenant, name) <= getattr(self.total, name):
                raise ValueError(f"{name}: a peer may have no more than a tenant, and a tenant no more than all")

    def of_one(self, workers: int) -> Self:
        """What one of so many processes gives that have a port between them.

        The kernel spreads connections over them by chance: so each has its part of what a tenant and all may have, and
        of connections. A peer has few, which may all be of one process: it may have all of its own of each of them,
        and no more than a tenant may.
        """
        tenant, total = self.tenant.part(workers), self.total.part(workers)
        connections = -(-self.connections // workers)
        return replace(self, peer=self.peer.within(tenant), tenant=tenant, total=total, connections=connections)
