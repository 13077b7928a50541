"""What NVML's sensors read at the end of each window: one sample a device.

It is the least that makes a session of real GPUs whole, and no record of their physics, which takes many samples a
second. The host says so; no reading is signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.proto.telemetry import UNITS, Channel, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NvmlReadings", "Readable"]

_NAME: Final = "nvml"


class Readable(Protocol):
    """Devices whose sensors can be read; :class:`~weighbridge.attester.gpu.nvml.NvmlGpus` is one."""

    def readings(self) -> Mapping[bytes, Mapping[str, int | None]]:
        """By identity and channel, in the channel's unit; ``None`` for what the device does not report.

        Raises:
            EnvironmentFault: a device or its driver did not answer.
        """
        ...


@final
class NvmlReadings:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` with one sample a window."""

    def __init__(self, devices: Readable) -> None:
        self._devices = devices

    def window(self, *, start_wall_ns: int, duration_ns: int, tokens_in: int, tokens_out: int) -> list[Source]:
        """See :meth:`TelemetrySource.window`; the sample is read now, which is when the window ends."""
        _ = (tokens_in, tokens_out)
        return [
            Source(
                device=identity,
                name=_NAME,
                start_wall_ns=start_wall_ns,
                period_ns=duration_ns,
                offsets=(duration_ns,),
                channels={
                    name: Channel(UNITS[name], None if value is None else (value,)) for name, value in read.items()
                },
            )
            for identity, read in self._devices.readings().items()
        ]

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`: nothing to stop."""
