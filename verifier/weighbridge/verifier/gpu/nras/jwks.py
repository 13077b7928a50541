"""The keys of NVIDIA's attestation service, as archived: a JSON Web Key Set (RFC 7517) whose keys bring certificates.

The service makes a new key every few hours and publishes some dozens. A key set is no authority: anybody can write one.
The procedure of :func:`signing_key`:

1. the key's name is in an archived set; it is the token's only say in the matter;
2. in whatever sets the name stands, the certificates lead to one key, each time by 3 to 6;
3. the certificates (``x5c``) end at an anchor of purpose ``nras-root``. Where one of them is of an anchor's own name
   and key, the chain ends below it: the service does not publish its root, so an operator may believe an intermediate
   authority;
4. they and the anchor are valid from the token's beginning to its end;
5. the leaf's key is P-384, and may sign but certify nothing;
6. the bare key (``x``, ``y``) beside the certificates is the leaf's.

Left to the caller: revocation, what the key signed. Nothing is fetched, and no address in a token is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic
from weighbridge.verifier import certs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from weighbridge.verifier.anchors import Anchor, TrustAnchors

__all__ = ["KeySet", "PublishedKey", "SigningKey", "parse", "signing_key"]

_KEYS_MAX: Final = 256
_COORDINATE_SIZE: Final = 48
_CLAUSE: Final = "RFC 7517 §4"
_HINT: Final = "fetch the service's key set in the hour of the answer: its keys are published for a day or two"


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """One key of a set: its certificates in DER, leaf first, and its bare coordinates. Nothing is believed yet."""

    chain: tuple[bytes, ...]
    coordinates: tuple[int, int]


@dataclass(frozen=True, slots=True)
class KeySet:
    """The P-384 keys of one archived set by their names. Made by :func:`parse` only."""

    keys: Mapping[str, PublishedKey]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that an anchor vouches for, for the whole life of a token. Made by :func:`signing_key` only."""

    key: ec.EllipticCurvePublicKey
    anchor: Anchor


def parse(data: bytes) -> KeySet:
    """The key set that ``data`` is. Keys of other types are left out (RFC 7517 §5); certificates are not parsed yet.

    Raises:
        MalformedEvidence: ``NRAS_MALFORMED``, also for a name that stands twice; ``TOO_LARGE``; a decoding code.
    """
    document = strict.json_decode(data, what="jwks", limit=limits.COLLATERAL_ITEM_MAX)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not 1 <= len(listed) <= _KEYS_MAX:
        raise _malformed(f"not a set of 1 to {_KEYS_MAX} keys", "jwks")
    keys: dict[str, PublishedKey] = {}
    for number, item in enumerate(listed):
        where = f"jwks.keys[{number}]"
        if not isinstance(item, dict):
            raise _malformed("not a key", where)
        if (item.get("kty"), item.get("crv")) != ("EC", "P-384"):
            continue
        name = _text(item, "kid", where)
        if name in keys:
            raise _malformed("two keys of one name", where, got=name)
        keys[name] = PublishedKey(_chain(item, where), (_coordinate(item, "x", where), _coordinate(item, "y", where)))
    return KeySet(MappingProxyType(keys))


def signing_key(
    name: str, sets: Sequence[KeySet], anchors: TrustAnchors, *, since: datetime, until: datetime
) -> SigningKey:
    """The key called ``name``, by the procedure in the module's docstring.

    Args:
        name: the token's ``kid``; untrusted.
        sets: as archived; untrusted.
        anchors: those of purpose ``nras-root`` are used; without one nothing is trusted.
        since: aware; the token's beginning, untrusted.
        until: aware; its end.

    Raises:
        Indeterminate: ``NRAS_KEY_ABSENT``.
        MalformedEvidence: ``CERT_MALFORMED``, ``KEY_UNSUPPORTED``, ``TOO_LARGE``.
        NotAuthentic: ``NRAS_ISSUER``, ``NRAS_TIME``.
    """
    # 1.
    found = {published for each in sets if (published := each.keys.get(name)) is not None}
    if not found:
        raise Indeterminate(
            Code.NRAS_KEY_ABSENT,
            f"the key that signed is in none of the {len(sets)} key sets",
            where="nras.header.kid",
            got=name,
            hint=_HINT,
        )
    # 2.
    keys = [_verified(published, anchors, since=since, until=until, where=f"jwks {name}") for published in found]
    first = keys[0]
    if any((each.key, each.anchor.platform) != (first.key, first.anchor.platform) for each in keys):
        raise NotAuthentic(Code.NRAS_ISSUER, "two keys of one name are vouched for", where=f"jwks {name}")
    return first


def _verified(
    published: PublishedKey, anchors: TrustAnchors, *, since: datetime, until: datetime, where: str
) -> SigningKey:
    believed = anchors.select("nras-root")
    listed = [certs.load_certificate(der, f"{where}.x5c[{number}]") for number, der in enumerate(published.chain)]
    # 3.
    chain = _below_anchor(listed, believed)
    try:
        anchor = certs.verify_chain(chain, believed, at=since, what=f"{where}.x5c")
        # 4.
        for number, certificate in enumerate(chain):
            beginning, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            certs.check_validity(beginning, end, at=until, where=f"{where}.x5c[{number}]")
        certs.check_validity(anchor.not_before, anchor.not_after, at=until, where=f"anchor {anchor.name}")
    except NotAuthentic as error:
        expired = error.code is Code.CHAIN_EXPIRED
        raise NotAuthentic(
            Code.NRAS_TIME if expired else Code.NRAS_ISSUER,
            f"{'the key was not good in the time of the token' if expired else 'nobody vouches for the key'}: "
            f"{error.message}",
            where=error.where,
            expected=error.expected,
            got=error.got,
            clause=error.clause,
            hint=error.hint,
        ) from error
    # 5.
    key = _leaf_key(chain[0], f"{where}.x5c[0]")
    # 6.
    numbers = key.public_numbers()
    if (numbers.x, numbers.y) != published.coordinates:
        raise NotAuthentic(Code.NRAS_ISSUER, "the certificate is of another key", where=where, clause="RFC 7517 §4.7")
    return SigningKey(key, anchor)


def _below_anchor(chain: list[x509.Certificate], believed: Sequence[Anchor]) -> list[x509.Certificate]:
    """``chain`` up to the first authority that is itself believed, which then vouches from outside."""
    names = {(anchor.name, anchor.spki) for anchor in believed}
    for number, certificate in enumerate(chain):
        if number and (certificate.subject.rfc4514_string(), certs.spki_der(certificate)) in names:
            return chain[:number]
    return chain


def _leaf_key(leaf: x509.Certificate, where: str) -> ec.EllipticCurvePublicKey:
    key = leaf.public_key()
    extensions = {extension.oid: extension.value for extension in leaf.extensions}
    usage, constraints = extensions.get(x509.KeyUsage.oid), extensions.get(x509.BasicConstraints.oid)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise NotAuthentic(Code.NRAS_ISSUER, "the certified key is not P-384", where=where)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise NotAuthentic(Code.NRAS_ISSUER, "the key may not sign, or may certify", where=where)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise NotAuthentic(Code.NRAS_ISSUER, "the key is an authority's", where=where)
    return key


def _chain(item: strict.JsonObject, where: str) -> tuple[bytes, ...]:
    listed = item.get("x5c")
    if not isinstance(listed, list) or not 1 <= len(listed) <= limits.GPU_CHAIN_CERTS_MAX:
        raise _malformed(f"not from 1 to {limits.GPU_CHAIN_CERTS_MAX} certificates", f"{where}.x5c")
    chain: list[bytes] = []
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise _malformed("not a certificate", f"{where}.x5c[{number}]")
        chain.append(strict.base64_decode(text, what=f"{where}.x5c[{number}]"))
    return tuple(chain)


def _coordinate(item: strict.JsonObject, member: str, where: str) -> int:
    octets = strict.base64url_decode(_text(item, member, where), what=f"{where}.{member}")
    if len(octets) != _COORDINATE_SIZE:
        raise _malformed("not a coordinate of P-384", f"{where}.{member}", got=f"{len(octets)} bytes")
    return int.from_bytes(octets)


def _text(item: strict.JsonObject, member: str, where: str) -> str:
    value = item.get(member)
    if not isinstance(value, str) or not 1 <= len(value) <= limits.NAME_MAX:
        raise _malformed("not a text", f"{where}.{member}")
    return value


def _malformed(message: str, where: str, *, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(Code.NRAS_MALFORMED, message, where=where, got=got, clause=_CLAUSE)
