"""The contents of a store, as its files have them: to be looked through, and altered or taken away behind its back."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.verifier.ledger import ContentStore, segment

if TYPE_CHECKING:
    from pathlib import Path


def segments(store: Path) -> list[Path]:
    """The segments of the store in the directory ``store``, the oldest first."""
    return sorted(path for path in (store / "segments").glob("*-*") if path.suffix != segment.INDEX_SUFFIX)


def contents(store: Path) -> dict[bytes, bytes]:
    """Every content of the store by its digest, in the order in which they were put."""
    reader = ContentStore(store)
    return {row.digest: reader.get(row.digest) for path in segments(store) for _, row in _rows(path)}


def alter(store: Path, digest: bytes) -> None:
    """Change one bit in the frame of each block that has ``digest``; doing it again undoes it."""
    for path in segments(store):
        for offset in {offset for offset, row in _rows(path) if row.digest == digest}:
            with path.open("r+b") as file:
                block = segment.read_head(file, offset)
                file.seek(offset + block.size - block.packed)
                (byte,) = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1]))


def remove(store: Path, digest: bytes) -> None:
    """Take ``digest`` out of the rows, as if it had never been put; indices, which would be wrong, go.

    What lies where stays as it is: the store may be open.
    """
    for path in segments(store):
        path.with_name(path.name + segment.INDEX_SUFFIX).unlink(missing_ok=True)
        for offset in {offset for offset, row in _rows(path) if row.digest == digest}:
            with path.open("r+b") as file:
                block = segment.read_head(file, offset)
                rows = [replace(row, digest=bytes(32)) if row.digest == digest else row for row in block.rows]
                file.seek(offset)
                file.write(segment.encode_head(replace(block, rows=tuple(rows))))


def _rows(path: Path) -> list[tuple[int, segment.Row]]:
    with path.open("rb") as file:
        return [(offset, row) for offset, block in segment.scan(file, 0).blocks for row in block.rows]
