"""What a real GPU's sensors read at a window's end: once, in the channels' units, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.nvml_shim import LOST, NOT_SUPPORTED, ShimHost, build, loaded
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.gpu.nvml import NvmlGpus
from weighbridge.attester.telemetry import TelemetrySource
from weighbridge.attester.telemetry.nvml import NvmlReadings
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.telemetry import Channel, Source, Telemetry

SECOND = 1_000_000_000


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ShimHost]:
    with loaded(ShimHost.emulated(build(tmp_path), EmulatedGpus.create(2))) as running:
        yield running


@pytest.fixture
def gpus(host: ShimHost) -> Iterator[NvmlGpus]:
    assert host.devices
    opened = NvmlGpus.open(timeout_s=5)
    yield opened
    opened.close()


def window(gpus: NvmlGpus) -> list[Source]:
    source: TelemetrySource = NvmlReadings(gpus)
    sources = source.window(start_wall_ns=SECOND, duration_ns=2 * SECOND, tokens_in=1, tokens_out=1)
    source.close()
    return sources


def test_one_sample_of_each_device(gpus: NvmlGpus) -> None:
    sources = window(gpus)
    assert sorted(source.device or b"" for source in sources) == list(gpus.identities())
    for source in sources:
        assert (source.name, source.start_wall_ns, source.period_ns) == ("nvml", SECOND, 2 * SECOND)
        assert source.offsets == (2 * SECOND,)
        assert source.channels == {
            "power": Channel("mW", (79_146,)),
            "energy": Channel("mJ", (5_143_635,)),
            "temperature": Channel("m°C", (39_000,)),
            "sm_clock": Channel("MHz", (885,)),
            "memory_clock": Channel("MHz", (885,)),
            "utilisation": Channel("‰", (370,)),
            "clock_reasons": Channel("bits", (1,)),
        }
    sent = Telemetry(session=bytes(16), seq=0, sources=tuple(sources)).encode()
    assert Telemetry.parse(sent).encode() == sent


def test_what_a_device_refuses_is_said_to_be_refused(host: ShimHost, gpus: NvmlGpus) -> None:
    host.errors["nvmlDeviceGetPowerUsage", 0] = NOT_SUPPORTED
    channels = [source.channels["power"].values for source in window(gpus)]
    assert channels == [None, (79_146,)]


def test_a_device_that_is_gone(host: ShimHost, gpus: NvmlGpus) -> None:
    host.errors["nvmlDeviceGetTemperature", 1] = LOST
    with pytest.raises(EnvironmentFault) as caught:
        window(gpus)
    assert caught.value.code is Code.GPU_FAILED
    assert caught.value.where.startswith("GPU 1")
