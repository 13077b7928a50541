"""Attestation keys that a cloud certified: the very key, a key that signs, a chain to an anchor; which machine."""

from __future__ import annotations

import contextlib
import copy
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fakes.cloud_authority import AK_USAGE, NOT_AFTER, CloudAuthority, element, instance
from fakes.soft_tpm import EK_USAGE, SoftTpm
from weighbridge.proto import der
from weighbridge.proto.endorsement import AkCertificateEndorsement
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.public import Public
from weighbridge.proto.tpm.templates import attestation_key_template
from weighbridge.proto.tpm.wire import sized, u16, u32
from weighbridge.verifier import certs
from weighbridge.verifier.anchors import Anchor, TrustAnchors, default
from weighbridge.verifier.tpm.ak_certificate import VerifiedAkCertificate, _gce_instance, verify_ak_certificate

AT = datetime(2026, 6, 1, tzinfo=UTC)
CLOUD = CloudAuthority()
TPM = SoftTpm()
AK = public.parse(TPM.attestation_key())
KEY = AK.key


def verify(
    certificate: bytes | None = None,
    *,
    ak: Public = AK,
    intermediates: tuple[bytes, ...] = CLOUD.intermediates,
    anchors: TrustAnchors | None = None,
    at: datetime = AT,
) -> VerifiedAkCertificate:
    endorsement = AkCertificateEndorsement(
        certificate=CLOUD.certify(KEY) if certificate is None else certificate, intermediates=intermediates
    )
    return verify_ak_certificate(ak, endorsement, CLOUD.anchors() if anchors is None else anchors, at=at)


def refusal(certificate: bytes | None = None, **changes: object) -> Code:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify(certificate, **changes)  # type: ignore[arg-type] # a test names parameters that exist
    return caught.value.code


def test_a_certified_key_and_its_machine() -> None:
    verified = verify()
    assert verified.spki == AK.spki()
    assert (verified.platform, verified.anchor.name) == ("google-vtpm", "CN=cloud EK/AK CA Root")
    assert verified.instance == "instance gpu-1 (42) in europe-west4-b of project acme (7)"


def test_an_intermediate_may_be_the_anchor() -> None:
    anchor = Anchor.from_certificate("tpm-ak-intermediate", CLOUD.intermediate, platform="x", source="a test")
    assert verify(intermediates=(), anchors=TrustAnchors((anchor,))).anchor == anchor


def test_a_certificate_for_another_key() -> None:
    """A44: whichever of the two keys has the greater bytes."""
    keys = [AK, public.parse(SoftTpm("other").attestation_key())]
    for ak, other in (keys, keys[::-1]):
        assert isinstance(other.key, ec.EllipticCurvePublicKey)
        assert refusal(CLOUD.certify(other.key), ak=ak) is Code.AK_CERT_MISMATCH


@pytest.mark.parametrize(
    ("usages", "purposes"),
    [
        (("digital_signature",), None),
        (("digital_signature", "content_commitment"), None),
        (("digital_signature",), (AK_USAGE,)),
        (None, (AK_USAGE,)),
        (("digital_signature",), (EK_USAGE,)),
    ],
    ids=["google", "commitment", "tcg", "tcg-without-key-usage", "older-google"],
)
def test_certificates_for_keys_that_sign(
    usages: tuple[str, ...] | None, purposes: tuple[x509.ObjectIdentifier, ...] | None
) -> None:
    assert verify(CLOUD.certify(KEY, usages=usages, purposes=purposes)).spki == AK.spki()


@pytest.mark.parametrize(
    ("usages", "purposes"),
    [
        (("key_encipherment",), (EK_USAGE,)),
        (("key_agreement",), None),
        (("digital_signature", "key_encipherment"), (EK_USAGE,)),
        (("digital_signature", "key_agreement"), None),
        (("digital_signature", "data_encipherment"), None),
        (("digital_signature", "key_cert_sign"), None),
        (("content_commitment",), (AK_USAGE,)),
        (("digital_signature",), (x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,)),
        (None, (EK_USAGE,)),
        (None, None),
    ],
    ids=["ek-rsa", "ek-ecc", "both-rsa", "both-ecc", "data", "ca", "no-signing", "server", "ek-by-purpose", "nothing"],
)
def test_an_endorsement_certificate_is_no_attestation_certificate(
    usages: tuple[str, ...] | None, purposes: tuple[x509.ObjectIdentifier, ...] | None
) -> None:
    """A44."""
    assert refusal(CLOUD.certify(KEY, usages=usages, purposes=purposes)) is Code.AK_CERT_MISMATCH


@pytest.mark.parametrize(
    ("usages", "got"),
    [
        (("key_agreement", "crl_sign"), "cRLSign, keyAgreement"),
        (("content_commitment",), "nonRepudiation"),
        ((), "no key usage"),
    ],
)
def test_what_a_key_does_instead_is_said(usages: tuple[str, ...], got: str) -> None:
    with pytest.raises(NotAuthentic) as caught:
        verify(CLOUD.certify(KEY, usages=usages, purposes=(AK_USAGE,)))
    assert caught.value.got == got


def test_an_authoritys_certificate() -> None:
    assert refusal(CLOUD.certify(KEY, authority=True)) is Code.AK_CERT_MISMATCH


def test_a_certificate_that_says_nothing_of_authority() -> None:
    """RFC 5280 §4.2.1.9: then it is none."""
    assert verify(CLOUD.certify(KEY, authority=None)).spki == AK.spki()


def test_chains() -> None:
    """A44: a key that only declares itself has no chain."""
    assert refusal(intermediates=()) is Code.CHAIN_UNTRUSTED
    assert refusal(anchors=TrustAnchors(())) is Code.CHAIN_UNTRUSTED
    assert refusal(anchors=default()) is Code.CHAIN_UNTRUSTED
    assert refusal(anchors=CloudAuthority("other").anchors()) is Code.CHAIN_UNTRUSTED
    assert refusal(intermediates=CloudAuthority("other").intermediates) is Code.CHAIN_BROKEN
    assert refusal(at=NOT_AFTER + timedelta(days=1)) is Code.CHAIN_EXPIRED
    assert refusal(b"") is Code.CERT_MALFORMED
    assert refusal(CLOUD.certify(KEY) + b"\0") is Code.CERT_MALFORMED
    with pytest.raises(MalformedEvidence) as caught:
        verify(intermediates=(*CLOUD.intermediates, b""))
    assert (caught.value.code, caught.value.where) == (Code.CERT_MALFORMED, "ak.chain[2]")


def test_a_root_for_endorsement_keys_does_not_certify_attestation_keys() -> None:
    anchor = Anchor.from_certificate("tpm-ek-root", CLOUD.root, platform="google-vtpm", source="a test")
    assert refusal(anchors=TrustAnchors((anchor,))) is Code.CHAIN_UNTRUSTED


def test_the_seal() -> None:
    verified = verify()
    with pytest.raises(TypeError, match="verify_ak_certificate"):
        VerifiedAkCertificate(b"", b"", verified.anchor, verified.not_after, "", object())
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(verified)
    assert "seal" not in repr(verified)


# -- which machine ----------------------------------------------------------------------------------------------------

GOOD = instance()
FIELDS = [item.raw for item in der.one(GOOD, der.SEQUENCE, what="a test").elements(what="a test")]
IN_PRODUCTION = element(0xA1, element(der.BOOLEAN, b"\xff"))


def ending(*fields: bytes) -> bytes:
    """A machine with other fields from the sixth on."""
    return element(der.SEQUENCE, b"".join([*FIELDS[:5], *fields]))


def secured(*properties: bytes, tag: int = 0xA0) -> bytes:
    """The sixth field: security properties."""
    return element(tag, element(der.SEQUENCE, b"".join(properties)))


@pytest.mark.parametrize(
    "machine",
    [
        b"\0",
        GOOD + b"\0",
        GOOD[:-1],
        instance(production=False),
        instance(name="gpu\n1"),
        GOOD.replace(b"\x02\x01\x2a", b"\x02\x01\xaa"),
        GOOD.replace(b"\x0c\x05gpu-1", b"\x0c\x05gpu-\xff"),
        GOOD.replace(b"\x0c\x05gpu-1", b"\x13\x05gpu-1"),
        GOOD.replace(b"\xff", b"\x01"),
        element(der.SEQUENCE, b""),
        ending(FIELDS[5], FIELDS[0]),
        ending(secured(IN_PRODUCTION, tag=der.SEQUENCE)),
        ending(secured(IN_PRODUCTION, tag=0xA1)),
        ending(secured()),
        ending(secured(IN_PRODUCTION, IN_PRODUCTION)),
    ],
    ids=[
        "tag",
        "trailing",
        "cut",
        "not-production",
        "line-break",
        "negative",
        "not-utf8",
        "not-utf8-string",
        "not-boolean",
        "empty",
        "a-field-more",
        "lower-tag",
        "higher-tag",
        "production-absent",
        "production-twice",
    ],
)
def test_what_cannot_be_read_of_a_machine_is_absent(machine: bytes) -> None:
    assert verify(CLOUD.certify(KEY, machine=machine)).instance == ""


def test_a_certificate_that_names_no_machine() -> None:
    assert verify(CLOUD.certify(KEY, machine=b"")).instance == ""


def test_a_machine_is_told_in_300_characters() -> None:
    room = 300 - len(verify(CLOUD.certify(KEY, machine=instance(name=""))).instance)
    longest, longer = (verify(CLOUD.certify(KEY, machine=instance(name="x" * size))) for size in (room, room + 1))
    assert (len(longest.instance), longer.instance) == (300, "")


def test_what_else_is_said_does_not_hide_the_machine() -> None:
    """A security property that is not known here, another extension before Google's."""
    machine = ending(secured(IN_PRODUCTION, element(0xA2, element(der.BOOLEAN, b"\0"))))
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.20"), b"\x05\0")
    assert verify(CLOUD.certify(KEY, machine=machine, other=other)).instance == verify().instance


@given(st.binary(max_size=80))
def test_any_extension_is_text_empty_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        assert isinstance(_gce_instance(data), str)


@given(st.dictionaries(st.integers(0, len(GOOD) - 1), st.integers(0, 255), min_size=1, max_size=3))
def test_any_change_of_an_extension_is_printable_or_malformed(changes: dict[int, int]) -> None:
    data = bytearray(GOOD)
    for offset, value in changes.items():
        data[offset] = value
    with contextlib.suppress(MalformedEvidence):
        text = _gce_instance(bytes(data))
        assert text == "" or text.isprintable()


# -- Google's own -----------------------------------------------------------------------------------------------------


def area(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> Public:
    """The public area that an attestation key of this kind has."""
    template = attestation_key_template()
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers = key.public_numbers()
        return public.parse(template[:-4] + sized(numbers.x.to_bytes(32)) + sized(numbers.y.to_bytes(32)))
    head = u16(1) + u16(0xB) + template[4:8] + sized(b"")
    parameters = u16(0x10) + u16(0x14) + u16(0xB) + u16(2048) + u32(0)
    return public.parse(head + parameters + sized(key.public_numbers().n.to_bytes(256)))


def recorded(vectors_dir: Path, name: str) -> x509.Certificate:
    data = (vectors_dir / "tpm" / "go-tpm-tools" / name).read_bytes()
    if data.startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data)


@pytest.mark.parametrize("key", ["rsa", "ecc"])
@pytest.mark.parametrize(
    ("authority", "intermediate", "machine", "anchor"),
    [
        (
            "pca",
            "gcp_ek_ak_ca_intermediate_v3.crt",
            "instance cs-debug-pca (218557372616137117) in us-central1-a of project google.com:wuale-gcp-testing",
            "CN=EK/AK CA Intermediate",
        ),
        (
            "uca",
            "tpm_ek_intermediate_3.crt",
            "instance cs-debug (5780156274199835632) in us-central1-a of project google.com:wuale-gcp-testing",
            "CN=tpm_ek_v1_cloud_host-signer",
        ),
    ],
)
def test_googles_certificates_under_the_shipped_anchors(
    vectors_dir: Path, key: str, authority: str, intermediate: str, machine: str, anchor: str
) -> None:
    """Those for attestation keys are accepted, those for endorsement keys of the same machines are refused (A44)."""
    issuer = recorded(vectors_dir, f"ca-certs/{intermediate}").public_bytes(Encoding.DER)
    for usage, accepted in (("sign", True), ("enc", False)):
        leaf = recorded(vectors_dir, f"certificates/{authority}_tpm_{key}_{usage}_cert.pem")
        leaf_key = leaf.public_key()
        assert isinstance(leaf_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        ak, certificate = area(leaf_key), leaf.public_bytes(Encoding.DER)
        # As the NV index has it, and with what its extension says where to fetch.
        for intermediates in ((), (issuer,)):
            if not accepted:
                assert refusal(certificate, ak=ak, intermediates=intermediates, anchors=default()) is (
                    Code.AK_CERT_MISMATCH
                )
                continue
            verified = verify(certificate, ak=ak, intermediates=intermediates, anchors=default())
            assert verified.platform == "google-vtpm"
            assert verified.anchor.name.startswith(anchor)
            assert verified.instance.startswith(machine)
            assert certs.spki_der(leaf) == verified.spki


def test_it_lasts_as_long_as_the_first_certificate_that_ends() -> None:
    assert verify().not_after == NOT_AFTER
