"""Rows A01 to A07: old, empty, short, chosen, published and confused nonces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from unittest import mock

from support.forge import Forgery, claim, header_of, random_bytes, resealed, seal, unsigned
from support.world import requirements
from weighbridge.proto import binding, cbor, strict
from weighbridge.proto.digest import D
from weighbridge.proto.spdm import report as spdm
from weighbridge.proto.spdm.evidence import GpuEvidence
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.window import Evidence, Header
from weighbridge.verifier.gpu.chain import verify_chain
from weighbridge.verifier.gpu.report import verify_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from corpus.arena import Arena
    from support.forge import Reports, Seals
    from weighbridge.proto.enrolment import EnrolmentProof
    from weighbridge.verifier.anchors import TrustAnchors
    from weighbridge.verifier.core import Answer, Opened

# NVIDIA/nvtrust and others: anybody has a genuine report over it.
PUBLISHED = strict.hex_decode("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb", what="nonce")
_NONCE_CLAIM = 10
_EXTRA_DATA = slice(6 + 2 + 34 + 2, 6 + 2 + 34 + 2 + 32)


def _quoting(arena: Arena, qualifying_data: Callable[[Seals], bytes]) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(qualifying_data=qualifying_data)))


def _reporting(arena: Arena, nonce: Callable[[bytes], bytes]) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(gpu_nonce=nonce)))


def _challenged(arena: Arena, challenge: bytes) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(challenge=challenge)))


def _claims(**changes: cbor.CborValue) -> Forgery:
    """A header with a challenge that no Header can hold."""

    def changed(claims: bytes) -> bytes:
        value = cbor.decode(claims, limit=10_000, what="header")
        assert isinstance(value, dict)
        return cbor.encode({**value, _NONCE_CLAIM: changes["challenge"]})

    return Forgery(claims=changed)


# -- A01 ---------------------------------------------------------------------------------------------------------------


def case_001_old_quote(arena: Arena) -> Answer:
    world = arena.settled(1)
    old = world.host.seal()
    world.clock.advance(1)
    world.deliver(old)
    quote = QuoteEvidence.parse(Evidence.parse(old.evidence).quote)
    return arena.submit(world, seal(world.host, Forgery(quote=lambda _: quote)))


def case_002_old_quote_at_enrolment(arena: Arena) -> Opened:
    world = arena.world()
    first = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    old = world.host.proof(first).quote
    return arena.enrol(world, edit=lambda proof: replace(proof, quote=old))


# -- A02 ---------------------------------------------------------------------------------------------------------------


def case_003_empty_qualifying_data(arena: Arena) -> Answer:
    return _quoting(arena, lambda _: b"")


def case_004_empty_challenge(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, _claims(challenge=b"")))


def case_005_empty_expected_nonce(arena: Arena) -> None:
    world = arena.world()
    (item, *_) = world.host.gpus.attest(random_bytes("nonce"))
    report_over(item, world.anchors, world.clock.at, b"")


def report_over(item: GpuEvidence, anchors: TrustAnchors, at: datetime, nonce: bytes) -> None:
    """Require that ``item`` is a genuine GPU's report over ``nonce``."""
    chain = verify_chain(item.chain, anchors, at=at)
    verify_report(spdm.parse(item.report), chain, nonce=nonce)


def case_006_null_challenge(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, _claims(challenge=None)))


# -- A03 ---------------------------------------------------------------------------------------------------------------


def case_007_shortened_qualifying_data(arena: Arena) -> Answer:
    return _quoting(arena, lambda seals: seals.qualifying_data[:31])


def case_008_short_challenge(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, _claims(challenge=world.host.challenge[:16])))


def case_009_published_challenge(arena: Arena) -> Answer:
    return _challenged(arena, PUBLISHED)


def case_010_published_gpu_nonce(arena: Arena) -> Answer:
    return _reporting(arena, lambda _: PUBLISHED)


def case_011_word_for_a_challenge(arena: Arena) -> Answer:
    return _challenged(arena, b"challenge".ljust(32, b"\0"))


# -- A04 ---------------------------------------------------------------------------------------------------------------


def case_012_chosen_by_the_attester(arena: Arena) -> Answer:
    return _challenged(arena, random_bytes("of my own"))


def case_013_zero_challenge(arena: Arena) -> Answer:
    return _challenged(arena, bytes(32))


def case_014_generator_failed(arena: Arena) -> None:
    world = arena.world()
    with mock.patch("secrets.token_bytes", bytes):
        world.verifier.open(world.host.opening().encode(), peer=world.host.peer)


def case_015_generator_stuck(arena: Arena) -> Answer:
    world = arena.settled()
    sealed = world.host.seal()
    with mock.patch("secrets.token_bytes", lambda size: b"\x2a" * size):
        return arena.submit(world, sealed)


def case_016_of_another_session(arena: Arena) -> Answer:
    world = arena.settled()
    other = arena.another_host(world)
    other.enrol(world.verifier)
    return arena.submit(world, seal(world.host, claim(challenge=other.challenge)))


def case_017_used_twice(arena: Arena) -> Answer:
    world = arena.settled()
    used = world.host.challenge
    world.window()
    world.clock.advance(1)
    return world.deliver(seal(world.host, claim(challenge=used)))


def case_018_enrolment_used_twice(arena: Arena) -> Opened:
    world = arena.world()
    arena.enrol(world)
    assert arena.proof is not None
    return world.verifier.prove(arena.proof.encode(), peer=world.host.peer)


def case_019_enrolment_too_late(arena: Arena) -> Opened:
    return arena.enrol(arena.world(), after=61)


def case_020_of_the_enrolment(arena: Arena) -> Answer:
    world = arena.world()
    challenge = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    world.open_session()
    return arena.submit(world, seal(world.host, claim(challenge=challenge.challenge)))


# -- A05 ---------------------------------------------------------------------------------------------------------------


def case_021_zero_qualifying_data(arena: Arena) -> Answer:
    return _quoting(arena, lambda _: bytes(32))


def case_022_zero_gpu_nonce(arena: Arena) -> Answer:
    return _reporting(arena, lambda _: bytes(32))


def case_023_zero_at_enrolment(arena: Arena) -> Opened:
    world = arena.world()
    with world.host.tpm.forging(extra_data=bytes(32)):
        return arena.enrol(world)


def case_024_platform_report_demanded(arena: Arena) -> None:
    del arena
    requirements(evidence=["gpu", "platform", "telemetry", "tpm", "workload"])


# -- A06 ---------------------------------------------------------------------------------------------------------------


def case_025_quote_over_the_challenge(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(qualifying_data=lambda _: world.host.challenge)))


def case_026_quote_over_the_window_alone(arena: Arena) -> Answer:
    return _quoting(arena, lambda seals: seals.window)


def case_027_quote_without_the_gpus(arena: Arena) -> Answer:
    return _quoting(arena, lambda seals: binding.qualifying_data(seals.window, D("gpus", None), None))


def case_028_quote_with_a_tail(arena: Arena) -> Answer:
    return _quoting(arena, lambda seals: seals.qualifying_data + bytes(16))


def case_029_gpu_over_the_challenge(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(gpu_nonce=lambda _: world.host.challenge)))


def case_030_gpu_over_the_window_digest(arena: Arena) -> Answer:
    return _reporting(arena, lambda window: window)


def case_031_one_gpu_of_two_over_the_digest(arena: Arena) -> Answer:
    world = arena.settled()
    first, second = world.host.gpus.devices

    def reports(made: Reports) -> Reports:
        assert made is not None
        return [made[0], second.attest(random_bytes("another window"))]

    assert first is not second
    return arena.submit(world, seal(world.host, Forgery(reports=reports)))


# -- A07 ---------------------------------------------------------------------------------------------------------------


def case_032_challenge_edited(arena: Arena) -> Answer:
    world = arena.settled(1)
    old = world.host.seal()
    world.clock.advance(1)
    world.deliver(old)
    edited = replace(header_of(old.evidence), challenge=world.host.challenge)
    return arena.submit(world, unsigned(old.evidence, edited.encode()))


def case_033_report_nonce_edited(arena: Arena) -> Answer:
    world = arena.settled(1)
    old = world.host.gpus.attest(random_bytes("an old nonce"))

    def edited(item: GpuEvidence, nonce: bytes) -> GpuEvidence:
        return GpuEvidence(item.report[:4] + nonce + item.report[36:], item.chain)

    def reports(made: Reports) -> Reports:
        assert made is not None
        return [edited(item, fresh.report[4:36]) for item, fresh in zip(old, made, strict=True)]

    return arena.submit(world, seal(world.host, Forgery(reports=reports)))


def case_034_qualifying_data_edited(arena: Arena) -> Answer:
    world = arena.settled(1)
    old = world.host.seal()
    world.clock.advance(1)
    world.deliver(old)
    before = QuoteEvidence.parse(Evidence.parse(old.evidence).quote)

    def edited(fresh: QuoteEvidence) -> QuoteEvidence:
        attest = bytearray(before.attest)
        assert bytes(attest[_EXTRA_DATA]) == old.qualifying_data
        attest[_EXTRA_DATA] = fresh.attest[_EXTRA_DATA]
        return replace(before, attest=bytes(attest))

    return arena.submit(world, seal(world.host, Forgery(quote=edited)))


def case_035_header_signed_anew_over_old_evidence(arena: Arena) -> Answer:
    world = arena.settled(1)
    old = world.host.seal()
    world.clock.advance(1)
    world.deliver(old)
    fresh = seal(world.host)
    header: Header = header_of(fresh.evidence)
    old_parts = Evidence.parse(old.evidence)
    telemetry = Evidence.parse(fresh.evidence).telemetry
    moved = replace(old_parts, telemetry=telemetry).encode()
    return arena.submit(world, resealed(moved, header.encode(), world.host))


def case_036_certification_for_an_old_challenge(arena: Arena) -> Opened:
    world = arena.world()
    first = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    old = world.host.proof(first)

    def edited(proof: EnrolmentProof) -> EnrolmentProof:
        return replace(
            proof,
            telemetry_key=old.telemetry_key,
            certify_attest=old.certify_attest,
            certify_signature=old.certify_signature,
        )

    return arena.enrol(world, edit=edited)
