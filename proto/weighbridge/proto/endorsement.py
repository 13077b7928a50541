"""Why an attestation key is to be believed: what an attester shows for it. Wire layout: ``docs/protocol.md`` §4.

==================  ==================================================================================================
``ek``              a TPM's maker certified its endorsement key, and the TPM will open a credential for the AK
``ak-certificate``  a cloud certified the AK itself
``vtpm-report``     a confidential VM's firmware names the AK of its TPM, and the CPU signed for that firmware's claims
none                the verifier has the key among its anchors
==================  ==================================================================================================

Parsing proves nothing. What each way proves and what it does not: :mod:`weighbridge.verifier.tpm.ak`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = [
    "AkCertificateEndorsement",
    "EkEndorsement",
    "Endorsement",
    "VtpmReportEndorsement",
    "endorsement_from_cbor",
    "endorsement_to_cbor",
]

_EK: Final = "ek"
_AK_CERTIFICATE: Final = "ak-certificate"
_VTPM_REPORT: Final = "vtpm-report"
_INTERMEDIATES_MAX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EkEndorsement:
    """A certified endorsement key. ``public`` is a TPMT_PUBLIC, certificates are DER, the leaf's issuer first."""

    public: bytes
    certificate: bytes
    intermediates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AkCertificateEndorsement:
    """A certified attestation key. Certificates are DER, the leaf's issuer first."""

    certificate: bytes
    intermediates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VtpmReportEndorsement:
    """What Azure's paravisor says of its TPM, as NV index 0x01400001 holds it, and who signs for that.

    On SEV-SNP the signed report is inside ``report``, ``quote`` is ``None`` and ``certificates`` are VCEK, ASK and
    ARK in DER. On TDX ``quote`` is the TD quote, which brings its chain, and ``certificates`` are none.
    """

    report: bytes
    quote: bytes | None
    certificates: tuple[bytes, ...]


Endorsement = EkEndorsement | AkCertificateEndorsement | VtpmReportEndorsement


def endorsement_to_cbor(endorsement: Endorsement | None) -> cbor.CborValue:
    """As it stands in an opening."""
    match endorsement:
        case None:
            return None
        case EkEndorsement():
            return [_EK, endorsement.public, endorsement.certificate, list(endorsement.intermediates)]
        case AkCertificateEndorsement():
            return [_AK_CERTIFICATE, endorsement.certificate, list(endorsement.intermediates)]
        case VtpmReportEndorsement():
            return [_VTPM_REPORT, endorsement.report, endorsement.quote, list(endorsement.certificates)]


def endorsement_from_cbor(value: cbor.CborValue, *, where: str) -> Endorsement | None:
    """Read :func:`endorsement_to_cbor`; the parts stay bytes.

    Raises:
        MalformedEvidence: for anything that it would not have written.
    """
    if value is None:
        return None
    parts = cbor.read_array(value, where=where, limit=4)
    fields = cbor.Reader(dict(enumerate(parts)), where)
    kind = fields.text(0, limit=32)
    endorsement: Endorsement
    match kind:
        case "ek":
            endorsement = EkEndorsement(
                public=fields.octets(1, limit=limits.TPM_STRUCTURE_MAX),
                certificate=fields.octets(2, limit=limits.CERT_MAX),
                intermediates=fields.octet_strings(3, count=_INTERMEDIATES_MAX, limit=limits.CERT_MAX),
            )
        case "ak-certificate":
            endorsement = AkCertificateEndorsement(
                certificate=fields.octets(1, limit=limits.CERT_MAX),
                intermediates=fields.octet_strings(2, count=_INTERMEDIATES_MAX, limit=limits.CERT_MAX),
            )
        case "vtpm-report":
            endorsement = VtpmReportEndorsement(
                report=fields.octets(1, limit=limits.VTPM_REPORT_MAX),
                quote=fields.optional_octets(2, limit=limits.TD_QUOTE_MAX),
                certificates=fields.octet_strings(3, count=_INTERMEDIATES_MAX, limit=limits.CERT_MAX),
            )
        case _:
            raise MalformedEvidence(
                Code.FIELD_RANGE,
                "unknown kind of endorsement",
                where=where,
                expected=f"{_EK}, {_AK_CERTIFICATE} or {_VTPM_REPORT}",
                got=kind,
            )
    fields.end()
    return endorsement
