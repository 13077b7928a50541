"""What a piece of collateral is, and what it says of itself. Nothing is verified: that is done where it is used.

:func:`recognise` tells by content, never by a file's name:

============  =========================================================================================
``rim``       a reference manifest in XML, or NVIDIA's service's answer, which has it as base64 in JSON
``ocsp``      OCSPResponse, DER
``crl``       a certificate revocation list, DER or PEM
``vcek``      the certificate of an AMD chip, or of AMD's authorities above it, DER or PEM
``dcap``      Intel's documents for one processor in JSON, as :mod:`dcap_qvl` reads them
``jwks``      the key set of NVIDIA's attestation service, JSON
============  =========================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto import limits, strict
from weighbridge.proto.collateral import CollateralItem
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee import chip_certificate
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier import certs
from weighbridge.verifier.gpu import ocsp
from weighbridge.verifier.gpu.issuer_crl import parse_crl
from weighbridge.verifier.gpu.nras import jwks
from weighbridge.verifier.gpu.rim import dsig, swid

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.collateral import CollateralKind
    from weighbridge.verifier.gpu.ocsp import CertId

__all__ = ["FILE_MAX", "Description", "describe", "ocsp_subject", "recognise"]

# A piece in base64, with words around it.
FILE_MAX: Final = 2 * limits.COLLATERAL_ITEM_MAX
_PEM: Final = re.compile(rb"-----BEGIN (X509 CRL|CERTIFICATE)-----([A-Za-z0-9+/=\r\n]*)-----END \1-----")
_PIECES_MAX: Final = 16
_SEQUENCE: Final = 0x30
_ENUMERATED: Final = 0x0A
_VERSION_TAG: Final = 0xA0
# AMD's root key of a product and the one that certifies chips: ARK-Genoa, SEV-Genoa.
_AUTHORITIES: Final = ("ARK-", "SEV-")
_WANTED: Final = "weighbridge collateral wanted EVIDENCE says what to fetch, and from where"
_DCAP: Final = ("tcb_info", "qe_identity", "root_ca_crl", "pck_crl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A piece of collateral, and what it claims.

    Attributes:
        item: the piece.
        subject: what it is about: pieces of one kind and subject are issues of the same thing.
        says: what it says, in a few words.
        issued: when it was issued; for a manifest, since when its signer's certificate is valid. Aware.
        expires: until when it may be used, where it says so.
        revokes: whether it takes trust away: it is never left out in favour of a newer one.
    """

    item: CollateralItem
    subject: str
    says: str
    issued: datetime
    expires: datetime | None
    revokes: bool = False

    @property
    def kind(self) -> CollateralKind:
        """The piece's kind."""
        return self.item.kind

    @property
    def digest(self) -> bytes:
        """SHA-256 of the piece."""
        return sha256(self.item.data)

    def document(self) -> strict.JsonObject:
        """For programs."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "says": self.says,
            "issued": strict.time_encode(self.issued),
            "expires": None if self.expires is None else strict.time_encode(self.expires),
            "bytes": len(self.item.data),
            "sha256": self.digest.hex(),
        }


def recognise(data: bytes, *, where: str) -> tuple[Description, ...]:
    """The pieces that a file holds, each read to its end.

    Args:
        data: untrusted, at most :data:`FILE_MAX` bytes.
        where: the file's name, for messages.

    Raises:
        MalformedEvidence: ``COLLATERAL_INVALID`` for what is none of the kinds above; the kind's own code for what
            begins like one and is not well-formed; ``TOO_LARGE``.
    """
    if len(data) > FILE_MAX:
        raise MalformedEvidence(Code.TOO_LARGE, "file is too large", where=where, expected=f"<= {FILE_MAX} bytes")
    items = _items(data, where)
    return tuple(describe(item, where=where) for item in items)


def describe(item: CollateralItem, *, where: str) -> Description:
    """What ``item`` says of itself.

    Raises:
        MalformedEvidence: ``COLLATERAL_INVALID``, ``TOO_LARGE`` or the kind's own code; it is not of its kind.
    """
    if len(item.data) > limits.COLLATERAL_ITEM_MAX:
        raise MalformedEvidence(
            Code.TOO_LARGE,
            "piece is too large",
            where=where,
            expected=f"<= {limits.COLLATERAL_ITEM_MAX} bytes",
            got=f"{len(item.data)} bytes",
        )
    match item.kind:
        case "rim":
            return _rim(item)
        case "ocsp":
            return _ocsp(item)
        case "crl":
            return _crl(item)
        case "vcek":
            return _amd(item, where)
        case "dcap":
            return _dcap(item, where)
        case "jwks":
            return _jwks(item, where)


def ocsp_subject(named: CertId) -> str:
    """How responses about one certificate are told from others: by serial number and issuer's key."""
    return f"serial {named.serial:x} of key {named.issuer_key_hash.hex()[:16]}"


def _items(data: bytes, where: str) -> tuple[CollateralItem, ...]:
    head = data.lstrip(b" \t\r\n")[:1]
    if head == b"<" or data.startswith(b"\xef\xbb\xbf<"):
        return (CollateralItem("rim", data),)
    if head in (b"{", b"["):
        return (_json(data, where),)
    blocks = _PEM.findall(data)
    if blocks:
        if len(blocks) > _PIECES_MAX:
            raise _unknown(f"{len(blocks)} blocks of PEM", where)
        kinds: dict[bytes, CollateralKind] = {b"X509 CRL": "crl", b"CERTIFICATE": "vcek"}
        return tuple(
            CollateralItem(kinds[label], strict.base64_decode(text.replace(b"\r", b"").replace(b"\n", b""), what=where))
            for label, text in blocks
        )
    return (CollateralItem(_der_kind(data, where), data),)


def _json(data: bytes, where: str) -> CollateralItem:
    document = strict.json_decode(data, what=where, limit=FILE_MAX)
    fields = document if isinstance(document, dict) else {}
    if isinstance(fields.get("keys"), list):
        return CollateralItem("jwks", data)
    if all(name in fields for name in _DCAP):
        return CollateralItem("dcap", data)
    manifest = fields.get("rim")
    if isinstance(manifest, str):
        return CollateralItem("rim", strict.base64_decode(manifest, what=f"{where}.rim"))
    raise _unknown("JSON of another kind", where)


def _der_kind(data: bytes, where: str) -> CollateralKind:
    """By the first elements: a response begins with its status, a certificate with a tagged version, a list without."""
    inner = _inside(data)
    if inner[:1] == bytes([_ENUMERATED]):
        return "ocsp"
    if inner[:1] == bytes([_SEQUENCE]):
        return "vcek" if _inside(inner)[:1] == bytes([_VERSION_TAG]) else "crl"
    raise _unknown(f"begins with {data[:8].hex() or 'nothing'}", where)


def _inside(data: bytes) -> bytes:
    """What follows the head of a SEQUENCE; nothing where there is none."""
    if data[:1] != bytes([_SEQUENCE]) or len(data) < 2:  # noqa: PLR2004 - tag and length
        return b""
    length = data[1]
    return data[2 + (length & 0x7F if length & 0x80 else 0) :]


def _rim(item: CollateralItem) -> Description:
    document = dsig.parse(item.data)
    tag = swid.parse(document.content)
    chain = [load_certificate(der, f"rim.chain[{number}]") for number, der in enumerate(document.certificates)]
    return Description(
        item=item,
        subject=f"{tag.product} {tag.kind} {tag.version}",
        says=f"{sum(1 for entry in tag.entries if entry.active)} measurements",
        issued=chain[0].not_valid_before_utc,
        expires=min(certificate.not_valid_after_utc for certificate in chain),
    )


def _ocsp(item: CollateralItem) -> Description:
    response = ocsp.parse(item.data)
    return Description(
        item=item,
        subject=ocsp_subject(response.cert_id),
        says=response.status,
        issued=response.this_update,
        expires=response.next_update,
        revokes=response.status in ("hold", "revoked"),
    )


def _crl(item: CollateralItem) -> Description:
    crl = parse_crl(item.data)
    number = "" if crl.number is None else f"number {crl.number}, "
    return Description(
        item=item,
        subject=crl.issuer.rfc4514_string(),
        says=f"{number}{len(crl.entries)} revoked",
        issued=crl.this_update,
        expires=crl.next_update,
        revokes=bool(crl.entries),
    )


def _amd(item: CollateralItem, where: str) -> Description:
    """A chip's certificate, or one of the two above it."""
    try:
        chip = chip_certificate.parse(item.data, where)
    except MalformedEvidence as refused:
        certificate = load_certificate(item.data, where)
        name = certs.common_name(certificate.subject, where)
        if not name.startswith(_AUTHORITIES):
            raise _unknown(
                f"a certificate of {name}", where, hint="whom to believe is said by anchors: weighbridge anchors import"
            ) from refused
        subject, says = name, "authority for AMD's chips"
    else:
        certificate = chip.certificate
        # A chip has a certificate for each TCB, and none replaces another.
        subject, says = f"chip {chip.chip_id.hex()[:16]} TCB {chip.tcb.raw.hex()}", f"{chip.product}, {chip.tcb}"
    return Description(
        item=item,
        subject=subject,
        says=says,
        issued=certificate.not_valid_before_utc,
        expires=certificate.not_valid_after_utc,
    )


def _dcap(item: CollateralItem, where: str) -> Description:
    document = _object(strict.json_decode(item.data, what=where, limit=limits.COLLATERAL_ITEM_MAX), where)
    signed = [_signed(document, name, where) for name in ("tcb_info", "qe_identity")]
    lists = [
        parse_crl(strict.hex_decode(_text(document, name, where), what=f"{where}.{name}"))
        for name in ("root_ca_crl", "pck_crl")
    ]
    info = signed[0]
    ends = [_time(fields, "nextUpdate", where) for fields in signed]
    ends += [crl.next_update for crl in lists if crl.next_update is not None]
    return Description(
        item=item,
        subject=f"{_text(info, 'id', where)} FMSPC {_text(info, 'fmspc', where).lower()}",
        says=f"evaluation {info.get('tcbEvaluationDataNumber')}",
        issued=_time(info, "issueDate", where),
        expires=min(ends),
    )


def _jwks(item: CollateralItem, where: str) -> Description:
    keys = jwks.parse(item.data).keys
    leaves = [load_certificate(key.chain[0], f"{where}.keys[{name}]") for name, key in keys.items()]
    if not leaves:
        raise _unknown("a key set without a P-384 key", where)
    return Description(
        item=item,
        subject="NVIDIA attestation service",
        says=f"{len(leaves)} keys" if len(leaves) > 1 else "1 key",
        issued=max(leaf.not_valid_before_utc for leaf in leaves),
        expires=max(leaf.not_valid_after_utc for leaf in leaves),
    )


def _signed(document: strict.JsonObject, name: str, where: str) -> strict.JsonObject:
    text = _text(document, name, where).encode()
    path = f"{where}.{name}"
    return _object(strict.json_decode(text, what=path, limit=limits.COLLATERAL_ITEM_MAX), path)


def _object(value: strict.JsonValue, where: str) -> strict.JsonObject:
    if not isinstance(value, dict):
        raise _unknown("not an object", where)
    return value


def _text(fields: strict.JsonObject, name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise _unknown(f"{name} is not there as text", where)
    return value


def _time(fields: strict.JsonObject, name: str, where: str) -> datetime:
    return strict.time_decode(_text(fields, name, where), what=f"{where}.{name}")


def _unknown(got: str, where: str, *, hint: str = _WANTED) -> MalformedEvidence:
    return MalformedEvidence(
        Code.COLLATERAL_INVALID,
        "not a piece of collateral",
        where=where,
        expected="RIM, OCSP response, CRL, AMD certificate, DCAP JSON or NRAS key set",
        got=got,
        hint=hint,
    )
