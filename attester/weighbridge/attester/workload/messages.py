"""The messages an inference server sends, parsed strictly. For their meaning see the client's module docstring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.attester.workload.client import LINE_MAX, PROTOCOL
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.proto.strict import JsonObject, JsonValue

__all__ = ["Done", "Handed", "Handing", "Hello", "Load", "Message", "Range", "Ranges", "Ticked", "Unload", "parse"]

# Per request; far beyond any context length, far below an overflow of a window's sums.
_TOKENS_MAX: Final = 2**32
_BATCH_MAX: Final = 2**20
# A day per request.
_TIME_MAX_NS: Final = 86_400 * 10**9
_NUMBER_MAX: Final = 2**53
_PATH_MAX: Final = 4096
_RANGE: Final[tuple[str, ...]] = ("offset", "size", "digest")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: whether the server wants ticks."""

    ticks: bool


@dataclass(frozen=True, slots=True)
class Load:
    """A model is to be measured. ``directory`` is absolute; ``name`` is ``None`` for the directory's own.

    ``guarded``: a guard will hand over every safetensors file, and nothing is served before it has.
    """

    directory: str
    name: str | None
    guarded: bool


@dataclass(frozen=True, slots=True)
class Handing:
    """A guard is about to read the file at this absolute path, for the load of ``recnum`` or the newest that has it."""

    file: str
    recnum: int | None


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes that a guard read: where they begin in the file, how many, and their digest of 32 bytes."""

    offset: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a guard read of the file ``path`` of the load of ``recnum``, and hands over if it is what was measured."""

    recnum: int
    path: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Handed:
    """A guard is done with a file. ``changed`` says why it gave up, ``None`` when it read all that it was asked for."""

    recnum: int
    path: str
    changed: str | None


@dataclass(frozen=True, slots=True)
class Unload:
    """The model of record ``recnum`` is no longer served."""

    recnum: int


@dataclass(frozen=True, slots=True)
class Done:
    """One request was answered; ``commitment`` is 32 bytes."""

    commitment: bytes
    tokens_in: int
    tokens_out: int
    batch: int
    prefill_ns: int
    decode_ns: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """All that belongs to window ``seq`` by itself was reported."""

    seq: int


Message = Hello | Load | Handing | Ranges | Handed | Unload | Done | Ticked

_FIELDS: Final = {
    "hello": {"protocol", "ticks"},
    "load": {"directory", "name", "guarded"},
    "handing": {"file", "recnum"},
    "ranges": {"recnum", "path", "ranges"},
    "handed": {"recnum", "path", "changed"},
    "unload": {"recnum"},
    "done": {"commitment", "tokens_in", "tokens_out", "batch", "prefill_ns", "decode_ns"},
    "ticked": {"seq"},
}


def parse(line: bytes) -> Message:
    """Parse one line, without its newline.

    Raises:
        MalformedEvidence: a JSON code, ``VERSION_UNSUPPORTED``, or ``FIELD_MISSING``, ``FIELD_UNKNOWN``,
            ``FIELD_TYPE``, ``FIELD_RANGE``.
    """
    value = strict.json_decode(line, what="message", limit=LINE_MAX)
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "message is not an object", where="message")
    kind = value.pop("type", None)
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise MalformedEvidence(Code.FIELD_RANGE, "unknown type", where="message.type", got=ascii(kind))
    for code, keys in (
        (Code.FIELD_MISSING, _FIELDS[kind] - value.keys()),
        (Code.FIELD_UNKNOWN, value.keys() - _FIELDS[kind]),
    ):
        if keys:
            raise MalformedEvidence(code, "wrong fields", where=f"message {kind}", got=ascii(min(keys)))
    return _READERS[kind](value)


def _hello(value: JsonObject) -> Hello:
    protocol = _text(value, "protocol", 64)
    if protocol != PROTOCOL:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED,
            "another protocol",
            where="message.protocol",
            expected=PROTOCOL,
            got=ascii(protocol),
        )
    return Hello(ticks=_boolean(value, "ticks"))


def _load(value: JsonObject) -> Load:
    name = None if value["name"] is None else _text(value, "name", limits.NAME_MAX)
    return Load(directory=_absolute(value, "directory"), name=name, guarded=_boolean(value, "guarded"))


def _handing(value: JsonObject) -> Handing:
    recnum = None if value["recnum"] is None else _number(value, "recnum")
    return Handing(file=_absolute(value, "file"), recnum=recnum)


def _ranges(value: JsonObject) -> Ranges:
    items = value["ranges"]
    if not isinstance(items, list):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where="message.ranges", expected="list")
    return Ranges(
        recnum=_number(value, "recnum"),
        path=_text(value, "path", _PATH_MAX),
        ranges=tuple(_range(item) for item in items),
    )


def _range(item: JsonValue) -> Range:
    if not isinstance(item, list) or len(item) != len(_RANGE):
        raise MalformedEvidence(
            Code.FIELD_TYPE, "wrong type", where="message.ranges", expected="[offset, size, digest]"
        )
    row: JsonObject = dict(zip(_RANGE, item, strict=True))
    digest = strict.hex_decode(_text(row, "digest", 64), what="digest", size=limits.DIGEST_SIZE)
    return Range(_number(row, "offset"), _number(row, "size"), digest)


def _handed(value: JsonObject) -> Handed:
    changed = None if value["changed"] is None else _text(value, "changed", limits.NAME_MAX)
    return Handed(recnum=_number(value, "recnum"), path=_text(value, "path", _PATH_MAX), changed=changed)


def _done(value: JsonObject) -> Done:
    return Done(
        commitment=strict.hex_decode(_text(value, "commitment", 64), what="commitment", size=limits.DIGEST_SIZE),
        tokens_in=_number(value, "tokens_in", high=_TOKENS_MAX),
        tokens_out=_number(value, "tokens_out", high=_TOKENS_MAX),
        batch=_number(value, "batch", low=1, high=_BATCH_MAX),
        prefill_ns=_number(value, "prefill_ns", high=_TIME_MAX_NS),
        decode_ns=_number(value, "decode_ns", high=_TIME_MAX_NS),
    )


def _absolute(value: JsonObject, key: str) -> str:
    path = _text(value, key, _PATH_MAX)
    if not path.startswith("/") or "\0" in path:
        raise MalformedEvidence(Code.FIELD_RANGE, "not an absolute path", where=f"message.{key}", got=ascii(path))
    return path


def _boolean(value: JsonObject, key: str) -> bool:
    flag = value[key]
    if not isinstance(flag, bool):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"message.{key}", expected="boolean")
    return flag


def _text(value: JsonObject, key: str, limit: int) -> str:
    text = value[key]
    if not isinstance(text, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"message.{key}", expected="text")
    if len(text.encode()) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, "text is too long", where=f"message.{key}", expected=f"<= {limit} bytes"
        )
    return text


def _number(value: JsonObject, key: str, *, low: int = 0, high: int = _NUMBER_MAX) -> int:
    number = value[key]
    if isinstance(number, bool) or not isinstance(number, int):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=f"message.{key}", expected="integer")
    if not low <= number <= high:
        raise MalformedEvidence(Code.FIELD_RANGE, "out of range", where=f"message.{key}", expected=f"{low}..{high}")
    return number


_READERS: Final[dict[str, Callable[[JsonObject], Message]]] = {
    "hello": _hello,
    "load": _load,
    "handing": _handing,
    "ranges": _ranges,
    "handed": _handed,
    "unload": lambda value: Unload(recnum=_number(value, "recnum")),
    "done": _done,
    "ticked": lambda value: Ticked(seq=_number(value, "seq")),
}
