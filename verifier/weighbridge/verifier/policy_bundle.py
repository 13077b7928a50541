"""Verifies a policy bundle: which files are a policy by their author's word, which revision, and for whose sessions.

The procedure of :func:`verify`:

1. The file is a well-formed bundle.
2. It is signed by the key of an anchor of purpose ``policy-author``, and that anchor's name is the owner's.
3. Where that anchor speaks for one tenant, the bundle is for that tenant.

Validity is not compared with any time here: :attr:`VerifiedPolicyBundle.not_before` and ``not_after`` say when the
author vouches for the policy *and* its key is believed; every window is judged by them at its receipt time
(:mod:`.policy_watch`).

Left to the caller: that the bundle is not older than one that was in force before (``Transaction.owners``), and that
its files are a policy that loads. Not proven: that its rules are wise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from weighbridge.policy import policy_set
from weighbridge.policy.engine import Revision
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.policy_bundle import SignedPolicyBundle
from weighbridge.verifier.owner_signature import Line, check_signature, validity

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.policy_bundle import PolicyBundle
    from weighbridge.verifier.anchors import TrustAnchors

__all__ = ["VerifiedPolicyBundle", "line_of", "verify"]

_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedPolicyBundle:
    """A bundle that its author has signed. Its files may be anything. Made by :func:`verify`.

    The seal is a guard against mistakes, not against hostile code.

    Attributes:
        content: what the author signed.
        digest: SHA-256 of the signed file, 32 bytes.
        not_before: from when on the author vouches for it under a trusted key.
        not_after: until when, inclusive.
    """

    content: PolicyBundle
    digest: bytes
    not_before: datetime
    not_after: datetime
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedPolicyBundle is made by verify only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedPolicyBundle cannot be pickled")

    @property
    def line(self) -> Line:
        """What it replaces earlier bundles of."""
        return line_of(self.content)

    @property
    def number(self) -> int:
        """Its place in the line."""
        return self.content.number

    @property
    def revision(self) -> Revision:
        """How verdicts name it."""
        content = self.content
        return Revision(content.owner, content.name, content.number, self.digest.hex(), content.tenant)

    def valid(self, at: datetime) -> bool:
        """Whether the author vouches for it, under a trusted key, at ``at``."""
        return self.not_before <= at <= self.not_after

    def policy(self, reference: Reference) -> PolicySet:
        """Its files over this installation's library. Bounded, not checked.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: the files are no policy.
        """
        return policy_set.authored(self.content.files, reference=reference)


def line_of(content: PolicyBundle) -> Line:
    """The line that ``content`` claims to be of."""
    return Line("policy-author", content.owner, content.name, content.tenant or "")


def verify(data: bytes, *, anchors: TrustAnchors) -> VerifiedPolicyBundle:
    """The whole procedure of the module's docstring.

    Args:
        data: the file, untrusted.
        anchors: whose keys are believed: ``policy-author``.

    Raises:
        MalformedEvidence: the file is not a well-formed bundle.
        NotAuthentic: ``CHAIN_UNTRUSTED`` when no anchor is the signer's, or one of another name; ``COSE_SIGNATURE``;
            ``POLICY_TENANT``.
    """
    # 1.
    signed = SignedPolicyBundle.parse(data)
    claimed = signed.claimed
    # 2.
    anchor = check_signature(signed.message, line_of(claimed), anchors=anchors)
    # 3. None is a tenant to compare with, too: a tenant's author must not write the policy of everybody else.
    if anchor.tenant is not None and anchor.tenant != claimed.tenant:
        raise NotAuthentic(
            Code.POLICY_TENANT,
            "the author's key speaks for another tenant",
            where=str(line_of(claimed)),
            expected=anchor.tenant,
            got=claimed.tenant or "every tenant",
            hint=f"sign it for {anchor.tenant}, or by a key that speaks for others too",
        )
    not_before, not_after = validity(
        anchor,
        issued_ns=claimed.issued_ns,
        not_before_ns=claimed.not_before_ns,
        not_after_ns=claimed.not_after_ns,
    )
    return VerifiedPolicyBundle(claimed, signed.digest, not_before, not_after, _SEAL)
