"""Reference integrity manifests: what a GPU's driver and firmware should measure, on its maker's word.

:func:`verify_rim` proves whose word it is, :class:`RimSet` keeps the newest issue of each, :func:`compare` holds a
report against them. Nothing is fetched: :func:`wanted` says what to fetch.
"""

from __future__ import annotations

from weighbridge.verifier.gpu.rim.compare import Measured, Mismatch, compare
from weighbridge.verifier.gpu.rim.ids import Wanted, check_named, wanted
from weighbridge.verifier.gpu.rim.issues import RimSet
from weighbridge.verifier.gpu.rim.swid import RimEntry, RimKind
from weighbridge.verifier.gpu.rim.verify import VerifiedRim, verify_rim

__all__ = [
    "Measured",
    "Mismatch",
    "RimEntry",
    "RimKind",
    "RimSet",
    "VerifiedRim",
    "Wanted",
    "check_named",
    "compare",
    "verify_rim",
    "wanted",
]
