"""What `dcap_qvl` alone lets through (ADR 0020): each has a check of ours before it, tested beside this.

A test here that fails after an upgrade is good news: the library got stricter, and the record's table shorter.
"""

from __future__ import annotations

from collections.abc import Callable

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.forged_tdx import AT, SEPT_VE_DISABLE, ForgedTdx, days
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.strict import JsonObject, json_decode
from weighbridge.verifier.tee.tdx import verify_td_quote

FORGED = ForgedTdx.create()
DATA = bytes(64)


def library(quote: bytes, collateral: bytes) -> str:
    document = json_decode(collateral, what="collateral")
    assert isinstance(document, dict)
    published = dcap_qvl.QuoteCollateralV3(
        _text(document, "pck_crl_issuer_chain"),
        bytes.fromhex(_text(document, "root_ca_crl")),
        bytes.fromhex(_text(document, "pck_crl")),
        _text(document, "tcb_info_issuer_chain"),
        _text(document, "tcb_info"),
        bytes.fromhex(_text(document, "tcb_info_signature")),
        _text(document, "qe_identity_issuer_chain"),
        _text(document, "qe_identity"),
        bytes.fromhex(_text(document, "qe_identity_signature")),
    )
    root = FORGED.root.certificate.public_bytes(Encoding.DER)
    return dcap_qvl.verify_with_root_ca(quote, published, root, int(AT.timestamp())).status


def _text(document: JsonObject, name: str) -> str:
    value = document[name]
    assert isinstance(value, str)
    return value


@pytest.mark.parametrize(
    "collateral",
    [
        lambda: FORGED.collateral(signer=FORGED.pck, issuers=(FORGED.authority, FORGED.root)),
        lambda: FORGED.collateral(root_crl=FORGED.root.crl(issued=days(1))),
        lambda: FORGED.collateral(pck_crl=FORGED.authority.crl(issued=days(1))),
        lambda: FORGED.collateral(tcb_info={"version": 9}),
    ],
    ids=["signed by a processor", "root list of tomorrow", "processors' list of tomorrow", "unknown version"],
)
def test_collateral_that_the_library_takes(collateral: Callable[[], bytes]) -> None:
    quote, published = FORGED.quote(DATA), collateral()
    assert library(quote, published) == "UpToDate"
    with pytest.raises(WeighbridgeError):
        verify_td_quote(quote, collateral=[published], anchors=FORGED.anchors(), at=AT)


@pytest.mark.parametrize(
    "quote",
    [
        *(FORGED.quote(DATA, attributes=SEPT_VE_DISABLE | 1 << bit) for bit in (16, 18, 19, 20, 21, 22, 62)),
        FORGED.quote(DATA, padding=b"what nobody signed"),
    ],
)
def test_quotes_that_the_library_takes(quote: bytes) -> None:
    assert library(quote, FORGED.collateral()) == "UpToDate"
    with pytest.raises(WeighbridgeError):
        verify_td_quote(quote, collateral=[FORGED.collateral()], anchors=FORGED.anchors(), at=AT)
