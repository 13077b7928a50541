"""What booted, by the logs that quoted registers vouch for: honest boots read, hostile ones refused or not believed."""

from __future__ import annotations

import contextlib
import pickle
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import ACTION, IPL, SEPARATOR, SHA1, SHA256, SHA384, boot_event, boot_log, old_event
from fakes.boot_logs import (
    APPLICATION,
    AUTHORITY,
    DRIVER_CONFIG,
    EVENT_TAG,
    LINE,
    LOAD_OPTIONS_TAG,
    SECTIONS,
    STRICT_LINE,
    Boot,
    image,
    tag,
    variable,
)
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic
from weighbridge.proto.eventlog.baseline import baseline
from weighbridge.proto.eventlog.uefi import GLOBAL_VARIABLE, IMAGE_SECURITY
from weighbridge.proto.tpm.constants import digest
from weighbridge.verifier.boot import BootFacts, boot_facts


def of(boot: Boot, *texts: str) -> BootFacts:
    return boot_facts(boot.logs(), boot.quoted(), SHA256, texts=texts)


def lines(facts: BootFacts) -> list[tuple[int, str, str, str]]:
    return [(line.pcr, line.source, line.known, line.text) for line in facts.command_lines]


def refused(logs: BootLogs, quoted: dict[int, bytes]) -> NotAuthentic:
    with pytest.raises(NotAuthentic) as caught:
        boot_facts(logs, quoted, SHA256)
    return caught.value


def booted(line: str = STRICT_LINE) -> Boot:
    boot = Boot()
    boot.uki(line)
    return boot


# -- honest


def test_a_unified_image_is_read() -> None:
    facts = of(booted())
    assert facts.explained == tuple(pcr for pcr in range(16) if pcr not in {10, 15})
    assert facts.untouched == (8, 13, 14)
    assert facts.unexplained == ()
    assert facts.secure_boot is True
    assert [(item.text, item.digest) for item in facts.kernel_images] == [
        (r"\EFI\Linux\uki.efi", digest(SHA256, b"uki"))
    ]
    assert tuple(section.kind for section in facts.uki_sections) == SECTIONS
    assert facts.uki_sections[0].digest == digest(SHA256, b"content of .linux")
    assert lines(facts) == [(12, "systemd-stub", "content", STRICT_LINE)]
    assert facts.unmatched_options == 0
    assert facts.phases == ("enter-initrd", "leave-initrd", "sysinit", "ready")
    assert facts.dbx is not None
    assert (facts.dbx.size, facts.dbx.digest) == (76, digest(SHA256, b"\7" * 76))
    assert facts.document()["secure_boot"] is True


def test_grub_is_read() -> None:
    boot = Boot((SHA256, SHA384), locality=3)
    boot.grub()
    for bank in (SHA256, SHA384):
        facts = boot_facts(boot.logs(), boot.quoted(bank=bank), bank)
        assert lines(facts) == [(8, "grub", "content", f"/vmlinuz {LINE}")]
        assert [item.text for item in facts.kernel_images] == [r"\EFI\BOOT\BOOTX64.EFI", r"\EFI\debian\grubx64.efi", ""]
        assert [(item.text, item.known) for item in facts.authorities] == [("db, 9 bytes", "content")]
        assert facts.unmatched_options == 0
        assert facts.phases == ()


def test_an_embedded_line_is_believed_only_as_a_text_that_is_expected() -> None:
    boot = Boot()
    boot.uki(None, embedded=LINE)
    assert lines(of(boot)) == [(11, "uki-section", "opaque", "")]
    assert of(boot).unmatched_options == 1
    facts = of(boot, "quiet", LINE)
    assert lines(facts) == [(11, "uki-section", "content", LINE)]
    assert facts.unmatched_options == 0
    assert lines(of(boot, "quiet")) == [(11, "uki-section", "opaque", "")]


def test_what_the_kernel_says_it_was_given_is_a_line_of_its_own() -> None:
    boot = Boot()
    boot.firmware_begins()
    boot.load_options(LINE)
    boot.firmware_ends()
    assert of(boot).unmatched_options == 1
    facts = of(boot, LINE)
    assert (lines(facts), facts.unmatched_options) == ([(9, "load-options", "content", LINE)], 0)


def test_systemd_boot_of_old_measures_its_line_in_pcr_8() -> None:
    boot = Boot()
    boot.firmware_begins()
    text = (LINE + "\0").encode("utf-16-le")
    boot.event(8, IPL, text + b"\0", text)
    boot.firmware_ends()
    assert lines(of(boot)) == [(8, "systemd-stub", "content", LINE)]


def test_an_archive_is_no_command_line() -> None:
    boot = booted()
    boot.event(12, IPL, "Credentials initrd\0".encode("utf-16-le"), b"cpio")
    assert lines(of(boot)) == [(12, "systemd-stub", "content", STRICT_LINE)]


@pytest.mark.parametrize(("value", "on"), [(b"\1", True), (b"\0", False), (b"", False), (b"\2", False)])
def test_secure_boot_is_on_or_it_is_not(value: bytes, on: bool) -> None:
    boot = Boot()
    boot.firmware_begins(secure_boot=value)
    boot.firmware_ends()
    assert of(boot).secure_boot is on


def test_modes_are_read() -> None:
    boot = Boot()
    boot.event(7, DRIVER_CONFIG, variable("SecureBoot", b"\1"))
    boot.event(7, DRIVER_CONFIG, variable("AuditMode", b"\1"))
    boot.event(7, DRIVER_CONFIG, variable("DeployedMode", b"\0"))
    boot.event(7, DRIVER_CONFIG, variable("SetupMode", b"\2"))
    for pcr in range(8):
        boot.event(pcr, SEPARATOR, bytes(4))
    boot.firmware_ends()
    facts = of(boot)
    assert (facts.setup_mode, facts.audit_mode, facts.deployed_mode) == (None, True, False)


def test_without_logs_whatever_was_extended_is_unexplained() -> None:
    boot = booted()
    facts = boot_facts(BootLogs(), boot.quoted(), SHA256)
    assert facts.unexplained == (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12)
    assert facts.untouched == (8, 13, 14)
    assert (facts.secure_boot, facts.command_lines, facts.phases) == (None, (), ())


def test_systemds_log_alone_explains_what_it_can() -> None:
    boot = Boot()
    boot.systemd(11, "phase", "ready")
    boot.systemd(15, "machine-id", "machine-id:x")
    boot.extend(4, b"?")
    facts = boot_facts(boot.logs(), boot.quoted(), SHA256, log_pcr=None)
    assert facts.unexplained == (4,)
    assert {11, 15} <= set(facts.explained)
    assert facts.phases == ("ready",)


def test_a_register_that_no_log_extends_is_named() -> None:
    boot = booted()
    boot.extend(14, b"by somebody")
    assert of(boot).unexplained == (14,)


def test_registers_that_were_not_quoted_say_nothing() -> None:
    boot = booted()
    facts = boot_facts(boot.logs(), boot.quoted([0, 1]), SHA256)
    assert facts.explained == (0, 1)
    assert (facts.secure_boot, facts.kernel_images, facts.uki_sections, facts.command_lines) == (None, (), (), ())


def test_registers_in_nv_indices_are_nobodys_business_here() -> None:
    boot = booted()
    boot.userspace.append(
        b'\x1e{"nv_index":30474752,"digests":[{"hashAlg":"sha384","digest":"' + b"00" * 48 + b'"}],'
        b'"content_type":"systemd","content":{}}\n'
    )
    assert of(boot).unexplained == ()


def test_where_the_measurement_log_starts() -> None:
    boot = booted()
    assert baseline(boot.logs(), 15, SHA256) == boot.values[SHA256, 15] != bytes(32)
    assert baseline(replace(boot.logs(), userspace=None), 15, SHA256) == bytes(32)
    assert baseline(BootLogs(), 15, SHA384) == bytes(48)
    assert baseline(Boot(locality=3).logs(), 0, SHA256) == bytes(31) + b"\3"


@pytest.mark.parametrize("who", ["systemd", "firmware"])
def test_what_is_not_shown_explains_nothing(who: str) -> None:
    """A77: a load that was extended before could be passed off as the boot's own."""
    boot = booted()
    if who == "systemd":
        boot.systemd(15, "volume-key", "cryptsetup:root", b"a key, or anything else")
    else:
        boot.event(15, ACTION, b"anything")
    with pytest.raises(NotAuthentic) as caught:
        baseline(boot.logs(), 15, SHA256)
    assert caught.value.code is Code.BOOT_LOG


def test_the_measurement_logs_register_is_not_compared() -> None:
    boot = booted()
    boot.extend(15, b"our own record")
    assert of(boot).unexplained == ()
    assert refused_code(boot, log_pcr=None) is Code.BOOT_LOG


def refused_code(boot: Boot, *, log_pcr: int | None) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        boot_facts(boot.logs(), boot.quoted(), SHA256, log_pcr=log_pcr)
    return caught.value.code


def outcome(logs: BootLogs, quoted: dict[int, bytes]) -> Code | tuple[int, ...]:
    """The code of the refusal, or the registers that are not explained."""
    try:
        return boot_facts(logs, quoted, SHA256, log_pcr=None).unexplained
    except NotAuthentic as error:
        return error.code


# -- hostile


def test_an_edited_log_is_refused_by_register() -> None:
    boot, other = booted(), booted()
    other.firmware[-1] = boot_event(5, ACTION, b"Exit Boot Services Returned with Failure")
    error = refused(other.logs(), boot.quoted())
    assert (error.code, error.where) == (Code.BOOT_LOG, "PCR 5, sha256")


def test_events_in_another_order_are_refused() -> None:
    boot = booted()
    quoted = boot.quoted()
    boot.userspace[0], boot.userspace[1] = boot.userspace[1], boot.userspace[0]
    error = refused(boot.logs(), quoted)
    assert (error.code, error.where) == (Code.BOOT_LOG, "PCR 11, sha256")
    assert "edited" in error.hint


def test_a_log_that_goes_on_is_refused_and_the_hint_says_so() -> None:
    boot = booted()
    quoted = boot.quoted()
    boot.systemd(11, "phase", "shutdown")
    error = refused(boot.logs(), quoted)
    assert error.code is Code.BOOT_LOG
    assert "the first 12 of its 13 events" in error.hint


def test_an_event_left_out_is_refused() -> None:
    boot = booted()
    quoted = boot.quoted()
    del boot.userspace[-2]
    assert refused(boot.logs(), quoted).code is Code.BOOT_LOG


def test_a_log_of_another_boot_is_refused() -> None:
    assert refused(booted("quiet").logs(), booted().quoted()).code is Code.BOOT_LOG


@pytest.mark.parametrize("pcr", range(8))
def test_a_separator_that_is_missing_is_refused(pcr: int) -> None:
    boot = Boot()
    for number in range(8):
        if number != pcr:
            boot.event(number, SEPARATOR, bytes(4))
    boot.firmware_ends()
    assert refused(boot.logs(), boot.quoted()).code is Code.LOG_EVENT


def test_a_boot_that_did_not_end_says_nothing() -> None:
    boot = Boot()
    boot.firmware_begins()
    with pytest.raises(Indeterminate) as caught:
        of(boot)
    assert caught.value.code is Code.LOG_EVENT


def test_a_bank_that_an_event_lacks_is_refused() -> None:
    boot = Boot((SHA256, SHA384))
    boot.uki()
    quoted = boot.quoted(bank=SHA384)
    boot.userspace[0] = Boot().userspace_of("enter-initrd")
    with pytest.raises(NotAuthentic) as caught:
        boot_facts(boot.logs(), quoted, SHA384)
    assert caught.value.code is Code.BOOT_LOG
    with pytest.raises(NotAuthentic):
        baseline(boot.logs(), 11, SHA384)


def test_thousands_of_lines_and_options_cost_no_more_than_they_are_many() -> None:
    """Compared each with each, these would hold up every other host's window for a quarter of a minute."""
    boot = Boot()
    boot.firmware_begins()
    for number in range(1500):
        boot.event(8, IPL, b"/vmlinuz %d\0" % number, b"/vmlinuz %d" % number)
        boot.load_options(f"another {number}")
    boot.firmware_ends()
    started = time.process_time()
    facts = of(boot)
    assert (len(facts.command_lines), facts.unmatched_options) == (1500, 1500)
    assert time.process_time() - started < 5


def test_the_old_format_is_refused() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        boot_facts(BootLogs(firmware=old_event(0, 8, b"1.0", b"\1" * 20)), {0: bytes(32)}, SHA256)
    assert caught.value.code is Code.LOG_SHA1_ONLY


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="SHA-1"):
        boot_facts(BootLogs(), {0: bytes(20)}, SHA1)
    with pytest.raises(ValueError, match="SHA-1"):
        baseline(BootLogs(), 15, SHA1)
    with pytest.raises(ValueError, match="32 bytes"):
        boot_facts(BootLogs(), {0: bytes(20)}, SHA256)


@pytest.mark.parametrize("source", ["stub", "grub"])
def test_a_line_that_is_not_what_was_measured_is_only_claimed(source: str) -> None:
    boot = Boot()
    boot.firmware_begins()
    if source == "stub":
        boot.stub_line(STRICT_LINE, "quiet")
    else:
        boot.grub_says("kernel_cmdline: ", f"/vmlinuz {STRICT_LINE}", "/vmlinuz quiet")
    boot.firmware_ends()
    assert [line.known for line in of(boot).command_lines] == ["opaque"]


def test_a_second_line_added_later_counts_as_well() -> None:
    boot = booted("quiet")
    boot.stub_line(STRICT_LINE)
    assert [line.text for line in of(boot).command_lines] == ["quiet", STRICT_LINE]


def test_a_line_shown_as_a_command_of_grubs_is_found() -> None:
    boot = Boot()
    boot.firmware_begins()
    # What was measured as the kernel's line is shown as a command, and a command as the kernel's line.
    boot.grub_says("grub_cmd: ", "/vmlinuz quiet")
    boot.grub_says("kernel_cmdline: ", f"/vmlinuz {STRICT_LINE}")
    boot.firmware_ends()
    assert [line.text for line in of(boot).command_lines] == ["/vmlinuz quiet", f"/vmlinuz {STRICT_LINE}"]


@pytest.mark.parametrize("hidden", ["/vmlinuz a=\n", "/vmlinuz a=\xfc"])
@pytest.mark.parametrize("prefix", ["kernel_cmdline: ", "grub_cmd: ", ""])
def test_a_line_that_cannot_be_shown_is_not_hidden(hidden: str, prefix: str) -> None:
    boot = Boot()
    boot.firmware_begins()
    boot.grub_says(prefix, hidden)
    boot.firmware_ends()
    (line,) = of(boot).command_lines
    assert line.known == "opaque"
    assert line.text.startswith("/vmlinuz a=\\")


def test_what_the_stub_measured_and_cannot_be_read_is_claimed() -> None:
    boot = booted()
    boot.event(12, IPL, b"\0\xd8", b"?")
    assert lines(of(boot))[-1] == (12, "systemd-stub", "opaque", "")


def test_other_texts_of_grubs_are_no_lines() -> None:
    boot = Boot()
    boot.firmware_begins()
    boot.grub_says("grub_cmd: ", "menuentry 'Debian' {\n\tlinux /vmlinuz\n}")
    boot.event(8, IPL, b"\0\xd8\0")
    boot.firmware_ends()
    assert of(boot).command_lines == ()


def test_secure_boot_is_what_firmware_measured_first() -> None:
    boot = Boot()
    boot.firmware_begins(secure_boot=b"\0")
    boot.firmware_ends()
    boot.event(7, DRIVER_CONFIG, variable("SecureBoot", b"\1"))
    assert of(boot).secure_boot is False
    # The first event shown as something else: then nothing vouches.
    hidden = Boot()
    hidden.event(7, IPL, b"?", variable("SecureBoot", b"\0"))
    hidden.event(7, DRIVER_CONFIG, variable("SecureBoot", b"\1"))
    for pcr in range(8):
        hidden.event(pcr, SEPARATOR, bytes(4))
    hidden.firmware_ends()
    assert of(hidden).secure_boot is None


def test_a_variable_of_another_vendor_is_not_secure_boot() -> None:
    boot = Boot()
    boot.event(7, DRIVER_CONFIG, variable("SecureBoot", b"\1", bytes(16)))
    for pcr in range(8):
        boot.event(pcr, SEPARATOR, bytes(4))
    boot.firmware_ends()
    assert of(boot).secure_boot is None


def test_an_image_shown_as_something_else_is_an_image() -> None:
    boot = booted()
    boot.event(4, EVENT_TAG, b"nothing to see", b"rootkit")
    assert [item.kind for item in of(boot).kernel_images] == ["EV_EFI_BOOT_SERVICES_APPLICATION", "EV_EVENT_TAG"]


def test_a_sections_name_must_be_what_was_measured() -> None:
    boot = Boot()
    boot.firmware_begins()
    shown = ".linux\0".encode("utf-16-le")
    boot.event(11, IPL, shown, b".initrd\0")
    boot.event(11, IPL, shown, b"content")
    boot.firmware_ends()
    assert of(boot).uki_sections == ()


def test_facts_are_made_by_verification_only() -> None:
    facts = of(booted())
    with pytest.raises(TypeError, match="boot_facts"):
        replace(facts, secure_boot=True, seal=object())
    with pytest.raises(TypeError):
        pickle.dumps(facts)


EVENTS = st.sampled_from(
    [
        (4, APPLICATION, image("x")),
        (7, DRIVER_CONFIG, variable("SecureBoot", b"\1")),
        (7, AUTHORITY, variable("db", b"", IMAGE_SECURITY)),
        (7, DRIVER_CONFIG, variable("dbx", b"", GLOBAL_VARIABLE)),
        (8, IPL, b"kernel_cmdline: /x\0"),
        (9, EVENT_TAG, tag(LOAD_OPTIONS_TAG, b"LOADED_IMAGE::LoadOptions\0")),
        (11, IPL, ".linux\0".encode("utf-16-le")),
        (12, IPL, "quiet\0".encode("utf-16-le")),
    ]
) | st.tuples(st.integers(0, 15), st.sampled_from([IPL, EVENT_TAG, APPLICATION, AUTHORITY]), st.binary(max_size=20))


@given(st.lists(EVENTS, max_size=6), st.binary(max_size=8), st.data())
def test_any_log_that_leads_to_the_quote_is_read_and_any_other_refused(
    events: list[tuple[int, int, bytes]], hashed: bytes, data: st.DataObject
) -> None:
    boot = Boot()
    boot.firmware_begins()
    for pcr, event_type, content in events:
        boot.event(pcr, event_type, content, hashed if event_type not in {DRIVER_CONFIG, ACTION} else None)
    boot.firmware_ends()
    quoted = boot.quoted()
    for line in boot_facts(boot.logs(), quoted, SHA256, log_pcr=None).command_lines:
        assert line.text.isprintable()
    pcr = data.draw(st.sampled_from(sorted(set(range(16)) - {10})))
    extended = pcr < 8 or any(event[0] == pcr for event in events)
    other = {**quoted, pcr: b"\5" * 32}
    assert outcome(boot.logs(), other) == (Code.BOOT_LOG if extended else (pcr,))


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(firmware: bytes, userspace: bytes) -> None:
    for logs in (BootLogs(firmware=firmware), BootLogs(userspace=userspace), BootLogs(userspace=b"\x1e" + userspace)):
        with contextlib.suppress(MalformedEvidence):
            boot_facts(logs, {0: bytes(32)}, SHA256)


def test_an_empty_log_of_firmware_has_no_separators() -> None:
    assert refused(BootLogs(firmware=boot_log()), {0: bytes(32)}).code is Code.LOG_EVENT
