"""What makers of hardware had published when a window was judged: the collateral in force, verified as it is needed.

It is one argument of an appraisal, like policy and reference values: records name it by digest, bundles carry it, and a
verdict made again years later is made from the same pieces at the same receipt times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from weighbridge.proto.collateral import Collateral
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Published"]


@final
class Published:
    """Collateral and the anchors by which it is believed. ``digest`` names it in records; zeros where there is none."""

    __slots__ = ("anchors", "collateral", "digest")

    def __init__(self, collateral: Collateral, anchors: TrustAnchors) -> None:
        self.collateral = collateral
        self.anchors = anchors
        self.digest = collateral.digest if collateral.items else NO_DIGEST

    @classmethod
    def nothing(cls) -> Self:
        """No collateral: what needs some stays unknown."""
        return cls(Collateral(), TrustAnchors(()))
