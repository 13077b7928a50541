"""What all signed sets have in common: an owner's key signed them, and each replaces an earlier one of its line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, Protocol

from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.verifier.clock import moment

if TYPE_CHECKING:
    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["Line", "OwnerPurpose", "SignedByOwner", "check_signature", "validity"]

OwnerPurpose = Literal["model-owner", "host-owner", "baseline-owner", "policy-author"]
_WORDS: Final[dict[OwnerPurpose, str]] = {
    "model-owner": "reference set",
    "host-owner": "host set",
    "baseline-owner": "baseline set",
    "policy-author": "policy bundle",
}


@dataclass(frozen=True, slots=True)
class Line:
    """Files of which each replaces the one before: an owner's sets for models, hosts or baselines; a policy.

    Attributes:
        purpose: the anchor's purpose: a key for models says nothing of hosts.
        owner: the anchor's name.
        name: of the class of hosts, of the baselines, or of the policy; empty for models.
        tenant: for whose sessions a policy is; empty for every tenant's, and for all else.
    """

    purpose: OwnerPurpose
    owner: str
    name: str = ""
    tenant: str = ""

    @property
    def what(self) -> str:
        """What it is a line of, in words."""
        return _WORDS[self.purpose]

    def __str__(self) -> str:
        """Such as ``host set of Acme Hosting, gpu-node``."""
        named = f", {self.name}" if self.name else ""
        return f"{self.what} of {self.owner}{named}" + (f" for {self.tenant}" if self.tenant else "")


class SignedByOwner(Protocol):
    """A set whose owner's signature was checked: where it stands."""

    @property
    def line(self) -> Line:
        """The line in which it stands."""
        ...

    @property
    def number(self) -> int:
        """Its place there."""
        ...

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed file, 32 bytes."""
        ...


def check_signature(message: cose.CoseSign1, line: Line, *, anchors: TrustAnchors) -> Anchor:
    """The anchor that vouches for ``message``, whose payload claims to be of ``line``.

    Its validity is not compared with any time: see :func:`validity`.

    Raises:
        NotAuthentic: ``CHAIN_UNTRUSTED`` when no anchor of the line's purpose is the signer's, or one of another name;
            ``COSE_SIGNATURE``.
    """
    anchor = next((item for item in anchors.select(line.purpose) if sha256(item.spki) == message.claimed_kid), None)
    if anchor is None or anchor.name != line.owner:
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            f"no anchor of purpose {line.purpose} has this key" if anchor is None else "the anchor has another name",
            where=str(line),
            expected=line.owner if anchor is not None else None,
            got=message.claimed_kid if anchor is None else anchor.name,
            hint="if this owner is to be believed, give the document with that key: --anchors",
        )
    cose.verify(message, cose.load_p256(anchor.spki, what=f"anchor {anchor.name}"))
    return anchor


def validity(anchor: Anchor, *, issued_ns: int, not_before_ns: int, not_after_ns: int) -> tuple[datetime, datetime]:
    """From when until when, inclusive, the owner vouches for a set *and* its key is believed.

    A set says nothing of the time before it was made.
    """
    return max(moment(max(not_before_ns, issued_ns)), anchor.not_before), min(moment(not_after_ns), anchor.not_after)
