"""What an operator says of GPUs, and what is opened for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.nvml_shim import SET_READY, ShimHost, build, loaded
from gpu_support import NONCE
from weighbridge.attester.commands import gpu_arguments
from weighbridge.attester.commands.gpu_arguments import GpuChoice, Gpus, open_gpus
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.gpu.nvml import NvmlGpus
from weighbridge.attester.gpu.readiness import ReadyWhenAffirmed
from weighbridge.attester.report import Notice
from weighbridge.proto.errors import Code, EnvironmentFault


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def window(self, report: object) -> None:
        raise AssertionError(report)

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ShimHost]:
    with loaded(ShimHost.emulated(build(tmp_path), EmulatedGpus.create(2))) as running:
        yield running


def opened(stack: ExitStack, told: Told, *arguments: str, state: Path = Path("/state")) -> Gpus:
    parser = argparse.ArgumentParser(exit_on_error=False)
    gpu_arguments.configure(parser)
    args = parser.parse_args(arguments)
    args.state, args.seed = state, None
    return open_gpus(args, stack, told)


@pytest.mark.parametrize(
    ("text", "choice"),
    [("none", GpuChoice("none")), ("nvml", GpuChoice("nvml")), ("emulated:8", GpuChoice("emulated", 8))],
)
def test_sources(text: str, choice: GpuChoice) -> None:
    assert GpuChoice.parse(text) == choice


@pytest.mark.parametrize("text", ["", "NVML", "nvml:0", "emulated", "emulated:", "emulated:0", "emulated:9", "none "])
def test_no_source(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        GpuChoice.parse(text)


def test_none(stack: ExitStack) -> None:
    told = Told()
    assert opened(stack, told, "--gpu", "none") == Gpus(None, told)
    assert not told.notices


@pytest.mark.parametrize(("count", "text"), [(1, "1 GPU is emulated"), (2, "2 GPUs are emulated")])
def test_emulated(stack: ExitStack, tmp_path: Path, count: int, text: str) -> None:
    told = Told()
    gpus = opened(stack, told, "--gpu", f"emulated:{count}", state=tmp_path)
    assert isinstance(gpus.source, EmulatedGpus)
    assert text in told.notices[0].message
    assert (tmp_path / "insecure-emulated-gpus" / "vendor.pem").exists()


def test_nvml(stack: ExitStack, host: ShimHost) -> None:
    told = Told()
    gpus = opened(stack, told, "--gpu", "nvml", "--gpu-timeout", "5")
    assert isinstance(gpus.source, NvmlGpus)
    assert len(gpus.source.attest(NONCE)) == 2
    assert sorted(gpus.uuids.values()) == list(gpus.source.identities())
    assert sorted(gpus.uuids) == [device.uuid for device in host.devices]
    assert gpus.observer is told
    assert [notice.message for notice in told.notices] == [
        "2 through NVML; of confidential computing the driver says: on, environment 2, multi-GPU mode none"
    ]
    stack.close()
    assert host.calls[-1][0] == "nvmlShutdown"
    assert host.count(SET_READY) == 0


def test_what_verifiers_will_refuse_is_said(stack: ExitStack, host: ShimHost) -> None:
    told = Told()
    host.tools, host.multi = 1, 1
    opened(stack, told, "--gpu", "nvml")
    _, development, switches = (notice.message for notice in told.notices)
    assert "development mode" in development
    assert "NVSwitches" in switches


def test_a_driver_that_says_nothing(stack: ExitStack, host: ShimHost) -> None:
    told = Told()
    host.errors["nvmlSystemGetConfComputeSettings"] = 13
    opened(stack, told, "--gpu", "nvml")
    assert told.notices[0].message.endswith("says: nothing")


def test_ready_only_where_asked_for(stack: ExitStack, host: ShimHost) -> None:
    told = Told()
    gpus = opened(stack, told, "--gpu", "nvml", "--set-ready")
    assert isinstance(gpus.observer, ReadyWhenAffirmed)
    assert host.count(SET_READY) == 0


def test_off(stack: ExitStack, host: ShimHost) -> None:
    host.feature = 0
    with pytest.raises(EnvironmentFault) as caught:
        opened(stack, Told(), "--gpu", "nvml")
    assert caught.value.code is Code.GPU_CC_MODE
