"""What the driver says of its stack, for recordings: only what its GPUs have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from fakes.nvml_shim import NOT_SUPPORTED, ShimHost, build, loaded
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.telemetry.nvml_stack import DriverStack, driver_stack


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def host(library: Path) -> Iterator[ShimHost]:
    with loaded(ShimHost.emulated(library, EmulatedGpus.create(2))) as running:
        yield running


def test_what_all_gpus_have_in_common(host: ShimHost) -> None:
    stack = driver_stack(lambda: pynvml)
    device = host.devices[0]
    assert stack == DriverStack(device.name, host.driver, device.vbios, 700)
    assert stack.texts() == {"gpu_model": device.name, "driver": host.driver, "vbios": device.vbios}


def test_what_differs_or_is_refused_is_not_said(host: ShimHost) -> None:
    host.devices[1].vbios = "another"
    host.errors["nvmlDeviceGetEnforcedPowerLimit", 0] = NOT_SUPPORTED
    stack = driver_stack(lambda: pynvml)
    assert (stack.vbios, stack.power_limit_w) == (None, None)
    assert "vbios" not in stack.texts()


def test_no_driver() -> None:
    def absent() -> object:
        raise ImportError(name="pynvml")

    assert driver_stack(absent) == DriverStack()
    assert driver_stack(object) == DriverStack()
