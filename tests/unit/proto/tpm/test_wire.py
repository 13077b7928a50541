"""The reader under all TPM structures: nothing beyond its end, nothing left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tpm.wire import WireReader, sized, u16, u32


def test_reads_integers_big_endian_and_sized_buffers() -> None:
    reader = WireReader(bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f 0002beef"), "x")
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (1, 0x203, 0x4050607, 0x8090A0B0C0D0E0F)
    assert reader.place == "x[15]"
    assert reader.sized(2) == b"\xbe\xef"
    reader.end()


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", Code.TRUNCATED), (b"\0", Code.TRUNCATED), (b"\0\2a", Code.TRUNCATED), (b"\0\5abcde", Code.TPM_STRUCTURE)],
)
def test_sized_is_bounded(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        WireReader(data, "x").sized(4)
    assert caught.value.code is code


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        WireReader(b"a", "x").end()
    assert caught.value.code is Code.TRAILING_BYTES


def test_more_than_any_structure_has_is_refused_before_reading() -> None:
    """A70: limits come before parsing."""
    with pytest.raises(MalformedEvidence) as caught:
        WireReader(bytes(limits.TPM_STRUCTURE_MAX + 1), "x")
    assert caught.value.code is Code.TOO_LARGE


@given(st.binary(max_size=300))
def test_sized_is_read_back(data: bytes) -> None:
    reader = WireReader(sized(data), "x")
    assert reader.sized(300) == data
    reader.end()


def test_writers_refuse_what_does_not_fit() -> None:
    assert (u16(1), u32(1)) == (b"\0\1", b"\0\0\0\1")
    with pytest.raises(ValueError, match="do not fit"):
        sized(bytes(65_536))
