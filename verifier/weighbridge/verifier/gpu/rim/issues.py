"""The verified manifests at hand, and of each the newest issue.

NVIDIA signs one manifest several times, and not only to prolong it: of VBIOS 96.00.5E.00.01 the issue of December 2023
has another hash at index 9 than that of June. Both are genuine. What was right once is no way to be right today: the
newest issue counts, and an older one that comes after it, or beside it, does not.

The instant of an issue is the beginning of its signer's certificate, since NVIDIA makes one for each. Two that began
at the same instant and say different things have no order: then neither counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = ["RimSet"]


@final
class RimSet:
    """An immutable set of verified manifests. Made once, asked for every report; safe to share between threads.

    Two platforms are kept apart: an emulated vendor's manifest says nothing of a genuine device.
    """

    def __init__(self, rims: tuple[VerifiedRim, ...]) -> None:
        self._all = rims
        self._newest = _newest(rims)

    @classmethod
    def of(cls, rims: Iterable[VerifiedRim]) -> RimSet:
        """The set of ``rims``, in any order, with any number of issues of each."""
        return cls(tuple(rims))

    def newest(self, id: str, *, platform: str = "nvidia") -> VerifiedRim | None:  # noqa: A002 - the manifest's id
        """The newest issue of the manifest ``id`` (:attr:`.VerifiedRim.id`); ``None`` without one that counts."""
        return self._newest.get((platform, id))

    def at(self, moment: datetime) -> RimSet:
        """What of this counts at ``moment``; this very set where that is all of it.

        An issue that is not valid yet does not exist. One that is not valid any more still replaces the older ones,
        and is then missing: time brings nothing back.
        """
        if all(rim.is_valid(moment) for rim in self._all):
            return self
        begun = tuple(rim for rim in self._all if rim.not_before <= moment)
        kept = _newest(begun).values()
        return RimSet(tuple(rim for rim in kept if rim.is_valid(moment)))

    def __len__(self) -> int:
        """How many manifests count."""
        return len(self._newest)

    def __iter__(self) -> Iterator[VerifiedRim]:
        """Those that count, in no particular order."""
        return iter(self._newest.values())


def _newest(rims: Iterable[VerifiedRim]) -> dict[tuple[str, str], VerifiedRim]:
    """The newest issue of each; none of those whose newest two contradict each other."""
    found: dict[tuple[str, str], VerifiedRim] = {}
    disputed: set[tuple[str, str]] = set()
    # The digest makes the choice between two copies of one issue the same in every run.
    for rim in sorted(rims, key=lambda item: (item.issued, item.digest)):
        key = rim.platform, rim.id
        before = found.get(key)
        if before is not None and before.issued == rim.issued:
            if before.content_digest != rim.content_digest:
                disputed.add(key)
            continue
        found[key] = rim
        disputed.discard(key)
    return {key: rim for key, rim in found.items() if key not in disputed}
