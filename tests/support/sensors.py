"""Emulated sensors whose readings are the same every time, though the emulated GPUs' keys, and so their names, are new.

Readings of :class:`EmulatedTelemetry` follow from its seed, the run and the devices' identities. Here the identities
are stand-ins, by the order of the real ones, so that what is said of a session does not hang on the keys of the day.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.telemetry.emulated import EmulatedTelemetry
from weighbridge.proto.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.attester.telemetry.interface import TelemetrySource
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["HERE", "Sensors", "Undeclared", "reading"]

_SEED: Final = 7
_SECOND: Final = 1_000_000_000
HERE: Final = "tpm"
"""The machine that a world begins with; others are called by what their TPM's keys are made from."""


@final
class Sensors:
    """Those of the GPUs in one machine; a machine of another name has other units.

    Args:
        devices: the GPUs' identities.
        run: which run of these units this is.
        machine: whose units they are.
    """

    def __init__(self, devices: Sequence[bytes], *, run: int, machine: str = HERE) -> None:
        self._names = {sha256(b"%s/%d" % (machine.encode(), place)): name for place, name in enumerate(sorted(devices))}
        self._read = EmulatedTelemetry(_SEED, list(self._names), run=run)

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`EmulatedTelemetry.window`."""
        made = self._read.window(start_wall_ns=start_wall_ns, duration_ns=duration_ns, work=work)
        return [replace(source, device=self._names[source.device or b""]) for source in made]

    def close(self) -> None:
        """Nothing to stop."""


@final
class Undeclared:
    """Sensors of GPUs that compute more than is declared: the physical effect of hidden work.

    Args:
        read: the sensors.
        tokens: decoded in each second by all GPUs together, beside what is declared.
    """

    def __init__(self, read: TelemetrySource, *, tokens: int) -> None:
        self._read = read
        self.tokens = tokens

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`EmulatedTelemetry.window`."""
        done = replace(work, tokens_out=work.tokens_out + self.tokens * duration_ns // _SECOND)
        return self._read.window(start_wall_ns=start_wall_ns, duration_ns=duration_ns, work=done)

    def close(self) -> None:
        """Nothing to stop."""


def reading(source: Source, **changes: Callable[[int, int], float]) -> Source:
    """``source`` with other readings in these channels, each from its place in the window and what was read."""
    channels = dict(source.channels)
    for name, change in changes.items():
        channel = channels[name]
        assert channel.values is not None
        made = (None if value is None else round(change(at, value)) for at, value in enumerate(channel.values))
        channels[name] = replace(channel, values=tuple(made))
    return replace(source, channels=channels)
