"""Rows A66 and A73 to A75: the right evidence in the wrong hands, and a TPM whose past was copied back."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import Forgery, claim, random_bytes, seal
from support.world import requirements
from weighbridge.proto import binding, cose
from weighbridge.proto.terms import SignedTerms
from weighbridge.proto.tpm.constants import HashAlgorithm, Hierarchy
from weighbridge.proto.tpm.names import object_name, qualified_name_of_primary
from weighbridge.proto.tpm.pcr import PcrSelection
from weighbridge.proto.window import audience_of
from weighbridge.verifier import result_token
from weighbridge.verifier.bench import Bench

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import Host, World
    from weighbridge.proto.enrolment import EnrolmentProof
    from weighbridge.verifier.core import Answer, Opened
    from weighbridge.verifier.result_token import ResultToken

_BOOT = tuple(range(8))


# -- A73 ---------------------------------------------------------------------------------------------------------------


def _token(arena: Arena) -> ResultToken:
    world = arena.settled(1)
    answer = world.window()
    assert answer.token is not None
    arena.forget()
    return result_token.verify(
        answer.token, world.keys.signing.public_key(), audience="relying-party", at=world.clock.at
    )


def case_001_upstream_is_another_host(arena: Arena) -> None:
    _token(arena).require_upstream(random_bytes("the TLS key of host B"))


def case_002_upstream_is_the_attested_host(arena: Arena) -> None:
    token = _token(arena)
    token.require_upstream(arena.worlds[0].host.cnf)


def case_003_serving_key_exchanged(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(cnf=random_bytes("the TLS key of host B"))))


def case_004_encryption_key_exchanged(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(kem=random_bytes("an HPKE key"))))


def case_005_serving_key_exchanged_at_enrolment(arena: Arena) -> Opened:
    """The opening names host B's serving key; the host that proves has quoted its own."""
    world = arena.world()
    host = world.host
    opening = replace(host.opening(), cnf=random_bytes("the TLS key of host B"))
    challenge = world.verifier.open(opening.encode(), peer=host.peer)
    arena.proof = host.proof(challenge)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


# -- A74 ---------------------------------------------------------------------------------------------------------------


def case_006_for_another_verifier(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(audience=audience_of(random_bytes("another verifier")))))


def case_007_relayed_to_another_verifier(arena: Arena) -> Answer:
    here, there = arena.settled(), arena.settled()
    return arena.submit(there, seal(here.host), host=here.host)


def case_008_relayed_into_a_session_there(arena: Arena) -> Answer:
    here, there = arena.settled(), arena.settled()
    relayed = seal(here.host)
    return arena.submit(there, relayed, host=there.host)


def case_009_over_another_channel(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host), peer=random_bytes("the relay's channel key"))


def case_010_names_another_channel(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(peer=random_bytes("the relay's channel key"))))


def case_011_of_another_tenant(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(tenant="tenant-b")))


def case_012_names_another_session(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(session=random_bytes("session")[:16])))


def case_013_of_another_session_here(arena: Arena) -> Answer:
    """A neighbour's genuine window, sent into our session."""
    world = arena.settled()
    other = arena.another_host(world)
    world.open_session(other)
    return arena.submit(world, seal(other), host=world.host)


def _opening(arena: Arena, **changes: str) -> None:
    world = arena.world()
    opening = replace(world.host.opening(), **changes)  # type: ignore[arg-type] # texts only
    world.verifier.open(opening.encode(), peer=world.host.peer)


def case_014_opening_for_another_audience(arena: Arena) -> None:
    _opening(arena, audience="somebody-else")


def case_015_opening_for_another_tenant(arena: Arena) -> None:
    _opening(arena, tenant="tenant-b")


def case_016_opening_over_another_channel(arena: Arena) -> None:
    world = arena.world()
    world.verifier.open(world.host.opening().encode(), peer=random_bytes("the relay's channel key"))


def case_017_proof_over_another_channel(arena: Arena) -> Opened:
    return arena.enrol(arena.world(), peer=random_bytes("the relay's channel key"))


def case_018_terms_of_another_verifier(arena: Arena) -> None:
    """The attester's side: terms that a relay has signed are not those of the verifier it trusts."""
    here, there = arena.settled(0), arena.settled(0)
    assert there.host.terms is not None
    SignedTerms.open(there.host.terms.raw, here.keys.signing.public_key())


def case_019_resumed_over_another_channel(arena: Arena) -> None:
    world = arena.settled()
    arena.forget()
    world.verifier.resume(world.host.session, peer=random_bytes("the relay's channel key"))


# -- A75 ---------------------------------------------------------------------------------------------------------------


def _copied_back(world: World) -> Host:
    """The host after a reset, its counters, clock and registers made to match again: all but the NULL hierarchy."""
    tpm = world.host.tpm
    before = copy.copy(tpm)
    pcrs = {bank: list(values) for bank, values in tpm.pcrs.items()}
    tpm.reset()
    tpm.reset_count, tpm.restart_count = before.reset_count, before.restart_count
    tpm.clock, tpm.safe, tpm.pcrs = before.clock, before.safe, pcrs
    # A new seed: the same template gives another key.
    tpm.seed += "/after the reset"
    tpm.create_telemetry_key(unique=random_bytes("again"), boot=PcrSelection.of(HashAlgorithm.SHA256, _BOOT))
    return world.host


def case_020_state_copied_back(arena: Arena) -> Answer:
    world = arena.settled()
    host = _copied_back(world)
    assert host.tpm.telemetry_key is not None
    named = cose.thumbprint(host.tpm.telemetry_key.public_key())
    return arena.submit(world, seal(host, Forgery(kid=lambda _: named)))


def case_021_state_copied_back_and_key_misnamed(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(_copied_back(world)))


def case_022_reset_and_extended_again(arena: Arena) -> Answer:
    """As if the telemetry key had lived on: the counters still tell."""
    world = arena.settled()
    tpm = world.host.tpm
    kept = tpm.telemetry_key, tpm.telemetry_public, tpm.boot
    tpm.reset()
    tpm.telemetry_key, tpm.telemetry_public, tpm.boot = kept
    for record in world.host.log.records():
        tpm.extend(record.pcr, dict(record.digests))
    # Past every value that the clock has shown.
    tpm.clock, tpm.safe = tpm.clock + 10_000, True
    return arena.submit(world, seal(world.host))


def _certified(arena: Arena, **forged: bytes) -> Opened:
    """An enrolment whose telemetry key is certified with ``forged`` fields, signed by the AK."""
    world = arena.world()
    host = world.host
    challenge = world.verifier.open(host.opening().encode(), peer=host.peer)
    proof = host.proof(challenge)
    qualifying_data = binding.enrolment_qualifying_data(challenge.challenge, host.cnf, host.peer)
    with host.tpm.forging(**forged):
        attest, signature = host.tpm.certify_telemetry_key(qualifying_data)
    arena.proof = replace(proof, certify_attest=attest, certify_signature=signature)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


def case_023_key_that_outlives_a_reset(arena: Arena) -> Opened:
    """Certified as a primary of the owner hierarchy: the whole of it is true, and it could be copied back."""
    world = arena.world()
    host = world.host
    challenge = world.verifier.open(host.opening().encode(), peer=host.peer)
    proof = host.proof(challenge)
    name = object_name(HashAlgorithm.SHA256, proof.telemetry_key)
    qualifying_data = binding.enrolment_qualifying_data(challenge.challenge, host.cnf, host.peer)
    with host.tpm.forging(qualified_name=qualified_name_of_primary(Hierarchy.OWNER, name)):
        attest, signature = host.tpm.certify_telemetry_key(qualifying_data)
    arena.proof = replace(proof, certify_attest=attest, certify_signature=signature)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


def case_024_another_key_certified(arena: Arena) -> Opened:
    return _certified(arena, name=b"\x00\x0b" + bytes(32))


def case_025_key_of_another_boot(arena: Arena) -> Opened:
    """The key is bound to registers that are no longer those that are quoted."""
    world = arena.world()
    host = world.host
    challenge = world.verifier.open(host.opening().encode(), peer=host.peer)
    proof = host.proof(challenge)
    host.tpm.extend(4, {bank: bytes(len(values[0])) for bank, values in host.tpm.pcrs.items()})
    qualifying_data = binding.enrolment_qualifying_data(challenge.challenge, host.cnf, host.peer)
    quote = host.tpm.quote(PcrSelection.of(HashAlgorithm.SHA256, challenge.pcrs), qualifying_data)
    arena.proof = replace(proof, quote=quote.encode())
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


def case_026_credential_of_another_tpm(arena: Arena) -> Opened:
    """The certified TPM beside another one's AK: the secret that comes back is not the one that was wrapped."""

    def edited(proof: EnrolmentProof) -> EnrolmentProof:
        return replace(proof, secret=random_bytes("a guess"))

    return arena.enrol(arena.world(), edit=edited)


def case_027_proof_for_another_enrolment(arena: Arena) -> Opened:
    """Two enrolments are open; the proof of one is sent as the other's."""
    world = arena.world()
    first = world.verifier.open(world.host.opening().encode(), peer=world.host.peer)
    return arena.enrol(world, edit=lambda proof: replace(proof, session=first.session))


# -- A66 ---------------------------------------------------------------------------------------------------------------


def case_028_window_of_another_tenant_here(arena: Arena) -> Answer:
    """One verifier serves two tenants: the genuine window of one, sent into the session of the other."""
    world = arena.world()
    other = arena.another_host(world)
    other.tenant = "tenant-b"
    theirs = Bench(requirements=requirements(tenant="tenant-b"), anchors=world.anchors, appraiser=world.appraiser)
    world.restart(others=[theirs])
    world.open_session()
    world.open_session(other)
    return arena.submit(world, other.seal(), host=world.host)
