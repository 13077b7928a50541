"""The measurement log on a real TPM 2.0 implementation: restarts, resets, and a second model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.models import write_model
from weighbridge.attester.tpm.device import Tpm
from weighbridge.attester.tpm.emulator import Manufactured, Swtpm, manufacture
from weighbridge.attester.weights import MeasurementLog, measure
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.measurement_log import check_gapless, replay
from weighbridge.proto.tpm.constants import HashAlgorithm, digest_size
from weighbridge.proto.tpm.pcr import PcrSelection

PCR = 15


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manufactured:
    return manufacture(tmp_path_factory.mktemp("tpm") / "made")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    folder = tmp_path_factory.mktemp("models")
    return measure(write_model(folder / "declared")), measure(write_model(folder / "second", seed=2))


@pytest.fixture
def emulator(made: Manufactured) -> Iterator[Swtpm]:
    with Swtpm(made) as running:
        yield running


def open_log(directory: Path, tpm: Tpm) -> MeasurementLog:
    at = tpm.read_clock()
    return MeasurementLog.open(directory, tpm, pcr=PCR, boot=f"{at.reset_count}.{at.restart_count}")


def check(log: MeasurementLog, tpm: Tpm) -> None:
    """What a verifier does with the quoted values."""
    check_gapless(log.records(), 0)
    for bank in (HashAlgorithm.SHA256, HashAlgorithm.SHA384):
        quoted = tpm.read_pcrs(PcrSelection.of(bank, [PCR]))[PCR]
        assert replay(bytes(digest_size(bank)), log.records(), bank, pcr=PCR) == quoted


def test_log_outlives_the_attester_and_ends_with_the_boot(
    emulator: Swtpm, tmp_path: Path, manifests: tuple[Manifest, Manifest]
) -> None:
    """A51, A77: a second model stays until the TPM is reset, whoever restarts."""
    with Tpm.open(emulator.tcti) as tpm:
        log = open_log(tmp_path / "state", tpm)
        log.append_load(manifests[0])
        log.append_load(manifests[1])
        check(log, tpm)
        log.close()
    with Tpm.open(emulator.tcti) as tpm:
        log = open_log(tmp_path / "state", tpm)
        assert [model.name for model in log.loaded()] == ["declared", "second"]
        check(log, tpm)
        log.close()
        with pytest.raises(EnvironmentFault) as caught:
            open_log(tmp_path / "elsewhere", tpm)
        assert caught.value.code == Code.BASELINE_UNEXPLAINED
    emulator.power_cycle()
    with Tpm.open(emulator.tcti) as tpm:
        log = open_log(tmp_path / "state", tpm)
        assert log.records() == ()
        log.append_load(manifests[0])
        check(log, tpm)
        log.close()


def test_reset_under_a_running_attester_loses_no_record(
    emulator: Swtpm, tmp_path: Path, manifests: tuple[Manifest, Manifest]
) -> None:
    with Tpm.open(emulator.tcti) as tpm:
        log = open_log(tmp_path / "state", tpm)
        log.append_load(manifests[0])
        emulator.power_cycle()
        with pytest.raises(EnvironmentFault) as caught:
            log.append_load(manifests[1])
        assert caught.value.code in {Code.TPM_RESET, Code.STATE_CORRUPT}
        log.close()
