"""Whether a certificate may sign models, and whether its chain ends at a trusted root.

Stricter than the reference implementation in two points. It judges every certificate at the beginning of the signer's
own validity, so that the signer's never expires; here the time is the caller's, the present unless somebody states when
the model was signed, which nothing in a bundle proves. And it takes any extended key usage beside ``digitalSignature``;
here one that is present must include code signing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from weighbridge.attester.model_signing.algorithms import NAMES, supported
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.x509 import public_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["check_purpose", "verify_chain"]


def check_purpose(certificate: x509.Certificate, where: str) -> ec.EllipticCurvePublicKey:
    """The certificate's key, which may sign models: ECDSA, and key usages that allow it.

    Of key usage and extended key usage one must be there; whichever is must allow signing.

    Raises:
        NotAuthentic: ``CERT_PURPOSE``.
    """
    key = public_key(certificate, where)
    if not supported(key):
        raise _purpose(f"its key is not on {NAMES}", where)
    usage = _key_usage(certificate)
    extended = _extended_usage(certificate)
    if usage is None and extended is None:
        raise _purpose("it does not say what its key is for", where)
    if usage is not None and not usage.digital_signature:
        raise _purpose("its key usage lacks digitalSignature", where)
    if extended is not None and ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        raise _purpose("its extended key usage lacks codeSigning", where)
    return key


def verify_chain(
    certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], *, at: datetime
) -> Sequence[x509.Certificate]:
    """The chain from ``certificates[0]`` to one of ``roots``, both included, valid at ``at``.

    By the rules of ``cryptography.x509.verification`` (RFC 5280 §6 without revocation), authorities with critical basic
    constraints and, where they state a key usage, keyCertSign. Not checked: revocation, and what the signer's
    certificate is for (:func:`check_purpose`).

    Args:
        certificates: the signer's first; untrusted.
        roots: trusted.
        at: aware; validity is judged at this time and no other.

    Raises:
        NotAuthentic: ``CHAIN_EXPIRED`` or ``CHAIN_UNTRUSTED``.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    signer = certificates[0]
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(at)
        .max_chain_depth(limits.MODEL_SIGNATURE_CERTS_MAX)
        .extension_policies(ca_policy=_authority_policy(), ee_policy=verification.ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        return verifier.verify(signer, list(certificates[1:])).chain
    except verification.VerificationError as error:
        _check_validity([*certificates, *_issuers(certificates, roots)], at)
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            f"no chain leads to a trusted root: {error}",
            where="bundle.certificates",
            expected=" or ".join(root.subject.rfc4514_string() for root in roots),
            got=certificates[-1].issuer.rfc4514_string(),
            clause="RFC 5280 §6.1",
            hint="name the root, if you believe it; certificates between it and the signer's must be in the bundle",
        ) from error


def _authority_policy() -> verification.ExtensionPolicy:
    policy = verification.ExtensionPolicy.permit_all()
    critical, agnostic = verification.Criticality.CRITICAL, verification.Criticality.AGNOSTIC
    policy = policy.require_present(x509.BasicConstraints, critical, None)
    return policy.may_be_present(x509.KeyUsage, agnostic, _check_authority)


def _check_authority(_: verification.Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority's key usage lacks keyCertSign")


def _issuers(certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The roots that may have been meant."""
    names = {certificate.issuer for certificate in certificates}
    return [root for root in roots if root.subject in names]


def _check_validity(certificates: Sequence[x509.Certificate], at: datetime) -> None:
    """Say that a certificate is out of its time rather than that no chain was found."""
    for certificate in certificates:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin <= at <= end:
            raise NotAuthentic(
                Code.CHAIN_EXPIRED,
                "a certificate is not valid at the time of verification",
                where=certificate.subject.rfc4514_string(),
                expected=f"{begin:%Y-%m-%dT%H:%M:%SZ}..{end:%Y-%m-%dT%H:%M:%SZ}",
                got=at.isoformat(),
                clause="RFC 5280 §6.1.3 (a)(2)",
                hint="if you know when the model was signed, state that time: the signature does not prove it",
            )


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _extended_usage(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _purpose(reason: str, where: str) -> NotAuthentic:
    return NotAuthentic(
        Code.CERT_PURPOSE,
        f"the certificate is not for signing models: {reason}",
        where=where,
        expected="key usage digitalSignature, extended key usage codeSigning",
        clause="RFC 5280 §4.2.1.3, §4.2.1.12",
    )
