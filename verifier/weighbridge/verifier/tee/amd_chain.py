"""Verifies the key of an AMD chip: VCEK, certified by the ASK, certified by the ARK.

Apart from :mod:`weighbridge.verifier.certs`, since AMD's chains are unlike others: RSASSA-PSS signatures, a leaf with
serial number zero and without usages, and always these three certificates (AMD 57230 rev. 1.00 §3).

The procedure of :func:`verify_amd_chain`:

1. There are three certificates: VCEK, ASK, ARK; the first is a chip's (:mod:`weighbridge.proto.tee.chip_certificate`).
2. The ARK's key is an anchor's for ``amd-ark``, and the anchor bears its name. The key decides: whoever passes anchors
   of his own beside AMD's may give them AMD's names.
3. Each is valid at the stated time, and so is the anchor; no critical extension is unknown; ASK and ARK may sign
   certificates, and no authority stands between.
4. Each is issued by the next, name and signature, the ARK by itself.
5. The names are those of one product: the VCEK says Genoa, say, and ARK and ASK are ``ARK-Genoa`` and ``SEV-Genoa``.
6. No list of the ARK's, of those at hand, names the ASK. Lists of other authorities are passed over. VCEKs are in no
   list: AMD revokes a version of firmware by no longer accepting it, see :mod:`weighbridge.verifier.tee.snp`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography.exceptions import InvalidSignature

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tee import chip_certificate
from weighbridge.proto.tee.chip_certificate import ChipCertificate
from weighbridge.verifier import certs
from weighbridge.verifier.certs import load_certificate, spki_der
from weighbridge.verifier.tee import amd_signature
from weighbridge.verifier.tee.crl import issuer_of, verify_crl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

    from weighbridge.verifier.anchors import Anchor, TrustAnchors
    from weighbridge.verifier.tee.model import Revocation

__all__ = ["VerifiedChip", "verify_amd_chain"]

_SEAL: Final = object()
_CLAUSE: Final = "AMD 57230 rev. 1.00 §3"
_CERTIFICATES: Final = 3
_WHERE: Final = ("snp.vcek", "snp.ask", "snp.ark")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChip:
    """A chip's key for which ``anchor`` vouches until ``not_after``. Made by :func:`verify_amd_chain` alone.

    The seal is a guard against mistakes, not against hostile code.
    """

    certificate: ChipCertificate
    anchor: Anchor
    not_after: datetime
    revocation: Revocation
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedChip is made by verify_amd_chain only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedChip cannot be pickled")


def verify_amd_chain(
    certificates: Sequence[bytes], *, crls: Sequence[bytes], anchors: TrustAnchors, at: datetime
) -> VerifiedChip:
    """The chip's key in ``certificates``, by the procedure in the module's docstring.

    Args:
        certificates: VCEK, ASK, ARK in DER; untrusted.
        crls: revocation lists in DER, of any authority; untrusted.
        anchors: those for ``amd-ark`` are looked at.
        at: aware; validity is judged at this time.

    Raises:
        NotAuthentic: ``CHAIN_LENGTH``, ``CHAIN_UNTRUSTED``, ``CHAIN_EXPIRED``, ``CHAIN_BROKEN``, ``CERT_REVOKED``,
            ``CRL_INVALID``.
        MalformedEvidence: ``CERT_MALFORMED``, ``KEY_MALFORMED``, ``KEY_UNSUPPORTED``, ``TOO_LARGE``, ``CRL_INVALID``.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    # 1.
    if len(certificates) != _CERTIFICATES:
        raise NotAuthentic(
            Code.CHAIN_LENGTH,
            "chain is not VCEK, ASK and ARK",
            where="snp.certificates",
            expected=_CERTIFICATES,
            got=len(certificates),
            clause=_CLAUSE,
        )
    chip = chip_certificate.parse(certificates[0], _WHERE[0])
    ask, ark = (load_certificate(der, where) for der, where in zip(certificates[1:], _WHERE[1:], strict=True))
    # 2.
    anchor = _find_anchor(ark, anchors)
    # 3.
    for certificate, where in zip((chip.certificate, ask, ark), _WHERE, strict=True):
        certs.check_critical(certificate, where)
        certs.check_validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc, at=at, where=where)
    certs.check_authority(ask, (), _WHERE[1])
    certs.check_authority(ark, (ask,), _WHERE[2])
    certs.check_validity(anchor.not_before, anchor.not_after, at=at, where=f"anchor {anchor.name}")
    # 4.
    _check_issued(chip.certificate, ask, certificates[0], chip.signed, where=_WHERE[0])
    _check_issued(ask, ark, certificates[1], ask.tbs_certificate_bytes, where=_WHERE[1])
    _check_issued(ark, ark, certificates[2], ark.tbs_certificate_bytes, where=_WHERE[2])
    # 5.
    _check_names(chip, ask, ark)
    # 6.
    revocation = _revocation(ask, crls, anchor, at)
    not_after = certs.valid_until((chip.certificate, ask, ark), anchor)
    return VerifiedChip(certificate=chip, anchor=anchor, not_after=not_after, revocation=revocation, seal=_SEAL)


def _find_anchor(ark: x509.Certificate, anchors: TrustAnchors) -> Anchor:
    spki, name = spki_der(ark), ark.subject.rfc4514_string()
    trusted = anchors.select("amd-ark")
    for anchor in trusted:
        if (anchor.spki, anchor.name) == (spki, name):
            return anchor
    raise NotAuthentic(
        Code.CHAIN_UNTRUSTED,
        "chain does not end at a trust anchor",
        where=_WHERE[2],
        expected=" or ".join(anchor.name for anchor in trusted) or "an anchor of this purpose, of which there is none",
        got=name,
        clause="RFC 5280 §6.1.1 (d)",
        hint="Pass the anchors document that names this root, if you believe it: weighbridge anchors import",
    )


def _check_issued(
    subject: x509.Certificate, issuer: x509.Certificate, der: bytes, signed: bytes, *, where: str
) -> None:
    """Require ``issuer``'s name, and its signature over ``signed``.

    ``der`` and ``signed`` are the true bytes: ``subject`` may be a reading of others.
    """
    if subject.issuer != issuer.subject:
        raise _broken("issuer is another", where, expected=issuer.subject, got=subject.issuer)
    if not amd_signature.is_framed(der, signed, subject.signature):
        raise NotAuthentic(
            Code.CHAIN_BROKEN,
            "signature algorithm is not accepted",
            where=where,
            got=subject.signature_algorithm_oid.dotted_string,
            clause=_CLAUSE,
        )
    key = amd_signature.rsa_key(issuer.public_key(), where)
    try:
        amd_signature.verify(key, subject.signature, signed)
    except InvalidSignature as error:
        raise _broken("signature does not verify", where, expected=issuer.subject, got=None) from error


def _check_names(chip: ChipCertificate, ask: x509.Certificate, ark: x509.Certificate) -> None:
    names = [(chip.certificate, "SEV-VCEK"), (ask, f"SEV-{chip.line}"), (ark, f"ARK-{chip.line}")]
    for (certificate, expected), where in zip(names, _WHERE, strict=True):
        name = certs.common_name(certificate.subject, where)
        if name != expected:
            raise NotAuthentic(
                Code.CHAIN_BROKEN,
                f"not in the chain of {chip.product}",
                where=where,
                expected=expected,
                got=name,
                clause=_CLAUSE,
            )


def _revocation(ask: x509.Certificate, crls: Sequence[bytes], anchor: Anchor, at: datetime) -> Revocation:
    found = [
        verify_crl(der, anchor, at=at, what=f"crl[{number}]")
        for number, der in enumerate(crls)
        if issuer_of(der, f"crl[{number}]") == anchor.name
    ]
    for crl in found:
        crl.check(ask, _WHERE[1])
    if not found:
        return "absent"
    return "good" if any(crl.current for crl in found) else "stale"


def _broken(message: str, where: str, *, expected: x509.Name, got: x509.Name | None) -> NotAuthentic:
    return NotAuthentic(
        Code.CHAIN_BROKEN,
        message,
        where=where,
        expected=expected.rfc4514_string(),
        got=None if got is None else got.rfc4514_string(),
        clause="RFC 5280 §6.1.3 (a)(1), (4)",
    )
