"""A host set: what a class of hosts boots and runs when it is good, by its owner's word. Parsed, not verified.

A COSE_Sign1 (:mod:`.cose`) of type :data:`SET_TYP` over deterministic CBOR. A set replaces every earlier one of its
owner for that class: ``number`` grows with each, so that an old one cannot be brought back. Byte layout:
``docs/host-reference.md``.

What a set says is what somebody has seen on a host and signed, whether that host was good or not. The path beside a
file's digest is a hint for people: nothing compares it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, cose, limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.model_files import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SET_TYP", "UNFIT_PCRS", "AcceptedFile", "FileKind", "HostSet", "SignedHostSet"]

SET_TYP: Final = "application/vnd.weighbridge.host-set+cose"
_TYPE: Final = "weighbridge/v1/host-set"
_FIRMWARE_MAX: Final = 2**64 - 1

UNFIT_PCRS: Final = frozenset({10, 16, 23})
"""PCRs in which no value can be expected: IMA's, which every file read extends, and those that anybody may reset."""


class FileKind(StrEnum):
    """What a file's digest is of, in IMA's words: its content, or its fs-verity descriptor. Both are SHA-256."""

    CONTENT = "sha256"
    VERITY = "verity:sha256"


_KINDS: Final = tuple(FileKind)


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """A file that may run or be read: ``digest`` is 32 bytes, ``path`` a hint, maybe empty.

    ``attester`` says that it is of the attester's own code: binary, interpreter, modules.
    """

    kind: FileKind
    digest: bytes
    path: str = ""
    attester: bool = False

    @property
    def name(self) -> str:
        """As IMA's list names it: ``sha256:hex`` or ``verity:sha256:hex``."""
        return f"{self.kind}:{self.digest.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSet:
    """A well-formed host set. Says nothing of truth.

    Times are nanoseconds since 1970; ``not_after_ns`` is inclusive. ``pcrs`` maps at least one register of the SHA-256
    bank to its accepted values, 32 bytes each and ascending. ``firmware`` are accepted firmware versions of the TPM,
    ascending, or ``None`` for any. ``files`` ascend by kind and digest.
    """

    owner: str
    name: str
    number: int
    issued_ns: int
    not_before_ns: int
    not_after_ns: int
    pcrs: Mapping[int, tuple[bytes, ...]]
    firmware: tuple[int, ...] | None
    files: tuple[AcceptedFile, ...]
    note: str = ""

    def encode(self) -> bytes:
        """The payload's bytes."""
        return cbor.encode(
            {
                0: _TYPE,
                1: self.owner,
                2: self.name,
                3: self.number,
                4: self.issued_ns,
                5: self.not_before_ns,
                6: self.not_after_ns,
                7: {index: list(values) for index, values in self.pcrs.items()},
                8: None if self.firmware is None else list(self.firmware),
                9: [[_KINDS.index(file.kind), file.digest, file.path, file.attester] for file in self.files],
                10: self.note,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a payload.

        Raises:
            MalformedEvidence: for any bytes that :meth:`encode` of a consistent set would not have written.
        """
        fields = cbor.read_versioned(data, version=_TYPE, limit=limits.HOST_SET_MAX, what="host set")
        owner, name = fields.text(1), fields.text(2)
        check_name(owner, where="host set.owner")
        check_name(name, where="host set.name")
        number = fields.integer(3, low=1, high=2**53 - 1)
        issued_ns, not_before_ns, not_after_ns = fields.uint(4), fields.uint(5), fields.uint(6)
        if not_before_ns > not_after_ns:
            raise MalformedEvidence(Code.FIELD_RANGE, "ends before it begins", where="host set[6]")
        pcrs = _pcrs(fields.table(7))
        firmware = _firmware(fields.optional_array(8, limit=limits.HOST_SET_FIRMWARE_MAX))
        files = _files(fields.array(9, limit=limits.HOST_SET_FILES_MAX))
        note = fields.text(10)
        if note:
            check_name(note, where="host set.note")
        fields.end()
        return cls(
            owner=owner,
            name=name,
            number=number,
            issued_ns=issued_ns,
            not_before_ns=not_before_ns,
            not_after_ns=not_after_ns,
            pcrs=MappingProxyType(pcrs),
            firmware=firmware,
            files=files,
            note=note,
        )

    def sign(self, *, kid: bytes, signer: Callable[[bytes], bytes]) -> bytes:
        """The signed set: the file that is handed out.

        Args:
            kid: SHA-256 of the signer's SubjectPublicKeyInfo, 32 bytes.
            signer: as for :func:`.cose.sign`; the key stays with the caller.

        Raises:
            MalformedEvidence: the set contradicts itself, or is too large to be read back.
        """
        payload = self.encode()
        type(self).parse(payload)
        signed = cose.sign(payload, kid=kid, typ=SET_TYP, signer=signer)
        SignedHostSet.parse(signed)
        return signed


@dataclass(frozen=True, slots=True)
class SignedHostSet:
    """A host set with its signature, which is not checked. ``digest`` is the SHA-256 of the file."""

    message: cose.CoseSign1
    claimed: HostSet
    digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the file.

        Raises:
            MalformedEvidence: ``COSE_HEADER``, or as :meth:`HostSet.parse`.
        """
        message = cose.parse(data, typ=SET_TYP, limit=limits.HOST_SET_MAX, what="host set")
        return cls(message, HostSet.parse(message.payload), sha256(data))


def _pcrs(table: cbor.Reader) -> dict[int, tuple[bytes, ...]]:
    found: dict[int, tuple[bytes, ...]] = {}
    indices = table.keys()
    for key in indices:
        where = f"host set.pcrs[{key}]"
        if not isinstance(key, int) or key not in range(limits.PCRS_MAX) or key in UNFIT_PCRS:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "no value can be expected in this PCR", where=where, expected="0..9, 11..15, 17..22"
            )
        values = table.octet_strings(key, count=limits.HOST_SET_VALUES_MAX, limit=limits.DIGEST_SIZE)
        if not values or any(len(value) != limits.DIGEST_SIZE for value in values):
            raise MalformedEvidence(Code.FIELD_RANGE, "not values of 32 bytes, at least one", where=where)
        if list(values) != sorted(set(values)):
            raise MalformedEvidence(Code.NOT_DETERMINISTIC, "values are not distinct and ascending", where=where)
        found[key] = values
    if not found:
        # Without a register to compare, every host would be one of this class.
        raise MalformedEvidence(Code.FIELD_RANGE, "no PCR is named", where="host set.pcrs")
    return found


def _firmware(values: list[cbor.CborValue] | None) -> tuple[int, ...] | None:
    if values is None:
        return None
    found = tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= _FIRMWARE_MAX)
    if not found or list(found) != values or list(found) != sorted(set(found)):
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not distinct, ascending versions, at least one", where="host set.firmware"
        )
    return found


def _files(rows: list[cbor.CborValue]) -> tuple[AcceptedFile, ...]:
    """The rows in one pass: there may be 100,000 of them."""
    found: list[AcceptedFile] = []
    before: tuple[int, bytes] = (-1, b"")
    for number, row in enumerate(rows):
        match row:
            case [int(kind), bytes(digest), str(path), bool(attester)] if not isinstance(kind, bool):
                pass
            case _:
                raise _no_file(Code.FIELD_TYPE, "expected [kind, digest, path, attester]", number)
        if not 0 <= kind < len(_KINDS) or len(digest) != limits.DIGEST_SIZE:
            raise _no_file(Code.FIELD_RANGE, "an unknown kind, or not a SHA-256 digest", number)
        if len(path.encode()) > limits.NAME_MAX or not path.isprintable():
            raise _no_file(Code.FIELD_RANGE, f"the path is not at most {limits.NAME_MAX} printable bytes", number)
        if (kind, digest) == before:
            raise _no_file(Code.DUPLICATE_KEY, "a file stands twice", number)
        if (kind, digest) < before:
            raise _no_file(Code.NOT_DETERMINISTIC, "files are not in order", number)
        before = kind, digest
        found.append(AcceptedFile(_KINDS[kind], digest, path, attester))
    return tuple(found)


def _no_file(code: Code, message: str, number: int) -> MalformedEvidence:
    return MalformedEvidence(code, message, where=f"host set.files[{number}]")
