"""IMA's list: what the kernel measured, what it extended for it, and what it says it does not know."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import SHA1, SHA256, SHA384, extended, ima_data, ima_entry, ima_field
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import Binding, Register, Rule, ima, replay
from weighbridge.proto.eventlog.reader import LogReader
from weighbridge.proto.tpm.constants import digest

A, B = bytes([1] * 32), bytes([2] * 32)
FIRST, SECOND = ima_data(b"boot_aggregate", A), ima_data(b"/usr/bin/python3", B)
LIST = ima_entry(FIRST) + ima_entry(SECOND)
TEN = Register.pcr(10)


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        ima.parse(data)
    return caught.value.code


def outcome(data: bytes) -> Code | int:
    """The code of the refusal, or how many entries were read."""
    try:
        return len(ima.parse(data))
    except MalformedEvidence as error:
        return error.code


def test_entries_say_what_was_measured() -> None:
    first, second = ima.parse(LIST)
    assert (first.path, first.algorithm, first.content_digest) == ("boot_aggregate", "sha256", A)
    assert (second.pcr, second.template, second.data) == (10, "ima-ng", SECOND)
    log = ima.to_log((first, second))
    assert [event.binding for event in log.events] == [Binding.CONTENT] * 2
    assert log.events[1].text == f"/usr/bin/python3 sha256:{B.hex()}"


def test_banks_are_extended_by_their_own_hash_of_the_template_data() -> None:
    log = ima.to_log(ima.parse(LIST))
    for bank in (SHA1, SHA256, SHA384):
        values = [digest(bank, data) for data in (FIRST, SECOND)]
        assert replay(log, bank) == {TEN: extended(bytes(len(values[0])), *values, bank=bank)}


def test_older_kernels_pad_the_sha1_template_hash() -> None:
    log = ima.to_log(ima.parse(LIST), Rule.PADDED)
    padded = [digest(SHA1, data) + bytes(12) for data in (FIRST, SECOND)]
    assert replay(log, SHA256) == {TEN: extended(bytes(32), *padded)}
    assert replay(log, SHA1) == replay(ima.to_log(ima.parse(LIST)), SHA1)


@pytest.mark.parametrize("rule", list(Rule))
def test_a_violation_is_extended_as_ones_and_kept_in_sight(rule: Rule) -> None:
    entries = ima.parse(ima_entry(FIRST) + ima_entry(ima_data(b"/var/log/x", bytes(32)), hashed=bytes(20)))
    log = ima.to_log(entries, rule)
    assert entries[1].violation
    assert [(event.number, event.text) for event in log.violations] == [(1, "/var/log/x")]
    first = dict(log.events[0].digests)[SHA256]
    assert replay(log, SHA256) == {TEN: extended(bytes(32), first, b"\xff" * 32)}


def test_the_original_template_is_hashed_with_its_name_filled_up() -> None:
    value, name = bytes(range(20)), b"/init"
    data = value + ima_field(name)
    hashed = hashlib.sha1(value + name.ljust(256, b"\0"), usedforsecurity=False).digest()
    (entry,) = ima.parse(ima_entry(data, b"ima", hashed=hashed))
    assert (entry.path, entry.algorithm, entry.content_digest, entry.data) == ("/init", "sha1", value, data)
    assert replay(ima.to_log((entry,)), SHA256) == {
        TEN: extended(bytes(32), digest(SHA256, value + name.ljust(256, b"\0")))
    }


@pytest.mark.parametrize(
    ("template", "data", "algorithm"),
    [
        (b"ima-sig", ima_data(b"/x", A, b"sha256", b""), "sha256"),
        (b"ima-ngv2", ima_data(b"/x", A, b"verity:sha256"), "verity:sha256"),
        (b"ima-sigv2", ima_data(b"/x", A, b"ima:sha256", b"\3sig"), "ima:sha256"),
        (b"ima-buf", ima_data(b"kexec-cmdline", A, b"sha256", b"root=/dev/vda"), "sha256"),
        (b"ima-modsig", ima_data(b"/m.ko", A, b"sha256", b"", b"", b""), "sha256"),
        (b"evm-sig", ima_data(b"/x", A, b"sha256", b"", b"", b"", b"", b"", b"", b""), "sha256"),
        (b"ima-ng", ima_data(b"/x", bytes(16), b"md5"), "md5"),
    ],
)
def test_templates(template: bytes, data: bytes, algorithm: str) -> None:
    (entry,) = ima.parse(ima_entry(data, template))
    assert entry.algorithm == algorithm


def test_a_path_is_shown_on_one_line() -> None:
    (entry,) = ima.parse(ima_entry(ima_data(b"/opt/\xff\n\x1b[2J", A)))
    assert entry.path == "/opt/\\\\xff\\n\\x1b[2J"


def test_an_edited_entry_is_refused_by_number() -> None:
    edited = ima_entry(FIRST) + ima_entry(SECOND, hashed=hashlib.sha1(FIRST, usedforsecurity=False).digest())
    with pytest.raises(MalformedEvidence) as caught:
        ima.parse(edited)
    assert (caught.value.code, caught.value.where) == (Code.LOG_DIGEST, "log[1]")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (ima_entry(FIRST, pcr=24), Code.FIELD_RANGE),
        (ima_entry(FIRST, b"ima-xx"), Code.VERSION_UNSUPPORTED),
        (ima_entry(FIRST, b"ima\xff"), Code.VERSION_UNSUPPORTED),
        (ima_entry(FIRST, b"x" * 256), Code.FIELD_RANGE),
        (ima_entry(FIRST + b"\0"), Code.TRAILING_BYTES),
        (ima_entry(FIRST[:-1]), Code.TRUNCATED),
        (ima_entry(ima_field(b"sha256:\0" + A) + ima_field(b"/x")), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", A[:31])), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", b"", b"md5")), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", bytes(65), b"wide")), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", A, b"")), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", A, b"ima:sha256")), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", A), b"ima-ngv2"), Code.FIELD_RANGE),
        (ima_entry(ima_data(b"/x", A, b"sha 256")), Code.FIELD_RANGE),
        (ima_entry(ima_field(A) + ima_field(b"/x\0")), Code.FIELD_RANGE),
        (ima_entry(bytes(20) + struct.pack("<I", 256) + bytes(256), b"ima"), Code.FIELD_RANGE),
        (LIST + b"\n", Code.TRUNCATED),
        (bytes(limits.EVENT_LOG_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_refusals(data: bytes, code: Code) -> None:
    assert refused(data) is code


def test_the_number_of_entries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_LOG_EVENTS_MAX", 1)
    assert refused(LIST) is Code.TOO_LARGE


@given(st.binary(max_size=200), st.sampled_from([b"", b"ima", b"ima-ng", b"ima-sig", b"ima-ngv2"]))
def test_any_bytes_are_read_or_malformed(data: bytes, template: bytes) -> None:
    for candidate in (data, ima_entry(data, template)):
        try:
            entries = ima.parse(candidate)
        except MalformedEvidence:
            continue
        assert all(event.text.isprintable() for event in ima.to_log(entries).events)


@given(st.integers(0, len(LIST) - 1))
def test_a_list_cut_anywhere_is_shorter_or_refused(size: int) -> None:
    assert outcome(LIST[:size]) in {Code.TRUNCATED, 0, 1}


@given(st.integers(0, 8 * len(LIST) - 1))
def test_a_flipped_bit_is_refused_or_changes_the_replay(bit: int) -> None:
    flipped = bytearray(LIST)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        log = ima.to_log(ima.parse(bytes(flipped)))
    except MalformedEvidence:
        return
    assert replay(log, SHA256) != replay(ima.to_log(ima.parse(LIST)), SHA256)


@given(
    st.sampled_from([b"ima-ng", b"ima-sig", b"ima-ngv2", b"ima-sigv2", b"ima-buf", b"ima-modsig", b"ima"]),
    st.sampled_from([b"sha1", b"sha256", b"sha384", b"md5", b"verity:sha256", b"ima:sha1", b"", b"sha256:"]),
    st.binary(max_size=40) | st.sampled_from([A, bytes(20)]),
    st.lists(st.binary(max_size=5), max_size=3),
    st.binary(max_size=4),
)
def test_the_quick_way_reads_what_the_careful_way_reads(
    template: bytes, algorithm: bytes, value: bytes, rest: list[bytes], tail: bytes
) -> None:
    data = ima_entry(ima_data(b"/usr/x\xff", value, algorithm, *rest) + tail, template)
    quick = ima._usual_entry(data, 0)
    try:
        careful = ima._entry(LogReader(data, "log"), 0)
    except MalformedEvidence:
        assert quick is None
        return
    assert quick is None or quick == (careful, len(data))


@pytest.mark.parametrize("template", [b"ima-ng", b"ima-ngv2"])
def test_usual_entries_are_read_the_quick_way(template: bytes) -> None:
    data = ima_entry(ima_data(b"/x", A, b"verity:sha256" if template == b"ima-ngv2" else b"sha256"), template)
    assert ima._usual_entry(data, 0) is not None
    assert ima._usual_entry(data[:-1], 0) is None


def test_usual_and_unusual_entries_mix() -> None:
    odd = ima_entry(ima_data(b"/x", bytes(16), b"md5"))
    entries = ima.parse(LIST + odd + LIST + odd)
    assert [entry.algorithm for entry in entries] == ["sha256", "sha256", "md5", "sha256", "sha256", "md5"]
