"""Witnesses' signatures on checkpoints: C2SP tlog-cosignature with Ed25519, type 0x04, and nothing else of it.

A cosignature says that its witness saw, at the stated time, no larger tree of this log than the checkpoint's, and that
this tree had grown from every one that it saw before. It is one more signature line on the log's own note. The signed
message commits to the time and to the checkpoint, not to the witness's name: one key belongs to one witness.

ML-DSA-44 cosignatures (type 0x06) are carried and ignored like those of strangers: the logs here are signed with
Ed25519 themselves, so they would outlive nothing.

>>> WitnessKey("witness.example/w1", bytes(32)).key_id.hex()
'490ca8b1'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from weighbridge.proto import limits, note
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic

__all__ = [
    "VerifiedCosignature",
    "WitnessKey",
    "attach",
    "is_by",
    "message",
    "parse_lines",
    "parse_vkey",
    "sign",
    "verify",
    "verify_all",
]

_CLAUSE: Final = "C2SP tlog-cosignature"
_COSIGNATURE: Final = b"\x04"
_PUBLIC_SIZE: Final = 32
_TIME_SIZE: Final = 8
_SIGNATURE_SIZE: Final = 64
# The last second of the year 9999: what comes later is no date to whoever shows or compares it.
_TIME_MAX: Final = 253_402_300_799
_ANY_TEXT: Final = b"-\n"

_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The public half of a witness's key: its name and 32 bytes of Ed25519 key. Says nothing of trust."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not note.is_key_name(self.name):
            raise ValueError(f"not a key name: {self.name!r}")
        if len(self.public) != _PUBLIC_SIZE:
            raise ValueError("an Ed25519 public key has 32 bytes")

    @classmethod
    def from_spki(cls, name: str, spki: bytes) -> WitnessKey:
        """The key whose SubjectPublicKeyInfo in DER is ``spki``, as trust anchors carry it.

        Raises:
            MalformedEvidence: ``KEY_MALFORMED`` or ``KEY_UNSUPPORTED``.
            ValueError: when ``name`` is not a key name.
        """
        return cls(name, note.NoteKey.from_spki(name, spki).public)

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return Ed25519PublicKey.from_public_bytes(self.public).public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || 0x04 || public)[:4]: a hint, not a commitment."""
        return note.key_id(self.name, self.public, kind=_COSIGNATURE)

    @property
    def vkey(self) -> str:
        """``name+keyid+base64(0x04 || public)``, the text form that other tools take."""
        return note.encode_vkey(self.name, self.public, kind=_COSIGNATURE)


@final
class VerifiedCosignature:
    """A checkpoint's text that ``key`` cosigned at ``time``. Made by :func:`verify` only.

    Proves that the key's holder signed. Does not prove that it looked.

    Attributes:
        key: the witness.
        time: seconds since 1970, by the witness's clock.
        text: the note's text.
    """

    __slots__ = ("key", "text", "time")

    def __init__(self, seal: object, *, key: WitnessKey, time: int, text: bytes) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedCosignature is made by cosignature.verify")
        self.key: Final = key
        self.time: Final = time
        self.text: Final = text

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedCosignature does not travel: verify again")


def parse_vkey(text: str) -> WitnessKey:
    """The witness that ``text`` spells as ``name+keyid+base64``.

    Raises:
        MalformedEvidence: as :func:`.note.read_vkey`; ``KEY_UNSUPPORTED`` also for a log's key.
    """
    return WitnessKey(*note.read_vkey(text, kind=_COSIGNATURE))


def message(text: bytes, *, time: int) -> bytes:
    """What a witness signs: two lines, and the whole text of the note.

    Raises:
        ValueError: unless ``time`` is from 1970 to the end of the year 9999.
    """
    if not 0 <= time <= _TIME_MAX:
        raise ValueError(f"not a POSIX time: {time}")
    return b"cosignature/v1\ntime %d\n" % time + text


def sign(text: bytes, *, key: WitnessKey, time: int, signer: Callable[[bytes], bytes]) -> bytes:
    """The signature line, newline included, of ``key`` over the checkpoint whose note has ``text``.

    Args:
        text: of a checkpoint that the caller has verified, and found to have grown from all that it saw before.
        key: names the witness.
        time: seconds since 1970.
        signer: given the message, returns the 64-byte Ed25519 signature; the private key stays with the caller.

    Raises:
        ValueError: for a time that is none, or a signature of another length.
    """
    signature = signer(message(text, time=time))
    if len(signature) != _SIGNATURE_SIZE:
        raise ValueError("an Ed25519 signature has 64 bytes")
    return note.NoteSignature(key.name, key.key_id, time.to_bytes(_TIME_SIZE, "big") + signature).encode()


def is_by(line: note.NoteSignature, key: WitnessKey) -> bool:
    """Whether ``line`` claims to be by ``key``. Says nothing of whether it is."""
    return line.claimed_name == key.name and line.key_id == key.key_id


def verify(signed: note.Note, key: WitnessKey) -> VerifiedCosignature:
    """That ``key`` cosigned the text of ``signed``; of several times, the latest.

    Does not show that the log signed it: :func:`.tlog.open_checkpoint` does. Signatures by other keys are ignored.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS`` when no line is by ``key``, or any line by ``key`` does not verify.
    """
    lines = [line for line in signed.signatures if is_by(line, key)]
    if not lines:
        raise NotAuthentic(
            Code.LEDGER_WITNESS, "the witness has not cosigned this checkpoint", where="note.signatures",
            expected=key.vkey, clause=_CLAUSE,
            got=", ".join(f"{line.claimed_name}+{line.key_id.hex()}" for line in signed.signatures),
        )  # fmt: skip
    return VerifiedCosignature(
        _SEAL,
        key=key,
        time=max(_verify_line(signed.claimed_text, line, key) for line in lines),
        text=signed.claimed_text,
    )


def verify_all(signed: note.Note, keys: Sequence[WitnessKey]) -> tuple[VerifiedCosignature, ...]:
    """The cosignatures of those of ``keys`` that signed, in the order of ``keys``. None is demanded.

    Raises:
        NotAuthentic: ``LEDGER_WITNESS`` when any line by one of ``keys`` does not verify.
    """
    present = (key for key in keys if any(is_by(line, key) for line in signed.signatures))
    return tuple(verify(signed, key) for key in present)


def parse_lines(data: bytes) -> tuple[note.NoteSignature, ...]:
    """Signature lines as a witness hands them out, each with its newline; nothing is verified.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_UTF8``, ``NOT_BASE64`` or ``LEDGER_MALFORMED``.
    """
    if len(data) > limits.CHECKPOINT_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many signature lines", where="cosignature", expected=f"<= {limits.CHECKPOINT_MAX}"
        )
    # A note of any text has the same grammar behind its blank line.
    parsed = note.parse(_ANY_TEXT + b"\n" + data)
    if parsed.claimed_text != _ANY_TEXT:
        raise MalformedEvidence(Code.LEDGER_MALFORMED, "blank line among signature lines", where="cosignature")
    return parsed.signatures


def attach(signed: bytes, lines: bytes, *, keys: Sequence[WitnessKey]) -> bytes:
    """``signed`` with those of ``lines`` that are by ``keys``, each verified; of a witness, the latest stays.

    Lines by other keys are left out. What else ``signed`` carries stays as it is.

    Args:
        signed: a note, such as a published checkpoint.
        lines: as :func:`parse_lines` takes them; untrusted.
        keys: the witnesses that are known.

    Raises:
        MalformedEvidence: as :func:`parse_lines`, or for ``signed``; also when there is no room for more.
        NotAuthentic: ``LEDGER_WITNESS``: a line by one of ``keys`` is not over this checkpoint, or none is by them.
    """
    before = note.parse(signed)
    offered = [line for line in parse_lines(lines) if any(is_by(line, key) for key in keys)]
    if not offered:
        raise NotAuthentic(
            Code.LEDGER_WITNESS, "no cosignature by a known witness", where="cosignature",
            expected=", ".join(key.name for key in keys), clause=_CLAUSE,
        )  # fmt: skip
    newest: dict[tuple[str, bytes], tuple[int, note.NoteSignature]] = {}
    for line in [*before.signatures, *offered]:
        for key in keys:
            if is_by(line, key):
                time = _verify_line(before.claimed_text, line, key)
                name = (line.claimed_name, line.key_id)
                newest[name] = max(newest.get(name, (time, line)), (time, line), key=lambda entry: entry[0])
    kept = [line for line in before.signatures if (line.claimed_name, line.key_id) not in newest]
    encoded = [line.encode() for line in [*kept, *(line for _, line in newest.values())]]
    result = before.claimed_text + b"\n" + b"".join(encoded)
    # What is published can be read by everybody, or it is not written.
    return note.parse(result).raw


def _verify_line(text: bytes, line: note.NoteSignature, key: WitnessKey) -> int:
    """The time at which ``key`` cosigned ``text`` by ``line``."""
    value = line.signature
    time = int.from_bytes(value[:_TIME_SIZE], "big")
    if len(value) != _TIME_SIZE + _SIGNATURE_SIZE or time > _TIME_MAX:
        raise _unverified("cosignature is not a time and a signature", key)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(value[_TIME_SIZE:], message(text, time=time))
    except (InvalidSignature, ValueError) as error:
        raise _unverified("cosignature is not over this checkpoint", key) from error
    return time


def _unverified(what: str, key: WitnessKey) -> NotAuthentic:
    return NotAuthentic(Code.LEDGER_WITNESS, what, where="note.signatures", expected=key.vkey, clause=_CLAUSE)
