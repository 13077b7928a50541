"""What makers of hardware had published when a window was judged: the collateral in force, verified as it is needed.

It is one argument of an appraisal, like policy and reference values: records name it by digest, bundles carry it, and a
verdict made again years later is made from the same pieces at the same receipt times.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from weighbridge.proto.collateral import Collateral
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.gpu.revocation import Statements, device_revocation
from weighbridge.verifier.gpu.rim.compare import compare
from weighbridge.verifier.gpu.rim.issues import RimSet
from weighbridge.verifier.gpu.rim.load import load_rim, sorted_out
from weighbridge.verifier.record import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Self

    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.gpu.revocation import Revocation
    from weighbridge.verifier.gpu.rim.compare import Measured
    from weighbridge.verifier.gpu.rim.load import Disbelieved
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = ["Published"]

_WITHDRAWN: Final = frozenset({"revoked", "hold"})


@final
class Published:
    """Collateral and the anchors by which it is believed. ``digest`` names it in records; zeros where there is none.

    Pieces are read at first use and verified once: they do not change, and neither do the anchors. Whether a piece
    counts is asked anew for each time.

    A store changes by few pieces at a time: manifests that were verified for ``before``, by the same anchors, are not
    verified again. Only the work is saved, and no answer changes.
    """

    def __init__(self, collateral: Collateral, anchors: TrustAnchors, *, before: Published | None = None) -> None:
        self.collateral = collateral
        self.anchors = anchors
        self.digest = collateral.digest if collateral.items else NO_DIGEST
        self._read: Mapping[bytes, VerifiedRim | Disbelieved] = {} if before is None else before.read_by(anchors)

    @classmethod
    def nothing(cls) -> Self:
        """No collateral: what needs some stays unknown."""
        return cls(Collateral(), TrustAnchors(()))

    def read_by(self, anchors: TrustAnchors) -> Mapping[bytes, VerifiedRim | Disbelieved]:
        """The files of manifests that were read by these very anchors so far, and what came of each."""
        return self._read if anchors is self.anchors else {}

    def measured(self, device: VerifiedGpuReport, *, at: datetime) -> Measured:
        """How the device's measurements compare with the manifests of its maker that count at ``at``.

        A manifest whose signer was revoked, or is on hold, is missing, and so are the issues before it: time brings
        nothing back, and neither does a revocation.
        """
        counted = self._rims.at(at)
        measured = compare(device.report, device.chain, counted)
        used = [rim for rim in (measured.driver, measured.vbios) if rim is not None]
        withdrawn = [rim for rim in used if self.signer(rim, at=at).status in _WITHDRAWN]
        if not withdrawn:
            return measured
        return compare(device.report, device.chain, RimSet.of(rim for rim in counted if rim not in withdrawn))

    def revocation(self, device: VerifiedGpuReport, *, at: datetime) -> Revocation:
        """What is known at ``at`` of the certificates that vouch for the device."""
        return device_revocation(device.chain.certificates, self._statements, at=at, anchor=device.chain.anchor)

    def signer(self, rim: VerifiedRim, *, at: datetime) -> Revocation:
        """What is known at ``at`` of the certificates that vouch for a manifest."""
        return self._statements.judge(rim.chain, at=at, anchor=rim.anchor)

    @property
    def disbelieved(self) -> tuple[Disbelieved, ...]:
        """The manifests that no anchor vouches for, or that are none."""
        return self._loaded[1]

    @property
    def _rims(self) -> RimSet:
        return self._loaded[0]

    @cached_property
    def _loaded(self) -> tuple[RimSet, tuple[Disbelieved, ...]]:
        known = self._read
        self._read = {
            data: outcome if (outcome := known.get(data)) is not None else load_rim(data, self.anchors)
            for data in self.collateral.of_kind("rim")
        }
        return sorted_out(self._read.values())

    @cached_property
    def _statements(self) -> Statements:
        return Statements.of(self.collateral.of_kind("ocsp"), self.collateral.of_kind("crl"))
