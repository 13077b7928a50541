"""Which sources of telemetry there are, and opening those that were asked for.

A source is an entry point of the group ``weighbridge.telemetry``: its name is what ``--telemetry`` takes, its value a
:data:`~weighbridge.attester.telemetry.interface.Factory`. Those of this package are registered in the same way as
anybody's (``pyproject.toml``); ``docs/telemetry-sources.md`` shows a whole plug-in. A plug-in is code of this host, run
with the attester's rights: installing it is the trust decision, and nothing here restricts it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Final, Self

from weighbridge.attester.telemetry.blame import blamed
from weighbridge.attester.telemetry.combined import Combined
from weighbridge.attester.telemetry.interface import TelemetrySource
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from weighbridge.attester.telemetry.interface import HostFacts

__all__ = ["GROUP", "Choice", "PlugIn", "open_sources", "plugins"]

GROUP: Final = "weighbridge.telemetry"


@dataclass(frozen=True, slots=True)
class Choice:
    """One source that was asked for, with its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def parse(cls, text: str) -> Self:
        """``NAME`` or ``NAME:key=value,…``. Values hold no comma. Not checked: that there is such a source.

        >>> Choice.parse("adc:path=/run/clamp,rate=5000").options
        {'path': '/run/clamp', 'rate': '5000'}

        Raises:
            ValueError: it is neither.
        """
        name, colon, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",")] if colon else []
        options = {key: value for key, _, value in pairs}
        if not name or len(options) != len(pairs) or any(not key or not equals for key, equals, _ in pairs):
            raise ValueError(f"must be NAME or NAME:key=value,key=value with each key once, not {text!r}")
        return cls(name, options)


@dataclass(frozen=True, slots=True)
class PlugIn:
    """A source that is installed: its name, who brings it, and where its code is. Nothing of it was loaded."""

    name: str
    distribution: str
    value: str


def plugins(entry_points: Iterable[EntryPoint] | None = None) -> tuple[PlugIn, ...]:
    """What is installed, by name. ``entry_points`` stands for those of this environment."""
    found = metadata.entry_points(group=GROUP) if entry_points is None else entry_points
    listed = (PlugIn(item.name, "" if item.dist is None else item.dist.name, item.value) for item in found)
    return tuple(sorted(listed, key=lambda plugin: (plugin.name, plugin.distribution)))


def open_sources(
    choices: Sequence[Choice], host: HostFacts, *, entry_points: Iterable[EntryPoint] | None = None
) -> TelemetrySource:
    """All of ``choices`` as one source, in their order; closing it closes them all.

    Args:
        choices: at least one. The same source twice needs different options.
        host: what the plug-ins are told.
        entry_points: stands for those of this environment.

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE`` for one that is unknown, offered twice, cannot be loaded, breaks, or
            refuses its options; whatever a plug-in raises of this kind.
        ValueError: no choice.
    """
    if not choices:
        raise ValueError("at least one source")
    found = tuple(metadata.entry_points(group=GROUP) if entry_points is None else entry_points)
    with ExitStack() as opened:
        sources: list[tuple[str, TelemetrySource]] = []
        for number, choice in enumerate(choices):
            if choice in choices[:number]:
                raise _refusal(choice.name, "the source is asked for twice, with the same options")
            factory = _load(choice.name, found)
            source = _made(factory, choice, host)
            opened.callback(source.close)
            sources.append((choice.name, source))
        opened.pop_all()
        return Combined(sources)


def _load(name: str, found: Sequence[EntryPoint]) -> object:
    named = [item for item in found if item.name == name]
    if not named:
        known = ", ".join(sorted({item.name for item in found})) or "none; install weighbridge again"
        raise _refusal(name, "there is no such source", hint=f"sources that are installed here: {known}")
    if len(named) > 1:
        packages = ", ".join(sorted("?" if item.dist is None else item.dist.name for item in named))
        raise _refusal(name, "several packages offer a source of this name", hint=f"uninstall one of: {packages}")
    others = ", ".join(sorted({item.name for item in found} - {name}))
    with blamed(name, hint=_report(named[0], others)):
        try:
            return named[0].load()
        except (ImportError, AttributeError) as error:
            raise _refusal(
                name,
                f"the source cannot be loaded: {error}",
                hint="install what it needs (weighbridge[attester] for those of weighbridge), or choose another: "
                + others,
            ) from error


def _report(broken: EntryPoint, others: str) -> str:
    """What to do about a plug-in that breaks before it was given anything."""
    package = "its package" if broken.dist is None else broken.dist.name
    return f"report it to whoever made {package}, or choose another: {others}"


def _made(factory: object, choice: Choice, host: HostFacts) -> TelemetrySource:
    if not callable(factory):
        raise _refusal(choice.name, "what is registered under this name makes no source")
    with blamed(choice.name, hint="look at its options; if they are right, report it to whoever made the plug-in"):
        source: object = factory(choice.options, host)
    if not isinstance(source, TelemetrySource):
        raise _refusal(choice.name, "what the plug-in made is no source of telemetry")
    return source


def _refusal(name: str, text: str, *, hint: str = "") -> EnvironmentFault:
    return EnvironmentFault(Code.TELEMETRY_SOURCE, text, where=f"--telemetry {name}", hint=hint)
