"""What makers of hardware publish, at the verifier.

What a piece is says :mod:`.describe`, where pieces are kept :mod:`.store`, what is wanted for given evidence
:mod:`.wanted`, and how a connected site fetches it :mod:`.fetch`.

Deciding code takes a :class:`~weighbridge.proto.collateral.Collateral`, which :meth:`CollateralStore.snapshot` hands
out; it never sees the store, and never fetches.
"""

from __future__ import annotations

from weighbridge.verifier.collateral.describe import Description, describe, recognise
from weighbridge.verifier.collateral.store import CollateralStore, Damaged

__all__ = ["CollateralStore", "Damaged", "Description", "describe", "recognise"]
