"""GPUs through NVML, from the driver's library to the verdict: whole sessions, in this process and in others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fakes.doctor_host import Paper
from fakes.nvml_shim import ENERGY, LOST, REPORT, SET_READY, UNKNOWN, ShimDevice, ShimHost, build, loaded
from support.site import Done, Factory, Site, run
from support.world import Engines, World
from weighbridge.attester.gpu.emulated import EmulatedGpus
from weighbridge.attester.gpu.nvml import NvmlGpus
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, EnvironmentFault

SIMULATION = 1


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


# -- in this process ---------------------------------------------------------------------------------------------------


def made(directory: Path) -> Path:
    """The directory, which was not there."""
    directory.mkdir()
    return directory


def through_nvml(world: World) -> NvmlGpus:
    """The host's GPUs are asked through NVML from now on."""
    source = NvmlGpus.open(timeout_s=5)
    assert source.identities() == world.host.gpus.identities()
    world.host.gpus = cast("EmulatedGpus", source)  # what a host needs of them is what a source has
    return source


def verdicts(world: World, count: int) -> list[strict.JsonObject]:
    """What is decided of the first windows, without what is another in each session."""
    world.open_session()
    documents: list[strict.JsonObject] = []
    for _ in range(count):
        document = world.window().verdict.document()
        policy = document["policy"]
        assert isinstance(policy, dict)
        document["policy"] = {key: value for key, value in policy.items() if key != "input"}
        del document["session"]
        documents.append(document)
    return documents


def test_a_session_is_judged_as_with_the_devices_themselves(library: Path, tmp_path: Path, engines: Engines) -> None:
    gpus = EmulatedGpus.create(2)
    direct = World.make(made(tmp_path / "direct"), gpus=gpus, engines=engines)
    expected = verdicts(direct, 3)
    direct.close()
    world = World.make(made(tmp_path / "nvml"), gpus=gpus, engines=engines)
    host = ShimHost.emulated(library, gpus)
    host.environment = SIMULATION
    with loaded(host):
        source = through_nvml(world)
        host.order.reverse()
        assert verdicts(world, 3) == expected
        source.close()
    assert [document["outcome"] for document in expected] == ["affirmed"] * 3
    assert host.count(SET_READY) == 0
    world.close()


def test_a_window_that_a_gpu_did_not_sign_can_be_sealed_again(library: Path, tmp_path: Path, engines: Engines) -> None:
    """Nothing was signed over the first header: the chain goes on as if it had not been."""
    world = World.make(made(tmp_path / "world"), engines=engines)
    with loaded(ShimHost.emulated(library, world.host.gpus)) as host:
        source = through_nvml(world)
        world.open_session()
        assert world.window().verdict.outcome == "affirmed"
        host.errors[REPORT, 1] = LOST
        observed = world.host.observe()
        with pytest.raises(EnvironmentFault) as caught:
            world.host.seal(observed)
        assert caught.value.code is Code.GPU_FAILED
        host.errors.clear()
        assert world.window(observed).verdict.outcome == "affirmed"
        source.close()
    world.close()


def test_another_gpu_of_the_same_maker_is_refused(library: Path, tmp_path: Path, engines: Engines) -> None:
    """A13: between two runs, behind the same index, in the same session."""
    world = World.make(made(tmp_path / "world"), engines=engines)
    others = world.another_host("other").gpus
    with loaded(ShimHost.emulated(library, world.host.gpus)) as host:
        through_nvml(world)
        world.open_session()
        host.devices[0] = ShimDevice.of(others.devices[0], 0)
        changed = NvmlGpus.open(timeout_s=5)
        assert world.host.sealer is not None
        world.host.sealer._gpus = changed
        verdict = world.window().verdict
        assert (verdict.outcome, verdict.denials[0].code) == ("denied", Code.GPU_UNEXPECTED)
    world.close()


# -- in processes of their own -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    (root / "factory").mkdir()
    with Site(Factory(root / "factory"), root) as made:
        yield made.prepare()


@pytest.fixture
def host(site: Site, library: Path) -> Iterator[ShimHost]:
    with ShimHost.emulated(library, EmulatedGpus.open(site.factory.vendor, 2)) as running:
        for device in running.devices:
            # Verifiers compare the counter of energy with power.
            device.metered = True
        yield running


def test_run_over_nvml(site: Site, host: ShimHost) -> None:
    with site.serving() as verifier:
        with site.attesting("--gpu", "nvml", "--set-ready", "--windows", 3, env=host.env) as attester:
            attester.until_windows("affirmed", 3)
            done = attester.end()
        verifier.terminate()
    assert done.status == 0, done.err
    gpus = [line["message"] for line in map(json.loads, done.out.splitlines()) if line.get("kind") == "gpus"]
    assert gpus == [
        "2 through NVML; of confidential computing the driver says: on, environment 2, multi-GPU mode none",
        "the GPUs take work: their ready state was set",
    ]
    assert (host.ready, host.count(SET_READY)) == (1, 1)
    # One for the enrolment and one for each window, of each.
    assert host.count(REPORT) == 2 * 4
    assert host.calls[-1][0] == "nvmlShutdown"


def attest(site: Site, host: ShimHost, *options: object) -> Done:
    return run(*site.attester_command("--gpu", "nvml", *options), env=host.env)


def test_run_while_sensors_are_lost_and_hang(site: Site, host: ShimHost) -> None:
    """A session ends when its GPUs' evidence cannot be had, and not for a sensor."""
    host.errors["nvmlDeviceGetTemperature", 1] = LOST
    with site.serving() as verifier:
        with site.attesting("--gpu", "nvml", "--windows", 4, env=host.env) as attester:
            attester.until_windows("affirmed", 2)
            # From now on the thread that reads energy does not come back.
            host.delays[ENERGY] = 3600
            done = attester.end()
        verifier.terminate()
    assert done.status == 0, done.err
    (summary,) = [line for line in map(json.loads, done.out.splitlines()) if "affirmed" in line]
    assert (summary["sealed"], summary["affirmed"]) == (4, 4)
    # A driver that hangs is left as it is: the evidence was let go of, the sensors were not.
    assert host.count("nvmlShutdown") == 1


def test_run_where_confidential_computing_is_off(site: Site, host: ShimHost) -> None:
    host.feature = 0
    done = attest(site, host)
    assert done.status == 8
    assert "error: GPU_CC_MODE" in done.err
    assert "hint: Switch it on from the host" in done.err


def test_run_with_a_driver_that_hangs(site: Site, host: ShimHost) -> None:
    """The process ends, though a thread of it never comes back."""
    host.delays["nvmlDeviceGetConfComputeGpuCertificate", 1] = 3600
    done = attest(site, host, "--gpu-timeout", 1)
    assert done.status == 8
    assert "error: GPU_TIMEOUT" in done.err
    assert "GPU 1" in done.err


def test_run_without_a_driver(site: Site, host: ShimHost) -> None:
    done = run(*site.attester_command("--gpu", "nvml"), env={**host.env, "FAKE_NVML_SOCKET": "/nonexistent"})
    assert done.status == 8
    assert "error: GPU_ABSENT" in done.err
    assert "modprobe nvidia" in done.err


def doctor(host: ShimHost, root: Path) -> dict[str, tuple[str, str]]:
    """The doctor's findings of GPUs, on a host whose files show as many of them."""
    Paper(root).gpu(len(host.devices))
    done = run("weighbridge-attester", "doctor", "--json", "--root", root, env=host.env)
    checks = json.loads(done.out)["checks"]
    return {check["id"]: (check["status"], check["found"]) for check in checks if check["id"].startswith("gpu.")}


def test_the_doctor_looks_through_the_same_library(host: ShimHost, tmp_path: Path) -> None:
    host.ready = 1
    found = doctor(host, tmp_path)
    assert found.pop("gpu.report")[1].startswith("2 attest: report of 4129 bytes, chain of ")
    assert found == {
        "gpu.present": ("ok", "2 on the PCI bus, 2 device files"),
        "gpu.driver": ("ok", "driver 580.95.05, NVML 13.580.95.05"),
        "gpu.devices": ("ok", "2 x NVIDIA H100 PCIe, VBIOS 96.00.74.00.1A"),
        "gpu.persistence": ("ok", "on, all of 2"),
        "gpu.cc": ("ok", "confidential computing is on; environment production, single GPU, CPU AMD SEV-SNP"),
        "gpu.ready": ("ok", "the GPUs take work"),
        "gpu.sensors": ("ok", "power, energy, temperature and clocks can be read: 79 W, 39 °C"),
    }
    assert host.count(SET_READY) == 0


def test_the_doctor_finds_a_gpu_that_does_not_attest(host: ShimHost, tmp_path: Path) -> None:
    host.errors[REPORT, 1] = UNKNOWN
    assert doctor(host, tmp_path)["gpu.report"][0] == "fail"


def test_the_doctor_finds_a_report_that_is_replayed(host: ShimHost, tmp_path: Path) -> None:
    old = host.devices[0].sign(bytes(32))
    host.devices[0].sign = lambda _: old
    status, found = doctor(host, tmp_path)["gpu.report"]
    assert status == "fail"
    assert "does not bear the nonce" in found
