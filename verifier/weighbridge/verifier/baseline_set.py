"""Verifies a baseline set: what the power of an owner's GPUs looks like under declared work, by that owner's word.

The procedure of :func:`verify`:

1. The file is a well-formed set.
2. It is signed by the key of an anchor of purpose ``baseline-owner``, and that anchor's name is the owner's.

Validity is not compared with any time here: ``NamedBaseline.not_before`` and ``not_after`` say when the owner vouches
for the set *and* its key is believed, and every window is judged by them at its receipt time (:mod:`.baselines`).

Left to the caller: that the set is not older than one seen before (``Transaction.owners``), and not further from it
than the owner accepts (:mod:`.baseline_watch`). Not proven: that the runs from which a profile was fitted were good
ones, nor that they were of the GPU and the stack that its scope names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.policy.values.baselines import NamedBaseline
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.verifier.owner_signature import Line, check_signature, validity

if TYPE_CHECKING:
    from weighbridge.proto.baseline import BaselineSet
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["VerifiedBaselineSet", "line_of", "verify"]

_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedBaselineSet:
    """A set that its owner has signed. Made by :func:`verify`.

    The seal is a guard against mistakes, not against hostile code.

    Attributes:
        content: what the owner signed.
        named: which set that is, for the reference values in force.
        data: the signed file.
        digest: SHA-256 of it, 32 bytes.
    """

    content: BaselineSet
    named: NamedBaseline
    data: bytes = field(repr=False)
    digest: bytes
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedBaselineSet is made by verify only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedBaselineSet cannot be pickled")

    @property
    def line(self) -> Line:
        """What it replaces earlier sets of."""
        return line_of(self.content)

    @property
    def number(self) -> int:
        """Its place in the line."""
        return self.content.number


def line_of(content: BaselineSet) -> Line:
    """The line that ``content`` claims to be of."""
    return Line("baseline-owner", content.owner, content.name)


def verify(data: bytes, *, anchors: TrustAnchors) -> VerifiedBaselineSet:
    """The whole procedure of the module's docstring.

    Args:
        data: the file, untrusted.
        anchors: whose keys are believed: ``baseline-owner``.

    Raises:
        MalformedEvidence: the file is not a well-formed set.
        NotAuthentic: ``CHAIN_UNTRUSTED`` when no anchor is the signer's, or one of another name; ``COSE_SIGNATURE``.
    """
    # 1.
    signed = SignedBaselineSet.parse(data)
    claimed = signed.claimed
    # 2.
    anchor = check_signature(signed.message, line_of(claimed), anchors=anchors)
    not_before, not_after = validity(
        anchor,
        issued_ns=claimed.issued_ns,
        not_before_ns=claimed.not_before_ns,
        not_after_ns=claimed.not_after_ns,
    )
    named = NamedBaseline(
        owner=claimed.owner,
        name=claimed.name,
        number=claimed.number,
        digest=signed.digest.hex(),
        not_before=not_before,
        not_after=not_after,
    )
    return VerifiedBaselineSet(claimed, named, data, signed.digest, _SEAL)
