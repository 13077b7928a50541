"""One frame, of the size that was stated, and nothing else."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.zstd import compress, decompress

CONTENT = b"weighbridge " * 100
DICTIONARY = zstandard.ZstdCompressionDict(CONTENT, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


@given(st.binary(max_size=5000))
def test_what_is_compressed_is_there_again(data: bytes) -> None:
    assert decompress(compress(data), size=len(data), what="test") == data


@pytest.mark.parametrize("level", [-5, 1, 3, 19])
@pytest.mark.parametrize("checksum", [False, True])
def test_others_frames_are_read(level: int, checksum: bool) -> None:
    frame = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(CONTENT)
    assert decompress(frame, size=len(CONTENT), what="test") == CONTENT


def _large_window() -> bytes:
    """A frame that wants 128 MiB of window for its 1200 bytes: the header's window descriptor says so."""
    frame = bytearray(b"\x28\xb5\x2f\xfd")
    frame += bytes([0x40, (27 - 10) << 3])  # content size in two bytes, window of 2**27
    frame += (len(CONTENT) - 256).to_bytes(2, "little")
    frame += (1 | len(CONTENT) << 3).to_bytes(3, "little")  # the last block, raw
    return bytes(frame + CONTENT)


def _lying(more: int) -> bytes:
    """A frame whose one raw block holds ``more`` bytes than its header declares."""
    size = len(CONTENT) + more
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x60]) + (len(CONTENT) - 256).to_bytes(2, "little")
    return frame + (1 | size << 3).to_bytes(3, "little") + bytes(size)


def test_the_handmade_frame_is_one() -> None:
    assert decompress(_lying(0), size=len(CONTENT), what="test") == bytes(len(CONTENT))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        CONTENT,
        compress(CONTENT)[:-1],
        compress(CONTENT) + b"\0",
        compress(CONTENT) + compress(b""),
        compress(b"") + compress(CONTENT),
        b"\x50\x2a\x4d\x18" + len(CONTENT).to_bytes(4, "little") + CONTENT,
        zstandard.ZstdCompressor(write_content_size=False).compress(CONTENT),
        zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(CONTENT),
        zstandard.ZstdCompressor(dict_data=DICTIONARY, write_dict_id=False).compress(CONTENT),
        _large_window(),
        _lying(1),
        _lying(-1),
    ],
    ids=range(14),
)
def test_anything_else_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        decompress(frame, size=len(CONTENT), what="test")
    assert caught.value.code == Code.NOT_ZSTD


@pytest.mark.parametrize("size", [0, len(CONTENT) - 1, len(CONTENT) + 1, 2**40])
def test_another_size_than_stated_is_refused(size: int) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        decompress(compress(CONTENT), size=size, what="test")
    assert caught.value.code == Code.NOT_ZSTD


@given(st.dictionaries(st.integers(0, 60), st.integers(0, 255), min_size=1, max_size=4), st.integers(0, 2000))
def test_any_change_is_malformed_or_has_the_size(changes: dict[int, int], size: int) -> None:
    frame = bytearray(compress(CONTENT))
    for offset, change in changes.items():
        frame[offset % len(frame)] = change
    try:
        content = decompress(bytes(frame), size=size, what="test")
    except MalformedEvidence:
        return
    assert len(content) == size


@given(st.binary(max_size=60), st.integers(0, 100))
def test_any_bytes_are_malformed_or_have_the_size(data: bytes, size: int) -> None:
    for frame in (data, b"\x28\xb5\x2f\xfd" + data):
        try:
            content = decompress(frame, size=size, what="test")
        except MalformedEvidence:
            continue
        assert len(content) == size
