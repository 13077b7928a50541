"""Zstandard (RFC 8878) in one strict shape: one frame, of a size known before it is unpacked, and nothing after it.

What is compressed is small and signed beside, so a frame has neither a dictionary nor a need for a checksum. One
content has many frames: hash and sign a frame as it was sent, never one made again.

>>> decompress(compress(b"weigh " * 99), size=594, what="example")[:6]
b'weigh '
"""

from __future__ import annotations

import threading
from typing import Final

import zstandard

from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["LONG_WINDOW", "compress", "compress_long", "decompress"]

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# Every decoder should take this much (RFC 8878 §3.1.1.1.2); more is refused.
_WINDOW_MAX: Final = 8 * 1024 * 1024
_LONG_WINDOW_LOG: Final = 27
_LEVEL: Final = 9

LONG_WINDOW: Final = 1 << _LONG_WINDOW_LOG
"""The largest window of :func:`compress_long`, in bytes."""


class _Own(threading.local):
    """Each thread's own decompressor: to make one takes longer than to unpack what a window brings."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)


_OWN: Final = _Own()


def compress(data: bytes, *, level: int = _LEVEL) -> bytes:
    """One frame that declares the size of ``data``; ``level`` is zstd's, 1 the fastest."""
    return zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True).compress(data)


def compress_long(data: bytes) -> bytes:
    """As :func:`compress`, of content that repeats itself far apart: what came anywhere before costs nothing again."""
    window = min(max(len(data).bit_length(), zstandard.WINDOWLOG_MIN), _LONG_WINDOW_LOG)
    chosen = zstandard.ZstdCompressionParameters(
        compression_level=_LEVEL, window_log=window, enable_ldm=True, write_checksum=False, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=chosen).compress(data)


def decompress(data: bytes, *, size: int, what: str, window: int = _WINDOW_MAX) -> bytes:
    """The content of one frame. Bound ``size`` first: that much memory is taken, and no more.

    Args:
        data: untrusted.
        size: of the content, which the frame must declare and have.
        what: the name of the structure, for messages.
        window: the largest window that is accepted; of a frame of :func:`compress_long`, ``LONG_WINDOW``. Content is
            unpacked in one piece, so a window takes no memory beside it.

    Raises:
        MalformedEvidence: ``NOT_ZSTD`` for anything but one whole frame of that size without a dictionary.
    """
    try:
        declared = zstandard.get_frame_parameters(data)
        # A skippable frame has parameters too, and its size is not the content's.
        if not data.startswith(_MAGIC):
            raise _refused("another kind of frame", what)
        if declared.content_size != size:
            raise _refused("the frame does not declare the size that was stated", what, expected=size)
        if declared.dict_id or declared.window_size > window:
            raise _refused("a dictionary or too large a window", what)
        usual = window == _WINDOW_MAX
        unpacking = _OWN.decompressor if usual else zstandard.ZstdDecompressor(max_window_size=window)
        # Fails where the content has another size than the frame declares. Nothing is left of one call for the next.
        return unpacking.decompress(data, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        raise _refused(str(error), what) from error


def _refused(reason: str, what: str, *, expected: int | None = None) -> MalformedEvidence:
    return MalformedEvidence(
        Code.NOT_ZSTD,
        f"{what} is not one whole zstd frame: {reason}",
        where=what,
        expected=expected,
        clause="RFC 8878 §3.1",
    )
