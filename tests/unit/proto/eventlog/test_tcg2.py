"""Firmware's boot log: read strictly, replayed, and what vouches for what."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import (
    IPL,
    NO_ACTION,
    SEPARATOR,
    SHA1,
    SHA256,
    SHA384,
    boot_event,
    boot_log,
    extended,
    old_event,
    spec_id,
    startup,
)
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import Binding, Register, replay, tcg2
from weighbridge.proto.tpm.constants import digest

ZERO = bytes(32)
DATA = b"\0\0\0\0"
HEADER = old_event(0, NO_ACTION, spec_id())
LOG = boot_log(
    boot_event(7, SEPARATOR, DATA), boot_event(4, IPL, b"claimed", digests=[(SHA256, digest(SHA256, b"image"))])
)


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        tcg2.parse(data)
    return caught.value.code


def outcome(data: bytes) -> Code | int:
    """The code of the refusal, or how many events were read."""
    try:
        return len(tcg2.parse(data).events)
    except MalformedEvidence as error:
        return error.code


def variable(name: str, value: bytes, *, units: int | None = None) -> bytes:
    units = len(name) if units is None else units
    return bytes(16) + struct.pack("<QQ", units, len(value)) + name.encode("utf-16-le") + value


def test_replays_and_says_what_the_digests_vouch_for() -> None:
    log = tcg2.to_log(tcg2.parse(LOG))
    assert [(event.number, event.binding, event.kind, event.text) for event in log.events] == [
        (0, Binding.CONTENT, "EV_SEPARATOR", "4 bytes"),
        (1, Binding.OPAQUE, "EV_IPL", "claimed"),
    ]
    assert log.banks == (SHA256,)
    assert replay(log, SHA256) == {
        Register.pcr(7): extended(ZERO, digest(SHA256, DATA)),
        Register.pcr(4): extended(ZERO, digest(SHA256, b"image")),
    }


def test_every_bank_replays_by_its_own_hash() -> None:
    banks = (SHA1, SHA256, SHA384)
    log = tcg2.to_log(tcg2.parse(boot_log(boot_event(7, SEPARATOR, DATA, banks=banks), banks=banks)))
    assert log.banks == banks
    for bank in banks:
        value = digest(bank, DATA)
        assert replay(log, bank) == {Register.pcr(7): extended(bytes(len(value)), value, bank=bank)}


def test_digests_may_come_in_any_order_and_of_banks_that_are_not_ours() -> None:
    sm3 = 0x12
    values = [(sm3, b"?" * 32), (SHA256, digest(SHA256, DATA))]
    data = old_event(0, NO_ACTION, spec_id([(SHA256, 32), (sm3, 32)])) + boot_event(7, SEPARATOR, DATA, digests=values)
    (event,) = tcg2.parse(data).events
    assert event.digests == tuple(values)
    assert event.binding is Binding.CONTENT
    assert tcg2.to_log(tcg2.parse(data)).banks == (SHA256,)


def test_a_log_in_foreign_banks_only_vouches_for_nothing() -> None:
    data = old_event(0, NO_ACTION, spec_id([(0x12, 32)])) + boot_event(7, SEPARATOR, DATA, digests=[(0x12, b"?" * 32)])
    log = tcg2.to_log(tcg2.parse(data))
    assert log.banks == ()
    assert log.events[0].binding is Binding.OPAQUE


@pytest.mark.parametrize(("locality", "last"), [(0, 0), (3, 3), (4, 4)])
def test_start_locality_sets_the_start_of_pcr_0(locality: int, last: int) -> None:
    log = tcg2.to_log(tcg2.parse(boot_log(startup(locality), boot_event(0, SEPARATOR, DATA))))
    assert log.locality == locality
    assert replay(log, SHA256) == {Register.pcr(0): extended(bytes(31) + bytes([last]), digest(SHA256, DATA))}
    assert log.events[0].text == f"StartupLocality {locality:02x}"


@pytest.mark.parametrize(
    "events",
    [
        [startup(3), startup(3)],
        [boot_event(0, SEPARATOR, DATA), startup(3)],
        [startup(1)],
        [boot_event(0, NO_ACTION, b"StartupLocality\0")],
        [boot_event(0, NO_ACTION, b"StartupLocality\0\3\3")],
    ],
)
def test_a_boot_begins_once_first_and_somewhere(events: list[bytes]) -> None:
    assert refused(boot_log(*events)) is Code.LOG_EVENT


def test_no_action_is_never_extended() -> None:
    noise = boot_event(0xFFFFFFFF, NO_ACTION, b"SP800-155 Event\0", digests=[(SHA256, b"x" * 32)])
    log = tcg2.to_log(tcg2.parse(boot_log(noise, boot_event(1, NO_ACTION, b"StartupLocality\0\3"))))
    assert [event.binding for event in log.events] == [Binding.NONE, Binding.NONE]
    assert (log.locality, log.registers, replay(log, SHA256)) == (0, (), {})


@pytest.mark.parametrize("event_type", sorted(tcg2.HASHED))
def test_a_digest_that_is_not_that_of_the_data_is_refused_by_number(event_type: int) -> None:
    good = boot_event(7, SEPARATOR, DATA)
    bad = boot_event(7, event_type, DATA, digests=[(SHA256, digest(SHA256, b"another"))])
    with pytest.raises(MalformedEvidence) as caught:
        tcg2.parse(boot_log(good, bad))
    assert caught.value.code is Code.LOG_DIGEST
    assert caught.value.where == "log[1].sha256"


@pytest.mark.parametrize(
    "first",
    [
        old_event(0, 0x8, b"1.0", bytes(range(20))),
        old_event(0, NO_ACTION, b"StartupLocality\0\3"),
        old_event(0, NO_ACTION, b"short"),
        old_event(0, NO_ACTION, spec_id(signature=b"Spec ID Event02\0")),
        old_event(0, NO_ACTION, spec_id(), b"\1" * 20),
        old_event(1, NO_ACTION, spec_id()),
    ],
)
def test_the_old_format_has_a_code_of_its_own(first: bytes) -> None:
    assert refused(first) is Code.LOG_SHA1_ONLY


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.TRUNCATED),
        (old_event(24, NO_ACTION, spec_id()), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id(version=b"\1\2")), Code.VERSION_UNSUPPORTED),
        (old_event(0, NO_ACTION, spec_id([])), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id([(bank, 32) for bank in range(100, 117)])), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id([(SHA256, 32), (SHA256, 32)])), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id([(SHA256, 20)])), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id([(0x12, 0)])), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id([(0x12, 65)])), Code.FIELD_RANGE),
        (old_event(0, NO_ACTION, spec_id(tail=b"\0")), Code.TRAILING_BYTES),
        (HEADER + boot_event(24, SEPARATOR, DATA), Code.FIELD_RANGE),
        (HEADER + boot_event(7, SEPARATOR, DATA, digests=[]), Code.FIELD_RANGE),
        (HEADER + boot_event(7, SEPARATOR, DATA, digests=[(SHA384, bytes(48))]), Code.FIELD_RANGE),
        (
            old_event(0, NO_ACTION, spec_id([(SHA256, 32), (SHA384, 48)]))
            + boot_event(7, SEPARATOR, DATA, digests=[(SHA256, digest(SHA256, DATA))] * 2),
            Code.FIELD_RANGE,
        ),
        (HEADER + boot_event(7, SEPARATOR, DATA)[:-8] + b"\xff\xff\xff\xff", Code.TRUNCATED),
        (LOG + b"\0", Code.TRUNCATED),
        (LOG + b"\xff" * 64, Code.FIELD_RANGE),
        (LOG + bytes(64), Code.FIELD_RANGE),
        (bytes(limits.EVENT_LOG_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_refusals(data: bytes, code: Code) -> None:
    assert refused(data) is code


def test_vendor_information_is_passed_over() -> None:
    assert tcg2.parse(old_event(0, NO_ACTION, spec_id(vendor=b"maker"))).events == ()


def test_the_number_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_LOG_EVENTS_MAX", 1)
    assert refused(LOG) is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("event_type", "data", "text"),
    [
        (0x80000001, variable("SecureBoot", b"\1"), "SecureBoot, 1 bytes"),
        (0x80000002, variable("Boot0000", b"", units=2**60), "48 bytes"),
        (0x80000001, variable("\u202egnp.exe", b""), "48 bytes"),
        (0x80000001, variable("\ud800"[:0], b""), "32 bytes"),
        (0x8, "GCE".encode("utf-16-le"), "GCE"),
        (IPL, b"grub_cmd: boot\0", "grub_cmd: boot"),
        (IPL, b"a\x1b[2J", "5 bytes"),
        (IPL, b"x" * 200, "x" * 120 + "… (200 bytes)"),
        (IPL, b"\xff\xfe\xfd", "3 bytes"),
    ],
)
def test_descriptions_are_one_printable_line(event_type: int, data: bytes, text: str) -> None:
    assert tcg2.describe(event_type, data) == text


def test_a_type_without_a_name_is_shown_by_number() -> None:
    assert tcg2.type_name(0x8401) == "EV_0x00008401"


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_malformed(data: bytes, headed: bool) -> None:
    try:
        log = tcg2.to_log(tcg2.parse(HEADER + data if headed else data))
    except MalformedEvidence:
        return
    assert all(event.text.isprintable() for event in log.events)


@given(st.integers(0, len(LOG) - 1))
def test_a_log_cut_anywhere_is_shorter_or_refused(size: int) -> None:
    assert outcome(LOG[:size]) in {Code.TRUNCATED, 0, 1}


@given(st.integers(0, 8 * len(LOG) - 1))
def test_a_flipped_bit_is_refused_or_seen(bit: int) -> None:
    flipped = bytearray(LOG)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        log = tcg2.to_log(tcg2.parse(bytes(flipped)))
    except MalformedEvidence:
        return
    before = tcg2.to_log(tcg2.parse(LOG))
    if replay(log, SHA256) == replay(before, SHA256):
        # What a replay does not see: fields that nobody reads, an event's type, and data that are only claimed.
        for new, old in zip(log.events, before.events, strict=True):
            assert new.binding is Binding.OPAQUE or new.text == old.text
