"""A reference set is believed for its owner's signature, and a statement in it for its issuer's: nobody else's word."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.owners import BEGINNING, DAY, EVALUATION, FOREVER, Issuer, Owner
from support.world import NOON, manifest
from weighbridge.proto import cose, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.proto.reference_set import SET_TYP
from weighbridge.proto.statement import IN_TOTO
from weighbridge.verifier import reference_set
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.clock import moment, nanoseconds
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.reference_set import AuthenticSet, VerifiedSet

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER, LAB = Owner(), Issuer()
MODEL, OTHER = manifest("one"), manifest("two")
ANCHORS = TrustAnchors((OWNER.anchor(), LAB.anchor()))


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


def signed(*statements: bytes) -> bytes:
    return OWNER.sign(OWNER.content(MODEL, statements=statements))


def refused(*statements: bytes, anchors: TrustAnchors = ANCHORS) -> NotAuthentic:
    """The refusal of a set whose owner is believed."""
    with pytest.raises(NotAuthentic) as refusal:
        reference_set.verify(signed(*statements), anchors=anchors)
    return refusal.value


def test_what_a_verified_set_says() -> None:
    content = OWNER.content(MODEL, OTHER, number=4, revoked={bytes(32): "leaked"})
    data = OWNER.sign(content)
    values = reference_set.verify(data, anchors=ANCHORS).values
    assert (values.owner, values.number, values.digest) == (OWNER.name, 4, sha256(data).hex())
    assert {(model.manifest, model.name) for model in values.models} == {
        (MODEL.digest.hex(), "one"),
        (OTHER.digest.hex(), "two"),
    }
    assert [(model.manifest, model.reason, model.at) for model in values.revoked] == [("00" * 32, "leaked", NOON)]
    assert (values.not_before, values.not_after) == (NOON - DAY, NOON + 10 * DAY)


# -- the owner ---------------------------------------------------------------------------------------------------------


def test_an_unknown_owner() -> None:
    stranger = Owner("Mallory")
    data = stranger.sign(stranger.content(MODEL))
    assert code_of(lambda: reference_set.verify(data, anchors=ANCHORS)) is Code.CHAIN_UNTRUSTED


def test_an_owner_in_anothers_name() -> None:
    """A key speaks for the owner that its anchor names, and for no other."""
    beta = Owner("Beta")
    data = beta.sign(replace(beta.content(MODEL), owner=OWNER.name))
    both = ANCHORS.with_anchors([beta.anchor()])
    assert code_of(lambda: reference_set.verify(data, anchors=both)) is Code.CHAIN_UNTRUSTED


def test_an_issuer_is_no_owner() -> None:
    lab = Owner(LAB.name)
    anchor = replace(lab.anchor(), purpose="statement-issuer")
    data = lab.sign(lab.content(MODEL))
    assert code_of(lambda: reference_set.verify(data, anchors=TrustAnchors((anchor,)))) is Code.CHAIN_UNTRUSTED


def test_a_signature_by_another_key_under_the_owners_key_id() -> None:
    stranger = Owner("Mallory")
    payload = OWNER.content(MODEL).encode()
    kid = cose.thumbprint(OWNER.key.public_key())
    forged = cose.sign(payload, kid=kid, typ=SET_TYP, signer=lambda data: sign_es256(stranger.key, data))
    assert code_of(lambda: reference_set.verify(forged, anchors=ANCHORS)) is Code.COSE_SIGNATURE


# Signed once: a signature of another length at each try is nothing that hypothesis can repeat.
WHOLE = signed(LAB.in_toto(MODEL.digest))


@given(st.data())
def test_no_flipped_bit_is_accepted(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedEvidence, NotAuthentic)):
        reference_set.verify(bytes(whole), anchors=ANCHORS)


@pytest.mark.parametrize(
    ("not_before", "not_after", "expected"),
    [
        (BEGINNING, FOREVER, (NOON - DAY, NOON + 10 * DAY)),
        (NOON, NOON + DAY, (NOON, NOON + DAY)),
        # A key that was given up before the set begins: it is never valid.
        (BEGINNING, NOON - 2 * DAY, (NOON - DAY, NOON - 2 * DAY)),
    ],
)
def test_a_set_is_valid_no_longer_than_its_owners_key(not_before: object, not_after: object, expected: object) -> None:
    anchor = replace(OWNER.anchor(), not_before=not_before, not_after=not_after)  # type: ignore[arg-type] # times
    values = reference_set.verify(OWNER.sign(OWNER.content(MODEL)), anchors=TrustAnchors((anchor,))).values
    assert (values.not_before, values.not_after) == expected
    assert values.valid(NOON) == (values.not_before <= NOON <= values.not_after)


def test_a_set_says_nothing_of_the_time_before_it_was_made() -> None:
    content = OWNER.content(MODEL, issued=NOON)
    assert reference_set.verify(OWNER.sign(content), anchors=ANCHORS).values.not_before == NOON


# -- statements --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["P-256", "P-384", "Ed25519"])
def test_issuer_type_and_date_of_a_statement(kind: Literal["P-256", "P-384", "Ed25519"]) -> None:
    lab = Issuer("Evaluation Lab", kind)
    data = signed(
        lab.in_toto(MODEL.digest), lab.ml_bom(MODEL.digest), lab.in_toto(MODEL.digest, key="sha256", date=None)
    )
    anchors = TrustAnchors((OWNER.anchor(), Issuer("Another", kind).anchor(), lab.anchor()))
    (model,) = reference_set.verify(data, anchors=anchors).values.models
    assert {(item.issuer, item.type, item.date) for item in model.statements} == {
        ("Evaluation Lab", EVALUATION, "2026-05-01T00:00:00Z"),
        ("Evaluation Lab", "cyclonedx", "2026-04-01T09:30:00Z"),
        ("Evaluation Lab", EVALUATION, None),
    }
    assert [item.digest for item in model.statements] == sorted(item.digest for item in model.statements)


def test_a_statement_twice_is_one() -> None:
    statement = LAB.in_toto(MODEL.digest)
    (model,) = reference_set.verify(signed(statement, statement), anchors=ANCHORS).values.models
    assert len(model.statements) == 1


def test_a_statement_by_an_unknown_issuer_names_itself() -> None:
    error = refused(LAB.in_toto(MODEL.digest), Issuer("Mallory").in_toto(MODEL.digest))
    assert error.code is Code.STATEMENT_UNTRUSTED
    assert error.where == "one, statement 1"
    assert error.expected == LAB.name


def test_without_issuers_no_statement_is_believed() -> None:
    assert refused(LAB.in_toto(MODEL.digest), anchors=TrustAnchors((OWNER.anchor(),))).code is Code.STATEMENT_UNTRUSTED


def test_an_owner_is_no_issuer() -> None:
    """Whoever accepts a model does not thereby evaluate it."""
    issuer = Issuer("x")
    issuer.key = OWNER.key
    assert refused(issuer.in_toto(MODEL.digest)).code is Code.STATEMENT_UNTRUSTED


def test_a_statement_about_another_model_names_itself() -> None:
    error = refused(LAB.in_toto(MODEL.digest), LAB.in_toto(OTHER.digest))
    assert (error.code, error.where) == (Code.STATEMENT_SUBJECT, "one, statement 1")
    assert error.got == OTHER.digest.hex()


def test_a_statement_about_nothing() -> None:
    error = refused(LAB.in_toto(MODEL.digest, key="sha512"))
    assert (error.code, error.got) == (Code.STATEMENT_SUBJECT, "no digest")


def test_a_statement_that_is_none_is_malformed() -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        reference_set.verify(signed(b"{}"), anchors=ANCHORS)
    assert refusal.value.where.startswith("one, statement 0")


@pytest.mark.parametrize("keyid", ["", "Mallory", "Evaluation Lab", "0" * 64])
def test_a_key_id_decides_nothing(keyid: str) -> None:
    payload = strict.base64_decode(json.loads(LAB.in_toto(MODEL.digest))["payload"], what="payload")
    good = LAB.envelope(IN_TOTO, payload, keyid=keyid)
    forged = Issuer("Mallory").envelope(IN_TOTO, payload, keyid=keyid)
    assert len(reference_set.verify(signed(good), anchors=ANCHORS).values.models[0].statements) == 1
    assert refused(forged).code is Code.STATEMENT_UNTRUSTED


def test_one_trusted_signature_is_enough() -> None:
    mine, other = (json.loads(who.in_toto(MODEL.digest)) for who in (LAB, Issuer("Mallory")))
    both = json.dumps({**mine, "signatures": [*other["signatures"], *mine["signatures"]]}).encode()
    (model,) = reference_set.verify(signed(both), anchors=ANCHORS).values.models
    assert model.statements[0].issuer == LAB.name


def test_a_changed_payload_type_is_another_statement() -> None:
    """The signature covers the type: the same bytes are not read as something else."""
    made = json.loads(LAB.ml_bom(MODEL.digest))
    content = json.loads(strict.base64_decode(made["payload"], what="payload"))
    content |= {"_type": "https://in-toto.io/Statement/v1", "predicateType": EVALUATION}
    content |= {"subject": [{"digest": {"sha256": MODEL.digest.hex()}}]}
    signed_as_bom = json.loads(LAB.envelope("application/vnd.cyclonedx+json", strict.json_encode(content)))
    forged = json.dumps({**signed_as_bom, "payloadType": IN_TOTO}).encode()
    assert refused(forged).code is Code.STATEMENT_UNTRUSTED


def test_an_issuer_is_believed_when_the_owner_signed() -> None:
    """What it signed while it was trusted stays; what it is said to have signed later does not count."""
    issued = moment(nanoseconds(NOON - DAY))
    for anchor, good in (
        (LAB.anchor(not_after=issued), True),
        (LAB.anchor(not_after=issued - timedelta(microseconds=1)), False),
        (LAB.anchor(not_before=issued + timedelta(microseconds=1)), False),
    ):
        anchors = TrustAnchors((OWNER.anchor(), anchor))
        if good:
            reference_set.verify(signed(LAB.in_toto(MODEL.digest)), anchors=anchors)
        else:
            assert refused(LAB.in_toto(MODEL.digest), anchors=anchors).code is Code.CHAIN_EXPIRED


# -- seals -------------------------------------------------------------------------------------------------------------


def test_what_is_verified_is_made_by_verifying_only() -> None:
    verified = reference_set.verify(signed(), anchors=ANCHORS)
    authentic = verified.authentic
    with pytest.raises(TypeError):
        AuthenticSet(authentic.content, authentic.digest, authentic.not_before, authentic.not_after, object())
    with pytest.raises(TypeError):
        VerifiedSet(authentic, (), object())
    for value in (verified, authentic):
        with pytest.raises(TypeError):
            pickle.dumps(value)


def test_of_a_set_whose_statements_fail_only_the_revocations_are_left() -> None:
    content = OWNER.content(MODEL, statements=[Issuer("Mallory").in_toto(MODEL.digest)], revoked={bytes(32): "leaked"})
    values = reference_set.authenticate(OWNER.sign(content), anchors=ANCHORS).revocations()
    assert (values.models, [model.manifest for model in values.revoked]) == ((), ["00" * 32])
