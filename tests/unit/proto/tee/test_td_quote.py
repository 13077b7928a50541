"""A TD quote is read whole or not at all; nothing in it is believed by reading."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.forged_tdx import SEPT_VE_DISABLE, TEE_TCB_SVN, ForgedTdx
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.tee.td_quote import parse_td_quote

FORGED = ForgedTdx.create()
DATA = bytes(range(64))
QUOTE = FORGED.quote(DATA)
# Offsets of version 4: size of the authentication, then signature, key, type and size, and the enclave's part.
SIZE, AUTHENTICATION = 632, 636
CERTIFIED = AUTHENTICATION + 134
EXTRA = CERTIFIED + 448
CHAIN = EXTRA + 34


@pytest.mark.parametrize(
    ("version", "service_td", "signed"), [(4, None, 632), (5, None, 638), (5, bytes(47) + b"\1", 702)]
)
def test_every_supported_version_is_read(version: int, service_td: bytes | None, signed: int) -> None:
    quote = parse_td_quote(FORGED.quote(DATA, version=version, mr_service_td=service_td, mr_td=b"\x07" * 48))
    assert quote.report_data == DATA
    assert quote.mr_td == b"\x07" * 48
    assert quote.mr_service_td == service_td
    assert quote.tee_tcb_svn == TEE_TCB_SVN
    assert quote.attributes == SEPT_VE_DISABLE
    assert len(quote.signed) == signed
    assert quote.quote.startswith(quote.signed)
    assert quote.qe_report[320:352] == hashlib.sha256(quote.attestation_key + quote.qe_authentication).digest()
    assert quote.pck_chain.decode() == "".join(h.pem for h in (FORGED.pck, FORGED.authority, FORGED.root))


def test_zeros_may_follow_and_are_no_part_of_it() -> None:
    assert parse_td_quote(QUOTE + bytes(70)).quote == QUOTE
    assert parse_td_quote(QUOTE).quote == QUOTE


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda q: q[:0], "td_quote[0]"),
        (lambda q: q[:47], "td_quote[8]"),
        (lambda q: q[:-1], "td_quote[636]"),
        (lambda q: b"\x03" + q[1:], "td_quote[0..8]"),
        (lambda q: b"\x06" + q[1:], "td_quote[0..8]"),
        (lambda q: q[:2] + b"\x03" + q[3:], "td_quote[0..8]"),
        (lambda q: q[:4] + b"\x00" + q[5:], "td_quote[0..8]"),
        (lambda q: q + bytes(69) + b"\1", f"td_quote[{len(QUOTE)}]"),
        (lambda q: spliced(q, SIZE, b"\xff\xff\xff\xff"), "td_quote[636]"),
        (lambda q: spliced(q, CERTIFIED - 6, b"\x05"), "td_quote.authentication[128]"),
        (lambda q: spliced(q, CERTIFIED - 4, (1).to_bytes(4, "little")), "td_quote.authentication[135]"),
        (lambda q: spliced(q, EXTRA, b"\x21"), "td_quote.qe[448]"),
        (lambda q: spliced(q, CHAIN, b"\x01"), "td_quote.qe[482]"),
        (lambda q: spliced(q, CHAIN + 2, (9).to_bytes(4, "little")), "td_quote.qe[497]"),
    ],
    ids=lambda value: "change" if callable(value) else "where",
)
def test_what_is_no_quote_is_refused(change: Callable[[bytes], bytes], where: str) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse_td_quote(change(QUOTE))
    assert caught.value.code == Code.TDX_QUOTE
    assert caught.value.where == where


@pytest.mark.parametrize("descriptor", [(2, 648), (3, 584), (4, 584), (1, 384)])
def test_a_body_of_another_type_or_size_is_refused(descriptor: tuple[int, int]) -> None:
    kind, size = descriptor
    quote = FORGED.quote(DATA, version=5)
    with pytest.raises(MalformedEvidence) as caught:
        parse_td_quote(spliced(quote, 48, kind.to_bytes(2, "little") + size.to_bytes(4, "little")))
    assert caught.value.code == Code.TDX_QUOTE
    assert caught.value.where == "td_quote[48]"


def test_a_quote_too_large_is_refused() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        parse_td_quote(QUOTE + bytes(limits.TD_QUOTE_MAX - len(QUOTE) + 1))
    assert caught.value.code == Code.TOO_LARGE


@given(st.binary(max_size=6000))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        parse_td_quote(data)


@given(st.integers(0, len(QUOTE) - 1), st.binary(min_size=1, max_size=8))
def test_any_change(position: int, data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        parse_td_quote(spliced(QUOTE, position, data))


def test_a_real_quote_of_azure(vectors_dir: Path) -> None:
    data = (vectors_dir / "tpm" / "trustee" / "az-tdx-vtpm" / "td-quote.bin").read_bytes()
    quote = parse_td_quote(data)
    assert len(data) == 5006
    assert len(quote.quote) == 4936
    assert quote.attributes == 0
    assert quote.tee_tcb_svn.hex() == "02010600000000000000000000000000"
    assert quote.mr_service_td is None
    assert quote.pck_chain.count(b"BEGIN CERTIFICATE") == 3


def spliced(quote: bytes, position: int, data: bytes) -> bytes:
    return quote[:position] + data + quote[position + len(data) :]
