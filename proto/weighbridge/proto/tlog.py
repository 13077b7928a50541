"""The ledger's encodings: C2SP tlog-tiles paths and tiles, entry bundles, checkpoints and offline proofs. Pure.

The formats are open, so that auditors who never saw this code can read a ledger: tlog-tiles, tlog-checkpoint@v1.0.0,
tlog-proof@v1. Narrower than they allow: a checkpoint here has no extension lines (not auditable, and not recommended
there), and its origin is the name of the key that signs it.

Reading a checkpoint is one step with one order: verify the signature, then parse, then compare the origin. See
:func:`open_checkpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, final

from weighbridge.proto import limits, merkle, note, strict
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence

__all__ = [
    "BUNDLE_MAX",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Checkpoint",
    "Proof",
    "VerifiedCheckpoint",
    "VerifiedEntry",
    "encode_bundle",
    "encode_tile",
    "entries_path",
    "open_checkpoint",
    "parse_bundle",
    "parse_proof",
    "parse_tile",
    "tile_nodes",
    "tile_path",
    "verify_entry",
]

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 256
# A tree of 2**63 leaves has tiles at levels 0 to 7.
_LEVEL_MAX: Final = 7
_PROOF_MAX: Final = 63
_BODY_LINES: Final = 3
_PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
BUNDLE_MAX: Final = TILE_WIDTH * (2 + limits.LEDGER_ENTRY_MAX)

_SEAL: Final = object()


# --- paths ------------------------------------------------------------------------------------------------------------


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a hash tile below the ledger's prefix (tlog-tiles, "Merkle Tree").

    >>> tile_path(0, 1234067, 5)
    'tile/0/x001/x234/067.p/5'
    """
    if not 0 <= level <= _LEVEL_MAX:
        raise ValueError(f"no tile level {level}")
    return f"tile/{level}/{_number(index)}{_partial(width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of an entry bundle below the ledger's prefix (tlog-tiles, "Log entries")."""
    return f"tile/entries/{_number(index)}{_partial(width)}"


def _number(index: int) -> str:
    if index < 0:
        raise ValueError(f"no tile {index}")
    high, low = divmod(index, 1000)
    path = f"{low:03d}"
    while high:
        high, low = divmod(high, 1000)
        path = f"x{low:03d}/{path}"
    return path


def _partial(width: int) -> str:
    if not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"no tile of width {width}")
    return "" if width == TILE_WIDTH else f".p/{width}"


# --- tiles and bundles ------------------------------------------------------------------------------------------------


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """The hashes, 32 bytes each, one after the other."""
    return b"".join(hashes)


def parse_tile(data: bytes, *, width: int) -> tuple[bytes, ...]:
    """The ``width`` hashes of a tile of exactly that width.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED``.
    """
    size = limits.DIGEST_SIZE
    if len(data) != width * size:
        raise _malformed("tile has the wrong length", where="tile", expected=width * size, got=len(data))
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Each entry after its length in two bytes, big-endian.

    Raises:
        ValueError: for an entry longer than 65,535 bytes.
    """
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > limits.LEDGER_ENTRY_MAX:
            raise ValueError(f"ledger entry of {len(entry)} bytes")
        parts += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(parts)


def parse_bundle(data: bytes, *, width: int) -> tuple[bytes, ...]:
    """The ``width`` entries of a bundle of exactly that width.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``TRUNCATED``, ``TRAILING_BYTES`` or ``LEDGER_MALFORMED``.
    """
    if len(data) > BUNDLE_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "entry bundle is too large", where="bundle", expected=f"<= {BUNDLE_MAX}", got=len(data)
        )
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        begin = at + 2
        end = begin + int.from_bytes(data[at:begin], "big")
        if begin > len(data) or end > len(data):
            raise MalformedEvidence(Code.TRUNCATED, "entry is cut short", where=f"bundle[{at}]")
        entries.append(data[begin:end])
        at = end
    if len(entries) != width:
        raise _malformed("bundle has too few entries", where="bundle", expected=width, got=len(entries))
    if at != len(data):
        raise MalformedEvidence(Code.TRAILING_BYTES, "bytes after the last entry", where=f"bundle[{at}]")
    return tuple(entries)


def tile_nodes(tile: Callable[[int, int], Sequence[bytes]]) -> merkle.Nodes:
    """All perfect subtrees of a tree in tiles.

    Args:
        tile: given tile level and index, the hashes of that tile; called only for tiles that the tree has.
    """

    def nodes(level: int, index: int) -> bytes:
        tile_level, above = divmod(level, TILE_HEIGHT)
        number, begin = divmod(index << above, TILE_WIDTH)
        return merkle.perfect_root(tile(tile_level, number)[begin : begin + (1 << above)])

    return nodes


# --- checkpoints ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a ledger says of itself at one moment: its name, its number of entries and the root over them."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not note.is_key_name(self.origin) or self.size < 0 or len(self.root) != limits.DIGEST_SIZE:
            raise ValueError(f"not a checkpoint: {self.origin!r}, {self.size}")

    def encode(self) -> bytes:
        """The note text: three lines (tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{strict.base64_encode(self.root)}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Exactly three lines; extension lines, spaces, signs and other digits are refused.

        Raises:
            MalformedEvidence: ``LEDGER_MALFORMED``, ``NOT_UTF8``, ``NOT_A_NUMBER`` or ``NOT_BASE64``.
        """
        try:
            lines = text.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedEvidence(
                Code.NOT_UTF8, "checkpoint is not ASCII", where=f"checkpoint[{error.start}]"
            ) from error
        if len(lines) != _BODY_LINES + 1 or lines[-1]:
            raise _malformed("checkpoint is not three lines", where="checkpoint", got=len(lines))
        if not note.is_key_name(lines[0]):
            raise _malformed("not an origin", where="checkpoint.origin", got=lines[0][:60])
        size = strict.decimal(lines[1], what="checkpoint.size")
        root = strict.base64_decode(lines[2], what="checkpoint.root")
        if len(root) != limits.DIGEST_SIZE:
            raise _malformed("root has the wrong length", where="checkpoint.root", expected=32, got=len(root))
        if size == 0 and root != merkle.EMPTY_ROOT:
            raise _malformed(
                "an empty tree has one root only", where="checkpoint.root", expected=merkle.EMPTY_ROOT, got=root
            )
        return cls(lines[0], size, root)


@final
class VerifiedCheckpoint:
    """A checkpoint that the ledger's key signed, with the note that says so. Made by :func:`open_checkpoint` only.

    Proves that the key's holder signed this root for this size. Does not prove that it showed everybody the same one:
    that takes a consistency proof, and witnesses.
    """

    __slots__ = ("key", "note", "origin", "root", "size")

    def __init__(self, seal: object, *, checkpoint: Checkpoint, signed: note.VerifiedNote) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedCheckpoint is made by tlog.open_checkpoint")
        self.origin: Final = checkpoint.origin
        self.size: Final = checkpoint.size
        self.root: Final = checkpoint.root
        self.key: Final = signed.key
        self.note: Final = signed.raw

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedCheckpoint does not travel: open its note again")


def open_checkpoint(data: bytes, key: note.NoteKey, *, origin: str) -> VerifiedCheckpoint:
    """Verify the signature, then parse, then compare the origin; in that order.

    Does not show that the checkpoint is recent, nor that it is consistent with another one.

    Args:
        data: the signed note; untrusted.
        key: the ledger's key, trusted by the caller.
        origin: the ledger that the caller means.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` or a decoding code.
        NotAuthentic: ``LEDGER_SIGNATURE``.
        LedgerInconsistent: ``LEDGER_ORIGIN``.
    """
    signed = note.verify(note.parse(data), key)
    checkpoint = Checkpoint.parse(signed.text)
    if checkpoint.origin != origin:
        raise LedgerInconsistent(
            Code.LEDGER_ORIGIN, "checkpoint of another ledger", where="checkpoint.origin", expected=origin,
            got=checkpoint.origin, clause="C2SP tlog-checkpoint@v1.0.0",
        )  # fmt: skip
    return VerifiedCheckpoint(_SEAL, checkpoint=checkpoint, signed=signed)


# --- offline proofs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """An offline proof (C2SP tlog-proof@v1): an index, the hashes up to the root, and the signed checkpoint.

    Well-formed only. Carries neither the entry nor its hash: the verifier has to know what it asks about.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint_note: bytes

    def encode(self) -> bytes:
        """The text of a ``.tlog-proof`` file, without extra data."""
        lines = [_PROOF_HEADER, f"index {self.index}", *map(strict.base64_encode, self.path), "", ""]
        return "\n".join(lines).encode() + self.checkpoint_note


@final
class VerifiedEntry:
    """A leaf that is in a ledger under a signed checkpoint. Made by :func:`verify_entry` only."""

    __slots__ = ("checkpoint", "index", "leaf_hash")

    def __init__(self, seal: object, *, leaf_hash: bytes, index: int, checkpoint: VerifiedCheckpoint) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedEntry is made by tlog.verify_entry")
        self.leaf_hash: Final = leaf_hash
        self.index: Final = index
        self.checkpoint: Final = checkpoint

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedEntry does not travel: verify again")


def parse_proof(data: bytes) -> Proof:
    """Take a ``.tlog-proof`` file apart; nothing is verified. Extra data is refused: we have no use for it.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``NOT_UTF8``, ``NOT_A_NUMBER``, ``NOT_BASE64`` or ``LEDGER_MALFORMED``.
    """
    if len(data) > 2 * limits.CHECKPOINT_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "proof is too large", where="proof", got=len(data))
    head, blank, checkpoint_note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, "proof is not ASCII", where=f"proof[{error.start}]") from error
    if not blank and _PROOF_HEADER.startswith(lines[0]):
        raise _malformed("proof ends before its checkpoint: it is cut short", where=f"proof[{len(data)}]")
    if lines[0] != _PROOF_HEADER:
        raise _malformed(f"proof does not begin with {_PROOF_HEADER}", where="proof", got=lines[0][:60])
    if len(lines) - 2 > _PROOF_MAX:
        raise _malformed("too many hashes", where="proof", expected=f"<= {_PROOF_MAX}", got=len(lines) - 2)
    word, _, number = lines[1].partition(" ") if len(lines) > 1 else ("", "", "")
    if word != "index":
        raise _malformed("second line does not give the index", where="proof.index", got=word[:60])
    path = tuple(strict.base64_decode(line, what=f"proof.path[{at}]") for at, line in enumerate(lines[2:]))
    if any(len(value) != limits.DIGEST_SIZE for value in path):
        raise _malformed("hash has the wrong length", where="proof.path")
    return Proof(strict.decimal(number, what="proof.index"), path, checkpoint_note)


def verify_entry(proof: Proof, leaf_hash: bytes, key: note.NoteKey, *, origin: str) -> VerifiedEntry:
    """Show that ``leaf_hash`` is in the ledger ``origin`` of ``key`` at the proof's index.

    Args:
        proof: untrusted.
        leaf_hash: of the entry that the caller asks about, 32 bytes.
        key: the ledger's key, trusted by the caller.
        origin: the ledger that the caller means.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` or a decoding code, for the checkpoint.
        NotAuthentic: ``LEDGER_SIGNATURE``.
        LedgerInconsistent: ``LEDGER_ORIGIN`` or ``LEDGER_PROOF``.
    """
    checkpoint = open_checkpoint(proof.checkpoint_note, key, origin=origin)
    merkle.verify_inclusion(leaf_hash, proof.path, index=proof.index, size=checkpoint.size, root=checkpoint.root)
    return VerifiedEntry(_SEAL, leaf_hash=leaf_hash, index=proof.index, checkpoint=checkpoint)


def _malformed(message: str, *, where: str, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(
        Code.LEDGER_MALFORMED, message, where=where, expected=expected, got=got, clause="C2SP tlog-tiles"
    )
