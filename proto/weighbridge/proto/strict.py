"""Strict decoders in place of Python's lenient ones.

``b64decode`` drops junk, ``bytes.fromhex`` takes spaces, ``int()`` takes ``" +1_0 "`` and other scripts' digits,
``json.loads`` keeps the last of two equal keys and reads ``NaN``, ``fromisoformat`` takes naive times. Each is
wrapped once, here; the raw ones are banned elsewhere by a lint rule and a test. All raise
:class:`MalformedEvidence` and nothing else on any input.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections import Counter
from datetime import UTC, datetime
from typing import Final, NoReturn

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = [
    "JsonObject",
    "JsonValue",
    "base64_decode",
    "base64_encode",
    "base64url_decode",
    "base64url_encode",
    "decimal",
    "hex_decode",
    "json_decode",
    "json_encode",
    "time_decode",
    "time_encode",
    "unpack",
]

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject = dict[str, JsonValue]

_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[{\]}]")
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
# What holds itself ends in a RecursionError: it is misuse, and looking for it costs a tenth.
_COMPACT: Final = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")


def hex_decode(text: str, *, what: str, size: int | None = None) -> bytes:
    """Lower-case hexadecimal of exactly ``size`` bytes where given.

    Raises:
        MalformedEvidence: ``NOT_HEX`` or ``FIELD_RANGE``.
    """
    if not _HEX.fullmatch(text):
        raise MalformedEvidence(Code.NOT_HEX, f"{what} is not lower-case hexadecimal", where=what, got=text[:40])
    value = bytes.fromhex(text)
    if size is not None and len(value) != size:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            f"{what} has the wrong length",
            where=what,
            expected=f"{size} bytes",
            got=len(value),
        )
    return value


def base64_decode(text: str | bytes, *, what: str) -> bytes:
    """Standard base64 with padding (RFC 4648 §4), canonical: re-encoding gives the same text.

    Raises:
        MalformedEvidence: ``NOT_BASE64``.
    """
    return _base64(text, what, alphabet=b"+/", padded=True)


def base64url_decode(text: str | bytes, *, what: str) -> bytes:
    """URL-safe base64 without padding (RFC 7515 §2), canonical.

    Raises:
        MalformedEvidence: ``NOT_BASE64``.
    """
    return _base64(text, what, alphabet=b"-_", padded=False)


def base64_encode(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode()


def base64url_encode(data: bytes) -> str:
    """URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _base64(text: str | bytes, what: str, *, alphabet: bytes, padded: bool) -> bytes:
    try:
        raw = text.encode("ascii") if isinstance(text, str) else bytes(text)
        filled = raw if padded else raw + b"=" * (-len(raw) % 4)
        value = base64.b64decode(filled, altchars=alphabet, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise MalformedEvidence(Code.NOT_BASE64, f"{what} is not base64", where=what, clause="RFC 4648 §3.5") from error
    again = base64.b64encode(value, altchars=alphabet)
    if (again if padded else again.rstrip(b"=")) != raw:
        raise MalformedEvidence(Code.NOT_BASE64, f"{what} is not canonical base64", where=what, clause="RFC 4648 §3.5")
    return value


def decimal(text: str, *, what: str, limit: int = 2**63 - 1) -> int:
    """A non-negative decimal integer in ASCII digits without leading zeros.

    Raises:
        MalformedEvidence: ``NOT_A_NUMBER`` or ``FIELD_RANGE``.
    """
    if not _DECIMAL.fullmatch(text):
        raise MalformedEvidence(Code.NOT_A_NUMBER, f"{what} is not a decimal number", where=what, got=text[:40])
    value = int(text)
    if value > limit:
        raise MalformedEvidence(Code.FIELD_RANGE, f"{what} is too large", where=what, expected=f"<= {limit}", got=value)
    return value


def time_decode(text: str, *, what: str) -> datetime:
    """An RFC 3339 time in UTC, spelt with a capital ``T`` and ``Z``.

    Raises:
        MalformedEvidence: ``NOT_A_TIME``.
    """
    if not _TIME.fullmatch(text):
        raise MalformedEvidence(
            Code.NOT_A_TIME, f"{what} is not a UTC time such as 2026-01-31T12:00:00Z", where=what, got=text[:40]
        )
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedEvidence(Code.NOT_A_TIME, f"{what} is not a time: {error}", where=what, got=text) from error


def time_encode(moment: datetime) -> str:
    """``moment``, which must be aware, as RFC 3339 in UTC with microseconds cut when zero."""
    if moment.tzinfo is None:
        raise ValueError("naive time")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def json_decode(data: bytes, *, what: str, limit: int = limits.JSON_MAX) -> JsonValue:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or infinities, bounded size and depth.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``TOO_DEEP``, ``NOT_UTF8``, ``DUPLICATE_KEY`` or ``NOT_JSON``.
    """
    if len(data) > limit:
        raise MalformedEvidence(
            Code.TOO_LARGE, f"{what} is too large", where=what, expected=f"<= {limit} bytes", got=f"{len(data)} bytes"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEvidence(Code.NOT_UTF8, f"{what} is not UTF-8", where=f"{what}[{error.start}]") from error
    _check_depth(text, what)

    def pairs(items: list[tuple[str, JsonValue]]) -> JsonObject:
        result = dict(items)
        if len(result) != len(items):
            twice = Counter(key for key, _ in items).most_common(1)[0][0]
            raise MalformedEvidence(
                Code.DUPLICATE_KEY, f"{what} repeats a key", where=what, got=twice, clause="RFC 7493 §2.3"
            )
        return result

    def constant(name: str) -> NoReturn:
        raise MalformedEvidence(Code.NOT_JSON, f"{what} contains {name}", where=what, clause="RFC 8259 §6")

    def finite(digits: str) -> float:
        # 1e999 is a number in the grammar and infinity in a double: no encoder could say it again.
        value = float(digits)
        return value if math.isfinite(value) else constant(digits)

    try:
        value: JsonValue = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence(Code.NOT_JSON, f"{what} is not JSON: {error}", where=what, clause="RFC 8259") from error
    _check_whole_characters(text, value, what)
    return value


def _check_whole_characters(text: str, value: JsonValue, what: str) -> None:
    r"""Refuse an escape such as ``\ud800`` without its other half: no UTF-8 can say it again."""
    if "\\ud" not in text.lower():
        return
    try:
        json_encode(value)
    except UnicodeEncodeError as error:
        raise MalformedEvidence(
            Code.NOT_UTF8, f"{what} spells half a character", where=what, clause="RFC 7493 §2.1"
        ) from error


def _check_depth(text: str, what: str) -> None:
    """Refuse deep nesting before the parser recurses into it. Brackets inside strings do not count."""
    # Most documents have fewer brackets than levels are allowed: no need to look at where they stand.
    if text.count("[") + text.count("{") <= limits.JSON_DEPTH_MAX:
        return
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest <= limits.JSON_DEPTH_MAX:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > limits.JSON_DEPTH_MAX:
                raise MalformedEvidence(
                    Code.TOO_DEEP,
                    f"{what} is nested too deeply",
                    where=f"{what}[{token.start()}]",
                    expected=limits.JSON_DEPTH_MAX,
                )
        elif first in "]}":
            depth -= 1


def json_encode(value: object, *, indent: int | None = None) -> bytes:
    """Sorted, UTF-8, without NaN; compact unless ``indent`` is given.

    Raises:
        ValueError: for NaN and infinities.
        TypeError: for a type that JSON has no word for.
    """
    if indent is None:
        return _COMPACT.encode(value).encode()
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent).encode()


def unpack(layout: str, data: bytes, *, what: str) -> tuple[int, ...]:
    """``struct.unpack`` of exactly all of ``data``.

    Raises:
        MalformedEvidence: ``TRUNCATED`` or ``TRAILING_BYTES``.
    """
    size = struct.calcsize(layout)
    if len(data) != size:
        code = Code.TRUNCATED if len(data) < size else Code.TRAILING_BYTES
        raise MalformedEvidence(
            code, f"{what} has the wrong length", where=what, expected=f"{size} bytes", got=len(data)
        )
    return struct.unpack(layout, data)
