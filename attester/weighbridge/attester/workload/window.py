"""The work of the current window, summed up as it is reported: constant memory, however much is served."""

from __future__ import annotations

from typing import Final

from weighbridge.proto.merkle import CompactRange, leaf_hash
from weighbridge.proto.workload import WorkSummary

__all__ = ["WorkWindow"]

# Hashing leaves in small batches is twice as fast as one by one.
_BATCH: Final = 64


class WorkWindow:
    """Collects reports; :meth:`take` closes the window and begins the next. Not thread-safe: one event loop's."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._tree = CompactRange()
        self._pending: list[bytes] = []
        self._requests = 0
        self._tokens_in = 0
        self._tokens_out = 0
        self._batch_max = 0

    def add(self, commitment: bytes, *, tokens_in: int, tokens_out: int, batch: int) -> None:
        """Count one request: its commitment (32 bytes), its tokens, the size of the batch it was in."""
        self._pending.append(leaf_hash(commitment))
        if len(self._pending) == _BATCH:
            self._flush()
        self._requests += 1
        self._tokens_in += tokens_in
        self._tokens_out += tokens_out
        self._batch_max = max(self._batch_max, batch)

    def take(self) -> WorkSummary:
        """What was served since the last call."""
        self._flush()
        summary = WorkSummary(
            root=self._tree.root,
            requests=self._requests,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            batch_max=self._batch_max,
        )
        self._reset()
        return summary

    def _flush(self) -> None:
        self._tree = self._tree.extend(self._pending)
        self._pending = []
