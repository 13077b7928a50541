"""systemd's log: strict JSON sequences, digests of their strings, registers in NV indices beside PCRs."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import SHA256, SHA384, extended
from fakes.boot_logs import Boot, record
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.eventlog import Binding, Format, Register, RegisterKind, read, replay, systemd
from weighbridge.proto.tpm.constants import digest

ELEVEN = {"pcr": 11}
READY = hashlib.sha256(b"ready").hexdigest()
PHASE = {"eventType": "phase", "string": "ready", "bootId": "00" * 16, "timestamp": 17}
GOOD = record(ELEVEN, {"sha256": READY}, PHASE)


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        systemd.parse(data)
    return caught.value.code


def wrapped(document: object) -> bytes:
    return b"\x1e" + json.dumps(document).encode() + b"\n"


def test_phases_replay_and_say_what_they_are() -> None:
    boot = Boot((SHA256, SHA384))
    for phase in ("enter-initrd", "ready"):
        boot.systemd(11, "phase", phase)
    log = read(b"".join(boot.userspace))
    assert log.format is Format.SYSTEMD
    assert [(event.number, event.kind, event.text, event.binding) for event in log.events] == [
        (0, "phase", "enter-initrd", Binding.CONTENT),
        (1, "phase", "ready", Binding.CONTENT),
    ]
    hashed = [digest(SHA256, text) for text in (b"enter-initrd", b"ready")]
    assert replay(log, SHA256) == {Register.pcr(11): extended(bytes(32), *hashed)}
    assert log.banks == (SHA256, SHA384)


def test_an_empty_log_has_no_records() -> None:
    assert systemd.parse(b"") == ()


def test_a_volume_key_is_only_claimed() -> None:
    (event,) = systemd.to_log(
        systemd.parse(record({"pcr": 15}, {"sha256": "5a" * 32}, {"eventType": "volume-key", "string": "root:uuid"}))
    ).events
    assert (event.binding, event.text) == (Binding.OPAQUE, "root:uuid")


def test_what_was_escaped_or_cut_for_the_log_is_only_claimed() -> None:
    for text in ("file-system:a\\x20b", "x" * 1024 + "..."):
        (made,) = systemd.parse(record({"pcr": 15}, {"sha256": "5a" * 32}, {"eventType": "filesystem", "string": text}))
        assert made.binding is Binding.OPAQUE


def test_registers_in_nv_indices_are_apart_from_pcrs() -> None:
    text = "product-id:" + "ab" * 16
    content = {"nvIndexName": "hardware", "eventType": "product-id", "string": text}
    value = hashlib.sha256(text.encode()).hexdigest()
    (event,) = read(record({"nv_index": 0x1D10200}, {"sha256": value}, content)).events
    assert event.register == Register(RegisterKind.NV, 0x1D10200)
    assert (event.text, event.binding) == (f"hardware: {text}", Binding.CONTENT)


def test_a_record_without_type_and_string_is_kept() -> None:
    (event,) = read(record(ELEVEN, {"sha256": "5a" * 32}, {})).events
    assert (event.kind, event.text, event.binding) == ("systemd", "", Binding.OPAQUE)


def test_text_is_shown_on_one_line() -> None:
    (event,) = read(record(ELEVEN, {"sha256": "5a" * 32}, {"string": "a\nb"})).events
    assert event.text == "a\\nb"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"x" + GOOD, Code.NOT_JSON),
        (GOOD[1:], Code.NOT_JSON),
        (GOOD[:-1], Code.TRUNCATED),
        (GOOD + b"\x1e", Code.TRUNCATED),
        (b"\x1e\n", Code.NOT_JSON),
        (wrapped([]), Code.FIELD_TYPE),
        (wrapped({}), Code.FIELD_MISSING),
        (GOOD.replace(b'"pcr": 11', b'"pcr": 11, "pcr": 11'), Code.DUPLICATE_KEY),
        (record({"pcr": 11, "nv_index": 1}, {"sha256": READY}, PHASE), Code.FIELD_MISSING),
        (record({"pcr": 24}, {"sha256": READY}, PHASE), Code.FIELD_RANGE),
        (record({"pcr": -1}, {"sha256": READY}, PHASE), Code.FIELD_RANGE),
        (record({"pcr": True}, {"sha256": READY}, PHASE), Code.FIELD_TYPE),
        (record({"nv_index": 2**32}, {"sha256": READY}, PHASE), Code.FIELD_RANGE),
        (record(ELEVEN, {}, PHASE), Code.FIELD_RANGE),
        (record(ELEVEN, {"md5": "00" * 16}, PHASE), Code.FIELD_RANGE),
        (record(ELEVEN, {"sha256": "00"}, PHASE), Code.FIELD_RANGE),
        (record(ELEVEN, {"sha256": READY.upper()}, PHASE), Code.NOT_HEX),
        (record(ELEVEN, {"sha256": READY}, PHASE, recnum=1), Code.FIELD_UNKNOWN),
        (record(ELEVEN, {"sha256": READY}, PHASE, content_type="ima"), Code.VERSION_UNSUPPORTED),
        (record(ELEVEN, {"sha256": READY}, PHASE, digests={}), Code.FIELD_TYPE),
        (record(ELEVEN, {"sha256": READY}, PHASE, digests=[{"hashAlg": "sha256"}]), Code.FIELD_MISSING),
        (record(ELEVEN, {"sha256": READY}, PHASE, content=[]), Code.FIELD_TYPE),
        (record(ELEVEN, {"sha256": READY}, {"eventType": 1}), Code.FIELD_TYPE),
        (
            record(
                ELEVEN,
                {},
                PHASE,
                digests=[{"hashAlg": "sha256", "digest": READY}, {"hashAlg": "sha256", "digest": READY}],
            ),
            Code.FIELD_RANGE,
        ),
        (b"\x1e\xff\n", Code.NOT_UTF8),
        (bytes(limits.EVENT_LOG_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_refusals(data: bytes, code: Code) -> None:
    assert refused(data) is code


@pytest.mark.parametrize("kind", sorted(systemd.HASHED))
def test_a_string_that_is_not_what_was_measured_is_refused(kind: str) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        systemd.parse(GOOD + record(ELEVEN, {"sha256": READY}, {"eventType": kind, "string": "sysinit"}))
    assert (caught.value.code, caught.value.where) == (Code.LOG_DIGEST, "log[1]")


def test_the_number_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_LOG_EVENTS_MAX", 1)
    assert len(systemd.parse(GOOD)) == 1
    assert refused(GOOD + GOOD) is Code.TOO_LARGE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["pcr", "nv_index", "digests", "content_type", "content"]),
        JSON | st.sampled_from([11, "systemd", [{"hashAlg": "sha256", "digest": READY}], PHASE]),
    ).map(wrapped)
)
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        log = systemd.to_log(systemd.parse(data))
    except MalformedEvidence:
        return
    assert all(event.text.isprintable() for event in log.events)


@given(st.integers(0, 8 * len(GOOD) - 1))
def test_a_flipped_bit_is_refused_or_changes_nothing_that_was_extended(bit: int) -> None:
    flipped = bytearray(GOOD)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        (made,) = systemd.parse(bytes(flipped))
    except MalformedEvidence:
        return
    (honest,) = systemd.parse(GOOD)
    if (made.register, made.digests) == (honest.register, honest.digests):
        assert made.binding is not Binding.CONTENT or made.text == honest.text
