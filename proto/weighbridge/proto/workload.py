"""What a host says it served in one window: counts, and a Merkle root over salted commitments.

The root is that of an RFC 6962 §2.1 tree whose leaves are :func:`commit` values in the order in which requests
ended. With its salt, one request can later be shown to lie in one window without showing another. Counts and root are
*the host's word*: the gate compares its own counts with them.

>>> WorkSummary.empty().root.hex()[:16]
'e3b0c44298fc1c14'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from weighbridge.proto import cbor
from weighbridge.proto.digest import D, sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.merkle import EMPTY_ROOT

__all__ = ["SALT_SIZE", "WorkSummary", "commit"]

SALT_SIZE: Final = 32

_FIELDS: Final = 7
_COUNT_MAX: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSummary:
    """The header's account of one window's work. Not checked: that anything of it is true.

    ``requests`` counts the leaves under ``root`` (32 bytes); tokens are summed over them; ``batch_max`` is the largest
    number of requests that one of them shared the accelerator with, itself included. ``prefill_ns`` and ``decode_ns``
    are the time that the server spent on the prompts and on the answers, summed over the requests, 0 where it does not
    say: divided by the window's length, their sum is how many requests were worked on at once in the mean.
    """

    root: bytes
    requests: int
    tokens_in: int
    tokens_out: int
    batch_max: int
    prefill_ns: int = 0
    decode_ns: int = 0

    @classmethod
    def empty(cls) -> Self:
        """A window in which nothing was served."""
        return cls(root=EMPTY_ROOT, requests=0, tokens_in=0, tokens_out=0, batch_max=0)

    def to_cbor(self) -> list[cbor.CborValue]:
        """The header claim: ``[root, requests, tokens in, tokens out, largest batch, prefill ns, decode ns]``."""
        return [
            self.root,
            self.requests,
            self.tokens_in,
            self.tokens_out,
            self.batch_max,
            self.prefill_ns,
            self.decode_ns,
        ]

    @classmethod
    def from_cbor(cls, value: cbor.CborValue, *, where: str) -> Self:
        """Read the header claim.

        Raises:
            MalformedEvidence: ``FIELD_TYPE``, ``FIELD_RANGE`` or ``TOO_LARGE`` for another shape; ``WORKLOAD_COUNTS``
                for counts that contradict each other or the empty root.
        """
        root, *counts = cbor.read_array(value, where=where, limit=_FIELDS, size=_FIELDS)
        fields = cbor.Reader({0: root, **dict(enumerate(counts, start=1))}, where)
        summary = cls(
            root=fields.digest(0),
            requests=fields.uint(1, limit=_COUNT_MAX),
            tokens_in=fields.uint(2, limit=_COUNT_MAX),
            tokens_out=fields.uint(3, limit=_COUNT_MAX),
            batch_max=fields.uint(4, limit=_COUNT_MAX),
            prefill_ns=fields.uint(5, limit=_COUNT_MAX),
            decode_ns=fields.uint(6, limit=_COUNT_MAX),
        )
        nothing = summary.requests == 0
        if nothing and summary != cls.empty():
            raise MalformedEvidence(
                Code.WORKLOAD_COUNTS, "tokens, time, a batch or a root without a request", where=where
            )
        if not nothing and (summary.root == EMPTY_ROOT or summary.batch_max == 0):
            raise MalformedEvidence(Code.WORKLOAD_COUNTS, "requests without a root or a batch", where=where)
        return summary


def commit(salt: bytes, request: bytes, response: bytes) -> bytes:
    """The 32-byte commitment to one request and its response: ``D("work", salt, SHA-256(request), SHA-256(response))``.

    Args:
        salt: 32 secret random bytes, one draw per request: without it a guessed prompt could be confirmed.
        request: the body as received.
        response: the body as sent.
    """
    if len(salt) != SALT_SIZE:
        raise ValueError(f"salt must be {SALT_SIZE} bytes")
    return D("work", salt, sha256(request), sha256(response))
