"""Boots of real machines: file, outcome, and what is found in each.

Two attestations of a GCE host hold the quote itself. Of the others, the registers are those that the log leads to,
which ``tests/unit/proto/eventlog/test_real_logs.py`` compares with what is published of the machine: here it counts
that the right facts are read from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from eventlog_support import SHA1, SHA256, SHA384, gce_attestation, ima_from_ascii
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.errors import Code, NotAuthentic, WeighbridgeError
from weighbridge.proto.eventlog import Register, read, replay
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.verifier.boot import BootFacts, boot_facts
from weighbridge.verifier.boot.attester_code import judge
from weighbridge.verifier.boot.runtime import RuntimeLog, boot_aggregate

GO, ATTEST = "go-tpm-tools/eventlogs", "go-attestation"


class Found(NamedTuple):
    """Secure boot, bytes of the dbx, accepted signatures, started images, and how the command line begins and ends."""

    secure_boot: bool
    dbx: int
    authorities: int
    images: tuple[str, ...]
    line: str
    end: str


BOOTX64, LAKITU = r"\EFI\BOOT\BOOTX64.EFI", r"\EFI\BOOT\grub-lakitu.efi"
UBUNTU = (r"\EFI\ubuntu\shimx64.efi", r"\EFI\ubuntu\grubx64.efi")
REDHAT = (r"\EFI\redhat\shimx64.efi", r"\EFI\redhat\grubx64.efi", "")
FEDORA = (r"\EFI\fedora\shimx64.efi", r"\EFI\fedora\grubx64.efi")
DELL = r"\efi\Dell\System_Services\System_Services.efi"

BOOTS = {
    f"{GO}/confidential-gke-debug-251000_eventlog.bin": Found(
        True, 4461, 4, (BOOTX64, LAKITU, ""), "/syslinux/vmlinuz.B init=", ""
    ),
    f"{GO}/cos-101-amd-sev.bin": Found(True, 4461, 3, (BOOTX64, LAKITU, "", ""), "/syslinux/vmlinuz.A init=", ""),
    f"{GO}/cos-85-amd-sev.bin": Found(True, 4461, 3, (BOOTX64, "", ""), "/syslinux/vmlinuz.A init=", ""),
    f"{GO}/cos-93-amd-sev.bin": Found(True, 4461, 3, (BOOTX64, "", ""), "/syslinux/vmlinuz.A init=", ""),
    f"{GO}/eventlogwithsp800155.bin": Found(True, 4461, 4, (BOOTX64, LAKITU, ""), "/syslinux/vmlinuz.B init=", ""),
    f"{GO}/gdc-host.bin": Found(False, 22984, 1, (DELL, *UBUNTU), "/vmlinuz-6.9.0-rc7+ root=", "intel_iommu=on"),
    f"{GO}/rhel8-uefi.bin": Found(True, 11936, 2, REDHAT, "(hd0,gpt2)/boot/vmlinuz-4.18.0-240", ""),
    f"{GO}/ubuntu-1804-amd-sev.bin": Found(False, 3724, 0, (UBUNTU[0], ""), "/boot/vmlinuz-5.4.0-1046-gcp ", ""),
    f"{GO}/ubuntu-2104-no-dbx.bin": Found(False, 0, 1, UBUNTU, "/boot/vmlinuz-5.11.0-1008-gcp ", ""),
    f"{GO}/ubuntu-2104-no-secure-boot.bin": Found(False, 11936, 1, UBUNTU, "/boot/vmlinuz-5.11.0-1006-gcp ", ""),
    f"{GO}/ubuntu-2404-amd-sevsnp.bin": Found(False, 17836, 1, UBUNTU, "/vmlinuz-6.8.0-1010-gcp root=", "panic=-1"),
    f"{ATTEST}/coreos_36_shielded_vm_no_secure_boot_eventlog": Found(
        False, 11936, 2, FEDORA, "(hd0,gpt3)/ostree/fedora-coreos-", ""
    ),
    f"{ATTEST}/ubuntu_2104_shielded_vm_no_secure_boot_eventlog": Found(
        False, 11936, 1, UBUNTU, "/boot/vmlinuz-5.11.0-1006-gcp ", ""
    ),
    "keylime/mb/binary_bios_measurements-secureboot": Found(
        True, 17836, 3, REDHAT, "(hd0,gpt2)/vmlinuz-5.14.0-503", "console=ttyS0"
    ),
    "rust-keylime/uefi_log.bin": Found(
        False, 25040, 1, FEDORA, "(hd0,gpt2)/vmlinuz-6.15.4-200.fc42", "amdgpu.dcdebugmask=0x10"
    ),
}
REFUSED = {
    # Firmware or loader left no word of the end of boot services.
    f"{GO}/arch-linux-workstation.bin": (6, Code.LOG_EVENT),
    f"{GO}/glinux-alex.bin": (6, Code.LOG_EVENT),
    f"{ATTEST}/crypto_agile_eventlog": (6, Code.LOG_EVENT),
    "keylime/mb/binary_bios_measurements": (6, Code.LOG_EVENT),
    # A fragment without separators.
    f"{ATTEST}/sb_cert_eventlog": (4, Code.LOG_EVENT),
    f"{GO}/debian-10.bin": (3, Code.LOG_SHA1_ONLY),
    f"{ATTEST}/ebs_event_missing_eventlog": (3, Code.LOG_SHA1_ONLY),
    f"{ATTEST}/option_rom_eventlog": (3, Code.LOG_SHA1_ONLY),
    f"{ATTEST}/short_no_action_eventlog": (3, Code.LOG_SHA1_ONLY),
}
ATTESTATIONS = ("gce-cos-85-no-nonce", "gce-cos-85-nonce9009")


@pytest.fixture(scope="module")
def tpm(vectors_dir: Path) -> Path:
    return vectors_dir / "tpm"


def registers(data: bytes) -> dict[int, bytes]:
    found = replay(read(data), SHA256)
    return {pcr: found.get(Register.pcr(pcr), bytes(32)) for pcr in range(16)}


@pytest.mark.parametrize("name", BOOTS)
def test_what_is_read_of_a_boot(tpm: Path, name: str) -> None:
    data = (tpm / name).read_bytes()
    facts = boot_facts(BootLogs(firmware=data), registers(data), SHA256)
    (line,) = facts.command_lines
    assert facts.dbx is not None
    expected = BOOTS[name]
    assert expected == Found(
        facts.secure_boot is True,
        facts.dbx.size,
        len(facts.authorities),
        tuple(image.text for image in facts.kernel_images),
        line.text[: len(expected.line)],
        line.text[len(line.text) - len(expected.end) :],
    )
    assert (line.pcr, line.source, line.known) == (8, "grub", "content")
    assert (facts.unexplained, facts.unmatched_options, facts.uki_sections, facts.phases) == ((), 0, (), ())


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tpm: Path, name: str) -> None:
    data = (tpm / name).read_bytes()
    with pytest.raises(WeighbridgeError) as caught:
        boot_facts(BootLogs(firmware=data), dict.fromkeys(range(10), bytes(32)) | leading(data), SHA256)
    assert (caught.value.exit_code, caught.value.code) == REFUSED[name]


def leading(data: bytes) -> dict[int, bytes]:
    """Where the log leads to, if it is one."""
    try:
        return registers(data)
    except WeighbridgeError:
        return {}


@pytest.mark.parametrize("name", ATTESTATIONS)
@pytest.mark.parametrize("bank", [SHA256, SHA384])
def test_a_gce_hosts_boot_by_its_quote(tpm: Path, name: str, bank: HashAlgorithm) -> None:
    facts, quoted = attested(tpm, name, bank)
    assert facts.unexplained == ()
    assert facts.secure_boot is True
    assert len(facts.kernel_images) == 3
    (line,) = facts.command_lines
    assert line.known == "content"
    assert "root=/dev/dm-0" in line.text
    # The kernel of that host measured files too; its list is not among what was kept.
    with pytest.raises(NotAuthentic) as caught:
        RuntimeLog.empty().extended(b"", quoted=quoted[10], bank=bank)
    assert caught.value.code is Code.RUNTIME_LOG


@pytest.mark.parametrize("name", ATTESTATIONS)
def test_a_gce_hosts_boot_by_another_quote_is_refused(tpm: Path, name: str) -> None:
    quotes, log = gce_attestation((tpm / f"go-tpm-tools/attestations/{name}.pb").read_bytes())
    quoted = dict(quotes[SHA256][1])
    quoted[8] = quotes[SHA256][1][4]
    with pytest.raises(NotAuthentic) as caught:
        boot_facts(BootLogs(firmware=log), quoted, SHA256)
    assert (caught.value.code, caught.value.where) == (Code.BOOT_LOG, "PCR 8, sha256")


@pytest.mark.parametrize("name", ATTESTATIONS)
def test_what_a_gce_host_shows_of_its_code(tpm: Path, name: str) -> None:
    """Container-Optimized OS of 2021: secure boot and a verified root, and no list of the kernel's beside it."""
    facts, _ = attested(tpm, name, SHA256)
    missing = judge(facts, None, closed=(), attester=(), known=range(16), tpm=True).missing
    assert missing == (
        "lockdown",
        "ima-policy",
        "ima-policy-fixed",
        "ima-start",
        "ima-hash",
        "ima-violation",
        "closed-set",
        "attester-measured",
        "ptrace",
        "kexec",
        "console",
    )


def attested(tpm: Path, name: str, bank: HashAlgorithm) -> tuple[BootFacts, dict[int, bytes]]:
    quotes, log = gce_attestation((tpm / f"go-tpm-tools/attestations/{name}.pb").read_bytes())
    _, quoted = quotes[bank]
    return boot_facts(BootLogs(firmware=log), quoted, bank), quoted


def test_a_real_list_of_imas(tpm: Path) -> None:
    """A Keylime test machine without a TPM: SHA-1 digests, and an aggregate of nothing."""
    data = ima_from_ascii((tpm / "rust-keylime/ascii_runtime_measurements").read_text())
    quoted = replay(read(data), SHA256)[Register.pcr(10)]
    log = RuntimeLog.empty().extended(data, quoted=quoted, bank=SHA256)
    assert (log.count, len(log.files), log.violations) == (826, 821, 0)
    assert log.aggregate == ("sha1", bytes(20))
    assert boot_aggregate(log, dict.fromkeys(range(10), bytes(32)), SHA256) == "unknown"
    missing = judge(None, log, closed=log.files, attester=list(log.files)[:9], known=(), tpm=True).missing
    assert {"ima-hash", "ima-start"} <= set(missing)
    assert not {"ima-violation", "closed-set", "attester-measured"} & set(missing)
    with pytest.raises(ValueError, match="SHA1"):
        RuntimeLog.empty().extended(data, quoted=bytes(20), bank=SHA1)
