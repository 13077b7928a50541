"""Signed notes: what is accepted, and that nothing else is."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import note, strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = note.NoteKey("ledger.example/windows", PRIVATE.public_key().public_bytes_raw())
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
TEXT = b"ledger.example/windows\n3\nAAAA\n"
GOOD = note.sign(TEXT, key=KEY, signer=PRIVATE.sign)


def test_the_note_of_the_specification() -> None:
    """The example of C2SP signed-note@v1.0.0 has the text that it says, an empty line in it included."""
    data = (
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
        "\u2014 quasimodo.example/salvatore "
        "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
    ).encode()
    parsed = note.parse(data)
    assert parsed.claimed_text.decode().endswith("sole:\n\ned è subito sera.\n")
    assert [line.claimed_name for line in parsed.signatures] == ["quasimodo.example/salvatore"]
    assert len(parsed.signatures[0].signature) == 64


def test_sign_and_verify() -> None:
    verified = note.verify(note.parse(GOOD), KEY)
    assert (verified.text, verified.raw, verified.key) == (TEXT, GOOD, KEY)


def test_signatures_of_strangers_are_ignored() -> None:
    """Witnesses may add theirs, of types that we do not know."""
    stranger = "\u2014 witness.example " + strict.base64_encode(b"abcd" + bytes(72)) + "\n"
    same_name = f"\u2014 {KEY.name} " + strict.base64_encode(b"abcd" + bytes(64)) + "\n"
    for extra in (stranger, same_name):
        assert note.verify(note.parse(GOOD + extra.encode()), KEY).text == TEXT


def test_key_text() -> None:
    assert note.parse_vkey(KEY.vkey) == KEY
    spki = PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert note.NoteKey.from_spki(KEY.name, spki) == KEY


def test_key_id_is_that_of_go() -> None:
    """Key of the Go checksum database, whose vkey is published in Go's source."""
    vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    assert note.parse_vkey(vkey).vkey == vkey


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_one_flipped_bit_is_refused(bit: int) -> None:
    changed = bytearray(GOOD)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WeighbridgeError):
        note.verify(note.parse(bytes(changed)), KEY)


@given(st.binary(max_size=300) | st.binary(max_size=80).map(lambda tail: GOOD + tail) | st.text().map(str.encode))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert note.parse(data).raw == data


@given(st.text(max_size=120) | st.text(max_size=4).map(lambda tail: KEY.vkey + tail))
def test_any_text_is_a_key_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert note.parse_vkey(text).vkey == text


SIGNATURE = GOOD[len(TEXT) + 1 :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.LEDGER_MALFORMED),
        (TEXT, Code.LEDGER_MALFORMED),
        (TEXT + b"\n", Code.LEDGER_MALFORMED),
        (b"\n\n" + SIGNATURE, Code.LEDGER_MALFORMED),
        (GOOD[:-1], Code.LEDGER_MALFORMED),
        (GOOD.replace(b"\n3\n", b"\r\n3\n"), Code.LEDGER_MALFORMED),
        (GOOD + b"junk\n", Code.LEDGER_MALFORMED),
        (GOOD.replace("\u2014".encode(), b"--"), Code.LEDGER_MALFORMED),
        (TEXT + b"\n" + SIGNATURE * 33, Code.LEDGER_MALFORMED),
        (TEXT + "\n\u2014 a AAAA\n".encode(), Code.LEDGER_MALFORMED),
        (TEXT + "\n\u2014 a AAAAA\n".encode(), Code.NOT_BASE64),
        (b"\xff" + GOOD, Code.NOT_UTF8),
        (b"a" * 65_537, Code.TOO_LARGE),
    ],
)
def test_malformed(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        note.parse(data)
    assert caught.value.code is code


def test_not_signed_by_the_key() -> None:
    wrong_signature = note.sign(TEXT, key=KEY, signer=OTHER.sign)
    other_key = note.NoteKey(KEY.name, OTHER.public_key().public_bytes_raw())
    other_name = note.NoteKey("ledger.example/other", KEY.public)
    good_and_bad = GOOD + wrong_signature[len(TEXT) + 1 :]
    for data, key in (
        (wrong_signature, KEY),
        (GOOD, other_key),
        (GOOD, other_name),
        (good_and_bad, KEY),
        (note.sign(TEXT, key=KEY, signer=lambda _: bytes(64)), KEY),
        (GOOD.replace(SIGNATURE, f"\u2014 {KEY.name} {strict.base64_encode(KEY.key_id + bytes(8))}\n".encode()), KEY),
    ):
        with pytest.raises(NotAuthentic) as caught:
            note.verify(note.parse(data), key)
        assert caught.value.code is Code.LEDGER_SIGNATURE


@pytest.mark.parametrize(
    ("vkey", "code"),
    [
        ("ledger.example", Code.KEY_MALFORMED),
        (KEY.vkey.upper(), Code.KEY_MALFORMED),
        (KEY.vkey.replace("ledger", "lodger"), Code.KEY_MALFORMED),
        (f"{KEY.name}+00000000+{strict.base64_encode(bytes([1]) + KEY.public)}", Code.KEY_MALFORMED),
        (f"{KEY.name}+00000000+{strict.base64_encode(bytes([4]) + KEY.public)}", Code.KEY_UNSUPPORTED),
        (f"{KEY.name}+00000000+{strict.base64_encode(bytes([1]) + KEY.public[:31])}", Code.KEY_UNSUPPORTED),
        (f"{KEY.name}+00000000+AAAAA", Code.NOT_BASE64),
        (KEY.vkey + "\n", Code.KEY_MALFORMED),
    ],
)
def test_malformed_keys(vkey: str, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        note.parse_vkey(vkey)
    assert caught.value.code is code


def test_spki_of_another_kind() -> None:
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
    for spki, code in (
        (p256.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), Code.KEY_UNSUPPORTED),
        (b"junk", Code.KEY_MALFORMED),
    ):
        with pytest.raises(MalformedEvidence) as caught:
            note.NoteKey.from_spki("a", spki)
        assert caught.value.code is code


def test_misuse() -> None:
    for wrong in (
        lambda: note.NoteKey("with space", KEY.public),
        lambda: note.NoteKey("a", b"short"),
        lambda: note.sign(b"no newline", key=KEY, signer=PRIVATE.sign),
        lambda: note.sign(b"tab\t\n", key=KEY, signer=PRIVATE.sign),
        lambda: note.sign(TEXT, key=KEY, signer=lambda _: b"short"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is not the contract
            wrong()


def test_the_seal() -> None:
    with pytest.raises(TypeError):
        note.VerifiedNote(object(), raw=b"", text=b"", key=KEY)
    with pytest.raises(TypeError):
        pickle.dumps(note.verify(note.parse(GOOD), KEY))
