"""Rows A35 to A43: a confidential machine whose hardware report does not say what it would have to say.

The machine is Azure's kind: its paravisor runs the TPM, and the hardware signs for the paravisor's claims. Processors,
their makers and everything that these publish are forged here under roots of our own, signature by signature; where a
case shows what *production* does, those roots are believed as if they were genuine.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Unpack

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fakes.forged_snp import MEASUREMENT, ForgedSnp, hcl_claims, hcl_frame
from fakes.forged_tdx import ForgedTdx
from fakes.soft_tpm import SoftTpm
from support.world import EMULATED, NOON
from weighbridge.proto.collateral import Collateral, CollateralItem
from weighbridge.proto.endorsement import VtpmReportEndorsement

if TYPE_CHECKING:
    from corpus.arena import Arena
    from fakes.forged_snp import ReportChanges
    from support.world import World
    from weighbridge.proto.enrolment import Opening
    from weighbridge.verifier.core import Answer, Opened

_DEBUG, _MIGRATE = 1 << 19, 1 << 18
_POLICY = 0x3001F
_TDX_DEBUG = 1
_SEPT = 1 << 28


def _ak(tpm: SoftTpm) -> rsa.RSAPublicKey:
    assert isinstance(tpm.ak_key, rsa.RSAPrivateKey)
    return tpm.ak_key.public_key()


def _machine(arena: Arena, snp: ForgedSnp, *, production: bool = False) -> World:
    """A world whose one host is a confidential machine on ``snp``, not enrolled."""
    tpm = SoftTpm(ak="RSA-2048")
    anchors = list(snp.anchors().anchors)
    if production:
        world = arena.world(
            tpm=tpm, extra_anchors=anchors, policy="production", platforms=("tpm", "nvidia"), source="nvml"
        )
    else:
        world = arena.world(tpm=tpm, extra_anchors=anchors)
    world.host.endorsement, world.host.collateral = snp.endorsement(_ak(tpm)), snp.collateral()
    return world


def _reporting(arena: Arena, **changes: Unpack[ReportChanges]) -> Opened:
    """An enrolment under a signed report with ``changes``."""
    snp = ForgedSnp.create("Genoa", EMULATED)
    world = _machine(arena, snp)
    world.host.endorsement = snp.endorsement(_ak(world.host.tpm), **changes)
    return arena.enrol(world)


def _binding_demanded(arena: Arena, world: World, *accepted: bytes) -> World:
    """Production without a reason for leaving out whose TPM it is; ``accepted`` are measurements of first code."""
    reference = replace(
        world.reference,
        unchecked={check: text for check, text in world.reference.unchecked.items() if check != "host_binding"},
        tee_measurements={measurement.hex(): "paravisor" for measurement in accepted},
    )
    world.judge_by(arena.engines, reference)
    return world


def _window(arena: Arena, snp: ForgedSnp, **changes: Unpack[ReportChanges]) -> Answer:
    """The first window of a machine on ``snp``, under the production policy."""
    world = _machine(arena, snp, production=True)
    world.host.endorsement = snp.endorsement(_ak(world.host.tpm), **changes)
    world.open_session()
    return world.window()


# -- what is believed --------------------------------------------------------------------------------------------------


def case_001_sev_snp(arena: Arena) -> Answer:
    world = _machine(arena, ForgedSnp.create("Genoa", EMULATED))
    world.open_session()
    return world.window()


def case_002_sev_snp_in_production(arena: Arena) -> Answer:
    return _window(arena, ForgedSnp.create("Genoa", "amd-sev-snp"))


# -- A35: policy bits --------------------------------------------------------------------------------------------------


def case_003_debug(arena: Arena) -> Opened:
    return _reporting(arena, policy=_POLICY | _DEBUG)


def case_004_migration_agent(arena: Arena) -> Opened:
    return _reporting(arena, policy=_POLICY | _MIGRATE)


def case_005_hyper_threads_against_the_policy(arena: Arena) -> Opened:
    """SMT is on, and the guest's own policy does not allow it: no honest firmware starts such a guest."""
    return _reporting(arena, policy=_POLICY & ~(1 << 16), platform_info=0x25)


# -- A36 ---------------------------------------------------------------------------------------------------------------


def case_006_asked_by_the_guest_itself(arena: Arena) -> Opened:
    return _reporting(arena, vmpl=2)


# -- A37: the chip's certificate ---------------------------------------------------------------------------------------


def case_007_another_chip(arena: Arena) -> Opened:
    return _reporting(arena, chip_id=bytes(range(64)))


def case_008_chip_hidden(arena: Arena) -> Opened:
    return _reporting(arena, chip_id=bytes(64))


def case_009_another_tcb(arena: Arena) -> Opened:
    snp = ForgedSnp.create("Genoa", EMULATED)
    return _reporting(arena, reported_tcb=bytes([snp.tcb[0] + 1]) + snp.tcb[1:], current_tcb=b"\xff" * 8)


def case_010_certificate_of_a_stranger(arena: Arena) -> Opened:
    """The whole chain is another maker's."""
    stranger = ForgedSnp.create("Turin", EMULATED)
    world = _machine(arena, ForgedSnp.create("Genoa", EMULATED))
    world.host.endorsement = stranger.endorsement(_ak(world.host.tpm))
    return arena.enrol(world)


def case_011_signed_by_another_key(arena: Arena) -> Opened:
    snp = ForgedSnp.create("Genoa", EMULATED)
    world = _machine(arena, snp)
    forged = replace(snp, key=ec.generate_private_key(ec.SECP384R1()))
    report = forged.hcl_report(_ak(world.host.tpm))
    world.host.endorsement = VtpmReportEndorsement(report=report, quote=None, certificates=snp.certificates)
    return arena.enrol(world)


def case_012_signer_revoked(arena: Arena) -> Opened:
    snp = ForgedSnp.create("Genoa", EMULATED)
    world = _machine(arena, snp)
    world.host.collateral = Collateral.of(CollateralItem("crl", snp.crl(revoked=True)))
    return arena.enrol(world)


def case_013_no_revocation_list(arena: Arena) -> Answer:
    """Nothing says that the certificates are not revoked: what they prove is not counted as proven."""
    snp = ForgedSnp.create("Genoa", "amd-sev-snp")
    world = _binding_demanded(arena, _machine(arena, snp, production=True), MEASUREMENT)
    world.host.collateral = Collateral()
    world.open_session()
    return world.window()


# -- A38: the report edited --------------------------------------------------------------------------------------------


def _edited(arena: Arena, offset: int) -> Opened:
    """One bit of the signed report is another; it starts behind the paravisor's header of 32 bytes."""
    world = _machine(arena, ForgedSnp.create("Genoa", EMULATED))
    endorsement = world.host.endorsement
    assert isinstance(endorsement, VtpmReportEndorsement)
    report = bytearray(endorsement.report)
    report[32 + offset] ^= 1
    world.host.endorsement = replace(endorsement, report=bytes(report))
    return arena.enrol(world)


def case_014_report_data_edited(arena: Arena) -> Opened:
    return _edited(arena, 0x50)


def case_015_policy_edited(arena: Arena) -> Opened:
    return _edited(arena, 0x08)


def case_016_measurement_edited(arena: Arena) -> Opened:
    return _edited(arena, 0x90)


# -- A39: generations that are broken ----------------------------------------------------------------------------------


def case_017_milan(arena: Arena) -> Answer:
    return _window(arena, ForgedSnp.create("Milan", "amd-sev-snp"))


def case_018_aliased_memory(arena: Arena) -> Answer:
    """The firmware has not found that no memory is aliased (BadRAM)."""
    return _window(arena, ForgedSnp.create("Genoa", "amd-sev-snp"), platform_info=0x05)


# -- A40, A41: TDX -----------------------------------------------------------------------------------------------------


def _domain(arena: Arena, tdx: ForgedTdx, quote: bytes | None = None, *, collateral: bytes | None = None) -> World:
    """A world whose one host is a trust domain on ``tdx``."""
    tpm = SoftTpm(ak="RSA-2048")
    production = tdx.platform != EMULATED
    anchors = list(tdx.anchors().anchors)
    if production:
        world = arena.world(
            tpm=tpm, extra_anchors=anchors, policy="production", platforms=("tpm", "nvidia"), source="nvml"
        )
    else:
        world = arena.world(tpm=tpm, extra_anchors=anchors)
    claims = hcl_claims(_ak(tpm))
    signed = tdx.quote(_bound(tpm)) if quote is None else quote
    world.host.endorsement = VtpmReportEndorsement(
        report=hcl_frame(4, bytes(1024), claims), quote=signed, certificates=()
    )
    published = tdx.collateral() if collateral is None else collateral
    world.host.collateral = Collateral.of(CollateralItem("dcap", published))
    return world


def _bound(tpm: SoftTpm) -> bytes:
    return hashlib.sha256(hcl_claims(_ak(tpm))).digest() + bytes(32)


def _tdx(arena: Arena, **changes: object) -> Opened:
    """An enrolment under a signed TD quote with ``changes``."""
    tdx = ForgedTdx.create(EMULATED)
    tpm = SoftTpm(ak="RSA-2048")
    return arena.enrol(_domain(arena, tdx, tdx.quote(_bound(tpm), **changes)))  # type: ignore[arg-type]


def case_019_tdx(arena: Arena) -> Answer:
    world = _domain(arena, ForgedTdx.create(EMULATED))
    world.open_session()
    return world.window()


def case_020_tdx_in_production(arena: Arena) -> Answer:
    world = _domain(arena, ForgedTdx.create("intel-tdx"))
    world.open_session()
    return world.window()


def case_021_tdx_debug(arena: Arena) -> Opened:
    return _tdx(arena, attributes=_SEPT | _TDX_DEBUG)


def case_022_tdx_reserved_attribute(arena: Arena) -> Opened:
    return _tdx(arena, attributes=_SEPT | 1 << 5)


def _published(arena: Arena, **changes: object) -> World:
    tdx = ForgedTdx.create(EMULATED)
    return _domain(arena, tdx, collateral=tdx.collateral(**changes))  # type: ignore[arg-type]


def case_023_tcb_out_of_date(arena: Arena) -> Answer:
    tdx = ForgedTdx.create("intel-tdx")
    world = _domain(arena, tdx, collateral=tdx.collateral(tcb_info=tdx.tcb_info(status="OutOfDate")))
    world.open_session()
    return world.window()


def case_024_tcb_revoked(arena: Arena) -> Opened:
    tdx = ForgedTdx.create(EMULATED)
    return arena.enrol(_domain(arena, tdx, collateral=tdx.collateral(tcb_info=tdx.tcb_info(status="Revoked"))))


def case_025_tcb_info_expired(arena: Arena) -> Opened:
    return arena.enrol(_published(arena, tcb_info={"nextUpdate": _stamp(NOON - timedelta(seconds=1))}))


def case_026_enclave_revoked(arena: Arena) -> Opened:
    tdx = ForgedTdx.create(EMULATED)
    return arena.enrol(_domain(arena, tdx, collateral=tdx.collateral(qe_identity=tdx.qe_identity(status="Revoked"))))


def case_027_of_another_platform(arena: Arena) -> Opened:
    return arena.enrol(_published(arena, tcb_info={"fmspc": "00906ed50000"}))


def case_028_no_collateral(arena: Arena) -> Opened:
    world = _domain(arena, ForgedTdx.create(EMULATED))
    world.host.collateral = Collateral()
    return arena.enrol(world)


def case_029_platform_certificate_revoked(arena: Arena) -> Opened:
    tdx = ForgedTdx.create(EMULATED)
    revoked = tdx.collateral(pck_crl=tdx.authority.crl(tdx.pck))
    return arena.enrol(_domain(arena, tdx, collateral=revoked))


# -- A42 ---------------------------------------------------------------------------------------------------------------


def case_030_claims_edited(arena: Arena) -> Opened:
    """The paravisor's claims name another key than the one whose hash the hardware signed."""
    snp = ForgedSnp.create("Genoa", EMULATED)
    world = _machine(arena, snp)
    another = SoftTpm("another", ak="RSA-2048")
    honest = hcl_claims(_ak(another))
    report = snp.report(report_data=hashlib.sha256(honest).digest() + bytes(32))
    frame = hcl_frame(2, report, hcl_claims(_ak(world.host.tpm), **{"user-data": "00" * 64}))
    world.host.endorsement = VtpmReportEndorsement(report=frame, quote=None, certificates=snp.certificates)
    return arena.enrol(world)


def case_031_claims_edited_in_a_trust_domain(arena: Arena) -> Opened:
    tdx = ForgedTdx.create(EMULATED)
    return arena.enrol(_domain(arena, tdx, tdx.quote(hashlib.sha256(b"other claims").digest() + bytes(32))))


# -- A43 ---------------------------------------------------------------------------------------------------------------


def case_032_report_of_another_machine(arena: Arena) -> Opened:
    """Machine B's report, genuine in all, beside the key and the quotes of machine A."""
    snp = ForgedSnp.create("Genoa", EMULATED)
    world = _machine(arena, snp)
    world.host.endorsement = snp.endorsement(rsa.generate_private_key(65537, 2048).public_key())
    return arena.enrol(world)


def case_033_quote_of_another_machine(arena: Arena) -> Opened:
    """Machine B's report and key, and the quotes of machine A."""
    snp = ForgedSnp.create("Genoa", EMULATED)
    world = _machine(arena, snp)
    other = SoftTpm("machine B", ak="RSA-2048")
    host = world.host
    honest = host.opening()

    def opening() -> Opening:
        key = rsa.generate_private_key(65537, 2048)
        other.ak_key = key
        return replace(honest, ak=other.attestation_key(), endorsement=snp.endorsement(key.public_key()))

    challenge = world.verifier.open(opening().encode(), peer=host.peer)
    arena.proof = host.proof(challenge)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


# -- first code that nobody knows --------------------------------------------------------------------------------------


def _first_code(arena: Arena, measurement: bytes) -> Answer:
    snp = ForgedSnp.create("Genoa", "amd-sev-snp")
    world = _binding_demanded(arena, _machine(arena, snp, production=True), MEASUREMENT)
    world.host.endorsement = snp.endorsement(_ak(world.host.tpm), measurement=measurement)
    world.open_session()
    return world.window()


def case_034_known_first_code_in_production(arena: Arena) -> Answer:
    return _first_code(arena, MEASUREMENT)


def case_035_first_code_of_the_attackers_own(arena: Arena) -> Answer:
    """A genuine processor runs what the attacker wrote; its claims name a key of his, which makes quotes by hand."""
    return _first_code(arena, bytes(48))


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
