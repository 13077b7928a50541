"""The GPUs' checks, on an NVML that answers, refuses, or is not there."""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path

import pynvml
import pytest

from fakes.doctor_host import Paper, PaperNvml, put
from weighbridge.attester.doctor.findings import Finding, Status
from weighbridge.attester.doctor.gpu import AREA
from weighbridge.attester.doctor.running import diagnose
from weighbridge.attester.gpu.nvml_calls import Nvml, integers
from weighbridge.attester.gpu.nvml_errors import ERRORS, NvmlFault

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
STATE = "nvmlSystemGetConfComputeState"
REPORT = "nvmlDeviceGetConfComputeGpuAttestationReport"


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    """A host with two GPUs in order."""
    made = Paper(tmp_path)
    made.gpu(2)
    return made


def look(paper: Paper, **changes: object) -> dict[str, Finding]:
    report = diagnose(paper.host(**changes), areas=[AREA])
    assert [finding.id for finding in report.findings] == list(AREA.ids)
    return {finding.id: finding for finding in report.findings}


def test_gpus_in_order(paper: Paper) -> None:
    found = look(paper)
    assert {check: finding.found for check, finding in found.items()} == {
        "gpu.present": "2 on the PCI bus, 2 device files",
        "gpu.driver": "driver 580.159.04, NVML 13.580.159.04",
        "gpu.devices": "2 x NVIDIA H200, VBIOS 96.00.A5.00.1A",
        "gpu.persistence": "on, all of 2",
        "gpu.cc": "confidential computing is on; environment production, protected PCIe, CPU AMD SEV-SNP",
        "gpu.ready": "the GPUs take work",
        "gpu.report": "2 attest: report of 136 bytes, chain of 4000 bytes",
        "gpu.sensors": "power, energy, temperature and clocks can be read: 79 W, 39 °C",
    }
    assert {finding.status for finding in found.values()} == {OK}


def test_nothing_is_set(paper: Paper) -> None:
    look(paper)
    assert paper.nvml.calls[0] == "nvmlInit"
    assert paper.nvml.calls[-1] == "nvmlShutdown"
    assert all(call.startswith(("nvmlSystemGet", "nvmlDeviceGet")) for call in paper.nvml.calls[1:-1])
    with Nvml(paper.nvml) as nvml, pytest.raises(ValueError, match="only ask"):
        nvml.call("nvmlSystemSetConfComputeGpusReadyState", 1)


def test_a_host_without_a_gpu(tmp_path: Path) -> None:
    paper = Paper(tmp_path)
    put(tmp_path, "sys/bus/pci/devices/0000:00:00.0/vendor", "0x8086\n")
    put(tmp_path, "sys/bus/pci/devices/0000:00:00.0/class", "0x030000\n")
    # NVIDIA's bridge is no GPU.
    put(tmp_path, "sys/bus/pci/devices/0000:00:01.0/vendor", "0x10de\n")
    put(tmp_path, "sys/bus/pci/devices/0000:00:01.0/class", "0x068000\n")
    put(tmp_path, "dev/nvidiactl")
    found = look(paper)
    assert found["gpu.present"].status is WARN
    assert {finding.status for check, finding in found.items() if check != "gpu.present"} == {SKIP}
    assert not paper.nvml.calls


def test_a_card_without_a_driver(paper: Paper) -> None:
    (paper.root / "dev/nvidia0").unlink()
    assert look(paper)["gpu.present"].status is WARN
    (paper.root / "dev/nvidia1").unlink()
    finding = look(paper)["gpu.present"]
    assert finding.status is FAIL
    assert "modprobe nvidia" in finding.todo


def test_without_the_library(paper: Paper) -> None:
    def missing() -> object:
        return importlib.import_module("weighbridge.no_such_module")

    found = look(paper, load_nvml=missing)
    assert found["gpu.driver"].status is FAIL
    assert "weighbridge[attester]" in found["gpu.driver"].todo
    assert found["gpu.cc"].status is SKIP


def test_another_module_of_that_name(paper: Paper) -> None:
    found = look(paper, load_nvml=lambda: pytest)
    assert found["gpu.driver"].status is FAIL
    assert "NVML 13" in found["gpu.driver"].found


def test_every_error_of_nvml_has_a_meaning() -> None:
    known = {value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    assert known == set(ERRORS)
    assert all(meaning.text and meaning.todo for meaning in ERRORS.values())
    assert NvmlFault("nvmlInit", 12345).meaning is ERRORS[999]


@pytest.mark.parametrize("number", sorted(ERRORS))
def test_nvml_that_does_not_start(paper: Paper, number: int) -> None:
    paper.nvml.errors["nvmlInit"] = number
    found = look(paper)
    assert found["gpu.driver"].status is FAIL
    assert found["gpu.driver"].found == f"nvmlInit: {ERRORS[number].text} (NVML {number})"
    assert found["gpu.driver"].todo == ERRORS[number].todo
    assert found["gpu.sensors"].status is SKIP


@pytest.mark.parametrize(
    ("call", "check", "status"),
    [
        ("nvmlSystemGetDriverVersion", "gpu.driver", FAIL),
        ("nvmlDeviceGetCount", "gpu.devices", FAIL),
        ("nvmlDeviceGetHandleByIndex", "gpu.devices", FAIL),
        ("nvmlDeviceGetName", "gpu.devices", FAIL),
        ("nvmlDeviceGetPersistenceMode", "gpu.persistence", FAIL),
        (STATE, "gpu.cc", WARN),
        ("nvmlSystemGetConfComputeGpusReadyState", "gpu.ready", FAIL),
        (REPORT, "gpu.report", FAIL),
        ("nvmlDeviceGetConfComputeGpuCertificate", "gpu.report", FAIL),
        ("nvmlDeviceGetTotalEnergyConsumption", "gpu.sensors", WARN),
    ],
)
@pytest.mark.parametrize("number", [3, 13, 15, 999])
def test_a_call_that_fails(paper: Paper, call: str, check: str, status: Status, number: int) -> None:
    if number == 13:
        paper.nvml.absent.add(call)
    else:
        paper.nvml.errors[call] = number
    finding = look(paper)[check]
    assert finding.status is status
    assert finding.found == f"{call}: {ERRORS[number].text} (NVML {number})"
    assert paper.nvml.calls[-1] == "nvmlShutdown"


def test_confidential_computing_is_off(paper: Paper) -> None:
    paper.nvml.feature = 0
    # What a card outside this mode answers to the question for a report (docs/measurements/nvml-h200.md).
    paper.nvml.errors[REPORT] = 999
    found = look(paper)
    assert found["gpu.cc"].status is WARN
    assert found["gpu.cc"].found.startswith("confidential computing is off")
    assert found["gpu.ready"].status is found["gpu.report"].status is SKIP
    assert REPORT not in paper.nvml.calls


def test_development_mode(paper: Paper) -> None:
    paper.nvml.tools = 1
    assert look(paper)["gpu.cc"].status is WARN


def test_what_only_newer_drivers_say_is_not_needed(paper: Paper) -> None:
    paper.nvml.absent |= {"nvmlSystemGetConfComputeSettings", "nvmlSystemGetConfComputeCapabilities"}
    finding = look(paper)["gpu.cc"]
    assert finding.status is OK
    assert finding.found.endswith("multi-GPU mode not said, CPU not said")


def test_settings_that_return_their_error(paper: Paper) -> None:
    paper.nvml.answers["nvmlSystemGetConfComputeSettings"] = lambda _: 25
    assert "multi-GPU mode not said" in look(paper)["gpu.cc"].found


def test_not_ready(paper: Paper) -> None:
    paper.nvml.ready = 0
    assert "nvidia-smi conf-compute -srs 1" in look(paper)["gpu.ready"].todo


def test_a_report_with_another_nonce(paper: Paper) -> None:
    paper.nvml.replayed = True
    assert look(paper)["gpu.report"].status is FAIL


def test_gpus_of_two_kinds_and_one_without_persistence(paper: Paper) -> None:
    paper.nvml.vbios[1] = "96.00.A5.00.1B"
    paper.nvml.persistent[1] = 0
    found = look(paper)
    assert found["gpu.devices"].status is WARN
    assert found["gpu.persistence"].found == "off on 1 of 2"


def test_a_driver_without_gpus(paper: Paper) -> None:
    paper.nvml.count = 0
    assert look(paper)["gpu.devices"].status is FAIL


def test_values_of_another_type_are_faults() -> None:
    paper = PaperNvml()
    paper.answers["nvmlDeviceGetCount"] = lambda: "two"
    with Nvml(paper) as nvml:
        with pytest.raises(NvmlFault, match="nvmlDeviceGetCount"):
            nvml.number("nvmlDeviceGetCount")
        with pytest.raises(NvmlFault, match=STATE):
            nvml.fields(STATE, ("ccFeature", "no_such_field"))
        with pytest.raises(NvmlFault):
            nvml.filled("nvmlSystemGetConfComputeSettings", "c_nvml_no_such_structure")


def test_the_real_structure_is_what_the_call_takes() -> None:
    # nvml.h: version 1, 20 bytes.
    assert ctypes.sizeof(pynvml.c_nvmlSystemConfComputeSettings_v1_t) == 20
    with Nvml(PaperNvml()) as nvml:
        filled = nvml.filled("nvmlSystemGetConfComputeSettings", "c_nvmlSystemConfComputeSettings_v1_t")
    assert integers("", filled, ("version", "multiGpuMode")) == (0x1000014, 1)
