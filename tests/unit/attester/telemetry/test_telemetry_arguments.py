"""What an operator says of sensors, and what is opened for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.nvml_shim import ShimHost, build, loaded
from weighbridge.attester.commands import gpu_arguments, telemetry_arguments
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.report import Notice
from weighbridge.attester.telemetry.interface import TelemetrySource
from weighbridge.attester.telemetry.registry import Choice
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.workload import WorkSummary


class Deaf:
    """An observer of nothing."""

    def window(self, report: object) -> None:
        raise AssertionError(report)

    def notice(self, notice: Notice) -> None:
        assert notice.message


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    gpu_arguments.configure(parser)
    telemetry_arguments.configure(parser)
    return parser.parse_args(arguments)


def opened(stack: ExitStack, state: Path, *arguments: str) -> TelemetrySource | None:
    args = parsed(*arguments)
    args.state, args.seed = state, 7
    gpus = gpu_arguments.open_gpus(args, stack, Deaf())
    return telemetry_arguments.open_telemetry(args, gpus, stack)


def names(source: TelemetrySource | None) -> list[tuple[str, int]]:
    assert source is not None
    read = source.window(start_wall_ns=10**18, duration_ns=10**9, work=WorkSummary.empty())
    return [(item.name, item.period_ns) for item in read]


def test_nothing_is_asked_for(stack: ExitStack, tmp_path: Path) -> None:
    assert opened(stack, tmp_path, "--gpu", "none") is None


def test_what_emulated_gpus_imply(stack: ExitStack, tmp_path: Path) -> None:
    assert names(opened(stack, tmp_path, "--gpu", "emulated:2")) == [("emulated", 100_000_000)] * 2


def test_what_nvml_implies(stack: ExitStack, tmp_path: Path) -> None:
    host = stack.enter_context(loaded(ShimHost.emulated(build(tmp_path), EmulatedGpus.create(2))))
    source = opened(stack, tmp_path, "--gpu", "nvml", "--sample-rate", "20")
    assert names(source) == [("nvml", 50_000_000)] * 2
    stack.close()
    # The sensors are let go before the GPUs.
    assert [name for name, _ in host.calls].count("nvmlShutdown") == 2


def test_what_is_asked_for_is_all_there_is(stack: ExitStack, tmp_path: Path) -> None:
    args = parsed("--gpu", "none", "--telemetry", "linux-host:root=/x", "--telemetry", "adc:path=/y,rate=5000")
    assert args.telemetry == [Choice("linux-host", {"root": "/x"}), Choice("adc", {"path": "/y", "rate": "5000"})]
    assert names(opened(stack, tmp_path, "--gpu", "none", "--telemetry", "emulated:devices=1")) == [
        ("emulated", 100_000_000)
    ]


def test_an_unknown_source_is_answered_with_those_that_there_are(stack: ExitStack, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        opened(stack, tmp_path, "--gpu", "none", "--telemetry", "nvlm")
    assert caught.value.code is Code.TELEMETRY_SOURCE
    for name in ("nvml", "linux-host", "adc", "replay", "emulated", "engine"):
        assert name in caught.value.hint


def test_emulated_gpus_are_not_read_through_nvml(stack: ExitStack, tmp_path: Path) -> None:
    stack.enter_context(loaded(ShimHost.emulated(build(tmp_path), EmulatedGpus.create(1))))
    with pytest.raises(EnvironmentFault) as caught:
        opened(stack, tmp_path, "--gpu", "emulated:1", "--telemetry", "nvml")
    assert caught.value.code is Code.TELEMETRY_SOURCE
    assert "emulated" in caught.value.hint


@pytest.mark.parametrize(
    "arguments",
    [
        ("--telemetry", "adc:path"),
        ("--telemetry", ""),
        ("--sample-rate", "0"),
        ("--sample-rate", "101"),
        ("--sample-rate", "1.5"),
        ("--sample-rate", "+1"),
    ],
)
def test_misuse(arguments: tuple[str, str]) -> None:
    with pytest.raises(argparse.ArgumentError, match=arguments[0]):
        parsed("--gpu", "none", *arguments)


def test_rates() -> None:
    assert telemetry_arguments.period_ns(parsed("--gpu", "none")) == 100_000_000
    assert telemetry_arguments.period_ns(parsed("--gpu", "none", "--sample-rate", "1")) == 1_000_000_000
