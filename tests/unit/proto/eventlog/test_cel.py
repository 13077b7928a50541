"""CEL TLV: other people's dialects, what each content's digests cover, and our own log through it and back."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog_support import (
    NO_ACTION,
    SEPARATOR,
    SHA1,
    SHA256,
    SHA384,
    Banks,
    boot_event,
    boot_log,
    cel_record,
    extended,
    ima_data,
    tlv,
)
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.eventlog import (
    Binding,
    EventLog,
    Format,
    Register,
    RegisterKind,
    cel,
    detect,
    read,
    records,
    replay,
)
from weighbridge.proto.measurement_log import (
    AttesterStart,
    Event,
    ModelLoad,
    ModelUnload,
    encode_records,
    head,
    make_record,
    parse_records,
)
from weighbridge.proto.tpm.constants import HashAlgorithm, digest

COS = tlv(80, tlv(0, b"registry.example/image:latest"))
CCMR = tlv(108, b"\4")
ZERO = bytes(32)


def cos(recnum: int, *, register: bytes = tlv(1, b"\x0e"), banks: Banks = (SHA256,), recnum_size: int = 8) -> bytes:
    return cel_record(recnum, COS, COS, register=register, banks=banks, recnum_size=recnum_size)


def standard(recnum: int, event_type: int, data: bytes, hashed: bytes | None = None, *, pcr: int = 0) -> bytes:
    content = tlv(5, tlv(0, event_type.to_bytes(4, "big")) + tlv(1, data))
    return cel_record(recnum, content, data if hashed is None else hashed, register=tlv(1, bytes([pcr])))


def refused(data: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        read(data, Format.CEL)
    return caught.value.code


def outcome(data: bytes) -> Code | int:
    """The code of the refusal, or how many records were read."""
    try:
        return len(cel.parse(data))
    except MalformedEvidence as error:
        return error.code


def replayed(log: EventLog) -> dict[Register, bytes]:
    return replay(log, SHA256)


def test_confidential_space_hashes_the_whole_content() -> None:
    log = read(cos(0, register=CCMR, banks=(SHA384,)) + cos(1, register=CCMR, banks=(SHA384,)))
    assert (log.format, log.banks, log.registers) == (Format.CEL, (SHA384,), (Register(RegisterKind.CCMR, 4),))
    assert log.events[0].kind == "cos.image_reference"
    assert log.events[0].text == "registry.example/image:latest"
    value = hashlib.sha384(COS).digest()
    assert replay(log, SHA384) == {
        Register(RegisterKind.CCMR, 4): extended(bytes(48), value, value, bank=SHA384),
    }


def test_implementations_differ_in_lengths_and_order() -> None:
    plain = cos(0) + cos(1)
    other = cos(0, recnum_size=1, register=tlv(1, b"\0\0\0\x0e")) + cos(1, recnum_size=4)
    assert replayed(read(other)) == replayed(read(plain))
    digests = [(bank, digest(bank, COS)) for bank in (SHA384, SHA256, SHA1)]
    mixed = tlv(0, b"\0") + tlv(1, b"\x0e") + tlv(3, b"".join(tlv(*pair) for pair in digests)) + COS
    (record,) = cel.parse(mixed)
    assert record.digests == tuple(sorted(digests))
    assert record.raw == mixed
    # Written in one form, whatever was read.
    assert cel.encode_record(0, record.register, record.digests, record.content_type, record.content) == cos(
        0, banks=(SHA1, SHA256, SHA384)
    )


def test_bookkeeping_extends_nothing() -> None:
    log = read(cel_record(0, tlv(4, tlv(80, b"\1\2")), b"") + cos(1) + cel_record(2, tlv(4, tlv(9, b"")), b""))
    assert [event.kind for event in log.events] == ["cel.timestamp", "cos.image_reference", "cel.9"]
    assert log.events[0].binding is Binding.NONE
    assert replayed(log) == {Register.pcr(14): extended(ZERO, digest(SHA256, COS))}


def test_firmware_events_follow_firmwares_rules() -> None:
    startup = b"StartupLocality\0\3"
    log = read(
        standard(0, NO_ACTION, startup)
        + standard(1, SEPARATOR, b"\0\0\0\0")
        + standard(2, 0xD, b"claimed", b"image", pcr=4)
    )
    same = read(
        boot_log(
            boot_event(0, NO_ACTION, startup),
            boot_event(0, SEPARATOR, b"\0\0\0\0"),
            boot_event(4, 0xD, b"claimed", digests=[(SHA256, digest(SHA256, b"image"))]),
        )
    )
    assert log.locality == 3
    assert replayed(log) == replayed(same)
    assert [(e.binding, e.kind, e.text) for e in log.events] == [(e.binding, e.kind, e.text) for e in same.events]
    assert refused(standard(0, SEPARATOR, b"\0\0\0\0", b"else")) is Code.LOG_DIGEST
    assert refused(standard(0, NO_ACTION, startup) * 2) is Code.LOG_EVENT


def test_ima_entries_cover_the_template_data() -> None:
    data = ima_data(b"/x", bytes(range(32)))
    log = read(cel_record(0, tlv(7, tlv(0, b"ima-ng") + tlv(1, data)), data, register=tlv(1, b"\x0a")))
    assert (log.events[0].kind, log.events[0].text) == ("ima-ng", f"/x sha256:{bytes(range(32)).hex()}")
    assert replayed(log) == {Register.pcr(10): extended(ZERO, digest(SHA256, data))}


@pytest.mark.parametrize("kind", [8, 9, 200])
def test_contents_that_are_not_known_are_kept_and_not_believed(kind: int) -> None:
    log = read(cel_record(0, tlv(kind, b"whatever"), b"something else"))
    assert (log.events[0].binding, log.events[0].kind) == (Binding.OPAQUE, f"content {kind}")
    assert replayed(log) == {Register.pcr(14): extended(ZERO, digest(SHA256, b"something else"))}


def test_a_bank_that_is_not_ours_is_not_compared() -> None:
    foreign = tlv(0, b"\0") + tlv(1, b"\x0e") + tlv(3, tlv(0x12, b"?" * 32)) + COS
    log = read(foreign)
    assert (log.events[0].binding, log.banks) == (Binding.OPAQUE, ())
    with pytest.raises(NotAuthentic) as caught:
        replayed(log)
    assert caught.value.code is Code.LOG_REPLAY


def test_nv_indices_are_registers_too() -> None:
    register = Register(RegisterKind.NV, 0x01D10200)
    log = read(cos(0, register=tlv(2, bytes.fromhex("01d10200"))))
    assert log.registers == (register,)
    assert str(register) == "NV 0x01d10200"
    assert cel.encode_record(0, register, [(SHA256, digest(SHA256, COS))], 80, COS[5:]) == cos(
        0, register=tlv(2, bytes.fromhex("01d10200"))
    )


@pytest.mark.parametrize("numbers", [(1,), (0, 2), (0, 0), (1, 0)])
def test_a_gap_is_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(NotAuthentic) as caught:
        replayed(read(b"".join(map(cos, numbers))))
    assert caught.value.code is Code.LOG_GAP


def body(
    register: bytes = tlv(1, b"\x0e"), digests: bytes = tlv(SHA256, digest(SHA256, COS)), content: bytes = COS
) -> bytes:
    return tlv(0, b"\0") + register + tlv(3, digests) + content


GOOD = tlv(SHA256, digest(SHA256, COS))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (tlv(1, b"\0"), Code.FIELD_TYPE),
        (tlv(0, b""), Code.FIELD_RANGE),
        (tlv(0, bytes(9)), Code.FIELD_RANGE),
        (body(register=tlv(4, b"\0")), Code.FIELD_TYPE),
        (body(register=tlv(1, bytes(5))), Code.FIELD_RANGE),
        (body(register=tlv(1, b"\x18")), Code.FIELD_RANGE),
        (body(register=tlv(108, b"\5")), Code.FIELD_RANGE),
        (tlv(0, b"\0") + tlv(1, b"\x0e") + tlv(4, b""), Code.FIELD_TYPE),
        (body(digests=b""), Code.FIELD_MISSING),
        (body(digests=GOOD + GOOD), Code.DUPLICATE_KEY),
        (body(digests=tlv(SHA256, bytes(31))), Code.FIELD_RANGE),
        (body(digests=tlv(0x12, b"")), Code.FIELD_RANGE),
        (body(digests=tlv(0x12, bytes(65))), Code.FIELD_RANGE),
        (body(digests=b"".join(tlv(bank, b"?") for bank in range(100, 117))), Code.TRAILING_BYTES),
        (body(digests=GOOD + b"\x0c"), Code.TRUNCATED),
        (body(digests=tlv(SHA256, bytes(32))), Code.LOG_DIGEST),
        (body(content=b"")[:-1], Code.TRUNCATED),
        (body(content=tlv(0, b"\1")), Code.FIELD_TYPE),
        (body(content=tlv(3, b"")), Code.FIELD_TYPE),
        (body(content=tlv(108, b"\4")), Code.FIELD_TYPE),
        (body(content=tlv(80, b"")), Code.TRUNCATED),
        (body(content=tlv(80, tlv(0, b"") + b"\0")), Code.TRAILING_BYTES),
        (body(content=tlv(4, tlv(1, b"") + b"\0")), Code.TRAILING_BYTES),
        (body(content=tlv(5, tlv(1, b"") + tlv(0, b""))), Code.FIELD_TYPE),
        (body(content=tlv(5, tlv(0, b"") + tlv(1, b""))), Code.FIELD_RANGE),
        (body(content=tlv(5, tlv(0, bytes(5)) + tlv(1, b""))), Code.FIELD_RANGE),
        (body(content=tlv(5, tlv(0, b"\4") + tlv(1, b"") + b"\0")), Code.TRAILING_BYTES),
        (body(content=tlv(7, tlv(0, b"none") + tlv(1, b""))), Code.VERSION_UNSUPPORTED),
        (body() + b"\0", Code.TRUNCATED),
        (bytes(limits.EVENT_LOG_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_refusals(data: bytes, code: Code) -> None:
    assert refused(data) is code


def test_the_number_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_LOG_EVENTS_MAX", 1)
    assert refused(cos(0) + cos(1)) is Code.TOO_LARGE


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    for candidate in (data, tlv(0, b"\0") + tlv(1, b"\1") + data, body(content=data)):
        try:
            log = read(candidate, Format.CEL)
        except MalformedEvidence:
            continue
        assert all(event.text.isprintable() for event in log.events)


# Our own records.

names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(ModelLoad, manifest=st.binary(min_size=32, max_size=32), name=names),
    st.builds(ModelUnload, load=st.integers(0, 2**32)),
    st.builds(AttesterStart, version=names, start_id=st.binary(min_size=16, max_size=16)),
)
banks = st.sets(st.sampled_from(list(HashAlgorithm))).map(lambda chosen: {*chosen, SHA256})
EVENTS: list[Event] = [AttesterStart("0.1.0", bytes(16)), ModelLoad(ZERO, "declared"), ModelUnload(1)]
OURS = tuple(make_record(event, recnum=number, pcr=15, algs=(SHA256, SHA384)) for number, event in enumerate(EVENTS))


@given(st.lists(events, max_size=5), banks, st.integers(0, 23))
def test_what_is_exported_comes_back_byte_for_byte(chosen: list[Event], algs: set[HashAlgorithm], pcr: int) -> None:
    log = tuple(make_record(event, recnum=number, pcr=pcr, algs=algs) for number, event in enumerate(chosen))
    exported = records.to_cel(log)
    imported = records.from_cel(cel.parse(exported))
    assert imported == log
    assert head(imported) == head(log)
    assert records.to_cel(imported) == exported
    assert parse_records(encode_records(imported)) == log


def test_both_encodings_lead_to_the_same_values() -> None:
    in_cbor, in_tlv = read(encode_records(OURS)), read(records.to_cel(OURS))
    assert (in_cbor.format, in_tlv.format) == (Format.WEIGHBRIDGE, Format.CEL)
    assert in_cbor.events == in_tlv.events
    assert [event.kind for event in in_cbor.events] == ["attester.start", "model.load", "model.unload"]
    assert "name=declared" in in_cbor.events[1].text
    for bank in (SHA256, SHA384):
        assert replay(in_cbor, bank) == replay(in_tlv, bank)
        values = [dict(record.digests)[bank] for record in OURS]
        assert replay(in_cbor, bank) == {Register.pcr(15): extended(bytes(len(values[0])), *values, bank=bank)}


def test_the_digest_covers_the_content_exactly_as_in_the_cbor_record() -> None:
    exported = cel.parse(records.to_cel(OURS))
    for record, ours in zip(exported, OURS, strict=True):
        assert record.content in ours.raw
        assert dict(record.digests)[SHA256] == hashlib.sha256(record.content).digest()


@given(st.integers(0, 8 * len(records.to_cel(OURS)) - 1))
def test_a_flipped_bit_of_an_export_is_refused_or_changes_the_replay(bit: int) -> None:
    flipped = bytearray(records.to_cel(OURS))
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        log = read(bytes(flipped), Format.CEL)
        values = replayed(log)
    except (MalformedEvidence, NotAuthentic):
        return
    # The content's type is not hashed: another one makes it somebody else's record, whose content is only claimed.
    foreign = any(event.binding is Binding.OPAQUE for event in log.events)
    assert foreign or values != replayed(read(records.to_cel(OURS)))


@given(st.integers(0, len(records.to_cel(OURS)) - 1))
def test_an_export_cut_anywhere_is_shorter_or_refused(size: int) -> None:
    assert outcome(records.to_cel(OURS)[:size]) in {Code.TRUNCATED, *range(len(OURS))}


def test_somebody_elses_record_is_not_imported() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        records.from_cel(cel.parse(records.to_cel(OURS) + cos(3)))
    assert (caught.value.code, caught.value.where) == (Code.FIELD_TYPE, "log[3]")
    exported = records.to_cel(OURS).replace(tlv(1, b"\x0f"), tlv(2, b"\x0f"))
    with pytest.raises(MalformedEvidence) as caught:
        records.from_cel(cel.parse(exported))
    assert caught.value.code is Code.FIELD_TYPE
    mixed = read(records.to_cel(OURS) + cos(3))
    assert [event.kind for event in mixed.events] == ["weighbridge"] * 3 + ["cos.image_reference"]


def test_no_more_is_imported_than_a_log_of_ours_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_RECORDS_MAX", 2)
    with pytest.raises(MalformedEvidence) as caught:
        records.from_cel(cel.parse(records.to_cel(OURS)))
    assert caught.value.code is Code.TOO_LARGE


def test_content_of_ours_must_be_an_event_of_ours() -> None:
    assert refused(cel_record(0, tlv(87, b"\x01"), b"\x01")) is Code.FIELD_TYPE


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (encode_records(OURS), Format.WEIGHBRIDGE),
        (b"\x80", Format.WEIGHBRIDGE),
        (cos(0), Format.CEL),
        (cos(0, recnum_size=3, register=CCMR), Format.CEL),
        (boot_log(), Format.TCG2),
    ],
)
def test_a_log_is_known_by_how_it_begins(data: bytes, form: Format) -> None:
    assert detect(data) is form


@pytest.mark.parametrize("data", [b"", b"\0", bytes(32), b"10 919d66", b'{"pcr":11}', b"\xff" * 40])
def test_what_begins_like_none_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        detect(data)
    assert caught.value.code is Code.VERSION_UNSUPPORTED


@given(st.binary(max_size=64))
def test_reading_any_bytes_is_total(data: bytes) -> None:
    try:
        read(data)
    except MalformedEvidence:
        return
