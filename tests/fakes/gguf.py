"""Small GGUF files, written by the format's description: ggml-org/ggml, docs/gguf.md, version 3."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

UINT32, STRING, ARRAY = 4, 8, 9
F32, Q4_0 = 0, 2


@dataclass(frozen=True)
class Tensor:
    """A tensor's description and its bytes. ``offset`` is where it lies, unless it is to be said wrongly."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    data: bytes
    offset: int | None = None


@dataclass(frozen=True)
class Gguf:
    """A file; every field may be made wrong with :meth:`but`."""

    tensors: tuple[Tensor, ...] = (
        Tensor(b"token_embd.weight", (32, 2), F32, bytes(range(256))),
        Tensor(b"blk.0.attn_q.weight", (64,), Q4_0, b"q" * 36),
        Tensor(b"output_norm.weight", (3,), F32, b"n" * 12),
    )
    metadata: tuple[tuple[bytes, int, bytes], ...] = ()
    magic: bytes = b"GGUF"
    version: int = 3
    order: str = "<"
    alignment: int = 32
    tensor_count: int | None = None
    pair_count: int | None = None
    pad_last: bool = True
    tail: bytes = b""

    def but(self, **changes: Any) -> Gguf:  # noqa: ANN401 - any field
        return replace(self, **changes)

    def header(self) -> bytes:
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        pairs = len(self.metadata) if self.pair_count is None else self.pair_count
        parts = [self.magic, struct.pack(f"{self.order}IQQ", self.version, tensors, pairs)]
        parts += [text(key) + struct.pack("<I", kind) + value for key, kind, value in self.metadata]
        offset = 0
        for tensor in self.tensors:
            said = offset if tensor.offset is None else tensor.offset
            parts.append(
                text(tensor.name)
                + struct.pack(f"<I{len(tensor.shape)}QIQ", len(tensor.shape), *tensor.shape, tensor.kind, said)
            )
            offset += padded(len(tensor.data), self.alignment)
        return b"".join(parts)

    def data(self) -> bytes:
        file = bytearray(self.header())
        for index, tensor in enumerate(self.tensors):
            file += bytes(padded(len(file), self.alignment) - len(file)) + tensor.data
            if self.pad_last and index == len(self.tensors) - 1:
                file += bytes(padded(len(file), self.alignment) - len(file))
        return bytes(file) + self.tail


def padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def text(value: bytes) -> bytes:
    """A string as GGUF writes it."""
    return struct.pack("<Q", len(value)) + value


def array(kind: int, *items: bytes, count: int | None = None) -> bytes:
    """The value of an array."""
    return struct.pack("<IQ", kind, len(items) if count is None else count) + b"".join(items)


def real() -> Gguf:
    """A file with metadata as models have it: an architecture, a vocabulary with scores, an alignment."""
    return Gguf(
        metadata=(
            (b"general.architecture", STRING, text(b"llama")),
            (b"llama.context_length", UINT32, struct.pack("<I", 2048)),
            (b"tokenizer.ggml.tokens", ARRAY, array(STRING, text(b"<s>"), text("ä".encode()), text(b""))),
            (b"tokenizer.ggml.scores", ARRAY, array(6, *(struct.pack("<f", -1.0 * i) for i in range(3)))),
            (b"nested", ARRAY, array(ARRAY, array(STRING, text(b"x")), array(0, b"\1", b"\2"))),
            (b"flag", 7, b"\1"),
            (b"general.alignment", UINT32, struct.pack("<I", 64)),
        ),
        alignment=64,
    )
