"""In which order people are told why something was denied: what explains the others first.

A decision lists denials by their codes, so that it is the same bytes everywhere. To people, what the host is comes
before what it did, that before what failed for its sake, and what merely is not shown comes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from weighbridge.proto.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["explaining_first"]

_FIRST: Final = (
    Code.PLATFORM_EMULATED,
    Code.MODEL_REVOKED,
    Code.WEIGHTS_MISMATCH,
    Code.MODEL_UNDECLARED,
    Code.MODEL_NOT_LOADED,
    Code.LOAD_MISMATCH,
    Code.GPU_UNEXPECTED,
    Code.GPU_MISSING,
    Code.GPU_REVOKED,
    Code.GPU_MEASUREMENT_MISMATCH,
)
_LAST: Final = (
    Code.SUBJECT_FAILED,
    Code.WINDOW_HELD,
    Code.UNPROVEN,
    Code.GPU_REVOCATION_UNKNOWN,
    Code.TELEMETRY_NO_BASELINE,
    Code.TELEMETRY_UNUSABLE,
)
_RANKS: Final = {code.value: rank for rank, code in enumerate(_FIRST, -len(_FIRST))} | {
    code.value: rank for rank, code in enumerate(_LAST, 1)
}


class _Denial(Protocol):
    @property
    def code(self) -> str: ...

    @property
    def device(self) -> str | None: ...


_Told = TypeVar("_Told", bound=_Denial)


def explaining_first(denials: Iterable[_Told]) -> list[_Told]:
    """``denials``, what explains the others first; of one code, what is said of no single device first."""
    return sorted(denials, key=lambda item: (_RANKS.get(item.code, 0), item.device is not None))
