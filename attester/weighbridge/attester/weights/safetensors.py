"""The header of a safetensors file, read strictly: what lies where, with nothing left over and nothing twice.

Format: ``u64`` little-endian length N, then N bytes of JSON ``{name: {dtype, shape, data_offsets: [begin, end]}}``,
then the data, to which the offsets are relative (huggingface/safetensors README, "Format"). As its reference
implementation does, this one demands that the tensors cover the data exactly, in some order, without gap or overlap;
beyond it, no key may appear twice and no field be unknown. Values are not looked at.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

from weighbridge.attester.weights.layout import Layout, Span
from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, shorten
from weighbridge.proto.model_files import PATH_MAX

if TYPE_CHECKING:
    from weighbridge.proto.strict import JsonValue

__all__ = ["LENGTH_SIZE", "header_length", "parse_header"]

LENGTH_SIZE: Final = 8
_METADATA: Final = "__metadata__"
_RANK_MAX: Final = 64
_TENSOR_FIELDS: Final = frozenset({"dtype", "shape", "data_offsets"})

# Bits per element: safetensors 0.8, `Dtype` in tensor.rs.
_BITS: Final = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


def header_length(prefix: bytes, *, file_size: int, where: str) -> int:
    """N, from the file's first 8 bytes.

    Raises:
        MalformedEvidence: ``TRUNCATED`` for a file too short for it; ``TOO_LARGE`` beyond ``limits.JSON_MAX``.
    """
    if len(prefix) != LENGTH_SIZE:
        raise MalformedEvidence(Code.TRUNCATED, "no room for the header's length", where=where, expected=LENGTH_SIZE)
    length = int.from_bytes(prefix, "little")
    if length > limits.JSON_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "header is too large", where=where, expected=f"<= {limits.JSON_MAX} bytes", got=length
        )
    if length > file_size - LENGTH_SIZE:
        raise MalformedEvidence(
            Code.TRUNCATED, "header is longer than the file", where=where, expected=f"<= {file_size}", got=length
        )
    return length


def parse_header(header: bytes, *, file_size: int, where: str) -> Layout:
    """The layout of the file: length and header as one unnamed span, then the tensors up to its end.

    Args:
        header: the N bytes that follow the length.
        file_size: of the whole file, in bytes.
        where: the file's path, for messages.

    Raises:
        MalformedEvidence: a JSON code; ``FIELD_MISSING``, ``FIELD_UNKNOWN``, ``FIELD_TYPE`` or ``FIELD_RANGE`` for a
            field; ``NOT_UTF8`` or ``TOO_LARGE`` for a name; ``TRUNCATED`` or ``TRAILING_BYTES`` when the tensors do
            not end where the file does.
    """
    document = strict.json_decode(header, what=where)
    # Blanks may follow the object, so that the data is aligned, but not precede it.
    if not isinstance(document, dict) or not header.startswith(b"{"):
        raise MalformedEvidence(Code.FIELD_TYPE, "header is not an object from its first byte", where=where)
    _check_metadata(document.pop(_METADATA, {}), f"{where}#{_METADATA}")
    start = LENGTH_SIZE + len(header)
    spans = [_span(name, value, start=start, where=_place(where, name)) for name, value in document.items()]
    spans.sort(key=lambda span: (span.begin, span.end, span.name or ""))
    position = start
    for span in spans:
        if span.begin != position:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "tensors overlap or leave a gap",
                where=_place(where, span.name),
                expected=f"begin {position - start}",
                got=span.begin - start,
            )
        position = span.end
    if position != file_size:
        code = Code.TRUNCATED if position > file_size else Code.TRAILING_BYTES
        raise MalformedEvidence(
            code, "tensors do not end where the file does", where=where, expected=file_size, got=position
        )
    return Layout("safetensors", (Span.unnamed(0, start), *spans))


def _place(where: str, name: str | None) -> str:
    return where if name is None else f"{where}#{name if name.isprintable() else ascii(name)}"


def _check_metadata(value: JsonValue, where: str) -> None:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise MalformedEvidence(Code.FIELD_TYPE, "metadata does not map text to text", where=where)


def _check_name(name: str, where: str) -> None:
    size = len(name.encode())
    if size > PATH_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE, "name is too long", where=shorten(where), expected=f"<= {PATH_MAX} bytes", got=size
        )


def _span(name: str, value: JsonValue, *, start: int, where: str) -> Span:
    _check_name(name, where)
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="object")
    for code, keys in (
        (Code.FIELD_MISSING, _TENSOR_FIELDS - value.keys()),
        (Code.FIELD_UNKNOWN, value.keys() - _TENSOR_FIELDS),
    ):
        if keys:
            raise MalformedEvidence(code, "wrong fields", where=where, got=", ".join(sorted(map(ascii, keys))))
    dtype = value["dtype"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise MalformedEvidence(Code.FIELD_RANGE, "unknown dtype", where=f"{where}.dtype", got=ascii(dtype))
    shape = _numbers(value["shape"], f"{where}.shape")
    offsets = _numbers(value["data_offsets"], f"{where}.data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - begin and end
        raise MalformedEvidence(Code.FIELD_RANGE, "not a begin and an end", where=f"{where}.data_offsets", got=offsets)
    begin, end = offsets
    bits = prod(shape) * _BITS[dtype]
    if bits != (end - begin) * 8:
        raise MalformedEvidence(
            Code.FIELD_RANGE,
            "size is not that of the shape",
            where=where,
            expected=f"{bits} bits",
            got=f"{end - begin} bytes",
        )
    return Span(name=name, dtype=dtype, shape=shape, begin=start + begin, end=start + end)


def _numbers(value: JsonValue, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _RANK_MAX:
        raise MalformedEvidence(Code.FIELD_TYPE, "not a short list", where=where)
    numbers = [item for item in value if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63]
    if len(numbers) != len(value):
        raise MalformedEvidence(Code.FIELD_RANGE, "not a list of sizes", where=where)
    return tuple(numbers)
