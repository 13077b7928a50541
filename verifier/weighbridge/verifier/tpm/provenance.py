"""From an endorsement to an attestation key that is believed: the one place that knows the four ways.

Three of them are decided at once; the fourth, a certified EK, needs an answer from the TPM (:class:`Activation`).
Adding a way is adding a case here, a type in :mod:`weighbridge.proto.endorsement` and a function in :mod:`.ak`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.proto.endorsement import AkCertificateEndorsement, EkEndorsement, VtpmReportEndorsement
from weighbridge.proto.tpm import public as tpm_public
from weighbridge.verifier.tee.vtpm import verify_vtpm
from weighbridge.verifier.tpm.ak import activated, certified, check_attributes, pinned, reported
from weighbridge.verifier.tpm.ak_certificate import verify_ak_certificate
from weighbridge.verifier.tpm.ek import verify_ek

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.collateral import Collateral
    from weighbridge.proto.endorsement import Endorsement
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk
    from weighbridge.verifier.tpm.ek import VerifiedEk

__all__ = ["Activation", "verify_endorsement"]


@dataclass(frozen=True, slots=True)
class Activation:
    """What is still to be shown: that the TPM of ``ek`` opens a credential for ``ak``."""

    ek: VerifiedEk
    ak: AttestationKey

    def answered(self, *, secret: bytes, answer: bytes) -> VerifiedAk:
        """The AK, if ``answer`` is the secret. As :func:`weighbridge.verifier.tpm.ak.activated`."""
        return activated(self.ek, self.ak, secret=secret, answer=answer)


def verify_endorsement(
    endorsement: Endorsement | None,
    ak: AttestationKey,
    *,
    collateral: Collateral,
    anchors: TrustAnchors,
    at: datetime,
) -> VerifiedAk | Activation:
    """The AK believed, or what is still to be shown.

    Args:
        endorsement: parsed, untrusted; ``None`` for a key that ought to be pinned.
        ak: parsed, untrusted.
        collateral: what makers of hardware publish; authenticated here.
        anchors: whose keys are believed.
        at: aware; validity is judged at this time.

    Raises:
        MalformedEvidence: a part is not well-formed.
        NotAuthentic: the code names the step that failed.
        Indeterminate: collateral that is needed is absent, or past its time.
    """
    check_attributes(ak.public)
    match endorsement:
        case None:
            return pinned(ak, anchors, at=at)
        case EkEndorsement():
            public = tpm_public.parse(endorsement.public)
            ek = verify_ek(public, endorsement.certificate, endorsement.intermediates, anchors, at=at)
            return Activation(ek, ak)
        case AkCertificateEndorsement():
            return certified(ak, verify_ak_certificate(ak.public, endorsement, anchors, at=at))
        case VtpmReportEndorsement():
            return reported(ak, verify_vtpm(endorsement, collateral=collateral, anchors=anchors, at=at))
