"""What sampling eight GPUs ten times a second costs this host, beside the bare calls and beside NVIDIA's own package.

The driver is a stand-in (``tests/fakes/nvml_shim``) that makes its answers up at once: what is measured is what this
software spends, not what a driver does. What a driver spends in its calls comes on top; `docs/measurements` has it for
one card. The floor is the same functions of the same library, called by ctypes with arguments that are made once, and
nothing done with what they say; the peer asks the same through ``nvidia-ml-py``. Neither has a thread that wakes up,
and neither asks for GPM, which ours has among what is dear.

`--quick` measures for too short for the figures to mean anything: it shows that the benchmark runs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pynvml
from _figures import Figure, main

# For the line below: the stand-in for the driver is the tests'.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes.nvml_shim import OWN, ShimHost, build, loaded
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.gpu.nvml_calls import Nvml
from weighbridge.attester.telemetry import nvml_dear, nvml_quick
from weighbridge.attester.telemetry.interface import HostFacts
from weighbridge.attester.telemetry.nvml import NvmlTelemetry
from weighbridge.attester.telemetry.nvml_dear import DearReader
from weighbridge.attester.telemetry.nvml_layout import (
    MEMORY_TEMPERATURE,
    PCIE_RX,
    PCIE_TX,
    POWER_AVERAGE,
    POWER_INSTANT,
    FieldValue,
)
from weighbridge.attester.telemetry.nvml_quick import QuickReader
from weighbridge.attester.telemetry.sampler import Tick
from weighbridge.proto.telemetry import EventKind, Telemetry
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.proto.telemetry import Source

_GPUS: Final = 8
_HZ: Final = 10
_WINDOW_S: Final = 10
_SHARE: Final = "% of a core"
_QUICK_FIELDS: Final = (POWER_INSTANT, POWER_AVERAGE, MEMORY_TEMPERATURE)
_DEAR_FIELDS: Final = (PCIE_TX, PCIE_RX)


@dataclass(frozen=True, slots=True)
class _Effort:
    seconds: float
    calls: int


_FULL: Final = _Effort(30, 500)
_QUICK: Final = _Effort(1, 5)


def measure(effort: _Effort, directory: Path) -> Iterator[Figure]:
    """All figures; ``directory`` is for the stand-in's library."""
    with loaded(ShimHost.emulated(build(directory), EmulatedGpus.create(_GPUS))):
        os.environ[OWN] = "0"
        try:
            yield Figure("machine: processors", os.cpu_count() or 0, "cores")
            yield Figure("machine: load before", os.getloadavg()[0], "processes")
            yield from _costs(effort)
            yield Figure("machine: load after", os.getloadavg()[0], "processes")
        finally:
            del os.environ[OWN]


def _costs(effort: _Effort) -> Iterator[Figure]:
    with Nvml(pynvml) as nvml:
        handles = [nvml.call("nvmlDeviceGetHandleByIndex", index) for index in range(_GPUS)]
        ours = _per_tick(*_readers(nvml, handles), effort)
        bare = _per_tick(*_bare(nvml, handles), effort)
        theirs = _per_tick(*_theirs(handles), effort)
    names = f"one tick of {_GPUS} GPUs, what is quick", f"one tick of {_GPUS} GPUs, what is dear"
    for name, value, floor, peer in zip(names, ours, bare, theirs, strict=True):
        yield Figure(name, value, "µs", floor, peer)
    shares, sources, late = _session(effort)
    yield Figure("sampler_cpu_8gpu", sum(shares), _SHARE, _share(bare), _share(theirs))
    for name, value in zip(("the thread of what is quick", "the thread of what is dear"), shares, strict=True):
        yield Figure(f"of it {name}", value, _SHARE)
    yield Figure("ticks: begun after they were due, median", statistics.median(late), "µs")
    yield Figure("ticks: begun after they were due, worst", max(late), "µs")
    gaps = [event for event in sources[0].events if event.kind is EventKind.GAP and event.channel is None]
    yield Figure("ticks: gaps", len(gaps), "gaps")
    yield Figure(f"window of {_GPUS} GPUs: channels", sum(len(source.channels) for source in sources), "channels")
    yield Figure(f"window of {_GPUS} GPUs: samples of each", max(len(source.offsets) for source in sources), "samples")
    sent = Telemetry(session=bytes(16), seq=0, sources=tuple(sources)).encode()
    yield Figure(f"window of {_GPUS} GPUs: bytes sent", len(sent), "bytes")


def _session(effort: _Effort) -> tuple[list[float], list[Source], list[float]]:
    """Percent of a core of either thread, the last window's sources, and how late its ticks were, µs."""
    before = set(threading.enumerate())
    source = NvmlTelemetry.open(HostFacts(period_ns=10**9 // _HZ))
    try:
        made = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("weigh")]
        clocks = [time.pthread_getcpuclockid(thread.ident) for thread in made if thread.ident is not None]
        began, spent = time.monotonic(), [time.clock_gettime(clock) for clock in clocks]
        start = time.time_ns()
        left = effort.seconds
        sources: list[Source] = []
        while left > 0:
            time.sleep(min(left, _WINDOW_S))
            left -= _WINDOW_S
            now = time.time_ns()
            sources = source.window(start_wall_ns=start, duration_ns=now - start, work=WorkSummary.empty())
            start = now
        wall = time.monotonic() - began
        shares = [100 * (time.clock_gettime(clock) - was) / wall for clock, was in zip(clocks, spent, strict=True)]
    finally:
        source.close()
    offsets = sources[0].offsets
    period = sources[0].period_ns
    # The grid is that of the monotonic clock: the earliest tick of all is on it, or near.
    phase = min(offset % period for offset in offsets) if len(offsets) > 1 else 0
    return shares, sources, [((offset - phase) % period) / 1000 for offset in offsets]


def _share(per_tick: tuple[float, float]) -> float:
    """Percent of a core of what is quick at ten ticks a second and what is dear at one."""
    quick, dear = per_tick
    return (quick * _HZ + dear) / 1e6 * 100


def _per_tick(quick: Callable[[], object], dear: Callable[[], object], effort: _Effort) -> tuple[float, float]:
    """CPU microseconds of each, of this thread."""
    costs: list[float] = []
    for work in (quick, dear):
        work()
        began = time.thread_time()
        for _ in range(effort.calls):
            work()
        costs.append((time.thread_time() - began) / effort.calls * 1e6)
    return costs[0], costs[1]


def _readers(nvml: Nvml, handles: list[object]) -> tuple[Callable[[], object], Callable[[], object]]:
    quick = [QuickReader(nvml.function, handle) for handle in handles]
    dear = [DearReader(nvml.function, handle) for handle in handles]
    ticks = Tick(_GPUS * len(nvml_quick.COLUMNS)), Tick(_GPUS * len(nvml_dear.COLUMNS))

    def read_quick() -> None:
        for number, reader in enumerate(quick):
            reader.read(ticks[0], number * len(nvml_quick.COLUMNS))

    def read_dear() -> None:
        for number, reader in enumerate(dear):
            reader.read_energy(ticks[1], number * len(nvml_dear.COLUMNS))
            reader.read_others(ticks[1], number * len(nvml_dear.COLUMNS))
        ticks[1].noted()

    return read_quick, read_dear


def _bare(nvml: Nvml, handles: list[object]) -> tuple[Callable[[], object], Callable[[], object]]:
    """The calls alone, with arguments that are made once."""
    one, two, wide = (ctypes.c_uint * 1)(), (ctypes.c_uint * 2)(), (ctypes.c_ulonglong * 1)()

    def fields(numbers: tuple[int, ...]) -> tuple[object, object]:
        values = (FieldValue * len(numbers))()
        for value, number in zip(values, numbers, strict=True):
            value.fieldId = number
        return ctypes.c_int(len(numbers)), ctypes.byref(values)

    quick: list[tuple[Callable[..., int], tuple[object, ...]]] = []
    dear: list[tuple[Callable[..., int], tuple[object, ...]]] = []
    for handle in handles:
        for calls, name, arguments in (
            (quick, "nvmlDeviceGetFieldValues", fields(_QUICK_FIELDS)),
            (quick, "nvmlDeviceGetTemperature", (ctypes.c_uint(0), ctypes.byref(one))),
            (quick, "nvmlDeviceGetClockInfo", (ctypes.c_uint(1), ctypes.byref(one))),
            (quick, "nvmlDeviceGetClockInfo", (ctypes.c_uint(2), ctypes.byref(one))),
            (quick, "nvmlDeviceGetUtilizationRates", (ctypes.byref(two),)),
            (quick, "nvmlDeviceGetCurrentClocksEventReasons", (ctypes.byref(wide),)),
            (dear, "nvmlDeviceGetTotalEnergyConsumption", (ctypes.byref(wide),)),
            (dear, "nvmlDeviceGetFieldValues", fields(_DEAR_FIELDS)),
        ):
            function = nvml.function(name)
            if function is None:
                raise RuntimeError(name)
            calls.append((function, (handle, *arguments)))

    def run(calls: list[tuple[Callable[..., int], tuple[object, ...]]]) -> None:
        for function, arguments in calls:
            function(*arguments)

    return lambda: run(quick), lambda: run(dear)


def _theirs(handles: list[object]) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same questions through ``nvidia-ml-py``, GPM left out of what is dear as in the floor."""

    def quick() -> None:
        for handle in handles:
            for value in pynvml.nvmlDeviceGetFieldValues(handle, list(_QUICK_FIELDS)):
                _ = (value.timestamp, value.value.uiVal)
            pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
            pynvml.nvmlDeviceGetUtilizationRates(handle)
            pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)

    def dear() -> None:
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            for value in pynvml.nvmlDeviceGetFieldValues(handle, list(_DEAR_FIELDS)):
                _ = value.value.uiVal

    return quick, dear


def _command(arguments: list[str]) -> int:
    effort = _QUICK if "--quick" in arguments else _FULL
    directory = Path(tempfile.mkdtemp(prefix="weighbridge-bench-"))
    try:
        rest = [argument for argument in arguments if argument != "--quick"]
        return main(lambda: measure(effort, directory), rest)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_command(sys.argv[1:]))
