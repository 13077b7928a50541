"""One form of XML signature, read by hand: enveloped, over the whole document, ECDSA P-384 with SHA-384.

This is the form in which NVIDIA signs (XML Signature 1.1, §4 and §6.6.4); anything else is refused by its absence:

- the document has exactly one ``ds:Signature``, which is the last child of its root;
- no element of the signature bears an attribute that is not listed here, so there is no ``Id`` to point at;
- its one ``Reference`` has ``URI=""`` and exactly the transforms enveloped-signature and Canonical XML 1.1;
- algorithms: Canonical XML 1.1, ecdsa-sha384, SHA-384;
- ``KeyInfo`` holds certificates and nothing else.

**What is read is what is signed.** :func:`parse` canonicalises the document without its signature; whoever wants its
content parses :attr:`EnvelopedSignature.content`, the very bytes that are digested. The digest that the signature
states is read from the canonical ``SignedInfo``, the very bytes that the signature covers. What stands elsewhere, or
is named by whatever identifier, is not looked at: there is nothing to wrap.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.gpu.rim import strict_xml
from weighbridge.verifier.gpu.rim.strict_xml import Element, attributes, children, malformed

__all__ = ["EnvelopedSignature", "check_signature", "parse"]

_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N11: Final = "http://www.w3.org/2006/12/xml-c14n11"
_ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_DIGEST_SIZE: Final = 48
# XML Signature 1.1 §6.4.3: r, then s, each as long as the order of the curve.
_INTEGER_SIZE: Final = 48
_ALGORITHM: Final = frozenset({"Algorithm"})
_WHITE_SPACE: Final = str.maketrans("", "", " \t\r\n")
_CLAUSE: Final = "XML Signature 1.1 §4"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopedSignature:
    """A signed document, taken apart. Nothing is verified.

    Attributes:
        content: the document without its signature, canonical; what :attr:`digest` is claimed to be the digest of.
        signed_info: what the signature covers, canonical.
        digest: claimed SHA-384 of ``content``, as ``signed_info`` states it.
        signature: r and s, 48 bytes each.
        certificates: in DER, in the order of the document; at least one.
    """

    content: bytes
    signed_info: bytes
    digest: bytes
    signature: bytes
    certificates: tuple[bytes, ...]


def parse(data: bytes) -> EnvelopedSignature:
    """Take a signed document apart. Neither signature nor certificates are verified, nor are they parsed.

    Raises:
        MalformedEvidence: ``RIM_MALFORMED``, ``TOO_LARGE``, ``NOT_UTF8``, ``NOT_BASE64``.
    """
    root = strict_xml.parse(data, where="rim")
    found = [element for element in root.iter() if element.tag == f"{_DS}Signature"]
    if len(found) != 1:
        raise malformed("not exactly one signature", "rim", expected=1, got=len(found))
    signature = found[0]
    if list(root)[-1:] != found:
        raise malformed("the signature is not the last child of the root", "rim")
    attributes(signature, frozenset(), where="rim.Signature")
    info, value, key_info = children(
        signature, [f"{_DS}SignedInfo", f"{_DS}SignatureValue", f"{_DS}KeyInfo"], where="rim.Signature"
    )
    signed_info = strict_xml.canonical(info)
    raw = _octets(value, "rim.Signature.SignatureValue")
    if len(raw) != 2 * _INTEGER_SIZE:
        raise malformed(
            "the signature is not r and s of P-384",
            "rim.Signature.SignatureValue",
            expected=f"{2 * _INTEGER_SIZE} bytes",
            got=f"{len(raw)} bytes",
        )
    certificates = _certificates(key_info)
    strict_xml.detach_last(root)
    return EnvelopedSignature(
        content=strict_xml.canonical(root),
        signed_info=signed_info,
        digest=_digest(signed_info),
        signature=raw,
        certificates=certificates,
    )


def check_signature(document: EnvelopedSignature, key: ec.EllipticCurvePublicKey) -> None:
    """Require that ``key`` has signed ``document.content``.

    Raises:
        NotAuthentic: ``RIM_SIG``.
    """
    r, s = (int.from_bytes(part) for part in (document.signature[:_INTEGER_SIZE], document.signature[_INTEGER_SIZE:]))
    try:
        key.verify(encode_dss_signature(r, s), document.signed_info, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise NotAuthentic(
            Code.RIM_SIG,
            "the signature does not verify under the signer's key",
            where="rim.Signature.SignatureValue",
            clause="XML Signature 1.1 §3.2.2",
        ) from error
    # Public values: a comparison in constant time costs nothing and spares the question.
    actual = hashlib.sha384(document.content).digest()
    if not hmac.compare_digest(actual, document.digest):
        raise NotAuthentic(
            Code.RIM_SIG,
            "the document has been changed after it was signed",
            where="rim.Signature.SignedInfo.Reference.DigestValue",
            expected=document.digest,
            got=actual,
            clause="XML Signature 1.1 §3.2.1",
        )


def _digest(signed_info: bytes) -> bytes:
    """The digest in the canonical ``SignedInfo``, once that is in the one accepted form."""
    where = "rim.Signature.SignedInfo"
    root = strict_xml.parse(signed_info, where=where)
    attributes(root, frozenset(), where=where)
    method, signature_method, reference = children(
        root, [f"{_DS}CanonicalizationMethod", f"{_DS}SignatureMethod", f"{_DS}Reference"], where=where
    )
    _check_algorithm(method, _C14N11, where=f"{where}.CanonicalizationMethod")
    _check_algorithm(signature_method, _ECDSA_SHA384, where=f"{where}.SignatureMethod")
    where = f"{where}.Reference"
    target = attributes(reference, frozenset({"URI"}), where=where)["URI"]
    if target:
        raise malformed("the reference is not to the whole document", where, expected='URI=""', got=target)
    transforms, digest_method, digest = children(
        reference, [f"{_DS}Transforms", f"{_DS}DigestMethod", f"{_DS}DigestValue"], where=where
    )
    attributes(transforms, frozenset(), where=f"{where}.Transforms")
    enveloped, canonicalization = children(transforms, [f"{_DS}Transform"] * 2, where=f"{where}.Transforms")
    _check_algorithm(enveloped, _ENVELOPED, where=f"{where}.Transforms[0]")
    _check_algorithm(canonicalization, _C14N11, where=f"{where}.Transforms[1]")
    _check_algorithm(digest_method, _SHA384, where=f"{where}.DigestMethod")
    value = _octets(digest, f"{where}.DigestValue")
    if len(value) != _DIGEST_SIZE:
        raise malformed(
            "not a SHA-384", f"{where}.DigestValue", expected=f"{_DIGEST_SIZE} bytes", got=f"{len(value)} bytes"
        )
    return value


def _check_algorithm(element: Element, expected: str, *, where: str) -> None:
    got = attributes(element, _ALGORITHM, where=where)["Algorithm"]
    children(element, [], where=where)
    if got != expected:
        raise MalformedEvidence(
            Code.RIM_MALFORMED, "algorithm is not accepted", where=where, expected=expected, got=got, clause=_CLAUSE
        )


def _certificates(key_info: Element) -> tuple[bytes, ...]:
    where = "rim.Signature.KeyInfo"
    attributes(key_info, frozenset(), where=where)
    (listed,) = children(key_info, [f"{_DS}X509Data"], where=where)
    attributes(listed, frozenset(), where=where)
    # More are not looked at: the chain is too long, whatever they are.
    found = children(listed, [f"{_DS}X509Certificate"] * min(len(listed), limits.GPU_CHAIN_CERTS_MAX), where=where)
    if not found:
        raise malformed("no certificate", where)
    return tuple(_octets(element, f"{where}[{number}]") for number, element in enumerate(found))


def _octets(element: Element, where: str) -> bytes:
    """Base64 as XML has it (XML Schema 1.1 part 2 §3.3.16): white space anywhere, canonical otherwise."""
    return strict.base64_decode(strict_xml.text(element, where=where).translate(_WHITE_SPACE), what=where)
