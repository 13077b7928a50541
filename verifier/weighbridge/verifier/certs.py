"""Certificate chains from a leaf to a trust anchor (RFC 5280 §6, without name constraints and policies).

The procedure of :func:`verify_chain`, for ``certs`` from leaf to top:

1. between 1 and ``limits.GPU_CHAIN_CERTS_MAX`` certificates;
2. each is signed with an algorithm of the table below;
3. no critical extension that is not understood here;
4. each is valid at ``at``;
5. each but the leaf is a CA that may sign certificates, and its path length admits those below it;
6. each but the top is issued, name and signature, by the next;
7. the top is an anchor's own certificate (same key), or names an anchor as its issuer; either way its signature
   verifies under that anchor's key, and the anchor is valid at ``at``. An anchor whose purpose is an intermediate
   authority's has been certified by somebody else; that certificate may be on top, under the anchor's name and above
   the leaf: it is the key that is believed, and 6 has verified what that key signed.

Left to the caller: what the leaf may be used for, what its names mean, revocation. Nothing is fetched: a missing
intermediate is a broken chain.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.x509 import common_name, load_certificate, pem_certificates, spki_der

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor

__all__ = [
    "check_authority",
    "check_critical",
    "check_issued",
    "check_validity",
    "common_name",
    "load_certificate",
    "pem_certificates",
    "spki_der",
    "verify_chain",
    "verify_head",
]

_Oid = x509.SignatureAlgorithmOID
# The table of signature algorithms: SHA-1 and MD5 are rejected by absence, so is RSASSA-PSS,
# with which AMD alone signs: `tee.amd_chain` verifies that.
_HASHES: Final[dict[x509.ObjectIdentifier, hashes.HashAlgorithm]] = {
    _Oid.ECDSA_WITH_SHA256: hashes.SHA256(),
    _Oid.ECDSA_WITH_SHA384: hashes.SHA384(),
    _Oid.ECDSA_WITH_SHA512: hashes.SHA512(),
    _Oid.RSA_WITH_SHA256: hashes.SHA256(),
    _Oid.RSA_WITH_SHA384: hashes.SHA384(),
    _Oid.RSA_WITH_SHA512: hashes.SHA512(),
}
# Understood, or harmless when not acted upon: with no initial policy set any certificate policy is acceptable
# (RFC 5280 §6.1.1 (c)), and what names and extended usages mean is for the caller to say.
_CRITICAL_ACCEPTED: Final = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.CertificatePolicies.oid,
    }
)
_NAMED_MAX: Final = 3
_INTERMEDIATES: Final = frozenset({"tpm-ek-intermediate", "tpm-ak-intermediate"})


def verify_chain(certs: Sequence[x509.Certificate], anchors: Sequence[Anchor], *, at: datetime, what: str) -> Anchor:
    """The anchor that vouches for ``certs[0]`` at the time ``at``, by the procedure in the module's docstring.

    Not checked: revocation, the leaf's purpose, names other than issuer and subject.

    Args:
        certs: leaf first; untrusted.
        anchors: those of the one purpose in question (:meth:`TrustAnchors.select`); an empty sequence trusts nothing.
        at: aware; validity is judged at this time and no other.
        what: name of the chain, for messages, such as ``gpu.chain``.

    Raises:
        NotAuthentic: ``CHAIN_LENGTH``, ``CHAIN_BROKEN``, ``CHAIN_EXPIRED`` or ``CHAIN_UNTRUSTED``, naming the link.
        ValueError: ``at`` is naive.
    """
    # 1. to 6.
    verify_head(certs, 0, at=at, what=what)
    # 7.
    where = f"{what}[{len(certs) - 1}]"
    anchor = _find_anchor(certs[-1], anchors, where)
    if not _is_certified_by_others(certs, anchor):
        _check_signature(certs[-1], anchor, where)
    check_validity(anchor.not_before, anchor.not_after, at=at, where=f"anchor {anchor.name}")
    return anchor


def valid_until(certs: Sequence[x509.Certificate], anchor: Anchor) -> datetime:
    """The earliest end among ``certs`` and ``anchor``, inclusive: until then what they vouch for is vouched for."""
    return min([anchor.not_after, *(certificate.not_valid_after_utc for certificate in certs)])


def verify_head(certs: Sequence[x509.Certificate], known: int, *, at: datetime, what: str) -> None:
    """Steps 1 to 6 for a chain whose last ``known`` certificates need no work a second time.

    Not checked: the anchor, and whatever of steps 2 to 4 and 6 is about the last ``known`` certificates alone. They are
    the caller's: :func:`verify_chain` has accepted these very certificates, under anchors that are still the same, and
    ``at`` is within the validity of each and of the anchor.

    Raises:
        NotAuthentic: as :func:`verify_chain`.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    # 1.
    if not 1 <= len(certs) <= limits.GPU_CHAIN_CERTS_MAX:
        raise NotAuthentic(
            Code.CHAIN_LENGTH,
            "wrong number of certificates",
            where=what,
            expected=f"1..{limits.GPU_CHAIN_CERTS_MAX}",
            got=len(certs),
        )
    new = len(certs) - known
    for number, certificate in enumerate(certs):
        where = f"{what}[{number}]"
        if number < new:
            # 2.
            if certificate.signature_algorithm_oid not in _HASHES:
                raise NotAuthentic(
                    Code.CHAIN_BROKEN,
                    "signature algorithm is not accepted",
                    where=where,
                    got=certificate.signature_algorithm_oid.dotted_string,
                )
            # 3.
            check_critical(certificate, where)
            # 4.
            check_validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc, at=at, where=where)
        # 5. Also for what is known: how long a path it admits depends on what is below it now.
        if number:
            check_authority(certificate, certs[1:number], where)
    # 6.
    for number, (subject, issuer) in enumerate(pairwise(certs)):
        if number < new:
            check_issued(subject, issuer, where=f"{what}[{number}]", by=f"{what}[{number + 1}]")


def check_critical(certificate: x509.Certificate, where: str) -> None:
    """Require that no critical extension is one that is not understood here.

    Raises:
        NotAuthentic: ``CHAIN_BROKEN``.
    """
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _CRITICAL_ACCEPTED:
            raise NotAuthentic(
                Code.CHAIN_BROKEN,
                "critical extension is not understood",
                where=where,
                got=extension.oid.dotted_string,
                clause="RFC 5280 §6.1.4 (o)",
            )


def check_validity(not_before: datetime, not_after: datetime, *, at: datetime, where: str) -> None:
    """Require ``at`` to be from ``not_before`` to ``not_after``, both inclusive.

    Raises:
        NotAuthentic: ``CHAIN_EXPIRED``.
    """
    if not not_before <= at <= not_after:
        raise NotAuthentic(
            Code.CHAIN_EXPIRED,
            "not valid at the time of verification",
            where=where,
            expected=f"{not_before:%Y-%m-%dT%H:%M:%SZ}..{not_after.isoformat().replace('+00:00', 'Z')}",
            got=at.isoformat(),
            clause="RFC 5280 §6.1.3 (a)(2)",
        )


def check_authority(certificate: x509.Certificate, below: Sequence[x509.Certificate], where: str) -> None:
    """Require a certification authority; ``below`` are the intermediates between it and the leaf.

    Raises:
        NotAuthentic: ``CHAIN_BROKEN``.
    """
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise NotAuthentic(
            Code.CHAIN_BROKEN,
            "issuer is no authority: it lacks BasicConstraints or KeyUsage",
            where=where,
            clause="RFC 5280 §6.1.4 (k), (n)",
            hint="Name the certificate of the authority that issued the one below it.",
        ) from error
    if not constraints.ca or not usage.key_cert_sign:
        raise NotAuthentic(
            Code.CHAIN_BROKEN, "issuer may not sign certificates", where=where, clause="RFC 5280 §6.1.4 (k), (n)"
        )
    depth = sum(1 for other in below if other.subject != other.issuer)
    if constraints.path_length is not None and depth > constraints.path_length:
        raise NotAuthentic(
            Code.CHAIN_BROKEN,
            "path length exceeded",
            where=where,
            expected=f"<= {constraints.path_length}",
            got=depth,
            clause="RFC 5280 §6.1.4 (l)",
        )


def check_issued(subject: x509.Certificate, issuer: x509.Certificate, *, where: str, by: str) -> None:
    """Require that ``issuer`` issued ``subject``: the name and the signature.

    Not checked: whether it may issue certificates (:func:`check_authority`).

    Raises:
        NotAuthentic: ``CHAIN_BROKEN``.
    """
    try:
        subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as error:
        reason = "the signature does not verify" if isinstance(error, InvalidSignature) else _in_our_words(error)
        raise NotAuthentic(
            Code.CHAIN_BROKEN, f"not issued by {by}: {reason}", where=where, clause="RFC 5280 §6.1.3 (a)(1), (4)"
        ) from error


def _in_our_words(error: Exception) -> str:
    """The library's sentence, as part of ours."""
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]


def _find_anchor(top: x509.Certificate, anchors: Sequence[Anchor], where: str) -> Anchor:
    """Select by key, else by the issuer's name: one candidate, never key after key until one fits."""
    own = spki_der(top)
    issuer = top.issuer.rfc4514_string()
    for anchor in anchors:
        if anchor.spki == own:
            return anchor
    named = [anchor for anchor in anchors if anchor.name == issuer]
    # A root that signed itself with a key nobody named is a stranger, whatever it calls itself.
    if not named or _is_self_signed(top):
        raise NotAuthentic(
            Code.CHAIN_UNTRUSTED,
            "chain does not end at a trust anchor",
            where=where,
            expected=_expected(anchors),
            got=issuer,
            clause="RFC 5280 §6.1.1 (d)",
            hint="Pass the anchors document that names this root, if you believe it: weighbridge anchors import",
        )
    # Vendors reuse the name for a successor's key: the authority key identifier says which.
    matching = [anchor for anchor in named if _key_identifier(anchor) == _authority_identifier(top)]
    return (matching or named)[0]


def _expected(anchors: Sequence[Anchor]) -> str:
    """The names, where there are so few that they are read."""
    if len(anchors) > _NAMED_MAX:
        return f"one of the {len(anchors)} anchors of this purpose"
    return " or ".join(anchor.name for anchor in anchors) or "an anchor of this purpose, of which there is none"


def _is_certified_by_others(certs: Sequence[x509.Certificate], anchor: Anchor) -> bool:
    """Whether the top, with something below it, is what another authority certified of an intermediate one."""
    top = certs[-1]
    named = top.subject.rfc4514_string() == anchor.name and top.subject != top.issuer
    return len(certs) > 1 and anchor.purpose in _INTERMEDIATES and named and spki_der(top) == anchor.spki


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _key_identifier(anchor: Anchor) -> bytes:
    """What certificates call the anchor's key; by the usual method where its own certificate does not say."""
    return anchor.key_id or x509.SubjectKeyIdentifier.from_public_key(anchor.key()).digest


def _authority_identifier(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None


def _check_signature(certificate: x509.Certificate, anchor: Anchor, where: str) -> None:
    algorithm = _HASHES[certificate.signature_algorithm_oid]
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    key = anchor.key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        else:
            raise NotAuthentic(Code.CHAIN_UNTRUSTED, f"anchor {anchor.name} has no key for certificates", where=where)
    except InvalidSignature as error:
        raise NotAuthentic(
            Code.CHAIN_BROKEN,
            f"signature does not verify under the key of anchor {anchor.name}",
            where=where,
            clause="RFC 5280 §6.1.3 (a)(1)",
        ) from error
