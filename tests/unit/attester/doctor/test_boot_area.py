"""What the boot left behind, on a tree of files."""

from __future__ import annotations

import errno
import json
import os
from hashlib import sha1, sha256
from pathlib import Path

import pytest

from fakes.doctor_host import GLOBAL, Paper, put
from weighbridge.attester.doctor.boot import AREA
from weighbridge.attester.doctor.findings import Finding, Status
from weighbridge.attester.doctor.running import diagnose
from weighbridge.proto import limits

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
EFIVARS = "sys/firmware/efi/efivars"
SECURITY = "sys/kernel/security"
# TCG PC Client Platform Firmware Profile 1.06 §10.4.5.1: the header event with SHA-256 alone, nothing behind it.
SPEC_ID = b"Spec ID Event03\0" + bytes.fromhex("00000000 00020002 01000000 0b002000 00")
HEADER = bytes(4) + bytes.fromhex("03000000") + bytes(20) + len(SPEC_ID).to_bytes(4, "little") + SPEC_ID
# EV_SEPARATOR into PCR 7: one digest, SHA-256, of four zero bytes.
UEFI_LOG = (
    HEADER + bytes.fromhex("07000000 04000000 01000000 0b00") + sha256(bytes(4)).digest() + b"\4\0\0\0" + bytes(4)
)


def ima_entry(path: str, *, violated: bool = False) -> bytes:
    """One entry of template ima-ng, in PCR 10."""
    fields = (b"sha256:\0" + (bytes(32) if violated else b"d" * 32), path.encode() + b"\0")
    data = b"".join(len(value).to_bytes(4, "little") + value for value in fields)
    digest = bytes(20) if violated else sha1(data, usedforsecurity=False).digest()
    parts = (b"ima-ng", data)
    return b"\x0a\0\0\0" + digest + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


PHASE = {"eventType": "phase", "string": "ready", "bootId": "00" * 16, "timestamp": 17}
SYSTEMD = {
    "pcr": 11,
    "digests": [{"hashAlg": "sha256", "digest": sha256(b"ready").hexdigest()}],
    "content_type": "systemd",
    "content": PHASE,
}
SYSTEMD_LOG = b"\x1e" + json.dumps(SYSTEMD).encode() + b"\n"
IMA_LIST = ima_entry("boot_aggregate") + ima_entry("/usr/bin/python3")


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    """A host in order."""
    made = Paper(tmp_path)
    put(tmp_path, f"{EFIVARS}/SecureBoot-{GLOBAL}", b"\x06\0\0\0\x01")
    put(tmp_path, f"{EFIVARS}/SetupMode-{GLOBAL}", b"\x06\0\0\0\0")
    put(tmp_path, f"{SECURITY}/lockdown", "none [integrity] confidentiality\n")
    put(tmp_path, f"{SECURITY}/tpm0/binary_bios_measurements", UEFI_LOG)
    put(tmp_path, "run/log/systemd/tpm2-measure.log", SYSTEMD_LOG)
    put(tmp_path, "proc/cmdline", "root=/dev/sda1 ima_policy=tcb|secure_boot ima_hash=sha256 ima_template=ima-ng\n")
    put(tmp_path, f"{SECURITY}/ima/binary_runtime_measurements", IMA_LIST)
    return made


def look(paper: Paper) -> dict[str, Finding]:
    report = diagnose(paper.host(), areas=[AREA])
    assert [finding.id for finding in report.findings] == list(AREA.ids)
    return {finding.id: finding for finding in report.findings}


def test_a_boot_in_order(paper: Paper) -> None:
    found = look(paper)
    assert {check: finding.found for check, finding in found.items()} == {
        "boot.secure-boot": "secure boot is on",
        "boot.lockdown": "kernel lockdown: integrity",
        "boot.uefi-log": f"1 event, {len(UEFI_LOG)} bytes, sha256",
        "boot.systemd-log": f"1 record, {len(SYSTEMD_LOG)} bytes",
        "boot.ima-policy": "ima_policy=tcb|secure_boot ima_hash=sha256 ima_template=ima-ng",
        "boot.ima-list": f"2 entries, {len(IMA_LIST)} bytes",
    }
    assert {finding.status for finding in found.values()} == {OK}


def test_a_host_with_nothing(tmp_path: Path) -> None:
    found = look(Paper(tmp_path))
    assert {finding.status for finding in found.values()} == {WARN, SKIP}
    assert found["boot.secure-boot"].found == "this system was not booted by UEFI"
    assert "mount -t securityfs" in found["boot.lockdown"].todo
    assert found["boot.ima-policy"].status is SKIP


@pytest.mark.parametrize(
    ("name", "content", "check", "status", "words"),
    [
        (f"{EFIVARS}/SecureBoot-{GLOBAL}", b"\x06\0\0\0\0", "boot.secure-boot", WARN, "secure boot is off"),
        (f"{EFIVARS}/SecureBoot-{GLOBAL}", b"", "boot.secure-boot", WARN, "secure boot is off"),
        (f"{EFIVARS}/SetupMode-{GLOBAL}", b"\x06\0\0\0\x01", "boot.secure-boot", WARN, "in setup mode"),
        (f"{SECURITY}/lockdown", b"[none] integrity confidentiality\n", "boot.lockdown", WARN, "lockdown is off"),
        (f"{SECURITY}/lockdown", b"none integrity [confidentiality]\n", "boot.lockdown", OK, "confidentiality"),
        (f"{SECURITY}/lockdown", b"", "boot.lockdown", WARN, "lockdown is off"),
        (f"{SECURITY}/tpm0/binary_bios_measurements", b"junk", "boot.uefi-log", WARN, "TRUNCATED"),
        (f"{SECURITY}/tpm0/binary_bios_measurements", HEADER, "boot.uefi-log", WARN, "nothing in them was extended"),
        ("proc/cmdline", b"quiet", "boot.ima-policy", WARN, "no policy that measures all that runs"),
        ("proc/cmdline", b"ima_policy=appraise_tcb", "boot.ima-policy", WARN, "runs: ima_policy=appraise_tcb"),
        ("proc/cmdline", b"ima_policy=tcb ima_hash=sha256", "boot.ima-policy", WARN, "root can replace this policy"),
        ("proc/cmdline", b"ima_policy=tcb ima_template=ima", "boot.ima-policy", WARN, "ima_template=ima"),
        ("proc/cmdline", b"ima_policy=secure_boot|tcb \x1b[2J", "boot.ima-policy", OK, "ima_policy=secure_boot|tcb"),
        (
            f"{SECURITY}/ima/binary_runtime_measurements",
            ima_entry("/bin/sh", violated=True),
            "boot.ima-list",
            WARN,
            "1 violation, the first of /bin/sh",
        ),
        (f"{SECURITY}/ima/binary_runtime_measurements", b"junk", "boot.ima-list", WARN, "FIELD_RANGE"),
        ("run/log/systemd/tpm2-measure.log", b"junk", "boot.systemd-log", WARN, "(log"),
    ],
)
def test_what_is_not_in_order(paper: Paper, name: str, content: bytes, check: str, status: Status, words: str) -> None:
    put(paper.root, name, content)
    finding = look(paper)[check]
    assert finding.status is status
    assert words in finding.found
    assert finding.found.isprintable()
    assert bool(finding.todo) is (status is not OK)


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        (f"{EFIVARS}/SecureBoot-{GLOBAL}", "boot.secure-boot", "cannot be read"),
        (f"{SECURITY}/lockdown", "boot.lockdown", "the kernel has no lockdown"),
        (f"{SECURITY}/tpm0/binary_bios_measurements", "boot.uefi-log", "is not there"),
        ("run/log/systemd/tpm2-measure.log", "boot.systemd-log", "is not there"),
        (f"{SECURITY}/ima/binary_runtime_measurements", "boot.ima-list", "the kernel has no IMA"),
    ],
)
def test_what_is_missing(paper: Paper, name: str, check: str, words: str) -> None:
    (paper.root / name).unlink()
    finding = look(paper)[check]
    assert finding.status in {WARN, SKIP}
    assert words in finding.found
    assert finding.todo


@pytest.mark.parametrize(
    ("name", "check"),
    [
        (f"{SECURITY}/tpm0/binary_bios_measurements", "boot.uefi-log"),
        ("run/log/systemd/tpm2-measure.log", "boot.systemd-log"),
        (f"{SECURITY}/ima/binary_runtime_measurements", "boot.ima-list"),
    ],
)
def test_what_only_root_may_read(paper: Paper, name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, opened = paper.root / name, os.open

    def denied(path: Path, flags: int, *rest: int) -> int:
        if path == refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", denied)
    finding = look(paper)[check]
    assert finding.status is WARN
    assert "cannot be read" in finding.found
    assert "root" in finding.todo


def test_a_list_that_grows_too_long(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_LOG_MAX", len(IMA_LIST) + 1)
    assert "more than half" in look(paper)["boot.ima-list"].found
    monkeypatch.setattr(limits, "EVENT_LOG_MAX", len(IMA_LIST) - 1)
    assert "longer than " in look(paper)["boot.ima-list"].found


def test_a_pipe_in_place_of_a_file_is_not_waited_for(paper: Paper) -> None:
    path = paper.root / SECURITY / "lockdown"
    path.unlink()
    os.mkfifo(path)
    assert look(paper)["boot.lockdown"].status is WARN
