"""What a host declares to have served in one unit, as what its power is explained by.

All of it is *the host's word*, beside which the gate's own counts stand elsewhere. Numbers are whole: a replay on
another machine gets the same.

>>> DeclaredWork(duration_ns=10**10, decode_ns=25 * 10**9, tokens_out=2000, requests=5, batch_max=4).regressors()
(1000, 0, 2500, 0, 200000)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from weighbridge.proto.workload import WorkSummary

__all__ = ["DeclaredWork"]

_MILLI: Final = 1000
_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredWork:
    """Counts of a stretch of ``duration_ns``; ``prefill_ns`` and ``decode_ns`` are summed over requests.

    Zero prefill and decoding time beside requests means that the server does not say them: the share of time that was
    busy is then unknown and counts as zero, in the baseline as in the session.
    """

    duration_ns: int
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    batch_max: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0

    def __post_init__(self) -> None:
        """Refuse what no stretch of time can be.

        Raises:
            ValueError: the duration is not positive, or a count is negative.
        """
        if self.duration_ns <= 0:
            raise ValueError("a stretch of time takes some")
        if min(self.requests, self.tokens_in, self.tokens_out, self.batch_max, self.prefill_ns, self.decode_ns) < 0:
            raise ValueError("a count below zero")

    @classmethod
    def of(cls, summary: WorkSummary, duration_ns: int) -> Self:
        """The work that a window of ``duration_ns`` declares."""
        return cls(
            duration_ns=duration_ns,
            requests=summary.requests,
            tokens_in=summary.tokens_in,
            tokens_out=summary.tokens_out,
            batch_max=summary.batch_max,
            prefill_ns=summary.prefill_ns,
            decode_ns=summary.decode_ns,
        )

    def __add__(self, other: DeclaredWork) -> DeclaredWork:
        """Both stretches, one after the other."""
        return DeclaredWork(
            duration_ns=self.duration_ns + other.duration_ns,
            requests=self.requests + other.requests,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            batch_max=max(self.batch_max, other.batch_max),
            prefill_ns=self.prefill_ns + other.prefill_ns,
            decode_ns=self.decode_ns + other.decode_ns,
        )

    def regressors(self) -> tuple[int, int, int, int, int]:
        """What power is explained by, in thousandths and in the order of :data:`.profile.REGRESSORS`.

        ``busy`` is the share of the time in which something was served, were it served one request after the other: a
        GPU's power leaps with the first request and creeps with each further one.
        """
        prefill = self.prefill_ns * _MILLI // self.duration_ns
        decode = self.decode_ns * _MILLI // self.duration_ns
        return (
            min(_MILLI, prefill + decode),
            prefill,
            decode,
            self.tokens_in * _MILLI * _SECOND // self.duration_ns,
            self.tokens_out * _MILLI * _SECOND // self.duration_ns,
        )
