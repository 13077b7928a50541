"""Verifies an attestation key: a restricted signing key that lives in one TPM and is believed for a stated reason.

There are four reasons, and every :class:`VerifiedAk` names its own, with what that does *not* prove:

``ek-credential``
    a manufacturer certified the TPM's EK, and that TPM returned a secret that it opens only with this AK loaded;
``ak-certificate``
    a cloud certified the AK of a TPM that it emulates for a virtual machine;
``vtpm-report``
    a confidential VM's firmware names the AK of the TPM that it emulates, and the CPU signed for that firmware;
``pinned``
    the operator put the key into the trust anchors.

Only the third names the guest. Which of them a session rests on is told with every verdict, and no later step can tell
the difference: a quote is a quote.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tpm.constants import Hierarchy, ObjectAttributes
from weighbridge.proto.tpm.names import qualified_name_of_child, qualified_name_of_primary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from weighbridge.proto.tpm.public import Public
    from weighbridge.verifier.anchors import Anchor, TrustAnchors
    from weighbridge.verifier.tee.model import VerifiedTee
    from weighbridge.verifier.tee.vtpm import VerifiedVtpm
    from weighbridge.verifier.tpm.ak_certificate import VerifiedAkCertificate
    from weighbridge.verifier.tpm.ek import VerifiedEk

__all__ = [
    "AttestationKey",
    "Provenance",
    "VerifiedAk",
    "activated",
    "certified",
    "check_attributes",
    "pinned",
    "reported",
]

Provenance = Literal["ek-credential", "ak-certificate", "vtpm-report", "pinned"]

StateHolder = Literal["tpm", "guest", "host", "unknown"]

_SEAL: Final = object()
_SECRET_MIN: Final = 16
_A = ObjectAttributes
_REQUIRED: Final = _A.FIXED_TPM | _A.FIXED_PARENT | _A.SENSITIVE_DATA_ORIGIN | _A.RESTRICTED | _A.SIGN
_FORBIDDEN: Final = _A.DECRYPT

_UNPROVEN: Final[Mapping[Provenance, str]] = {
    "ek-credential": (
        "the EK certificate proves a genuine TPM, not that it is in this guest or beside this GPU; its activation "
        "convinces the verifier that asked and leaves no proof for others"
    ),
    "ak-certificate": (
        "the cloud says that this is a TPM of a virtual machine of its own; the cloud's host holds that TPM's state"
    ),
    "pinned": "that this key is in a TPM rests on whoever pinned it",
}


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A key that wants to be believed: parsed, untrusted.

    ``parent`` is the storage key under the owner's hierarchy that it was made under; ``None`` for a primary of the
    endorsement hierarchy. A wrong parent gives a qualified name that no attestation bears.
    """

    public: Public
    parent: Public | None = None

    @property
    def qualified_name(self) -> bytes:
        """What every attestation by this key must name as its signer (Part 1 §16).

        Below any hierarchy but the endorsement's, counts and firmware version come obfuscated by a constant of the key
        (Part 1 §36.7): they can be compared with each other and with nothing else.
        """
        if self.parent is None:
            return qualified_name_of_primary(Hierarchy.ENDORSEMENT, self.public.name)
        return qualified_name_of_child(qualified_name_of_primary(Hierarchy.OWNER, self.parent.name), self.public.name)


@final
@dataclass(frozen=True, slots=True)
class VerifiedAk:
    """An attestation key, believed for the reason in ``provenance``. Made by the functions of this module alone.

    Attributes:
        key: the key and where in its TPM it lives.
        provenance: why it is believed.
        platform: the name of what vouches for it: that of the anchor.
        anchor: the anchor's name.
        not_after: until when that lasts, inclusive: the earliest end among the certificates and the anchor.
        detail: what the endorsement says beyond the key, for people; empty if nothing.
        unproven: what does not follow, in words to be printed with every verdict.
        tee: the hardware report behind it; ``None`` where there is none.

    The seal is a guard against mistakes, not against hostile code.
    """

    key: AttestationKey
    provenance: Provenance
    platform: str
    anchor: str
    not_after: datetime
    detail: str
    unproven: str
    tee: VerifiedTee | None
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedAk is made by activated, certified, reported or pinned only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedAk cannot be pickled")

    @property
    def public(self) -> Public:
        """The key itself."""
        return self.key.public

    @property
    def name(self) -> bytes:
        """The AK's Name, by which it is known from session to session."""
        return self.public.name

    @property
    def qualified_name(self) -> bytes:
        """Its qualified name, which every attestation must bear."""
        return self.key.qualified_name

    @property
    def state_held_by(self) -> StateHolder:
        """Who could put an old state of this TPM back: its maker's chip, the guest's firmware, or the host."""
        if self.platform == "google-vtpm" or self.provenance == "ak-certificate":
            return "host"
        if self.provenance == "vtpm-report":
            return "guest"
        return "tpm" if self.provenance == "ek-credential" and self.platform == "tpm" else "unknown"

    @property
    def names_guest(self) -> bool:
        """Whether hardware says that this key is the guest's own, by certificates known not to be revoked."""
        return self.tee is not None and self.tee.revocation == "good"


def activated(ek: VerifiedEk, ak: AttestationKey, *, secret: bytes, answer: bytes) -> VerifiedAk:
    """The AK, now known to be loaded in the TPM of ``ek``.

    Left to the caller: that ``secret`` was random, went into exactly one credential, made for ``ak``'s recomputed
    Name under this ``ek``, and has not been compared before.

    Args:
        ek: verified.
        ak: parsed, untrusted.
        secret: what :func:`weighbridge.verifier.tpm.credential.make_credential` wrapped.
        answer: what the attester returned, untrusted.

    Raises:
        NotAuthentic: ``AK_UNPROVEN`` if the answer is not the secret; ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM`` for a key of a kind outside the table.
        ValueError: the secret is too short to prove anything.
    """
    if len(secret) < _SECRET_MIN:
        raise ValueError(f"secret must be of at least {_SECRET_MIN} bytes")
    check_attributes(ak.public)
    if not hmac.compare_digest(secret, answer):
        raise NotAuthentic(
            Code.AK_UNPROVEN, "credential was not activated", where="ak.answer", clause="TPM 2.0 Part 1 §24"
        )
    return _verified(ak, "ek-credential", ek.anchor, ek.not_after)


def certified(ak: AttestationKey, certificate: VerifiedAkCertificate) -> VerifiedAk:
    """The AK for which a cloud's certificate was verified.

    Raises:
        NotAuthentic: ``AK_CERT_MISMATCH`` if it is for another key; ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM`` for a key of a kind outside the table.
    """
    check_attributes(ak.public)
    if certificate.spki != ak.public.spki():
        raise NotAuthentic(Code.AK_CERT_MISMATCH, "certificate is for another attestation key", where="ak.certificate")
    return _verified(ak, "ak-certificate", certificate.anchor, certificate.not_after, detail=certificate.instance)


def reported(ak: AttestationKey, vtpm: VerifiedVtpm) -> VerifiedAk:
    """The AK that a confidential machine's firmware names. Its attributes are that firmware's word.

    Raises:
        NotAuthentic: ``AK_UNPROVEN`` if the firmware names another key; ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM`` for a key of a kind outside the table.
    """
    check_attributes(ak.public)
    if vtpm.ak_spki != ak.public.spki():
        raise NotAuthentic(
            Code.AK_UNPROVEN,
            "the confidential machine's firmware names another attestation key",
            where="ak",
            hint="the quote of one machine with the report of another?",
        )
    tee = vtpm.tee
    detail = f"{tee.kind} {tee.product} TCB {tee.tcb} ({tee.tcb_status})".replace("  ", " ")
    unproven = f"{vtpm.unproven}; nor is it proven which GPU is beside it"
    return _verified(ak, "vtpm-report", tee.anchor, tee.not_after, detail=detail, tee=tee, unproven=unproven)


def pinned(ak: AttestationKey, anchors: TrustAnchors, *, at: datetime) -> VerifiedAk:
    """The AK, if the operator pinned this very key.

    That the key is in a TPM at all is the operator's claim; the attributes are only those that the attester states.

    Args:
        ak: parsed, untrusted.
        anchors: those for ``attestation-key`` are looked at.
        at: aware; the anchor must be valid then.

    Raises:
        NotAuthentic: ``AK_UNPROVEN`` if no anchor is for this key, ``CHAIN_EXPIRED`` if none is valid at ``at``,
            ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM`` for a key of a kind outside the table.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    check_attributes(ak.public)
    spki = ak.public.spki()
    pins = [anchor for anchor in anchors.select("attestation-key") if anchor.spki == spki]
    if not pins:
        raise NotAuthentic(
            Code.AK_UNPROVEN,
            "attestation key is not pinned",
            where="ak",
            hint="Enrol it by its EK certificate, or pin its key if you know whose it is.",
        )
    # Whatever stands first: a pin that has ended hides no other one. The longest of those that hold now decides; where
    # none does, the refusal is about the one that would last longest.
    # No two are of the same times.
    anchor = max(pins, key=lambda pin: (pin.not_before <= at <= pin.not_after, pin.not_after, pin.not_before))
    if not anchor.not_before <= at <= anchor.not_after:
        raise NotAuthentic(
            Code.CHAIN_EXPIRED, "pin is not valid at the time of verification", where=f"anchor {anchor.name}"
        )
    return _verified(ak, "pinned", anchor, anchor.not_after)


def check_attributes(ak: Public) -> None:
    """Require an attestation key, as far as a public area can show it, before anything is spent on proving it.

    Restricted, so that it signs only what the TPM itself made; fixed to its TPM, so that there is no copy; of a kind
    in the table. Every function above demands the same.

    Raises:
        NotAuthentic: ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM``.
    """
    ak.signing_algorithm()
    missing, excess = _REQUIRED & ~ak.attributes, _FORBIDDEN & ak.attributes
    if missing or excess:
        raise NotAuthentic(
            Code.AK_ATTRIBUTES,
            "not a restricted signing key that is fixed to its TPM",
            where="ak.attributes",
            expected=f"{_REQUIRED!r} without {_FORBIDDEN!r}",
            got=repr(ak.attributes),
            clause="TPM 2.0 Part 2 §8.3",
        )


def _verified(
    ak: AttestationKey,
    provenance: Provenance,
    anchor: Anchor,
    not_after: datetime,
    *,
    detail: str = "",
    tee: VerifiedTee | None = None,
    unproven: str | None = None,
) -> VerifiedAk:
    return VerifiedAk(
        key=ak,
        provenance=provenance,
        platform=anchor.platform,
        anchor=anchor.name,
        not_after=not_after,
        detail=detail,
        unproven=_UNPROVEN[provenance] if unproven is None else unproven,
        tee=tee,
        seal=_SEAL,
    )
