"""A certificate revocation list of AMD's, verified (RFC 5280 §6.3, whole lists of one issuer only).

The procedure of :func:`verify_crl`:

1. The list is DER from the first byte to the last, and all of it can be read.
2. Its issuer is the anchor's name. Which of several lists are this issuer's is for :func:`issuer_of` to tell.
3. It is signed by the anchor's key, in AMD's one form.
4. No extension is critical: a partial or indirect list would have to say so, and is refused.

A list that is not of the stated time, past its next update or issued later, is *stale*: whom it names is revoked, of
anybody else it says nothing. So a list is never refused for a clock that is a minute behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.tee import amd_signature

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor

__all__ = ["VerifiedCrl", "issuer_of", "verify_crl"]

_SEAL: Final = object()
_CLAUSE: Final = "RFC 5280 §5"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCrl:
    """Whom ``anchor`` has revoked. Made by :func:`verify_crl` alone.

    ``current`` says whether the stated time is between this update and the next. The seal is a guard against mistakes,
    not against hostile code.
    """

    anchor: Anchor
    current: bool
    revoked: frozenset[int]
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedCrl is made by verify_crl only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedCrl cannot be pickled")

    def check(self, certificate: x509.Certificate, where: str) -> None:
        """Require that the list does not name ``certificate``, which the same authority issued.

        Raises:
            NotAuthentic: ``CERT_REVOKED``.
        """
        if certificate.serial_number in self.revoked:
            raise NotAuthentic(
                Code.CERT_REVOKED,
                f"revoked by {self.anchor.name}",
                where=where,
                got=f"serial number {certificate.serial_number:#x}",
                clause="RFC 5280 §6.3.3",
            )


def issuer_of(der: bytes, what: str) -> str:
    """The name, as RFC 4514 writes it, of whom ``der`` claims to be a list; nothing is verified.

    Raises:
        MalformedEvidence: ``CRL_INVALID`` or ``TOO_LARGE``.
    """
    return _load(der, what).issuer.rfc4514_string()


def verify_crl(der: bytes, anchor: Anchor, *, at: datetime, what: str) -> VerifiedCrl:
    """The list in ``der``, by the procedure in the module's docstring.

    Args:
        der: untrusted.
        anchor: the authority whose list it must be; its own validity is the caller's to check.
        at: aware; the time of the judgement.
        what: its place, for messages.

    Raises:
        MalformedEvidence: ``CRL_INVALID``, ``TOO_LARGE``.
        NotAuthentic: ``CRL_INVALID`` for a list that is not the authority's.
        ValueError: ``at`` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("naive time")
    # 1.
    crl = _load(der, what)
    # 2.
    issuer = crl.issuer.rfc4514_string()
    if issuer != anchor.name:
        raise _invalid("list is another authority's", what, expected=anchor.name, got=issuer)
    # 3.
    if not amd_signature.is_framed(der, crl.tbs_certlist_bytes, crl.signature):
        raise _invalid("signature algorithm is not accepted", what, got=crl.signature_algorithm_oid.dotted_string)
    key = amd_signature.rsa_key(anchor.key(), what)
    try:
        amd_signature.verify(key, crl.signature, crl.tbs_certlist_bytes)
    except InvalidSignature as error:
        raise _invalid("signature does not verify under the authority's key", what, expected=anchor.name) from error
    # 4.
    critical = [extension.oid.dotted_string for extension in crl.extensions if extension.critical]
    if critical:
        raise _invalid("critical extension is not understood", what, got=", ".join(critical))
    until = crl.next_update_utc
    return VerifiedCrl(
        anchor=anchor,
        current=until is not None and crl.last_update_utc <= at <= until,
        revoked=frozenset(entry.serial_number for entry in crl),
        seal=_SEAL,
    )


def _load(der: bytes, what: str) -> x509.CertificateRevocationList:
    """A list whose every part is known to parse: the library reads them lazily, and each may be the malformed one."""
    if len(der) > limits.COLLATERAL_ITEM_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            f"{what} is too large",
            where=what,
            expected=f"<= {limits.COLLATERAL_ITEM_MAX} bytes",
            got=f"{len(der)} bytes",
        )
    try:
        crl = x509.load_der_x509_crl(der)
        _ = (crl.issuer.rfc4514_string(), crl.signature_algorithm_oid, crl.last_update_utc, crl.next_update_utc)
        _ = (tuple(crl.extensions), tuple((entry.serial_number, tuple(entry.extensions)) for entry in crl))
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _malformed(what, error) from error
    # The library warns of names that are not as they should be; where warnings are errors, of no use either.
    except (x509.UnsupportedGeneralNameType, x509.InvalidVersion, UserWarning) as error:
        raise _malformed(what, error) from error
    return crl


def _malformed(what: str, error: Exception) -> MalformedEvidence:
    return MalformedEvidence(
        Code.CRL_INVALID, f"not a revocation list: {error}", where=what, clause=_CLAUSE, hint="Pass it as DER."
    )


def _invalid(message: str, what: str, *, expected: str | None = None, got: str | None = None) -> NotAuthentic:
    return NotAuthentic(
        Code.CRL_INVALID,
        message,
        where=what,
        expected=expected,
        got=got,
        clause=_CLAUSE,
        hint="Fetch the list again from its issuer.",
    )
