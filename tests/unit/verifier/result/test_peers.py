"""Tokens and key sets of ours, read by implementations that share no code with ours."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.result_tokens import AUDIENCE, CLAIMS, KEY, NOON, issued
from weighbridge.proto import cbor, cose, limits, strict
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.result import Serialisation
from weighbridge.verifier.result.confirmation import jwk_thumbprint
from weighbridge.verifier.result.key_store import TokenKeyStore
from weighbridge.verifier.result.serialisation import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jwt.types import Options

    Answer = dict[str, Any]
    Ask = Callable[[list[dict[str, Any]]], list[Answer]]

JWTS: Final = (Serialisation.EAR_04, Serialisation.VERAISON_2023)
PEERS: Final = {
    "jose": ("bin/node", "jose_tokens.mjs", ()),
    "joserfc": ("bin/python", "joserfc_tokens.py", ("-I",)),
}


@pytest.fixture(params=sorted(PEERS))
def ask(request: pytest.FixtureRequest, root: Path) -> Ask:
    """Asks one peer about tokens: all at once, since starting it is what takes time."""
    name: str = request.param
    program, script, options = PEERS[name]
    peer = root / ".peers" / name
    if not (peer / program).exists():
        pytest.skip(f"no {name}: run scripts/setup --peers")

    def answers(questions: list[dict[str, Any]]) -> list[Answer]:
        done = subprocess.run(
            [str(peer / program), *options, str(root / "tests" / "peers" / script)],
            input="".join(json.dumps(question) + "\n" for question in questions),
            env={**os.environ, "WEIGHBRIDGE_PEER": str(peer)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return answers


def question(token: bytes, jwks: strict.JsonObject, **changed: object) -> dict[str, Any]:
    asked = {"token": token.decode(), "jwks": jwks, "audience": AUDIENCE, "at": NOON.isoformat(), "typ": "eat+jwt"}
    return {**asked, **changed}


@pytest.mark.peer
def test_jose_libraries_read_tokens_by_the_key_set(ask: Ask, tmp_path: Path) -> None:
    identity = VerifierKeys.create(tmp_path / "keys")
    store = TokenKeyStore(identity)
    store.new(at=NOON - timedelta(hours=2), not_before=NOON - timedelta(hours=1), not_after=NOON + timedelta(days=1))
    jwks = store.jwks(NOON)
    by_new = {one: issued(one, key=store.signer(NOON)) for one in JWTS}
    by_identity = {one: issued(one, key=identity.signing) for one in JWTS}
    assert cose.thumbprint(store.signer(NOON).public_key()) != identity.thumbprint
    good = [
        question(token, jwks, typ=PROFILES[one].typ)
        for tokens in (by_new, by_identity)
        for one, token in tokens.items()
    ]
    ear, veraison = by_new[Serialisation.EAR_04], by_new[Serialisation.VERAISON_2023]
    head, body, signature = ear.split(b".")
    other = issued(Serialisation.EAR_04, audience="another").split(b".")[1]
    bad = [
        question(ear, jwks, audience="another"),
        question(ear, jwks, at=(NOON + timedelta(seconds=17)).isoformat()),
        question(ear, jwks, typ="JWT"),
        question(veraison, jwks),
        question(b".".join((head, other, signature)), jwks, audience="another"),
        question(b".".join((head, body, signature[:-2] + b"AA")), jwks),
        question(issued(Serialisation.EAR_04, key=KEY), jwks),
    ]
    answers = ask([*good, *bad])
    assert [sorted(answer) for answer in answers] == [["claims"]] * len(good) + [["refused"]] * len(bad)
    for answer, asked in zip(answers, good, strict=False):
        signed = json.loads(strict.base64url_decode(asked["token"].split(".")[1], what="payload"))
        assert answer["claims"] == signed


def test_pyjwt_reads_tokens_by_the_key_set(tmp_path: Path) -> None:
    """Its own reading: we use its signatures alone, and none of its checks of claims."""
    identity = VerifierKeys.create(tmp_path / "keys")
    store = TokenKeyStore(identity)
    jwks = jwt.PyJWKSet.from_dict(store.jwks(NOON))
    token = issued(Serialisation.VERAISON_2023, key=identity.signing)
    key = jwks[jwt.get_unverified_header(token)["kid"]]
    options: Options = {"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "iss", "aud", "jti"]}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, options=options)
    assert datetime.fromtimestamp(claims["exp"], NOON.tzinfo) == NOON + timedelta(seconds=17)
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, options={"verify_exp": True})


_THUMBPRINT: Final = """
import json, sys
from joserfc.jwk import ECKey
print(ECKey.import_key(sys.stdin.read()).thumbprint())
"""


@pytest.mark.peer
def test_a_jwk_thumbprint_is_joserfcs(root: Path) -> None:
    python = root / ".peers" / "joserfc" / "bin" / "python"
    if not python.exists():
        pytest.skip("no joserfc: run scripts/setup --peers")
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    done = subprocess.run(
        [str(python), "-I", "-c", _THUMBPRINT], input=pem, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    ours = strict.base64url_encode(jwk_thumbprint(cose.spki(KEY.public_key())))
    assert done.stdout.strip() == ours


_CWT: Final = """
import sys
from cwt import COSEKey, decode
pem, kid, *tokens = sys.argv[1:]
key = COSEKey.from_pem(open(pem).read(), alg="ES256", kid=bytes.fromhex(kid))
for token in tokens:
    try:
        decode(bytes.fromhex(token), key)
        print("ok")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.peer
def test_cwt_verifies_our_cwt(root: Path, tmp_path: Path) -> None:
    python = root / ".peers" / "cwt" / "bin" / "python"
    if not python.exists():
        pytest.skip("no cwt: run scripts/setup --peers")
    pem = tmp_path / "key.pem"
    pem.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    kid = cose.thumbprint(KEY.public_key())
    received = datetime.now(NOON.tzinfo)
    fresh = issued(Serialisation.EAR_04_CWT, received=received)
    stale = issued(Serialisation.EAR_04_CWT, received=received - timedelta(minutes=10))
    forged = fresh[:-1] + bytes([fresh[-1] ^ 1])
    done = subprocess.run(
        [str(python), "-I", "-c", _CWT, str(pem), kid.hex(), *(token.hex() for token in (fresh, stale, forged))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    good, expired, bad = done.stdout.splitlines()
    assert good == "ok"
    assert "expired" in expired
    assert bad.startswith("VerifyError")


# -- the schema --------------------------------------------------------------------------------------------------------


@pytest.fixture
def matches(root: Path, tmp_path: Path) -> Callable[[str, bytes], bool]:
    """Whether bytes are what a rule of our own CDDL says, by somebody else's validator."""
    command = root / ".peers" / "cddl" / "bin" / "cddl-verify"
    if not command.exists():
        pytest.skip("no cddl-verifier: run scripts/setup --peers")

    def validate(rule: str, data: bytes) -> bool:
        path = tmp_path / "item.cbor"
        path.write_bytes(data)
        options = ["--require-deterministic", "--no-annotate", "-t", rule, "-o", str(tmp_path / "item.edn")]
        done = subprocess.run(
            [str(command), *options, str(root / "docs" / "weighbridge.cddl"), str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0 and "VALIDATION FAILED" not in done.stdout + done.stderr:
            pytest.fail(f"{rule}: {done.stdout}{done.stderr}")
        return done.returncode == 0

    return validate


@pytest.mark.peer
def test_the_claims_of_a_cwt_match_our_schema(matches: Callable[[str, bytes], bool]) -> None:
    message = cose.parse(
        issued(Serialisation.EAR_04_CWT)[2:], typ="application/eat+cwt", limit=limits.TOKEN_MAX, what="token"
    )
    assert matches("result-token-cwt", message.payload)
    tree: Any = cbor.decode(message.payload, limit=limits.TOKEN_MAX, what="payload")
    for key in (3, 4, 6, 8, 265, 266, 1000, 1004):
        assert not matches(
            "result-token-cwt", cbor.encode({name: value for name, value in tree.items() if name != key})
        )
    assert not matches("result-token-cwt", cbor.encode({**tree, 1000: 3}))
    assert not matches("result-token-cwt", cbor.encode({**tree, 265: "tag:github.com,2023:veraison/ear"}))


@pytest.mark.peer
def test_the_claims_of_veraison_match_our_schema(matches: Callable[[str, bytes], bool]) -> None:
    body = issued(Serialisation.VERAISON_2023).split(b".")[1]
    claims: Any = strict.json_decode(strict.base64url_decode(body, what="payload"), what="payload")
    assert matches("result-token-veraison", cbor.encode(claims))
    assert not matches("result-token-veraison", cbor.encode({**claims, "ear_status": "affirming"}))
    assert not matches("result-token-veraison", cbor.encode({**claims, "eat_profile": "tag:ietf.org,2026:rats/ear#04"}))
    assert CLAIMS.session.hex() in str(claims)
