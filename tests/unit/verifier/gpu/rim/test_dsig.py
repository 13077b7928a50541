"""The one accepted form of XML signature: what is signed is what is read, and nothing else is."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.rims import edited, resigned
from weighbridge.attester.gpu.emulated import Firmware
from weighbridge.attester.gpu.emulated_rims import RimSigner, gpu_manifests
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.gpu.rim import dsig

SIGNER = RimSigner.create()
DRIVER, VBIOS = gpu_manifests(Firmware())
GOOD = SIGNER.issue(DRIVER)
TEXT = DRIVER.text(canonical=True)
AT = datetime(2026, 6, 1, tzinfo=UTC)
SIGNATURE = re.compile(rb"<ds:Signature .*</ds:Signature>", re.DOTALL)
END = b"</SoftwareIdentity>"


def signature_of(document: bytes) -> bytes:
    """The signature element's bytes."""
    found = SIGNATURE.search(document)
    assert found
    return found[0]


def body_of(document: bytes) -> bytes:
    """The document without its signature."""
    return SIGNATURE.sub(b"", document)


def key_of(document: dsig.EnvelopedSignature) -> ec.EllipticCurvePublicKey:
    """The key of the certificate that came with it."""
    key = x509.load_der_x509_certificate(document.certificates[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def outcome(data: bytes) -> Code | None:
    """Why the document is refused, under the key that it brings; ``None`` where it is not."""
    try:
        document = dsig.parse(data)
        dsig.check_signature(document, key_of(document))
    except (MalformedEvidence, NotAuthentic) as error:
        return error.code
    return None


def test_good() -> None:
    """Two canonicalisations, the emulated vendor's and libxml2's, come to the same bytes."""
    document = dsig.parse(GOOD)
    dsig.check_signature(document, key_of(document))
    assert document.content == TEXT.encode()
    assert len(document.certificates) == 4
    assert len(document.signature) == 96


def test_good_in_canonical_layout() -> None:
    assert outcome(SIGNER.sign(TEXT)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n", b"\r\n"),
        (b' type="Measurement" index="0"', b"\n type='Measurement'   index='0' "),
        (b"<ds:SignatureValue>", b"<ds:SignatureValue>\n\t "),
        (b"</ds:SignedInfo>", b"</ds:SignedInfo>\n"),
        (b"<SoftwareIdentity ", b'<?xml version="1.0" encoding="UTF-8"?>\n<SoftwareIdentity '),
    ],
)
def test_another_spelling_of_the_same(old: bytes, new: bytes) -> None:
    """Canonicalisation is there for this; what is read is the same."""
    changed = GOOD.replace(old, new)
    assert changed != GOOD
    assert outcome(changed) is None
    assert dsig.parse(changed).content == TEXT.encode()


@pytest.mark.parametrize(
    ("data", "place"),
    [(edited(GOOD), "DigestValue"), (resigned(GOOD), "SignatureValue"), (GOOD.replace(b"GH100", b"GB100"), "Digest")],
)
def test_changed_after_it_was_signed(data: bytes, place: str) -> None:
    document = dsig.parse(data)
    with pytest.raises(NotAuthentic) as caught:
        dsig.check_signature(document, key_of(document))
    assert caught.value.code is Code.RIM_SIG
    assert place in caught.value.where


def test_white_space_in_the_content_is_signed() -> None:
    assert outcome(GOOD.replace(b"<ns0:Payload", b" <ns0:Payload")) is Code.RIM_SIG
    assert outcome(GOOD.replace(END, b"\n" + END)) is Code.RIM_SIG


def test_certificate_of_somebody_else() -> None:
    """The first certificate is the signer's, and no other one is tried."""
    first, second = re.findall(rb"<ds:X509Certificate>[^<]*</ds:X509Certificate>", GOOD)[:2]
    swapped = GOOD.replace(first, b"?").replace(second, first).replace(b"?", second, 1)
    assert outcome(swapped) is Code.RIM_SIG


# Signature wrapping (McIntosh and Austel 2005; Somorovsky et al. 2012): the signed text is kept somewhere, and another
# is put where a reader looks. Each is what it would take to be believed here.
EVIL = body_of(GOOD).replace(DRIVER.active[7][0].hex().encode(), b"66" * 48)
WRAPPED = {
    "signature moved to another document": EVIL.replace(END, signature_of(GOOD) + END),
    "signature moved below the payload": body_of(GOOD).replace(
        b"</ns0:Payload>", signature_of(GOOD) + b"</ns0:Payload>"
    ),
    "signature first": re.sub(rb"(<SoftwareIdentity [^>]*>)", rb"\1" + signature_of(GOOD), body_of(GOOD), count=1),
    "signed document inside of another": EVIL.replace(END, GOOD + END),
    "another document inside of the signed one": GOOD.replace(b"<ds:Signature ", EVIL + b"<ds:Signature "),
    "signed document in an object of the signature": EVIL.replace(
        END, signature_of(GOOD).replace(b"</ds:Signature>", b"<ds:Object>%s</ds:Object></ds:Signature>") % body_of(GOOD)
    )
    + END,
    "second payload": GOOD.replace(b"<ds:Signature ", b"<ns0:Payload></ns0:Payload><ds:Signature "),
    "second signature": GOOD.replace(END, signature_of(GOOD) + END),
    "signature inside of the signature": GOOD.replace(b"<ds:KeyInfo>", b"<ds:KeyInfo>" + signature_of(GOOD)),
    "new root around it": b"<all>" + GOOD + b"</all>",
    "no signature": body_of(GOOD),
    "signature of another namespace": GOOD.replace(b"http://www.w3.org/2000/09/xmldsig#", b"urn:other"),
    "id of the root": GOOD.replace(b"<SoftwareIdentity ", b'<SoftwareIdentity Id="x" '),
    "id of the signature": GOOD.replace(b"<ds:Signature ", b'<ds:Signature Id="x" '),
    "id of the signed info": GOOD.replace(b"<ds:SignedInfo>", b'<ds:SignedInfo Id="x">'),
    "id of the reference": GOOD.replace(b'<ds:Reference URI=""', b'<ds:Reference Id="x" URI=""'),
    "comment in a hash": GOOD.replace(b"ns2:Hash0", b"ns2:Ha<!-- -->sh0", 1),
    "comment in the digest": GOOD.replace(b"<ds:DigestValue>", b"<ds:DigestValue><!-- -->"),
    "comment in the payload": GOOD.replace(b"</ns0:Payload>", b"<!-- --></ns0:Payload>"),
    "text in the signature": GOOD.replace(b"<ds:KeyInfo>", b"x<ds:KeyInfo>"),
    "key value beside the certificates": GOOD.replace(b"<ds:KeyInfo>", b"<ds:KeyInfo><ds:KeyValue/>"),
    "key name in place of the certificates": re.sub(
        rb"<ds:X509Data>.*</ds:X509Data>", b"<ds:KeyName>x</ds:KeyName>", GOOD, flags=re.DOTALL
    ),
    "key by address": GOOD.replace(b"<ds:KeyInfo>", b'<ds:KeyInfo><ds:RetrievalMethod URI="http://a.example"/>'),
    "list of revoked certificates": GOOD.replace(b"<ds:X509Data>", b"<ds:X509Data><ds:X509CRL>AA==</ds:X509CRL>"),
    "attribute of a certificate": GOOD.replace(b"<ds:X509Certificate>", b'<ds:X509Certificate a="b">', 1),
    "element in a certificate": GOOD.replace(b"<ds:X509Certificate>", b"<ds:X509Certificate><a/>", 1),
    "no key info": re.sub(rb"<ds:KeyInfo>.*</ds:KeyInfo>", b"", GOOD, flags=re.DOTALL),
    "default namespace changed below": GOOD.replace(b"<ns0:Payload ", b'<ns0:Payload xmlns="urn:other" '),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped(case: str) -> None:
    data = WRAPPED[case]
    assert data != GOOD
    assert outcome(data) in {Code.RIM_MALFORMED, Code.RIM_SIG}


@pytest.mark.parametrize("case", ["signature first", "signature moved below the payload"])
def test_signature_in_another_place_is_refused(case: str) -> None:
    """Where it stands is signed by nobody, and the digest would be the same."""
    assert outcome(WRAPPED[case]) is Code.RIM_MALFORMED


C14N11 = "http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED = '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"'
SIGNED_OTHERWISE = {
    "canonicalization 1.0": (C14N11, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
    "canonicalization with comments": (C14N11, f"{C14N11}#WithComments"),
    "exclusive canonicalization": (C14N11, "http://www.w3.org/2001/10/xml-exc-c14n#"),
    "ECDSA with SHA-256": ("xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha256"),
    "HMAC": ("xmldsig-more#ecdsa-sha384", "xmldsig-more#hmac-sha384"),
    "RSA with SHA-1": (
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
        "http://www.w3.org/2000/09/xmldsig#rsa-sha1",
    ),
    "digest of SHA-256": ("xmldsig-more#sha384", "xmlenc#sha256"),
    "reference to a part": ('URI=""', 'URI="#part"'),
    "reference to the root by pointer": ('URI=""', 'URI="#xpointer(/)"'),
    "reference elsewhere": ('URI=""', 'URI="http://a.example/rim"'),
    "reference to anything": (' URI=""', ""),
    "type of the reference": ('URI=""', 'Type="http://www.w3.org/2000/09/xmldsig#Manifest" URI=""'),
    "no transform": (ENVELOPED, '<ds:Transform Algorithm="urn:none"'),
    "XPath": ("http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xpath-19991116"),
    "XSLT": (
        "<ds:Transforms>",
        '<ds:Transforms><ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"></ds:Transform>',
    ),
    "transforms in another order": (
        ENVELOPED,
        f'<ds:Transform Algorithm="{C14N11}"></ds:Transform>{ENVELOPED}',
    ),
    "second reference": (
        "</ds:Reference>",
        '</ds:Reference><ds:Reference URI="http://a.example"></ds:Reference>',
    ),
    "length of the signature": (
        '#ecdsa-sha384">',
        '#ecdsa-sha384"><ds:HMACOutputLength>1</ds:HMACOutputLength>',
    ),
    "digest cut": ("</ds:DigestValue>", "</ds:DigestValue><ds:DigestValue></ds:DigestValue>"),
}


@pytest.mark.parametrize("case", SIGNED_OTHERWISE)
def test_signed_in_another_form(case: str) -> None:
    """Well signed, by the very signer who is believed: what the signature would mean is not what is read."""
    old, new = SIGNED_OTHERWISE[case]
    data = SIGNER.sign(TEXT, info=((old, new),))
    assert new.encode() in data or case == "reference to anything"
    assert outcome(data) is Code.RIM_MALFORMED


def test_document_in_canonical_layout_is_signed_under_the_changes_made_above() -> None:
    """Else the refusals above would be of a signature that does not verify."""
    assert outcome(SIGNER.sign(TEXT, info=(("<ds:Transforms>", "<ds:Transforms>\n"),))) is None


@pytest.mark.parametrize(
    ("digest", "code"),
    [("AAAA", Code.RIM_MALFORMED), ("", Code.RIM_MALFORMED), ("A" * 65, Code.NOT_BASE64), ("A" * 64, Code.RIM_SIG)],
)
def test_digest_of_another_length(digest: str, code: Code) -> None:
    value = re.search("<ds:DigestValue>([^<]*)<", GOOD.decode())
    assert value
    assert outcome(SIGNER.sign(TEXT, info=((value[1], digest),))) is code


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", Code.RIM_MALFORMED),
        (b"A" * 124, Code.RIM_MALFORMED),
        (b"A" * 132, Code.RIM_MALFORMED),
        (b"A" * 127, Code.NOT_BASE64),
        (b"A" * 64 + b"=" + b"A" * 63, Code.NOT_BASE64),
        (b"A" * 128, Code.RIM_SIG),
        (b"/" * 128, Code.RIM_SIG),
    ],
)
def test_signature_of_another_length(value: bytes, code: Code) -> None:
    """r and s of 48 bytes each; r = s = 0 and r = s = 2^384 - 1 are no signature of anything."""
    assert outcome(re.sub(rb"(?<=<ds:SignatureValue>)[^<]*", value, GOOD)) is code


def test_der_signature_is_refused() -> None:
    """ECDSA as X.509 has it is another encoding, and a second one of the same."""
    assert outcome(re.sub(rb"(?<=<ds:SignatureValue>)[^<]*", b"MGUC" + b"A" * 132, GOOD)) is Code.RIM_MALFORMED


def test_malleated_signature_is_the_same_issue() -> None:
    """(r, n - s) verifies too: another file, no other content."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
    document = dsig.parse(GOOD)
    s = int.from_bytes(document.signature[48:])
    other = document.signature[:48] + (order - s).to_bytes(48)
    dsig.check_signature(
        dsig.EnvelopedSignature(
            content=document.content,
            signed_info=document.signed_info,
            digest=document.digest,
            signature=other,
            certificates=document.certificates,
        ),
        key_of(document),
    )


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        dsig.parse(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 40), st.binary(max_size=8))
def test_any_edit(start: int, size: int, new: bytes) -> None:
    """Whatever is cut out or put in: refused, or read as what was signed."""
    data = GOOD[:start] + new + GOOD[start + size :]
    if outcome(data) is None:
        assert dsig.parse(data).content == TEXT.encode()
