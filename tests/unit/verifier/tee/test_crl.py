"""AMD's revocation lists."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fakes import forged_tdx
from fakes.forged_snp import AT, BEGIN, END, ForgedSnp
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.anchors import Anchor
from weighbridge.verifier.tee.crl import VerifiedCrl, issuer_of, verify_crl

FORGED = ForgedSnp.create("Genoa")
(ANCHOR,) = FORGED.anchors().anchors
HONEST = FORGED.crl()


def verify(der: bytes, anchor: Anchor = ANCHOR) -> VerifiedCrl:
    return verify_crl(der, anchor, at=AT, what="crl")


def refused(der: bytes, anchor: Anchor = ANCHOR) -> Code:
    with pytest.raises(NotAuthentic) as caught:
        verify(der, anchor)
    return caught.value.code


def test_a_list() -> None:
    crl = verify(FORGED.crl(revoked=True))
    assert (crl.anchor, crl.current, crl.revoked) == (ANCHOR, True, frozenset({0x10001}))
    assert issuer_of(HONEST, "crl") == ANCHOR.name
    with pytest.raises(NotAuthentic) as caught:
        crl.check(FORGED.ask.certificate, "ask")
    assert caught.value.code is Code.CERT_REVOKED
    crl.check(FORGED.ark.certificate, "ark")


def test_the_next_update() -> None:
    assert verify(FORGED.crl(next_update=AT)).current
    assert not verify(FORGED.crl(next_update=AT - timedelta(seconds=1))).current


def test_another_authority() -> None:
    assert refused(ForgedSnp.create("Milan").crl()) is Code.CRL_INVALID


def test_another_key() -> None:
    """The name is the authority's, the signature is by the intermediate."""
    forged = replace(FORGED.ark, key=FORGED.ask.key).crl()
    assert refused(forged) is Code.CRL_INVALID


def test_another_form_of_signature() -> None:
    holder = forged_tdx.certify("ARK", None, path_length=1)
    anchor = replace(ANCHOR, name=holder.certificate.subject.rfc4514_string())
    assert refused(holder.crl().public_bytes(Encoding.DER), anchor) is Code.CRL_INVALID


def test_a_critical_extension() -> None:
    assert refused(FORGED.ark.crl(critical=True)) is Code.CRL_INVALID


def test_a_list_of_tomorrow() -> None:
    """It says nothing of today but whom it names: a revocation that is known is not overlooked."""
    assert verify(FORGED.crl(issued=AT)).current
    tomorrow = verify(FORGED.crl(revoked=True, issued=AT + timedelta(days=1)))
    assert not tomorrow.current
    with pytest.raises(NotAuthentic) as caught:
        tomorrow.check(FORGED.ask.certificate, "ask")
    assert caught.value.code is Code.CERT_REVOKED


def test_naive_time() -> None:
    with pytest.raises(ValueError, match="naive"):
        verify_crl(HONEST, ANCHOR, at=AT.replace(tzinfo=None), what="crl")


def test_a_list_too_large() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        verify(bytes(limits.COLLATERAL_ITEM_MAX + 1))
    assert caught.value.code is Code.TOO_LARGE


def test_every_byte_counts() -> None:
    honest = FORGED.ark.crl(FORGED.ask.certificate, issued=BEGIN, next_update=END)
    for place in range(len(honest)):
        changed = bytearray(honest)
        changed[place] ^= 1 << place % 8
        with pytest.raises((NotAuthentic, MalformedEvidence)) as caught:
            verify(bytes(changed))
        assert caught.value.code is Code.CRL_INVALID


@given(st.binary(max_size=800))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        issuer_of(data, "crl")
    assert caught.value.code is Code.CRL_INVALID


def test_the_seal() -> None:
    crl = verify(HONEST)
    for way in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            way(crl)
    with pytest.raises(TypeError):
        replace(crl, seal=object())
