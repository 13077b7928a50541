"""The messages an inference server sends, parsed strictly. For their meaning see the client's module docstring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.attester.workload.client import LINE_MAX, PROTOCOL
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

if TYPE_CHECKING:
    from weighbridge.proto.strict import JsonObject

__all__ = ["Done", "Hello", "Load", "Message", "Ticked", "Unload", "parse"]

# Per request; far beyond any context length, far below an overflow of a window's sums.
_TOKENS_MAX: Final = 2**32
_BATCH_MAX: Final = 2**20
_NUMBER_MAX: Final = 2**53
_PATH_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: whether the server wants ticks."""

    ticks: bool


@dataclass(frozen=True, slots=True)
class Load:
    """A model is to be measured. ``directory`` is absolute; ``name`` is ``None`` for the directory's own."""

    directory: str
    name: str | None


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


@dataclass(frozen=True, slots=True)
class Ticked:
    """All that belongs to window ``seq`` by itself was reported."""

    seq: int


Message = Hello | Load | Unload | Done | Ticked

_FIELDS: Final = {
    "hello": {"protocol", "ticks"},
    "load": {"directory", "name"},
    "unload": {"recnum"},
    "done": {"commitment", "tokens_in", "tokens_out", "batch"},
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
    match kind:
        case "hello":
            return _hello(value)
        case "load":
            name = None if value["name"] is None else _text(value, "name", limits.NAME_MAX)
            return Load(directory=_directory(value), name=name)
        case "unload":
            return Unload(recnum=_number(value, "recnum"))
        case "done":
            return Done(
                commitment=strict.hex_decode(
                    _text(value, "commitment", 64), what="commitment", size=limits.DIGEST_SIZE
                ),
                tokens_in=_number(value, "tokens_in", high=_TOKENS_MAX),
                tokens_out=_number(value, "tokens_out", high=_TOKENS_MAX),
                batch=_number(value, "batch", low=1, high=_BATCH_MAX),
            )
        case _:
            return Ticked(seq=_number(value, "seq"))


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
    ticks = value["ticks"]
    if not isinstance(ticks, bool):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where="message.ticks", expected="boolean")
    return Hello(ticks=ticks)


def _directory(value: JsonObject) -> str:
    directory = _text(value, "directory", _PATH_MAX)
    if not directory.startswith("/") or "\0" in directory:
        raise MalformedEvidence(
            Code.FIELD_RANGE, "not an absolute path", where="message.directory", got=ascii(directory)
        )
    return directory


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
