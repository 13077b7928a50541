"""Windows that a host cuts as it likes: of any length, with an interval of its own, and whatever its sensors say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from weighbridge.attester.sealing import Observed
from weighbridge.proto.telemetry import Source, Telemetry
from weighbridge.proto.window import Interval
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.world import World
    from weighbridge.verifier.core import Answer

__all__ = ["cut", "joined", "read", "times"]

_SECOND: Final = 1_000_000_000


def cut(
    world: World,
    sources: Sequence[Source],
    *,
    work: WorkSummary,
    lasts_ns: int,
    said: tuple[int, int] | None = None,
    later_ns: int | None = None,
) -> Answer:
    """The answer to the host's next window.

    Args:
        world: a session of it runs.
        sources: what its sensors are said to read, from the host's wall clock on.
        work: as declared.
        lasts_ns: by the host's clock.
        said: start and end of the interval that its header says, from there; all of it by default.
        later_ns: how much later than the one before it arrives; as long as it lasts by default.
    """
    host = world.host
    start, (first, last) = host.wall_ns, said or (0, lasts_ns)
    named = tuple(replace(source, name=host.source) for source in sources)
    clock = host.tpm.read_clock().clock
    observed = Observed(
        seq=host.seq,
        prev=host.prev,
        challenge=host.challenge,
        interval=Interval(
            tpm_start_ms=clock,
            tpm_end_ms=host.tpm.read_clock().clock,
            wall_start_ns=start + first,
            wall_end_ns=start + last,
        ),
        telemetry=Telemetry(session=host.session, seq=host.seq, sources=named).encode(),
        work=work,
        spot=host.answer(),
    )
    world.clock.advance((lasts_ns if later_ns is None else later_ns) / _SECOND)
    answer = world.deliver(host.seal(observed))
    host.wall_ns = start + lasts_ns
    return answer


def read(world: World, *, lasts_ns: int, done: WorkSummary, after_ns: int = 0) -> list[Source]:
    """What the host's sensors read for so long while its GPUs do this work, from ``after_ns`` on."""
    host = world.host
    assert host.telemetry is not None
    return host.telemetry.window(start_wall_ns=host.wall_ns + after_ns, duration_ns=lasts_ns, work=done)


def joined(first: Sequence[Source], second: Sequence[Source]) -> list[Source]:
    """Samples of one stretch and of the next as those of one window."""
    made: list[Source] = []
    for one, other in zip(first, second, strict=True):
        apart = other.start_wall_ns - one.start_wall_ns
        channels = {
            name: channel
            if channel.values is None
            else replace(channel, values=(*channel.values, *(other.channels[name].values or ())))
            for name, channel in one.channels.items()
        }
        offsets = (*one.offsets, *(apart + offset for offset in other.offsets))
        made.append(replace(one, offsets=offsets, channels=channels, events=()))
    return made


def times(work: WorkSummary, milli: int) -> WorkSummary:
    """So many thousandths of ``work``."""
    return replace(
        work,
        requests=work.requests * milli // 1000,
        tokens_in=work.tokens_in * milli // 1000,
        tokens_out=work.tokens_out * milli // 1000,
    )
