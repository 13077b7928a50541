"""Verifies an endorsement key: that a manufacturer vouches for the TPM that holds it.

**Not proven**: that this TPM is in the machine that answers, or beside its GPU, nor that its vendor has not revoked
the certificate (vendors publish no dependable revocation for EK certificates).

The procedure of :func:`verify_ek`:

1. The public area is one of the two default templates that are accepted (TCG EK Credential Profile v2.5 rev. 2,
   annex B): L-1, RSA-2048, or H-3, P-384. Attributes, policy, nameAlg and symmetric algorithm are compared with the
   template, never taken from the attester: a credential made for a weaker parent could be opened outside a TPM.
2. The certificate is DER from the first byte to the last. Padding of the NV index is the attester's to cut.
3. The certificate is for this very key.
4. It is an EK certificate: not a CA, extended key usage 2.23.133.8.1.
5. It chains, through the intermediates in the order given, to an anchor for ``tpm-ek-root`` or
   ``tpm-ek-intermediate``, all valid at the stated time. The platform's name is the anchor's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography import x509

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tpm.constants import Symmetric
from weighbridge.proto.tpm.public import EccPoint, Public
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS, EndorsementTemplate
from weighbridge.verifier.certs import load_certificate, spki_der, valid_until, verify_chain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["VerifiedEk", "verify_ek"]

_SEAL: Final = object()
# tcg-kp-EKCertificate, TCG EK Credential Profile §3.2.16.
_EK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.1")
_CLAUSE: Final = "TCG EK Credential Profile v2.5 rev. 2"


@final
@dataclass(frozen=True, slots=True)
class VerifiedEk:
    """An endorsement key for which ``anchor`` vouches. Made by :func:`verify_ek` alone.

    ``platform`` is the anchor's: what evidence under this key is called. ``symmetric`` is the template's. ``not_after``
    is the earliest end in its chain. The seal is a guard against mistakes, not against hostile code.
    """

    public: Public
    template: EndorsementTemplate
    certificate: bytes
    anchor: Anchor
    not_after: datetime
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedEk is made by verify_ek only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedEk cannot be pickled")

    @property
    def platform(self) -> str:
        """The platform that the anchor speaks for."""
        return self.anchor.platform

    @property
    def symmetric(self) -> Symmetric:
        """The symmetric algorithm by which credentials for this key are wrapped."""
        return self.template.symmetric


def verify_ek(
    ek_public: Public, certificate: bytes, intermediates: Sequence[bytes], anchors: TrustAnchors, *, at: datetime
) -> VerifiedEk:
    """The endorsement key that ``certificate`` is for, by the procedure in the module's docstring.

    That the TPM is present is shown later, when it activates a credential.

    Args:
        ek_public: parsed, untrusted.
        certificate: DER, untrusted.
        intermediates: DER, untrusted; the leaf's issuer first. May be empty where an anchor issued the leaf.
        anchors: whose keys are believed.
        at: aware; validity is judged at this time.

    Raises:
        NotAuthentic: ``EK_TEMPLATE``, ``EK_CERT_MISMATCH``, or a code of
            :func:`~weighbridge.verifier.certs.verify_chain`.
        MalformedEvidence: ``CERT_MALFORMED``, ``KEY_MALFORMED``, ``KEY_UNSUPPORTED`` or ``TOO_LARGE``.
    """
    # 1.
    template = _check_template(ek_public)
    # 2.
    leaf = load_certificate(certificate, "ek.certificate")
    # 3.
    if spki_der(leaf) != ek_public.spki():
        raise NotAuthentic(
            Code.EK_CERT_MISMATCH,
            "certificate is for another key than the endorsement key",
            where="ek.certificate",
            clause=f"{_CLAUSE} §3.2.7",
        )
    # 4.
    _check_leaf(leaf)
    # 5.
    chain = [leaf, *(load_certificate(der, f"ek.chain[{n}]") for n, der in enumerate(intermediates, 1))]
    trusted = (*anchors.select("tpm-ek-root"), *anchors.select("tpm-ek-intermediate"))
    anchor = verify_chain(chain, trusted, at=at, what="ek.chain")
    return VerifiedEk(
        public=ek_public,
        template=template,
        certificate=certificate,
        anchor=anchor,
        not_after=valid_until(chain, anchor),
        seal=_SEAL,
    )


def _check_template(public: Public) -> EndorsementTemplate:
    size: int = public.unique.curve if isinstance(public.unique, EccPoint) else public.unique.bits
    for template in ENDORSEMENT_KEYS:
        if template.size == size:
            break
    else:
        raise NotAuthentic(
            Code.EK_TEMPLATE,
            "key is of no accepted endorsement template",
            where="ek",
            clause=f"{_CLAUSE} annex B",
            got=size,
        )
    for what, expected, got in (
        ("nameAlg", template.name_algorithm, public.name_algorithm),
        ("attributes", template.attributes, public.attributes),
        ("authPolicy", template.auth_policy, public.auth_policy),
        ("symmetric", template.symmetric, public.symmetric),
        ("scheme", None, public.scheme),
    ):
        if got != expected:
            raise NotAuthentic(
                Code.EK_TEMPLATE,
                f"{what} is not that of template {template.name}",
                where=f"ek.{what}",
                expected=expected,
                got=got,
                clause=f"{_CLAUSE} annex B",
            )
    return template


def _check_leaf(leaf: x509.Certificate) -> None:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage([])
    if _EK_USAGE not in usages:
        raise NotAuthentic(
            Code.EK_CERT_MISMATCH,
            "certificate is not an endorsement key's",
            where="ek.certificate",
            expected=_EK_USAGE.dotted_string,
            got=", ".join(usage.dotted_string for usage in usages) or "no extended key usage",
            clause=f"{_CLAUSE} §3.2.16",
        )
    try:
        authority = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if authority:
        raise NotAuthentic(
            Code.EK_CERT_MISMATCH, "certificate is a certification authority's", where="ek.certificate", clause=_CLAUSE
        )
