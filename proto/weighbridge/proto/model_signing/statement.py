"""The statement of OpenSSF Model Signing v1.0: an in-toto Statement v1 that lists a model's files, or their shards.

::

    _type          https://in-toto.io/Statement/v1
    subject        one: the model's name, and as its SHA-256 that of all resources' digests, one behind the other
    predicateType  https://model_signing/signature/v1.0
    predicate      serialization: method files | shards, hash_type, allow_symlinks, ignore_paths, shard_size
                   resources: name, algorithm, digest

A resource of method ``files`` is named by its path, one of method ``shards`` by ``path:begin:end``: an empty file has
no shard, so that method cannot name it. The digest over all resources is recomputed in the order in which they stand.

Read is what the reference implementation wrote from release 1.0 on; the ``Digests/v0.1`` of earlier ones is refused.
Fields beside ``serialization`` and ``resources`` are ignored, as the format demands; anywhere else a field that is not
known is refused, since it might change what the others mean.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar, cast, final, get_args

from weighbridge.proto import cbor, limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.manifest import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "FILE_HASHES",
    "PREDICATE_TYPE",
    "FileHash",
    "Method",
    "Resource",
    "Serialization",
    "Statement",
    "ignore_rule",
    "json_fields",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
_PREDICATE_TYPE_OLD: Final = "https://model_signing/Digests/v0.1"

Method = Literal["files", "shards"]
FileHash = Literal["sha256", "blake2b", "blake3"]
# Digest sizes in bytes. BLAKE2b is the full one of RFC 7693.
FILE_HASHES: Final[dict[FileHash, int]] = {"sha256": 32, "blake2b": 64, "blake3": 32}

_METHODS: Final[tuple[Method, ...]] = get_args(Method)
_Choice = TypeVar("_Choice", bound=str)
_WHAT: Final = "statement"
_PATH_BYTES_MAX: Final = 4096  # PATH_MAX of linux/limits.h
_SHARD_NAME_MAX: Final = _PATH_BYTES_MAX + 2 * 20
_IGNORED_MAX: Final = 1024
_SHARD_NAME_PARTS: Final = 3
# The largest integer that every JSON reader keeps exact (RFC 8259 §6); shards and files are smaller.
_EXACT_MAX: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Serialization:
    """How the files were cut, hashed and chosen.

    ``shard_size`` is in bytes, and ``None`` for method ``files``. ``ignore_paths`` are files, or directories with
    everything below, that the signer left out: sorted, each once. ``allow_symlinks`` says whether links were followed.
    """

    method: Method
    hash_type: FileHash
    allow_symlinks: bool
    ignore_paths: tuple[str, ...]
    shard_size: int | None

    @property
    def algorithm(self) -> str:
        """What each resource must name as its algorithm."""
        return self.hash_type if self.shard_size is None else f"{self.hash_type}-sharded-{self.shard_size}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A file, or its bytes from ``begin`` up to, not including, ``end``; both are ``None`` for a whole file."""

    path: str
    begin: int | None
    end: int | None
    digest: bytes

    @property
    def name(self) -> str:
        """How the statement names it."""
        return self.path if self.begin is None else f"{self.path}:{self.begin}:{self.end}"


@final
@dataclass(frozen=True, slots=True)
class Statement:
    """A well-formed statement. Says nothing of truth: neither who made it, nor that such files exist.

    ``raw`` are the exact bytes, which are what is signed. ``model_name`` is the name of the directory that was signed,
    informative only. ``root`` is the SHA-256 over all resources' digests, which stand in the order of ``resources``.
    """

    model_name: str
    root: bytes
    serialization: Serialization
    resources: tuple[Resource, ...]
    raw: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a statement.

        Raises:
            MalformedEvidence: for anything else: ``VERSION_UNSUPPORTED`` for another type or predicate,
                ``MANIFEST_DIGEST`` when the digest over all resources is not theirs, or a decoding code.
        """
        fields = json_fields(strict.json_decode(data, what=_WHAT), where=_WHAT)
        _check_type(fields, "_type", STATEMENT_TYPE)
        _check_type(fields, "predicateType", PREDICATE_TYPE)
        model_name, root = _subject(fields)
        predicate = fields.table("predicate")
        fields.end()
        serialization = _serialization(predicate.table("serialization"))
        values = predicate.array("resources", limit=limits.MODEL_SIGNATURE_RESOURCES_MAX)
        # No end(): a verifier for v1.0 ignores other fields of the predicate.
        where = f"{_WHAT}.predicate.resources"
        resources = tuple(_resource(value, serialization, f"{where}[{index}]") for index, value in enumerate(values))
        _check_resources(resources, serialization, where)
        if _root(resources) != root:
            raise MalformedEvidence(
                Code.MANIFEST_DIGEST,
                "the digest over all resources is not theirs",
                where=f"{_WHAT}.subject[0].digest",
                expected=_root(resources),
                got=root,
            )
        return cls(model_name, root, serialization, resources, data)

    @classmethod
    def build(cls, model_name: str, serialization: Serialization, resources: Iterable[Resource]) -> Self:
        """The statement about ``resources``, given in any order.

        Raises:
            MalformedEvidence: as :meth:`parse`: a path outside the directory, a duplicate, too many.
        """
        ordered = sorted(resources, key=lambda resource: (resource.path.split("/"), resource.begin or 0))
        how: strict.JsonObject = {
            "method": serialization.method,
            "hash_type": serialization.hash_type,
            "allow_symlinks": serialization.allow_symlinks,
        }
        if serialization.shard_size is not None:
            how["shard_size"] = serialization.shard_size
        if serialization.ignore_paths:
            how["ignore_paths"] = list(serialization.ignore_paths)
        algorithm = serialization.algorithm
        listed: list[strict.JsonValue] = [
            {"name": resource.name, "algorithm": algorithm, "digest": resource.digest.hex()} for resource in ordered
        ]
        document: strict.JsonObject = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": model_name, "digest": {"sha256": _root(ordered).hex()}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"serialization": how, "resources": listed},
        }
        for resource in ordered:
            check_path(resource.path, where=f"{_WHAT}.predicate.resources")
        return cls.parse(strict.json_encode(document))

    def files(self) -> dict[str, list[Resource]]:
        """The resources of each file, by its path; shards in ascending order."""
        found: dict[str, list[Resource]] = {}
        for resource in self.resources:
            found.setdefault(resource.path, []).append(resource)
        for shards in found.values():
            shards.sort(key=lambda resource: resource.begin or 0)
        return found


def ignore_rule(paths: Iterable[str]) -> Callable[[str], bool]:
    """What says of a path whether it is one of ``paths`` or lies below one."""
    prefixes = tuple(f"{path}/" for path in paths)
    return lambda path: f"{path}/".startswith(prefixes)


def json_fields(value: strict.JsonValue, *, where: str) -> cbor.Reader:
    """The fields of a JSON object, numbers made whole: some encoders of the format write ``1000000000.0``.

    Raises:
        MalformedEvidence: ``FIELD_TYPE`` for what is no object, and for a fraction.
    """
    return cbor.read_map(_whole(value, where), where=where)


def _whole(value: strict.JsonValue, where: str) -> cbor.CborValue:
    match value:
        case float():
            if not value.is_integer() or abs(value) > _EXACT_MAX:
                raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="integer", got=value)
            return int(value)  # lenient: a whole number that a double holds exactly
        case list():
            return [_whole(item, where) for item in value]
        case dict():
            return {key: _whole(item, where) for key, item in value.items()}
        case _:
            return value


def _check_type(fields: cbor.Reader, key: str, expected: str) -> None:
    got = fields.text(key)
    if got != expected:
        hint = "sign the model again with a release from 1.0 on" if got == _PREDICATE_TYPE_OLD else ""
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED, "unknown type", where=fields.path(key), expected=expected, got=got, hint=hint
        )


def _subject(fields: cbor.Reader) -> tuple[str, bytes]:
    subjects = cbor.read_array(fields.take("subject"), where=fields.path("subject"), limit=1, size=1)
    subject = cbor.read_map(subjects[0], where=f"{_WHAT}.subject[0]")
    digest = subject.table("digest")
    root = strict.hex_decode(digest.text("sha256"), what=digest.path("sha256"), size=limits.DIGEST_SIZE)
    digest.end()
    name = subject.text("name")
    if not name.isprintable():
        raise MalformedEvidence(Code.FIELD_RANGE, "name is not printable", where=subject.path("name"), got=ascii(name))
    subject.end()
    return name, root


def _serialization(fields: cbor.Reader) -> Serialization:
    method = _choice(fields, "method", _METHODS)
    hash_type = _choice(fields, "hash_type", tuple(FILE_HASHES))
    allow_symlinks = fields.boolean("allow_symlinks")
    ignored: Sequence[cbor.CborValue] = ()
    if fields.has("ignore_paths"):
        ignored = fields.array("ignore_paths", limit=_IGNORED_MAX)
    where = fields.path("ignore_paths")
    paths: set[str] = set()
    for path in ignored:
        if not isinstance(path, str):
            raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="text")
        check_path(path, where=where)
        paths.add(path)
    shard_size = fields.integer("shard_size", low=1, high=_EXACT_MAX) if method == "shards" else None
    if shard_size is not None and hash_type == "blake3":
        # BLAKE3 is parallel by itself: the reference implementation hashes whole files whatever it is asked.
        raise MalformedEvidence(Code.FIELD_RANGE, "shards are never hashed by BLAKE3", where=fields.path("hash_type"))
    fields.end()
    return Serialization(method, hash_type, allow_symlinks, tuple(sorted(paths)), shard_size)


def _choice(fields: cbor.Reader, key: str, accepted: Sequence[_Choice]) -> _Choice:
    value = fields.text(key)
    if value not in accepted:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not an accepted value", where=fields.path(key), expected=" or ".join(accepted), got=value
        )
    return cast("_Choice", value)


def _resource(value: cbor.CborValue, serialization: Serialization, where: str) -> Resource:
    fields = cbor.read_map(value, where=where)
    name = fields.text("name", limit=_SHARD_NAME_MAX)
    algorithm = fields.text("algorithm")
    digest = strict.hex_decode(
        fields.text("digest"), what=fields.path("digest"), size=FILE_HASHES[serialization.hash_type]
    )
    fields.end()
    if algorithm != serialization.algorithm:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "another algorithm than the serialization's",
            where=fields.path("algorithm"),
            expected=serialization.algorithm,
            got=algorithm,
        )
    if serialization.shard_size is None:
        path, begin, end = name, None, None
    else:
        path, begin, end = _shard_name(name, serialization.shard_size, fields.path("name"))
    check_path(path, where=fields.path("name"))
    return Resource(path, begin, end, digest)


def _shard_name(name: str, shard_size: int, where: str) -> tuple[str, int, int]:
    parts = name.split(":")
    if len(parts) != _SHARD_NAME_PARTS:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not the name of a shard", where=where, expected="path:begin:end", got=name
        )
    begin, end = strict.decimal(parts[1], what=where), strict.decimal(parts[2], what=where)
    if begin % shard_size or not 0 < end - begin <= shard_size:
        raise MalformedEvidence(
            Code.FIELD_RANGE, f"not the bounds of a shard of {shard_size} bytes", where=where, got=name
        )
    return parts[0], begin, end


def _check_resources(resources: Sequence[Resource], serialization: Serialization, where: str) -> None:
    """Every file once and in whole, and none that the signer says to have left out."""
    if not resources:
        raise MalformedEvidence(Code.FIELD_RANGE, "nothing is signed", where=where)
    ends: dict[str, int | None] = {}
    ignored = ignore_rule(serialization.ignore_paths)
    for resource in sorted(resources, key=lambda resource: (resource.path, resource.begin or 0)):
        if ignored(resource.path):
            raise MalformedEvidence(Code.FIELD_RANGE, "both signed and ignored", where=where, got=resource.path)
        if resource.begin is None or resource.path not in ends:
            follows = resource.path not in ends and not resource.begin
        else:
            # Only the last shard may be shorter than the others: the next one begins at a multiple of their size.
            follows = resource.begin == ends[resource.path]
        if not follows:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "a repeated name, or a shard is missing", where=where, got=resource.name
            )
        ends[resource.path] = resource.end
    if len(ends) > limits.MANIFEST_FILES_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "too many files", where=where, expected=f"<= {limits.MANIFEST_FILES_MAX}", got=len(ends)
        )


def _root(resources: Iterable[Resource]) -> bytes:
    digest = hashlib.sha256()
    for resource in resources:
        digest.update(resource.digest)
    return digest.digest()
