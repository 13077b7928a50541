"""Whom an attester believes: strict reading of the anchors document, and terms by nobody else."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import derive_key
from weighbridge.attester.trust import TrustedVerifiers
from weighbridge.proto import cose, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.proto.terms import SignedTerms, Terms
from weighbridge.verifier.anchors import Anchor, Purpose, TrustAnchors

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = derive_key("verifier")
OTHER = derive_key("other")


def anchor(key: ec.EllipticCurvePrivateKey = KEY, purpose: Purpose = "verifier") -> Anchor:
    return Anchor(purpose, "verifier", "verifier", cose.spki(key.public_key()), AT - DAY, AT + DAY, "a test")


def load(*anchors: Anchor) -> TrustedVerifiers:
    return TrustedVerifiers.load(TrustAnchors(anchors).encode())


def signed(key: ec.EllipticCurvePrivateKey = KEY) -> SignedTerms:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    terms = Terms(
        session=bytes(16),
        tenant="t",
        audience="a",
        verifier=cose.thumbprint(key.public_key()),
        ak=bytes(32),
        telemetry_key=bytes(32),
        cnf=bytes(32),
        peer=bytes(32),
        kem=None,
        model=bytes(32),
        evidence=("telemetry", "tpm", "workload"),
        gpus=(),
        bank=11,
        pcrs=(0, 15),
        boot_pcrs=(0,),
        log_pcr=15,
        period_ns=10**9,
        gpu_every=1,
        spot_every=0,
        lateness_ns=0,
        prev=bytes(32),
        issued_ns=0,
    )
    return SignedTerms.sign(terms, sign)


def test_reads_the_document_that_the_verifier_writes() -> None:
    """The two rooms share no code for it, so this is what keeps them together."""
    trusted = load(anchor(OTHER, purpose="attestation-key"), anchor(), anchor(OTHER))
    assert [item.thumbprint for item in trusted.anchors] == [
        cose.thumbprint(KEY.public_key()),
        cose.thumbprint(OTHER.public_key()),
    ]


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_opens_terms_by_a_believed_key(key: ec.EllipticCurvePrivateKey) -> None:
    terms = signed(key)
    assert load(anchor(), anchor(OTHER)).open_terms(terms.raw, at=AT) == terms


def test_one_key_in_pem_is_enough() -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    terms = signed()
    assert TrustedVerifiers.load(pem).open_terms(terms.raw, at=AT) == terms


def test_terms_by_another_verifier_are_refused() -> None:
    with pytest.raises(NotAuthentic) as caught:
        load(anchor()).open_terms(signed(OTHER).raw, at=AT)
    assert caught.value.code is Code.CHAIN_UNTRUSTED


@pytest.mark.parametrize("off", [-2 * DAY, 2 * DAY])
def test_a_key_is_believed_in_its_time_only(off: timedelta) -> None:
    with pytest.raises(NotAuthentic) as caught:
        load(anchor()).open_terms(signed().raw, at=AT + off)
    assert caught.value.code is Code.CHAIN_EXPIRED


def test_a_signature_by_somebody_who_names_a_believed_key_is_refused() -> None:
    raw = bytearray(signed().raw)
    raw[-1] ^= 1
    with pytest.raises(NotAuthentic) as caught:
        load(anchor()).open_terms(bytes(raw), at=AT)
    assert caught.value.code is Code.COSE_SIGNATURE


def test_other_messages_are_not_terms() -> None:
    payload = signed().terms.encode()
    raw = cose.sign(payload, kid=bytes(32), typ="application/other", signer=lambda _: bytes(64))
    with pytest.raises(MalformedEvidence) as caught:
        load(anchor()).open_terms(raw, at=AT)
    assert caught.value.code is Code.COSE_HEADER


def test_nobody_is_believed_by_an_empty_document() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        load(anchor(purpose="attestation-key"))
    assert caught.value.code is Code.ANCHORS_INVALID


Edit = dict[str, Any]


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        ({"schema": "weighbridge/anchors/v2"}, Code.ANCHORS_INVALID),
        ({"extra": 1}, Code.FIELD_UNKNOWN),
        ({"anchors.sha256": sha256(b"x").hex()}, Code.ANCHORS_INVALID),
        ({"anchors.sha256": "AB"}, Code.NOT_HEX),
        ({"anchors.spki": "###"}, Code.NOT_BASE64),
        ({"anchors.not_after": "soon"}, Code.NOT_A_TIME),
        ({"anchors.purpose": 1}, Code.FIELD_TYPE),
        ({"anchors.more": 1}, Code.FIELD_UNKNOWN),
        ({"anchors.name": None}, Code.FIELD_TYPE),
        ({"anchors": {}}, Code.FIELD_TYPE),
    ],
)
def test_one_wrong_field_is_named(edit: Edit, code: Code) -> None:
    document: Any = strict.json_decode(TrustAnchors((anchor(),)).encode(), what="anchors")
    for path, value in edit.items():
        if "." in path:
            document["anchors"][0][path.partition(".")[2]] = value
        else:
            document[path] = value
    with pytest.raises(MalformedEvidence) as caught:
        TrustedVerifiers.load(strict.json_encode(document))
    assert caught.value.code is code


def test_the_same_key_twice_is_refused() -> None:
    document: Any = strict.json_decode(TrustAnchors((anchor(),)).encode(), what="anchors")
    document["anchors"] *= 2
    with pytest.raises(MalformedEvidence) as caught:
        TrustedVerifiers.load(strict.json_encode(document))
    assert caught.value.code is Code.ANCHORS_INVALID


@pytest.mark.parametrize(
    ("pem", "code"),
    [
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", Code.KEY_MALFORMED),
        (
            ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            Code.KEY_UNSUPPORTED,
        ),
    ],
)
def test_a_pem_that_is_no_p256_key(pem: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        TrustedVerifiers.load(pem)
    assert caught.value.code is code


VALID = TrustAnchors((anchor(),)).encode()


@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=1)).map(
            lambda change: VALID[: change[0]] + change[1] + VALID[change[0] + 1 :]
        ),
    )
)
def test_loading_is_total(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        TrustedVerifiers.load(data)
