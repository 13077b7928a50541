"""Rows A44, A45, A49, A50, A65, A67 and A75: a key nobody vouches for any more, somebody else's, or one whose past came
back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from fakes.cloud_authority import CloudAuthority
from fakes.soft_tpm import SoftAuthority, SoftTpm
from support.forge import seal
from support.world import EMULATED, NOON
from weighbridge.proto.endorsement import AkCertificateEndorsement, EkEndorsement
from weighbridge.proto.tpm import public
from weighbridge.proto.tpm.constants import ObjectAttributes
from weighbridge.proto.tpm.templates import ATTESTATION_KEY_ATTRIBUTES
from weighbridge.verifier.anchors import Anchor

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.core import Answer, Opened


def _public(tpm: SoftTpm) -> ec.EllipticCurvePublicKey:
    key = tpm.ak_key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def _cloud(arena: Arena, *, production: bool = False) -> tuple[World, CloudAuthority]:
    """A world whose host is a virtual machine, its AK certified by the cloud."""
    cloud = CloudAuthority()
    if production:
        anchors = list(cloud.anchors("google-vtpm").anchors)
        world = arena.world(extra_anchors=anchors, policy="production", platforms=("tpm", "nvidia"), source="nvml")
    else:
        world = arena.world(extra_anchors=list(cloud.anchors(EMULATED).anchors))
    world.host.endorsement = AkCertificateEndorsement(
        certificate=cloud.certify(_public(world.host.tpm)), intermediates=cloud.intermediates
    )
    return world, cloud


def _pin(tpm: SoftTpm) -> Anchor:
    return Anchor(
        purpose="attestation-key",
        name="pinned by a test",
        platform=EMULATED,
        spki=_spki(tpm),
        not_before=NOON,
        not_after=NOON.replace(year=2030),
        source="a test",
    )


def _spki(tpm: SoftTpm) -> bytes:
    return public.parse(tpm.attestation_key()).spki()


def _window(world: World) -> Answer:
    world.open_session()
    return world.window()


# -- what is believed --------------------------------------------------------------------------------------------------


def case_001_certified_by_a_cloud(arena: Arena) -> Answer:
    return _window(_cloud(arena)[0])


def case_002_child_of_the_storage_root_key(arena: Arena) -> Answer:
    return _window(arena.world(tpm=SoftTpm(srk=True)))


def case_003_p384(arena: Arena) -> Answer:
    return _window(arena.world(tpm=SoftTpm(ak="P-384")))


def case_004_rsa(arena: Arena) -> Answer:
    return _window(arena.world(tpm=SoftTpm(ak="RSA-2048")))


def case_005_pinned(arena: Arena) -> Answer:
    tpm = SoftTpm()
    world = arena.world(tpm=tpm, extra_anchors=[_pin(tpm)])
    world.host.pinned = True
    return _window(world)


def case_006_clock_not_safe_from_the_start(arena: Arena) -> Answer:
    """The machine lost power before; its clock counts on, and is not safe for an hour."""
    tpm = SoftTpm()
    tpm.safe = False
    return _window(arena.world(tpm=tpm))


# -- A44 ---------------------------------------------------------------------------------------------------------------


def case_007_only_declared(arena: Arena) -> Opened:
    world = arena.world()
    world.host.pinned = True
    return arena.enrol(world)


def case_008_certificate_for_another_key(arena: Arena) -> Opened:
    world, cloud = _cloud(arena)
    other = cloud.certify(_public(SoftTpm("another")))
    world.host.endorsement = AkCertificateEndorsement(certificate=other, intermediates=cloud.intermediates)
    return arena.enrol(world)


def case_009_certificate_of_a_stranger(arena: Arena) -> Opened:
    world, _ = _cloud(arena)
    stranger = CloudAuthority("stranger")
    certificate = stranger.certify(_public(world.host.tpm))
    world.host.endorsement = AkCertificateEndorsement(certificate=certificate, intermediates=stranger.intermediates)
    return arena.enrol(world)


def case_010_certificate_of_an_authority(arena: Arena) -> Opened:
    world, cloud = _cloud(arena)
    certificate = cloud.certify(_public(world.host.tpm), usages=("key_cert_sign",), authority=True)
    world.host.endorsement = AkCertificateEndorsement(certificate=certificate, intermediates=cloud.intermediates)
    return arena.enrol(world)


def case_011_key_of_an_ek_certificate(arena: Arena) -> Opened:
    """An endorsement key's certificate, genuine, for an AK with that very key: it may decrypt, not attest."""
    tpm = SoftTpm()
    world = arena.world(tpm=tpm)
    certificate = tpm.authority.certify_ek(_public(tpm))
    world.anchors = world.anchors.with_anchors(
        replace(anchor, purpose="tpm-ak-root") for anchor in tpm.authority.anchors().anchors
    )
    world.restart()
    world.host.endorsement = AkCertificateEndorsement(
        certificate=certificate, intermediates=tpm.authority.intermediates
    )
    return arena.enrol(world)


def case_012_ek_certificate_of_a_stranger(arena: Arena) -> Opened:
    world = arena.world()
    stranger = SoftAuthority("stranger")
    tpm = world.host.tpm
    world.host.endorsement = EkEndorsement(
        public=tpm.ek_public,
        certificate=stranger.certify_ek(tpm.ek_key.public_key()),
        intermediates=stranger.intermediates,
    )
    return arena.enrol(world)


def case_013_parent_misnamed(arena: Arena) -> Opened:
    """The key is a child of the storage root key, and is shown as one of the endorsement hierarchy."""
    tpm = SoftTpm(srk=True)
    world = arena.world(tpm=tpm)
    challenge = world.verifier.open(replace(world.host.opening(), parent=None).encode(), peer=world.host.peer)
    arena.proof = world.host.proof(challenge)
    return world.verifier.prove(arena.proof.encode(), peer=world.host.peer)


def case_014_cloud_in_production(arena: Arena) -> Answer:
    """The cloud's word is good, and its host holds the TPM's state: production wants more."""
    return _window(_cloud(arena, production=True)[0])


# -- A45 ---------------------------------------------------------------------------------------------------------------


def _with_attributes(arena: Arena, attributes: ObjectAttributes) -> Opened:
    world = arena.world()
    host = world.host
    forged = host.tpm.public_with(host.tpm.attestation_key(), int(attributes))
    challenge = world.verifier.open(replace(host.opening(), ak=forged).encode(), peer=host.peer)
    arena.proof = host.proof(challenge)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


def case_015_unrestricted(arena: Arena) -> Opened:
    return _with_attributes(arena, ATTESTATION_KEY_ATTRIBUTES & ~ObjectAttributes.RESTRICTED)


def case_016_not_fixed_to_its_tpm(arena: Arena) -> Opened:
    return _with_attributes(arena, ATTESTATION_KEY_ATTRIBUTES & ~ObjectAttributes.FIXED_TPM)


def case_017_said_to_be_restricted(arena: Arena) -> Opened:
    """An unrestricted key is shown with the attributes of a restricted one: its Name is not the TPM's."""
    world = arena.world()
    host = world.host
    real = host.tpm.public_with(
        host.tpm.attestation_key(), int(ATTESTATION_KEY_ATTRIBUTES & ~ObjectAttributes.RESTRICTED)
    )
    challenge = world.verifier.open(host.opening().encode(), peer=host.peer)
    host.tpm.attestation_key = lambda: real  # type: ignore[method-assign]  # what this TPM has in truth
    arena.proof = host.proof(replace(challenge, credential=None))
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


def case_018_quote_made_by_the_telemetry_key(arena: Arena) -> Answer:
    """The unrestricted key of the same TPM signs a hand-made quote with all the right values."""
    world = arena.settled()
    tpm = world.host.tpm
    key = tpm.telemetry_key
    assert key is not None
    with tpm.forging(signer=key):
        sealed = seal(world.host)
    return arena.submit(world, sealed)


def case_019_key_on_paper(arena: Arena) -> Opened:
    """The opening names a key that is in a file, beside a genuine TPM's certificate."""
    world = arena.world()
    host = world.host
    paper = SoftTpm("paper")
    challenge = world.verifier.open(replace(host.opening(), ak=paper.attestation_key()).encode(), peer=host.peer)
    host.tpm.ak_key = paper.ak_key
    arena.proof = replace(host.proof(replace(challenge, credential=None)), secret=bytes(32))
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


# -- A49, A50, A75: the same machine, another past ---------------------------------------------------------------------


def case_020_reset_below_the_storage_root_key(arena: Arena) -> Answer:
    """Obfuscated counts still differ by one after a reset; PCRs, clock and safe are made to fit."""
    world = arena.world(tpm=SoftTpm(srk=True))
    world.open_session()
    assert world.window().verdict.opens
    tpm = world.host.tpm
    pcrs, key, public, boot = tpm.pcrs, tpm.telemetry_key, tpm.telemetry_public, tpm.boot
    tpm.reset()
    # Even if the telemetry key could be kept, which no TPM does.
    tpm.pcrs, tpm.telemetry_key, tpm.telemetry_public, tpm.boot = pcrs, key, public, boot
    tpm.clock, tpm.safe = 90_000, True
    return arena.submit(world, seal(world.host))


def case_021_snapshot_restored(arena: Arena) -> Answer:
    """The virtual machine goes on from a snapshot: everything is as it was, the clock too."""
    world = arena.settled(1)
    then = world.host.tpm.clock
    for _ in range(2):
        assert world.window().verdict.opens
    world.host.tpm.clock = then
    return arena.submit(world, seal(world.host))


def case_022_machine_cloned(arena: Arena) -> Answer:
    """Two copies of one machine go on: the second window of one number is a fork."""
    world = arena.settled(1)
    twin = seal(world.host)
    assert world.window().verdict.opens
    return arena.submit(world, twin)


# -- A65 ---------------------------------------------------------------------------------------------------------------


def case_023_anothers_key_over_ones_own_channel(arena: Arena) -> Opened:
    """A second host shows the first one's AK and its certificate; only the first one's TPM can answer."""
    world = arena.settled(1)
    thief = arena.another_host(world)
    honest = world.host.opening()
    stolen = replace(honest, peer=thief.peer, cnf=thief.cnf)
    challenge = world.verifier.open(stolen.encode(), peer=thief.peer)
    arena.proof = replace(thief.proof(replace(challenge, credential=None)), secret=bytes(32))
    return world.verifier.prove(arena.proof.encode(), peer=thief.peer)


def case_024_anothers_certificate(arena: Arena) -> Opened:
    """A second virtual machine shows the certificate of the first with its own key."""
    world, cloud = _cloud(arena)
    thief = arena.another_host(world)
    thief.endorsement = AkCertificateEndorsement(
        certificate=cloud.certify(_public(world.host.tpm)), intermediates=cloud.intermediates
    )
    return arena.enrol(world, thief)


def case_025_answer_of_another_session(arena: Arena) -> Opened:
    """The first binding of a key is the one that its TPM proves: another enrolment's secret opens nothing."""
    world = arena.world()
    host = world.host
    first = world.verifier.open(host.opening().encode(), peer=host.peer)
    secret = host.proof(first).secret
    second = world.verifier.open(host.opening().encode(), peer=host.peer)
    arena.proof = replace(host.proof(second), secret=secret)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


# -- A67: what vouches for the key ends while a session runs -----------------------------------------------------------

# The last moment of a certificate that ends early: windows are received each second from a second after noon on.
_LAST = NOON + timedelta(seconds=3)


def _ending(arena: Arena, windows: int) -> tuple[World, CloudAuthority]:
    """A session whose AK certificate lasts until the third of its windows, and ``windows`` of them."""
    world, cloud = _cloud(arena)
    certificate = cloud.certify(_public(world.host.tpm), until=_LAST)
    world.host.endorsement = AkCertificateEndorsement(certificate=certificate, intermediates=cloud.intermediates)
    world.open_session()
    for _ in range(windows):
        assert world.window().verdict.opens
    return world, cloud


def case_026_certificate_ends_in_mid_session(arena: Arena) -> Answer:
    """Good when the host enrolled; the window behind its end was received a second later."""
    return _ending(arena, 3)[0].window()


def case_027_certificate_in_its_last_second(arena: Arena) -> Answer:
    """The same session, one window before."""
    return _ending(arena, 2)[0].window()


def case_028_certificate_renewed_after_it_ended(arena: Arena) -> Answer:
    """The session is over; the host comes again, with the same key under a new certificate, and nobody clears it."""
    world, cloud = _ending(arena, 3)
    assert world.window().verdict.outcome == "denied"
    certificate = cloud.certify(_public(world.host.tpm))
    world.host.endorsement = AkCertificateEndorsement(certificate=certificate, intermediates=cloud.intermediates)
    return _window(world)


def case_029_enrolled_after_it_ended(arena: Arena) -> Opened:
    world, cloud = _cloud(arena)
    certificate = cloud.certify(_public(world.host.tpm), until=NOON - timedelta(seconds=1))
    world.host.endorsement = AkCertificateEndorsement(certificate=certificate, intermediates=cloud.intermediates)
    return arena.enrol(world)
