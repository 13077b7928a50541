"""COSE Receipts (RFC 9942) of a ledger: the tree of its checkpoints, for whoever reads COSE and not signed notes.

A receipt is a COSE_Sign1 over the root of a tree, with a proof beside it. The root is not in it: whoever verifies
computes it from the proof and what he asks about, so that a good signature over a proof of something else is worth
nothing. Accepted is one profile, everything else is refused by absence: tag 18; protected header exactly
``{1: -8, 4: kid, 15: {1: iss, 2: sub, -70200: size}, 16: typ, 395: 1}``; one proof in the unprotected header, of
inclusion (-1) or of consistency (-2); no payload; a signature of 64 bytes.

Narrower than the RFC in three points. The size is signed: where it is not, a proof for index 2 of 3 is one for index 1
of 2 as well. Issuer and subject are the ledger's origin (RFC 9943 §6 demands both), the key is named by ``kid``, the
SHA-256 of its SubjectPublicKeyInfo. A tree of one entry has no receipt: the RFC's paths have one hash at least.

The ledger's key signs receipts and checkpoints, and neither can be taken for the other: a Sig_structure begins with
the byte 0x84, a checkpoint with a printable character. A receipt carries no cosignature of a witness: see
:mod:`.tlog` for proofs that do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from weighbridge.proto import cbor, cose, limits, merkle, note
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, LedgerInconsistent, MalformedEvidence, NotAuthentic

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.proto.tlog import VerifiedCheckpoint

__all__ = [
    "TYP",
    "Consistency",
    "Inclusion",
    "Receipt",
    "VerifiedConsistency",
    "VerifiedInclusion",
    "is_receipt",
    "parse",
    "sign_consistency",
    "sign_inclusion",
    "verify_consistency",
    "verify_inclusion",
]

TYP: Final = "application/vnd.weighbridge.receipt+cose"

_TAG_18: Final = b"\xd2"
# RFC 9052 §3.1, RFC 9596, RFC 9597, RFC 9942 §2.
_ALG, _KID, _CLAIMS, _TYP, _VDS, _VDP = 1, 4, 15, 16, 395, 396
# RFC 9053 §2.2. RFC 9864 would have -19 instead, which readers of receipts do not know yet.
_EDDSA: Final = -8
# RFC 9942 §4.1, §4.2.
_RFC9162_SHA256: Final = 1
_INCLUSION, _CONSISTENCY = -1, -2
# RFC 8392 §3.1, and a claim for private use: the number of entries of the tree.
_ISS, _SUB, _SIZE = 1, 2, -70200
_SIGNATURE_SIZE: Final = 64
_PATH_MAX: Final = 63
_PARTS: Final = 4

_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class Inclusion:
    """An inclusion proof (RFC 9942 §5.2): the leaf's index and the hashes from its sibling upwards; unverified."""

    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Consistency:
    """A consistency proof (RFC 9942 §5.3): the earlier tree's size and the hashes; unverified."""

    old: int
    path: tuple[bytes, ...]


Proof: TypeAlias = Inclusion | Consistency


@dataclass(frozen=True, slots=True)
class Receipt:
    """A well-formed receipt. Says nothing of truth: neither its proof nor its signature is checked.

    Attributes:
        raw: as received.
        protected: the exact signed bytes of the header.
        claimed_kid: names the signer, 32 bytes.
        claimed_origin: names the ledger.
        claimed_size: number of entries of the tree.
        proof: of the one thing that the receipt is about.
        signature: 64 bytes.
    """

    raw: bytes
    protected: bytes
    claimed_kid: bytes
    claimed_origin: str
    claimed_size: int
    proof: Proof
    signature: bytes


@final
class VerifiedInclusion:
    """A leaf that is in a tree whose root the ledger's key signed. Made by :func:`verify_inclusion` only."""

    __slots__ = ("index", "key", "leaf_hash", "origin", "root", "size")

    def __init__(
        self, seal: object, *, leaf_hash: bytes, index: int, size: int, root: bytes, key: note.NoteKey
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedInclusion is made by receipt.verify_inclusion")
        self.leaf_hash: Final = leaf_hash
        self.index: Final = index
        self.size: Final = size
        self.root: Final = root
        self.origin: Final = key.name
        self.key: Final = key

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedInclusion does not travel: verify again")


@final
class VerifiedConsistency:
    """A tree that begins with all of an earlier one, signed by the ledger's key. By :func:`verify_consistency` only."""

    __slots__ = ("key", "old", "origin", "root", "size")

    def __init__(self, seal: object, *, old: VerifiedCheckpoint, size: int, root: bytes, key: note.NoteKey) -> None:
        if seal is not _SEAL:
            raise TypeError("VerifiedConsistency is made by receipt.verify_consistency")
        self.old: Final = old
        self.size: Final = size
        self.root: Final = root
        self.origin: Final = key.name
        self.key: Final = key

    def __reduce__(self) -> NoReturn:
        raise TypeError("VerifiedConsistency does not travel: verify again")


def is_receipt(data: bytes) -> bool:
    """Whether ``data`` begins as a receipt does, and no text."""
    return data[:1] == _TAG_18


def sign_inclusion(
    checkpoint: VerifiedCheckpoint,
    leaf_hash: bytes,
    proof: Inclusion,
    *,
    signer: Callable[[bytes], bytes],
) -> bytes:
    """The receipt that ``leaf_hash`` is in the tree of ``checkpoint``: that a checkpoint was signed is required.

    Args:
        checkpoint: signed by the key that signs the receipt.
        leaf_hash: of the entry, 32 bytes.
        proof: verified before anything is signed.
        signer: given the Sig_structure's bytes, returns the Ed25519 signature; the private key stays with the caller.

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF``.
        ValueError: for a tree of one entry, or a signature of another length.
    """
    merkle.verify_inclusion(leaf_hash, proof.path, index=proof.index, size=checkpoint.size, root=checkpoint.root)
    return _sign(checkpoint, _INCLUSION, [checkpoint.size, proof.index, list(proof.path)], signer)


def sign_consistency(
    old: VerifiedCheckpoint,
    new: VerifiedCheckpoint,
    path: tuple[bytes, ...],
    *,
    signer: Callable[[bytes], bytes],
) -> bytes:
    """The receipt that the tree of ``new`` begins with the whole tree of ``old``; arguments as :func:`sign_inclusion`.

    Raises:
        LedgerInconsistent: ``LEDGER_PROOF``.
        ValueError: where the trees have one size or the earlier is empty, or for a signature of another length.
    """
    merkle.verify_consistency(path, old=old.size, old_root=old.root, new=new.size, new_root=new.root)
    return _sign(new, _CONSISTENCY, [old.size, new.size, list(path)], signer)


def _sign(
    checkpoint: VerifiedCheckpoint, kind: int, proof: list[cbor.CborValue], signer: Callable[[bytes], bytes]
) -> bytes:
    if not proof[-1]:
        raise ValueError("a receipt's path has one hash at least")
    protected = cbor.encode(
        {
            _ALG: _EDDSA,
            _KID: sha256(checkpoint.key.spki),
            _CLAIMS: {_ISS: checkpoint.origin, _SUB: checkpoint.origin, _SIZE: checkpoint.size},
            _TYP: TYP,
            _VDS: _RFC9162_SHA256,
        }
    )
    signature = signer(cose.to_be_signed(protected, checkpoint.root))
    if len(signature) != _SIGNATURE_SIZE:
        raise ValueError("an Ed25519 signature has 64 bytes")
    unprotected: cbor.CborMap = {_VDP: {kind: [cbor.encode(proof)]}}
    return _TAG_18 + cbor.encode([protected, unprotected, None, signature])


def parse(data: bytes) -> Receipt:
    """Take ``data`` apart; nothing is verified.

    Raises:
        MalformedEvidence: ``COSE_HEADER`` for a header outside the profile, ``LEDGER_MALFORMED`` for a proof that
            cannot be one, or a decoding code.
    """
    if not is_receipt(data):
        raise MalformedEvidence(
            Code.NOT_CBOR, "receipt is not a tagged COSE_Sign1", where="receipt", clause="RFC 9942 §4.3"
        )
    decoded = cbor.decode(data[1:], limit=limits.LEDGER_RECEIPT_MAX, what="receipt")
    values = cbor.read_array(decoded, where="receipt", limit=_PARTS, size=_PARTS)
    parts = cbor.Reader(dict(enumerate(values)), "receipt")
    protected, proofs, payload = parts.octets(0), parts.table(1), parts.take(2)
    signature = parts.octets(3, size=_SIGNATURE_SIZE)
    if payload is not None:
        raise MalformedEvidence(
            Code.COSE_HEADER, "the root is attached", where="receipt.payload", clause="RFC 9942 §5.2.1",
            hint="a receipt here leaves it out, so that whoever verifies computes it",
        )  # fmt: skip
    kid, origin, size = _header(protected)
    table = proofs.table(_VDP)
    proofs.end()
    return Receipt(
        raw=data,
        protected=protected,
        claimed_kid=kid,
        claimed_origin=origin,
        claimed_size=size,
        proof=_proof(table, size),
        signature=signature,
    )


def _header(protected: bytes) -> tuple[bytes, str, int]:
    """Who signs, for which ledger, and how many entries its tree has."""
    where = "receipt.protected"
    header = cbor.read_map(cbor.decode(protected, limit=limits.LEDGER_RECEIPT_MAX, what=where), where=where)
    for label, expected, clause in (
        (_ALG, _EDDSA, "RFC 9053 §2.2"),
        (_TYP, TYP, "RFC 9596 §2"),
        (_VDS, _RFC9162_SHA256, "RFC 9942 §4.1"),
    ):
        got = header.take(label)
        if got != expected or isinstance(got, bool):
            raise MalformedEvidence(
                Code.COSE_HEADER, "header is not that of a ledger's receipt", where=header.path(label),
                expected=expected, got=got if isinstance(got, str | int) else type(got).__name__, clause=clause,
            )  # fmt: skip
    kid, claims = header.digest(_KID), header.table(_CLAIMS)
    header.end()
    origin, subject, size = claims.text(_ISS), claims.text(_SUB), claims.uint(_SIZE)
    claims.end()
    if subject != origin or not note.is_key_name(origin):
        raise MalformedEvidence(
            Code.COSE_HEADER, "issuer and subject are not one ledger", where=where, expected=origin, got=subject,
            clause="RFC 9943 §6",
        )  # fmt: skip
    return kid, origin, size


def _proof(table: cbor.Reader, size: int) -> Proof:
    kinds = table.keys()
    if kinds not in ([_INCLUSION], [_CONSISTENCY]):
        raise _malformed("neither one proof of inclusion nor one of consistency", where="receipt.vdp", got=len(kinds))
    is_inclusion = kinds == [_INCLUSION]
    where = "receipt.inclusion" if is_inclusion else "receipt.consistency"
    (encoded,) = cbor.read_array(table.take(kinds[0]), where=where, limit=1, size=1)
    if not isinstance(encoded, bytes):
        raise _malformed("proof is not a byte string", where=where)
    values = cbor.read_array(
        cbor.decode(encoded, limit=limits.LEDGER_RECEIPT_MAX, what=where), where=where, limit=3, size=3
    )
    fields = cbor.Reader(dict(enumerate(values)), where)
    first, second = fields.uint(0), fields.uint(1)
    path = fields.octet_strings(2, count=_PATH_MAX, limit=limits.DIGEST_SIZE)
    if not path or any(len(value) != limits.DIGEST_SIZE for value in path):
        raise _malformed("path is not one hash at least, of 32 bytes each", where=where, got=len(path))
    proven, other = (first, second) if is_inclusion else (second, first)
    if proven != size:
        raise _malformed("proof is for a tree of another size than was signed", where=where, expected=size, got=proven)
    return Inclusion(other, path) if is_inclusion else Consistency(other, path)


def verify_inclusion(receipt: Receipt, leaf_hash: bytes, key: note.NoteKey, *, origin: str) -> VerifiedInclusion:
    """Show that ``leaf_hash`` is in a tree of the ledger ``origin`` of ``key``, at the receipt's index.

    RFC 9942 §5.2.1: the proof makes a root of the leaf, and the signature has to be over that root. So a receipt of
    another entry cannot be told from one that was altered.

    Args:
        receipt: untrusted.
        leaf_hash: of the entry that the caller asks about, 32 bytes.
        key: the ledger's key, trusted by the caller.
        origin: the ledger that the caller means.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` when the receipt is one of consistency.
        LedgerInconsistent: ``LEDGER_PROOF`` or ``LEDGER_ORIGIN``.
        NotAuthentic: ``LEDGER_SIGNATURE``.
    """
    proof = receipt.proof
    if not isinstance(proof, Inclusion):
        raise _malformed("receipt of consistency, not of an entry", where="receipt.vdp")
    _check_signer(receipt, key)
    root = merkle.inclusion_root(leaf_hash, proof.path, index=proof.index, size=receipt.claimed_size)
    _check_signature(receipt, root, key, hint="it is the receipt of another entry, or one of the two was altered")
    _check_origin(receipt, key, origin)
    return VerifiedInclusion(
        _SEAL, leaf_hash=leaf_hash, index=proof.index, size=receipt.claimed_size, root=root, key=key
    )


def verify_consistency(receipt: Receipt, old: VerifiedCheckpoint, *, origin: str) -> VerifiedConsistency:
    """Show that a later tree of the ledger ``origin`` begins with all of ``old``; by the key that signed ``old``.

    RFC 9942 §5.3.1, in its order but for one thing: the root is not attached, so the proof comes first here too.

    Args:
        receipt: untrusted.
        old: what the caller kept from before. Never taken from the receipt: who signs it would choose both ends.
        origin: the ledger that the caller means.

    Raises:
        MalformedEvidence: ``LEDGER_MALFORMED`` when the receipt is one of an entry.
        LedgerInconsistent: ``LEDGER_PROOF`` or ``LEDGER_ORIGIN``.
        NotAuthentic: ``LEDGER_SIGNATURE``.
    """
    proof, size = receipt.proof, receipt.claimed_size
    if not isinstance(proof, Consistency):
        raise _malformed("receipt of an entry, not of consistency", where="receipt.vdp")
    _check_signer(receipt, old.key)
    if proof.old != old.size:
        raise LedgerInconsistent(
            Code.LEDGER_PROOF, "receipt begins with another earlier tree", where="receipt.consistency",
            expected=old.size, got=proof.old, clause="RFC 9942 §5.3",
        )  # fmt: skip
    root = merkle.consistency_root(proof.path, old=old.size, old_root=old.root, new=size)
    _check_signature(receipt, root, old.key, hint="it was altered, or the ledger has two histories: compare heads")
    _check_origin(receipt, old.key, origin)
    return VerifiedConsistency(_SEAL, old=old, size=size, root=root, key=old.key)


def _check_signer(receipt: Receipt, key: note.NoteKey) -> None:
    kid = sha256(key.spki)
    if receipt.claimed_kid != kid:
        raise NotAuthentic(
            Code.LEDGER_SIGNATURE, "receipt is not signed by the expected key", where="receipt.kid", expected=kid,
            got=receipt.claimed_kid, clause="RFC 9943 §6",
        )  # fmt: skip


def _check_signature(receipt: Receipt, root: bytes, key: note.NoteKey, *, hint: str) -> None:
    signed = cose.to_be_signed(receipt.protected, root)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(receipt.signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthentic(
            Code.LEDGER_SIGNATURE, "receipt's signature is not over the root of this proof", where="receipt.signature",
            expected=key.vkey, clause="RFC 9052 §4.4", hint=hint,
        ) from error  # fmt: skip


def _check_origin(receipt: Receipt, key: note.NoteKey, origin: str) -> None:
    """The ledger that is meant is the one that was signed for, and the key has its name."""
    for expected in (origin, key.name):
        if receipt.claimed_origin != expected:
            raise LedgerInconsistent(
                Code.LEDGER_ORIGIN, "receipt of another ledger", where="receipt.iss", expected=expected,
                got=receipt.claimed_origin, clause="RFC 9943 §6",
            )  # fmt: skip


def _malformed(message: str, *, where: str, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(
        Code.LEDGER_MALFORMED, message, where=where, expected=expected, got=got, clause="RFC 9942 §5"
    )
