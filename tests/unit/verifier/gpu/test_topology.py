"""GPUs in protected-PCIe mode and their switches: all there, wired to each other and to nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu_support import AT, NONCE, emulated, emulated_anchors
from weighbridge.attester.gpu.emulated import EmulatedH100, Forgery
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric, EmulatedSwitch
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.spdm.opaque import OpaqueType
from weighbridge.verifier.gpu import (
    GPUS_AND_SWITCHES,
    VerifiedGpuReport,
    check_topology,
    verify_chain,
    verify_gpus,
    verify_report,
)

FABRIC = EmulatedFabric.create()
BELIEVED = emulated_anchors(*FABRIC.vendors)


def verified(evidence: GpuEvidence) -> VerifiedGpuReport:
    chain = verify_chain(evidence.chain, BELIEVED, at=AT, accept=GPUS_AND_SWITCHES)
    return verify_report(spdm.parse(evidence.report), chain, nonce=NONCE)


GPUS = [verified(gpu.attest(NONCE)) for gpu in FABRIC.gpus]
SWITCHES = [verified(switch.attest(NONCE)) for switch in FABRIC.switches]


def gpu(**opaque: bytes | None) -> VerifiedGpuReport:
    """The first GPU, which reports something else."""
    return verified(FABRIC.gpus[0].attest(NONCE, forgery=Forgery(opaque=_entries(opaque))))


def switch(**opaque: bytes | None) -> VerifiedGpuReport:
    """The first switch, which reports something else."""
    return verified(FABRIC.switches[0].attest(NONCE, forgery=Forgery(opaque=_entries(opaque))))


def _entries(named: dict[str, bytes | None]) -> dict[int, bytes | None]:
    return {OpaqueType[name]: value for name, value in named.items()}


def refusal(*devices: VerifiedGpuReport) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        check_topology(devices)
    assert caught.value.hint or caught.value.code is Code.GPU_MODE
    return caught.value.code


def test_eight_gpus_and_four_switches() -> None:
    found = check_topology([*SWITCHES, *GPUS])
    assert found is not None
    assert (len(found.gpus), len(found.switches)) == (8, 4)
    assert found.switches == {item.keys.pdi for item in FABRIC.switches}


@pytest.mark.parametrize(("gpus", "switches"), [(1, 1), (2, 4), (8, 2)])
def test_any_number_of_them(gpus: int, switches: int) -> None:
    """How many belong together is what they say of each other."""
    fabric = EmulatedFabric.create(gpus=gpus, switches=switches)
    reports = verify_gpus(
        fabric.attest(NONCE),
        nonce=NONCE,
        anchors=emulated_anchors(*fabric.vendors),
        at=AT,
        expected=frozenset(fabric.identities()),
        accept=GPUS_AND_SWITCHES,
    )
    assert [report.kind for report in reports].count("switch") == switches


def test_nothing_is_claimed_outside_that_mode() -> None:
    (device,), believed = emulated()
    chain = verify_chain(device.keys.chain, believed, at=AT)
    report = verify_report(spdm.parse(device.attest(NONCE).report), chain, nonce=NONCE)
    assert check_topology([report]) is None
    assert check_topology([report, *SWITCHES]) is None
    assert check_topology([]) is None


def test_gpus_in_two_modes() -> None:
    other = gpu(PROTECTED_PCIE_STATUS=b"\x55", FEATURE_FLAG=b"\0\0")
    assert refusal(other, *GPUS[1:], *SWITCHES) is Code.GPU_MODE


@pytest.mark.parametrize("left", range(8))
def test_any_gpu_left_out(left: int) -> None:
    """A12: seven of eight, and the switches name the eighth."""
    assert refusal(*GPUS[:left], *GPUS[left + 1 :], *SWITCHES) is Code.GPU_TOPOLOGY


@pytest.mark.parametrize("left", range(4))
def test_any_switch_left_out(left: int) -> None:
    """A09: the GPUs name it."""
    assert refusal(*GPUS, *SWITCHES[:left], *SWITCHES[left + 1 :]) is Code.GPU_TOPOLOGY
    assert refusal(*GPUS) is Code.GPU_TOPOLOGY


def test_switches_of_another_host() -> None:
    """A08: genuine, of the same vendors, wired to others."""
    other = EmulatedSwitch.make(FABRIC.vendors[1])
    report = verified(replace(other, gpus=FABRIC.switches[0].gpus).attest(NONCE))
    assert refusal(*GPUS, *SWITCHES, report) is Code.GPU_TOPOLOGY
    assert refusal(*GPUS, *SWITCHES[1:], report) is Code.GPU_TOPOLOGY


def test_gpu_that_nobody_names() -> None:
    """A12: nine of eight."""
    other = EmulatedH100.make(FABRIC.vendors[0])
    report = verified(replace(other, switches=FABRIC.gpus[0].switches).attest(NONCE))
    assert refusal(*GPUS, report, *SWITCHES) is Code.GPU_TOPOLOGY


def test_one_device_twice() -> None:
    """A11."""
    assert refusal(*GPUS, GPUS[0], *SWITCHES) is Code.GPU_TOPOLOGY
    assert refusal(*GPUS, *SWITCHES, SWITCHES[0]) is Code.GPU_TOPOLOGY


@pytest.mark.parametrize("value", [None, b"", bytes(144), bytes(143), b"\1" * 7])
def test_gpu_that_names_no_switch(value: bytes | None) -> None:
    assert refusal(gpu(SWITCH_PDI=value), *GPUS[1:], *SWITCHES) is Code.GPU_TOPOLOGY


def test_gpu_that_names_another_switch_besides() -> None:
    links = b"".join(item[::-1] for item in FABRIC.gpus[0].switches)
    assert refusal(gpu(SWITCH_PDI=links + b"\1" * 8), *GPUS[1:], *SWITCHES) is Code.GPU_TOPOLOGY
    assert refusal(gpu(SWITCH_PDI=links[8:]), *GPUS[1:], *SWITCHES) is Code.GPU_TOPOLOGY
    # A link that leads nowhere is none.
    assert check_topology([gpu(SWITCH_PDI=links + bytes(80)), *GPUS[1:], *SWITCHES]) is not None


def test_bytes_of_a_pdi_in_the_other_order() -> None:
    """GPUs name switches in reversed order: read in any other, genuine devices would not find each other."""
    straight = b"".join(FABRIC.gpus[0].switches)
    assert refusal(gpu(SWITCH_PDI=straight), *GPUS[1:], *SWITCHES) is Code.GPU_TOPOLOGY


@pytest.mark.parametrize("value", [None, b"", bytes(128), bytes(64), b"\1" * 8])
def test_switch_that_names_no_gpu(value: bytes | None) -> None:
    assert refusal(*GPUS, switch(SWITCH_GPU_PDIS=value), *SWITCHES[1:]) is Code.GPU_TOPOLOGY


@pytest.mark.parametrize(
    "value", [None, b"", bytes(8), FABRIC.switches[1].keys.pdi], ids=("none", "empty", "zeros", "another's")
)
def test_switch_that_reports_another_pdi(value: bytes | None) -> None:
    assert refusal(*GPUS, switch(SWITCH_PDI=value), *SWITCHES[1:]) is Code.GPU_TOPOLOGY


def test_device_whose_certificate_names_no_pdi() -> None:
    chain = replace(GPUS[0].chain, pdi=None)
    assert refusal(replace(GPUS[0], chain=chain), *GPUS[1:], *SWITCHES) is Code.GPU_TOPOLOGY


def test_another_devices_pdi_in_the_certificate() -> None:
    twin = replace(GPUS[1], chain=replace(GPUS[1].chain, pdi=GPUS[0].chain.pdi))
    assert refusal(GPUS[0], twin, *GPUS[2:], *SWITCHES) is Code.GPU_TOPOLOGY


def test_pdis_are_not_in_messages() -> None:
    with pytest.raises(NotAuthentic) as caught:
        check_topology([*GPUS[1:], *SWITCHES])
    text = str(caught.value).lower()
    assert not any(item.chain.pdi is not None and item.chain.pdi.hex() in text for item in [*GPUS, *SWITCHES])
