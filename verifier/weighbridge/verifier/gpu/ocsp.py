"""One answer about one certificate's revocation: an OCSP response (RFC 6960), parsed, then verified.

The procedure of :func:`verify_ocsp`:

1. The CertID names the certificate: digests of its issuer's name and key, and its serial number. These digests are
   identifiers and prove nothing, so that SHA-1, which NVIDIA's clients ask with, is accepted here and nowhere else.
2. The responder is the issuer itself, or a delegate whose certificate came with the response: the one that the
   responder's identifier names, signed by the issuer directly, for the purpose id-kp-OCSPSigning (§4.2.2.2).
   Nobody else's word counts.
3. The response is signed by the responder, with ECDSA and SHA-256 or SHA-384.
4. A delegate's certificate was valid when the response was produced.

What its times mean for a judgement is left to :mod:`weighbridge.verifier.gpu.revocation`, whether the delegate itself
has been revoked too. The nonce is kept as a fact: an archived response answers nobody's question of today.

**A "good" is no proof of issuance**: it says that the serial number was not revoked. NVIDIA's responder says *good* of
device certificates that it has never seen, and *unknown* of manifests' signers. That a certificate is genuine, its
chain alone says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, OCSPExtensionOID

from weighbridge.proto import limits
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier import certs

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["SIGNATURES", "Authority", "CertId", "CertStatus", "OcspResponse", "VerifiedOcsp", "parse", "verify_ocsp"]

CertStatus = Literal["good", "hold", "revoked", "unknown"]

_CLAUSE: Final = "RFC 6960 §4.2"
_SEAL: Final = object()
_CERTIFICATES_MAX: Final = 4
# The table of algorithms, of responses and of what certifies a delegate.
SIGNATURES: Final[dict[x509.ObjectIdentifier, hashes.SHA256 | hashes.SHA384]] = {
    x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256: hashes.SHA256(),
    x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384: hashes.SHA384(),
}
# Digests in a CertID, by their size: identifiers, which no signature rests on.
_ID_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - see step 1
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
# What the library lets out of its lazy readers.
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


@dataclass(frozen=True, slots=True)
class CertId:
    """Which certificate is meant (§4.1.1): ``algorithm`` says how both digests were made."""

    algorithm: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspResponse:
    """A well-formed, successful response with one answer. Says nothing of truth: nothing is verified.

    Attributes:
        raw: the bytes that were parsed.
        cert_id: the certificate that the answer is about.
        status: ``hold`` is a revocation for the reason certificateHold, which can be lifted.
        this_update: when the status was known to be so; aware.
        next_update: by when there will be a newer one; ``None`` where there may be one at any time.
        produced_at: when the responder signed; aware.
        revoked_at: of one that is revoked or on hold.
        nonce: what the requester asked with, if it did.
    """

    raw: bytes
    cert_id: CertId
    status: CertStatus
    this_update: datetime
    next_update: datetime | None
    produced_at: datetime
    revoked_at: datetime | None
    nonce: bytes | None
    basic: ocsp.OCSPResponse = field(repr=False, compare=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the response."""
        return sha256(self.raw)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedOcsp:
    """What the issuer, or its delegate, has said of its certificate. Made by :func:`verify_ocsp` alone.

    ``delegate`` is the responder's own certificate; ``None`` where the issuer answered itself. The seal is a guard
    against mistakes, not against hostile code.
    """

    response: OcspResponse
    delegate: x509.Certificate | None
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse construction anywhere else."""
        if self.seal is not _SEAL:
            raise TypeError("VerifiedOcsp is made by verify_ocsp only")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling: it would bring a verified object back without verification."""
        raise TypeError("VerifiedOcsp cannot be pickled")


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose certificates are asked about: its name and key, which the caller has verified to be an authority's.

    Keys of other types than these have no place in the table of algorithms.
    """

    name: x509.Name
    key: ec.EllipticCurvePublicKey

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """The authority whose certificate this is.

        Raises:
            ValueError: its key is not on an elliptic curve.
        """
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not an elliptic curve's key")  # noqa: TRY004 - a value of the certificate
        return cls(certificate.subject, key)

    def cert_id(self, certificate: x509.Certificate, algorithm: str) -> CertId:
        """How a response names ``certificate``, which this authority has issued."""
        kind = _ID_HASHES[algorithm]
        name = _digest(kind, certificate.issuer.public_bytes())
        return CertId(algorithm, name, _digest(kind, _key_bits(self.key)), certificate.serial_number)


def parse(data: bytes) -> OcspResponse:
    """The response that ``data`` is, all of it, with every part known to parse.

    A response with several answers is refused: the library shows the extensions of one alone, and a critical one may
    not be passed over. Whoever asks about one certificate gets one answer.

    Args:
        data: untrusted; OCSPResponse in DER and nothing after it.

    Raises:
        MalformedEvidence: ``TOO_LARGE``; ``OCSP_INVALID``, also for a refusal of the responder (``unauthorized``,
            ``tryLater``), and for a critical extension other than the nonce.
    """
    if len(data) > limits.COLLATERAL_ITEM_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "OCSP response is too large",
            where="ocsp",
            expected=f"<= {limits.COLLATERAL_ITEM_MAX} bytes",
            got=f"{len(data)} bytes",
        )
    try:
        basic = ocsp.load_der_ocsp_response(data)
        if basic.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise _malformed(f"the responder gives no answer: {basic.response_status.name.lower()}")
        return _read(data, basic)
    except _LEAKS as error:
        raise _malformed(f"not an OCSP response: {error}") from error


def verify_ocsp(response: OcspResponse, certificate: x509.Certificate, issuer: Authority) -> VerifiedOcsp:
    """What ``issuer`` says of ``certificate``, by the procedure in the module's docstring.

    Not checked: whether the response is of any particular time, and whether ``issuer`` has issued the certificate.

    Args:
        response: parsed, untrusted.
        certificate: of a verified chain.
        issuer: of that chain.

    Raises:
        NotAuthentic: ``OCSP_INVALID``.
    """
    # 1.
    expected = issuer.cert_id(certificate, response.cert_id.algorithm)
    if response.cert_id != expected:
        raise _invalid(
            "response is about another certificate",
            "ocsp.certID",
            expected=f"serial number {expected.serial:#x}",
            got=f"serial number {response.cert_id.serial:#x}",
        )
    # 2.
    delegate = None if _is_named(response.basic, issuer.name, issuer.key) else _delegate(response, issuer)
    key = issuer.key if delegate is None else delegate.public_key()
    # 3.
    _check_signature(response.basic, key)
    # 4.
    if delegate is not None and not _was_valid(delegate, response.produced_at):
        raise _invalid(
            "the delegate's certificate was not valid when the response was produced",
            "ocsp.certs",
            expected=f"{delegate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}.."
            f"{delegate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            got=f"{response.produced_at:%Y-%m-%dT%H:%M:%SZ}",
        )
    return VerifiedOcsp(response=response, delegate=delegate, seal=_SEAL)


def _key_bits(key: ec.EllipticCurvePublicKey) -> bytes:
    """What the BIT STRING of the key's SubjectPublicKeyInfo holds: what issuerKeyHash is a digest of."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _read(data: bytes, basic: ocsp.OCSPResponse) -> OcspResponse:
    answers = tuple(basic.responses)
    if len(answers) != 1:
        raise _malformed(f"{len(answers)} answers in one response")
    answer = answers[0]
    nonce = None
    for extension in (*basic.extensions, *basic.single_extensions):
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = extension.value.nonce
        elif extension.critical and extension.oid != OCSPExtensionOID.NONCE:
            raise _malformed(f"critical extension is not understood: {extension.oid.dotted_string}")
    if len(basic.certificates) > _CERTIFICATES_MAX:
        raise _malformed(f"{len(basic.certificates)} certificates in one response")
    _ = (basic.responder_name, basic.responder_key_hash, basic.signature, basic.tbs_response_bytes)
    kind = answer.hash_algorithm.name
    if kind not in _ID_HASHES:
        raise _malformed(f"the certificate is named by digests of {kind}")
    return OcspResponse(
        raw=data,
        cert_id=CertId(kind, answer.issuer_name_hash, answer.issuer_key_hash, answer.serial_number),
        status=_status(answer),
        this_update=answer.this_update_utc,
        next_update=answer.next_update_utc,
        produced_at=basic.produced_at_utc,
        revoked_at=answer.revocation_time_utc,
        nonce=nonce,
        basic=basic,
    )


def _status(answer: ocsp.OCSPSingleResponse) -> CertStatus:
    match answer.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return "good"
        case ocsp.OCSPCertStatus.UNKNOWN:
            return "unknown"
        case ocsp.OCSPCertStatus.REVOKED:
            return "hold" if answer.revocation_reason is x509.ReasonFlags.certificate_hold else "revoked"


def _is_named(basic: ocsp.OCSPResponse, name: x509.Name, key: CertificatePublicKeyTypes) -> bool:
    """Whether the responder's identifier (§4.2.1) is that of ``name`` or of ``key``; the latter is SHA-1 always."""
    if basic.responder_key_hash is None:
        return basic.responder_name == name
    return isinstance(key, ec.EllipticCurvePublicKey) and basic.responder_key_hash == _digest(
        _ID_HASHES["sha1"], _key_bits(key)
    )


def _delegate(response: OcspResponse, issuer: Authority) -> x509.Certificate:
    """The certificate of the responder that ``issuer`` has certified for this."""
    where = "ocsp.certs"
    try:
        brought = [load_certificate(each.public_bytes(Encoding.DER), where) for each in response.basic.certificates]
    except MalformedEvidence as error:
        raise _invalid(error.message, where, got=error.got) from error
    named = [each for each in brought if _is_named(response.basic, each.subject, each.public_key())]
    if not named:
        raise _invalid("the responder is neither the issuer nor anybody whose certificate is there", where)
    # The first: two certificates for one name or key are one delegate's, or nobody's.
    delegate = named[0]
    if delegate.issuer != issuer.name:
        raise _invalid(
            "the responder is a stranger: another authority has certified it",
            where,
            expected=issuer.name.rfc4514_string(),
            got=delegate.issuer.rfc4514_string(),
        )
    if delegate.signature_algorithm_oid not in SIGNATURES:
        raise _invalid("signature algorithm is not accepted", where, got=delegate.signature_algorithm_oid.dotted_string)
    try:
        issuer.key.verify(
            delegate.signature, delegate.tbs_certificate_bytes, ec.ECDSA(SIGNATURES[delegate.signature_algorithm_oid])
        )
    except InvalidSignature as error:
        raise _invalid("the responder is a stranger: the issuer has not signed its certificate", where) from error
    _check_purpose(delegate, where)
    return delegate


def _check_purpose(delegate: x509.Certificate, where: str) -> None:
    """Require that the issuer certified the key for answering, by name: "any purpose" does not name it."""
    try:
        certs.check_critical(delegate, where)
    except NotAuthentic as error:
        raise _invalid(error.message, where, got=error.got) from error
    extensions = {each.oid: each.value for each in delegate.extensions}
    purposes = extensions.get(x509.ExtendedKeyUsage.oid)
    if not isinstance(purposes, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        raise _invalid("the responder's certificate is not for signing OCSP responses", where)
    usage = extensions.get(x509.KeyUsage.oid)
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        raise _invalid("the responder's key may not sign", where)


def _check_signature(basic: ocsp.OCSPResponse, key: CertificatePublicKeyTypes) -> None:
    oid = basic.signature_algorithm_oid
    if oid not in SIGNATURES or not isinstance(key, ec.EllipticCurvePublicKey):
        raise _invalid("signature algorithm is not accepted", "ocsp.signature", got=oid.dotted_string)
    try:
        key.verify(basic.signature, basic.tbs_response_bytes, ec.ECDSA(SIGNATURES[oid]))
    except InvalidSignature as error:
        raise _invalid("signature does not verify under the responder's key", "ocsp.signature") from error


def _was_valid(certificate: x509.Certificate, at: datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def _digest(kind: hashes.HashAlgorithm, data: bytes) -> bytes:
    context = hashes.Hash(kind)
    context.update(data)
    return context.finalize()


def _malformed(message: str) -> MalformedEvidence:
    return MalformedEvidence(
        Code.OCSP_INVALID, message, where="ocsp", clause=_CLAUSE, hint="Ask the responder again, and keep its answer."
    )


def _invalid(message: str, where: str, *, expected: str | None = None, got: str | None = None) -> NotAuthentic:
    return NotAuthentic(
        Code.OCSP_INVALID,
        message,
        where=where,
        expected=expected,
        got=got,
        clause=f"{_CLAUSE}.2.2",
        hint="Ask the issuer's own responder, or remove the file.",
    )
