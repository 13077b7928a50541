"""A policy is believed for its author's signature, and for the tenant for which the author speaks: for nothing else."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.authors import ADMITS, LIMITS, Author
from support.owners import DAY, FOREVER, Owner
from support.world import NOON
from weighbridge.policy import policy_set
from weighbridge.policy.engine import Revision
from weighbridge.policy.values.reference import Reference
from weighbridge.proto import cose
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.proto.policy_bundle import BUNDLE_TYP
from weighbridge.verifier import policy_bundle
from weighbridge.verifier.anchors import Anchor, TrustAnchors, load
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.policy_bundle import VerifiedPolicyBundle

if TYPE_CHECKING:
    from collections.abc import Callable

AUTHOR, TENANT = Author(), Author("Tenant A", "tenant-a")
ANCHORS = TrustAnchors((AUTHOR.anchor(), TENANT.anchor()))
NOTHING = Reference({}, {}, {})


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    return refusal.value.code


def refused(data: bytes, anchors: TrustAnchors = ANCHORS) -> Code:
    return code_of(lambda: policy_bundle.verify(data, anchors=anchors))


def test_what_a_verified_bundle_says() -> None:
    files = {"gate.rego": LIMITS, "data.json": b'{"most": 3}'}
    data = AUTHOR.sign(AUTHOR.content(files, number=4, tenant="tenant-b"))
    verified = policy_bundle.verify(data, anchors=ANCHORS)
    assert verified.revision == Revision(AUTHOR.name, "gate", 4, sha256(data).hex(), "tenant-b")
    assert (str(verified.line), verified.number) == ("policy bundle of Acme Safety, gate for tenant-b", 4)
    assert (verified.valid(NOON), verified.valid(NOON + 10 * DAY)) == (True, True)
    assert not verified.valid(NOON + 10 * DAY + timedelta(microseconds=1))
    assert not verified.valid(NOON - DAY - timedelta(microseconds=1))
    policy = verified.policy(NOTHING)
    assert dict(policy.files).items() >= files.items()
    assert policy.document() == {"reference": NOTHING.data(), "author": {"most": 3}}
    # The shipped library is beside it, in the digest too; which one, the bundle does not say.
    assert dict(policy.files).items() >= dict(policy_set.authored(files.items(), reference=NOTHING).files).items()
    assert policy.digest == policy_set.recorded(policy.files, reference=NOTHING).digest


@pytest.mark.parametrize("tenant", [None, "tenant-a", "tenant-b"])
def test_whoever_speaks_for_everybody_may_write_for_anybody(tenant: str | None) -> None:
    assert policy_bundle.verify(AUTHOR.sign(AUTHOR.content(tenant=tenant)), anchors=ANCHORS).content.tenant == tenant


@pytest.mark.parametrize("tenant", [None, "tenant-b", "tenant-a "])
def test_a_tenants_author_writes_for_that_tenant_alone(tenant: str | None) -> None:
    """A64: above all not the policy of all who have none of their own."""
    assert policy_bundle.verify(TENANT.sign(TENANT.content(tenant="tenant-a")), anchors=ANCHORS).number == 1
    assert refused(TENANT.sign(TENANT.content(tenant=tenant))) is Code.POLICY_TENANT


def test_a_key_that_nobody_named_signs_nothing() -> None:
    mallory = Author("Mallory")
    assert refused(mallory.sign(mallory.content())) is Code.CHAIN_UNTRUSTED
    assert refused(AUTHOR.sign(AUTHOR.content()), TrustAnchors(())) is Code.CHAIN_UNTRUSTED
    # In another's name, by a key that is believed; and under the other's key id.
    assert refused(TENANT.sign(replace(TENANT.content(), owner=AUTHOR.name))) is Code.CHAIN_UNTRUSTED
    kid = cose.thumbprint(AUTHOR.key.public_key())
    forged = AUTHOR.content().sign(kid=kid, signer=lambda signed: sign_es256(mallory.key, signed))
    assert refused(forged) is Code.COSE_SIGNATURE


def test_a_models_owner_writes_no_policies() -> None:
    """One purpose says nothing of another, be it the same key under the same name."""
    owner = Owner(AUTHOR.name)
    owner.key = AUTHOR.key
    assert refused(AUTHOR.sign(AUTHOR.content()), TrustAnchors((owner.anchor(),))) is Code.CHAIN_UNTRUSTED


@given(st.data())
def test_no_single_flipped_bit_is_believed(data: st.DataObject) -> None:
    flipped = bytearray(AUTHOR.sign(AUTHOR.content()))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WeighbridgeError):
        policy_bundle.verify(bytes(flipped), anchors=ANCHORS)


def test_the_anchors_validity_bounds_the_bundles() -> None:
    data = AUTHOR.sign(AUTHOR.content())
    early, late = NOON - timedelta(hours=1), NOON + timedelta(hours=1)
    verified = policy_bundle.verify(data, anchors=TrustAnchors((AUTHOR.anchor(not_before=early, not_after=late),)))
    assert (verified.not_before, verified.not_after) == (early, late)
    # Nobody vouches for the time before signing.
    later = policy_bundle.verify(AUTHOR.sign(AUTHOR.content(issued=NOON)), anchors=ANCHORS)
    assert (later.not_before, later.not_after) == (NOON, NOON + 10 * DAY)


def test_it_is_made_by_verification_only() -> None:
    verified = policy_bundle.verify(AUTHOR.sign(AUTHOR.content()), anchors=ANCHORS)
    with pytest.raises(TypeError):
        VerifiedPolicyBundle(verified.content, verified.digest, NOON, NOON, object())
    with pytest.raises(TypeError):
        pickle.dumps(verified)


@pytest.mark.parametrize(
    "files",
    [
        {"gate.rego": b"\xff"},
        {"gate.rego": ADMITS, "data.json": b"[]"},
        {"gate.rego": ADMITS, "data.json": b'{"a": 1, "a": 2}'},
        {f"{number}.rego": ADMITS for number in range(64)},
        {f"{number}.rego": b"#" * 500 + b"\n" for number in range(1)} | {"big.rego": b"#\n" * 200_000},
    ],
    ids=["bytes", "a list", "a key twice", "one module too many", "too many lines"],
)
def test_files_that_are_no_policy(files: dict[str, bytes]) -> None:
    verified = policy_bundle.verify(AUTHOR.sign(AUTHOR.content(files)), anchors=ANCHORS)
    assert code_of(lambda: verified.policy(NOTHING)) is Code.POLICY_INVALID


# -- the anchors -------------------------------------------------------------------------------------------------------


def test_an_anchor_keeps_its_tenant() -> None:
    assert load(ANCHORS.encode()) == ANCHORS
    assert [anchor.tenant for anchor in load(ANCHORS.encode()).anchors] == [None, "tenant-a"]


@pytest.mark.parametrize("tenant", ["tenant-a", ""])
def test_only_authors_of_policies_speak_for_a_tenant(tenant: str) -> None:
    anchor = Owner().anchor() if tenant else AUTHOR.anchor()
    assert code_of(lambda: replace(anchor, tenant=tenant)) is Code.ANCHORS_INVALID


def test_one_key_speaks_for_one_tenant_or_for_all() -> None:
    """Else what a document takes away, another one would give."""
    wide = Anchor("policy-author", TENANT.name, "weighbridge", TENANT.anchor().spki, NOON, FOREVER, "a test")
    assert code_of(lambda: TrustAnchors((TENANT.anchor(), wide))) is Code.ANCHORS_INVALID


def test_it_is_told_apart_by_its_type() -> None:
    assert cose.claimed_typ(AUTHOR.sign(AUTHOR.content()), limit=10_000, what="bundle") == BUNDLE_TYP
