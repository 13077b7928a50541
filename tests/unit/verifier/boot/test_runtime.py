"""IMA's list, step by step: exact to the quoted register, bounded, and every digest kept once."""

from __future__ import annotations

import hashlib
import pickle
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import SHA1, SHA256, SHA384, extended, ima_data, ima_entry
from fakes.boot_logs import Boot, sha256_name
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm.constants import digest
from weighbridge.verifier.boot.runtime import RuntimeEntry, RuntimeLog, boot_aggregate, unknown

FILES = {"/usr/bin/python3": b"python", "/usr/lib/attester.py": b"attester", "/models/weights": b"weights"}


def listed(boot: Boot, log: RuntimeLog | None = None, *, since: int = 0) -> RuntimeLog:
    data = b"".join(boot.runtime[since:])
    return (log or RuntimeLog.empty()).extended(data, quoted=boot.values[SHA256, 10], bank=SHA256)


def booted() -> Boot:
    boot = Boot()
    boot.uki()
    boot.kernel(FILES)
    return boot


def refused(boot: Boot, quoted: bytes) -> NotAuthentic:
    with pytest.raises(NotAuthentic) as caught:
        RuntimeLog.empty().extended(b"".join(boot.runtime), quoted=quoted, bank=SHA256)
    assert caught.value.code is Code.RUNTIME_LOG
    return caught.value


def test_a_list_says_what_was_measured() -> None:
    log = listed(booted())
    assert (log.count, log.violations, log.bank) == (4, 0, SHA256)
    assert log.files == {
        sha256_name(content): RuntimeEntry(sha256_name(content), path, "file") for path, content in FILES.items()
    }
    assert log.fresh == tuple(log.files.values())


def test_steps_continue_where_the_last_one_ended() -> None:
    boot = booted()
    first = listed(boot)
    boot.measure("/usr/bin/more", b"more")
    boot.measure("/usr/bin/python3.12", b"python")
    second = listed(boot, first, since=4)
    assert second.count == 6
    assert [entry.path for entry in second.fresh] == ["/usr/bin/more"]
    assert [entry.path for entry in second.files.values()] == [*FILES, "/usr/bin/more"]
    assert second == replace_fresh(listed(boot), second)
    assert len(first.files) == 3


def replace_fresh(log: RuntimeLog, other: RuntimeLog) -> RuntimeLog:
    """`log` as if its last step had been that of `other`."""
    return replace(log, fresh=other.fresh)


def test_a_step_with_nothing_new_is_the_same_list() -> None:
    boot = booted()
    first = listed(boot)
    second = listed(boot, first, since=4)
    assert second.fresh == ()
    assert second.files is first.files
    assert listed(boot, second, since=4) is second


def test_nothing_new_must_be_nothing_new() -> None:
    log = listed(booted())
    with pytest.raises(NotAuthentic) as caught:
        log.extended(b"", quoted=bytes(32), bank=SHA256)
    assert caught.value.code is Code.RUNTIME_LOG


def test_a_kernel_without_a_list_leaves_the_register_alone() -> None:
    log = RuntimeLog.empty().extended(b"", quoted=bytes(32), bank=SHA256)
    assert (log.count, log.bank) == (0, SHA256)
    with pytest.raises(NotAuthentic):
        RuntimeLog.empty().extended(b"", quoted=b"\1" * 32, bank=SHA256)


def test_templates_and_kinds() -> None:
    boot = Boot()
    boot.measure("/x", b"x", template=b"ima-sig")
    boot.measure("kexec-cmdline", b"quiet", template=b"ima-buf")
    boot.entry(ima_data(b"/verity", bytes(32), b"verity:sha256"), b"ima-ngv2")
    boot.entry(ima_data(b"/plain", bytes(32), b"ima:sha256"), b"ima-ngv2")
    boot.entry(ima_data(b"/old", bytes(20), b"sha1"))
    assert [(entry.name.rpartition(":")[0], entry.path, entry.kind) for entry in listed(boot).files.values()] == [
        ("sha256", "/x", "file"),
        ("sha256", "kexec-cmdline", "buffer"),
        ("verity:sha256", "/verity", "file"),
        ("sha256", "/plain", "file"),
        ("sha1", "/old", "file"),
    ]


def test_the_original_template_is_read() -> None:
    data = bytes(range(20)) + (5).to_bytes(4, "little") + b"/init"
    hashed = bytes(range(20)) + b"/init".ljust(256, b"\0")
    entry = ima_entry(data, b"ima", hashed=hashlib.sha1(hashed, usedforsecurity=False).digest())
    log = RuntimeLog.empty().extended(entry, quoted=extended(bytes(32), digest(SHA256, hashed)), bank=SHA256)
    assert list(log.files) == [f"sha1:{bytes(range(20)).hex()}"]


def test_violations_are_counted_and_the_first_named() -> None:
    boot = booted()
    boot.violate("/var/log/messages")
    boot.violate("/var/log/other")
    log = listed(boot)
    assert (log.count, log.violations, log.first_violation, len(log.files)) == (6, 2, "/var/log/messages", 3)


def test_other_banks_have_their_own_value() -> None:
    boot = Boot((SHA256, SHA384))
    boot.kernel(FILES)
    log = RuntimeLog.empty().extended(b"".join(boot.runtime), quoted=boot.values[SHA384, 10], bank=SHA384)
    assert log.value == boot.values[SHA384, 10]
    with pytest.raises(ValueError, match="not the one of this list"):
        log.extended(b"", quoted=bytes(32), bank=SHA256)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="SHA1 bank"):
        RuntimeLog.empty().extended(b"", quoted=bytes(20), bank=SHA1)
    with pytest.raises(ValueError, match="32 bytes"):
        RuntimeLog.empty().extended(b"", quoted=bytes(48), bank=SHA256)
    with pytest.raises(TypeError, match="extended only"):
        replace(RuntimeLog.empty(), count=7, seal=object())
    with pytest.raises(TypeError):
        pickle.dumps(RuntimeLog.empty())


# -- hostile


def test_an_entry_left_out_is_refused() -> None:
    boot = booted()
    quoted = boot.values[SHA256, 10]
    del boot.runtime[2]
    assert "missing" in refused(boot, quoted).hint


def test_an_entry_added_is_refused() -> None:
    boot = booted()
    quoted = boot.values[SHA256, 10]
    boot.runtime.insert(1, ima_entry(ima_data(b"/usr/bin/true", bytes(32))))
    assert "missing" in refused(boot, quoted).hint


def test_a_list_that_goes_on_is_refused_and_the_hint_says_so() -> None:
    boot = booted()
    quoted = boot.values[SHA256, 10]
    boot.measure("/late", b"late")
    assert "the first 4 of its 5 new entries" in refused(boot, quoted).hint


def test_entries_in_another_order_are_refused() -> None:
    boot = booted()
    boot.runtime.reverse()
    refused(boot, boot.values[SHA256, 10])


def test_an_edited_entry_is_malformed_or_leads_elsewhere() -> None:
    boot = booted()
    quoted = boot.values[SHA256, 10]
    boot.runtime[1] = ima_entry(ima_data(b"/usr/bin/python3", digest(SHA256, b"another")))
    refused(boot, quoted)
    boot.runtime[1] = ima_entry(ima_data(b"/usr/bin/python3", digest(SHA256, b"another")), hashed=b"\1" * 20)
    with pytest.raises(MalformedEvidence) as caught:
        RuntimeLog.empty().extended(b"".join(boot.runtime), quoted=quoted, bank=SHA256)
    assert caught.value.code is Code.LOG_DIGEST


def test_a_violation_shown_as_a_file_is_refused() -> None:
    boot = booted()
    boot.violate("/var/x")
    boot.runtime[-1] = ima_entry(ima_data(b"/var/x", bytes(32)))
    refused(boot, boot.values[SHA256, 10])


def test_an_entry_of_another_register_is_refused() -> None:
    boot = booted()
    boot.measure("/hidden", b"hidden", pcr=11)
    error = refused(boot, boot.values[SHA256, 10])
    assert (error.where, error.got) == ("runtime[4]", "PCR 11")


def test_an_old_kernel_is_named() -> None:
    boot = booted()
    padded = bytes(32)
    for entry in boot.runtime:
        padded = digest(SHA256, padded, entry[4:24] + bytes(12))
    assert "5.8" in refused(boot, padded).hint


def test_distinct_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    boot = booted()
    first = listed(boot)
    boot.measure("/more", b"more")
    boot.measure("/most", b"most")
    monkeypatch.setattr(limits, "EVENT_LOG_EVENTS_MAX", 4)
    with pytest.raises(MalformedEvidence) as caught:
        listed(boot, first, since=4)
    assert caught.value.code is Code.TOO_LARGE


# -- the first entry, and the closed set


@pytest.mark.parametrize("upto", [8, 10])
def test_the_first_entry_is_of_this_boots_registers(upto: int) -> None:
    boot = Boot()
    boot.grub()
    before = boot.quoted()
    boot.kernel({}, upto=upto)
    log = listed(boot)
    assert boot_aggregate(log, before, SHA256) == "fits"
    assert boot_aggregate(log, {**before, 4: bytes(32)}, SHA256) == "differs"
    assert boot_aggregate(log, before, SHA384) == "unknown"
    without_nine = {pcr: value for pcr, value in before.items() if pcr != 9}
    assert boot_aggregate(log, without_nine, SHA256) == ("fits" if upto == 8 else "unknown")


def test_a_list_that_begins_otherwise_is_of_no_boot() -> None:
    boot = Boot()
    assert boot_aggregate(RuntimeLog.empty(), boot.quoted(), SHA256) == "unknown"
    boot.measure("/bin/sh", b"sh")
    assert boot_aggregate(listed(boot), boot.quoted(), SHA256) == "differs"


def test_a_second_aggregate_is_a_file_like_others() -> None:
    boot = booted()
    boot.kernel({})
    assert [entry.path for entry in unknown(listed(boot), {sha256_name(content) for content in FILES.values()})] == [
        "boot_aggregate"
    ]


def test_what_no_set_names_is_unknown() -> None:
    log = listed(booted())
    assert unknown(log, set(log.files)) == ()
    assert [entry.path for entry in unknown(log, {sha256_name(b"python")})] == [
        "/usr/lib/attester.py",
        "/models/weights",
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((MalformedEvidence, NotAuthentic)):
        RuntimeLog.empty().extended(data, quoted=b"\1" * 32, bank=SHA256)


@given(st.integers(0, 8 * 300 - 1))
def test_a_flipped_bit_is_refused_or_changes_no_digest(bit: int) -> None:
    boot = booted()
    quoted = boot.values[SHA256, 10]
    data = bytearray(b"".join(boot.runtime))
    data[bit // 8] ^= 1 << bit % 8
    try:
        log = RuntimeLog.empty().extended(bytes(data), quoted=quoted, bank=SHA256)
    except (MalformedEvidence, NotAuthentic):
        return
    # The name of the template is all that no hash covers.
    assert log == listed(boot)


def test_ten_thousand_entries_take_no_time_to_speak_of() -> None:
    boot = Boot()
    for number in range(10_000):
        boot.measure(f"/usr/lib/python3/dist-packages/module_{number}.py", number.to_bytes(4, "big"))
    data = b"".join(boot.runtime)
    times: list[float] = []
    for _ in range(3):
        begin = time.perf_counter()
        log = RuntimeLog.empty().extended(data, quoted=boot.values[SHA256, 10], bank=SHA256)
        times.append(time.perf_counter() - begin)
        assert len(log.files) == 10_000
    # 90 ms on a slow machine; the bound is for a crowded one.
    assert min(times) < 1
