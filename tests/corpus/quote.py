"""Rows A46 to A49: what a TPM can be made to sign that is not the quote that was demanded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import Forgery, seal
from weighbridge.proto import binding
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.evidence import QuoteEvidence
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection
from weighbridge.proto.tpm.wire import sized, u32

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus.arena import Arena
    from weighbridge.verifier.core import Answer, Opened

_TPM_ST_ATTEST_TIME = 0x8019
_SHA256, _SHA384, _SHA1 = int(HashAlgorithm.SHA256), int(HashAlgorithm.SHA384), int(HashAlgorithm.SHA1)
_PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 15)


def _forged(arena: Arena, **fields: object) -> Answer:
    """A window whose quote bears ``fields``, signed by the AK."""
    world = arena.settled()
    with world.host.tpm.forging(**fields):
        sealed = seal(world.host)
    return arena.submit(world, sealed)


def _selecting(arena: Arena, *banks: tuple[int, tuple[int, ...]]) -> Answer:
    selection = PcrSelection(tuple(PcrBank(algorithm, indices) for algorithm, indices in banks))
    return _forged(arena, selection=selection)


def _changing(arena: Arena, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Answer:
    """A window whose PCR values were changed after the TPM had signed."""
    world = arena.settled()

    def changed(quote: QuoteEvidence) -> QuoteEvidence:
        return replace(quote, pcr_values=change(quote.pcr_values))

    return arena.submit(world, seal(world.host, Forgery(quote=changed)))


# -- A46 ---------------------------------------------------------------------------------------------------------------


def case_001_not_made_by_a_tpm(arena: Arena) -> Answer:
    return _forged(arena, magic=0x5443_4756)


def case_002_time_for_a_quote(arena: Arena) -> Answer:
    # TPMS_TIME_ATTEST_INFO: the time, the clock's information again, the firmware version.
    body = (1).to_bytes(8) + (1_000).to_bytes(8) + u32(1) + u32(0) + b"\x01" + bytes(8)
    return _forged(arena, kind=_TPM_ST_ATTEST_TIME, body=body)


def case_003_certification_for_a_quote(arena: Arena) -> Answer:
    world = arena.settled()
    tpm = world.host.tpm

    def certified(quote: QuoteEvidence) -> QuoteEvidence:
        qualifying_data = quote.attest[44:76]
        attest, signature = tpm.certify(tpm.telemetry_public, qualifying_data)
        return replace(quote, attest=attest, signature=signature)

    return arena.submit(world, seal(world.host, Forgery(quote=certified)))


def case_004_quote_for_a_certification(arena: Arena) -> Opened:
    world = arena.world()
    host = world.host
    challenge = world.verifier.open(host.opening().encode(), peer=host.peer)
    qualifying_data = binding.enrolment_qualifying_data(challenge.challenge, host.cnf, host.peer)
    proof = host.proof(challenge)
    quote = host.tpm.quote(PcrSelection.of(HashAlgorithm.SHA256, [0]), qualifying_data)
    arena.proof = replace(proof, certify_attest=quote.attest, certify_signature=quote.signature)
    return world.verifier.prove(arena.proof.encode(), peer=host.peer)


def case_005_quote_with_a_tail(arena: Arena) -> Answer:
    return _forged(arena, tail=b"\x00")


# -- A47 ---------------------------------------------------------------------------------------------------------------


def case_006_bank_twice(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA256, _PCRS), (_SHA256, _PCRS))


def case_007_register_dropped(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA256, _PCRS[:-1]))


def case_008_register_added(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA256, (*_PCRS, 16)))


def case_009_register_relabelled(arena: Arena) -> Answer:
    """PCR 14 was extended by hand with what PCR 15 should hold: all values are the good ones."""
    world = arena.settled()
    host = world.host
    for record in host.log.records():
        host.tpm.extend(14, dict(record.digests))
    host.tpm.extend(15, {bank: bytes(len(values[0])) for bank, values in host.tpm.pcrs.items()})
    selection = PcrSelection.of(HashAlgorithm.SHA256, (*_PCRS[:-1], 14))
    return arena.submit(world, seal(host, Forgery(selection=lambda _: selection)))


def case_010_sha1(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA1, _PCRS))


def case_011_empty(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA256, ()))


def case_012_no_bank(arena: Arena) -> Answer:
    return _selecting(arena)


def case_013_second_bank(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA256, _PCRS), (_SHA384, _PCRS))


def case_014_another_bank(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA384, _PCRS))


def case_015_empty_bank_beside(arena: Arena) -> Answer:
    return _selecting(arena, (_SHA1, ()), (_SHA256, _PCRS))


def case_016_attested_nothing(arena: Arena) -> Answer:
    return _forged(arena, body=sized(b""))


# -- A48 ---------------------------------------------------------------------------------------------------------------


def case_017_value_edited(arena: Arena) -> Answer:
    return _changing(arena, lambda values: (*values[:-1], bytes(32)))


def case_018_values_exchanged(arena: Arena) -> Answer:
    return _changing(arena, lambda values: (values[-1], *values[1:-1], values[0]))


def case_019_value_missing(arena: Arena) -> Answer:
    return _changing(arena, lambda values: values[:-1])


def case_020_value_too_many(arena: Arena) -> Answer:
    return _changing(arena, lambda values: (*values, values[-1]))


def case_021_border_moved(arena: Arena) -> Answer:
    """The concatenation is the quoted one; where one value ends and the next begins is not."""
    return _changing(arena, lambda values: (values[0] + values[1][:1], values[1][1:], *values[2:]))


def case_022_no_values(arena: Arena) -> Answer:
    return _changing(arena, lambda _: ())


def case_023_digest_over_nothing(arena: Arena) -> Answer:
    return _forged(arena, digest=b"")


# -- A49 ---------------------------------------------------------------------------------------------------------------


def case_024_reset_counted(arena: Arena) -> Answer:
    return _forged(arena, reset_count=2)


def case_025_restart_counted(arena: Arena) -> Answer:
    return _forged(arena, restart_count=1)


def case_026_clock_went_back(arena: Arena) -> Answer:
    return _forged(arena, clock=1_000)


def case_027_clock_not_safe(arena: Arena) -> Answer:
    return _forged(arena, safe=0)


def case_028_other_firmware(arena: Arena) -> Answer:
    return _forged(arena, firmware=1)


def case_029_signed_outside_the_endorsement_hierarchy(arena: Arena) -> Answer:
    return _forged(arena, qualified_signer=b"\x00\x0b" + bytes(32))


def case_030_boot_register_changed(arena: Arena) -> Answer:
    """Extended after the telemetry key had signed: the key itself would refuse from then on."""
    world = arena.settled()
    tpm = world.host.tpm
    sign = tpm.sign

    def signed_before(data: bytes) -> bytes:
        pcrs = {bank: list(values) for bank, values in tpm.pcrs.items()}
        tpm.pcrs[HashAlgorithm.SHA256][7] = bytes(32)
        signature = sign(data)
        tpm.pcrs = pcrs
        return signature

    tpm.extend(7, {bank: bytes(len(values[0])) for bank, values in tpm.pcrs.items()})
    return arena.submit(world, seal(world.host, Forgery(signer=signed_before)))


def case_031_signed_by_another_key(arena: Arena) -> Answer:
    world = arena.settled()
    other = arena.another_host(world)
    with world.host.tpm.forging(signer=other.tpm.ak_key):
        sealed = seal(world.host)
    return arena.submit(world, sealed)
