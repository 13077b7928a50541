"""What a source of telemetry can do, and what a plug-in that makes one is told of the host.

A plug-in is an entry point of the group ``weighbridge.telemetry`` that names a :class:`Factory`
(:mod:`weighbridge.attester.telemetry.registry`). What it reads is *the host's word*: nothing here makes a sensor
trustworthy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, final, runtime_checkable

from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["PERIOD_NS", "Factory", "HostFacts", "Options", "TelemetrySource"]

PERIOD_NS: Final = 100_000_000


@runtime_checkable
class TelemetrySource(Protocol):
    """Sensors of this host. A real source samples in the background; an emulated one computes."""

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """What was read in the window that ends now, one source per device and path.

        Windows follow one another without overlap. A sample that is late or missing shows as a gap in the offsets and
        as an event; it is never filled in. Called once per window, after its work has been counted; returns at once,
        whatever the driver does.

        A sensor that is gone ends no session: its device has a source without values, and an event that says so.

        Args:
            start_wall_ns: host's wall clock when the window began.
            duration_ns: how long the window is, nominally.
            work: what was served in it. A real source has no use for it.

        Raises:
            EnvironmentFault: ``TELEMETRY_SOURCE``: the source itself is of no use any more.
        """
        ...

    def close(self) -> None:
        """Stop sampling, within a second or two even where a driver hangs. No other call may follow."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a plug-in is told of the host.

    Attributes:
        devices: identities of the session's GPUs, 32 bytes each, ascending; empty outside of a session.
        uuids: the driver's own name of a GPU to that GPU's identity; empty where no driver was asked.
        period_ns: wanted between samples (``--sample-rate``).
        seed: of what is emulated.
    """

    devices: tuple[bytes, ...] = ()
    uuids: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    period_ns: int = PERIOD_NS
    seed: int = 0


# What an entry point names: options as they were given, and the host, to a source that samples already.
Factory = Callable[[Mapping[str, str], HostFacts], TelemetrySource]


@final
class Options:
    """A plug-in's options, each to be taken once, with what is left over refused.

    >>> options = Options("adc", {"rate": "5000"})
    >>> options.number("rate", 1, 10**6, default=1000), options.text("path", default="")
    (5000, '')
    >>> options.end()

    Args:
        plugin: whose they are, for messages.
        given: as they were given.
    """

    def __init__(self, plugin: str, given: Mapping[str, str]) -> None:
        self._plugin = plugin
        self._left = dict(given)
        self._known: list[str] = []

    def text(self, key: str, *, default: str | None = None) -> str:
        """The option's text.

        Raises:
            EnvironmentFault: ``TELEMETRY_SOURCE`` where it is missing and has no default.
        """
        self._known.append(key)
        value = self._left.pop(key, default)
        if value is None:
            raise self.refusal(f"the option {key} is missing", got="nothing")
        return value

    def number(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """The option's whole number, from ``low`` to ``high``.

        Raises:
            EnvironmentFault: ``TELEMETRY_SOURCE``: missing without a default, no such number, or out of range.
        """
        text = self.text(key, default=None if default is None else str(default))
        try:
            value = strict.decimal(text, what=key, limit=high)
        except MalformedEvidence as error:
            raise self.refusal(f"{key} must be a whole number from {low} to {high}", got=text) from error
        if value < low:
            raise self.refusal(f"{key} must be a whole number from {low} to {high}", got=text)
        return value

    def end(self) -> None:
        """Refuse what was not asked for.

        Raises:
            EnvironmentFault: ``TELEMETRY_SOURCE``.
        """
        if self._left:
            known = ", ".join(self._known) or "none"
            raise self.refusal(f"unknown option; it knows: {known}", got=", ".join(self._left))

    def refusal(self, text: str, *, got: str) -> EnvironmentFault:
        """The error for an option that will not do; what is expected is in ``text``."""
        return EnvironmentFault(
            Code.TELEMETRY_SOURCE,
            text,
            where=f"--telemetry {self._plugin}",
            got=got,
            hint="docs/telemetry-sources.md lists the options of each source",
        )
