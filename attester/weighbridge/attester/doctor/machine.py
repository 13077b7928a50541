"""What the machine brings along besides TPM and GPU: a CPU's TEE, the installed software, a clock that is right."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Final

from weighbridge.attester.doctor.findings import Area, Finding, fail, ok, skip, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.attester.doctor.host import Host

__all__ = ["CLOCK_AREA", "CPU_AREA", "SOFTWARE_AREA"]

_TEE, _PYTHON, _PACKAGES, _SYNCHRONISED = "cpu.tee", "software.python", "software.packages", "clock.synchronised"

# The guest's device, and what it makes evidence of.
_DEVICES: Final = {"dev/sev-guest": "AMD SEV-SNP", "dev/tdx_guest": "Intel TDX"}
_CONFIGFS: Final = "sys/kernel/config/tsm/report"
_OLDEST: Final = (3, 11)
# What the extra `attester` brings.
_NEEDED: Final = ("tpm2-pytss", "nvidia-ml-py", "grpcio", "protobuf", "numpy", "blake3")
_SHOWN: Final = ("weighbridge", "cryptography", *_NEEDED)
# Its module has the name of nvidia-ml-py's and hides it.
_RETIRED: Final = "pynvml"
# linux/timex.h.
_STA_UNSYNC: Final = 0x0040
_STA_CLOCKERR: Final = 0x1000
# The verifier refuses a window that ends 5 s in its future; the attester stops at 3 s.
_ERROR_MAX_US: Final = 1_000_000


def _tee(host: Host) -> Iterator[Finding]:
    found = [name for device, name in _DEVICES.items() if host.exists(device)]
    if not found:
        yield warn(
            _TEE,
            "no TEE of the CPU is offered to this system",
            "On bare metal and in common virtual machines the host is trusted: production wants a written reason "
            '(host_binding). On Azure the paravisor keeps the TEE, and "kind of host" tells.',
        )
        return
    named = ", ".join(found)
    if not host.exists(_CONFIGFS):
        yield warn(
            _TEE,
            f"{named}, and the kernel has no {_CONFIGFS}",
            "mount -t configfs configfs /sys/kernel/config; modprobe tsm. Kernels before 6.7 have only the device.",
        )
        return
    yield ok(_TEE, f"{named}, with /{_CONFIGFS}")


def _software(host: Host) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _OLDEST:  # pragma: no cover - an older one cannot load this module
        yield fail(_PYTHON, version, "Python 3.11 or newer is needed.")
    else:
        yield ok(_PYTHON, version)
    versions = {name: _version(host, name) for name in _SHOWN}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing := [name for name in _NEEDED if not versions[name]]:
        yield fail(_PACKAGES, f"missing: {', '.join(missing)}", "pip install 'weighbridge[attester]'")
    elif _version(host, _RETIRED):
        yield warn(_PACKAGES, f"{shown}; the retired package pynvml is there too", "pip uninstall pynvml")
    else:
        yield ok(_PACKAGES, shown)


def _version(host: Host, name: str) -> str:
    try:
        return host.version_of(name)
    except PackageNotFoundError:
        return ""


def _clock(host: Host) -> Iterator[Finding]:
    clock = host.kernel_clock()
    if clock is None:
        yield skip(_SYNCHRONISED, "the kernel does not say (adjtimex is not permitted)")
        return
    if clock.status & (_STA_UNSYNC | _STA_CLOCKERR):
        yield warn(
            _SYNCHRONISED,
            "no time service keeps the wall clock",
            "Start one: systemd-timesyncd, chrony or ntpd. Windows that are seconds off are refused. In a container or "
            "a virtual machine that takes the host's time, the host's service is what counts.",
        )
    elif clock.error_us > _ERROR_MAX_US:
        yield warn(
            _SYNCHRONISED,
            f"kept, off by at most {clock.error_us / 1e6:.1f} s",
            "The time service has not heard of its servers for long: check that it reaches them.",
        )
    else:
        yield ok(_SYNCHRONISED, f"kept by a time service, off by at most {clock.error_us / 1000:.0f} ms")


CPU_AREA: Final = Area("CPU", (_TEE,), _tee)
SOFTWARE_AREA: Final = Area("software", (_PYTHON, _PACKAGES), _software)
CLOCK_AREA: Final = Area("clock", (_SYNCHRONISED,), _clock)
