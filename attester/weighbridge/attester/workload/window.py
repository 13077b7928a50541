"""The work of the current window, summed up as it is reported: constant memory, however much is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weighbridge.proto.merkle import CompactRange, leaf_hash
from weighbridge.proto.workload import WorkSummary

if TYPE_CHECKING:
    from weighbridge.attester.workload.messages import Done

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
        self._prefill_ns = 0
        self._decode_ns = 0

    def add(self, done: Done) -> None:
        """Count one request."""
        self._pending.append(leaf_hash(done.commitment))
        if len(self._pending) == _BATCH:
            self._flush()
        self._requests += 1
        self._tokens_in += done.tokens_in
        self._tokens_out += done.tokens_out
        self._batch_max = max(self._batch_max, done.batch)
        self._prefill_ns += done.prefill_ns
        self._decode_ns += done.decode_ns

    def take(self) -> WorkSummary:
        """What was served since the last call."""
        self._flush()
        summary = WorkSummary(
            root=self._tree.root,
            requests=self._requests,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            batch_max=self._batch_max,
            prefill_ns=self._prefill_ns,
            decode_ns=self._decode_ns,
        )
        self._reset()
        return summary

    def _flush(self) -> None:
        self._tree = self._tree.extend(self._pending)
        self._pending = []
