"""A verifier that is sent three times what it can judge: what is refused, how long the rest waits, when it is over.

As for `service`, but nobody waits for anybody: windows are due evenly at three times the rate that some of the hosts
have reached before; each host sends its next one when it is due and its last one is answered. A host that is refused
with `RATE_LIMITED` comes again after as long as it was told, as the attester does, with the same window. Then the load
goes back to half of what was reached.

- `overload_affirmed_per_s`: windows affirmed in a second meanwhile; peer: the rate reached without overload.
- `overload_p99_ms`: how long the affirmed ones took from being sent to their answer.
- `overload_other`: answers that were neither: 0, or something is wrong.
- `overload_recovers_s`: from when the load went back to the first of the seconds in which nothing was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _attesters import Fleet
from _figures import Figure, report
from _served import Makers, Served

from fakes.soft_tpm import SoftAuthority
from support import wrong_clock
from support.world import manifest
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.attester.refusal import Throttled
from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _attesters import Attester

_PERIOD_NS: Final = 10_000_000_000
_TIMES: Final = 3.0
# So many find out what can be judged: they do not wait for long.
_RACING: Final = 64


@dataclass
class _Seen:
    """What a load came to. ``refused`` and ``sent`` are by the second in which they were answered and sent."""

    waited: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])
    other: Counter[str] = field(default_factory=Counter[str])


async def _load(fleet: Fleet, rate: float, seconds: float) -> _Seen:
    """Windows at ``rate`` for so many ``seconds``, evenly, from whoever has had an answer to the last one."""
    seen, began = _Seen(), time.perf_counter()
    every = len(fleet.attesters) / rate

    async def one(place: int, attester: Attester) -> None:
        due = began + place / rate
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            attester.seal()
            sent = time.perf_counter()
            try:
                await attester.send()
            except Throttled as throttled:
                seen.refused.append(time.perf_counter() - began)
                due = time.perf_counter() + throttled.retry_after_ns / 1e9
            except (WeighbridgeError, RuntimeError) as error:
                seen.other[f"{type(error).__name__}: {error}"[:200]] += 1
                return
            else:
                seen.waited.append(time.perf_counter() - sent)
                due = max(due + every, time.perf_counter())

    async with asyncio.TaskGroup() as tasks:
        for place, attester in enumerate(fleet.attesters):
            tasks.create_task(one(place, attester))
    return seen


async def _measure(served: Served, hosts: int, seconds: float) -> list[Figure]:
    fleet = Fleet(served)
    try:
        await fleet.grow(hosts)
        # What only the first windows cost is over after some.
        await fleet.race(2, hosts=_RACING)
        reached = await fleet.race(8, hosts=_RACING)
        before = served.use().memory
        over = await _load(fleet, _TIMES * reached, seconds)
        after = served.use().memory
        calm = await _load(fleet, reached / 2, seconds / 2)
    finally:
        await fleet.leave()
    for name, count in (over.other + calm.other).items():
        print(f"other: {count} x {name}", file=sys.stderr)
    return [
        Figure("overload: hosts", hosts, "hosts"),
        Figure("overload: windows a second without it", reached, "per second"),
        Figure("overload_affirmed_per_s", len(over.waited) / seconds, "per second", peer=reached),
        Figure("overload: refused with RATE_LIMITED", len(over.refused) / seconds, "per second"),
        Figure("overload_other", over.other.total() + calm.other.total(), "answers"),
        Figure("overload: p50 of the affirmed", _percentile(over.waited, 50), "ms"),
        Figure("overload_p99_ms", _percentile(over.waited, 99), "ms"),
        Figure("overload: memory before", before, "MiB"),
        Figure("overload: memory after", after, "MiB"),
        Figure("overload_recovers_s", max(calm.refused, default=0.0), "s"),
        Figure("overload: p99 at half the load, afterwards", _percentile(calm.waited, 99), "ms"),
    ]


def _percentile(waited: Sequence[float], percent: int) -> float:
    """Milliseconds."""
    return sorted(waited)[min(len(waited) - 1, len(waited) * percent // 100)] * 1e3 if waited else 0.0


def _command(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench overload", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=600, help="that send (default: 600)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of overload (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="weighbridge-bench-") as made:
        directory = Path(made)
        makers = Makers(SoftAuthority("maker of TPMs"), EmulatedVendor.create(), manifest())
        with Served(
            directory / "served", makers, gpus=1, period_ns=_PERIOD_NS, clock=wrong_clock.build(directory)
        ) as served:
            figures = asyncio.run(_measure(served, args.hosts, args.seconds))
        report(figures, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
