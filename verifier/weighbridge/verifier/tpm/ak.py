"""Verifies an attestation key: a restricted signing key that lives in one TPM and is believed for a stated reason.

There are two reasons, and every :class:`VerifiedAk` names its own, with what that does *not* prove:

``ek-credential``
    a manufacturer certified the TPM's EK, and that TPM returned a secret that it opens only with this AK loaded;
``pinned``
    the operator put the key into the trust anchors.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm.constants import Hierarchy, ObjectAttributes
from weighbridge.proto.tpm.names import qualified_name_of_primary
from weighbridge.proto.tpm.public import Public

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.tpm.ek import VerifiedEk

__all__ = ["Provenance", "VerifiedAk", "activated", "check_attributes", "pinned"]

Provenance = Literal["ek-credential", "pinned"]

_SEAL: Final = object()
_SECRET_MIN: Final = 16
_A = ObjectAttributes
_REQUIRED: Final = _A.FIXED_TPM | _A.FIXED_PARENT | _A.SENSITIVE_DATA_ORIGIN | _A.RESTRICTED | _A.SIGN
_FORBIDDEN: Final = _A.DECRYPT

_UNPROVEN: Final[dict[Provenance, str]] = {
    "ek-credential": (
        "the EK certificate proves a genuine TPM, not that it is in this guest or beside this GPU; its activation "
        "convinces the verifier that asked and leaves no proof for others"
    ),
    "pinned": "that this key is in a TPM rests on whoever pinned it",
}


@final
@dataclass(frozen=True, slots=True)
class VerifiedAk:
    """An attestation key, believed for the reason in ``provenance``. Made by :func:`activated` or :func:`pinned`.

    ``platform`` is the name of what vouches for it, ``unproven`` what does not follow, in words to be printed with
    every verdict. The seal is a guard against mistakes, not against hostile code.
    """

    public: Public
    provenance: Provenance
    platform: str
    unproven: str
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedAk is made by activated or pinned only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedAk cannot be pickled")

    @property
    def name(self) -> bytes:
        """The AK's Name, by which it is known from session to session."""
        return self.public.name

    @property
    def qualified_name(self) -> bytes:
        """Its qualified name as a primary of the endorsement hierarchy, which every attestation must bear.

        Under any other hierarchy the reset counts and the firmware version would come obfuscated (Part 1 §36.7).
        """
        return qualified_name_of_primary(Hierarchy.ENDORSEMENT, self.name)


def activated(ek: VerifiedEk, ak: Public, *, secret: bytes, answer: bytes) -> VerifiedAk:
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
        MalformedEvidence: ``TPM_ALGORITHM`` for a key of another kind than P-256 with ECDSA and SHA-256.
        ValueError: the secret is too short to prove anything.
    """
    if len(secret) < _SECRET_MIN:
        raise ValueError(f"secret must be of at least {_SECRET_MIN} bytes")
    check_attributes(ak)
    if not hmac.compare_digest(secret, answer):
        raise NotAuthentic(
            Code.AK_UNPROVEN, "credential was not activated", where="ak.answer", clause="TPM 2.0 Part 1 §24"
        )
    return _verified(ak, "ek-credential", ek.platform)


def pinned(ak: Public, anchors: TrustAnchors, *, at: datetime) -> VerifiedAk:
    """The AK, if the operator pinned this very key.

    That the key is in a TPM at all is the operator's claim; the attributes are only those that the attester states.

    Args:
        ak: parsed, untrusted.
        anchors: those for ``attestation-key`` are looked at.
        at: aware; the anchor must be valid then.

    Raises:
        NotAuthentic: ``AK_UNPROVEN`` if no anchor is for this key, ``CHAIN_EXPIRED`` if it is not valid at ``at``,
            ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM`` for a key of another kind than P-256 with ECDSA and SHA-256.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    check_attributes(ak)
    spki = ak.spki()
    anchor = next((anchor for anchor in anchors.select("attestation-key") if anchor.spki == spki), None)
    if anchor is None:
        raise NotAuthentic(
            Code.AK_UNPROVEN,
            "attestation key is not pinned",
            where="ak",
            hint="Enrol it by its EK certificate, or pin its key if you know whose it is.",
        )
    if not anchor.not_before <= at <= anchor.not_after:
        raise NotAuthentic(
            Code.CHAIN_EXPIRED, "pin is not valid at the time of verification", where=f"anchor {anchor.name}"
        )
    return _verified(ak, "pinned", anchor.platform)


def check_attributes(ak: Public) -> None:
    """Require an attestation key, as far as a public area can show it, before anything is spent on proving it.

    Restricted, so that it signs only what the TPM itself made; fixed to its TPM, so that there is no copy; P-256.
    :func:`activated` and :func:`pinned` demand the same.

    Raises:
        NotAuthentic: ``AK_ATTRIBUTES``.
        MalformedEvidence: ``TPM_ALGORITHM``.
    """
    row = ak.signing_algorithm()
    if not row.attestation:
        raise MalformedEvidence(
            Code.TPM_ALGORITHM, "algorithm is not accepted for an attestation key", where="ak", got=row.name
        )
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


def _verified(ak: Public, provenance: Provenance, platform: str) -> VerifiedAk:
    return VerifiedAk(public=ak, provenance=provenance, platform=platform, unproven=_UNPROVEN[provenance], seal=_SEAL)
