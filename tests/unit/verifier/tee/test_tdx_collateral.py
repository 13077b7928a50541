"""What Intel publishes: absent, stale or another's is no answer; revoked is one; the newest counts (rows A41, A81)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fakes.forged_tdx import AT, BEGIN, END, ForgedTdx, Json, certify, days, moment
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, Indeterminate, MalformedEvidence, NotAuthentic
from weighbridge.verifier.tee.model import VerifiedTee
from weighbridge.verifier.tee.tdx import verify_td_quote

FORGED = ForgedTdx.create()
OTHER = ForgedTdx.create()
QUOTE = FORGED.quote(bytes(64))
COLLATERAL = FORGED.collateral()


def verify(*items: bytes, at: datetime = AT) -> VerifiedTee:
    return verify_td_quote(QUOTE, collateral=items, anchors=FORGED.anchors(), at=at)


def undecided(*items: bytes, at: datetime = AT) -> Indeterminate:
    with pytest.raises(Indeterminate) as caught:
        verify(*items, at=at)
    assert caught.value.code == Code.TDX_COLLATERAL
    return caught.value


def malformed(*items: bytes) -> Code:
    with pytest.raises(MalformedEvidence) as caught:
        verify(*items)
    return caught.value.code


# --- absent, stale, another's -----------------------------------------------------------------------------------------


def test_without_collateral_there_is_no_answer() -> None:
    assert "absent" in undecided().message


@pytest.mark.parametrize(
    "stale",
    [
        FORGED.collateral(tcb_info={"nextUpdate": moment(days(-1))}),
        FORGED.collateral(qe_identity={"nextUpdate": moment(days(-1))}),
        FORGED.collateral(root_crl=FORGED.root.crl(next_update=days(-1))),
        FORGED.collateral(pck_crl=FORGED.authority.crl(next_update=days(-1))),
    ],
    ids=["tcb info", "qe identity", "root list", "processors' list"],
)
def test_a_piece_past_its_time_is_no_answer(stale: bytes) -> None:
    assert "past its time" in undecided(stale).message
    # It was an answer before.
    assert verify(stale, at=days(-2)).tcb_status == "UpToDate"


@pytest.mark.parametrize(
    "later",
    [
        FORGED.collateral(tcb_info={"issueDate": moment(days(1))}),
        FORGED.collateral(qe_identity={"issueDate": moment(days(1))}),
        FORGED.collateral(root_crl=FORGED.root.crl(issued=days(1))),
        FORGED.collateral(pck_crl=FORGED.authority.crl(issued=days(1))),
    ],
    ids=["tcb info", "qe identity", "root list", "processors' list"],
)
def test_a_piece_of_a_later_time_is_no_answer(later: bytes) -> None:
    assert undecided(later).message.startswith("no ")
    assert verify(later, at=days(2)).tcb_status == "UpToDate"
    # Nor does it take the place of what was there.
    assert verify(later, COLLATERAL).tcb_status == "UpToDate"


@pytest.mark.parametrize(
    "other",
    [
        {"tcb_info": {"fmspc": "00906ED50000"}},
        {"tcb_info": {"id": "SGX"}},
        {"tcb_info": {"version": 2}},
        {"tcb_info": {"version": 4}},
        {"qe_identity": {"id": "QE"}},
    ],
)
def test_a_document_about_something_else_is_no_answer(other: dict[str, Json]) -> None:
    assert "not " in undecided(FORGED.collateral(**other)).message  # type: ignore[arg-type] # a test names arguments


def test_a_document_changed_after_it_was_signed_is_no_answer() -> None:
    document = json.loads(COLLATERAL)
    for name in ("tcb_info", "qe_identity"):
        changed = document | {name: document[name].replace('"UpToDate"', '"SWHardeningNeeded"')}
        assert "signature does not verify" in undecided(json.dumps(changed).encode()).message


def test_what_another_maker_publishes_is_no_answer() -> None:
    undecided(OTHER.collateral())
    assert "CHAIN_BROKEN" in undecided(FORGED.collateral(signer=OTHER.signer, issuers=(OTHER.root,))).message


def test_lists_of_another_authority_are_no_answer() -> None:
    processors = certify("Intel SGX PCK Processor CA", FORGED.root, path_length=0)
    impostor = replace(FORGED.authority, key=OTHER.authority.key)
    for holder in (processors, impostor, OTHER.authority, FORGED.root):
        assert "CRL_INVALID" in undecided(FORGED.collateral(pck_crl=holder.crl())).message
    for holder in (FORGED.authority, OTHER.root):
        assert "CRL_INVALID" in undecided(FORGED.collateral(root_crl=holder.crl())).message


# --- who may sign documents -------------------------------------------------------------------------------------------


def test_a_processors_key_signs_no_documents() -> None:
    signed = FORGED.collateral(signer=FORGED.pck, issuers=(FORGED.authority, FORGED.root))
    assert "CHAIN_BROKEN" in undecided(signed).message
    odd = certify("Intel SGX PCK Certificate", FORGED.root)
    assert "CERT_PURPOSE" in undecided(FORGED.collateral(signer=odd)).message


def test_a_signer_below_another_authority_signs_no_documents() -> None:
    signer = certify("Intel SGX TCB Signing", FORGED.authority)
    undecided(FORGED.collateral(signer=signer, issuers=(FORGED.authority, FORGED.root)))


def test_a_signer_past_its_time_signs_no_documents() -> None:
    signer = certify("Intel SGX TCB Signing", FORGED.root, end=days(-1))
    assert "CHAIN_EXPIRED" in undecided(FORGED.collateral(signer=signer)).message


def test_a_revoked_signer_signs_no_documents() -> None:
    revoked = FORGED.collateral(root_crl=FORGED.root.crl(FORGED.signer))
    assert "CERT_REVOKED" in undecided(revoked).message
    # A list that is newer counts for documents that came with an older one.
    newer = FORGED.collateral(root_crl=FORGED.root.crl(FORGED.signer, issued=days(-1)))
    undecided(COLLATERAL, newer)


# --- revoked ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revoked", "where"),
    [
        (FORGED.collateral(pck_crl=FORGED.authority.crl(FORGED.pck)), "td_quote.pck[0]"),
        (FORGED.collateral(root_crl=FORGED.root.crl(FORGED.authority)), "td_quote.pck[1]"),
        (FORGED.collateral(root_crl=FORGED.root.crl(FORGED.root)), "td_quote.pck[2]"),
    ],
    ids=["processor", "authority", "root"],
)
def test_a_revoked_certificate_is_refused(revoked: bytes, where: str) -> None:
    with pytest.raises(NotAuthentic) as caught:
        verify(revoked)
    assert (caught.value.code, caught.value.where) == (Code.CERT_REVOKED, where)


def test_an_older_list_hides_no_revocation() -> None:
    newer = FORGED.collateral(pck_crl=FORGED.authority.crl(FORGED.pck, issued=days(-1)))
    for items in ((COLLATERAL, newer), (newer, COLLATERAL)):
        with pytest.raises(NotAuthentic) as caught:
            verify(*items)
        assert caught.value.code == Code.CERT_REVOKED


def test_a_list_with_a_critical_extension_is_no_answer() -> None:
    partial = x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(FORGED.authority.certificate.subject)
        .last_update(BEGIN)
        .next_update(END)
        .add_extension(partial, critical=True)
        .sign(FORGED.authority.key, hashes.SHA256())
    )
    assert "critical" in undecided(FORGED.collateral(pck_crl=crl)).message


# --- the newest counts ------------------------------------------------------------------------------------------------


def worse(**changes: object) -> bytes:
    return FORGED.collateral(tcb_info={**FORGED.tcb_info(status="OutOfDate"), **changes})


@pytest.mark.parametrize(
    "newer",
    [
        worse(issueDate=moment(days(-1))),
        # Of a newer evaluation, though issued before what Intel signs anew every day.
        worse(tcbEvaluationDataNumber=18, issueDate=moment(BEGIN)),
        worse(tcbEvaluationDataNumber=18, issueDate=moment(days(-30))),
    ],
)
def test_a_newer_document_counts_in_any_order(newer: bytes) -> None:
    older = FORGED.collateral(tcb_info={"issueDate": moment(days(-2))})
    for items in ((older, newer), (newer, older), (newer, newer, older)):
        assert verify(*items).tcb_status == "OutOfDate"
    assert verify(older).tcb_status == "UpToDate"


def test_an_older_document_does_not_stand_in_for_a_newer_one_past_its_time() -> None:
    newer = worse(issueDate=moment(days(-5)), nextUpdate=moment(days(-1)))
    undecided(newer, COLLATERAL)
    assert verify(newer, COLLATERAL, at=days(-2)).tcb_status == "OutOfDate"


def test_of_each_kind_the_newest_counts() -> None:
    old_identity = FORGED.collateral(tcb_info={"issueDate": moment(days(-1))})
    old_info = FORGED.collateral(qe_identity={**FORGED.qe_identity(status="OutOfDate"), "issueDate": moment(days(-1))})
    assert verify(old_identity).tcb_status == "UpToDate"
    for items in ((old_identity, old_info), (old_info, old_identity)):
        assert verify(*items).tcb_status == "OutOfDate"


def test_what_is_not_authentic_stands_in_nobodys_way() -> None:
    forged = FORGED.collateral(signer=OTHER.signer, tcb_info={"issueDate": moment(days(-1))})
    elsewhere = FORGED.collateral(tcb_info={"fmspc": "00906ED50000", "issueDate": moment(days(-1))})
    assert verify(forged, elsewhere, OTHER.collateral(), COLLATERAL).tcb_status == "UpToDate"


def test_a_chain_beside_the_quotes_own_is_not_read() -> None:
    chain = OTHER.pck.pem + OTHER.authority.pem + OTHER.root.pem
    assert verify(FORGED.collateral(document={"pck_certificate_chain": chain})).tcb_status == "UpToDate"


def test_what_was_gathered_over_months_for_many_processors_is_an_answer() -> None:
    """A verifier's own store holds more than one attester may bring."""
    gathered = [
        FORGED.collateral(tcb_info={"fmspc": f"{number:012X}"}, qe_identity={"issueDate": moment(days(-number))})
        for number in range(1, limits.COLLATERAL_ITEMS_MAX + 2)
    ]
    assert verify(*gathered, COLLATERAL).tcb_status == "UpToDate"
    assert "not for TDX on this kind" in undecided(*gathered).message


# --- malformed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([b""], Code.NOT_JSON),
        ([b"[]"], Code.FIELD_TYPE),
        ([b"{}"], Code.FIELD_MISSING),
        ([b'{"pck_crl": "", ' + COLLATERAL[1:]], Code.DUPLICATE_KEY),
        ([b" " * limits.COLLATERAL_ITEM_MAX + COLLATERAL], Code.TOO_LARGE),
        ([COLLATERAL] * (limits.COLLATERAL_SNAPSHOT_MAX + limits.COLLATERAL_ITEMS_MAX + 1), Code.TOO_LARGE),
        ([FORGED.collateral(document={"pck_crl": ""})], Code.CRL_INVALID),
        ([FORGED.collateral(document={"root_ca_crl": "3000"})], Code.CRL_INVALID),
        ([FORGED.collateral(document={"root_ca_crl": "3G"})], Code.NOT_HEX),
        ([FORGED.collateral(document={"root_ca_crl": 1})], Code.FIELD_TYPE),
        ([FORGED.collateral(document={"tcb_info_signature": "00"})], Code.FIELD_RANGE),
        ([FORGED.collateral(document={"tcb_info_issuer_chain": ""})], Code.CERT_MALFORMED),
        ([FORGED.collateral(tcb_info={"issueDate": "2026-01-01"})], Code.NOT_A_TIME),
        ([FORGED.collateral(tcb_info={"issueDate": 5})], Code.FIELD_TYPE),
        ([FORGED.collateral(tcb_info={"tcbEvaluationDataNumber": True})], Code.FIELD_TYPE),
        ([FORGED.collateral(tcb_info={"tcbEvaluationDataNumber": "18"})], Code.FIELD_TYPE),
    ],
)
def test_what_is_no_collateral_is_malformed(items: Sequence[bytes], code: Code) -> None:
    assert malformed(*items) == code


def test_a_list_signed_with_another_hash_is_no_answer() -> None:
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(FORGED.root.certificate.subject)
        .last_update(BEGIN)
        .next_update(END)
        .sign(FORGED.root.key, hashes.SHA384())
    )
    assert "CRL_INVALID" in undecided(FORGED.collateral(root_crl=crl)).message


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        verify(data)


@given(st.sampled_from(sorted(json.loads(COLLATERAL))), st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_any_change_is_refused_or_changes_nothing(name: str, position: int, change: bytes) -> None:
    document = json.loads(COLLATERAL)
    text = document[name]
    start = position % len(text)
    document[name] = text[:start] + change.hex() + text[start + len(change) * 2 :]
    try:
        tee = verify(json.dumps(document).encode())
    except (MalformedEvidence, NotAuthentic, Indeterminate):
        return
    assert tee.tcb_status == "UpToDate"


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_list_is_refused(position: int, change: int) -> None:
    crl = bytearray(FORGED.authority.crl().public_bytes(Encoding.DER))
    crl[position % len(crl)] ^= change
    with pytest.raises((MalformedEvidence, Indeterminate)):
        verify(FORGED.collateral(document={"pck_crl": crl.hex()}))
