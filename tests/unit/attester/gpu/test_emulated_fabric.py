"""An emulated HGX: what its devices sign is laid out as a genuine one's, and they name each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_support import NONCE, vector_report
from weighbridge.attester.gpu.emulated_fabric import EmulatedFabric, EmulatedSwitch
from weighbridge.attester.gpu.interface import GpuSource
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.opaque import OpaqueType


def test_is_a_source() -> None:
    source: GpuSource = EmulatedFabric.create(gpus=3, switches=2)
    sent = source.attest(NONCE)
    assert sorted(item.claimed_identity for item in sent) == list(source.identities())
    assert len(source.identities()) == 5
    state = source.cc_state()
    assert state is not None
    assert state.multi_gpu == "protected_pcie"
    source.close()


@pytest.mark.parametrize(("gpus", "switches"), [(0, 1), (9, 1), (1, 0)])
def test_sizes_that_no_switch_can_name(gpus: int, switches: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        EmulatedFabric.create(gpus=gpus, switches=switches)


def test_switch_reports_in_the_layout_of_a_genuine_one(vectors_dir: Path) -> None:
    genuine = spdm.parse(vector_report(vectors_dir, "attsdk-testdata/switchAttestationReport.txt"))
    fabric = EmulatedFabric.create(gpus=7, switches=1)
    ours = spdm.parse(fabric.switches[0].attest(NONCE).report)
    assert len(ours.raw) == len(genuine.raw)
    assert [block.index for block in ours.blocks] == [block.index for block in genuine.blocks]
    assert [(field.type, len(field.value)) for field in ours.opaque.fields] == [
        (field.type, len(field.value)) for field in genuine.opaque.fields
    ]


def test_places_without_a_gpu() -> None:
    fabric = EmulatedFabric.create(gpus=1, switches=1)
    named = spdm.parse(fabric.switches[0].attest(NONCE).report).opaque.get(OpaqueType.SWITCH_GPU_PDIS) or b""
    assert named[:64] == fabric.gpus[0].keys.pdi * 8
    alone = EmulatedSwitch.make(fabric.vendors[1])
    assert spdm.parse(alone.attest(NONCE).report).opaque.get(OpaqueType.SWITCH_GPU_PDIS) == bytes(64) + b"\xff" * 64


def test_nonce_of_another_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        EmulatedFabric.create(gpus=1, switches=1).attest(b"short")
