"""NVIDIA GPUs: are they there, does the driver answer, are they in confidential-computing mode, do they attest?

What NVML says of the mode is the host's word: no signed byte says that it is on. Nothing is set.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from weighbridge.attester.doctor.findings import Area, Finding, fail, ok, skip, warn
from weighbridge.attester.doctor.host import printable
from weighbridge.attester.gpu.nvml_calls import Nvml, integers
from weighbridge.attester.gpu.nvml_errors import NvmlFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.attester.doctor.host import Host

__all__ = ["AREA"]

_PRESENT, _DRIVER, _DEVICES, _PERSISTENCE = "gpu.present", "gpu.driver", "gpu.devices", "gpu.persistence"
_CC, _READY, _REPORT, _SENSORS = "gpu.cc", "gpu.ready", "gpu.report", "gpu.sensors"

_PCI: Final = "sys/bus/pci/devices"
_NVIDIA: Final = "0x10de"
_DISPLAY: Final = re.compile(r"0x03[0-9a-f]{4}")
_NODE: Final = re.compile(r"nvidia[0-9]+")

# nvml.h: NVML_CC_SYSTEM_*.
_ENVIRONMENTS: Final = {0: "unavailable", 1: "simulation", 2: "production"}
_CPUS: Final = {0: "none", 1: "AMD SEV", 2: "Intel TDX", 3: "AMD SEV-SNP", 4: "AMD SEV-SNP with vTOM"}
_MULTI: Final = {0: "single GPU", 1: "protected PCIe", 2: "NVLink encryption"}
_NONCE_SIZE: Final = 32
# SPDM 1.1 GET_MEASUREMENTS: four bytes, then the nonce.
_NONCE_AT: Final = slice(4, 4 + _NONCE_SIZE)
_TEMPERATURE_GPU: Final = 0
_CLOCK_SM: Final = 1


def _examine(host: Host) -> Iterator[Finding]:
    yield _present(host)
    if not _cards(host) and not _nodes(host):
        for check in AREA.ids[1:]:
            yield skip(check, "no GPU to ask")
        return
    try:
        nvml = Nvml(host.load_nvml())
    except ImportError as error:
        yield fail(
            _DRIVER, f"nvidia-ml-py cannot be loaded: {printable(str(error))}", "pip install 'weighbridge[attester]'"
        )
    except NvmlFault as error:
        yield fail(_DRIVER, error.text, error.meaning.todo)
    else:
        with nvml:
            yield from _ask(nvml)
        return
    for check in AREA.ids[2:]:
        yield skip(check, "the driver cannot be asked")


AREA: Final = Area("GPU", (_PRESENT, _DRIVER, _DEVICES, _PERSISTENCE, _CC, _READY, _REPORT, _SENSORS), _examine)


def _cards(host: Host) -> int:
    """How many of the PCI devices are NVIDIA's and of the display class."""
    return sum(
        host.text(f"{_PCI}/{name}/vendor") == _NVIDIA
        and _DISPLAY.fullmatch(host.text(f"{_PCI}/{name}/class") or "") is not None
        for name in host.names(_PCI)
    )


def _nodes(host: Host) -> int:
    return sum(_NODE.fullmatch(name) is not None for name in host.names("dev"))


def _present(host: Host) -> Finding:
    cards, nodes = _cards(host), _nodes(host)
    found = f"{cards} on the PCI bus, {nodes} device files"
    if not cards and not nodes:
        return warn(
            _PRESENT,
            "no NVIDIA GPU: none on the PCI bus, no /dev/nvidia0",
            "Give this machine one. Without, only --gpu emulated or none is left, which no shipped policy admits for "
            "production.",
        )
    if not nodes:
        return fail(_PRESENT, found, "Load the driver: modprobe nvidia, nvidia-modprobe -u -c 0; else install it.")
    if cards > nodes:
        return warn(
            _PRESENT, found, "The driver has not taken all of them: nvidia-smi, and NVRM in the kernel's log, say why."
        )
    return ok(_PRESENT, found)


def _ask(nvml: Nvml) -> Iterator[Finding]:
    yield _guarded(_DRIVER, lambda: _driver(nvml))
    try:
        devices = [nvml.call("nvmlDeviceGetHandleByIndex", index) for index in range(nvml.number("nvmlDeviceGetCount"))]
    except NvmlFault as error:
        yield fail(_DEVICES, error.text, error.meaning.todo)
        for check in AREA.ids[3:]:
            yield skip(check, "no GPU answers")
        return
    yield _guarded(_DEVICES, lambda: _devices(nvml, devices))
    yield _guarded(_PERSISTENCE, lambda: _persistence(nvml, devices))
    yield _guarded(_CC, lambda: _mode(nvml), refusal=warn)
    on = _is_on(nvml)
    yield _guarded(_READY, lambda: _ready(nvml)) if on else skip(_READY, "confidential computing is not on")
    yield _guarded(_REPORT, lambda: _report(nvml, devices)) if on else skip(_REPORT, "confidential computing is not on")
    yield _guarded(_SENSORS, lambda: _sensors(nvml, devices), refusal=warn)


def _guarded(
    check: str, examine: Callable[[], Finding], *, refusal: Callable[[str, str, str], Finding] = fail
) -> Finding:
    try:
        return examine()
    except NvmlFault as error:
        return refusal(check, error.text, error.meaning.todo)


def _driver(nvml: Nvml) -> Finding:
    driver, library = nvml.text("nvmlSystemGetDriverVersion"), nvml.text("nvmlSystemGetNVMLVersion")
    return ok(_DRIVER, f"driver {driver}, NVML {library}")


def _devices(nvml: Nvml, devices: list[object]) -> Finding:
    if not devices:
        return fail(_DEVICES, "the driver has no GPU", "nvidia-smi, and NVRM in the kernel's log, say why.")
    kinds = Counter(
        f"{nvml.text('nvmlDeviceGetName', device)}, VBIOS {nvml.text('nvmlDeviceGetVbiosVersion', device)}"
        for device in devices
    )
    found = "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
    if len(kinds) > 1:
        return warn(_DEVICES, found, "Each kind needs reference values of its own: bring all to the same VBIOS.")
    return ok(_DEVICES, found)


def _persistence(nvml: Nvml, devices: list[object]) -> Finding:
    off = sum(not nvml.number("nvmlDeviceGetPersistenceMode", device) for device in devices)
    if off:
        return warn(
            _PERSISTENCE,
            f"off on {off} of {len(devices)}",
            "Start nvidia-persistenced, or nvidia-smi -pm 1: else the driver lets the GPU go when nothing uses it, and "
            "its energy counter starts again.",
        )
    return ok(_PERSISTENCE, f"on, all of {len(devices)}")


def _is_on(nvml: Nvml) -> bool:
    try:
        return nvml.fields("nvmlSystemGetConfComputeState", ("ccFeature",)) == (1,)
    except NvmlFault:
        return False


def _mode(nvml: Nvml) -> Finding:
    environment, feature, tools = nvml.fields(
        "nvmlSystemGetConfComputeState", ("environment", "ccFeature", "devToolsMode")
    )
    found = f"environment {_ENVIRONMENTS.get(environment, environment)}, {_multi(nvml)}, CPU {_cpu(nvml)}"
    if not feature:
        return warn(
            _CC,
            f"confidential computing is off; {found}",
            "Switch it on from the host: nvidia_gpu_tools.py --set-cc-mode=on --reset-after-cc-mode-switch, then start "
            "the confidential VM. Without it the GPU gives no attestation report.",
        )
    if tools:
        return warn(
            _CC,
            f"confidential computing is on in development mode; {found}",
            "The GPU's memory can be looked into: --set-cc-mode=on instead of devtools.",
        )
    return ok(_CC, f"confidential computing is on; {found}")


def _multi(nvml: Nvml) -> str:
    call = "nvmlSystemGetConfComputeSettings"
    try:
        (mode,) = integers(call, nvml.filled(call, "c_nvmlSystemConfComputeSettings_v1_t"), ("multiGpuMode",))
    except NvmlFault:
        return "multi-GPU mode not said"
    return _MULTI.get(mode, f"multi-GPU mode {mode}")


def _cpu(nvml: Nvml) -> str:
    try:
        (caps,) = nvml.fields("nvmlSystemGetConfComputeCapabilities", ("cpuCaps",))
    except NvmlFault:
        return "not said"
    return _CPUS.get(caps, str(caps))


def _ready(nvml: Nvml) -> Finding:
    if nvml.number("nvmlSystemGetConfComputeGpusReadyState"):
        return ok(_READY, "the GPUs take work")
    return warn(
        _READY,
        "the GPUs do not take work yet",
        "Set it when they have been attested: nvidia-smi conf-compute -srs 1.",
    )


def _report(nvml: Nvml, devices: list[object]) -> Finding:
    sizes: set[str] = set()
    for device in devices:
        nonce = os.urandom(_NONCE_SIZE)
        call = "nvmlDeviceGetConfComputeGpuAttestationReport"
        structure = nvml.call(call, device, nonce)
        (size,) = integers(call, structure, ("attestationReportSize",))
        report = bytes(getattr(structure, "attestationReport", b""))[:size]
        if report[_NONCE_AT] != nonce:
            return fail(
                _REPORT,
                f"a report of {len(report)} bytes does not bear the nonce that was given",
                "Update the driver: a report that is replayed proves nothing.",
            )
        call = "nvmlDeviceGetConfComputeGpuCertificate"
        (chain,) = nvml.fields(call, ("attestationCertChainSize",), device)
        sizes.add(f"report of {size} bytes, chain of {chain} bytes")
    return ok(_REPORT, f"{len(devices)} attest: {'; '.join(sorted(sizes))}")


def _sensors(nvml: Nvml, devices: list[object]) -> Finding:
    lines = Counter[str]()
    for device in devices:
        power = nvml.number("nvmlDeviceGetPowerUsage", device)
        nvml.number("nvmlDeviceGetTotalEnergyConsumption", device)
        heat = nvml.number("nvmlDeviceGetTemperature", device, _TEMPERATURE_GPU)
        nvml.number("nvmlDeviceGetClockInfo", device, _CLOCK_SM)
        lines[f"{power / 1000:.0f} W, {heat} °C"] += 1
    return ok(_SENSORS, f"power, energy, temperature and clocks can be read: {', '.join(lines)}")
