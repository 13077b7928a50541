"""Endorsement keys: the standard templates, the very key of the certificate, a chain to an anchor."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from fakes.soft_tpm import EK_USAGE, EMULATED, NOT_AFTER, SoftAuthority, SoftTpm, derive_key, point
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import Curve, ObjectAttributes
from weighbridge.proto.tpm.templates import ENDORSEMENT_KEYS
from weighbridge.proto.tpm.wire import u16, u32
from weighbridge.verifier.anchors import Anchor, TrustAnchors, default
from weighbridge.verifier.tpm.ek import VerifiedEk, verify_ek

AT = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = SoftAuthority()
TPMS = {"H-3": SoftTpm(authority=AUTHORITY), "L-1": SoftTpm(authority=AUTHORITY, ek="L-1")}
TPM = TPMS["H-3"]
NAMES = sorted(TPMS)


def verify(
    tpm: SoftTpm = TPM,
    *,
    ek: bytes | None = None,
    certificate: bytes | None = None,
    intermediates: tuple[bytes, ...] = AUTHORITY.intermediates,
    anchors: TrustAnchors | None = None,
    at: datetime = AT,
) -> VerifiedEk:
    parsed = public.parse(tpm.ek_public if ek is None else ek)
    return verify_ek(
        parsed,
        tpm.certificate if certificate is None else certificate,
        intermediates,
        AUTHORITY.anchors() if anchors is None else anchors,
        at=at,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_standard_key_with_its_certificate(name: str) -> None:
    ek = verify(TPMS[name])
    assert (ek.template.name, ek.platform, ek.anchor.purpose) == (name, EMULATED, "tpm-ek-root")
    assert ek.symmetric.bits == (256 if name == "H-3" else 128)


def test_the_platform_is_the_anchors() -> None:
    """A forged hierarchy under a production platform's name is admitted only where its anchors are passed in."""
    assert verify(anchors=AUTHORITY.anchors("tpm")).platform == "tpm"


def test_an_intermediate_may_be_the_anchor() -> None:
    anchor = Anchor.from_certificate("tpm-ek-intermediate", AUTHORITY.intermediate, platform=EMULATED, source="a test")
    assert verify(intermediates=(), anchors=TrustAnchors((anchor,))).anchor == anchor


def refused(code: Code, **changes: object) -> WeighbridgeError:
    with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
        verify(**changes)  # type: ignore[arg-type] # a test names parameters that exist
    assert caught.value.code is code
    return caught.value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("place", "change"),
    [
        (4, u32(0x00030072)),  # userWithAuth and no admin policy: usable with a password that the attacker chose
        (4, u32(int(ObjectAttributes.DECRYPT))),
        (10, b"\0"),
    ],
    ids=["attributes", "unrestricted", "policy"],
)
def test_other_attributes_than_the_templates(name: str, place: int, change: bytes) -> None:
    ek = TPMS[name].ek_public
    refused(Code.EK_TEMPLATE, tpm=TPMS[name], ek=ek[:place] + change + ek[place + len(change) :])


def test_other_symmetric_algorithm() -> None:
    """A credential under a weaker key could be opened outside the TPM."""
    ek = TPM.ek_public
    place = 10 + 48 + 2
    assert ek[place : place + 2] == u16(256)
    refused(Code.EK_TEMPLATE, ek=ek[:place] + u16(128) + ek[place + 2 :])


def test_other_name_algorithm() -> None:
    ek = TPMS["L-1"].ek_public
    refused(Code.EK_TEMPLATE, tpm=TPMS["L-1"], ek=ek[:2] + u16(0xC) + u32(0x300B2) + u16(0) + ek[42:])


def test_a_scheme_where_there_is_none() -> None:
    ek = TPMS["L-1"].ek_public
    assert ek[48:50] == u16(0x10)
    refused(Code.EK_TEMPLATE, tpm=TPMS["L-1"], ek=ek[:48] + u16(0x14) + u16(0xB) + ek[50:])


def test_a_key_of_no_template() -> None:
    refused(Code.EK_TEMPLATE, ek=TPM.attestation_key())


def test_a_smaller_curve_with_all_else_of_a_template() -> None:
    key = derive_key("a smaller one")
    head = ENDORSEMENT_KEYS[0].parameters()
    assert head[-4:] == u16(Curve.NIST_P384) + u16(0x10)
    smaller = head[:-4] + u16(Curve.NIST_P256) + u16(0x10) + point(key)
    refused(Code.EK_TEMPLATE, ek=smaller, certificate=AUTHORITY.certify_ek(key.public_key()))


def test_certificate_of_another_key() -> None:
    """A44: an AK or EK certificate that is for another key."""
    other = SoftTpm("other", authority=AUTHORITY)
    refused(Code.EK_CERT_MISMATCH, certificate=other.certificate)
    refused(Code.EK_CERT_MISMATCH, tpm=other, certificate=TPM.certificate)


@pytest.mark.parametrize(
    ("usages", "authority", "got"),
    [
        ((), False, "no extended key usage"),
        ((x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,), False, "1.3.6.1.5.5.7.3.1"),
        ((EK_USAGE,), True, None),
    ],
    ids=["no-usage", "server", "authority"],
)
def test_certificates_that_are_not_for_endorsement_keys(
    usages: tuple[x509.ObjectIdentifier, ...], authority: bool, got: str | None
) -> None:
    certificate = AUTHORITY.certify_ek(TPM.ek_key.public_key(), usages=usages, authority=authority)
    assert refused(Code.EK_CERT_MISMATCH, certificate=certificate).got == got


def test_without_basic_constraints_it_is_no_authority() -> None:
    certificate = AUTHORITY.certify_ek(TPM.ek_key.public_key(), authority=None)
    assert verify(certificate=certificate).certificate == certificate


@pytest.mark.parametrize("padding", [b"\0", b"\xff" * 20])
def test_padding_of_the_nv_index_is_the_attesters_to_cut(padding: bytes) -> None:
    refused(Code.CERT_MALFORMED, certificate=TPM.certificate + padding)


def test_chains() -> None:
    refused(Code.CHAIN_UNTRUSTED, intermediates=())
    refused(Code.CHAIN_UNTRUSTED, anchors=TrustAnchors(()))
    refused(Code.CHAIN_UNTRUSTED, anchors=default())
    refused(Code.CHAIN_UNTRUSTED, anchors=SoftAuthority("other").anchors())
    refused(Code.CHAIN_BROKEN, intermediates=SoftAuthority("other").intermediates)
    refused(Code.CHAIN_EXPIRED, at=NOT_AFTER + timedelta(days=1))
    # Named by its place: the endorsement key's own certificate comes first.
    intermediates = (*AUTHORITY.intermediates, b"")
    malformed = refused(Code.CERT_MALFORMED, intermediates=intermediates)
    assert malformed.where == f"ek.chain[{len(intermediates)}]"


def test_a_root_of_another_purpose_does_not_count() -> None:
    anchor = Anchor.from_certificate("client-ca", AUTHORITY.root, platform="tpm", source="a test")
    refused(Code.CHAIN_UNTRUSTED, anchors=TrustAnchors((anchor,)))


def test_the_seal() -> None:
    ek = verify()
    assert "seal=" not in repr(ek)
    with pytest.raises(TypeError, match="verify_ek"):
        VerifiedEk(ek.public, ek.template, b"", ek.anchor, ek.not_after, object())
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(ek)


def test_it_lasts_as_long_as_the_first_certificate_that_ends() -> None:
    assert verify().not_after == NOT_AFTER
