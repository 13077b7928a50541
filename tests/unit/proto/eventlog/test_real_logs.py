"""Logs of real machines: what each leads to, compared with what their TPMs signed wherever that is known.

Pinned is a digest over the replayed SHA-256 registers in ascending order. For the logs marked *published* these were
compared once, register by register, with the values that google/go-tpm-tools `server/eventlog_test.go` gives for the
machine; the two attestations of a GCE host hold the quote itself, and are compared with it here.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from eventlog_support import SHA1, SHA256, SHA384, gce_attestation, ima_from_ascii
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.eventlog import Binding, Format, Register, RegisterKind, Rule, read, replay, require
from weighbridge.proto.tpm import attest
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import pcr_digest

TEN = Register.pcr(10)
PUBLISHED = [
    ("arch-linux-workstation.bin", 24, "99770dc6dbf821067f28b2392046e746"),
    ("cos-101-amd-sev.bin", 48, "679dc40ba80b238cd3736842f0099aa2"),
    ("cos-85-amd-sev.bin", 45, "2c74360f3a225e379f1fc167356d93cc"),
    ("cos-93-amd-sev.bin", 45, "dfa4c484aeea79121d505c61273bc38a"),
    ("glinux-alex.bin", 28, "a5279d7d95213b3b9cc49b5e44ab9aff"),
    ("rhel8-uefi.bin", 82, "3d5545516f754bebe7af0672a8970fb6"),
    ("ubuntu-1804-amd-sev.bin", 87, "47f5961608fcfb2e0a8d90881c37bd1f"),
    ("ubuntu-2104-no-dbx.bin", 111, "354985ca678a064c942e0bee44272b70"),
    ("ubuntu-2104-no-secure-boot.bin", 105, "36d791d94cca7cb4033a6334a0c9c900"),
]
BOOT_LOGS = [(f"go-tpm-tools/eventlogs/{name}", events, value) for name, events, value in PUBLISHED] + [
    ("go-tpm-tools/eventlogs/confidential-gke-debug-251000_eventlog.bin", 54, "3738c311901d5823b27e45aa171c8ece"),
    ("go-tpm-tools/eventlogs/eventlogwithsp800155.bin", 53, "5c0158858f92b35ac5d88496f5992756"),
    ("go-tpm-tools/eventlogs/gdc-host.bin", 158, "029a29c020566d7d2b2938e13780eee6"),
    ("go-tpm-tools/eventlogs/ubuntu-2404-amd-sevsnp.bin", 116, "e177bfde04ac0fcc17dd20f243bd8bb6"),
    ("go-attestation/coreos_36_shielded_vm_no_secure_boot_eventlog", 75, "22d0fd2368425b549d0c699ac1a0b665"),
    ("go-attestation/crypto_agile_eventlog", 26, "d83e144f54ec5e301daeb60d56887b43"),
    ("go-attestation/sb_cert_eventlog", 14, "7ed6f3b3d91a216f930ff3468bfa8485"),
    ("go-attestation/ubuntu_2104_shielded_vm_no_secure_boot_eventlog", 105, "36d791d94cca7cb4033a6334a0c9c900"),
    ("keylime/mb/binary_bios_measurements", 120, "92e7c7a4a3c330a132eb5e5e41b40bb9"),
    ("keylime/mb/binary_bios_measurements-secureboot", 98, "d7211a16b8b9788f1a56317b86ae98e7"),
    ("rust-keylime/uefi_log.bin", 123, "873069e4682e6b417043e556fc7dfa21"),
]
SHA1_ONLY = [
    "go-tpm-tools/eventlogs/debian-10.bin",
    "go-attestation/ebs_event_missing_eventlog",
    "go-attestation/option_rom_eventlog",
    "go-attestation/short_no_action_eventlog",
]
QUOTED = [
    (f"go-tpm-tools/attestations/{name}.pb", bank)
    for name in ("gce-cos-85-no-nonce", "gce-cos-85-nonce9009")
    for bank in (SHA1, SHA256, SHA384)
]


@pytest.fixture(scope="module")
def tpm(vectors_dir: Path) -> Path:
    return vectors_dir / "tpm"


@pytest.mark.parametrize(("name", "events", "value"), BOOT_LOGS)
def test_a_boot_log_leads_to_the_machines_registers(tpm: Path, name: str, events: int, value: str) -> None:
    log = read((tpm / name).read_bytes())
    assert (log.format, len(log.events)) == (Format.TCG2, events)
    registers = replay(log, SHA256)
    joined = b"".join(registers[register] for register in sorted(registers))
    assert hashlib.sha256(joined).hexdigest().startswith(value)
    # Separators, secure boot's variables and the like are in every log, and vouched for.
    assert sum(event.binding is Binding.CONTENT for event in log.events) >= 9
    assert all(event.text.isprintable() for event in log.events)


@pytest.mark.parametrize("name", SHA1_ONLY)
def test_a_log_of_the_old_format_is_refused(tpm: Path, name: str) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        read((tpm / name).read_bytes())
    assert caught.value.code is Code.LOG_SHA1_ONLY


@pytest.mark.parametrize(("name", "bank"), QUOTED)
def test_a_gce_hosts_log_leads_to_what_its_tpm_quoted(tpm: Path, name: str, bank: HashAlgorithm) -> None:
    quotes, data = gce_attestation((tpm / name).read_bytes())
    message, values = quotes[bank]
    # The values are those that were signed: of all 24 registers, hashed by the key's own hash.
    quote = attest.parse(message)
    assert isinstance(quote.attested, attest.QuoteInfo)
    assert quote.attested.digest == pcr_digest(SHA256, [values[index] for index in range(24)])
    log = read(data)
    expected = {Register.pcr(index): value for index, value in values.items()}
    # Firmware knows nothing of PCR 10, which the kernel extends; all others are explained, never extended ones too.
    kernels = {TEN: expected.pop(TEN)}
    if bank is SHA1:
        assert replay(log, bank).items() <= expected.items()
        return
    assert require(log, bank, expected) == expected
    for other in (kernels, {**expected, Register.pcr(7): values[8]}):
        with pytest.raises(NotAuthentic) as caught:
            require(log, bank, other)
        assert caught.value.code is Code.LOG_REPLAY


def test_confidential_spaces_log_vouches_for_all_it_says(tpm: Path) -> None:
    data = base64.b64decode((tpm / "go-tpm-tools/cel/cel.b64").read_text())
    log = read(data)
    assert (log.format, len(log.events), log.banks) == (Format.CEL, 18, (SHA384,))
    assert {event.binding for event in log.events} == {Binding.CONTENT}
    assert (log.events[0].kind, log.events[-1].kind) == ("cos.image_reference", "cos.launch_separator")
    assert next(event.text for event in log.events if event.kind == "cos.gpu_cc_mode") == "ON"
    # There is no quote beside it: compared with the sum of its contents, found by their frame alone.
    contents = [part[part.index(b"\x0c\0\0\0\x30") + 53 :] for part in data.split(b"\0\0\0\0\x08\0\0\0\0\0\0\0")[1:]]
    value = bytes(48)
    for content in contents:
        value = hashlib.sha384(value + hashlib.sha384(content).digest()).digest()
    assert replay(log, SHA384) == {Register(RegisterKind.CCMR, 4): value}


def test_a_changed_image_in_confidential_spaces_log_is_refused(tpm: Path) -> None:
    data = base64.b64decode((tpm / "go-tpm-tools/cel/cel.b64").read_text())
    with pytest.raises(MalformedEvidence) as caught:
        read(data.replace(b"cuda-vector-add", b"cuda-vector-sub"))
    assert (caught.value.code, caught.value.where) == (Code.LOG_DIGEST, "log[0].sha384")


def test_imas_list_has_the_template_hashes_that_the_kernel_computed(tpm: Path) -> None:
    """826 entries, each template hash as the kernel printed it; a wrong field boundary would change it."""
    text = (tpm / "rust-keylime/ascii_runtime_measurements").read_text()
    data = ima_from_ascii(text)
    log = read(data)
    assert (log.format, len(log.events), log.violations) == (Format.IMA, 826, ())
    assert log.events[0].text.startswith("boot_aggregate ")
    by_rule = {rule: replay(read(data, rule=rule), SHA256)[TEN] for rule in Rule}
    assert by_rule[Rule.REHASHED].hex().startswith("c4a065637fc6a7c5")
    assert by_rule[Rule.PADDED] != by_rule[Rule.REHASHED]
    sha1 = {replay(read(data, rule=rule), SHA1)[TEN] for rule in Rule}
    hashes = [bytes.fromhex(line.split(" ")[1]) for line in text.splitlines()]
    assert sha1 == {extended_sha1(hashes)}


def test_a_changed_path_in_imas_list_is_refused(tpm: Path) -> None:
    data = ima_from_ascii((tpm / "rust-keylime/ascii_runtime_measurements").read_text())
    with pytest.raises(MalformedEvidence) as caught:
        read(data.replace(b"/init\0", b"/idle\0", 1))
    assert caught.value.code is Code.LOG_DIGEST


def extended_sha1(values: list[bytes]) -> bytes:
    register = bytes(20)
    for value in values:
        register = hashlib.sha1(register + value, usedforsecurity=False).digest()
    return register
