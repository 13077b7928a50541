"""Verifies that a cloud certified an attestation key, as Google Compute Engine does for its virtual TPMs.

**Not proven**: anything that the cloud itself could fake. The TPM is software beside the guest, its state is in the
host's hands, and whoever operates the host can make the key sign any values. Nor that the key is in *this* guest: every
customer's virtual machine has such a certificate, and only :attr:`VerifiedAkCertificate.instance` tells one from
another. Nor that the certificate has not been revoked.

The procedure of :func:`verify_ak_certificate`:

1. The certificate is DER from the first byte to the last.
2. The certificate is for this very key.
3. It is for a key that signs, and not a certification authority's. Key usage, where present, has *digital signature*
   and none of the usages of an encryption key. Extended key usage, where present, is that of attestation keys
   (2.23.133.8.3) or that of endorsement keys (2.23.133.8.1), which Google's older authority put into both; where there
   is neither, nothing says what the key is for, and it is refused. So an EK certificate does not pass for an AK's.
4. It chains, through the intermediates in the order given, to an anchor for ``tpm-ak-root`` or ``tpm-ak-intermediate``,
   all valid at the stated time. The platform's name is the anchor's.
5. What an extension says of the virtual machine is read for people; where it cannot be read, or names a machine
   outside the cloud's production, there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography import x509

from weighbridge.proto import der
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.certs import load_certificate, spki_der, valid_until, verify_chain

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.endorsement import AkCertificateEndorsement
    from weighbridge.proto.tpm.public import Public
    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["VerifiedAkCertificate", "verify_ak_certificate"]

_SEAL: Final = object()
_WHERE: Final = "ak.certificate"
# tcg-kp-AIKCertificate and tcg-kp-EKCertificate, TCG Credential Profiles for TPM Family 1.2 §3.1.
_AK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.3")
_EK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.1")
# Google's: of which virtual machine the certificate is.
_GCE_INSTANCE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")
_GCE_FIELDS: Final = 6
_GCE_SECURITY: Final = 0xA0
_GCE_PRODUCTION: Final = 0xA1
_INSTANCE_MAX: Final = 300


@final
@dataclass(frozen=True, slots=True)
class VerifiedAkCertificate:
    """A key that ``anchor`` certified as an attestation key. Made by :func:`verify_ak_certificate` alone.

    Attributes:
        spki: the key, SubjectPublicKeyInfo in DER.
        certificate: DER.
        anchor: whose key vouches; its platform is what evidence under this key is called.
        not_after: the earliest end in its chain.
        instance: of which virtual machine the cloud says that the key is, for people; empty where it does not say.

    The seal is a guard against mistakes, not against hostile code.
    """

    spki: bytes
    certificate: bytes
    anchor: Anchor
    not_after: datetime
    instance: str
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedAkCertificate is made by verify_ak_certificate only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedAkCertificate cannot be pickled")

    @property
    def platform(self) -> str:
        """The platform that the anchor speaks for."""
        return self.anchor.platform


def verify_ak_certificate(
    ak: Public, endorsement: AkCertificateEndorsement, anchors: TrustAnchors, *, at: datetime
) -> VerifiedAkCertificate:
    """The certified key, by the procedure in the module's docstring.

    Left to the caller: that ``ak`` is restricted and fixed to its TPM, which the certificate does not say.

    Args:
        ak: parsed, untrusted.
        endorsement: DER, untrusted; the leaf's issuer first. No intermediates where an anchor issued the leaf.
        anchors: whose keys are believed.
        at: aware; validity is judged at this time.

    Raises:
        NotAuthentic: ``AK_CERT_MISMATCH``, or a code of :func:`~weighbridge.verifier.certs.verify_chain`.
        MalformedEvidence: ``CERT_MALFORMED``, ``KEY_MALFORMED``, ``KEY_UNSUPPORTED`` or ``TOO_LARGE``.
    """
    # 1.
    leaf = load_certificate(endorsement.certificate, _WHERE)
    # 2.
    spki = ak.spki()
    if spki_der(leaf) != spki:
        raise _mismatch("certificate is for another key than the attestation key")
    # 3.
    _check_leaf(leaf)
    # 4.
    chain = [leaf, *(load_certificate(item, f"ak.chain[{n}]") for n, item in enumerate(endorsement.intermediates, 1))]
    trusted = (*anchors.select("tpm-ak-root"), *anchors.select("tpm-ak-intermediate"))
    anchor = verify_chain(chain, trusted, at=at, what="ak.chain")
    # 5.
    return VerifiedAkCertificate(
        spki=spki,
        certificate=endorsement.certificate,
        anchor=anchor,
        not_after=valid_until(chain, anchor),
        instance=_instance(leaf),
        seal=_SEAL,
    )


def _check_leaf(leaf: x509.Certificate) -> None:
    authority, usage, purposes = _extensions(leaf)
    if authority:
        raise _mismatch("certificate is a certification authority's")
    if usage is None and (purposes is None or _AK_USAGE not in purposes):
        raise _mismatch("certificate does not say that its key signs")
    if usage is not None and (
        not usage.digital_signature
        or usage.key_encipherment
        or usage.key_agreement
        or usage.data_encipherment
        or usage.key_cert_sign
    ):
        raise _mismatch(
            "certificate is for a key that does something else than sign",
            expected="key usage digitalSignature",
            got=", ".join(sorted(_usages(usage))) or "no key usage",
            hint="An endorsement certificate? Show that of the attestation key, or activate a credential under the EK.",
        )
    if purposes is not None and _AK_USAGE not in purposes and _EK_USAGE not in purposes:
        raise _mismatch(
            "certificate is not an attestation key's",
            expected=_AK_USAGE.dotted_string,
            got=", ".join(purpose.dotted_string for purpose in purposes),
        )


def _extensions(leaf: x509.Certificate) -> tuple[bool, x509.KeyUsage | None, x509.ExtendedKeyUsage | None]:
    """Whether it is an authority's; key usage and extended key usage, where present."""
    authority = False
    usage: x509.KeyUsage | None = None
    purposes: x509.ExtendedKeyUsage | None = None
    for extension in leaf.extensions:
        match extension.value:
            case x509.BasicConstraints():
                authority = extension.value.ca
            case x509.KeyUsage():
                usage = extension.value
            case x509.ExtendedKeyUsage():
                purposes = extension.value
            case _:
                pass
    return authority, usage, purposes


def _usages(usage: x509.KeyUsage) -> set[str]:
    """The names that RFC 5280 §4.2.1.3 gives to the bits that are set."""
    bits = {
        "digitalSignature": usage.digital_signature,
        "nonRepudiation": usage.content_commitment,
        "keyEncipherment": usage.key_encipherment,
        "dataEncipherment": usage.data_encipherment,
        "keyAgreement": usage.key_agreement,
        "keyCertSign": usage.key_cert_sign,
        "cRLSign": usage.crl_sign,
    }
    return {name for name, bit in bits.items() if bit}


def _instance(leaf: x509.Certificate) -> str:
    """Google's word for the virtual machine, from its extension."""
    for extension in leaf.extensions:
        if extension.oid == _GCE_INSTANCE and isinstance(extension.value, x509.UnrecognizedExtension):
            try:
                return _gce_instance(extension.value.value)
            except MalformedEvidence:
                return ""
    return ""


def _gce_instance(value: bytes) -> str:
    """``SEQUENCE {zone, project number, project id, instance id, instance name, [0] security properties}``.

    Of the properties only ``[1]``, whether the machine is of Google's production, is looked at.

    Raises:
        MalformedEvidence: ``CERT_MALFORMED``.
    """
    fields = der.one(value, der.SEQUENCE, what=_WHERE).elements(what=_WHERE)
    if len(fields) != _GCE_FIELDS or fields[5].tag != _GCE_SECURITY:
        return ""
    zone, project, name = (fields[place].text(what=_WHERE) for place in (0, 2, 4))
    project_number, number = (fields[place].natural(what=_WHERE) for place in (1, 3))
    properties = der.one(fields[5].content, der.SEQUENCE, what=_WHERE).elements(what=_WHERE)
    production = [item for item in properties if item.tag == _GCE_PRODUCTION]
    if len(production) != 1 or not der.one(production[0].content, der.BOOLEAN, what=_WHERE).truth(what=_WHERE):
        return ""
    text = f"instance {name} ({number}) in {zone} of project {project} ({project_number})"
    return text if text.isprintable() and len(text) <= _INSTANCE_MAX else ""


def _mismatch(message: str, *, expected: str | None = None, got: str | None = None, hint: str = "") -> NotAuthentic:
    return NotAuthentic(Code.AK_CERT_MISMATCH, message, where=_WHERE, expected=expected, got=got, hint=hint)
