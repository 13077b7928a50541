"""Attestation keys: credential activation, pinning, and what neither may excuse."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from fakes.soft_tpm import SoftAuthority, SoftTpm
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import ObjectAttributes
from weighbridge.proto.tpm.templates import ATTESTATION_KEY_ATTRIBUTES
from weighbridge.proto.tpm.wire import u16
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk, activated, pinned
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.ek import VerifiedEk, verify_ek

AT = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = SoftAuthority()
SECRET = bytes(range(32))
TPM = SoftTpm(authority=AUTHORITY)
AK = AttestationKey(public.parse(TPM.attestation_key()))


def ek_of(tpm: SoftTpm) -> VerifiedEk:
    ek = public.parse(tpm.ek_public)
    return verify_ek(ek, tpm.certificate, AUTHORITY.intermediates, AUTHORITY.anchors(), at=AT)


def pin(key: AttestationKey, platform: str = "tpm") -> TrustAnchors:
    anchor = Anchor(
        purpose="attestation-key",
        name="the lab's TPM",
        platform=platform,
        spki=key.public.spki(),
        not_before=AT - timedelta(days=1),
        not_after=AT + timedelta(days=1),
        source="a test",
    )
    return TrustAnchors((anchor,))


@pytest.mark.parametrize("kind", ["H-3", "L-1"])
def test_the_tpm_that_holds_both_keys_answers(kind: Literal["H-3", "L-1"]) -> None:
    tpm = SoftTpm(authority=AUTHORITY, ek=kind)
    ek, ak = ek_of(tpm), AttestationKey(public.parse(tpm.attestation_key()))
    credential = make_credential(ek, ak.public.name, SECRET)
    answer = tpm.activate_credential(credential.id_object, credential.encrypted_secret)
    verified = activated(ek, ak, secret=SECRET, answer=answer)
    assert (verified.provenance, verified.platform, verified.name) == (
        "ek-credential",
        "insecure-emulated",
        ak.public.name,
    )
    assert "not that it is in this guest" in verified.unproven


def test_a_credential_opens_for_one_name_and_in_one_tpm_only() -> None:
    """A44: the AK of another TPM, or the credential shown to another TPM."""
    ek = ek_of(TPM)
    other = SoftTpm("other", authority=AUTHORITY)
    foreign = make_credential(ek, public.parse(other.attestation_key()).name, SECRET)
    ours = make_credential(ek, AK.public.name, SECRET)
    for tpm, credential in ((TPM, foreign), (other, ours)):
        with pytest.raises(EnvironmentFault):
            tpm.activate_credential(credential.id_object, credential.encrypted_secret)


def test_credentials_are_never_the_same_twice() -> None:
    ek = ek_of(TPM)
    assert make_credential(ek, AK.public.name, SECRET) != make_credential(ek, AK.public.name, SECRET)


@pytest.mark.parametrize("size", [0, 15, 49])
def test_secrets_that_cannot_be_used(size: int) -> None:
    with pytest.raises(ValueError, match="16 to 48 bytes"):
        make_credential(ek_of(TPM), AK.public.name, bytes(size))


@pytest.mark.parametrize("answer", [b"", bytes(32), SECRET[:-1], SECRET + b"\0"])
def test_another_answer(answer: bytes) -> None:
    with pytest.raises(NotAuthentic) as caught:
        activated(ek_of(TPM), AK, secret=SECRET, answer=answer)
    assert caught.value.code is Code.AK_UNPROVEN


def test_an_empty_secret_proves_nothing() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        activated(ek_of(TPM), AK, secret=b"", answer=b"")


A = ObjectAttributes


@pytest.mark.parametrize(
    "attributes",
    [
        ATTESTATION_KEY_ATTRIBUTES ^ A.FIXED_TPM,
        ATTESTATION_KEY_ATTRIBUTES ^ A.FIXED_PARENT,
        ATTESTATION_KEY_ATTRIBUTES ^ A.SENSITIVE_DATA_ORIGIN,
        ATTESTATION_KEY_ATTRIBUTES ^ A.RESTRICTED,
        ATTESTATION_KEY_ATTRIBUTES ^ A.SIGN,
        ATTESTATION_KEY_ATTRIBUTES | A.DECRYPT,
    ],
    ids=["fixedTPM", "fixedParent", "origin", "restricted", "sign", "decrypt"],
)
def test_keys_that_do_not_attest(attributes: A) -> None:
    """A45: an unrestricted key signs hand-made attestations, a key that is not fixed has copies."""
    ak = AttestationKey(public.parse(TPM.public_with(TPM.attestation_key(), int(attributes))))
    with pytest.raises(NotAuthentic) as caught:
        activated(ek_of(TPM), ak, secret=SECRET, answer=SECRET)
    assert caught.value.code is Code.AK_ATTRIBUTES
    with pytest.raises(NotAuthentic) as caught:
        pinned(ak, pin(ak), at=AT)
    assert caught.value.code is Code.AK_ATTRIBUTES


def test_kinds_of_keys() -> None:
    """Clouds fix what their TPMs' keys are; a key that chooses its scheme when it signs is of no kind."""
    for kind in ("P-256", "P-384", "RSA-2048"):
        key = AttestationKey(public.parse(SoftTpm(ak=kind).attestation_key()))
        assert (
            pinned(key, pin(key), at=AT).public.signing_algorithm().name.startswith(kind[0].lower().replace("p", "e"))
        )
    raw = SoftTpm(ek="L-1").ek_public
    head = raw[:4] + int(ATTESTATION_KEY_ATTRIBUTES).to_bytes(4) + u16(0)
    for scheme in (u16(0x10) + u16(0x10), u16(0x10) + u16(0x14) + u16(0xC)):
        key = AttestationKey(public.parse(head + scheme + raw[50:]))
        with pytest.raises(MalformedEvidence) as caught:
            pinned(key, TrustAnchors(()), at=AT)
        assert caught.value.code is Code.TPM_ALGORITHM


def test_a_child_of_the_storage_root_key() -> None:
    """Its qualified name is that of its place, and no other place's."""
    tpm = SoftTpm(srk=True)
    parent = tpm.attestation_parent()
    assert parent is not None
    child = AttestationKey(public.parse(tpm.attestation_key()), public.parse(parent))
    assert child.qualified_name == tpm.ak_qualified_name
    assert child.qualified_name != AttestationKey(child.public).qualified_name
    other = SoftTpm("other", srk=True).attestation_parent()
    assert other is not None
    assert child.qualified_name != AttestationKey(child.public, public.parse(other)).qualified_name


def test_a_pinned_key() -> None:
    verified = pinned(AK, pin(AK, "lab"), at=AT)
    assert (verified.provenance, verified.platform) == ("pinned", "lab")
    assert "rests on whoever pinned it" in verified.unproven


def test_a_key_that_is_not_pinned_or_not_now() -> None:
    other = AttestationKey(public.parse(SoftTpm("other").attestation_key()))
    cases = ((other, AT, Code.AK_UNPROVEN), (AK, AT + timedelta(days=2), Code.CHAIN_EXPIRED))
    for key, at, code in cases:
        with pytest.raises(NotAuthentic) as caught:
            pinned(key, pin(AK), at=at)
        assert caught.value.code is code
    with pytest.raises(ValueError, match="naive"):
        pinned(AK, pin(AK), at=datetime(2026, 6, 1))  # noqa: DTZ001 - that is what is refused


def test_the_seal() -> None:
    verified = pinned(AK, pin(AK), at=AT)
    with pytest.raises(TypeError, match="activated, certified, reported or pinned"):
        VerifiedAk(AK, "pinned", "tpm", "", AT, "", "", None, None)
    with pytest.raises(TypeError):
        pickle.dumps(verified)


def test_it_is_believed_as_long_as_what_vouches_for_it() -> None:
    """Of a pin, its own end; of certificates, the earliest: a session can outlive them."""
    (anchor,) = pin(AK).anchors
    assert pinned(AK, pin(AK), at=AT).not_after == anchor.not_after
