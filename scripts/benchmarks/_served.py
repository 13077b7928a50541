"""A verifier as its operator runs it: `weighbridge serve` in a process of its own, under the production policy.

Its wall clock is moved on by whoever sends it windows, so that windows of 10 s can come as fast as they are judged
and a day passes in a minute; its monotonic clock, and so everything that is measured, stays real. What it uses is read
from the kernel: CPU and memory of the process and of all that it has started (workers, policy engines).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from _timing import cpu_clock

# For the line below: what hosts are is the tests'.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.world import reference_for, requirements
from support.wrong_clock import WrongClock
from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100
from weighbridge.attester.gpu.emulated_vendor import EmulatedVendor
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.certs import load_certificate
from weighbridge.verifier.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from fakes.soft_tpm import SoftAuthority
    from weighbridge.proto.manifest import Manifest

__all__ = ["Clock", "Makers", "Served", "Use"]

ORIGIN: Final = "bench.example/windows"
_BIN: Final = Path(sys.executable).parent
_PATIENCE: Final = 60.0
# Nobody's window is late for want of a processor.
_LATENESS_NS: Final = 600_000_000_000


@final
class Clock:
    """The wall clock of a verifier: the real one, and what has been added to it."""

    def __init__(self, library: Path, file: Path) -> None:
        self._shown = WrongClock(library, file)
        self._added = 0

    @property
    def env(self) -> dict[str, str]:
        """What a process that it is shown to is started with."""
        return self._shown.env

    def now_ns(self) -> int:
        """What it shows."""
        return time.time_ns() + self._added

    def reach(self, at_ns: int) -> None:
        """Show at least ``at_ns`` from now on."""
        if (ahead := at_ns - self.now_ns()) > 0:
            self._added += ahead
            self._shown.set(wrong_by_ns=self._added)


@dataclass(frozen=True)
class Makers:
    """Who made the hosts' devices, and the model that they all serve."""

    authority: SoftAuthority
    vendor: EmulatedVendor
    model: Manifest

    def gpus(self, count: int) -> EmulatedGpus:
        """New devices for one host."""
        return EmulatedGpus(self.vendor, [EmulatedH100.make(self.vendor) for _ in range(count)])

    def anchors(self) -> TrustAnchors:
        """Roots under the names of genuine platforms: else the production policy would refuse them."""
        root = load_certificate(self.vendor.root_certificate, what="root")
        gpu = Anchor.from_certificate("nvidia-device-root", root, platform="nvidia", source="a benchmark")
        return TrustAnchors((*self.authority.anchors("tpm").anchors, gpu))


@dataclass(frozen=True)
class Use:
    """What the processes have used so far: seconds of CPU, MiB of memory now."""

    cpu: float
    memory: float


@final
class Served:
    """A verifier that serves. A context manager: on leaving it, the process has ended."""

    def __init__(
        self, directory: Path, makers: Makers, *, gpus: int, period_ns: int, clock: Path, options: Sequence[str] = ()
    ) -> None:
        directory.mkdir()
        self.directory, self.state = directory, directory / "state"
        self.makers, self.gpus, self.period_ns = makers, gpus, period_ns
        self.clock = Clock(clock, directory / "clock")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        directory, makers = self.directory, self.makers
        Deployment.create(self.state, origin=ORIGIN, hosts=("localhost", "127.0.0.1"), at=datetime.now(UTC))
        wanted = requirements(gpus=self.gpus, period_ns=self.period_ns, gpu_every=1, lateness_ns=_LATENESS_NS)
        files = {
            "requirements.json": wanted.encode(),
            "reference.json": reference_for(makers.gpus(1), [makers.model]).to_json(),
            "anchors.json": makers.anchors().encode(),
        }
        for name, data in files.items():
            (directory / name).write_bytes(data)
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        finally:
            self._process.kill()

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.directory / "log").read_text()

    def use(self) -> Use:
        """What it and all that it has started have used."""
        cpu, memory = 0.0, 0.0
        for process in self._processes():
            # One may have ended meanwhile.
            with suppress(OSError):
                cpu += time.clock_gettime(cpu_clock(process))
                memory += _memory(process)
        return Use(cpu, memory)

    def stored(self) -> int:
        """Bytes of its state."""
        return sum(path.stat().st_size for path in self.state.rglob("*") if path.is_file())

    def _start(self) -> None:
        directory, port = self.directory, self.directory / "port"
        with (directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _BIN / "weighbridge", "serve", self.state, "--policy", "production",
                    "--requirements", directory / "requirements.json", "--reference", directory / "reference.json",
                    "--anchors", directory / "anchors.json", "--port-file", port, *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.clock.env},
            )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while not port.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the verifier does not start:\n{self.log}")
            time.sleep(0.02)
        self.port = int(port.read_text())

    def _processes(self) -> list[int]:
        """Its process, and those below it."""
        if self._process is None:
            raise RuntimeError("it does not run")
        found = [self._process.pid]
        for process in found:
            for children in Path(f"/proc/{process}/task").glob("*/children"):
                with suppress(OSError):
                    found += map(int, children.read_text().split())
        return found


def _memory(process: int) -> float:
    """MiB of one process: its own, and its part of what it shares."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
