"""An authority's list of the certificates that it has revoked (RFC 5280 §5), parsed, then verified: P-384 and P-256.

The procedure of :func:`verify_issuer_crl`:

1. The list names the authority as its issuer, and is signed by its key, with ECDSA and SHA-256 or SHA-384.
2. No extension is critical, of the list or of an entry: a partial, indirect or delta list would have to say so (§5.2),
   and its silence about a certificate says nothing.

Whether the authority's certificate lets it sign lists is for the caller, who has it, and so is what the times mean.
AMD's lists are signed otherwise: :mod:`weighbridge.verifier.tee.crl`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.gpu.ocsp import SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from weighbridge.verifier.gpu.ocsp import Authority

__all__ = ["IssuerCrl", "VerifiedIssuerCrl", "parse_crl", "verify_issuer_crl"]

_SEAL: Final = object()
_CLAUSE: Final = "RFC 5280 §5"
_LEAKS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    # Of names that are not as they should be the library warns: where warnings are errors, of no use either.
    UserWarning,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerCrl:
    """A well-formed list. Says nothing of truth: nothing is verified.

    Attributes:
        raw: the bytes that were parsed.
        issuer: whom it claims to be of.
        this_update: aware.
        next_update: aware; ``None`` where the list does not say.
        number: of the list (§5.2.3), where it has one.
        entries: whether a serial number is revoked for good, or on hold.
        critical: object identifiers of critical extensions.
    """

    raw: bytes
    issuer: x509.Name
    this_update: datetime
    next_update: datetime | None
    number: int | None
    entries: Mapping[int, Literal["hold", "revoked"]]
    critical: tuple[str, ...]
    list: x509.CertificateRevocationList = field(repr=False, compare=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the list."""
        return sha256(self.raw)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIssuerCrl:
    """What an authority has said of all that it issued. Made by :func:`verify_issuer_crl` alone.

    The seal is a guard against mistakes, not against hostile code.
    """

    crl: IssuerCrl
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedIssuerCrl is made by verify_issuer_crl only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedIssuerCrl cannot be pickled")


def parse_crl(der: bytes) -> IssuerCrl:
    """The list that ``der`` is, all of it, with every part known to parse.

    Args:
        der: untrusted; CertificateList in DER and nothing after it.

    Raises:
        MalformedEvidence: ``TOO_LARGE``, ``CRL_INVALID``.
    """
    if len(der) > limits.COLLATERAL_ITEM_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "revocation list is too large",
            where="crl",
            expected=f"<= {limits.COLLATERAL_ITEM_MAX} bytes",
            got=f"{len(der)} bytes",
        )
    try:
        crl = x509.load_der_x509_crl(der)
        _ = (crl.issuer.rfc4514_string(), crl.signature_algorithm_oid, crl.signature, crl.tbs_certlist_bytes)
        extensions = tuple(crl.extensions)
        revoked = [(entry.serial_number, tuple(entry.extensions)) for entry in crl]
        return IssuerCrl(
            raw=der,
            issuer=crl.issuer,
            this_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            number=next((each.value.crl_number for each in extensions if isinstance(each.value, x509.CRLNumber)), None),
            entries=_entries(revoked),
            critical=tuple(
                each.oid.dotted_string
                for each in (*extensions, *(inner for _, found in revoked for inner in found))
                if each.critical
            ),
            list=crl,
        )
    except _LEAKS as error:
        raise MalformedEvidence(
            Code.CRL_INVALID, f"not a revocation list: {error}", where="crl", clause=_CLAUSE, hint="Fetch it again."
        ) from error


def verify_issuer_crl(crl: IssuerCrl, issuer: Authority) -> VerifiedIssuerCrl:
    """The list that ``issuer`` signed, by the procedure in the module's docstring.

    Raises:
        NotAuthentic: ``CRL_INVALID``.
    """
    # 1.
    if crl.issuer != issuer.name:
        raise _invalid("list is another authority's", issuer.name.rfc4514_string(), crl.issuer.rfc4514_string())
    oid = crl.list.signature_algorithm_oid
    if oid not in SIGNATURES:
        raise _invalid("signature algorithm is not accepted", None, oid.dotted_string)
    try:
        issuer.key.verify(crl.list.signature, crl.list.tbs_certlist_bytes, ec.ECDSA(SIGNATURES[oid]))
    except InvalidSignature as error:
        raise _invalid("signature does not verify under the authority's key", None, None) from error
    # 2.
    if crl.critical:
        raise _invalid("critical extension is not understood", None, ", ".join(crl.critical))
    return VerifiedIssuerCrl(crl=crl, seal=_SEAL)


def _entries(
    revoked: list[tuple[int, tuple[x509.Extension[x509.ExtensionType], ...]]],
) -> Mapping[int, Literal["hold", "revoked"]]:
    """By serial number; of one that stands there twice, the worse."""
    found: dict[int, Literal["hold", "revoked"]] = {}
    for serial, extensions in revoked:
        reasons = [each.value.reason for each in extensions if isinstance(each.value, x509.CRLReason)]
        hold = reasons == [x509.ReasonFlags.certificate_hold] and found.get(serial) != "revoked"
        found[serial] = "hold" if hold else "revoked"
    return found


def _invalid(message: str, expected: str | None, got: str | None) -> NotAuthentic:
    return NotAuthentic(
        Code.CRL_INVALID,
        message,
        where="crl",
        expected=expected,
        got=got,
        clause=_CLAUSE,
        hint="Fetch the list again from its issuer.",
    )
