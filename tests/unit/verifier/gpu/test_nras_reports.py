"""What the attestation service says of GPUs and switches, held against their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fakes.nras import NOON, Answer, EmulatedNras
from gpu_support import AT, NONCE, emulated_anchors
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier.gpu import GPUS_AND_SWITCHES, verify_gpus
from weighbridge.verifier.gpu.nras import ComparedDevice, compare, verify_nras
from weighbridge.verifier.gpu.nras.reports import Standing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.verifier.gpu.report import VerifiedGpuReport

SERVICE = EmulatedNras()
FABRIC = EmulatedFabric.create(gpus=2, switches=1)
REPORTS = verify_gpus(
    FABRIC.attest(NONCE),
    nonce=NONCE,
    anchors=emulated_anchors(*FABRIC.vendors),
    at=AT,
    expected=None,
    accept=GPUS_AND_SWITCHES,
)
GPUS = [report for report in REPORTS if report.kind == "gpu"]
(SWITCH,) = (report for report in REPORTS if report.kind == "switch")
BIOS = "x-nvidia-switch-bios-version"


def claims(report: VerifiedGpuReport, **changes: object) -> dict[str, Any]:
    """What the service says of a device that it was shown."""
    versions = {BIOS: report.report.vbios_version}
    if report.kind == "gpu":
        versions = {
            "x-nvidia-gpu-driver-version": report.report.driver_version,
            "x-nvidia-gpu-vbios-version": report.report.vbios_version,
        }
    return {"ueid": str(report.chain.certificates[0].serial_number), **versions, **changes}


def compared(devices: Mapping[str, dict[str, Any]], standing: Standing = "match") -> tuple[ComparedDevice, ...]:
    data = SERVICE.answer(Answer(NONCE, devices=devices))
    said = verify_nras(data, jwks=[SERVICE.jwks()], anchors=SERVICE.anchors(), at=NOON, nonce=NONCE)
    return compare(said, REPORTS, measured=lambda _: standing)


def refused(devices: Mapping[str, dict[str, Any]]) -> None:
    with pytest.raises(NotAuthentic) as refusal:
        compared(devices)
    assert refusal.value.code is Code.NRAS_SUBMODS


def test_gpus_and_switches_in_any_order() -> None:
    devices = {"SWITCH-0": claims(SWITCH), "GPU-0": claims(GPUS[1]), "GPU-1": claims(GPUS[0])}
    found = compared(devices)
    assert [(device.name, device.report) for device in found] == [
        ("SWITCH-0", SWITCH),
        ("GPU-0", GPUS[1]),
        ("GPU-1", GPUS[0]),
    ]
    assert [device.differences for device in found] == [(), (), ()]
    assert found[0].agreed == ("hwmodel", BIOS, "measres", "secboot", "dbgstat")


def test_service_is_asked_about_gpus_and_switches_separately() -> None:
    assert [device.report for device in compared({"SWITCH-0": claims(SWITCH)})] == [SWITCH]
    found = compared({"GPU-0": claims(GPUS[0]), "GPU-1": claims(GPUS[1])})
    assert [device.report for device in found] == GPUS


def test_not_about_fewer_of_a_kind_or_about_strangers() -> None:
    refused({"GPU-0": claims(GPUS[0])})
    refused({"GPU-0": claims(GPUS[0]), "GPU-1": claims(GPUS[0])})
    refused({"SWITCH-0": claims(SWITCH), "SWITCH-1": {"ueid": "11"}})
    refused({"SWITCH-0": claims(SWITCH, ueid=...)})
    # A switch does not stand for a GPU where the answer is about GPUs alone.
    refused({"GPU-0": claims(GPUS[0]), "GPU-1": claims(SWITCH)})


def test_switch_that_is_called_a_gpu() -> None:
    devices = {"GPU-0": claims(GPUS[0]), "SWITCH-0": claims(GPUS[1]), "GPU-1": claims(SWITCH)}
    named = {str(found) for device in compared(devices) for found in device.differences}
    assert 'GPU-1 is "gpu"; the certificates say switch' in named
    assert 'SWITCH-0 is "switch"; the certificates say gpu' in named


def test_firmware_of_a_switch() -> None:
    (found,) = compared({"SWITCH-0": claims(SWITCH, **{BIOS: "96.10.00.00.00"})})
    (difference,) = found.differences
    assert (difference.claim, difference.said) == (f"SWITCH-0.{BIOS}", '"96.10.00.00.00"')
    assert difference.read == f"the report says {SWITCH.report.vbios_version}"


@pytest.mark.parametrize(
    ("standing", "changes", "differing"),
    [
        ("match", {}, set()),
        ("match", {"measres": "fail"}, {"measres"}),
        ("match", {"secboot": 1}, {"secboot"}),
        ("match", {"dbgstat": "enabled", "secboot": False}, {"dbgstat", "secboot"}),
        ("mismatch", {}, {"measres", "secboot", "dbgstat"}),
        ("mismatch", {"measres": "fail", "secboot": False, "dbgstat": "enabled"}, set()),
        ("mismatch", {"measres": "fail", "secboot": ..., "dbgstat": ...}, set()),
        ("absent", {}, set()),
        ("absent", {"measres": "fail", "secboot": False}, set()),
    ],
)
def test_what_follows_from_measurements(standing: Standing, changes: dict[str, Any], differing: set[str]) -> None:
    """Its claims say what it takes the measurements for; here the manifests at hand say it, or nobody does."""
    (found,) = compared({"SWITCH-0": claims(SWITCH, **changes)}, standing)
    assert found.measured == standing
    assert {each.claim for each in found.differences} == {f"SWITCH-0.{claim}" for claim in differing}
