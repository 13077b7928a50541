"""What a verified host set says, as values: part of the reference values in force, recorded with every verdict.

A set's signature was verified by whoever made these values (``weighbridge.verifier.host_set``); which set that was,
``digest`` says: the SHA-256 of the signed file. Policies see that a set is in force, and what the verifier found by it;
its registers and files they do not see (:meth:`HostSet.summary`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self, cast

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.host_set import UNFIT_PCRS, FileKind

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["HostSet"]

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSet:
    """One set. ``not_before`` and ``not_after`` (inclusive) are when the owner, under a trusted key, vouches for it.

    Attributes:
        owner: whose word it is.
        name: of which class of hosts.
        number: grows with each set of this owner for this class.
        digest: SHA-256 of the signed file, hex.
        not_before: from when on.
        not_after: until when.
        pcrs: register of the SHA-256 bank to its accepted values, ascending; at least one register.
        firmware: accepted firmware versions of the TPM, ascending; ``None`` for any.
        files: all that may run or be read, as IMA's list names it: ``sha256:hex``, ``verity:sha256:hex``.
        attester: those of ``files`` that are of the attester's own code.
    """

    owner: str
    name: str
    number: int
    digest: str
    not_before: datetime
    not_after: datetime
    pcrs: Mapping[int, tuple[bytes, ...]]
    firmware: tuple[int, ...] | None
    files: frozenset[str]
    attester: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse a set that every host would match, and an attester whose code may not run."""
        if not self.pcrs or not all(self.pcrs.values()):
            raise ValueError("a host set names a register, and values for each")
        if not self.attester <= self.files:
            raise ValueError("the attester's files are among the files")

    def valid(self, at: datetime) -> bool:
        """Whether its owner vouches for it at ``at``."""
        return self.not_before <= at <= self.not_after

    def summary(self) -> strict.JsonObject:
        """What policies see: which set it is."""
        return {
            "owner": self.owner,
            "name": self.name,
            "number": self.number,
            "digest": self.digest,
            "not_before": strict.time_encode(self.not_before),
            "not_after": strict.time_encode(self.not_after),
        }

    def document(self) -> strict.JsonObject:
        """As JSON. ``files`` are those that are not the attester's: 100,000 names are not written twice."""
        return {
            **self.summary(),
            "pcrs": {str(index): [value.hex() for value in values] for index, values in self.pcrs.items()},
            "firmware": None if self.firmware is None else [f"{version:016x}" for version in self.firmware],
            "files": _by_kind(self.files - self.attester),
            "attester": _by_kind(self.attester),
        }

    @classmethod
    def read(cls, value: strict.JsonValue, where: str) -> Self:
        """Read :meth:`document`.

        Raises:
            MalformedEvidence: it has another shape.
        """
        if not isinstance(value, dict):
            raise MalformedEvidence(Code.FIELD_TYPE, "expected an object", where=where)
        fields = cbor.read_map(cast("cbor.CborValue", value), where=where)
        owner, name, number = fields.text("owner"), fields.text("name"), fields.uint("number", limit=2**53 - 1)
        digest = strict.hex_decode(fields.text("digest"), what=fields.path("digest"), size=limits.DIGEST_SIZE).hex()
        not_before, not_after = (
            strict.time_decode(fields.text(key), what=fields.path(key)) for key in ("not_before", "not_after")
        )
        pcrs = _pcrs(fields.table("pcrs"))
        firmware = _firmware(fields)
        files, attester = _names(fields.table("files")), _names(fields.table("attester"))
        fields.end()
        return cls(
            owner=owner,
            name=name,
            number=number,
            digest=digest,
            not_before=not_before,
            not_after=not_after,
            pcrs=MappingProxyType(pcrs),
            firmware=firmware,
            files=files | attester,
            attester=attester,
        )


def _by_kind(names: Iterable[str]) -> strict.JsonObject:
    """``names`` without what they have in common, sorted."""
    listed: dict[str, list[str]] = {kind.value: [] for kind in FileKind}
    for name in names:
        kind, _, digest = name.rpartition(":")
        listed[kind].append(digest)
    return {kind: cast("list[strict.JsonValue]", sorted(digests)) for kind, digests in listed.items()}


def _names(table: cbor.Reader) -> frozenset[str]:
    found: set[str] = set()
    for kind in FileKind:
        digests = table.array(kind.value, limit=limits.HOST_SET_FILES_MAX)
        for digest in digests:
            if not isinstance(digest, str) or not _HEX.fullmatch(digest):
                raise MalformedEvidence(
                    Code.NOT_HEX, "not a SHA-256 digest in lower-case hexadecimal", where=table.path(kind.value)
                )
            found.add(f"{kind.value}:{digest}")
    table.end()
    return frozenset(found)


def _pcrs(table: cbor.Reader) -> dict[int, tuple[bytes, ...]]:
    found: dict[int, tuple[bytes, ...]] = {}
    keys = table.keys()
    for key in keys:
        index = strict.decimal(str(key), what=table.path(str(key)[:8]), limit=limits.PCRS_MAX - 1)
        values = _texts(table, str(key), limit=limits.HOST_SET_VALUES_MAX)
        if index in UNFIT_PCRS or not values:
            raise MalformedEvidence(Code.FIELD_RANGE, "no value can be expected in this PCR", where=table.path(index))
        found[index] = tuple(
            strict.hex_decode(value, what=table.path(index), size=limits.DIGEST_SIZE) for value in values
        )
    if not found:
        raise MalformedEvidence(Code.FIELD_RANGE, "no PCR is named", where=table.path(""))
    return dict(sorted(found.items()))


def _firmware(fields: cbor.Reader) -> tuple[int, ...] | None:
    listed = fields.optional_array("firmware", limit=limits.HOST_SET_FIRMWARE_MAX)
    if listed is None:
        return None
    versions: list[int] = []
    for item in listed:
        if not isinstance(item, str) or not _VERSION.fullmatch(item):
            raise MalformedEvidence(Code.NOT_HEX, "not a version of 16 hexadecimal digits", where="host.firmware")
        versions.append(int.from_bytes(strict.hex_decode(item, what="host.firmware")))
    return tuple(versions)


def _texts(table: cbor.Reader, key: str, *, limit: int) -> list[str]:
    values = table.array(key, limit=limit)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values):
        raise MalformedEvidence(Code.FIELD_TYPE, "expected a list of texts", where=table.path(key))
    return texts
