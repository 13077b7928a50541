"""The sensors of every NVIDIA GPU of this host, through NVML, sampled in the background.

Two threads read all GPUs, one after the other: one at every tick what costs microseconds, one a second what costs
milliseconds (energy, PCIe, GPM: 3 to 18 ms a GPU, ``docs/measurements/nvml-h200.md``). Both go into one source per GPU,
``nvml``, whose offsets are the quick ticks: a dear reading stands at the tick that is nearest to it, and at all others
that channel is missing. When the energy counter was read is the channel ``energy_at``, from its sample's offset:
energy is to be compared with power there, not at its tick. Energy is read before all else that is dear.

*The host says so*: the driver is software of this host, and no reading is signed. A device that is lost, or a driver
that hangs, ends no session here; it has a source without values, with *fault* or *stall*.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.attester.gpu.bounded import BoundedCalls
from weighbridge.attester.gpu.nvml_calls import Nvml
from weighbridge.attester.gpu.nvml_driver import NvmlDriver
from weighbridge.attester.gpu.nvml_errors import NvmlFault
from weighbridge.attester.telemetry import nvml_dear, nvml_quick
from weighbridge.attester.telemetry.interface import Options
from weighbridge.attester.telemetry.nvml_dear import DearReader
from weighbridge.attester.telemetry.nvml_quick import QuickReader
from weighbridge.attester.telemetry.sampler import Sampler
from weighbridge.attester.telemetry.samples import MISSING
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.telemetry import UNITS, Channel, Event, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weighbridge.attester.telemetry.interface import HostFacts
    from weighbridge.attester.telemetry.sampler import Tick
    from weighbridge.attester.telemetry.samples import Samples
    from weighbridge.proto.telemetry import Source
    from weighbridge.proto.workload import WorkSummary

__all__ = ["NAME", "NvmlTelemetry", "open_nvml", "unattested_identity"]

NAME: Final = "nvml"
_DEAR_NS: Final = 1_000_000_000
_MS: Final = 1_000_000
_DRIVER: Final = "NVML"
_TIMEOUT_S: Final = 30.0
_SHUTDOWN_S: Final = 1.0


def open_nvml(options: Mapping[str, str], host: HostFacts) -> NvmlTelemetry:
    """The plug-in ``nvml``; ``counters`` is how often what is dear is read, in milliseconds (1000 by default).

    Raises:
        EnvironmentFault: ``TELEMETRY_SOURCE`` for other options, and as :meth:`NvmlTelemetry.open`.
    """
    given = Options(NAME, options)
    dear_ms = given.number("counters", 100, 60_000, default=_DEAR_NS // _MS)
    given.end()
    return NvmlTelemetry.open(host, dear_ns=dear_ms * _MS)


def unattested_identity(uuid: str) -> bytes:
    """What stands for the identity of a GPU that shows no certificate: 32 bytes made of the name the driver gives it.

    Nothing proves it. A session has only GPUs that show theirs; this is for recording outside of one.
    """
    return sha256(b"weighbridge/nvml-uuid/" + uuid.encode())


@dataclass(frozen=True, slots=True)
class _Gpu:
    """One GPU: who it is, and what reads it."""

    identity: bytes
    quick: QuickReader
    dear: DearReader


@final
class NvmlTelemetry:
    """A :class:`~weighbridge.attester.telemetry.interface.TelemetrySource`. Made by :meth:`open`."""

    def __init__(self, nvml: Nvml, gpus: tuple[_Gpu, ...], *, period_ns: int, dear_ns: int) -> None:
        self._nvml = nvml
        self._gpus = gpus
        self._quick = Sampler(self._read_quick, columns=len(gpus) * len(nvml_quick.COLUMNS), period_ns=period_ns)
        self._dear = Sampler(self._read_dear, columns=len(gpus) * len(nvml_dear.COLUMNS), period_ns=dear_ns)
        self._quick.start()
        self._dear.start()

    @classmethod
    def open(cls, host: HostFacts, *, dear_ns: int = _DEAR_NS, load: Callable[[], object] | None = None) -> Self:
        """Find the GPUs, ask each once what it supports, and begin to sample.

        In a session these are its GPUs, by the UUIDs that they had when they were identified; else all that the driver
        shows, each known by its certificates, or by :func:`unattested_identity` where it shows none.

        Args:
            host: what the session knows.
            dear_ns: between readings of what is dear.
            load: imports what stands for ``pynvml``; the module itself by default.

        Raises:
            EnvironmentFault: ``TOOL_MISSING`` without ``nvidia-ml-py``; ``GPU_ABSENT`` without driver or GPU;
                ``GPU_TIMEOUT``; ``GPU_FAILED``; ``TELEMETRY_SOURCE`` where a GPU of the session is not shown.
        """
        try:
            module = (load or (lambda: importlib.import_module("pynvml")))()
        except ImportError as error:
            raise EnvironmentFault(
                Code.TOOL_MISSING, f"nvidia-ml-py cannot be loaded: {error}", hint="pip install 'weighbridge[attester]'"
            ) from error
        calls = BoundedCalls(_TIMEOUT_S)
        try:
            nvml = calls.one(_DRIVER, lambda: Nvml(module))
            try:
                gpus = calls.one(_DRIVER, lambda: _gpus(nvml, host))
            except BaseException:
                _shut_down(nvml)
                raise
        except NvmlFault as fault:
            raise fault.environment_fault(_DRIVER) from fault
        return cls(nvml, gpus, period_ns=host.period_ns, dear_ns=max(dear_ns, host.period_ns))

    def window(self, *, start_wall_ns: int, duration_ns: int, work: WorkSummary) -> list[Source]:
        """See :meth:`TelemetrySource.window`."""
        _ = work
        quick = self._quick.take(start_wall_ns=start_wall_ns, duration_ns=duration_ns)
        dear = self._dear.take(start_wall_ns=start_wall_ns, duration_ns=duration_ns)
        sources: list[Source] = []
        for number, gpu in enumerate(self._gpus):
            source = quick.source(
                device=gpu.identity,
                name=NAME,
                columns=nvml_quick.COLUMNS,
                first=number * len(nvml_quick.COLUMNS),
                absent=gpu.quick.absent,
                moments=("read_at",),
            )
            sources.append(_joined(source, quick, dear, gpu, first=number * len(nvml_dear.COLUMNS)))
            gpu.dear.limit_due = True
        return sources

    def close(self) -> None:
        """See :meth:`TelemetrySource.close`. A driver that hangs is left as it is."""
        ended = [sampler.close() for sampler in (self._quick, self._dear)]
        if all(ended):
            for gpu in self._gpus:
                gpu.dear.close()
            _shut_down(self._nvml)

    def _read_quick(self, tick: Tick) -> None:
        first = 0
        for gpu in self._gpus:
            gpu.quick.read(tick, first)
            first += len(nvml_quick.COLUMNS)

    def _read_dear(self, tick: Tick) -> None:
        size = len(nvml_dear.COLUMNS)
        # First of all, so that it is read near its sample's time whatever the others take.
        for number, gpu in enumerate(self._gpus):
            gpu.dear.read_energy(tick, number * size)
        for number, gpu in enumerate(self._gpus):
            gpu.dear.read_others(tick, number * size)


def _gpus(nvml: Nvml, host: HostFacts) -> tuple[_Gpu, ...]:
    driver = NvmlDriver(nvml, patience_s=_TIMEOUT_S / 2)
    found: dict[bytes, _Gpu] = {}
    for index in range(driver.count()):
        handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
        uuid = nvml.text("nvmlDeviceGetUUID", handle)
        identity = host.uuids.get(uuid) if host.uuids else _identity(driver, index, uuid)
        if identity is not None:
            found[identity] = _Gpu(identity, QuickReader(nvml.function, handle), DearReader(nvml.function, handle))
    for identity in host.devices:
        if identity not in found:
            raise EnvironmentFault(
                Code.TELEMETRY_SOURCE,
                "the driver does not show a GPU of this session",
                where=f"--telemetry {NAME}",
                expected=identity,
                got=", ".join(known.hex()[:16] for known in found) or "none",
                hint="nvml reads real GPUs: emulated ones have the source emulated",
            )
    return tuple(found[identity] for identity in sorted(found))


def _identity(driver: NvmlDriver, index: int, uuid: str) -> bytes:
    try:
        return driver.device(index).identity
    except (NvmlFault, EnvironmentFault, MalformedEvidence):
        return unattested_identity(uuid)


def _places(offsets: Sequence[int], read: Sequence[int]) -> list[tuple[int, int]]:
    """Which of the readings stands at which sample: the nearest, each at most once, in their order.

    Readings are told by their times, in their order, and left out where :data:`MISSING`.
    """
    places: list[tuple[int, int]] = []
    last = -1
    for number, at in enumerate(read):
        if at == MISSING:
            continue
        index = bisect_left(offsets, at)
        if index and (index == len(offsets) or at - offsets[index - 1] <= offsets[index] - at):
            index -= 1
        index = max(index, last + 1)
        if index < len(offsets):
            places.append((number, index))
            last = index
    return places


def _joined(source: Source, quick: Samples, dear: Samples, gpu: _Gpu, *, first: int) -> Source:
    """``source`` with the channels and events of what is dear."""
    begin, offsets = quick.begin_ns, source.offsets
    read = {name: dear.rows[1 + first + number :: dear.width] for number, name in enumerate(nvml_dear.COLUMNS)}
    ticks = _places(offsets, [at - begin for at in dear.rows[:: dear.width]])
    # Of several devices the last one's is read well behind the tick: at the sample that is nearest to that.
    energies = _places(offsets, [at if at == MISSING else at - begin for at in read["energy_at"]])
    channels = dict(source.channels)
    for name, values in read.items():
        if name in gpu.dear.absent:
            channels[name] = Channel(UNITS[name], None)
            continue
        placed: list[int | None] = [None] * len(offsets)
        for number, index in energies if name.startswith("energy") else ticks:
            if values[number] != MISSING:
                placed[index] = values[number] - (begin + offsets[index] if name == "energy_at" else 0)
        # GPM's shares are of the time between two readings.
        channels[name] = Channel(UNITS[name], tuple(placed), dear.period_ns if name.startswith("gpm_") else None)
    events = set(source.events)
    for at, kind, column in dear.events:
        if kind is EventKind.CLOCK_STEP or (column is not None and not first <= column < first + len(read)):
            continue
        # A dear tick that was missed is no gap of the source: its quick ticks are there.
        events.add(Event(max(0, at - begin), kind, nvml_dear.COLUMNS[0 if column is None else column - first]))
    return replace(source, channels=channels, events=tuple(sorted(events, key=lambda event: event.order)))


def _shut_down(nvml: Nvml) -> None:
    with suppress(EnvironmentFault, NvmlFault):
        BoundedCalls(_SHUTDOWN_S).one(_DRIVER, lambda: nvml.call("nvmlShutdown"))
