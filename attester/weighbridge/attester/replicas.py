"""Several addresses of one verifier: any of its replicas takes any session, so whichever answers will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from weighbridge.attester.client import Line, Transport

__all__ = ["Replicas"]


@final
class Replicas:
    """A :class:`~weighbridge.attester.client.Transport` over others, tried in an order of its own.

    Each connection begins with the address after the last one: what was cut is not where to go first. Attesters whose
    replica dies go to the others in equal parts, since each has them in another order.

    Args:
        transports: one for each address, at least one.
        rng: puts them in order.
    """

    __slots__ = ("_next", "_transports")

    def __init__(self, transports: Sequence[Transport], rng: random.Random) -> None:
        if not transports:
            raise ValueError("a verifier has at least one address")
        self._transports = rng.sample(transports, len(transports))
        self._next = 0

    async def connect(self) -> Line:
        """A line to the first address that gives one.

        Raises:
            EnvironmentFault: ``PEER_UNREACHABLE`` where none does, as the last of them says; ``PEER_REFUSED`` from the
                first that refuses this attester: the others would, too.
        """
        faults: list[EnvironmentFault] = []
        for _ in self._transports:
            transport = self._transports[self._next]
            self._next = (self._next + 1) % len(self._transports)
            try:
                return await transport.connect()
            except EnvironmentFault as fault:
                if fault.code is not Code.PEER_UNREACHABLE:
                    raise
                faults.append(fault)
        last = faults[-1]
        if len(faults) == 1:
            raise last
        raise EnvironmentFault(
            last.code,
            f"none of the verifier's {len(faults)} addresses can be reached; the last of them: {last.message}",
            where=last.where,
            hint=last.hint,
        ) from last
