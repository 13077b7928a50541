"""Rows A29 to A34, and A18: what is not taken for a word of NVIDIA's attestation service, and what it may not do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from fakes.nras import NOON, SERIALS, Answer, EmulatedNras, bundle, part
from weighbridge.proto import binding, strict
from weighbridge.verifier import result_token
from weighbridge.verifier.gpu.nras import VerifiedNras, verify_nras

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from fakes.nras import Claims

WINDOW = binding.window_digest(b"the header of a window")
ANOTHER = binding.window_digest(b"the header of another")
ASKED = Answer(binding.gpu_nonce(WINDOW), NOON - timedelta(minutes=1))


def _verify(service: EmulatedNras, data: bytes, *, archived: EmulatedNras | None = None) -> VerifiedNras:
    """Judged at noon, as of :attr:`corpus.arena.Arena.at`, believing ``service`` alone."""
    sets = [(archived or service).jwks()]
    return verify_nras(data, jwks=sets, anchors=service.anchors(), at=NOON, nonce=ASKED.nonce)


def _accept(wanted: Answer) -> None:
    """What becomes of an answer in a session: it is of these devices, and says nothing against them."""
    service = EmulatedNras()
    said = _verify(service, service.answer(wanted))
    said.require_devices(SERIALS)
    said.require_agreement()


def _overall_signed(sign: Callable[[EmulatedNras, Claims], str]) -> None:
    service = EmulatedNras()
    tokens = service.device_tokens(ASKED)
    _verify(service, bundle(sign(service, ASKED.overall_claims(tokens)), tokens))


def _detached(change: Callable[[dict[str, str]], object]) -> None:
    service = EmulatedNras()
    overall, devices = json.loads(service.answer(ASKED))
    change(devices)
    _verify(service, bundle(overall[1], devices))


def case_001_good(arena: Arena) -> None:
    assert not arena.worlds
    _accept(ASKED)


def case_002_without_a_signature(_: Arena) -> None:
    _overall_signed(lambda service, claims: f"{part({'kid': service.kid, 'alg': 'none'})}.{part(claims)}.")


def case_003_symmetric_with_the_public_key(_: Arena) -> None:
    _overall_signed(EmulatedNras.sign_symmetric)


def case_004_signed_anew_under_the_same_name(_: Arena) -> None:
    _overall_signed(lambda _, claims: EmulatedNras().sign(claims))


def case_005_brings_its_own_key(_: Arena) -> None:
    stranger = EmulatedNras()
    _overall_signed(lambda _, claims: stranger.sign(claims, {"jwk": stranger.published_key()}))


def case_006_says_where_its_key_is(_: Arena) -> None:
    _overall_signed(lambda service, claims: service.sign(claims, {"jku": "https://attacker.example/jwks.json"}))


def case_007_key_set_of_somebody_else(_: Arena) -> None:
    """The whole service is the attacker's, and so is what was archived; its root is nobody's."""
    service, stranger = EmulatedNras(), EmulatedNras()
    _verify(service, stranger.answer(ASKED), archived=stranger)


def case_008_key_under_the_name_of_a_genuine_one(_: Arena) -> None:
    """The attester delivers a second key set, in which the genuine name is its own key's."""
    service, stranger = EmulatedNras(), EmulatedNras()
    sets = [service.jwks(), stranger.jwks()]
    verify_nras(stranger.answer(ASKED), jwks=sets, anchors=service.anchors(), at=NOON, nonce=ASKED.nonce)


def case_009_certificate_exchanged_for_a_bare_key(_: Arena) -> None:
    service, stranger = EmulatedNras(), EmulatedNras().published_key()
    published = service.published_key(x=stranger["x"], y=stranger["y"])
    sets = [json.dumps({"keys": [published]}).encode()]
    verify_nras(service.answer(ASKED), jwks=sets, anchors=service.anchors(), at=NOON, nonce=ASKED.nonce)


def case_010_key_that_was_not_archived(_: Arena) -> None:
    service = EmulatedNras()
    _verify(service, service.answer(ASKED), archived=replace(service, kid="of-another-day"))


def case_011_expired(_: Arena) -> None:
    _accept(replace(ASKED, issued=NOON - timedelta(hours=1)))


def case_012_not_yet_valid(_: Arena) -> None:
    _accept(replace(ASKED, issued=NOON + timedelta(minutes=1)))


def case_013_key_not_good_at_the_time_of_the_token(_: Arena) -> None:
    """A key of yesterday signs today: its certificate has run out."""
    service = EmulatedNras()
    yesterday = NOON - timedelta(days=1)
    service = replace(service, leaf=replace(service.leaf, not_before=yesterday, not_after=NOON - timedelta(minutes=2)))
    _verify(service, service.answer(ASKED))


def case_014_for_another_window(_: Arena) -> None:
    _accept(replace(ASKED, nonce=binding.gpu_nonce(ANOTHER)))


def case_015_over_the_digest_of_the_window_itself(_: Arena) -> None:
    _accept(replace(ASKED, nonce=WINDOW))


def case_016_one_device_asked_over_another_nonce(_: Arena) -> None:
    old = {"ueid": str(SERIALS[1]), "eat_nonce": binding.gpu_nonce(ANOTHER).hex()}
    _accept(replace(ASKED, devices={**ASKED.devices, "GPU-1": old}))


def case_017_device_tokens_swapped(_: Arena) -> None:
    def swap(devices: dict[str, str]) -> None:
        devices["GPU-0"], devices["GPU-1"] = devices["GPU-1"], devices["GPU-0"]

    _detached(swap)


def case_018_device_token_dropped(_: Arena) -> None:
    _detached(lambda devices: devices.pop("GPU-1"))


def case_019_device_token_added(_: Arena) -> None:
    _detached(lambda devices: devices.update({"GPU-2": devices["GPU-1"]}))


def case_020_device_token_of_a_better_answer(_: Arena) -> None:
    """Of the same service and nonce; the answer of which it was a part said something else."""
    service = EmulatedNras()
    bad = replace(ASKED, devices={**ASKED.devices, "GPU-1": {"ueid": str(SERIALS[1]), "measres": "fail"}})
    overall, devices = json.loads(service.answer(bad))
    devices["GPU-1"] = service.device_tokens(ASKED)["GPU-1"]
    _verify(service, bundle(overall[1], devices))


def case_021_about_other_devices(_: Arena) -> None:
    """The host has genuine devices of another host asked about, over its own nonce."""
    _accept(replace(ASKED, devices={"GPU-0": {"ueid": "11"}, "GPU-1": {"ueid": "12"}}))


def case_022_one_device_twice(_: Arena) -> None:
    again = {"ueid": str(SERIALS[0])}
    _accept(replace(ASKED, devices={"GPU-0": again, "GPU-1": again}))


def case_023_addressed_to_somebody_else(_: Arena) -> None:
    _accept(replace(ASKED, overall={"aud": "https://another.example"}))


def case_024_shown_to_a_gate(_: Arena) -> None:
    """A good one, where a result token is asked for: it is no permission, whoever holds it."""
    service = EmulatedNras()
    key = service.leaf.key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    overall = json.loads(service.answer(ASKED))[0][1]
    result_token.verify(overall, key, audience="relying-party", at=NOON)


def case_025_of_the_staging_service(_: Arena) -> None:
    _accept(replace(ASKED, each={"iss": "https://nras.attestation-stg.nvidia.com"}))


def case_026_claim_twice(_: Arena) -> None:
    def twice(service: EmulatedNras, claims: Claims) -> str:
        header, payload, signature = service.sign(claims).split(".")
        text = strict.base64url_decode(payload, what="payload")[:-1] + b',"x-nvidia-overall-att-result":true}'
        return f"{header}.{strict.base64url_encode(text)}.{signature}"

    _overall_signed(twice)


def case_027_device_in_debugging_mode(_: Arena) -> None:
    """The overall result is true all the same, and settles nothing."""
    debugged = {"ueid": str(SERIALS[0]), "dbgstat": "enabled"}
    _accept(replace(ASKED, devices={**ASKED.devices, "GPU-0": debugged}))


def case_028_device_without_secure_boot(_: Arena) -> None:
    insecure = {"ueid": str(SERIALS[0]), "secboot": False}
    _accept(replace(ASKED, devices={**ASKED.devices, "GPU-0": insecure}))


def case_029_measurements_that_failed(_: Arena) -> None:
    failed = {"ueid": str(SERIALS[0]), "measres": "fail"}
    overall = {"x-nvidia-overall-att-result": False}
    _accept(replace(ASKED, devices={**ASKED.devices, "GPU-0": failed}, overall=overall))


def case_030_device_on_ocsp_hold(_: Arena) -> None:
    chain = {
        **ASKED.device_claims("GPU-0")["x-nvidia-gpu-attestation-report-cert-chain"],
        "x-nvidia-cert-ocsp-status": "revoked",
        "x-nvidia-cert-revocation-reason": "certificateHold",
    }
    held = {"ueid": str(SERIALS[0]), "x-nvidia-gpu-attestation-report-cert-chain": chain}
    _accept(replace(ASKED, devices={**ASKED.devices, "GPU-0": held}))
