"""Rows A29 to A34: what is taken for a word of NVIDIA's attestation service, and what is not."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fakes.nras import NOON, SERIALS, Answer, EmulatedNras, bundle, claims_of, part
from gpu_support import Certificate
from weighbridge.proto import binding, limits, strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import (
    Code,
    Indeterminate,
    MalformedEvidence,
    NotAuthentic,
    PolicyDenied,
    WeighbridgeError,
)
from weighbridge.verifier import anchors, result_token
from weighbridge.verifier.gpu import nras
from weighbridge.verifier.gpu.nras import VerifiedNras, verify_nras
from weighbridge.verifier.gpu.nras import claims as judged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weighbridge.verifier.anchors import TrustAnchors

NONCE = binding.gpu_nonce(binding.window_digest(b"a header"))
AT = NOON + timedelta(minutes=5)
SERVICE = EmulatedNras()
ANCHORS = SERVICE.anchors()
GOOD = Answer(NONCE)


def verify(
    data: bytes,
    *,
    service: EmulatedNras = SERVICE,
    believed: TrustAnchors = ANCHORS,
    at: datetime = AT,
    nonce: bytes = NONCE,
) -> VerifiedNras:
    return verify_nras(data, jwks=[service.jwks()], anchors=believed, at=at, nonce=nonce)


def refused(
    code: Code,
    data: bytes,
    *,
    service: EmulatedNras = SERVICE,
    believed: TrustAnchors = ANCHORS,
    at: datetime = AT,
    nonce: bytes = NONCE,
) -> WeighbridgeError:
    with pytest.raises(WeighbridgeError) as refusal:
        verify(data, service=service, believed=believed, at=at, nonce=nonce)
    assert refusal.value.code is code, refusal.value
    return refusal.value


def edited(change: Callable[[list[Any]], object], wanted: Answer = GOOD) -> bytes:
    """A good answer whose outer JSON is changed after it was signed."""
    answer = json.loads(SERVICE.answer(wanted))
    change(answer)
    return json.dumps(answer).encode()


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_good_answer(version: Literal["2.0", "3.0"]) -> None:
    data = SERVICE.answer(replace(GOOD, version=version))
    said = verify(data)
    assert (said.nonce, said.platform, said.version, said.issuer) == (
        NONCE,
        "insecure-emulated",
        version,
        "https://nras.attestation.nvidia.com",
    )
    assert (said.issued, said.expires) == (NOON, NOON + timedelta(hours=1))
    assert said.digest == sha256(data)
    assert [(device.name, device.kind, device.ueid) for device in said.devices] == [
        ("GPU-0", "gpu", str(SERIALS[0])),
        ("GPU-1", "gpu", str(SERIALS[1])),
    ]
    assert (said.says, said.contradictions, said.warnings) == ("corroborates", (), ())
    said.require_agreement()
    said.require_devices(SERIALS)


def test_switches_beside_gpus() -> None:
    wanted = Answer(NONCE, devices={"GPU-0": {"ueid": "11"}, "SWITCH-0": {"ueid": "12"}})
    said = verify(SERVICE.answer(wanted))
    assert [(device.name, device.kind) for device in said.devices] == [("GPU-0", "gpu"), ("SWITCH-0", "switch")]
    assert said.says == "corroborates"


def test_intermediate_authority_may_be_believed() -> None:
    """The service publishes its root nowhere: what an operator can compare is the authority below it."""
    assert verify(SERVICE.answer(GOOD), believed=SERVICE.anchors(intermediate=True)).says == "corroborates"


def test_key_set_is_looked_for_in_all_that_are_archived() -> None:
    other = replace(EmulatedNras(), kid="another-day")
    said = verify_nras(
        SERVICE.answer(GOOD), jwks=[other.jwks(), SERVICE.jwks(), SERVICE.jwks()], anchors=ANCHORS, at=AT, nonce=NONCE
    )
    assert said.says == "corroborates"


@pytest.mark.parametrize(
    "at", [NOON - timedelta(seconds=5), NOON, NOON + timedelta(seconds=3599, microseconds=999_999)]
)
def test_first_and_last_moment(at: datetime) -> None:
    verify(SERVICE.answer(GOOD), at=at)


def test_made_by_the_verification_alone() -> None:
    said = verify(SERVICE.answer(GOOD))
    with pytest.raises(TypeError, match="verify_nras"):
        replace(said, seal=object())
    with pytest.raises(TypeError, match="verify_nras"):
        pickle.dumps(said)


def test_naive_time_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="naive"):
        verify(SERVICE.answer(GOOD), at=AT.replace(tzinfo=None))


# -- A29: the algorithm ------------------------------------------------------------------------------------------------


def _signed_otherwise(sign: Callable[[dict[str, Any]], str], *, device: bool) -> bytes:
    tokens = SERVICE.device_tokens(GOOD)
    if device:
        tokens["GPU-1"] = sign(GOOD.device_claims("GPU-1"))
        return bundle(SERVICE.sign(GOOD.overall_claims(tokens)), tokens)
    return bundle(sign(GOOD.overall_claims(tokens)), tokens)


@pytest.mark.parametrize("device", [False, True])
@pytest.mark.parametrize("alg", ["none", "None", "ES256", "ES384 ", "RS256", None, 7, ["ES384"]])
def test_other_algorithm(alg: object, device: bool) -> None:
    data = _signed_otherwise(lambda claims: f"{part({'kid': SERVICE.kid, 'alg': alg})}.{part(claims)}.", device=device)
    refused(Code.NRAS_ALG, data)


@pytest.mark.parametrize("device", [False, True])
def test_symmetric_under_the_public_key(device: bool) -> None:
    refused(Code.NRAS_ALG, _signed_otherwise(SERVICE.sign_symmetric, device=device))


def test_algorithm_is_looked_at_before_anything_else() -> None:
    """A token without a signature is refused as that, though nothing else in it is right."""
    data = bundle(f"{part({'alg': 'none'})}.{part({})}.", {"GPU-0": f"{part({'alg': 'none'})}.{part({})}."})
    refused(Code.NRAS_ALG, data)


# -- A30: the key ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [False, True])
def test_signed_anew_under_the_same_name(device: bool) -> None:
    stranger = EmulatedNras()
    refused(Code.NRAS_SIG, _signed_otherwise(stranger.sign, device=device))


@pytest.mark.parametrize("length", [0, 95, 97, 192])
def test_signature_of_another_length(length: int) -> None:
    def cut(claims: dict[str, Any]) -> str:
        signed, _, signature = SERVICE.sign(claims).rpartition(".")
        octets = (strict.base64url_decode(signature, what="signature") * 2)[:length]
        return f"{signed}.{strict.base64url_encode(octets)}"

    refused(Code.NRAS_SIG, _signed_otherwise(cut, device=False))


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "x5t#S256", "crit", "b64", "zip", "cty", "ALG"])
def test_header_that_brings_its_key_or_more(member: str) -> None:
    refused(Code.NRAS_ALG, SERVICE.answer(replace(GOOD, header={member: "https://attacker.example/jwks.json"})))


def test_typ_is_allowed() -> None:
    verify(SERVICE.answer(replace(GOOD, header={"typ": "JWT"})))


def test_key_set_of_somebody_else() -> None:
    stranger = EmulatedNras()
    refused(Code.NRAS_ISSUER, stranger.answer(GOOD), service=stranger)


def test_nobody_is_believed() -> None:
    refused(Code.NRAS_ISSUER, SERVICE.answer(GOOD), believed=anchors.TrustAnchors(()))


def test_anchors_of_other_purposes_do_not_count() -> None:
    (root,) = ANCHORS.anchors
    other = anchors.TrustAnchors((replace(root, purpose="nvidia-device-root"),))
    refused(Code.NRAS_ISSUER, SERVICE.answer(GOOD), believed=other)


def test_key_that_is_archived_nowhere() -> None:
    data = replace(SERVICE, kid="rotated-away").answer(GOOD)
    error = refused(Code.NRAS_KEY_ABSENT, data)
    assert isinstance(error, Indeterminate)
    assert "fetch" in error.hint


def test_no_key_sets() -> None:
    with pytest.raises(Indeterminate) as refusal:
        verify_nras(SERVICE.answer(GOOD), jwks=[], anchors=ANCHORS, at=AT, nonce=NONCE)
    assert refusal.value.code is Code.NRAS_KEY_ABSENT


def test_key_set_that_is_none_among_the_archived() -> None:
    """Nothing is skipped: whoever archived it has to know."""
    with pytest.raises(MalformedEvidence) as refusal:
        verify_nras(SERVICE.answer(GOOD), jwks=[SERVICE.jwks(), b"{}"], anchors=ANCHORS, at=AT, nonce=NONCE)
    assert refusal.value.code is Code.NRAS_MALFORMED
    assert "key set 1" in refusal.value.message


@pytest.mark.parametrize("kid", ["", None, 7, "k" * 513])
def test_key_without_a_usable_name(kid: object) -> None:
    refused(Code.NRAS_MALFORMED, SERVICE.answer(replace(GOOD, header={"kid": kid})))


def test_tokens_under_two_platforms() -> None:
    """An emulated device's token does not hide among a real service's."""
    other = EmulatedNras(kid="other", root=Certificate("Another Attestation Service CA"))
    tokens = SERVICE.device_tokens(GOOD)
    tokens["GPU-1"] = other.sign(GOOD.device_claims("GPU-1"))
    data = bundle(SERVICE.sign(GOOD.overall_claims(tokens)), tokens)
    believed = ANCHORS.with_anchors(other.anchors(platform="nvidia").anchors)
    with pytest.raises(NotAuthentic) as refusal:
        verify_nras(data, jwks=[SERVICE.jwks(), other.jwks()], anchors=believed, at=AT, nonce=NONCE)
    assert (refusal.value.code, refusal.value.expected, refusal.value.got) == (
        Code.NRAS_ISSUER,
        "insecure-emulated",
        "nvidia",
    )


@pytest.mark.parametrize("where", ["overall", "device"])
def test_other_issuer(where: str) -> None:
    claims = {"iss": "https://nras.attestation-stg.nvidia.com"}
    wanted = replace(GOOD, overall=claims) if where == "overall" else replace(GOOD, devices={"GPU-0": claims})
    refused(Code.NRAS_ISSUER, SERVICE.answer(wanted))


# -- A31: time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [NOON - timedelta(seconds=6), NOON + timedelta(hours=1), NOON + timedelta(days=30)])
def test_expired_or_not_yet_valid(at: datetime) -> None:
    refused(Code.NRAS_TIME, SERVICE.answer(GOOD), at=at)


@pytest.mark.parametrize(("claim", "seconds"), [("exp", 60), ("nbf", 400), ("iat", 400)])
def test_one_device_token_expired_or_not_yet_valid(claim: str, seconds: int) -> None:
    time = round(NOON.timestamp()) + seconds
    refused(Code.NRAS_TIME, SERVICE.answer(replace(GOOD, devices={"GPU-0": {claim: time}})))


@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [
        (NOON + timedelta(seconds=1), NOON + timedelta(days=2)),
        (NOON - timedelta(days=2), NOON + timedelta(minutes=59)),
        (NOON - timedelta(days=3), NOON - timedelta(days=1)),
    ],
)
def test_key_that_is_not_good_for_the_whole_life_of_the_token(not_before: datetime, not_after: datetime) -> None:
    service = replace(SERVICE, leaf=replace(SERVICE.leaf, not_before=not_before, not_after=not_after))
    refused(Code.NRAS_TIME, service.answer(GOOD), service=service)


def test_authority_and_anchor_that_are_not_good_for_the_whole_life_of_the_token() -> None:
    end = NOON + timedelta(minutes=59)
    service = replace(SERVICE, intermediate=replace(SERVICE.intermediate, not_after=end))
    refused(Code.NRAS_TIME, service.answer(GOOD), service=service)
    for intermediate in (False, True):
        (anchor,) = SERVICE.anchors(intermediate=intermediate).anchors
        believed = anchors.TrustAnchors((replace(anchor, not_after=end),))
        refused(Code.NRAS_TIME, SERVICE.answer(GOOD), believed=believed)


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize("value", [..., None, "1780315200", 1780315200.0, True, -1, 2**63])
def test_time_that_is_none(claim: str, value: object) -> None:
    refused(Code.NRAS_MALFORMED, SERVICE.answer(replace(GOOD, each={claim: value})))


def test_end_before_the_beginning() -> None:
    refused(Code.NRAS_MALFORMED, SERVICE.answer(replace(GOOD, each={"exp": round(NOON.timestamp())})))


# -- A32: the nonce ----------------------------------------------------------------------------------------------------


def test_answer_for_another_window() -> None:
    refused(Code.NRAS_NONCE, SERVICE.answer(Answer(binding.gpu_nonce(binding.window_digest(b"another header")))))


def test_answer_over_the_digest_itself() -> None:
    """A06: nobody tries whether another derivation fits."""
    refused(Code.NRAS_NONCE, SERVICE.answer(Answer(binding.window_digest(b"a header"))))


def test_one_device_asked_over_another_nonce() -> None:
    devices = {"GPU-0": {}, "GPU-1": {"eat_nonce": sha256(b"another").hex()}}
    refused(Code.NRAS_NONCE, SERVICE.answer(replace(GOOD, devices=devices)))


@pytest.mark.parametrize("nonce", [NONCE.hex().upper(), f" {NONCE.hex()}", NONCE.hex()[:32], "é" * 64])
def test_nonce_in_another_spelling(nonce: str) -> None:
    refused(Code.NRAS_NONCE, SERVICE.answer(replace(GOOD, each={"eat_nonce": nonce})))


@pytest.mark.parametrize("nonce", [..., None, "", [NONCE.hex()], [NONCE.hex(), "00" * 32]])
def test_nonce_that_is_none(nonce: object) -> None:
    refused(Code.NRAS_MALFORMED, SERVICE.answer(replace(GOOD, each={"eat_nonce": nonce})))


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_expected_nonce_of_another_length(nonce: bytes) -> None:
    refused(Code.NONCE_LENGTH, SERVICE.answer(Answer(nonce)), nonce=nonce)


# -- A33: the devices' tokens ------------------------------------------------------------------------------------------


def _swap(answer: list[Any]) -> None:
    answer[1]["GPU-0"], answer[1]["GPU-1"] = answer[1]["GPU-1"], answer[1]["GPU-0"]


@pytest.mark.parametrize(
    "change",
    [
        _swap,
        lambda answer: answer[1].pop("GPU-1"),
        lambda answer: answer[1].update({"GPU-2": answer[1]["GPU-1"]}),
        lambda answer: answer[1].update({"GPU-1": answer[1]["GPU-0"]}),
        lambda answer: answer[1].update({"SWITCH-1": answer[1].pop("GPU-1")}),
    ],
    ids=["swapped", "dropped", "added", "twice", "renamed"],
)
def test_device_tokens_of_another_set(change: Callable[[list[Any]], object]) -> None:
    refused(Code.NRAS_SUBMODS, edited(change))


def test_device_token_of_another_answer() -> None:
    """Signed by the service, over this nonce, of a better day."""
    other = SERVICE.device_tokens(GOOD)["GPU-0"]
    bad = replace(GOOD, devices={**GOOD.devices, "GPU-0": {"measres": "fail"}})
    refused(Code.NRAS_SUBMODS, edited(lambda answer: answer[1].update({"GPU-0": other}), bad))


@pytest.mark.parametrize(
    "entry",
    [
        ["DIGEST", ["SHA-384", "0" * 96]],
        ["DIGEST", ["SHA-256", "0" * 64]],
        ["DIGEST", ["SHA-256"]],
        ["JWT", "x"],
        {},
        None,
    ],
)
def test_submodule_that_is_not_the_digest(entry: object) -> None:
    tokens = SERVICE.device_tokens(GOOD)
    claims = GOOD.overall_claims(tokens)
    claims["submods"]["GPU-1"] = entry
    refused(Code.NRAS_SUBMODS, bundle(SERVICE.sign(claims), tokens))


def test_digest_in_another_spelling() -> None:
    tokens = SERVICE.device_tokens(GOOD)
    claims = GOOD.overall_claims(tokens)
    claims["submods"]["GPU-1"][1][1] = claims["submods"]["GPU-1"][1][1].upper()
    refused(Code.NRAS_SUBMODS, bundle(SERVICE.sign(claims), tokens))


@pytest.mark.parametrize("submods", [..., None, [], "GPU-0"])
def test_no_submodules(submods: object) -> None:
    refused(Code.NRAS_MALFORMED, SERVICE.answer(replace(GOOD, overall={"submods": submods})))


def test_answer_about_other_devices() -> None:
    """A08: the host asks about somebody else's GPUs, over this window's nonce."""
    said = verify(SERVICE.answer(GOOD))
    said.require_devices(tuple(reversed(SERIALS)))
    for serials in ((), SERIALS[:1], (*SERIALS, 5), (SERIALS[0], 5), (SERIALS[0], SERIALS[0])):
        with pytest.raises(NotAuthentic) as refusal:
            said.require_devices(serials)
        assert refusal.value.code is Code.NRAS_SUBMODS


def test_one_device_twice_in_an_answer() -> None:
    """A11."""
    devices = {"GPU-0": {"ueid": "11"}, "GPU-1": {"ueid": "11"}}
    said = verify(SERVICE.answer(replace(GOOD, devices=devices)))
    for serials in ((11,), (11, 12)):
        with pytest.raises(NotAuthentic) as refusal:
            said.require_devices(serials)
        assert refusal.value.code is Code.NRAS_SUBMODS


@pytest.mark.parametrize("ueid", [11, "", "011", "+11", "1_1", "1" * 50, "²"])
def test_serial_number_that_is_none(ueid: object) -> None:
    refused(Code.NRAS_MALFORMED, SERVICE.answer(replace(GOOD, devices={"GPU-0": {"ueid": ueid}})))


def test_device_without_a_serial_number() -> None:
    said = verify(SERVICE.answer(replace(GOOD, devices={"GPU-0": {"ueid": ...}})))
    assert said.devices[0].ueid is None
    with pytest.raises(NotAuthentic) as refusal:
        said.require_devices((11,))
    assert refusal.value.code is Code.NRAS_SUBMODS


# -- A34: whose token --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audience", ["https://somebody.example", ["a", "b"], "", None])
def test_token_with_an_audience(audience: object) -> None:
    refused(Code.NRAS_AUDIENCE, SERVICE.answer(replace(GOOD, overall={"aud": audience})))
    refused(Code.NRAS_AUDIENCE, SERVICE.answer(replace(GOOD, devices={"GPU-0": {"aud": audience}})))


def test_no_gate_takes_it_for_a_permission() -> None:
    """A good token, shown where a result token is asked for."""
    key = SERVICE.leaf.key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    overall = json.loads(SERVICE.answer(GOOD))[0][1]
    with pytest.raises(NotAuthentic) as refusal:
        result_token.verify(overall, key, audience="gate", at=AT)
    assert refusal.value.code is Code.TOKEN_SIGNATURE


# -- what it says ------------------------------------------------------------------------------------------------------


CHAIN = "x-nvidia-gpu-attestation-report-cert-chain"
GOOD_CHAIN = GOOD.device_claims("GPU-0")[CHAIN]


@pytest.mark.parametrize(
    ("claims", "claim"),
    [
        ({"measres": "fail"}, "measres"),
        ({"measres": ...}, "measres"),
        ({"secboot": False}, "secboot"),
        ({"secboot": None}, "secboot"),
        ({"secboot": 1}, "secboot"),
        ({"secboot": "true"}, "secboot"),
        ({"dbgstat": "enabled"}, "dbgstat"),
        ({"x-nvidia-gpu-arch-check": False}, "x-nvidia-gpu-arch-check"),
        (
            {"x-nvidia-gpu-attestation-report-signature-verified": ...},
            "x-nvidia-gpu-attestation-report-signature-verified",
        ),
        ({"x-nvidia-gpu-driver-rim-fetched": False}, "x-nvidia-gpu-driver-rim-fetched"),
        ({"x-nvidia-gpu-something-new": False}, "x-nvidia-gpu-something-new"),
        ({"x-nvidia-error-details": {"code": 4010}}, "x-nvidia-error-details"),
        ({"x-nvidia-mismatch-measurement-records": [{"index": 9}]}, "x-nvidia-mismatch-measurement-records"),
        ({CHAIN: {**GOOD_CHAIN, "x-nvidia-cert-status": "expired"}}, f"{CHAIN}.x-nvidia-cert-status"),
        ({CHAIN: {**GOOD_CHAIN, "x-nvidia-cert-ocsp-status": "revoked"}}, f"{CHAIN}.x-nvidia-cert-ocsp-status"),
        (
            {CHAIN: {**GOOD_CHAIN, "x-nvidia-cert-revocation-reason": "certificateHold"}},
            f"{CHAIN}.x-nvidia-cert-revocation-reason",
        ),
        (
            {CHAIN: {**GOOD_CHAIN, "x-nvidia-cert-ocsp-nonce-matches": False}},
            f"{CHAIN}.x-nvidia-cert-ocsp-nonce-matches",
        ),
        ({CHAIN: {}}, f"{CHAIN}.x-nvidia-cert-status"),
        ({CHAIN: None}, CHAIN),
    ],
)
def test_claim_that_speaks_against_a_device(claims: dict[str, Any], claim: str) -> None:
    """A18 among them. The overall result is good all the same: nothing is concluded from it."""
    said = verify(SERVICE.answer(replace(GOOD, devices={"GPU-0": {"ueid": "11", **claims}})))
    assert said.claims["x-nvidia-overall-att-result"] is True
    assert said.says == "contradicts"
    assert said.contradictions[0].claim == f"GPU-0.{claim}"
    with pytest.raises(PolicyDenied) as refusal:
        said.require_agreement()
    assert refusal.value.code is Code.NRAS_CONTRADICTS
    assert claim in refusal.value.where


@pytest.mark.parametrize("result", [False, None, "true", 1, ...])
def test_overall_result_that_is_not_true(result: object) -> None:
    said = verify(SERVICE.answer(replace(GOOD, overall={"x-nvidia-overall-att-result": result})))
    assert [found.claim for found in said.contradictions] == ["overall.x-nvidia-overall-att-result"]


def test_answer_that_says_nothing_but_that_it_failed() -> None:
    """As the service answers where the nonce of the report is another: six claims, and an error."""
    wanted = replace(GOOD, devices={"GPU-0": {}}, overall={"x-nvidia-overall-att-result": False})
    common = {name: wanted.device_claims("GPU-0")[name] for name in ("iss", "iat", "nbf", "exp", "eat_nonce")}
    token = SERVICE.sign({**common, "x-nvidia-error-details": {"code": 4010, "message": "NONCE_NOT_MATCHING"}})
    said = verify(bundle(SERVICE.sign(wanted.overall_claims({"GPU-0": token})), {"GPU-0": token}))
    assert said.says == "contradicts"
    assert {"GPU-0.measres", "GPU-0.x-nvidia-error-details"} <= {found.claim for found in said.contradictions}
    assert str(said.contradictions[1]) == 'GPU-0.measres is absent, not "success"'


def test_warning_is_told_and_nothing_is_concluded() -> None:
    said = verify(SERVICE.answer(replace(GOOD, devices={"GPU-0": {"x-nvidia-attestation-warning": "old driver"}})))
    assert (said.says, said.warnings) == ("corroborates", ('GPU-0: "old driver"',))


@pytest.mark.parametrize("version", ["1.0", "4.0", "3"])
def test_version_of_claims_that_is_not_known(version: str) -> None:
    refused(Code.VERSION_UNSUPPORTED, SERVICE.answer(replace(GOOD, overall={"x-nvidia-ver": version})))


# -- malformed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.NOT_JSON),
        (b"{}", Code.NRAS_MALFORMED),
        (b"[]", Code.NRAS_MALFORMED),
        (b'[["JWT","a.b.c"]]', Code.NRAS_MALFORMED),
        (b'[["CWT","a.b.c"],{"GPU-0":"a.b.c"}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b.c"],{}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b.c"],[]]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b.c"],{"GPU-0":1}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b.c"],{"GPU-00":"a.b.c"}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b.c"],{"CPU-0":"a.b.c"}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b"],{"GPU-0":"e30.e30"}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b"],{"GPU-0":"e30.W10."}]', Code.NRAS_MALFORMED),
        (b'[["JWT","a.b"],{"GPU-0":"e30.e30.a=="}]', Code.NOT_BASE64),
        (b'[["JWT","a.b"],{"GPU-0":"a.b","GPU-0":"a.b"}]', Code.DUPLICATE_KEY),
        (b'[["JWT","e30.e30."],{"GPU-0":"%s.e30."}]' % (b"a" * limits.TOKEN_MAX), Code.TOO_LARGE),
        (b" " * (limits.NRAS_ANSWER_MAX + 1), Code.TOO_LARGE),
    ],
)
def test_not_an_answer(data: bytes, code: Code) -> None:
    error = refused(code, data)
    assert isinstance(error, MalformedEvidence)


def test_claim_that_stands_twice() -> None:
    tokens = SERVICE.device_tokens(GOOD)
    header, payload, signature = tokens["GPU-0"].split(".")
    twice = strict.base64url_decode(payload, what="payload")[:-1] + b',"measres":"fail"}'
    tokens["GPU-0"] = f"{header}.{strict.base64url_encode(twice)}.{signature}"
    refused(Code.DUPLICATE_KEY, bundle(SERVICE.sign(GOOD.overall_claims(tokens)), tokens))


def test_too_many_devices() -> None:
    tokens = {f"GPU-{number}": "e30.e30." for number in range(limits.GPUS_MAX + 1)}
    refused(Code.NRAS_MALFORMED, bundle("e30.e30.", tokens))


def test_as_many_devices_as_there_may_be_fit() -> None:
    devices: dict[str, dict[str, Any]] = {
        f"GPU-{number}": {"filler": "x" * 1200, "ueid": str(number + 1)} for number in range(limits.GPUS_MAX)
    }
    data = SERVICE.answer(replace(GOOD, devices=devices))
    assert len(data) > limits.GPUS_MAX * 2744
    verify(data).require_devices(range(1, limits.GPUS_MAX + 1))


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    _parses_or_is_malformed(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
TOKENS = st.tuples(JSON, JSON, st.binary(max_size=8)).map(
    lambda parts: ".".join(
        [*(strict.base64url_encode(json.dumps(each).encode()) for each in parts[:2]), strict.base64url_encode(parts[2])]
    )
)


@given(TOKENS, st.dictionaries(st.sampled_from(["GPU-0", "GPU-1", "SWITCH-0", "GPU"]), TOKENS, max_size=3))
def test_any_tokens_are_an_answer_or_malformed(overall: str, devices: dict[str, str]) -> None:
    _parses_or_is_malformed(bundle(overall, devices))


def _parses_or_is_malformed(data: bytes) -> None:
    try:
        answer = nras.parse(data)
    except MalformedEvidence:
        return
    assert answer.raw == data
    assert {token.signed.count(b".") for token in answer.devices.values()} == {1}


@given(
    st.dictionaries(st.sampled_from(["iss", "iat", "nbf", "exp", "eat_nonce", "submods", "aud", "x-nvidia-ver"]), JSON),
    st.dictionaries(st.sampled_from(["measres", CHAIN, "ueid", "iss", "secboot", "x-nvidia-error-details"]), JSON),
)
def test_any_signed_claims_are_verified_or_refused(overall: dict[str, Any], device: dict[str, Any]) -> None:
    data = SERVICE.answer(replace(GOOD, overall=overall, devices={"GPU-0": device}))
    try:
        said = verify(data)
    except WeighbridgeError as error:
        assert error.code  # noqa: PT017 - any refusal will do, and nothing but a refusal
    else:
        assert said.digest == sha256(data)


ONE = replace(GOOD, devices={"GPU-0": {"ueid": "11"}})
ONE_ANSWER = SERVICE.answer(ONE)


@given(st.integers(0, len(ONE_ANSWER) - 1), st.integers(0, 7))
def test_one_flipped_bit_is_refused(position: int, bit: int) -> None:
    flipped = bytearray(ONE_ANSWER)
    flipped[position] ^= 1 << bit
    with pytest.raises(WeighbridgeError):
        verify(bytes(flipped))


def test_whoever_signs_twice_the_same_is_the_same_witness() -> None:
    """ECDSA is malleable: (r, -s) verifies too. What was signed is the same, so nothing is gained by it."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973

    def other(claims: dict[str, Any]) -> str:
        signed, _, signature = SERVICE.sign(claims).rpartition(".")
        octets = strict.base64url_decode(signature, what="signature")
        s = order - int.from_bytes(octets[48:])
        return f"{signed}.{strict.base64url_encode(octets[:48] + s.to_bytes(48))}"

    assert verify(_signed_otherwise(other, device=False)).says == "corroborates"


# -- the service's own -------------------------------------------------------------------------------------------------

SAMPLES = "nvidia/attsdk-testdata-sample_attestation_data"
SAMPLE_NONCE = bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
SAMPLE_TIME = datetime.fromtimestamp(1749601858 + 60, tz=NOON.tzinfo)


@pytest.mark.parametrize(
    ("file", "device", "decoded"),
    [
        ("hopperClaimsv3_detached_eat.json", "GPU-0", "hopperClaimsv3_decoded.json"),
        ("switch_detached_eat.json", "SWITCH-0", "switch_decoded.json"),
    ],
)
def test_real_answers_are_read_and_their_digests_fit(vectors_dir: Path, file: str, device: str, decoded: str) -> None:
    answer = nras.parse((vectors_dir / SAMPLES / file).read_bytes())
    assert list(answer.devices) == [device]
    token = answer.devices[device]
    assert answer.overall.claims["submods"] == {device: ["DIGEST", ["SHA-256", sha256(token.raw).hex()]]}
    assert json.loads((vectors_dir / SAMPLES / decoded).read_text())[device] == dict(token.claims)
    assert judged.of_overall(answer.overall.claims) + judged.of_device(device, token.claims) == ()


def test_real_answer_whose_key_is_published_no_more(vectors_dir: Path) -> None:
    data = (vectors_dir / SAMPLES / "hopperClaimsv3_detached_eat.json").read_bytes()
    error = refused(Code.NRAS_KEY_ABSENT, data, at=SAMPLE_TIME, nonce=SAMPLE_NONCE)
    assert "nv-eat-kid-prod-20250609211310110" in (error.got or "")


def test_real_answer_of_the_staging_service(vectors_dir: Path) -> None:
    data = (vectors_dir / SAMPLES / "switch_detached_eat.json").read_bytes()
    refused(Code.NRAS_ISSUER, data, at=SAMPLE_TIME, nonce=SAMPLE_NONCE)


def test_real_claims_signed_by_the_emulated_service(vectors_dir: Path) -> None:
    """All but the signature is the service's own."""
    answer = json.loads((vectors_dir / SAMPLES / "hopperClaimsv3_detached_eat.json").read_bytes())
    leaf = replace(
        SERVICE.leaf, not_before=SAMPLE_TIME - timedelta(hours=2), not_after=SAMPLE_TIME + timedelta(hours=9)
    )
    service = replace(SERVICE, leaf=leaf)
    token = service.sign(claims_of(answer[1]["GPU-0"]))
    overall = claims_of(answer[0][1])
    overall["submods"]["GPU-0"][1][1] = sha256(token.encode()).hex()
    said = verify(bundle(service.sign(overall), {"GPU-0": token}), service=service, at=SAMPLE_TIME, nonce=SAMPLE_NONCE)
    assert said.says == "corroborates"
    said.require_devices([SERIALS[0]])
