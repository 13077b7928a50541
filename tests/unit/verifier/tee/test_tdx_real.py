"""Real TD quotes of Azure: authentic to the last bit, and undecided, since what Intel published then is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.forged_tdx import AT, ForgedTdx
from weighbridge.proto.errors import Code, Indeterminate, NotAuthentic
from weighbridge.proto.strict import base64url_decode
from weighbridge.proto.tee.td_quote import parse_td_quote
from weighbridge.proto.x509 import load_certificate
from weighbridge.verifier import certs
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.tee.tdx import verify_td_quote

FORGED = ForgedTdx.create()


def _real(vectors_dir: Path) -> tuple[bytes, TrustAnchors]:
    folder = vectors_dir / "tpm" / "trustee" / "az-tdx-vtpm"
    quote = (folder / "td-quote.bin").read_bytes()
    composites = [json.loads((folder / f"evidence-{version}.json").read_text())["td_quote"] for version in ("v0", "v1")]
    assert bytes(composites[0]) == base64url_decode(composites[1].rstrip("="), what="td_quote") == quote
    chain = certs.pem_certificates(parse_td_quote(quote).pck_chain, what="chain")
    root = load_certificate(chain[-1], "root")
    assert "CN=Intel SGX Root CA" in root.subject.rfc4514_string()
    anchor = Anchor.from_certificate("intel-sgx-root", root, platform="intel-tdx", source="the quote itself")
    return quote, TrustAnchors((anchor,))


@pytest.mark.parametrize("collateral", [[], [FORGED.collateral()]], ids=["none", "another maker's"])
def test_a_real_quote_is_authentic_and_undecided(vectors_dir: Path, collateral: list[bytes]) -> None:
    quote, anchors = _real(vectors_dir)
    with pytest.raises(Indeterminate) as caught:
        verify_td_quote(quote, collateral=collateral, anchors=anchors, at=AT)
    assert caught.value.code == Code.TDX_COLLATERAL


def test_a_real_quote_changed_is_refused(vectors_dir: Path) -> None:
    quote, anchors = _real(vectors_dir)
    for position in (20, 60, 200, 620, 700, 780, 1200):
        changed = bytearray(quote)
        changed[position] ^= 1
        with pytest.raises(NotAuthentic) as caught:
            verify_td_quote(bytes(changed), collateral=[], anchors=anchors, at=AT)
        assert caught.value.code == Code.TDX_SIG


def test_a_real_quote_needs_intels_root(vectors_dir: Path) -> None:
    quote, _ = _real(vectors_dir)
    with pytest.raises(NotAuthentic) as caught:
        verify_td_quote(quote, collateral=[], anchors=FORGED.anchors(), at=AT)
    assert caught.value.code == Code.CHAIN_UNTRUSTED
