"""The one commit point of a ledger in a bucket: a signed checkpoint, with all that its append has added."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from weighbridge.proto import cbor, limits, tlog
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HEAD_MAX", "MARK_SIZE", "TILE_NAME", "CommittedHead"]

HEAD_MAX: Final = 64 * 1024 * 1024
"""The size of a head: some two hundred thousand leaves in one append."""
MARK_SIZE: Final = 16
TILE_NAME: Final = re.compile(r"tile/(entries|[0-7])(/x[0-9]{3})*/[0-9]{3}(\.p/[0-9]{1,3})?")
"""The names of tiles and entry bundles, as C2SP tlog-tiles has them."""

_SCHEMA: Final = "weighbridge/v1/ledger-head"


@dataclass(frozen=True, slots=True)
class CommittedHead:
    """What ``writer/head`` holds: a signed checkpoint, the files of its append, and a mark that no other has."""

    note: bytes
    files: Mapping[str, bytes]
    mark: bytes

    def encode(self) -> bytes:
        """The object's bytes."""
        return cbor.encode({0: _SCHEMA, 1: self.note, 2: dict(self.files), 3: self.mark})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The head that ``data`` is. Whether it was signed, and its tiles have the signed root, is not looked at.

        Raises:
            MalformedEvidence: a decoding code.
        """
        fields = cbor.read_versioned(data, version=_SCHEMA, limit=HEAD_MAX, what="head")
        signed, files = fields.octets(1, limit=limits.CHECKPOINT_MAX), fields.table(2)
        mark = fields.octets(3, size=MARK_SIZE)
        fields.end()
        names = [name for name in files.keys() if isinstance(name, str)]  # noqa: SIM118 - not a mapping
        if len(names) < len(files.keys()) or not all(map(TILE_NAME.fullmatch, names)):
            raise MalformedEvidence(Code.FIELD_RANGE, "not the name of a tile", where="head.2")
        return cls(signed, {name: files.octets(name, limit=tlog.BUNDLE_MAX) for name in names}, mark)
