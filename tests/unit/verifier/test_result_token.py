"""The result token: what it says, how long it lives, and what is not taken for one."""

from __future__ import annotations

import hmac
import json
import pickle
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.soft_tpm import derive_key
from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier import result_token
from weighbridge.verifier.result import Serialisation, issue_as
from weighbridge.verifier.result.issuing import Affirmation
from weighbridge.verifier.result_token import Claims, ResultToken

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

KEY: Final = derive_key("verifier")
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
AUDIENCE: Final = "relying-party"
VECTORS: Final = {
    "gpu0": {"instance-identity": 2, "hardware": 2},
    "telemetry0": {"sourced-data": 0},
    "tpm0": {"configuration": 2, "hardware": 2},
}
CLAIMS: Final = Claims(
    issuer="ledger.example/windows",
    audience=AUDIENCE,
    session=bytes(range(16)),
    tenant="tenant-a",
    seq=7,
    model=sha256(b"model"),
    adapters=(sha256(b"adapter"),),
    cnf=sha256(b"cnf"),
    policy=sha256(b"policy"),
    reference=sha256(b"reference"),
    nonces=dict.fromkeys(VECTORS, sha256(b"nonce")),
    vectors=VECTORS,
    unchecked={"gpu_revocation": "a written reason"},
    ledger_origin="ledger.example/windows",
    ledger_index=42,
    ledger_leaf=sha256(b"leaf"),
)
HEADER: Final = {"alg": "ES256", "kid": strict.base64url_encode(cose.thumbprint(KEY.public_key())), "typ": "eat+jwt"}


def issue(claims: Claims = CLAIMS, *, period_s: float = 10, received: datetime = NOON) -> str:
    return result_token.issue(claims, KEY, received=received, period_ns=int(period_s * 1e9))


def verify(token: str, *, audience: str = AUDIENCE, at: datetime = NOON) -> ResultToken:
    return result_token.verify(token, KEY.public_key(), audience=audience, at=at)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refusal:
        call()
    assert isinstance(refusal.value, MalformedEvidence | NotAuthentic)
    return refusal.value.code


def payload_of(token: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(strict.base64url_decode(token.split(".")[1], what="payload"))
    return value


def signed(payload: object, *, key: ec.EllipticCurvePrivateKey = KEY, header: dict[str, Any] | None = None) -> str:
    """A token with any payload, really signed."""
    return jwt.api_jws.encode(
        json.dumps(payload).encode(), key, algorithm="ES256", headers={**HEADER, **(header or {})}
    )


def with_claim(path: str, value: object) -> str:
    """A signed token with another value at a dotted path; ``...`` takes it out."""
    payload = payload_of(issue())
    *parents, last = path.split("/")
    place = payload
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return signed(payload)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_a_good_token_says_what_was_judged() -> None:
    token = verify(issue())
    assert token.status == "affirming"
    assert (token.session, token.seq, token.model, token.cnf) == (CLAIMS.session, 7, CLAIMS.model, CLAIMS.cnf)
    assert token.adapters == (sha256(b"adapter"),)
    assert token.policy == f"sha256:{CLAIMS.policy.hex()}"
    assert (token.ledger_index, token.ledger_leaf) == (42, CLAIMS.ledger_leaf)
    assert (token.issued, token.expires) == (NOON, NOON + timedelta(seconds=17))
    claims = token.payload["submods"]["tpm0"]["ear_verifier_claims"]  # type: ignore[index, call-overload]
    assert claims["unchecked"] == {"gpu_revocation": "a written reason"}  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("vector", "status"),
    [
        ({}, "none"),
        ({"hardware": 0}, "none"),
        ({"hardware": 1}, "none"),
        ({"hardware": 2}, "affirming"),
        ({"hardware": 31, "configuration": 2}, "affirming"),
        ({"hardware": 32, "configuration": 2}, "warning"),
        ({"hardware": 95}, "warning"),
        ({"hardware": 96, "configuration": 2}, "contraindicated"),
        ({"hardware": -97}, "contraindicated"),
    ],
)
def test_a_status_is_no_better_than_its_worst_claim(vector: dict[str, int], status: str) -> None:
    token = verify(issue(replace(CLAIMS, vectors={"tpm0": vector}, nonces={"tpm0": bytes(32)})))
    assert token.status == status


def test_the_token_is_no_better_than_its_worst_submodule() -> None:
    worse = {**VECTORS, "gpu1": {"hardware": 32}}
    assert verify(issue(replace(CLAIMS, vectors=worse, nonces=dict.fromkeys(worse, bytes(32))))).status == "warning"


# -- how long it lives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period_s", "lives_s"),
    [(1, 3.5), (2, 5), (10, 17), (60, 92), (78, 119), (78.7, 120), (100, 120), (3600, 120)],
)
def test_it_lives_one_and_a_half_windows_and_2_s_but_no_more_than_120_s(period_s: float, lives_s: float) -> None:
    """A67"""
    expires = result_token.expiry(NOON, int(period_s * 1e9))
    assert (expires - NOON).total_seconds() == pytest.approx(lives_s, abs=0.1)
    assert expires - NOON <= timedelta(seconds=120)


@pytest.mark.parametrize("fraction", [0, 1, 499_999, 999_999])
def test_it_never_outlives_the_rule(fraction: int) -> None:
    received = NOON + timedelta(microseconds=fraction)
    token = verify(issue(period_s=1, received=received), at=received)
    assert token.expires <= result_token.expiry(received, 10**9)
    assert token.expires > received


def test_it_has_expired_from_the_moment_that_it_names() -> None:
    """A31, A67"""
    token, end = issue(), NOON + timedelta(seconds=17)
    verify(token, at=end - timedelta(microseconds=1))
    for at in (end, end + timedelta(seconds=1), end + timedelta(days=3650)):
        assert code_of(lambda at=at: verify(token, at=at)) is Code.TOKEN_EXPIRED  # type: ignore[misc]


def test_a_token_from_the_future_is_refused() -> None:
    """A31: one of the two clocks is wrong, and then the expiry means nothing."""
    token = issue()
    verify(token, at=NOON - timedelta(seconds=5))
    assert code_of(lambda: verify(token, at=NOON - timedelta(seconds=6))) is Code.TOKEN_NOT_YET_VALID


def test_a_verified_token_is_made_by_verifying_only() -> None:
    token = verify(issue())
    with pytest.raises(TypeError):
        replace(token, seal=None)
    with pytest.raises(TypeError):
        pickle.dumps(token)


# -- whom it is for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audience", ["", "relying-party ", "Relying-Party", "another", "relying"])
def test_it_is_for_one_audience(audience: str) -> None:
    """A34"""
    assert code_of(lambda: verify(issue(), audience=audience)) is Code.TOKEN_AUDIENCE


def test_an_audience_is_one_text() -> None:
    assert code_of(lambda: verify(with_claim("aud", [AUDIENCE, "another"]))) is Code.TOKEN_AUDIENCE


def test_it_pins_the_upstream() -> None:
    """A73: host A attests, host B answers."""
    token = verify(issue())
    token.require_upstream(CLAIMS.cnf)
    for other in (sha256(b"host B"), b"", CLAIMS.cnf[:31], CLAIMS.cnf + b"\0"):
        assert code_of(lambda other=other: token.require_upstream(other)) is Code.UPSTREAM_KEY  # type: ignore[misc]


# -- whose it is -------------------------------------------------------------------------------------------------------


def test_another_key_is_not_the_verifiers() -> None:
    """A30"""
    stranger = derive_key("another")
    for header in ({}, {"kid": strict.base64url_encode(cose.thumbprint(stranger.public_key()))}):
        forged = signed(payload_of(issue()), key=stranger, header=header)
        assert code_of(lambda forged=forged: verify(forged)) is Code.TOKEN_SIGNATURE  # type: ignore[misc]
    with pytest.raises(NotAuthentic):
        result_token.verify(issue(), stranger.public_key(), audience=AUDIENCE, at=NOON)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "ES256K"},
        {"alg": "es256"},
        {"typ": "JWT"},
        {"jku": "https://attacker.example/jwks"},
        {"jwk": {"kty": "EC"}},
        {"crit": ["exp"]},
        {"b64": False},
        {"cty": "JWT"},
        {"zip": "DEF"},
    ],
    ids="-".join,
)
def test_the_header_is_exactly_one(header: dict[str, Any]) -> None:
    """A29, A30"""
    _, payload, signature = issue().split(".")
    changed = strict.base64url_encode(json.dumps({**HEADER, **header}).encode())
    assert code_of(lambda: verify(f"{changed}.{payload}.{signature}")) is Code.TOKEN_SIGNATURE


def test_no_algorithm_and_no_signature_is_no_token() -> None:
    """A29"""
    _, payload, _ = issue().split(".")
    header = strict.base64url_encode(json.dumps({**HEADER, "alg": "none"}).encode())
    assert code_of(lambda: verify(f"{header}.{payload}.")) is Code.TOKEN_SIGNATURE
    own = strict.base64url_encode(json.dumps(HEADER).encode())
    assert code_of(lambda: verify(f"{own}.{payload}.")) is Code.TOKEN_SIGNATURE


@pytest.mark.parametrize("secret", [b"secret", cose.spki(KEY.public_key()), b""])
def test_a_symmetric_signature_is_none(secret: bytes) -> None:
    """A29"""
    _, payload, _ = issue().split(".")
    text = f"{strict.base64url_encode(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{payload}"
    mac = strict.base64url_encode(hmac.digest(secret or b"0", text.encode(), "sha256"))
    assert code_of(lambda: verify(f"{text}.{mac}")) is Code.TOKEN_SIGNATURE


def test_no_single_flipped_bit_is_accepted() -> None:
    token = issue()
    for place in range(0, len(token), 7):
        flipped = token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :]
        code_of(lambda flipped=flipped: verify(flipped))  # type: ignore[misc]


# -- what is malformed -------------------------------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=60), st.lists(st.text("AQg_-=", max_size=8), min_size=3, max_size=3).map(".".join)))
def test_any_text_is_refused(text: str) -> None:
    code_of(lambda: verify(text))


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", "A" * (limits.TOKEN_MAX + 1)])
def test_other_forms_are_malformed(text: str) -> None:
    assert code_of(lambda: verify(text)) in {Code.TOKEN_MALFORMED, Code.NOT_BASE64, Code.NOT_JSON}


def test_a_claim_twice_is_malformed() -> None:
    """A70: the last of two would be taken, or the first, by whoever reads it."""
    body = json.dumps(payload_of(issue())).encode()
    twice = body[:-1] + b',"aud":"another"}'
    token = jwt.api_jws.encode(twice, KEY, algorithm="ES256", headers=HEADER)
    assert code_of(lambda: verify(token)) is Code.DUPLICATE_KEY


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from([10**12, 10**30, -1, 0]), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)
PATHS: Final = (
    "eat_profile",
    "iat",
    "exp",
    "cnf",
    "cnf/kid",
    "ear_status",
    "submods",
    "submods/tpm0",
    "submods/tpm0/ear_appraisal_policy_ids",
    "submods/tpm0/ear_verifier_claims",
    "submods/tpm0/ear_verifier_claims/session",
    "submods/tpm0/ear_verifier_claims/seq",
    "submods/tpm0/ear_verifier_claims/model",
    "submods/tpm0/ear_verifier_claims/adapters",
    "submods/tpm0/ear_verifier_claims/log",
    "submods/tpm0/ear_verifier_claims/log/index",
    "submods/tpm0/ear_verifier_claims/log/leaf",
)


@given(JSON)
def test_any_payload_that_the_verifier_signed_is_read_or_malformed(payload: object) -> None:
    code_of(lambda: verify(signed(payload)))


@given(st.sampled_from(PATHS), JSON)
def test_any_claim_that_the_verifier_signed_is_read_or_malformed(path: str, value: object) -> None:
    try:
        token = verify(with_claim(path, value))
    except (MalformedEvidence, NotAuthentic):
        return
    assert token.status in result_token.STATUSES
    assert len(token.cnf) == 32


@pytest.mark.parametrize("path", [*PATHS, "aud"])
def test_every_claim_that_is_read_is_needed(path: str) -> None:
    assert code_of(lambda: verify(with_claim(path, ...))) is Code.TOKEN_MALFORMED


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("eat_profile", "tag:ietf.org,2026:rats/ear#03"),
        ("ear_status", "excellent"),
        ("ear_status", 2),
        ("ear_status", ["affirming"]),
        ("exp", "4000000000"),
        ("exp", 4e9),
        ("exp", True),
        ("exp", 10**30),
        ("iat", None),
        ("cnf/kid", strict.base64url_encode(bytes(31))),
        ("cnf/kid", ""),
        ("cnf/kid", 32),
        ("cnf/kid", 10**12),
        ("submods/tpm0/ear_appraisal_policy_ids", []),
        ("submods/tpm0/ear_appraisal_policy_ids", [7]),
        ("submods/tpm0/ear_appraisal_policy_ids", "sha256:00"),
        ("submods/tpm0/ear_verifier_claims/seq", "7"),
        ("submods/tpm0/ear_verifier_claims/seq", -1),
        ("submods/tpm0/ear_verifier_claims/seq", True),
        ("submods/tpm0/ear_verifier_claims/session", "00"),
        ("submods/tpm0/ear_verifier_claims/model", "00" * 33),
        ("submods/tpm0/ear_verifier_claims/log/index", None),
        ("submods/tpm0/ear_verifier_claims/log/leaf", "AB" * 32),
    ],
)
def test_claims_of_another_type_are_malformed(path: str, value: object) -> None:
    assert code_of(lambda: verify(with_claim(path, value))) in {
        Code.TOKEN_MALFORMED,
        Code.NOT_HEX,
        Code.NOT_BASE64,
        Code.FIELD_RANGE,
    }


# -- what the field reads ----------------------------------------------------------------------------------------------

# What draft-ietf-rats-ear takes from RFC 9711, and what we add in the places that both leave open.
_EAT: Final = """
JSON-ONLY<J> = J .feature "json"
CBOR-ONLY<C> = C .feature "cbor"
JC<J, C> = JSON-ONLY<J> / CBOR-ONLY<C>
profile-label = JC<"eat_profile", 265>
iat-claim-label = JC<"iat", 6>
exp-claim-label = JC<"exp", 4>
submods-label = JC<"submods", 266>
nonce-label = JC<"eat_nonce", 10>
nonce-type = JC<tstr .size (10..88), bstr .size (8..64)>
binary-data = JC<tstr, bstr>
time-int = #6.1(int)
general-uri = tstr
general-oid = JC<tstr, bstr>
"""
_OURS: Final = {
    "json": """
$$ear-extension //= ("iss" => text, "aud" => text, "jti" => text, "cnf" => { "kid" => text })
$$ear-appraisal-extension //= (? "ear_verifier_claims" => { + text => any })
""",
    "cbor": """
$$ear-extension //= (1 => text, 3 => text, 7 => bytes, 8 => { 3 => bytes })
$$ear-appraisal-extension //= (? -70210 => { + int => any })
""",
}


@pytest.fixture
def is_ear(root: Path, vectors_dir: Path, tmp_path: Path) -> Callable[[dict[Any, Any], str], bool]:
    """Whether claims are an EAT Attestation Result, by the draft's own CDDL and somebody else's validator."""
    command = root / ".peers" / "cddl" / "bin" / "cddl-verify"
    if not command.exists():
        pytest.skip("no cddl-verifier: run scripts/setup --peers")
    for name in ("ar4si", "generic-non-empty"):
        (tmp_path / f"{name}.cddl").write_bytes((vectors_dir / "ear" / f"{name}.cddl").read_bytes())
    (tmp_path / "rfc9711.cddl").write_text(_EAT)
    parts = [(vectors_dir / "ear" / f"{name}.cddl").read_text() for name in ("ear", "ear-appraisal")]
    # Taken from the draft before its profile's number went up; for these claims nothing else of it changed.
    for feature, ours in _OURS.items():
        schema = "\n".join([*parts, ours]).replace("rats/ear#03", "rats/ear#04")
        (tmp_path / f"{feature}.cddl").write_text(schema)

    def validate(claims: dict[Any, Any], feature: str = "json") -> bool:
        (tmp_path / "claims.cbor").write_bytes(cbor.encode(claims))
        options = ["-t", "EAR", "-M", str(tmp_path), "--strict-modules", "--feature", feature, "--no-annotate"]
        done = subprocess.run(
            [str(command), *options, "-o", str(tmp_path / "out.edn"), f"{feature}.cddl", "claims.cbor"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0 and "VALIDATION FAILED" not in done.stdout + done.stderr:
            pytest.fail(done.stdout + done.stderr)
        return done.returncode == 0

    return validate


@pytest.mark.peer
def test_the_claims_are_those_of_the_draft(is_ear: Callable[..., bool]) -> None:
    claims = payload_of(issue())
    assert is_ear(claims)
    assert is_ear({key: value for key, value in claims.items() if key != "exp"})
    for key in ("eat_profile", "iat", "ear_verifier_id", "submods"):
        assert not is_ear({other: value for other, value in claims.items() if other != key})
    assert not is_ear({**claims, "ear_status": "excellent"})
    assert not is_ear({**claims, "submods": {"gpu0": {"ear_status": "affirming", "ear_trustworthiness_vector": {}}}})
    cwt = claims_of_cwt()
    assert is_ear(cwt, "cbor")
    assert not is_ear(cwt, "json")
    for label in (265, 6, 1004, 266):
        assert not is_ear({other: value for other, value in cwt.items() if other != label}, "cbor")
    assert not is_ear({**cwt, 1000: 3}, "cbor")
    assert not is_ear({**cwt, 266: {"gpu0": {1000: 2, 1001: {8: 2}}}}, "cbor")


def claims_of_cwt() -> dict[Any, Any]:
    of = Affirmation(claims=CLAIMS, received=NOON, period_ns=10**10, within=None)
    token = issue_as(Serialisation.EAR_04_CWT, of, KEY)
    message = cose.parse(token[2:], typ="application/eat+cwt", limit=limits.TOKEN_MAX, what="token")
    claims = cbor.decode(message.payload, limit=limits.TOKEN_MAX, what="claims")
    assert isinstance(claims, dict)
    return claims
