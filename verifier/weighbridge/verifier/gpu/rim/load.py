"""Verifies the manifests of a collection: each at the time of its own issue, once, whenever they are judged by later.

Whether a manifest counts at a judging time is :meth:`.RimSet.at`'s to say, and it needs those that have ended, too: an
issue whose signer's certificate has run out still replaces the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs
from weighbridge.verifier.gpu.rim import dsig
from weighbridge.verifier.gpu.rim.issues import RimSet
from weighbridge.verifier.gpu.rim.verify import verify_rim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = ["Disbelieved", "load_rim", "load_rims", "sorted_out"]


@dataclass(frozen=True, slots=True)
class Disbelieved:
    """A file that is no manifest of the maker's: SHA-256 of it, and why."""

    digest: bytes
    reason: str


def load_rims(files: Iterable[bytes], anchors: TrustAnchors) -> tuple[RimSet, tuple[Disbelieved, ...]]:
    """The set of those ``files`` that verify, and those that do not: junk beside honest ones spoils nothing.

    Args:
        files: as the maker publishes them; untrusted.
        anchors: those of purpose ``nvidia-rim-root`` are used.
    """
    return sorted_out(load_rim(data, anchors) for data in dict.fromkeys(files))


def load_rim(data: bytes, anchors: TrustAnchors) -> VerifiedRim | Disbelieved:
    """What :func:`load_rims` makes of one file. No time enters: of the same file and anchors it is the same always."""
    try:
        signers = [certs.load_certificate(der, "rim.chain") for der in dsig.parse(data).certificates]
        issued = max(signer.not_valid_before_utc for signer in signers)
        return verify_rim(data, anchors=anchors, at=issued)
    except (MalformedEvidence, NotAuthentic) as error:
        return Disbelieved(sha256(data), f"{error.code}: {error.message}")


def sorted_out(outcomes: Iterable[VerifiedRim | Disbelieved]) -> tuple[RimSet, tuple[Disbelieved, ...]]:
    """Those that verified as a set, and those that did not."""
    rims: list[VerifiedRim] = []
    junk: list[Disbelieved] = []
    for outcome in outcomes:
        if isinstance(outcome, Disbelieved):
            junk.append(outcome)
        else:
            rims.append(outcome)
    return RimSet.of(rims), tuple(junk)
