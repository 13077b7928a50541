"""Witnesses' cosignatures: what is accepted, and that nothing else is."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import cosignature, note, strict
from weighbridge.proto.cosignature import WitnessKey
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError

LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG_KEY = note.NoteKey("ledger.example/windows", LOG.public_key().public_bytes_raw())
TEXT = b"ledger.example/windows\n3\nAAAA\n"
SIGNED = note.sign(TEXT, key=LOG_KEY, signer=LOG.sign)
FIRST = Ed25519PrivateKey.from_private_bytes(bytes(32))
SECOND = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
W1 = WitnessKey("witness.example/w1", FIRST.public_key().public_bytes_raw())
W2 = WitnessKey("witness.example/w2", SECOND.public_key().public_bytes_raw())
AT = 1_679_315_147


def line(*, text: bytes = TEXT, time: int = AT) -> bytes:
    return cosignature.sign(text, key=W1, time=time, signer=FIRST.sign)


def second() -> bytes:
    return cosignature.sign(TEXT, key=W2, time=AT, signer=SECOND.sign)


def test_the_message_is_that_of_the_specification() -> None:
    """The example of C2SP tlog-cosignature, "Ed25519 signed message"."""
    text = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosignature.message(text, time=1679315147) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_the_line_of_the_specification_is_a_key_id_a_time_and_a_signature() -> None:
    data = (
        "\u2014 witness.example.com/w1 "
        "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    ).encode()
    (parsed,) = cosignature.parse_lines(data)
    assert (parsed.claimed_name, len(parsed.signature)) == ("witness.example.com/w1", 8 + 64)
    assert int.from_bytes(parsed.signature[:8], "big") == 1679315147


def test_sign_and_verify() -> None:
    signed = note.parse(SIGNED + line() + second())
    verified = cosignature.verify(signed, W1)
    assert (verified.key, verified.time, verified.text) == (W1, AT, TEXT)
    assert note.verify(signed, LOG_KEY).text == TEXT
    assert [item.key for item in cosignature.verify_all(signed, [W2, W1])] == [W2, W1]
    assert cosignature.verify_all(note.parse(SIGNED), [W1, W2]) == ()


def test_of_several_times_the_latest_counts() -> None:
    assert cosignature.verify(note.parse(SIGNED + line(time=AT + 5) + line()), W1).time == AT + 5


def test_keys() -> None:
    assert cosignature.parse_vkey(W1.vkey) == W1
    assert WitnessKey.from_spki(W1.name, W1.spki) == W1
    # The same key as a log's has another id: a log's signature is no cosignature, nor the other way round.
    assert note.NoteKey(W1.name, W1.public).key_id != W1.key_id


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (LOG_KEY.vkey, Code.KEY_UNSUPPORTED),
        (W1.vkey.replace(W1.key_id.hex(), "00000000"), Code.KEY_MALFORMED),
        ("witness.example", Code.KEY_MALFORMED),
        (f"w+00000000+{strict.base64_encode(bytes([6]) * 33)}", Code.KEY_UNSUPPORTED),
    ],
)
def test_refused_keys(text: str, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        cosignature.parse_vkey(text)
    assert refusal.value.code is code


def test_a_key_of_the_other_kind_is_told_by_its_kind() -> None:
    for parse, text in ((cosignature.parse_vkey, LOG_KEY.vkey), (note.parse_vkey, W1.vkey)):
        with pytest.raises(MalformedEvidence) as refusal:
            parse(text)
        assert {refusal.value.expected, refusal.value.got} == {"a ledger's key", "a witness's key"}


def test_a_key_is_a_name_and_32_bytes() -> None:
    for name, public in (("two words", bytes(32)), ("w", bytes(31))):
        with pytest.raises(ValueError, match="key"):
            WitnessKey(name, public)


def test_a_time_is_one() -> None:
    assert b"time 253402300799\n" in cosignature.message(TEXT, time=253_402_300_799)
    for time in (-1, 253_402_300_800):
        with pytest.raises(ValueError, match="POSIX"):
            cosignature.message(TEXT, time=time)
    with pytest.raises(ValueError, match="64 bytes"):
        cosignature.sign(TEXT, key=W1, time=AT, signer=lambda data: data)


def forged(blob: bytes) -> bytes:
    return f"\u2014 {W1.name} {strict.base64_encode(W1.key_id + blob)}\n".encode()


@pytest.mark.parametrize(
    "bad",
    [
        line(text=TEXT.replace(b"3", b"4")),
        forged(bytes(72)),
        forged(bytes(71)),
        forged(b"\xff" * 8 + bytes(64)),
        forged((2**62).to_bytes(8, "big") + FIRST.sign(b"cosignature/v1\ntime %d\n" % (2**62) + TEXT)),
        forged(AT.to_bytes(8, "big") + LOG.sign(cosignature.message(TEXT, time=AT))),
        forged((AT + 1).to_bytes(8, "big") + FIRST.sign(cosignature.message(TEXT, time=AT))),
        forged(AT.to_bytes(8, "big") + FIRST.sign(TEXT)),
    ],
    ids=[
        "another text",
        "zeros",
        "short",
        "time too large",
        "after the year 9999",
        "another key",
        "another time",
        "without the header",
    ],
)
def test_a_line_that_does_not_verify_is_refused_beside_a_good_one(bad: bytes) -> None:
    for data in (bad, line() + bad):
        for attempt in (
            lambda data=data: cosignature.verify(note.parse(SIGNED + data), W1),
            lambda data=data: cosignature.verify_all(note.parse(SIGNED + data), [W1]),
            lambda data=data: cosignature.attach(SIGNED, data, keys=[W1]),
        ):
            refuse(attempt)


def refuse(attempt: Callable[[], object]) -> None:
    with pytest.raises(NotAuthentic) as refusal:
        attempt()
    assert refusal.value.code is Code.LEDGER_WITNESS


def test_a_witness_that_did_not_sign_is_missed() -> None:
    refuse(lambda: cosignature.verify(note.parse(SIGNED + second()), W1))


def test_attach() -> None:
    once = cosignature.attach(SIGNED, line(), keys=[W1, W2])
    assert once == SIGNED + line()
    both = cosignature.attach(once, second(), keys=[W1, W2])
    assert both == SIGNED + line() + second()
    # Later ones replace, earlier ones and the same do not pile up, strangers' are left out.
    later = cosignature.attach(both, line(time=AT + 9) + second(), keys=[W1])
    assert cosignature.verify(note.parse(later), W1).time == AT + 9
    assert len(note.parse(later).signatures) == 3
    assert cosignature.attach(later, line(), keys=[W1]).count(b"\n") == later.count(b"\n")
    assert cosignature.verify(note.parse(cosignature.attach(later, line(), keys=[W1])), W1).time == AT + 9
    refuse(lambda: cosignature.attach(SIGNED, second(), keys=[W1]))


def test_a_verified_cosignature_is_made_in_one_place() -> None:
    with pytest.raises(TypeError):
        cosignature.VerifiedCosignature(object(), key=W1, time=AT, text=TEXT)
    with pytest.raises(TypeError):
        pickle.dumps(cosignature.verify(note.parse(SIGNED + line()), W1))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.LEDGER_MALFORMED),
        (line() + b"\n" + line(), Code.LEDGER_MALFORMED),
        (line()[:-1], Code.LEDGER_MALFORMED),
        (b"x" * 70_000, Code.TOO_LARGE),
        (b"\xff\n", Code.NOT_UTF8),
    ],
)
def test_refused_lines(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        cosignature.parse_lines(data)
    assert refusal.value.code is code


@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=40).map(lambda tail: line() + tail)))
def test_parsing_raises_nothing_else(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        cosignature.parse_lines(data)


@given(text=st.text(max_size=120))
def test_parsing_a_key_raises_nothing_else(text: str) -> None:
    with contextlib.suppress(MalformedEvidence):
        cosignature.parse_vkey(text)


@given(at=st.integers(0, len(line()) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_line_is_refused(at: int, bit: int) -> None:
    data = bytearray(line())
    data[at] ^= 1 << bit
    with pytest.raises(WeighbridgeError):
        cosignature.verify(note.parse(SIGNED + bytes(data)), W1)
