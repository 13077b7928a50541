"""The corpus as files: where a case lies, and that it is the one that is stated.

``<stage>/<nnn-slug>/`` holds ``input.json`` (:class:`.steps.Case`), ``expected.json`` (:class:`.steps.Expected`) and
``manifest.yaml`` (what the case shows, one ``key: text`` a line). Byte strings of :data:`BLOB_MIN` bytes and more
lie in ``blobs/`` under their SHA-256, and ``input.json`` has ``{"blob": DIGEST}`` in their place: policies and anchors
are those of many cases. ``digests.txt`` names the SHA-256 of every case, and its own is that of the whole corpus.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

from pydantic import ValidationError

from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.verifier.conformance.steps import Case, Expected

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BLOB_MIN", "BLOBS", "DIGESTS", "LEFT_OUT", "Corpus", "Item", "case_digest", "packed"]

BLOB_MIN: Final = 1024
BLOBS: Final = "blobs"
DIGESTS: Final = "digests.txt"
LEFT_OUT: Final = "left-out.txt"
_FILES: Final = ("input.json", "expected.json", "manifest.yaml")
_FILE_MAX: Final = 256 * 1024 * 1024
_BLOB: Final = "blob"
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@dataclass(frozen=True, slots=True)
class Item:
    """One case: its line for a driver, what has to come of it, and what its manifest says."""

    line: bytes
    requires: tuple[str, ...]
    expected: Expected
    manifest: Mapping[str, str]

    @property
    def rows(self) -> tuple[str, ...]:
        """The attacks that it shows, as ``SPEC_COVERAGE.md`` numbers them."""
        return () if self.manifest["rows"] == "none" else tuple(self.manifest["rows"].split(", "))


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus in a directory.

    Attributes:
        directory: where it lies.
        digests: of its cases, by their names, in their order.
        left_out: cases of the project that cannot be told in steps, and why.
        digest: of all of it.
    """

    directory: Path
    digests: Mapping[str, bytes]
    left_out: Mapping[str, str]
    digest: bytes

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The corpus that was exported to ``directory``.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``; ``STATE_CORRUPT``: it is none.
        """
        stated = _read(directory / DIGESTS)
        digests = {name: strict.hex_decode(digest, what=DIGESTS, size=32) for digest, name in _pairs(stated)}
        left_out = dict(_pairs(_read(directory / LEFT_OUT)))
        return cls(directory, digests, left_out, sha256(stated))

    def item(self, name: str) -> Item:
        """The case called ``name``, which is the one that the corpus states.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``; ``STATE_CORRUPT``: a file was changed.
        """
        files = [_read(self.directory / name / file) for file in _FILES]
        if case_digest(*files) != self.digests[name]:
            raise _corrupt(self.directory / name, f"a file is not the one that {DIGESTS} states")
        document = strict.json_decode(files[0], what="input", limit=_FILE_MAX)
        whole = strict.json_encode(self._resolved(document))
        try:
            case = Case.model_validate_json(whole)
            expected = Expected.model_validate_json(files[1])
        except ValidationError as error:
            raise _corrupt(self.directory / name, "not a case of this version") from error
        manifest = dict(cast("tuple[str, str]", line.split(": ", 1)) for line in files[2].decode().splitlines())
        return Item(whole, case.requires, expected, manifest)

    def _resolved(self, value: strict.JsonValue) -> strict.JsonValue:
        match value:
            case {"blob": str(name), **rest} if not rest:
                data = _read(self.directory / BLOBS / name)
                if sha256(data).hex() != name:
                    raise _corrupt(self.directory / BLOBS / name, "its bytes do not have the SHA-256 that names it")
                return strict.base64_encode(data)
            case dict():
                return {key: self._resolved(item) for key, item in value.items()}
            case list():
                return [self._resolved(item) for item in value]
            case _:
                return value


def packed(value: strict.JsonValue, blobs: dict[str, bytes]) -> strict.JsonValue:
    """``value``, a case, with its long byte strings moved to ``blobs``, under their digests."""
    match value:
        case str() if len(value) >= BLOB_MIN * 4 // 3 and _BASE64.fullmatch(value):
            data = strict.base64_decode(value, what="case")
            blobs[sha256(data).hex()] = data
            return {_BLOB: sha256(data).hex()}
        case dict():
            return {key: packed(item, blobs) for key, item in value.items()}
        case list():
            return [packed(item, blobs) for item in value]
        case _:
            return value


def case_digest(*files: bytes) -> bytes:
    """The SHA-256 of a case: over those of its files, in the order input, expected, manifest."""
    return sha256(b"".join(map(sha256, files)))


def _pairs(data: bytes) -> list[tuple[str, str]]:
    lines = [line.split("  ", 1) for line in data.decode().splitlines()]
    return [(first, second) for first, second in lines]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            Code.FILE_UNREADABLE,
            (error.strerror or type(error).__name__).lower(),
            where=str(path),
            hint="name a directory that `weighbridge conformance export` wrote",
        ) from error


def _corrupt(path: Path, message: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.STATE_CORRUPT, message, where=str(path), hint="export it again: weighbridge conformance export DIR"
    )
