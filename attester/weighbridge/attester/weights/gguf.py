"""The header of a GGUF file, read strictly: what lies where, with nothing between that is not padding.

Format: ``docs/gguf.md`` of ggml-org/ggml, versions 2 and 3, little-endian; where it leaves a choice, what the reference
reader takes (llama.cpp b6000 and later, ``ggml/src/gguf.cpp``): tensors lie in the order of their descriptions, each
right behind the one before it, padded to the alignment. Sizes are those of ``ggml/src/ggml-common.h``. Beyond the
reference reader, nothing may follow the last tensor and its padding.

Values of metadata are passed over, but for ``general.alignment``; those of padding are not looked at either, since all
of it is hashed.
"""

from __future__ import annotations

from math import prod
from typing import Final

from weighbridge.attester.weights.layout import Layout, Span
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["HEADER_MAX", "parse_header"]

# A vocabulary of 262,144 tokens with scores and types takes 6 MB, one of 128,256 tokens with merges 7 MB.
HEADER_MAX: Final = 32 * 1024 * 1024

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT_KEY: Final = b"general.alignment"
_ALIGNMENT_DEFAULT: Final = 32
_DIMENSIONS_MAX: Final = 4  # GGML_MAX_DIMS
_NAME_MAX: Final = 255  # GGML_MAX_NAME is 64 unless ggml was built with another
_NESTED_MAX: Final = 4  # the reference reader takes none
_PAIRS_MAX: Final = 65_536  # models have some dozens
_KEY_MAX: Final = 65_535  # gguf.md, gguf_metadata_kv_t

_UINT32, _STRING, _ARRAY = 4, 8, 9
# Bytes of a value, by the number of its type: gguf_type in gguf.h.
_VALUE_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

# By its number in ggml.h: name, elements of a block, bytes of a block. Left out: 4, 5, 31 to 33 and 36 to 38, which the
# format has dropped.
_TYPES: Final = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),  # two halves and 32 bytes in C; gguf-py 0.19 says 40
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}


def parse_header(prefix: bytes, *, file_size: int, where: str) -> Layout | None:
    """The layout of the file that begins with ``prefix``: header, tensors and padding.

    Args:
        prefix: the first bytes of the file: any number of them, up to ``HEADER_MAX``.
        file_size: of the whole file, in bytes.
        where: the file's path, for messages.

    Returns:
        ``None`` when the header is longer than ``prefix``: call again with more of the file.

    Raises:
        MalformedEvidence: ``VERSION_UNSUPPORTED`` for another version or big-endian; ``TOO_LARGE`` beyond
            ``HEADER_MAX`` or what a manifest can hold; ``NOT_UTF8``, ``DUPLICATE_KEY`` or ``FIELD_RANGE`` for a field;
            ``TRUNCATED`` or ``TRAILING_BYTES`` when the tensors do not end where the file does.
    """
    try:
        return _Header(prefix, file_size, where).layout()
    except _PrefixEndsError:
        if len(prefix) < HEADER_MAX:
            return None
    raise MalformedEvidence(Code.TOO_LARGE, "header is too large", where=where, expected=f"<= {HEADER_MAX} bytes")


class _PrefixEndsError(Exception):
    """The header goes on behind the prefix, and the file is long enough for it."""


class _Header:
    """One pass over a header."""

    def __init__(self, data: bytes, file_size: int, where: str) -> None:
        self._data = data
        self._file_size = file_size
        self._where = where
        self._position = 0
        self._alignment = _ALIGNMENT_DEFAULT

    def layout(self) -> Layout:
        if self._take(len(_MAGIC)) != _MAGIC:
            raise self._refusal(Code.FIELD_RANGE, "not a GGUF file", expected="GGUF")
        self._version()
        tensors = self._count("tensors", limits.MANIFEST_PARTS_MAX)
        pairs = self._count("metadata", _PAIRS_MAX)
        self._metadata(pairs)
        described = self._descriptions(tensors)
        return Layout("gguf", tuple(self._placed(described)))

    # -- header fields

    def _version(self) -> None:
        raw = self._take(4)
        version = int.from_bytes(raw, "little")
        if version in _VERSIONS:
            return
        if int.from_bytes(raw, "big") in _VERSIONS:
            raise self._refusal(
                Code.VERSION_UNSUPPORTED, "big-endian GGUF", hint="convert the file to little-endian, as models come"
            )
        raise self._refusal(Code.VERSION_UNSUPPORTED, "unknown version of GGUF", expected="2 or 3", got=version)

    def _count(self, what: str, limit: int) -> int:
        count = self._number(8)
        if count > limit:
            raise self._refusal(Code.TOO_LARGE, f"too many {what}", expected=f"<= {limit}", got=count)
        return count

    def _metadata(self, count: int) -> None:
        seen: set[bytes] = set()
        for _ in range(count):
            key = self._string(limit=_KEY_MAX)
            if key in seen or not key:
                raise self._refusal(Code.DUPLICATE_KEY, "metadata key is empty or twice", got=ascii(key[:40]))
            seen.add(key)
            kind = self._number(4)
            if key == _ALIGNMENT_KEY:
                self._set_alignment(kind)
            else:
                self._skip(kind, depth=0)

    def _set_alignment(self, kind: int) -> None:
        if kind != _UINT32:
            raise self._refusal(Code.FIELD_TYPE, "alignment is not a uint32", got=kind)
        self._alignment = self._number(4)
        if self._alignment.bit_count() != 1:
            raise self._refusal(Code.FIELD_RANGE, "alignment is not a power of two", got=self._alignment)

    def _skip(self, kind: int, depth: int) -> None:
        size = _VALUE_SIZES.get(kind)
        if size is not None:
            self._pass_over(size)
        elif kind == _STRING:
            self._pass_over(self._number(8))
        elif kind == _ARRAY:
            self._skip_array(depth + 1)
        else:
            raise self._refusal(Code.FIELD_RANGE, "unknown type of metadata", got=kind)

    def _skip_array(self, depth: int) -> None:
        if depth > _NESTED_MAX:
            raise self._refusal(Code.TOO_DEEP, "metadata is nested too deeply", expected=_NESTED_MAX)
        kind, count = self._number(4), self._number(8)
        size = _VALUE_SIZES.get(kind)
        if size is not None:
            self._pass_over(count * size)
            return
        if kind not in (_STRING, _ARRAY):
            raise self._refusal(Code.FIELD_RANGE, "unknown type of metadata", got=kind)
        # Each element has a length of its own, eight bytes: a false count soon meets the end of the file.
        if kind == _STRING:
            self._skip_strings(count)
            return
        for _ in range(count):
            self._skip(kind, depth)

    def _skip_strings(self, count: int) -> None:
        # A vocabulary and its merges: the one place with enough elements for a call each to be felt.
        data, position, end = self._data, self._position, len(self._data) - 8
        for _ in range(count):
            if position > end:
                break
            position += 8 + int.from_bytes(data[position : position + 8], "little")
        else:
            self._pass_over(position - self._position)
            return
        self._pass_over(position + 8 - self._position)

    # -- tensors

    def _descriptions(self, count: int) -> list[tuple[Span, int]]:
        """Each tensor as a span from 0 to its size, and the offset where it is said to lie."""
        found: list[tuple[Span, int]] = []
        names: set[str] = set()
        for _ in range(count):
            name = self._tensor_name()
            if name in names:
                raise self._refusal(Code.DUPLICATE_KEY, "tensor is twice", tensor=name)
            names.add(name)
            dimensions = self._number(4)
            if dimensions > _DIMENSIONS_MAX:
                raise self._refusal(
                    Code.FIELD_RANGE, "too many dimensions", tensor=name, expected=_DIMENSIONS_MAX, got=dimensions
                )
            shape = tuple(self._number(8) for _ in range(dimensions))
            dtype, size = self._size(name, shape, self._number(4))
            found.append((Span(name, dtype, shape, 0, size), self._number(8)))
        return found

    def _tensor_name(self) -> str:
        raw = self._string(limit=_NAME_MAX)
        try:
            name = raw.decode()
        except UnicodeDecodeError as error:
            raise self._refusal(Code.NOT_UTF8, "tensor's name is not UTF-8", got=raw) from error
        # The reference reader ends a name at its first zero byte.
        if not name or "\0" in name:
            raise self._refusal(Code.FIELD_RANGE, "tensor's name is empty or has a zero byte", got=ascii(name))
        return name

    def _size(self, name: str, shape: tuple[int, ...], number: int) -> tuple[str, int]:
        if number not in _TYPES:
            raise self._refusal(
                Code.FIELD_RANGE,
                "unknown ggml type",
                tensor=name,
                got=number,
                hint="a type of a fork, or one newer than this release: convert the file to a type of llama.cpp's",
            )
        dtype, elements, size = _TYPES[number]
        row = shape[0] if shape else 1
        if row % elements or prod(shape) >= 2**63:
            raise self._refusal(
                Code.FIELD_RANGE, f"shape does not fit {dtype}", tensor=name, expected=f"rows of {elements}", got=shape
            )
        return dtype, prod(shape) // elements * size

    def _placed(self, described: list[tuple[Span, int]]) -> list[Span]:
        """All spans of the file. Each offset must be the only one possible, so there is no gap and no overlap."""
        header = self._position
        start = self._padded(header)
        end, position = header, start
        spans = [Span.unnamed(0, header)]
        for span, offset in described:
            if offset != position - start:
                raise self._refusal(
                    Code.FIELD_RANGE,
                    "tensors overlap, leave a gap or are out of order",
                    tensor=span.name,
                    expected=f"offset {position - start}",
                    got=offset,
                )
            if position > end:
                spans.append(Span.unnamed(end, position))
            end = position + span.end
            spans.append(Span(span.name, span.dtype, span.shape, position, end))
            position = self._padded(end)
        # Padding behind the last tensor is written by some, not by all.
        if self._file_size not in (end, position):
            code = Code.TRUNCATED if self._file_size < end else Code.TRAILING_BYTES
            raise self._refusal(code, "tensors do not end where the file does", expected=self._file_size, got=end)
        if self._file_size > end:
            spans.append(Span.unnamed(end, self._file_size))
        return spans

    def _padded(self, position: int) -> int:
        return -(-position // self._alignment) * self._alignment

    # -- bytes

    def _take(self, size: int) -> bytes:
        begin = self._position
        self._pass_over(size)
        return self._data[begin : self._position]

    def _pass_over(self, size: int) -> None:
        position = self._position + size
        if position > len(self._data):
            if position > self._file_size:
                raise self._refusal(Code.TRUNCATED, "header is longer than the file", expected=f"<= {self._file_size}")
            raise _PrefixEndsError
        self._position = position

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _string(self, limit: int) -> bytes:
        size = self._number(8)
        if size > limit:
            raise self._refusal(Code.TOO_LARGE, "string is too long", expected=f"<= {limit} bytes", got=size)
        return self._take(size)

    def _refusal(
        self,
        code: Code,
        message: str,
        *,
        tensor: str | None = None,
        expected: object = None,
        got: object = None,
        hint: str = "",
    ) -> MalformedEvidence:
        where = self._where if tensor is None else f"{self._where}#{tensor if tensor.isprintable() else ascii(tensor)}"
        return MalformedEvidence(code, message, where=where, expected=expected, got=got, hint=hint)
