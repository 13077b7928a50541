"""The boot's measurement log on disk: ahead of the register, whatever fails between the two."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.models import write_model
from fakes.pcrs import FakePcrs, PowerFailure, tpm_failure
from weighbridge.attester.weights import Baseline, LogPosition, MeasurementLog, measure, state
from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.measurement_log import (
    HEAD_ZERO,
    AttesterStart,
    ModelLoad,
    ModelUnload,
    check_gapless,
    head,
    loaded,
    replay,
)
from weighbridge.proto.tpm.constants import HashAlgorithm

SHA256 = HashAlgorithm.SHA256
PCR = 15
BOOT = "3.0"
START = AttesterStart("0.1.0", bytes(16))


@pytest.fixture
def pcrs() -> FakePcrs:
    return FakePcrs()


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    folder = tmp_path_factory.mktemp("models")
    return measure(write_model(folder / "declared")), measure(write_model(folder / "second", seed=2))


class Host:
    """A host whose attester opens its log again and again."""

    def __init__(self, directory: Path, pcrs: FakePcrs) -> None:
        self.directory = directory
        self.pcrs = pcrs
        self.log: MeasurementLog | None = None

    def open(self, boot: str = BOOT, baseline: Baseline = Baseline.ZERO) -> MeasurementLog:
        self.close()
        self.log = MeasurementLog.open(self.directory, self.pcrs, pcr=PCR, boot=boot, baseline=baseline)
        return self.log

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def check(self) -> None:
        """What a verifier does: the log has no gap and leads to the register in every bank."""
        assert self.log is not None
        records = self.log.records()
        check_gapless(records, 0)
        for bank in self.pcrs.banks:
            if bank is not HashAlgorithm.SHA1:
                start = self.log.start[bank]
                assert replay(start, records, bank, pcr=PCR) == self.pcrs.values[bank, PCR]
        assert self.log.position == LogPosition(len(records), head(records))


@pytest.fixture
def host(tmp_path: Path, pcrs: FakePcrs) -> Iterator[Host]:
    found = Host(tmp_path / "state", pcrs)
    yield found
    found.close()


def code_of(error: pytest.ExceptionInfo[EnvironmentFault]) -> Code:
    return error.value.code


@pytest.mark.parametrize(
    "banks", [(SHA256,), (SHA256, HashAlgorithm.SHA384), (HashAlgorithm.SHA1, SHA256, HashAlgorithm.SHA512)]
)
def test_log_leads_to_the_register_in_every_bank(
    tmp_path: Path, banks: tuple[HashAlgorithm, ...], manifests: tuple[Manifest, Manifest]
) -> None:
    host = Host(tmp_path, FakePcrs(banks))
    log = host.open()
    assert log.position == LogPosition(0, HEAD_ZERO)
    log.append(START)
    record = log.append_load(manifests[0])
    assert (record.recnum, record.event) == (1, ModelLoad(manifests[0].digest, "declared"))
    assert log.manifest(manifests[0].digest) == manifests[0]
    assert log.pcr == PCR
    assert log.records(1) == (record,)
    host.check()
    host.close()


def test_second_model_stays_in_the_log(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    """A51: what is loaded after the declared model shows, as does its unloading."""
    log = host.open()
    log.append_load(manifests[0])
    second = log.append_load(manifests[1])
    assert [model.manifest for model in log.loaded()] == [manifests[0].digest, manifests[1].digest]
    log.append(ModelUnload(second.recnum))
    assert [model.name for model in log.loaded()] == ["declared"]
    assert len(log.records()) == 3
    host.check()


def test_restarted_attester_continues_the_log(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    """A77: a restart without a reset of the TPM does not forget the undeclared model."""
    host.open().append_load(manifests[1])
    log = host.open()
    log.append(START)
    log.append_load(manifests[0])
    assert [model.name for model in log.loaded()] == ["second", "declared"]
    host.check()


def test_reboot_begins_a_new_log(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    host.open().append_load(manifests[1])
    host.pcrs.reset()
    log = host.open("4.0")
    assert log.records() == ()
    log.append_load(manifests[0])
    host.check()
    assert host.open("4.0").records() == log.records()
    # A record that never reached the old boot's register must not reach the new one's.
    host.pcrs.reset()
    assert host.open("5.0").records() == ()
    host.check()


def test_resumed_tpm_continues_the_log(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    """TPM Resume (Part 1 §12.2.3.2) counts a restart and keeps the registers."""
    host.open("3.0").append_load(manifests[0])
    log = host.open("3.1")
    assert len(log.records()) == 1
    log.append(START)
    host.check()


def test_state_removed_without_a_reset_is_refused(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    """A77: no log, but a register that somebody extended."""
    host.open().append_load(manifests[1])
    host.close()
    host.directory = host.directory.with_name("empty")
    with pytest.raises(EnvironmentFault) as caught:
        host.open()
    assert code_of(caught) == Code.BASELINE_UNEXPLAINED
    assert caught.value.hint


def test_found_baseline_is_written_down(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    host.pcrs.extend(PCR, {bank: bytes(32 if bank is SHA256 else 48) for bank in host.pcrs.banks})
    log = host.open(baseline=Baseline.FOUND)
    assert log.start[SHA256] == host.pcrs.values[SHA256, PCR] != bytes(32)
    log.append_load(manifests[0])
    host.check()
    assert host.open().start == log.start
    host.check()


@pytest.mark.parametrize("boot", [BOOT, "4.0"])
def test_register_extended_by_somebody_else_is_refused(host: Host, boot: str) -> None:
    host.open().append(START)
    host.pcrs.extend(PCR, {bank: bytes(32 if bank is SHA256 else 48) for bank in host.pcrs.banks})
    with pytest.raises(EnvironmentFault) as caught:
        host.open(boot)
    assert code_of(caught) == (Code.STATE_CORRUPT if boot == BOOT else Code.BASELINE_UNEXPLAINED)


def test_crash_between_write_and_extend_is_completed(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    log = host.open()
    log.append(START)
    host.pcrs.before = PowerFailure()
    with pytest.raises(PowerFailure):
        log.append_load(manifests[0])
    log = host.open()
    assert [model.manifest for model in log.loaded()] == [manifests[0].digest]
    host.check()


def test_crash_after_extend_loses_nothing(host: Host) -> None:
    log = host.open()
    host.pcrs.after = PowerFailure()
    with pytest.raises(PowerFailure):
        log.append(START)
    assert len(host.open().records()) == 1
    host.check()


def test_crash_while_beginning_leaves_nothing_to_explain(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path, _data: bytes, **_: object) -> None:
        raise PowerFailure

    monkeypatch.setattr(state, "write_file", fail)
    with pytest.raises(PowerFailure):
        host.open()
    monkeypatch.undo()
    host.open().append(START)
    host.check()


def test_failed_extend_withdraws_the_record(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    log = host.open()
    host.pcrs.before = tpm_failure()
    with pytest.raises(EnvironmentFault) as caught:
        log.append_load(manifests[0])
    assert code_of(caught) == Code.TPM_FAILED
    assert log.loaded() == ()
    log.append(START)
    host.check()
    assert len(host.open().records()) == 1
    host.check()


def test_extend_done_but_reported_failed_counts_as_done(host: Host) -> None:
    log = host.open()
    host.pcrs.after = tpm_failure()
    assert log.append(START).recnum == 0
    host.check()


def test_unknown_register_breaks_the_log_until_it_is_opened_again(host: Host) -> None:
    log = host.open()
    host.pcrs.before = tpm_failure()
    host.pcrs.unreadable = True
    with pytest.raises(EnvironmentFault) as caught:
        log.append(START)
    assert code_of(caught) == Code.TPM_FAILED
    host.pcrs.unreadable = False
    with pytest.raises(EnvironmentFault) as caught:
        log.append(START)
    assert code_of(caught) == Code.STATE_CORRUPT
    # The record was on disk before the failure; opening brings the register after it.
    assert len(host.open().records()) == 1
    host.check()


def test_reset_under_a_running_attester_is_noticed_at_the_next_failure(host: Host) -> None:
    log = host.open()
    log.append(START)
    host.pcrs.reset()
    host.pcrs.before = tpm_failure()
    with pytest.raises(EnvironmentFault) as caught:
        log.append(START)
    assert code_of(caught) == Code.STATE_CORRUPT


def test_disk_full_before_the_record_extends_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    log = host.open()
    before = dict(host.pcrs.values)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault) as caught:
        log.append(START)
    monkeypatch.undo()
    assert code_of(caught) == Code.DISK_FULL
    assert host.pcrs.values == before
    log.append(START)
    assert len(host.open().records()) == 1
    host.check()
    assert [path.name for path in host.directory.rglob(".*")] == []


def test_record_that_cannot_be_withdrawn_breaks_the_log(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    log = host.open()
    host.pcrs.before = tpm_failure()

    def refuse(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(EnvironmentFault) as caught:
        log.append(START)
    monkeypatch.undo()
    assert code_of(caught) == Code.FILE_UNWRITABLE
    assert len(host.open().records()) == 1
    host.check()


def test_unloading_what_is_not_loaded_changes_nothing(host: Host) -> None:
    log = host.open()
    with pytest.raises(NotAuthentic) as caught:
        log.append(ModelUnload(0))
    assert caught.value.code == Code.LOG_EVENT
    with pytest.raises(MalformedEvidence):
        log.append(AttesterStart("", bytes(16)))
    assert log.records() == ()
    host.check()


def test_full_log_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    log = host.open()
    log.append(START)
    monkeypatch.setattr(limits, "LOG_RECORDS_MAX", 1)
    with pytest.raises(EnvironmentFault) as caught:
        log.append(START)
    assert code_of(caught) == Code.TOO_LARGE


def damage_missing(folder: Path) -> None:
    (folder / "00000000.cbor").unlink()


def damage_record(folder: Path) -> None:
    (folder / "00000001.cbor").write_bytes(b"\xa0")


def damage_name(folder: Path) -> None:
    (folder / "00000001.cbor").rename(folder / "00000007.cbor")


def damage_start(folder: Path) -> None:
    (folder / "start.cbor").write_bytes(b"")


def damage_start_register(folder: Path) -> None:
    values = {11: bytes(32), 12: bytes(48)}
    (folder / "start.cbor").write_bytes(cbor.encode({0: "weighbridge/v1/log-start", 1: 8, 2: values}))


def damage_exchange(folder: Path) -> None:
    """Another record with digests that fit it: well-formed, and not what was extended."""
    other = (folder / "00000002.cbor").read_bytes()
    (folder / "00000001.cbor").write_bytes(b"\xa4\x00\x01" + other[3:])


@pytest.mark.parametrize(
    "damage",
    [damage_missing, damage_record, damage_name, damage_start, damage_start_register, damage_exchange],
)
def test_damaged_log_is_refused(host: Host, damage: object) -> None:
    """A52: a log that was edited, shortened or renumbered on disk."""
    log = host.open()
    for number in range(3):
        log.append(AttesterStart("0.1.0", bytes([number] * 16)))
    host.close()
    assert callable(damage)
    damage(host.directory / "log" / f"00000000-{BOOT}")
    with pytest.raises(EnvironmentFault) as caught:
        host.open()
    assert code_of(caught) == Code.STATE_CORRUPT


def test_another_register_than_the_logs_is_refused(host: Host) -> None:
    host.open().append(START)
    host.close()
    with pytest.raises(EnvironmentFault) as caught:
        MeasurementLog.open(host.directory, host.pcrs, pcr=PCR - 1, boot=BOOT)
    assert (code_of(caught), caught.value.hint[:18]) == (Code.STATE_CORRUPT, "give the --log-pcr")


def test_missing_last_records_are_refused(host: Host) -> None:
    log = host.open()
    for number in range(3):
        log.append(AttesterStart("0.1.0", bytes([number] * 16)))
    host.close()
    (host.directory / "log" / f"00000000-{BOOT}" / "00000002.cbor").unlink()
    with pytest.raises(EnvironmentFault) as caught:
        host.open()
    assert code_of(caught) == Code.STATE_CORRUPT


def test_damaged_manifest_is_refused(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    log = host.open()
    log.append_load(manifests[0])
    path = host.directory / "manifests" / f"{manifests[0].digest.hex()}.cbor"
    for content in (manifests[1].raw, b"", b"\xa0"):
        path.write_bytes(content)
        with pytest.raises(EnvironmentFault) as caught:
            log.manifest(manifests[0].digest)
        assert code_of(caught) == Code.STATE_CORRUPT
    with pytest.raises(EnvironmentFault) as caught:
        log.manifest(bytes(32))
    assert code_of(caught) == Code.FILE_UNREADABLE


def test_one_process_at_a_time(host: Host) -> None:
    host.open()
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from fakes.pcrs import FakePcrs; from weighbridge.attester.weights import MeasurementLog\n"
        "from weighbridge.proto.errors import EnvironmentFault\n"
        "try: MeasurementLog.open(Path(sys.argv[1]), FakePcrs(), pcr=15, boot='3.0')\n"
        "except EnvironmentFault as error: print(error.code)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(host.directory)], capture_output=True, text=True, check=True
    )
    assert found.stdout == "STATE_LOCKED\n"
    with pytest.raises(EnvironmentFault) as caught:
        MeasurementLog.open(host.directory, host.pcrs, pcr=PCR, boot=BOOT)
    assert code_of(caught) == Code.STATE_LOCKED


def test_closed_log_appends_no_more(host: Host) -> None:
    log = host.open()
    log.close()
    log.close()
    with pytest.raises(EnvironmentFault):
        log.append(START)


def test_unwritable_state_and_bad_boot_names(host: Host) -> None:
    with pytest.raises(ValueError, match="boot"):
        host.open("../up")
    host.directory.mkdir()
    (host.directory / "lock").mkdir()
    with pytest.raises(EnvironmentFault) as caught:
        host.open()
    assert code_of(caught) == Code.FILE_UNWRITABLE
    (host.directory / "lock").rmdir()
    (host.directory / "log").rmdir()
    (host.directory / "log").write_text("in the way")
    with pytest.raises(EnvironmentFault) as caught:
        host.open()
    assert code_of(caught) == Code.FILE_UNWRITABLE


def test_loaded_matches_what_a_verifier_derives(host: Host, manifests: tuple[Manifest, Manifest]) -> None:
    log = host.open()
    log.append_load(manifests[0])
    log.append_load(manifests[1])
    assert log.loaded() == loaded(log.records())
