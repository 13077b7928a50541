"""Verifies a host set: what a class of hosts boots and runs when it is good, by its owner's word.

The procedure of :func:`verify`:

1. The file is a well-formed set.
2. It is signed by the key of an anchor of purpose ``host-owner``, and that anchor's name is the owner's.

Validity is not compared with any time here: ``HostSet.not_before`` and ``not_after`` say when the owner vouches for the
set *and* its key is believed, and every quote is judged by them at its receipt time (:mod:`.host_match`).

Left to the caller: that the set is not older than one seen before (``Transaction.owners``). Not proven: that the host
from which the values were learned was a good one, and what the files are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.policy.values.host_sets import HostSet as HostValues
from weighbridge.proto import strict
from weighbridge.proto.host_set import SignedHostSet
from weighbridge.verifier.owner_signature import Line, check_signature, validity

if TYPE_CHECKING:
    from weighbridge.proto.host_set import HostSet
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["VerifiedHostSet", "line_of", "verify"]

_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedHostSet:
    """A set that its owner has signed. Made by :func:`verify`.

    The seal is a guard against mistakes, not against hostile code.

    Attributes:
        content: what the owner signed.
        values: what it says, for the reference values in force.
    """

    content: HostSet
    values: HostValues
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedHostSet is made by verify only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedHostSet cannot be pickled")

    @property
    def line(self) -> Line:
        """What it replaces earlier sets of."""
        return line_of(self.content)

    @property
    def number(self) -> int:
        """Its place in the line."""
        return self.content.number

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed file, 32 bytes."""
        return strict.hex_decode(self.values.digest, what="digest")


def line_of(content: HostSet) -> Line:
    """The line that ``content`` claims to be of."""
    return Line("host-owner", content.owner, content.name)


def verify(data: bytes, *, anchors: TrustAnchors) -> VerifiedHostSet:
    """The whole procedure of the module's docstring.

    Args:
        data: the file, untrusted.
        anchors: whose keys are believed: ``host-owner``.

    Raises:
        MalformedEvidence: the file is not a well-formed set.
        NotAuthentic: ``CHAIN_UNTRUSTED`` when no anchor is the signer's, or one of another name; ``COSE_SIGNATURE``.
    """
    # 1.
    signed = SignedHostSet.parse(data)
    claimed = signed.claimed
    # 2.
    anchor = check_signature(signed.message, line_of(claimed), anchors=anchors)
    not_before, not_after = validity(
        anchor,
        issued_ns=claimed.issued_ns,
        not_before_ns=claimed.not_before_ns,
        not_after_ns=claimed.not_after_ns,
    )
    values = HostValues(
        owner=claimed.owner,
        name=claimed.name,
        number=claimed.number,
        digest=signed.digest.hex(),
        not_before=not_before,
        not_after=not_after,
        pcrs=claimed.pcrs,
        firmware=claimed.firmware,
        files=frozenset(file.name for file in claimed.files),
        attester=frozenset(file.name for file in claimed.files if file.attester),
    )
    return VerifiedHostSet(claimed, values, _SEAL)
