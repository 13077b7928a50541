"""The archived key sets of NVIDIA's attestation service: which key has a name, and who vouches for it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.nras import KID, NOON, EmulatedNras, x5c
from gpu_support import Certificate
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, MalformedEvidence, WeighbridgeError
from weighbridge.verifier.gpu.nras import jwks

if TYPE_CHECKING:
    from weighbridge.verifier.anchors import TrustAnchors

SERVICE = EmulatedNras()
ANCHORS = SERVICE.anchors()


def key_of(*sets: bytes, believed: TrustAnchors = ANCHORS) -> jwks.SigningKey:
    parsed = [jwks.parse(each) for each in sets]
    return jwks.signing_key(KID, parsed, believed, since=NOON, until=NOON + timedelta(hours=1))


def refused(code: Code, *sets: bytes, believed: TrustAnchors = ANCHORS) -> None:
    with pytest.raises(WeighbridgeError) as refusal:
        key_of(*sets, believed=believed)
    assert refusal.value.code is code, refusal.value


def set_of(*keys: object) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def test_key_by_its_name() -> None:
    found = key_of(SERVICE.jwks(replace(EmulatedNras(), kid="another").published_key()))
    assert found.key == SERVICE.leaf.key.public_key()
    assert found.anchor == ANCHORS.anchors[0]


def test_root_beside_the_others_is_the_anchor_itself() -> None:
    published = SERVICE.published_key(x5c=x5c([*SERVICE.chain, SERVICE.root_certificate]))
    for intermediate in (False, True):
        found = key_of(set_of(published), believed=SERVICE.anchors(intermediate=intermediate))
        assert found.key == SERVICE.leaf.key.public_key()


def test_leaf_alone_is_enough_under_a_believed_intermediate() -> None:
    published = set_of(SERVICE.published_key(x5c=x5c(SERVICE.chain[:1])))
    assert key_of(published, believed=SERVICE.anchors(intermediate=True)).key == SERVICE.leaf.key.public_key()
    refused(Code.NRAS_ISSUER, published)


def test_certificate_that_only_calls_itself_what_an_anchor_is_called() -> None:
    """The name of an anchor under another key is a certificate like any other, and a stranger's."""
    stranger = replace(EmulatedNras(), intermediate=Certificate(SERVICE.intermediate.name))
    believed = SERVICE.anchors(intermediate=True)
    refused(Code.NRAS_ISSUER, set_of(stranger.published_key()), believed=believed)
    leaf = stranger.chain[0]
    refused(Code.NRAS_ISSUER, set_of(stranger.published_key(x5c=x5c([leaf, SERVICE.chain[1]]))), believed=believed)


def test_one_key_certified_again_is_one_key() -> None:
    """The service's authorities change; a key that both have certified has two chains."""
    other = replace(SERVICE, intermediate=Certificate("Emulated Attestation Service Intermediate 2"))
    assert key_of(SERVICE.jwks(), other.jwks()).key == SERVICE.leaf.key.public_key()


def test_two_keys_of_one_name_in_two_sets() -> None:
    """Each may be vouched for, and yet nobody picks one; where only one is, the name is not to be trusted either."""
    other = replace(SERVICE, leaf=replace(SERVICE.leaf, key=ec.generate_private_key(ec.SECP384R1())))
    refused(Code.NRAS_ISSUER, SERVICE.jwks(), other.jwks())
    refused(Code.NRAS_ISSUER, SERVICE.jwks(), EmulatedNras().jwks())


def test_bare_key_beside_the_certificate_of_another() -> None:
    stranger = EmulatedNras().published_key()
    refused(Code.NRAS_ISSUER, set_of(SERVICE.published_key(x=stranger["x"], y=stranger["y"])))


@pytest.mark.parametrize(
    "changes",
    [
        {"signs": True},
        {"signs": None},
        {"ca": True},
    ],
    ids=["certifies", "no usage", "authority"],
)
def test_leaf_that_may_not_sign_tokens(changes: dict[str, Any]) -> None:
    refused(Code.NRAS_ISSUER, replace(SERVICE, leaf=replace(SERVICE.leaf, **changes)).jwks())


def test_leaf_of_another_curve() -> None:
    refused(Code.NRAS_ISSUER, set_of(_with_curve(ec.SECP256R1())))


def _with_curve(curve: ec.EllipticCurve) -> dict[str, Any]:
    """A leaf of ``curve``, published beside coordinates of P-384."""
    other = replace(SERVICE, leaf=replace(SERVICE.leaf, key=ec.generate_private_key(curve))).published_key()
    return {**SERVICE.published_key(), "x5c": other["x5c"]}


def test_authority_that_may_not_certify() -> None:
    service = replace(SERVICE, intermediate=replace(SERVICE.intermediate, signs=False))
    refused(Code.NRAS_ISSUER, service.jwks())


def test_certificates_in_another_order() -> None:
    refused(Code.NRAS_ISSUER, set_of(SERVICE.published_key(x5c=x5c(SERVICE.chain[::-1]))))


def test_certificate_that_is_none() -> None:
    refused(Code.CERT_MALFORMED, set_of(SERVICE.published_key(x5c=["AAAA"])))


def test_keys_of_other_types_are_left_out() -> None:
    others = [{"kty": "RSA", "kid": KID, "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "kid": KID}, {}]
    assert list(jwks.parse(set_of(*others)).keys) == []
    assert key_of(SERVICE.jwks(*others)).key == SERVICE.leaf.key.public_key()
    refused(Code.NRAS_KEY_ABSENT, set_of(*others))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_JSON),
        (b"[]", Code.NRAS_MALFORMED),
        (b"{}", Code.NRAS_MALFORMED),
        (b'{"keys":{}}', Code.NRAS_MALFORMED),
        (set_of(), Code.NRAS_MALFORMED),
        (set_of(7), Code.NRAS_MALFORMED),
        (set_of(*[{}] * 257), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(), SERVICE.published_key()), Code.NRAS_MALFORMED),
        (b'{"keys":[],"keys":[]}', Code.DUPLICATE_KEY),
        (set_of(SERVICE.published_key(kid="")), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(kid=7)), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(x5c=[])), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(x5c="AAAA")), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(x5c=[7])), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(x5c=["AAAA"] * 9)), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(x5c=["AA-_"])), Code.NOT_BASE64),
        (set_of(SERVICE.published_key(x="AAAA")), Code.NRAS_MALFORMED),
        (set_of(SERVICE.published_key(y="A+/A")), Code.NOT_BASE64),
        (set_of(SERVICE.published_key(y=None)), Code.NRAS_MALFORMED),
        (b" " * (limits.COLLATERAL_ITEM_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_not_a_key_set(data: bytes, code: Code) -> None:
    with pytest.raises(MalformedEvidence) as refusal:
        jwks.parse(data)
    assert refusal.value.code is code


KEYS = st.dictionaries(
    st.sampled_from(["kty", "crv", "kid", "x5c", "x", "y", "use"]),
    st.sampled_from(["EC", "P-384", "name", "AAAA", "A" * 64]) | st.lists(st.text(max_size=8), max_size=2) | st.none(),
)


@given(st.binary(max_size=200) | st.lists(KEYS, max_size=3).map(lambda keys: set_of(*keys)))
def test_any_bytes_are_a_key_set_or_malformed(data: bytes) -> None:
    try:
        found = jwks.parse(data)
    except MalformedEvidence:
        return
    assert all(key.chain for key in found.keys.values())
