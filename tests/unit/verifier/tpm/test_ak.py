"""Attestation keys: credential activation, pinning, and what neither may excuse."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fakes.cloud_authority import CloudAuthority
from fakes.forged_snp import ForgedSnp
from fakes.soft_tpm import SoftAuthority, SoftTpm
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.endorsement import AkCertificateEndorsement
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import ObjectAttributes
from weighbridge.proto.tpm.templates import ATTESTATION_KEY_ATTRIBUTES
from weighbridge.proto.tpm.wire import u16
from weighbridge.verifier.anchors import Anchor, TrustAnchors, default
from weighbridge.verifier.tee.vtpm import VerifiedVtpm, verify_vtpm
from weighbridge.verifier.tpm.ak import (
    AttestationKey,
    Provenance,
    StateHolder,
    VerifiedAk,
    activated,
    certified,
    pinned,
    reported,
)
from weighbridge.verifier.tpm.ak_certificate import verify_ak_certificate
from weighbridge.verifier.tpm.credential import make_credential
from weighbridge.verifier.tpm.ek import VerifiedEk, verify_ek

AT = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = SoftAuthority()
SECRET = bytes(range(32))
TPM = SoftTpm(authority=AUTHORITY)
AK = AttestationKey(public.parse(TPM.attestation_key()))
CLOUD = CloudAuthority()
SNP = ForgedSnp.create("Genoa")


def ek_of(tpm: SoftTpm) -> VerifiedEk:
    ek = public.parse(tpm.ek_public)
    return verify_ek(ek, tpm.certificate, AUTHORITY.intermediates, AUTHORITY.anchors(), at=AT)


def pin(*keys: AttestationKey, platform: str = "tpm") -> TrustAnchors:
    return TrustAnchors(
        tuple(
            Anchor(
                purpose="attestation-key",
                name=f"TPM {number} of the lab",
                platform=platform,
                spki=key.public.spki(),
                not_before=AT - timedelta(days=1),
                not_after=AT + timedelta(days=1),
                source="a test",
            )
            for number, key in enumerate(keys)
        )
    )


def in_order(kind: Literal["P-256", "RSA-2048"]) -> list[AttestationKey]:
    """Three TPMs' keys, in the order of their bytes: what is compared wrongly is wrong on one side only."""
    keys = [AttestationKey(public.parse(SoftTpm(seed, ak=kind).attestation_key())) for seed in ("one", "two", "three")]
    return sorted(keys, key=lambda ak: ak.public.spki())


def vtpm_of(ak: AttestationKey, *lists: bytes) -> VerifiedVtpm:
    """A confidential machine whose firmware names ``ak``, and the revocation lists that are at hand."""
    key = ak.public.key
    assert isinstance(key, rsa.RSAPublicKey)
    collateral = Collateral.of(*(CollateralItem("crl", item) for item in lists))
    return verify_vtpm(SNP.endorsement(key), collateral=collateral, anchors=SNP.anchors(), at=AT)


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


@pytest.mark.parametrize("size", [0, 15])
def test_a_secret_that_can_be_guessed_proves_nothing(size: int) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        activated(ek_of(TPM), AK, secret=SECRET[:size], answer=SECRET[:size])


def test_the_shortest_secret() -> None:
    assert activated(ek_of(TPM), AK, secret=SECRET[:16], answer=SECRET[:16]).provenance == "ek-credential"


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
    assert pinned(child, pin(child), at=AT).qualified_name == tpm.ak_qualified_name
    assert child.qualified_name != AttestationKey(child.public).qualified_name
    other = SoftTpm("other", srk=True).attestation_parent()
    assert other is not None
    assert child.qualified_name != AttestationKey(child.public, public.parse(other)).qualified_name


def test_a_pinned_key() -> None:
    verified = pinned(AK, pin(AK, platform="lab"), at=AT)
    assert (verified.provenance, verified.platform) == ("pinned", "lab")
    assert "rests on whoever pinned it" in verified.unproven


def test_a_key_is_believed_by_its_own_pin() -> None:
    """Whatever else is pinned beside it."""
    first, middle, last = in_order("P-256")
    for key in (first, last):
        (anchor,) = (anchor for anchor in pin(first, last).anchors if anchor.spki == key.public.spki())
        assert pinned(key, pin(first, last), at=AT).anchor == anchor.name
    with pytest.raises(NotAuthentic) as caught:
        pinned(middle, pin(first, last), at=AT)
    assert caught.value.code is Code.AK_UNPROVEN


def test_a_pin_holds_from_its_first_second_to_its_last() -> None:
    (anchor,) = pin(AK).anchors
    for at in (anchor.not_before, anchor.not_after):
        assert pinned(AK, pin(AK), at=at).anchor == anchor.name
    second = timedelta(seconds=1)
    for at in (anchor.not_before - second, anchor.not_after + second):
        with pytest.raises(NotAuthentic) as caught:
            pinned(AK, pin(AK), at=at)
        assert caught.value.code is Code.CHAIN_EXPIRED
    with pytest.raises(ValueError, match="naive"):
        pinned(AK, pin(AK), at=datetime(2026, 6, 1))  # noqa: DTZ001 - that is what is refused


def test_of_several_pins_of_a_key_one_that_is_valid_decides() -> None:
    """Whichever stands first; where none is, what is said does not hang on that either."""
    (pin_,), day = pin(AK).anchors, timedelta(days=1)
    ended, lasting, longer, early, coming = (
        replace(pin_, name=name, not_before=AT + first * day, not_after=AT + last * day)
        for name, first, last in (
            ("ended", -9, -1), ("lasting", -8, 1), ("longer", -1, 2), ("early", -5, 2), ("coming", 3, 9)
        )
    )  # fmt: skip
    for pins in itertools.permutations((ended, lasting, longer, early, coming)):
        verified = pinned(AK, TrustAnchors(pins), at=AT)
        assert (verified.anchor, verified.not_after) == ("longer", longer.not_after)
    # To its last moment, and from its first.
    for at in (lasting.not_before, lasting.not_after):
        assert pinned(AK, TrustAnchors((lasting, coming)), at=at).anchor == "lasting"
    for pins in itertools.permutations((ended, replace(ended, name="earlier", not_after=AT - 2 * day))):
        with pytest.raises(NotAuthentic) as caught:
            pinned(AK, TrustAnchors(pins), at=AT)
        assert (caught.value.code, caught.value.where) == (Code.CHAIN_EXPIRED, "anchor ended")


def test_a_key_that_a_cloud_certified() -> None:
    """A44: that very key, whichever others the cloud has certified."""
    first, ak, last = in_order("P-256")
    key = ak.public.key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    endorsement = AkCertificateEndorsement(certificate=CLOUD.certify(key), intermediates=CLOUD.intermediates)
    certificate = verify_ak_certificate(ak.public, endorsement, CLOUD.anchors(), at=AT)
    verified = certified(ak, certificate)
    assert (verified.provenance, verified.detail) == ("ak-certificate", certificate.instance)
    assert "host holds that TPM's state" in verified.unproven
    assert not verified.names_guest
    for other in (first, last):
        with pytest.raises(NotAuthentic) as caught:
            certified(other, certificate)
        assert caught.value.code is Code.AK_CERT_MISMATCH


def test_a_key_that_hardware_reported() -> None:
    """A42: that very key, and not one of another machine."""
    first, ak, last = in_order("RSA-2048")
    vtpm = vtpm_of(ak)
    verified = reported(ak, vtpm)
    assert (verified.provenance, verified.tee) == ("vtpm-report", vtpm.tee)
    assert verified.detail.startswith("sev-snp Genoa TCB ")
    assert "nor is it proven which GPU" in verified.unproven
    for other in (first, last):
        with pytest.raises(NotAuthentic) as caught:
            reported(other, vtpm)
        assert caught.value.code is Code.AK_UNPROVEN


def test_a_guest_is_named_by_hardware_that_is_known_not_to_be_revoked() -> None:
    ak = AttestationKey(public.parse(SoftTpm(ak="RSA-2048").attestation_key()))
    lists = {"good": (SNP.crl(),), "absent": (), "stale": (SNP.crl(next_update=AT - timedelta(days=1)),)}
    for revocation, known in lists.items():
        verified = reported(ak, vtpm_of(ak, *known))
        assert verified.tee is not None
        assert (verified.tee.revocation, verified.names_guest) == (revocation, revocation == "good")


# As the anchors document that is shipped has them.
CHIP, GOOGLE = (default().select(purpose)[0].platform for purpose in ("tpm-ek-root", "tpm-ak-root"))


@pytest.mark.parametrize(
    ("provenance", "platform", "holder"),
    [
        ("ek-credential", "tpm", "tpm"),
        ("ek-credential", "google-vtpm", "host"),
        ("ek-credential", "insecure-emulated", "unknown"),
        ("ek-credential", "vendor", "unknown"),
        ("ak-certificate", "google-vtpm", "host"),
        ("ak-certificate", "tpm", "host"),
        ("vtpm-report", "amd-sev-snp", "guest"),
        ("vtpm-report", "google-vtpm", "host"),
        ("pinned", "tpm", "unknown"),
        ("pinned", "google-vtpm", "host"),
    ],
)
def test_who_could_put_an_old_state_back(provenance: Provenance, platform: str, holder: StateHolder) -> None:
    """A chip is believed to keep its own; what nobody vouches for is not taken for a chip."""
    platform = {"tpm": CHIP, "google-vtpm": GOOGLE}.get(platform, platform)
    verified = replace(pinned(AK, pin(AK), at=AT), provenance=provenance, platform=platform)
    assert verified.state_held_by == holder


def test_the_seal() -> None:
    verified = pinned(AK, pin(AK), at=AT)
    with pytest.raises(TypeError, match="activated, certified, reported or pinned"):
        VerifiedAk(AK, "pinned", "tpm", "", AT, "", "", None, None)
    with pytest.raises(TypeError):
        pickle.dumps(verified)
    assert "seal" not in repr(verified)


def test_it_is_believed_as_long_as_what_vouches_for_it() -> None:
    """Of a pin, its own end; of certificates, the earliest: a session can outlive them."""
    (anchor,) = pin(AK).anchors
    assert pinned(AK, pin(AK), at=AT).not_after == anchor.not_after
