"""Three serialisations of one result: each says the same, and none is taken for another."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.result_tokens import AUDIENCE, CLAIMS, KEY, NOON, affirmation, issued, verified
from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.result import Serialisation
from weighbridge.verifier.result.claims import Confirmation
from weighbridge.verifier.result.issuing import CWT_TAG, issue_as
from weighbridge.verifier.result.serialisation import PROFILES, TIERS, VECTOR, VERAISON_PROFILE
from weighbridge.verifier.result.trusted import TrustedKey, TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

ALL: Final = tuple(Serialisation)
JWTS: Final = (Serialisation.EAR_04, Serialisation.VERAISON_2023)
CWT: Final = Serialisation.EAR_04_CWT
VERAISON: Final = Serialisation.VERAISON_2023
KID: Final = cose.thumbprint(KEY.public_key())


def refusal(call: Callable[[], object]) -> Code:
    with pytest.raises((MalformedEvidence, NotAuthentic)) as refused:
        call()
    return refused.value.code


def payload(token: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(strict.base64url_decode(token.split(b".")[1], what="payload"))
    return value


def jwt_of(claims: object, typ: str, *, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    """Really signed, whatever it says."""
    headers = {"kid": strict.base64url_encode(KID), "typ": typ}
    return jwt.api_jws.encode(json.dumps(claims).encode(), key, algorithm="ES256", headers=headers).encode()


def cwt_of(payload: bytes, *, typ: str = "application/eat+cwt", kid: bytes = KID) -> bytes:
    return CWT_TAG + cose.sign(payload, kid=kid, typ=typ, signer=lambda data: sign_es256(KEY, data))


def tree_of(token: bytes) -> dict[Any, Any]:
    """The claims of a CWT as they are signed."""
    message = cose.parse(token[2:], typ="application/eat+cwt", limit=limits.TOKEN_MAX, what="token")
    value = cbor.decode(message.payload, limit=limits.TOKEN_MAX, what="payload")
    assert isinstance(value, dict)
    return value


# -- all say the same --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serialisation", ALL)
def test_what_is_read_is_what_was_written(serialisation: Serialisation) -> None:
    token = verified(issued(serialisation))
    assert token.serialisation is serialisation
    assert token.claims == CLAIMS
    assert (token.status, token.issued, token.expires) == ("affirming", NOON, NOON + timedelta(seconds=17))
    assert (token.key, token.verifier) == (KID, KID)
    assert token.identifier == f"{CLAIMS.session.hex()}.7"


_NAMES: Final = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
_VECTOR: Final = st.dictionaries(st.sampled_from(sorted(VECTOR)), st.integers(-128, 127), max_size=8)


@given(
    st.dictionaries(_NAMES, _VECTOR, max_size=4),
    st.integers(0, 2**53),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.dictionaries(_NAMES, st.text(max_size=20), max_size=3),
    st.lists(st.binary(min_size=32, max_size=32), max_size=3),
    st.sampled_from(ALL),
)
def test_any_claims_come_back(
    vectors: dict[str, dict[str, int]],
    seq: int,
    tenant: str,
    unchecked: dict[str, str],
    adapters: list[bytes],
    serialisation: Serialisation,
) -> None:
    vectors = {**vectors, "tpm0": {"hardware": 2}}
    nonces = {name: sha256(name.encode()) for name in vectors}
    claims = replace(
        CLAIMS,
        vectors=vectors,
        nonces=nonces,
        seq=seq,
        tenant=tenant,
        unchecked=unchecked,
        adapters=tuple(adapters),
    )
    token = verified(issued(serialisation, claims))
    assert token.claims == claims
    assert token.status == verified(issued(Serialisation.EAR_04, claims)).status


def test_a_cwt_reads_as_the_jwt_does() -> None:
    assert verified(issued(CWT)).payload == payload(issued(Serialisation.EAR_04))


def test_telemetry_is_sourced_data() -> None:
    assert payload(issued(Serialisation.EAR_04))["submods"]["telemetry0"]["ear_trustworthiness_vector"] == {
        "sourced-data": 2
    }
    assert tree_of(issued(CWT))[266]["telemetry0"][1001] == {7: 2}


def test_a_cwt_has_the_registered_keys_and_no_names() -> None:
    """RFC 8392 §4, RFC 9711 §4, RFC 8747 §3.1; a tenth of the JWT's names is gone with them."""
    tree = tree_of(issued(CWT))
    assert set(tree) == {1, 3, 4, 6, 7, 8, 265, 266, 1000, 1004}
    assert (tree[265], tree[8], tree[1000]) == ("tag:ietf.org,2026:rats/ear#04", {3: CLAIMS.cnf}, 2)
    assert set(tree[266]["gpu0"]) == {10, 1000, 1001, 1003}
    assert set(tree[266]["tpm0"]) == {10, 1000, 1001, 1003, -70210}
    assert len(issued(CWT)) < len(issued(Serialisation.EAR_04)) // 2


def test_veraison_reads_only_names_that_it_knows_in_a_submodule() -> None:
    """Read of github.com/veraison/ear: what its `validate` demands, and all that it lists."""
    claims = payload(issued(VERAISON))
    assert claims["eat_profile"] == VERAISON_PROFILE
    assert set(claims["ear.verifier-id"]) == {"developer", "build"}
    assert not [name for name in claims if name.startswith("ear_")]
    for submod in claims["submods"].values():
        assert set(submod) <= {
            "ear.status",
            "ear.trustworthiness-vector",
            "ear.appraisal-policy-id",
            "ear.veraison.policy-claims",
        }
        assert submod["ear.status"] in TIERS
        assert set(submod["ear.trustworthiness-vector"]) <= set(VECTOR)
        assert isinstance(submod["ear.appraisal-policy-id"], str)


def test_the_status_of_veraison_is_that_of_its_worst_submodule() -> None:
    worse = {**CLAIMS.vectors, "gpu1": {"hardware": 32}}
    claims = replace(CLAIMS, vectors=worse, nonces=dict.fromkeys(worse, bytes(32)))
    assert verified(issued(VERAISON, claims)).status == "warning"


# -- none is taken for another -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("serialisation", ALL)
def test_only_what_the_relying_party_reads_is_accepted(serialisation: Serialisation) -> None:
    others = tuple(one for one in ALL if one is not serialisation)
    assert refusal(lambda: verified(issued(serialisation), accepted=others)) is Code.TOKEN_SIGNATURE
    verified(issued(serialisation), accepted=(serialisation,))


@pytest.mark.parametrize(("typ", "of"), [("eat+jwt", VERAISON), ("JWT", Serialisation.EAR_04)])
def test_claims_of_one_profile_under_the_type_of_the_other(typ: str, of: Serialisation) -> None:
    assert refusal(lambda: verified(jwt_of(payload(issued(of)), typ))) is Code.TOKEN_MALFORMED


@pytest.mark.parametrize(("name", "uri"), [(one, PROFILES[two].uri) for one in JWTS for two in JWTS if one is not two])
def test_an_eat_profile_that_is_not_the_types(name: Serialisation, uri: str) -> None:
    claims = {**payload(issued(name)), "eat_profile": uri}
    assert refusal(lambda: verified(jwt_of(claims, PROFILES[name].typ))) is Code.TOKEN_MALFORMED


def test_both_profiles_at_once_are_read_as_the_one_that_is_signed_for() -> None:
    """No claim of the other profile counts: here it would be better than the truth."""
    both: dict[str, Any] = {**payload(issued(VERAISON)), "ear_status": "affirming"}
    both["submods"]["gpu0"] |= {"ear.status": "contraindicated", "ear_status": "affirming"}
    assert verified(jwt_of(both, "JWT")).status == "contraindicated"


def test_a_cwt_of_another_profile_or_type() -> None:
    tree = tree_of(issued(CWT))
    assert refusal(lambda: verified(cwt_of(cbor.encode({**tree, 265: VERAISON_PROFILE})))) is Code.TOKEN_MALFORMED
    assert refusal(lambda: verified(cwt_of(cbor.encode(tree), typ="application/cwt"))) is Code.COSE_HEADER


def test_a_cwt_needs_its_tag() -> None:
    assert refusal(lambda: verified(issued(CWT)[2:])) is Code.TOKEN_MALFORMED
    assert refusal(lambda: verified(CWT_TAG + issued(CWT))) is Code.NOT_CBOR


def test_a_cwt_of_another_key() -> None:
    other = TrustedKeys.of()
    assert refusal(lambda: verified(issued(CWT), keys=other)) is Code.TOKEN_SIGNATURE


def test_no_single_flipped_bit_of_a_cwt_is_accepted() -> None:
    token = issued(CWT)
    for place in range(0, len(token), 5):
        flipped = token[:place] + bytes([token[place] ^ 1]) + token[place + 1 :]
        refusal(lambda flipped=flipped: verified(flipped))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((8, 3), b"short"),
        ((8, 3), "text"),
        ((1000,), 3),
        ((1000,), "affirming"),
        ((6,), "1"),
        ((4,), None),
        ((266,), {}),
        ((266, "tpm0"), 7),
        ((266, "tpm0", 10), bytes(31)),
        ((266, "tpm0", 1001), {8: 2}),
        ((266, "tpm0", 1001), {"hardware": 2}),
        ((266, "tpm0", 1001), {4: 128}),
        ((266, "tpm0", 1001), {4: True}),
        ((266, "tpm0", 1003), []),
        ((266, "tpm0", 1003), ["sha512:00"]),
        ((266, "tpm0", -70210, 0), bytes(15)),
        ((266, "tpm0", -70210, 3), "00" * 32),
        ((266, "tpm0", -70210, 4), [bytes(32)] * 257),
        ((266, "tpm0", -70210, 4), [bytes(31)]),
        ((266, "tpm0", -70210, 6), {1: "reason"}),
        ((266, "tpm0", -70210, 7), []),
    ],
)
def test_claims_of_another_type_are_malformed(path: tuple[Any, ...], value: object) -> None:
    tree = tree_of(issued(CWT))
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    refused = refusal(lambda: verified(cwt_of(cbor.encode(tree))))
    assert refused in {Code.TOKEN_MALFORMED, Code.FIELD_RANGE}


@given(st.binary(max_size=80), st.sampled_from([b"", CWT_TAG, CWT_TAG + b"\xd2\x84"]))
def test_any_bytes_are_refused(data: bytes, head: bytes) -> None:
    refusal(lambda: verified(head + data))


@given(st.binary(max_size=60))
def test_any_payload_that_the_verifier_signed_is_read_or_malformed(data: bytes) -> None:
    refusal(lambda: verified(cwt_of(data)))


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serialisation", ALL)
def test_it_has_expired_from_the_moment_that_it_names(serialisation: Serialisation) -> None:
    """A31, A67"""
    token, end = issued(serialisation), NOON + timedelta(seconds=17)
    verified(token, at=end - timedelta(microseconds=1))
    assert refusal(lambda: verified(token, at=end)) is Code.TOKEN_EXPIRED
    assert refusal(lambda: verified(token, at=NOON - timedelta(seconds=6))) is Code.TOKEN_NOT_YET_VALID


@pytest.mark.parametrize("serialisation", ALL)
@pytest.mark.parametrize("audience", ["", "another", AUDIENCE + " "])
def test_it_is_for_one_audience(serialisation: Serialisation, audience: str) -> None:
    """A34"""
    assert refusal(lambda: verified(issued(serialisation), audience=audience)) is Code.TOKEN_AUDIENCE


@pytest.mark.parametrize("serialisation", ALL)
def test_an_obligation_ends_it_earlier(serialisation: Serialisation) -> None:
    token = issue_as(serialisation, affirmation(within=5), KEY)
    assert verified(token).expires == NOON + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("before", "after", "good"),
    [(0, 0, True), (-1, 1, True), (1, 2, False), (-2, -1, False), (0.5, 1, True)],
)
def test_a_key_signs_within_its_time(before: float, after: float, good: bool) -> None:
    """Tokens tell whole seconds, rounded down: the first one may say less than the key's first moment."""
    key = TrustedKey(KEY.public_key(), NOON + timedelta(seconds=before), NOON + timedelta(seconds=after))
    if good:
        verified(issued(CWT), keys=TrustedKeys([key]))
    else:
        assert refusal(lambda: verified(issued(CWT), keys=TrustedKeys([key]))) is Code.TOKEN_KEY_PERIOD


# -- other names of the serving key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("serialisation", JWTS)
def test_other_names_stand_beside_the_first(serialisation: Serialisation) -> None:
    names = Confirmation(jkt=sha256(b"jwk"), x5t_s256=sha256(b"certificate"))
    token = issued(serialisation, confirmation=names)
    assert verified(token).confirmation == names
    assert payload(token)["cnf"] == {
        "kid": strict.base64url_encode(CLAIMS.cnf),
        "jkt": strict.base64url_encode(sha256(b"jwk")),
        "x5t#S256": strict.base64url_encode(sha256(b"certificate")),
    }


def test_a_cwt_has_no_name_for_them() -> None:
    with pytest.raises(ValueError, match=r"cnf\.jkt"):
        issued(CWT, confirmation=Confirmation(jkt=bytes(32)))
