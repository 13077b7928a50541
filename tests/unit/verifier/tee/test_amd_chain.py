"""The chain of a chip's key: AMD's form and no other, and revocation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from fakes.forged_snp import AT, BEGIN, END, ForgedSnp, Holder, certify, rsa_key
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.anchors import Anchor, TrustAnchors, default
from weighbridge.verifier.tee import amd_signature
from weighbridge.verifier.tee.amd_chain import VerifiedChip, verify_amd_chain

FORGED = ForgedSnp.create("Genoa")


def verify(
    forged: ForgedSnp = FORGED,
    certificates: Sequence[bytes] | None = None,
    *,
    crls: Sequence[bytes] = (),
    anchors: TrustAnchors | None = None,
    at: datetime = AT,
) -> VerifiedChip:
    return verify_amd_chain(
        forged.certificates if certificates is None else certificates,
        crls=crls,
        anchors=anchors or FORGED.anchors(),
        at=at,
    )


def refused(
    forged: ForgedSnp = FORGED,
    certificates: Sequence[bytes] | None = None,
    *,
    crls: Sequence[bytes] = (),
    anchors: TrustAnchors | None = None,
    at: datetime = AT,
) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        verify(forged, certificates, crls=crls, anchors=anchors, at=at)
    return caught.value.code


def with_ask(ask: Holder) -> ForgedSnp:
    return replace(FORGED, ask=ask)


def test_accepted() -> None:
    chip = verify()
    assert (chip.certificate.product, chip.revocation) == ("Genoa", "absent")
    assert chip.anchor == FORGED.anchors().anchors[0]


def test_a_serial_number_that_is_not_zero() -> None:
    assert verify(replace(FORGED, serial=12)).certificate.certificate.serial_number == 12


def test_three_certificates() -> None:
    vcek, ask, ark = FORGED.certificates
    for some in ((), (vcek,), (vcek, ask), (vcek, ask, ark, ark)):
        assert refused(certificates=some) is Code.CHAIN_LENGTH


def test_the_order() -> None:
    vcek, ask, ark = FORGED.certificates
    assert refused(certificates=(vcek, ark, ask)) is Code.CHAIN_UNTRUSTED
    with pytest.raises(MalformedEvidence) as caught:
        verify(certificates=(ask, vcek, ark))
    assert caught.value.code is Code.KEY_UNSUPPORTED


def test_nobody_is_trusted_by_default() -> None:
    """A forged root bears AMD's common name, and is refused by the anchors that are shipped."""
    assert refused(anchors=default()) is Code.CHAIN_UNTRUSTED
    assert refused(anchors=TrustAnchors(())) is Code.CHAIN_UNTRUSTED


def test_an_anchor_for_another_purpose() -> None:
    anchor = Anchor.from_certificate("tpm-ek-root", FORGED.ark.certificate, platform="tpm", source="test")
    assert refused(anchors=TrustAnchors((anchor,))) is Code.CHAIN_UNTRUSTED


def test_the_key_decides_not_the_name() -> None:
    """Two roots of one name, each with its own chain: both are believed, neither for the other's."""
    other = certify("ARK-Genoa", None, key=rsa_key("another ark"), serial=1)
    anchor = Anchor.from_certificate("amd-ark", other.certificate, platform="amd-sev-snp", source="test")
    both = TrustAnchors((anchor, *FORGED.anchors().anchors))
    assert verify(anchors=both).anchor.platform == "insecure-emulated"
    vcek, ask, _ = FORGED.certificates
    assert refused(certificates=(vcek, ask, other.der), anchors=both) is Code.CHAIN_BROKEN
    genuine = replace(FORGED, ark=other, ask=certify("SEV-Genoa", other, key=rsa_key("ask"), serial=2, path_length=0))
    assert verify(genuine, anchors=both).anchor.platform == "amd-sev-snp"


def test_a_root_of_another_name_with_an_anchors_key() -> None:
    renamed = certify("ARK-Milan", None, key=FORGED.ark.key, serial=1)
    assert refused(replace(FORGED, ark=renamed)) is Code.CHAIN_UNTRUSTED


def test_it_lasts_as_long_as_what_ends_first() -> None:
    assert verify().not_after == END
    soon = AT + timedelta(days=1)
    assert verify(replace(FORGED, end=soon)).not_after == soon
    anchor = replace(FORGED.anchors().anchors[0], not_after=soon)
    assert verify(anchors=TrustAnchors((anchor,))).not_after == soon


@pytest.mark.parametrize("at", [BEGIN - timedelta(seconds=1), END + timedelta(seconds=1)])
def test_validity(at: datetime) -> None:
    assert refused(at=at) is Code.CHAIN_EXPIRED


def test_validity_of_each() -> None:
    later = AT + timedelta(days=1)
    assert refused(replace(FORGED, begin=later)) is Code.CHAIN_EXPIRED
    assert refused(replace(FORGED, end=AT - timedelta(days=1))) is Code.CHAIN_EXPIRED
    late = certify("SEV-Genoa", FORGED.ark, key=rsa_key("ask"), serial=2, path_length=0, begin=later)
    assert refused(with_ask(late)) is Code.CHAIN_EXPIRED
    narrow = replace(FORGED.anchors().anchors[0], not_before=later)
    assert refused(anchors=TrustAnchors((narrow,))) is Code.CHAIN_EXPIRED
    with pytest.raises(ValueError, match="naive"):
        verify(at=AT.replace(tzinfo=None))


def test_an_intermediate_that_is_no_authority() -> None:
    plain = certify("SEV-Genoa", FORGED.ark, key=rsa_key("ask"), serial=2, authority=False)
    assert refused(with_ask(plain)) is Code.CHAIN_BROKEN


def test_an_intermediate_of_somebody_else() -> None:
    """A24, A37: the name is AMD's, the signature not."""
    stranger = certify("ARK-Genoa", None, key=rsa_key("stranger"), serial=1)
    ask = certify("SEV-Genoa", stranger, key=rsa_key("ask"), serial=2, path_length=0)
    assert refused(with_ask(ask)) is Code.CHAIN_BROKEN


def test_another_form_of_signature() -> None:
    """PKCS#1 v1.5, and PSS with another salt: genuine keys do not sign so."""
    for other in (padding.PKCS1v15(), padding.PSS(padding.MGF1(hashes.SHA384()), 32)):
        ask = certify("SEV-Genoa", FORGED.ark, key=rsa_key("ask"), serial=2, path_length=0, rsa_padding=other)
        assert refused(with_ask(ask)) is Code.CHAIN_BROKEN
    assert refused(replace(FORGED, hash_algorithm=hashes.SHA256())) is Code.CHAIN_BROKEN


def test_keys_that_cannot_sign_so() -> None:
    with pytest.raises(NotAuthentic) as caught:
        amd_signature.rsa_key(FORGED.key.public_key(), "ask")
    assert caught.value.code is Code.CHAIN_BROKEN


def test_a_critical_extension() -> None:
    assert refused(replace(FORGED, critical=True)) is Code.CHAIN_BROKEN


def test_names() -> None:
    """A certificate for a Milan chip by the key for Genoa, and names that are not AMD's."""
    assert refused(replace(FORGED, product="Milan")) is Code.CHAIN_BROKEN
    assert refused(replace(FORGED, name="SEV-VLEK")) is Code.CHAIN_BROKEN
    vlek = certify("SEV-VLEK-Genoa", FORGED.ark, key=rsa_key("ask"), serial=2, path_length=0)
    assert refused(with_ask(vlek)) is Code.CHAIN_BROKEN


def test_the_serial_number_is_signed() -> None:
    """A certificate that differs in nothing but the number through which it is read."""
    vcek, ask, ark = FORGED.certificates
    place = vcek.index(b"\xa0\x03\x02\x01\x02\x02\x01\x00") + 7
    assert refused(certificates=(vcek[:place] + b"\x01" + vcek[place + 1 :], ask, ark)) is Code.CHAIN_BROKEN


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_part_is_signed(which: int) -> None:
    """One bit of each byte: refused, whatever it was, the framing too."""
    certificates = list(FORGED.certificates)
    honest = certificates[which]
    for place in range(len(honest)):
        changed = bytearray(honest)
        changed[place] ^= 1 << place % 8
        certificates[which] = bytes(changed)
        with pytest.raises((NotAuthentic, MalformedEvidence)):
            verify(certificates=certificates)


def test_revocation() -> None:
    stale = AT - timedelta(days=1)
    assert verify(crls=(FORGED.crl(),)).revocation == "good"
    assert verify(crls=(FORGED.crl(next_update=stale),)).revocation == "stale"
    assert verify(crls=(FORGED.crl(next_update=stale), FORGED.crl())).revocation == "good"
    other = ForgedSnp.create("Milan")
    assert verify(crls=(other.crl(revoked=True),)).revocation == "absent"


def test_revoked() -> None:
    assert refused(crls=(FORGED.crl(revoked=True),)) is Code.CERT_REVOKED
    # Once named, always named: neither an older nor a newer list without the name takes it back.
    stale = FORGED.crl(revoked=True, next_update=AT - timedelta(days=1))
    assert refused(crls=(FORGED.crl(), stale)) is Code.CERT_REVOKED


def test_a_list_that_is_none() -> None:
    for junk in (b"", b"\x30\x00", FORGED.ark.der):
        with pytest.raises(MalformedEvidence) as caught:
            verify(crls=(junk,))
        assert caught.value.code is Code.CRL_INVALID


def test_the_seal() -> None:
    chip = verify()
    for way in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            way(chip)
    with pytest.raises(TypeError):
        replace(chip, seal=object())
