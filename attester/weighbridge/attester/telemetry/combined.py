"""Several sources of telemetry as one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.telemetry.blame import blamed
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.attester.telemetry.interface import TelemetrySource
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["Combined"]

_HINT: Final = "report it to whoever made the plug-in, or leave it out"


@final
class Combined:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource` of several, each with its plug-in's name."""

    def __init__(self, sources: Sequence[tuple[str, TelemetrySource]]) -> None:
        self._sources = tuple(sources)

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`; in the order of the sources.

        Raises:
            EnvironmentFault: ``TELEMETRY_SOURCE``: two of them read a device under one name, so that nobody could tell
                their samples apart, or one breaks; or what one of them raises of this kind.
        """
        read: list[Source] = []
        by: dict[tuple[bytes | None, str], str] = {}
        for plugin, source in self._sources:
            with blamed(plugin, hint=_HINT):
                found = tuple(source.window(start_wall_ns=start_wall_ns, duration_ns=duration_ns, work=work))
            for item in found:
                other = by.get((item.device, item.name))
                if other is not None:
                    raise EnvironmentFault(
                        Code.TELEMETRY_SOURCE,
                        f"two sources read {_named(item.device)} under the name {item.name}",
                        where=f"--telemetry {plugin}",
                        got=f"{other} and {plugin}",
                        hint="leave one of them out, or give one another name where it has an option for that",
                    )
                by[item.device, item.name] = plugin
                read.append(item)
        return read

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`: each, though another fails."""
        with ExitStack() as closing:
            for plugin, source in self._sources:
                closing.callback(_close, plugin, source)


def _close(plugin: str, source: TelemetrySource) -> None:
    with blamed(plugin, hint=_HINT):
        source.close()


def _named(device: bytes | None) -> str:
    return "this host" if device is None else f"the GPU {device.hex()[:16]}…"
