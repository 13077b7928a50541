"""What Intel publishes about processors with TDX: chosen, authenticated and current, or no answer.

The procedure of :func:`choose`. Each piece bears Intel's signature, so that it does not matter who delivered it. Who
delivers it chooses what to leave out, so that of each kind the newest counts, wherever it came from:

1. each item is strict JSON with the nine fields of ``dcap_qvl.QuoteCollateralV3``. A PCK chain beside them is not read:
   the quote brings its own;
2. revocation lists are signed by the root, and by the authority that issued the PCK certificate;
3. neither the root nor that authority nor the PCK certificate is revoked;
4. TCB info and QE identity are signed by a certificate that the root issued for this (``Intel SGX TCB Signing``), valid
   at the time and not revoked. The library would take any certificate under the root, a processor's too;
5. TCB info is for TDX and for this kind of processor (FMSPC), and the QE identity is that of TDX's quoting enclave;
6. of each of the four kinds: what was issued by the time of judgement and is the newest, by Intel's
   ``tcbEvaluationDataNumber`` first, since documents of an old evaluation are signed anew every day. It must be
   current: an older one never takes the place of a newer one that is past its time.

A piece that is not authentic, or for another processor, counts as absent. What the documents *say* is left to
:mod:`.qvl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from weighbridge.verifier.anchors import Anchor

__all__ = ["Chosen", "PckChain", "SignedDocument", "choose", "verify_p256"]

_CLAUSE: Final = "Intel SGX and TDX Provisioning Certification Service API v4"
_SIGNER: Final = "Intel SGX TCB Signing"
_SIGNATURE_SIZE: Final = 64
# What the verifier has gathered, and what an attester brings.
_ITEMS_MAX: Final = limits.COLLATERAL_SNAPSHOT_MAX + limits.COLLATERAL_ITEMS_MAX
_TCB_INFO_VERSION: Final = 3
# What the library lets out when a revocation list is not what it expects.
_LEAKS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
_HINT: Final = "fetch it from Intel's Provisioning Certification Service or from the cloud's cache, and deliver it"


@dataclass(frozen=True, slots=True, kw_only=True)
class PckChain:
    """The certificates of a quote, verified up to ``anchor``."""

    pck: x509.Certificate
    authority: x509.Certificate
    root: x509.Certificate
    anchor: Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """A JSON text and what proves that Intel wrote it. The signature has been verified."""

    text: str
    signature: bytes
    signer: x509.Certificate
    number: int
    issued: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _List:
    """A revocation list whose signature has been verified."""

    der: bytes
    revoked: frozenset[int]
    issued: datetime
    next_update: datetime
    number: int = 0

    def check(self, certificate: x509.Certificate, what: str) -> None:
        if certificate.serial_number in self.revoked:
            raise NotAuthentic(
                Code.CERT_REVOKED,
                "the certificate has been revoked",
                where=what,
                got=f"serial number {certificate.serial_number:x}",
                clause="RFC 5280 §6.3",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Authenticated and current collateral for one processor. Made by :func:`choose`."""

    tcb_info: SignedDocument
    qe_identity: SignedDocument
    root_crl: bytes
    pck_crl: bytes


@dataclass(frozen=True, slots=True)
class _Item:
    """One item, well-formed. Nothing in it is authenticated."""

    fields: strict.JsonObject
    where: str

    def text(self, name: str) -> str:
        return _text(self.fields, name, self.where)

    def octets(self, name: str, size: int | None = None) -> bytes:
        return strict.hex_decode(self.text(name), what=f"{self.where}.{name}", size=size)


_Piece = TypeVar("_Piece", SignedDocument, _List)


def choose(items: Sequence[bytes], chain: PckChain, *, fmspc: bytes, at: datetime) -> Chosen:
    """The collateral by which a quote under ``chain`` is judged, by the procedure in the module's docstring.

    Args:
        items: JSON texts, untrusted, from whoever has them.
        chain: verified.
        fmspc: the kind of processor that the PCK certificate names, 6 bytes.
        at: aware.

    Raises:
        Indeterminate: ``TDX_COLLATERAL``; a piece is absent, or the newest one is past its time.
        NotAuthentic: ``CERT_REVOKED``.
        MalformedEvidence: ``TOO_LARGE``, ``CRL_INVALID``, a decoding code, or one for certificates.
    """
    # 1.
    if len(items) > _ITEMS_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "too many pieces of collateral", where="dcap", got=len(items))
    published = [_parse(data, f"dcap[{number}]") for number, data in enumerate(items)]
    # 2.
    roots = [partial(_list, item, "root_ca_crl", chain.root) for item in _distinct(published, "root_ca_crl")]
    authorities = [partial(_list, item, "pck_crl", chain.authority) for item in _distinct(published, "pck_crl")]
    root_list = _newest("list of revoked authorities", roots, at)
    pck_list = _newest("list of revoked processors", authorities, at)
    # 3.
    root_list.check(chain.root, "td_quote.pck[2]")
    root_list.check(chain.authority, "td_quote.pck[1]")
    pck_list.check(chain.pck, "td_quote.pck[0]")
    # 4. to 6.
    info = [
        partial(_tcb_info, item, chain, root_list, fmspc=fmspc, at=at) for item in _documents(published, "tcb_info")
    ]
    identity = [partial(_qe_identity, item, chain, root_list, at=at) for item in _documents(published, "qe_identity")]
    return Chosen(
        tcb_info=_newest("TCB info for this processor", info, at),
        qe_identity=_newest("identity of the quoting enclave", identity, at),
        root_crl=root_list.der,
        pck_crl=pck_list.der,
    )


def verify_p256(key: object, signature: bytes, data: bytes) -> None:
    """Verify a signature of Intel's spelling, r then s of 32 bytes each: ECDSA P-256 with SHA-256.

    Raises:
        InvalidSignature: it does not verify, or ``key`` is not of P-256.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidSignature
    half = _SIGNATURE_SIZE // 2
    pair = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    key.verify(pair, data, ec.ECDSA(hashes.SHA256()))


def _parse(data: bytes, where: str) -> _Item:
    document = strict.json_decode(data, what=where, limit=limits.COLLATERAL_ITEM_MAX)
    return _Item(_object(document, where), where)


def _distinct(items: Sequence[_Item], *names: str) -> list[_Item]:
    """An item for each different content of these members: a store repeats them for every processor and every day."""
    return list({tuple(item.text(name) for name in names): item for item in items}.values())


def _documents(items: Sequence[_Item], name: str) -> list[_Item]:
    return _distinct(items, name, f"{name}_signature", f"{name}_issuer_chain")


def _newest(what: str, attempts: Iterable[Callable[[], _Piece]], at: datetime) -> _Piece:
    """The newest authentic piece, which must be current."""
    found: list[_Piece] = []
    refused: NotAuthentic | Indeterminate | None = None
    for attempt in attempts:
        try:
            found.append(attempt())
        except (NotAuthentic, Indeterminate) as error:
            refused = error
    issued = [piece for piece in found if piece.issued <= at]
    if not issued:
        reason = f"; what came is of no use: {refused}" if refused else ""
        raise Indeterminate(
            Code.TDX_COLLATERAL, f"no {what}{reason}", where="collateral.dcap", clause=_CLAUSE, hint=_HINT
        )
    newest = max(issued, key=lambda piece: (piece.number, piece.issued))
    if newest.next_update < at:
        raise Indeterminate(
            Code.TDX_COLLATERAL,
            f"the newest {what} is past its time",
            where="collateral.dcap",
            expected=f"valid at {strict.time_encode(at)}",
            got=f"until {strict.time_encode(newest.next_update)}",
            clause=_CLAUSE,
            hint=_HINT,
        )
    return newest


def _list(item: _Item, name: str, issuer: x509.Certificate) -> _List:
    where = f"{item.where}.{name}"
    der = item.octets(name)
    key = issuer.public_key()
    try:
        crl = x509.load_der_x509_crl(der)
        # The library parses these lazily; each may be the malformed one.
        extensions, entries = tuple(crl.extensions), tuple((entry.serial_number, entry.extensions) for entry in crl)
        issued, until, algorithm = crl.last_update_utc, crl.next_update_utc, crl.signature_algorithm_oid
        named = crl.issuer == issuer.subject
        authentic = named and isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    except _LEAKS as error:
        raise MalformedEvidence(
            Code.CRL_INVALID, f"not a revocation list: {error}", where=where, clause="RFC 5280 §5.1"
        ) from error
    if not authentic or algorithm != x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise NotAuthentic(Code.CRL_INVALID, "not signed by the issuer of the certificates", where=where)
    critical = [extension.oid.dotted_string for extension in extensions if extension.critical]
    if critical or until is None:
        raise NotAuthentic(
            Code.CRL_INVALID, "has a critical extension, or no end", where=where, got=", ".join(critical) or None
        )
    revoked = frozenset(serial for serial, _ in entries)
    return _List(der=der, revoked=revoked, issued=issued, next_update=until)


def _tcb_info(item: _Item, chain: PckChain, revoked: _List, *, fmspc: bytes, at: datetime) -> SignedDocument:
    document, fields = _document(item, "tcb_info", chain, revoked, at=at)
    where = f"{item.where}.tcb_info"
    subject = _text(fields, "id", where), _number(fields, "version", where), _text(fields, "fmspc", where)
    expected = "TDX", _TCB_INFO_VERSION, fmspc.hex().upper()
    if subject != expected:
        raise Indeterminate(
            Code.TDX_COLLATERAL,
            "not for TDX on this kind of processor",
            where=where,
            expected=", ".join(map(str, expected)),
            got=", ".join(map(str, subject)),
        )
    return document


def _qe_identity(item: _Item, chain: PckChain, revoked: _List, *, at: datetime) -> SignedDocument:
    document, fields = _document(item, "qe_identity", chain, revoked, at=at)
    where = f"{item.where}.qe_identity"
    subject = _text(fields, "id", where)
    if subject != "TD_QE":
        raise Indeterminate(
            Code.TDX_COLLATERAL, "not of TDX's quoting enclave", where=where, expected="TD_QE", got=subject
        )
    return document


def _document(
    item: _Item, name: str, chain: PckChain, revoked: _List, *, at: datetime
) -> tuple[SignedDocument, strict.JsonObject]:
    """The document ``name`` of an item, once its signer and signature are verified."""
    where = f"{item.where}.{name}"
    issuers = f"{name}_issuer_chain"
    pem = certs.pem_certificates(item.text(issuers).encode(), what=f"{item.where}.{issuers}")
    signer = certs.load_certificate(pem[0], f"{item.where}.{issuers}[0]")
    certs.verify_chain([signer, chain.root], (chain.anchor,), at=at, what=f"{item.where}.{issuers}")
    if certs.common_name(signer.subject, f"{item.where}.{issuers}[0]") != _SIGNER:
        raise NotAuthentic(
            Code.CERT_PURPOSE,
            "the certificate is not for signing collateral",
            where=f"{item.where}.{issuers}[0]",
            expected=f"CN={_SIGNER}",
            got=signer.subject.rfc4514_string(),
        )
    revoked.check(signer, f"{item.where}.{issuers}[0]")
    text = item.text(name)
    signature = item.octets(f"{name}_signature", _SIGNATURE_SIZE)
    try:
        verify_p256(signer.public_key(), signature, text.encode())
    except InvalidSignature as error:
        raise NotAuthentic(Code.TDX_COLLATERAL, "signature does not verify", where=f"{where}_signature") from error
    fields = _object(strict.json_decode(text.encode(), what=where, limit=limits.COLLATERAL_ITEM_MAX), where)
    return (
        SignedDocument(
            text=text,
            signature=signature,
            signer=signer,
            number=_number(fields, "tcbEvaluationDataNumber", where),
            issued=strict.time_decode(_text(fields, "issueDate", where), what=f"{where}.issueDate"),
            next_update=strict.time_decode(_text(fields, "nextUpdate", where), what=f"{where}.nextUpdate"),
        ),
        fields,
    )


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise MalformedEvidence(Code.FIELD_TYPE, "not an object", where=where)
    return value


def _text(fields: strict.JsonObject, name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        code = Code.FIELD_TYPE if name in fields else Code.FIELD_MISSING
        raise MalformedEvidence(code, f"{name} is not there as text", where=f"{where}.{name}")
    return value


def _number(fields: strict.JsonObject, name: str, where: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        code = Code.FIELD_TYPE if name in fields else Code.FIELD_MISSING
        raise MalformedEvidence(code, f"{name} is not there as a number", where=f"{where}.{name}")
    return value
