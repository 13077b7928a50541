"""From an endorsement to a key that is believed: each of the four ways, and what none of them excuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fakes.cloud_authority import CloudAuthority
from fakes.forged_snp import AT, ForgedSnp
from fakes.soft_tpm import SoftTpm
from weighbridge.proto.collateral import Collateral
from weighbridge.proto.endorsement import AkCertificateEndorsement, EkEndorsement
from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import ObjectAttributes
from weighbridge.proto.tpm.templates import ATTESTATION_KEY_ATTRIBUTES
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tpm.ak import AttestationKey, VerifiedAk
from weighbridge.verifier.tpm.provenance import Activation, verify_endorsement

if TYPE_CHECKING:
    from weighbridge.proto.endorsement import Endorsement
    from weighbridge.verifier.tpm.ak import Provenance

TPM = SoftTpm()
CLOUD = CloudAuthority()
SNP = ForgedSnp.create("Genoa")
BY_EK = EkEndorsement(public=TPM.ek_public, certificate=TPM.certificate, intermediates=TPM.authority.intermediates)


def key_of(tpm: SoftTpm) -> AttestationKey:
    return AttestationKey(public.parse(tpm.attestation_key()))


def pins(ak: AttestationKey) -> TrustAnchors:
    anchor = Anchor(
        purpose="attestation-key",
        name="the lab's TPM",
        platform="lab",
        spki=ak.public.spki(),
        not_before=AT,
        not_after=AT,
        source="a test",
    )
    return TrustAnchors((anchor,))


def judge(endorsement: Endorsement | None, ak: AttestationKey, anchors: TrustAnchors) -> VerifiedAk | Activation:
    return verify_endorsement(endorsement, ak, collateral=Collateral(), anchors=anchors, at=AT)


def cases() -> dict[Provenance, tuple[Endorsement | None, AttestationKey, TrustAnchors]]:
    """Of the three ways that are decided at once: endorsement, key, whom to believe."""
    ak, of_machine = key_of(TPM), key_of(SoftTpm(ak="RSA-2048"))
    key, machine_key = ak.public.key, of_machine.public.key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(machine_key, rsa.RSAPublicKey)
    certified = AkCertificateEndorsement(certificate=CLOUD.certify(key), intermediates=CLOUD.intermediates)
    return {
        "ak-certificate": (certified, ak, CLOUD.anchors()),
        "vtpm-report": (SNP.endorsement(machine_key), of_machine, SNP.anchors()),
        "pinned": (None, ak, pins(ak)),
    }


CASES = cases()


@pytest.mark.parametrize("way", CASES)
def test_ways_that_are_decided_at_once(way: Provenance) -> None:
    endorsement, ak, anchors = CASES[way]
    verified = judge(endorsement, ak, anchors)
    assert isinstance(verified, VerifiedAk)
    assert (verified.provenance, verified.key) == (way, ak)


@pytest.mark.parametrize(("way", "of"), [(way, of) for way in CASES for of in CASES if way != of])
def test_no_way_is_believed_by_the_anchors_of_another(way: Provenance, of: Provenance) -> None:
    """A44."""
    endorsement, ak, _ = CASES[way]
    with pytest.raises(NotAuthentic) as caught:
        judge(endorsement, ak, CASES[of][2])
    assert caught.value.code is (Code.AK_UNPROVEN if way == "pinned" else Code.CHAIN_UNTRUSTED)


def test_a_certified_ek_is_a_question_until_it_is_answered() -> None:
    """A44: what is believed of the EK says nothing of the AK before the TPM has opened a credential."""
    ak, secret = key_of(TPM), bytes(range(32))
    asked = judge(BY_EK, ak, TPM.authority.anchors("insecure-emulated", source="a test"))
    assert isinstance(asked, Activation)
    assert (asked.ek.public, asked.ak) == (public.parse(TPM.ek_public), ak)
    assert asked.answered(secret=secret, answer=secret).provenance == "ek-credential"
    with pytest.raises(NotAuthentic) as caught:
        asked.answered(secret=secret, answer=bytes(32))
    assert caught.value.code is Code.AK_UNPROVEN


@pytest.mark.parametrize("endorsement", [None, BY_EK, CASES["ak-certificate"][0]])
def test_no_way_excuses_a_key_that_does_not_attest(endorsement: Endorsement | None) -> None:
    """A45: refused before anything is spent on proving it, and before a TPM is asked."""
    unrestricted = int(ATTESTATION_KEY_ATTRIBUTES ^ ObjectAttributes.RESTRICTED)
    ak = AttestationKey(public.parse(TPM.public_with(TPM.attestation_key(), unrestricted)))
    with pytest.raises(NotAuthentic) as caught:
        judge(endorsement, ak, TrustAnchors(()))
    assert caught.value.code is Code.AK_ATTRIBUTES
