"""``libnvidia-ml.so.1`` of a host whose GPUs are emulated, so that ``pynvml`` itself runs, in this process or another.

The library is C and knows nothing (``fake_nvml.c``); it asks a :class:`ShimHost` over a Unix socket. A test changes
what that answers. What it signs, it signs for real, under the root of the emulated vendor, per nonce.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socketserver
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pynvml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from weighbridge.attester.gpu.emulated import EmulatedGpus, EmulatedH100

LIBRARY = "libnvidia-ml.so.1"
VARIABLE = "FAKE_NVML_SOCKET"
NOT_SUPPORTED, LOST, IN_USE, UNKNOWN = 3, 15, 19, 999
STATE = "nvmlSystemGetConfComputeState"
SETTINGS = "nvmlSystemGetConfComputeSettings"
REPORT = "nvmlDeviceGetConfComputeGpuAttestationReport"
CERTIFICATE = "nvmlDeviceGetConfComputeGpuCertificate"
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
COUNT = "nvmlDeviceGetCount_v2"
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
SET_READY = "nvmlSystemSetConfComputeGpusReadyState"
GPM_SUPPORT, GPM_SAMPLE, GPM_METRICS = "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleGet", "nvmlGpmMetricsGet"
# Set, sensors are made up by the library itself; its value is how many µs the dear ones take.
OWN = "FAKE_NVML_OWN"
_NONE = 0xFFFFFFFF
_ALL_ONES = 0xFFFF_FFFF_FFFF_FFFF
_INVALID = 2
_SIGNS = frozenset({REPORT, CERTIFICATE})
_WIDE = frozenset({ENERGY, "nvmlDeviceGetCurrentClocksEventReasons"})


def build(directory: Path) -> Path:
    """The library, made by the system's compiler into a directory of its own."""
    library = directory / LIBRARY
    source = Path(__file__).parent / "fake_nvml.c"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run(["gcc", *flags, "-o", library, source], check=True, timeout=60)
    return library


@dataclass
class ShimDevice:
    """One GPU as the driver shows it. ``sign`` makes a report over a nonce; ``chain`` is PEM, leaf first."""

    sign: Callable[[bytes], bytes]
    chain: bytes
    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    name: str = "NVIDIA H100 PCIe"
    vbios: str = "96.00.74.00.1A"
    # What the driver says of its lengths, where that is not the truth.
    report_size: int | None = None
    chain_size: int | None = None
    # In the units of NVML: mW, mJ, °C, MHz. A list is used up one by one; its last stays.
    readings: dict[str, int | list[int]] = field(
        default_factory=lambda: {
            "nvmlDeviceGetPowerUsage": 79_146,
            "nvmlDeviceGetTotalEnergyConsumption": 5_143_635,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetTemperature": 39,
            "nvmlDeviceGetClockInfo": 885,
            "nvmlDeviceGetCurrentClocksEventReasons": 1,
        }
    )
    # Field number to NVML's type of value and the value, or a list of values: the instant and the mean power, the
    # memory's temperature, PCIe's counters.
    fields: dict[int, tuple[int, int | list[int]]] = field(
        default_factory=lambda: {186: (1, 79_146), 185: (1, 80_000), 82: (1, 41), 197: (1, 1000), 198: (1, 2000)}
    )
    # Whether its counter of energy counts what field 185 says, from the reading above on.
    metered: bool = False
    born_ns: int = field(default_factory=time.monotonic_ns)
    # What the driver says of when a field was answered, µs since 1970, where that is not the truth.
    stamp: int | None = None
    # Metric to percent; None where the device has no GPM.
    gpm: dict[int, float] | None = field(default_factory=lambda: dict.fromkeys((1, 2, 3, 4, 5, 10, 11, 12, 13), 12.5))

    @classmethod
    def of(cls, device: EmulatedH100, number: int) -> Self:
        """An emulated GPU."""
        return cls(
            sign=lambda nonce: device.attest(nonce).report,
            chain=pem(device.keys.chain),
            uuid=f"GPU-00000000-0000-0000-0000-{number:012}",
            vbios=device.firmware.vbios,
        )

    @classmethod
    def recorded(cls, report: bytes, chain: bytes) -> Self:
        """A GPU that gives one report, whatever it is asked; ``chain`` in PEM."""
        return cls(sign=lambda _: report, chain=chain)


def pem(chain: tuple[bytes, ...]) -> bytes:
    """DER certificates as NVML gives them."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


class ShimHost:
    """What answers the library. A context manager; leaving it ends every call that is still held back.

    ``errors`` and ``delays`` (seconds) are by call, or by call and device; a list of numbers is used up one by one, and
    0 among them is success. ``order`` says which device has which index.
    """

    def __init__(self, library: Path, devices: list[ShimDevice]) -> None:
        self.shared_object = library
        self.devices = devices
        self.order = list(range(len(devices)))
        self.driver = "580.95.05"
        self.environment, self.feature, self.tools, self.multi = 2, 1, 0, 0
        # What the settings say instead.
        self.settings: tuple[int, int, int, int] | None = None
        self.ready = 0
        self.errors: dict[object, int | list[int]] = {}
        self.delays: dict[object, float] = {}
        self.calls: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._directory = Path(tempfile.mkdtemp(prefix="nvml-"))
        self.socket = self._directory / "s"
        self._server = _Server(str(self.socket), _Handler)
        self._server.host = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @classmethod
    def emulated(cls, library: Path, gpus: EmulatedGpus) -> Self:
        """A host with these GPUs."""
        return cls(library, [ShimDevice.of(device, number) for number, device in enumerate(gpus.devices)])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._directory)

    @property
    def env(self) -> dict[str, str]:
        """What another process needs in its environment to find the library and this host."""
        return {"LD_LIBRARY_PATH": str(self.shared_object.parent), VARIABLE: str(self.socket)}

    def count(self, call: str) -> int:
        """How often the call was made."""
        return sum(name == call for name, _ in self.calls)

    def answer(self, name: str, device: int, argument: int, data: bytes) -> tuple[int, bytes]:
        """NVML's return code, and what the call writes."""
        with self._lock:
            self.calls.append((name, device))
            code = self._error(name, device)
        if delay := self.delays.get((name, device), self.delays.get(name, 0.0)):
            self._over.wait(delay)
        if code:
            return code, b""
        return self._device(name, device, argument, data) if device != _NONE else self._system(name, argument)

    def _error(self, name: str, device: int) -> int:
        found = self.errors.get((name, device), self.errors.get(name, 0))
        if isinstance(found, list):
            return found.pop(0) if found else 0
        if not self.feature and name in _SIGNS and not found:
            # What a card outside this mode answers (docs/measurements/nvml-h200.md).
            return UNKNOWN
        return found

    def _system(self, name: str, argument: int) -> tuple[int, bytes]:
        if name == HANDLE:
            return (0, _u32(self.order[argument])) if argument < len(self.order) else (_INVALID, b"")
        if name == SET_READY:
            self.ready = argument
        said = self.environment, self.feature, self.tools
        return 0, {
            "nvmlInit": b"",
            "nvmlShutdown": b"",
            "nvmlSystemGetDriverVersion": self.driver.encode(),
            "nvmlSystemGetNVMLVersion": f"13.{self.driver}".encode(),
            COUNT: _u32(len(self.order)),
            STATE: _u32(*said),
            SETTINGS: _u32(*(self.settings or (*said, self.multi))),
            "nvmlSystemGetConfComputeCapabilities": _u32(3, 1),
            "nvmlSystemGetConfComputeGpusReadyState": _u32(self.ready),
            SET_READY: b"",
        }[name]

    def _device(self, name: str, number: int, argument: int, data: bytes) -> tuple[int, bytes]:
        device = self.devices[number]
        if name == REPORT:
            return 0, _sized(device.sign(data), device.report_size)
        if (sensed := _sensed(device, name, argument)) is not None:
            return sensed
        bus = f"00000000:{number + 1:02X}:00.0".encode()
        return 0, {
            CERTIFICATE: _sized(device.chain, device.chain_size),
            "nvmlDeviceGetName": device.name.encode(),
            "nvmlDeviceGetUUID": device.uuid.encode(),
            "nvmlDeviceGetSerial": f"{number:013}".encode(),
            "nvmlDeviceGetVbiosVersion": device.vbios.encode(),
            "nvmlDeviceGetBoardPartNumber": b"900-21010-0000-000",
            "nvmlDeviceGetBoardId": _u32(0x100 + number),
            "nvmlDeviceGetArchitecture": _u32(9),
            "nvmlDeviceGetPersistenceMode": _u32(1),
            "nvmlDeviceGetPciInfo_v3": struct.pack("=16s5I32s", bus[4:], 0, number + 1, 0, 0x233010DE, 0x162610DE, bus),
            "nvmlDeviceGetUtilizationRates": _u32(37, 12),
        }[name]


@contextmanager
def loaded(host: ShimHost) -> Generator[ShimHost]:
    """``pynvml`` of this process calls the library, and that asks ``host``."""
    cache = pynvml._nvmlGetFunctionPointer_cache
    library, known, variable = pynvml.nvmlLib, dict(cache), os.environ.get(VARIABLE)
    pynvml.nvmlLib = ctypes.CDLL(str(host.shared_object))
    cache.clear()
    os.environ[VARIABLE] = str(host.socket)
    try:
        with host:
            yield host
        # What a call that hung has held up goes on now: with this host, which is gone, and not with the next one.
        for thread in threading.enumerate():
            if thread.name == "weighbridge-sampler":
                thread.join(5)
    finally:
        pynvml.nvmlLib = library
        cache.clear()
        cache.update(known)
        del os.environ[VARIABLE]
        if variable is not None:
            os.environ[VARIABLE] = variable


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    host: ShimHost


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        device, argument, length = struct.unpack("=III", self.rfile.read(12))
        name = b""
        while (byte := self.rfile.read(1)) != b"\0":
            name += byte
        assert isinstance(self.server, _Server)
        code, written = self.server.host.answer(name.decode(), device, argument, self.rfile.read(length))
        try:
            self.wfile.write(struct.pack("=iI", code, len(written)) + written)
        except (BrokenPipeError, ConnectionResetError):
            return  # whoever asked is gone


def _sensed(device: ShimDevice, name: str, argument: int) -> tuple[int, bytes] | None:
    """What a sensor answers; ``None`` for what is none."""
    if name == "nvmlDeviceGetFieldValues":
        return _field(device, argument)
    if name == ENERGY and device.metered:
        _, power = device.fields[185]
        since_ns = time.monotonic_ns() - device.born_ns
        return 0, struct.pack("=Q", _next(device.readings[name]) + _next(power) * since_ns // 10**9)
    if name in device.readings:
        return 0, struct.pack("=Q" if name in _WIDE else "=I", _next(device.readings[name]))
    answers = {
        GPM_SUPPORT: _u32(device.gpm is not None),
        GPM_METRICS: struct.pack("=d", (device.gpm or {}).get(argument, 0.0)),
        GPM_SAMPLE: b"",
    }
    return (0, answers[name]) if name in answers else None


def _field(device: ShimDevice, number: int) -> tuple[int, bytes]:
    if number not in device.fields:
        return NOT_SUPPORTED, b""
    kind, value = device.fields[number]
    stamp = time.time_ns() // 1000 if device.stamp is None else device.stamp
    return 0, struct.pack("=qqQII", stamp, 5, _next(value) & _ALL_ONES, kind, 0)


def _next(values: int | list[int]) -> int:
    """The value, or the first of several, which is used up unless it is the last."""
    if isinstance(values, int):
        return values
    return values.pop(0) if len(values) > 1 else values[0]


def _u32(*values: int) -> bytes:
    return struct.pack(f"={len(values)}I", *values)


def _sized(data: bytes, size: int | None) -> bytes:
    return _u32(len(data) if size is None else size) + data
