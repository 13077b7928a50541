"""A host on paper for the doctor: a tree of the operating system's files, a TPM that answers, an NVML that answers.

The TPM's answers are written down byte by byte (TPM 2.0 Part 3), and not by the code under test.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pynvml

from weighbridge.attester.doctor.host import Host, KernelClock
from weighbridge.attester.tpm.options import AkChoice
from weighbridge.attester.weights.dm_verity import DeviceMapper
from weighbridge.attester.weights.protection import Kernel

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
VERSIONS: dict[str, str] = dict.fromkeys(
    ("weighbridge", "cryptography", "tpm2-pytss", "nvidia-ml-py", "grpcio", "protobuf", "numpy", "blake3"), "1.0"
)


def put(root: Path, name: str, content: bytes | str = b"") -> Path:
    """A file of the tree, with its directories."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# -- TPM --------------------------------------------------------------------------------------------------------------


@dataclass
class PaperTpm:
    """A TPM's end of a connection. ``nv`` maps index to attributes and content; ``broken`` replaces answers."""

    properties: dict[int, int] = field(
        default_factory=lambda: {
            0x100: int.from_bytes(b"2.0\0"),
            0x102: 159,
            0x105: int.from_bytes(b"IFX\0"),
            0x106: int.from_bytes(b"SLB9"),
            0x107: int.from_bytes(b"672\0"),
            0x10B: 0x000F0017,
            0x10C: 0x00000000,
            0x200: 0,
            0x201: 0x0000000F,
            0x20E: 0,
            0x20F: 32,
            0x210: 7200,
        }
    )
    banks: dict[int, range] = field(default_factory=lambda: {0x0B: range(24), 0x0C: range(24)})
    silent: set[int] = field(default_factory=set)
    clock: int = 1_000_000
    resets: int = 5
    safe: int = 1
    nv: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    broken: dict[int, bytes | None] = field(default_factory=dict)
    codes: dict[int, list[int]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    closed: bool = False
    emulated: bool = False
    answer: bytes = b""

    def startup(self) -> None:
        raise AssertionError("the doctor starts nothing")

    def close(self) -> None:
        self.closed = True

    def transmit(self, data: bytes) -> None:
        tag, size, command = (int.from_bytes(data[a:b]) for a, b in ((0, 2), (2, 6), (6, 10)))
        assert size == len(data)
        self.seen.append(command)
        if codes := self.codes.get(command):
            self.answer = (0x8001).to_bytes(2) + (10).to_bytes(4) + codes.pop(0).to_bytes(4)
            return
        body = self.broken[command] if command in self.broken else self._body(command, data[10:])
        if body is None:
            self.answer = b"\x80"
            return
        if tag == 0x8002:
            body = len(body).to_bytes(4) + body + b"\0\0\x01\0\0"
        self.answer = tag.to_bytes(2) + (10 + len(body)).to_bytes(4) + bytes(4) + body

    def receive(self) -> bytes:
        return self.answer

    def _body(self, command: int, data: bytes) -> bytes:
        match command:
            case 0x17A:
                capability, first, count = (int.from_bytes(data[n : n + 4]) for n in (0, 4, 8))
                return b"\0" + capability.to_bytes(4) + self._capability(capability, first, count)
            case 0x181:
                return (
                    (1).to_bytes(8) + self.clock.to_bytes(8) + self.resets.to_bytes(4) + bytes(4) + bytes([self.safe])
                )
            case 0x17E:
                algorithm, bits = int.from_bytes(data[4:6]), int.from_bytes(data[7:10], "little")
                chosen = [n for n in range(24) if bits >> n & 1 and n in self.banks.get(algorithm, ())]
                size = {0x04: 20, 0x0B: 32, 0x0C: 48, 0x0D: 64}[algorithm]
                value = size.to_bytes(2) + (bytes(size) if algorithm in self.silent else b"\x01" * size)
                return bytes(4) + data[:10] + len(chosen).to_bytes(4) + value * len(chosen)
            case 0x169:
                index = int.from_bytes(data[:4])
                attributes, content = self.nv[index]
                area = data[:4] + b"\0\x0b" + attributes.to_bytes(4) + b"\0\0" + len(content).to_bytes(2)
                return len(area).to_bytes(2) + area + b"\0\0"
            case 0x14E:
                authority, index = int.from_bytes(data[:4]), int.from_bytes(data[4:8])
                attributes, content = self.nv[index]
                assert authority == (index if attributes >> 18 & 1 else 0x40000001)
                assert data[8:21] == bytes.fromhex("00000009 40000009 0000 00 0000")
                size, offset = int.from_bytes(data[21:23]), int.from_bytes(data[23:25])
                return size.to_bytes(2) + content[offset : offset + size]
            case _:
                raise AssertionError(f"the doctor sends {command:#x}")

    def _capability(self, capability: int, first: int, count: int) -> bytes:
        match capability:
            case 6:
                found = [(key, value) for key, value in sorted(self.properties.items()) if key >= first][:count]
                return len(found).to_bytes(4) + b"".join(k.to_bytes(4) + v.to_bytes(4) for k, v in found)
            case 1:
                handles = [index for index in sorted(self.nv) if index >= first][:count]
                return len(handles).to_bytes(4) + b"".join(handle.to_bytes(4) for handle in handles)
            case 5:
                banks = [
                    algorithm.to_bytes(2) + b"\x03" + sum(1 << n for n in indices).to_bytes(3, "little")
                    for algorithm, indices in self.banks.items()
                ]
                return len(banks).to_bytes(4) + b"".join(banks)
            case _:
                raise AssertionError(f"capability {capability}")


@dataclass
class PaperAk:
    """What makes the attestation key."""

    area: bytes
    closed: bool = False

    def attestation_key(self) -> bytes:
        return self.area

    def close(self) -> None:
        self.closed = True


# -- NVML -------------------------------------------------------------------------------------------------------------


class PaperNvml:
    """``pynvml`` with GPUs on paper. ``errors`` maps a call to NVML's number; ``absent`` are calls it does not have."""

    NVMLError = pynvml.NVMLError

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.errors: dict[str, int] = {}
        self.absent: set[str] = set()
        self.vbios = ["96.00.A5.00.1A"] * count
        self.persistent = [1] * count
        self.feature, self.tools, self.ready = 1, 0, 1
        self.replayed = False
        self.calls: list[str] = []
        self.answers: dict[str, Callable[..., object]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: b"580.159.04",
            "nvmlSystemGetNVMLVersion": lambda: "13.580.159.04",
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda _: "NVIDIA H200",
            "nvmlDeviceGetVbiosVersion": lambda device: self.vbios[device],
            "nvmlDeviceGetPersistenceMode": lambda device: self.persistent[device],
            "nvmlSystemGetConfComputeState": lambda: types.SimpleNamespace(
                environment=2, ccFeature=self.feature, devToolsMode=self.tools
            ),
            "nvmlSystemGetConfComputeSettings": _fill_settings,
            "nvmlSystemGetConfComputeCapabilities": lambda: types.SimpleNamespace(cpuCaps=3, gpusCaps=1),
            "nvmlSystemGetConfComputeGpusReadyState": lambda: self.ready,
            "nvmlDeviceGetConfComputeGpuAttestationReport": self._report,
            "nvmlDeviceGetConfComputeGpuCertificate": lambda _: types.SimpleNamespace(attestationCertChainSize=4000),
            "nvmlDeviceGetPowerUsage": lambda _: 79_146,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: 5_143_635,
            "nvmlDeviceGetTemperature": lambda _, sensor: {0: 39}[sensor],
            "nvmlDeviceGetClockInfo": lambda _, clock: {1: 885}[clock],
        }

    def __getattr__(self, name: str) -> object:
        if name.startswith("c_nvml"):
            return getattr(pynvml, name)
        if name in self.absent or name not in self.answers:
            raise AttributeError(name)

        def call(*arguments: object) -> object:
            self.calls.append(name)
            if name in self.errors:
                raise pynvml.NVMLError(self.errors[name])
            return self.answers[name](*arguments)

        return call

    def _report(self, _: int, nonce: bytes) -> object:
        report = b"\x11\xe0\x01\xff" + (bytes(32) if self.replayed else nonce) + bytes(100)
        return types.SimpleNamespace(attestationReportSize=len(report), attestationReport=report + bytes(50))


def _fill_settings(reference: Any) -> int:  # noqa: ANN401 - what ctypes.byref() returns has no public type
    reference._obj.multiGpuMode = 1
    return 0


# -- the whole host ---------------------------------------------------------------------------------------------------


@dataclass
class Paper:
    """Parts of a host; :meth:`host` puts them together. Time passes in ``sleep`` alone, by the TPM's clock as well."""

    root: Path
    tpm: PaperTpm = field(default_factory=PaperTpm)
    nvml: PaperNvml = field(default_factory=PaperNvml)
    ak: bytes = b""
    versions: dict[str, str] = field(default_factory=lambda: dict(VERSIONS))
    clock: KernelClock | None = field(default_factory=lambda: KernelClock(status=1, error_us=2_000))
    rate: float = 1.0
    now_ns: int = 10**9
    asked: AkChoice | None = None
    made: list[PaperAk] = field(default_factory=list)

    def host(self, **changes: object) -> Host:
        """The host; ``changes`` are fields of :class:`Host`."""
        parts: dict[str, object] = {
            "root": self.root,
            "open_channel": lambda _: self.tpm,
            "open_tpm": self._open,
            "load_nvml": lambda: self.nvml,
            "connect": lambda _: None,
            "kernel_clock": lambda: self.clock,
            "version_of": self._version,
            "monotonic_ns": lambda: self.now_ns,
            "wall": lambda: 1.8e9,
            "sleep": self._sleep,
            "kernel": Kernel(devices=DeviceMapper(sys=self.root / "sys", cmdline=self.root / "proc/cmdline")),
            **changes,
        }
        return Host(**parts)  # type: ignore[arg-type]  # fields by name

    def gpu(self, count: int = 2) -> None:
        """Cards on the bus, with their device files."""
        for number in range(count):
            put(self.root, f"sys/bus/pci/devices/0000:0{number}:00.0/vendor", "0x10de\n")
            put(self.root, f"sys/bus/pci/devices/0000:0{number}:00.0/class", "0x030200\n")
            put(self.root, f"dev/nvidia{number}")

    def _open(self, _: str, ak: AkChoice) -> PaperAk:
        self.asked = ak
        assert self.tpm.closed, "an emulator serves one client"
        self.made.append(PaperAk(self.ak))
        return self.made[-1]

    def _version(self, name: str) -> str:
        if name not in self.versions:
            raise PackageNotFoundError(name)
        return self.versions[name]

    def _sleep(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)
        self.tpm.clock += int(seconds * 1000 * self.rate)
