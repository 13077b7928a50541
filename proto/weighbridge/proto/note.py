"""Signed notes (C2SP signed-note v1.0.0) with Ed25519, signature type 0x01, and nothing else of them.

A note is a text, a blank line, and signature lines. Its text must be ignored until a signature by a known key has
been verified: :func:`parse` therefore gives a :class:`Note` whose text is named ``claimed_text``, and only
:func:`verify` gives a :class:`VerifiedNote`. Signatures by other keys (witnesses, later) are carried and ignored, as
the specification demands.

Key names are narrowed to printable ASCII without space and plus: the specification allows Unicode.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from weighbridge.proto import limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic

__all__ = [
    "Note",
    "NoteKey",
    "NoteSignature",
    "VerifiedNote",
    "encode_vkey",
    "is_key_name",
    "key_id",
    "parse",
    "parse_vkey",
    "read_vkey",
    "sign",
    "verify",
]

_CLAUSE: Final = "C2SP signed-note@v1.0.0"
_ED25519: Final = b"\x01"
_KEY_ID_SIZE: Final = 4
_PUBLIC_SIZE: Final = 32
_SIGNATURE_SIZE: Final = 64
# Verifiers must accept at least 16 signatures; there is one log and there are few witnesses.
_SIGNATURES_MAX: Final = 32
_NAME: Final = re.compile(r"[!-*,-~]{1,255}")
_VKEY: Final = re.compile(r"([!-*,-~]{1,255})\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,64})")
_LINE: Final = re.compile(r"\u2014 ([!-*,-~]{1,255}) ([A-Za-z0-9+/=]+)")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")

# What the first byte of a key says that it is, of those that are known here (signed-note, "Signature types").
_KINDS: Final = {b"\x01": "a ledger's key", b"\x04": "a witness's key"}

_SEAL: Final = object()


def is_key_name(name: str) -> bool:
    """Whether ``name`` can name a key here: 1 to 255 printable ASCII characters, none of them space or plus."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class NoteKey:
    """The public half of a note key: its name and 32 bytes of Ed25519 key. Says nothing of trust."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise ValueError(f"not a key name: {self.name!r}")
        if len(self.public) != _PUBLIC_SIZE:
            raise ValueError("an Ed25519 public key has 32 bytes")

    @classmethod
    def from_spki(cls, name: str, spki: bytes) -> NoteKey:
        """The key whose SubjectPublicKeyInfo in DER is ``spki``, as trust anchors carry it.

        Raises:
            MalformedEvidence: ``KEY_MALFORMED`` or ``KEY_UNSUPPORTED``.
            ValueError: when ``name`` is not a key name.
        """
        try:
            key = load_der_public_key(spki)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise MalformedEvidence(Code.KEY_MALFORMED, f"not a public key: {error}", where=name) from error
        if not isinstance(key, Ed25519PublicKey):
            raise MalformedEvidence(Code.KEY_UNSUPPORTED, "ledger key is not Ed25519", where=name)
        return cls(name, key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo in DER, as trust anchors carry it."""
        public = Ed25519PublicKey.from_public_bytes(self.public)
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || 0x01 || public)[:4]: a hint, not a commitment."""
        return key_id(self.name, self.public, kind=_ED25519)

    @property
    def vkey(self) -> str:
        """``name+keyid+base64(0x01 || public)``, the text form that other tools take."""
        return encode_vkey(self.name, self.public, kind=_ED25519)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, unverified."""

    claimed_name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> bytes:
        """The line, newline included."""
        return f"\u2014 {self.claimed_name} {strict.base64_encode(self.key_id + self.signature)}\n".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A well-formed note. Its text is not to be used before :func:`verify`."""

    raw: bytes
    claimed_text: bytes
    signatures: tuple[NoteSignature, ...]


@final
class VerifiedNote:
    """A text that ``key`` signed. Made by :func:`verify` only; the seal guards against mistakes, not hostile code."""

    __slots__ = ("key", "raw", "text")

    def __init__(self, seal: object, *, raw: bytes, text: bytes, key: NoteKey) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedNote is made by note.verify")
        self.raw: Final = raw
        self.text: Final = text
        self.key: Final = key

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedNote does not travel: verify again")


def parse_vkey(text: str) -> NoteKey:
    """The ledger's key that ``text`` spells as ``name+keyid+base64``.

    Raises:
        MalformedEvidence: as :func:`read_vkey`.
    """
    return NoteKey(*read_vkey(text, kind=_ED25519))


def key_id(name: str, public: bytes, *, kind: bytes) -> bytes:
    """SHA-256(name || 0x0A || kind || public)[:4], of a key of the signature type ``kind``."""
    return sha256(name.encode() + b"\n" + kind + public)[:_KEY_ID_SIZE]


def encode_vkey(name: str, public: bytes, *, kind: bytes) -> str:
    """The line ``name+keyid+base64(kind || public)``."""
    return f"{name}+{key_id(name, public, kind=kind).hex()}+{strict.base64_encode(kind + public)}"


def read_vkey(text: str, *, kind: bytes) -> tuple[str, bytes]:
    """Name and 32 bytes of the Ed25519 key that ``text`` spells as :func:`encode_vkey` does.

    Args:
        text: untrusted.
        kind: the signature type, one byte: 0x01 for a ledger's key, 0x04 for a witness's.

    Raises:
        MalformedEvidence: ``KEY_MALFORMED``, ``NOT_BASE64``, or ``KEY_UNSUPPORTED``, also for a key of another type.
    """
    match = _VKEY.fullmatch(text)
    if match is None:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "not a key of the form name+keyid+base64", where="vkey", got=text[:60], clause=_CLAUSE
        )
    name, claimed_id, encoded = match.groups()
    value = strict.base64_decode(encoded, what="vkey")
    if value[:1] != kind or len(value) != 1 + _PUBLIC_SIZE:
        raise MalformedEvidence(
            Code.KEY_UNSUPPORTED,
            "a key of another kind",
            where="vkey",
            expected=_kind(kind),
            got=_kind(value[:1]) if len(value) == 1 + _PUBLIC_SIZE else f"a key of {len(value)} bytes",
            clause=_CLAUSE,
        )
    public = value[1:]
    expected = key_id(name, public, kind=kind)
    if expected.hex() != claimed_id:
        raise MalformedEvidence(
            Code.KEY_MALFORMED, "key id does not fit the key", where="vkey", expected=expected, got=claimed_id,
            clause=_CLAUSE,
        )  # fmt: skip
    return name, public


def _kind(kind: bytes) -> str:
    return _KINDS.get(kind, f"a key of type {kind.hex()}")


def sign(text: bytes, *, key: NoteKey, signer: Callable[[bytes], bytes]) -> bytes:
    """The note over ``text`` with one signature line.

    Args:
        text: UTF-8 that ends with a newline.
        key: names the signer.
        signer: given ``text``, returns the 64-byte Ed25519 signature; the private key stays with the caller.

    Raises:
        ValueError: when ``text`` cannot be a note's text or the signature has another length.
    """
    if not text.endswith(b"\n") or _CONTROL.search(text.decode()):
        raise ValueError("a note's text ends with a newline and has no other control characters")
    signature = signer(text)
    if len(signature) != _SIGNATURE_SIZE:
        raise ValueError("an Ed25519 signature has 64 bytes")
    return text + b"\n" + NoteSignature(key.name, key.key_id, signature).encode()


def parse(data: bytes) -> Note:
    """Take ``data`` apart; no signature is checked.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_UTF8``, ``NOT_BASE64`` or ``LEDGER_MALFORMED``.
    """
    if len(data) > limits.CHECKPOINT_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "note is too large", where="note", expected=f"<= {limits.CHECKPOINT_MAX}", got=len(data)
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise MalformedEvidence(
            Code.NOT_UTF8, f"note is not UTF-8: {error.reason}", where=f"note[{error.start}]", clause=_CLAUSE
        ) from error
    if control := _CONTROL.search(text):
        raise _malformed("note contains a control character", where=f"note[{control.start()}]")
    body, blank, tail = text.rpartition("\n\n")
    if not text.endswith("\n"):
        raise _malformed("note ends within a line: it is cut short, or none", where=f"note[{len(data)}]")
    if not blank or not body or not tail:
        raise _malformed("note is not a text, a blank line and signature lines, or ends before these", where="note")
    lines = tail[:-1].split("\n")
    if len(lines) > _SIGNATURES_MAX:
        raise _malformed("too many signatures", where="note.signatures")
    signatures = tuple(_signature(line, number) for number, line in enumerate(lines))
    return Note(raw=data, claimed_text=f"{body}\n".encode(), signatures=signatures)


def verify(note: Note, key: NoteKey) -> VerifiedNote:
    """The note, now known to be signed by ``key``. Signatures by other keys are ignored, good or bad.

    Raises:
        NotAuthentic: ``LEDGER_SIGNATURE`` when no line is by ``key`` or any line by ``key`` does not verify.
    """
    ours = [line for line in note.signatures if line.claimed_name == key.name and line.key_id == key.key_id]
    if not ours:
        raise NotAuthentic(
            Code.LEDGER_SIGNATURE, "note is not signed by the expected key", where="note.signatures", expected=key.vkey,
            got=", ".join(f"{line.claimed_name}+{line.key_id.hex()}" for line in note.signatures), clause=_CLAUSE,
        )  # fmt: skip
    try:
        public = Ed25519PublicKey.from_public_bytes(key.public)
        for line in ours:
            public.verify(line.signature, note.claimed_text)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic(
            Code.LEDGER_SIGNATURE,
            "note signature does not verify",
            where="note.signatures",
            expected=key.vkey,
            clause=_CLAUSE,
        ) from error
    return VerifiedNote(_SEAL, raw=note.raw, text=note.claimed_text, key=key)


def _signature(line: str, number: int) -> NoteSignature:
    where = f"note.signatures[{number}]"
    match = _LINE.fullmatch(line)
    if match is None:
        raise _malformed("not a signature line", where=where)
    value = strict.base64_decode(match.group(2), what=where)
    if len(value) <= _KEY_ID_SIZE:
        raise _malformed("signature is too short", where=where)
    return NoteSignature(claimed_name=match.group(1), key_id=value[:_KEY_ID_SIZE], signature=value[_KEY_ID_SIZE:])


def _malformed(message: str, *, where: str) -> MalformedEvidence:
    return MalformedEvidence(Code.LEDGER_MALFORMED, message, where=where, clause=_CLAUSE)
