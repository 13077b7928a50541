"""What of a session another tenant has a part in, and is not handed out with its bundle.

The rule of :func:`foreign`: terms name one tenant and whole GPUs, and a verifier ends a session when one of its GPUs
enrols in another one. So the samples of a window are of devices that were its tenant's alone, unless

1. the window's interval lies in the time of another tenant's session on one of these GPUs: hosts cut windows by clocks
   of their own, and a GPU may have changed hands since one began; or
2. its record says what was remembered of another tenant's session. Records of today do not name such sessions
   (:meth:`.Traces.recall`).

Such a window is withheld as a whole: its header signs its samples together, and its leaf commits to its record as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighbridge.proto.window import Evidence, Header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weighbridge.verifier.archive import Records

__all__ = ["foreign"]


def foreign(records: Records, indices: Iterable[int], others: Sequence[tuple[bytes, int, int]]) -> frozenset[int]:
    """Those of ``indices`` that are not handed out.

    Args:
        records: of the verifier.
        indices: ledger indices of a session's judgements.
        others: the sessions of other tenants on its GPUs, each with when it began and ended, ns since 1970
            (:meth:`.Transaction.others_of`).

    Raises:
        WeighbridgeError: as :class:`.Records`.
    """
    if not others:
        return frozenset()
    sessions = {session for session, _, _ in others}
    found: set[int] = set()
    for index in indices:
        record = records.record(index)
        if record.kind != "window":
            continue
        named = frozenset[bytes]() if record.history is None else record.history.sessions
        if named & sessions or _overlaps(_interval(records.evidence(record)), others):
            found.add(index)
    return frozenset(found)


def _interval(evidence: bytes) -> tuple[int, int]:
    """When the window began and ended, by its host's clock; what was recorded is well-formed."""
    span = Header.parse(Evidence.parse(evidence).signed_header().payload).interval
    return span.wall_start_ns, span.wall_end_ns


def _overlaps(interval: tuple[int, int], others: Sequence[tuple[bytes, int, int]]) -> bool:
    start, end = interval
    return any(start < ended and began < end for _, began, ended in others)
