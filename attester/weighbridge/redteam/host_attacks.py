"""Other devices, other evidence, other times: what an attester's host could do to a session that began well."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from weighbridge.proto.binding import terms_digest
from weighbridge.proto.errors import Code, WeighbridgeError
from weighbridge.proto.telemetry import Telemetry
from weighbridge.redteam.attack import Attack, NotShown, Seen, answered, refused
from weighbridge.redteam.soft_tpm import SoftTpm

if TYPE_CHECKING:
    from weighbridge.proto.terms import Terms
    from weighbridge.redteam.field import Field, Guest

__all__ = ["HOST_ATTACKS"]

# Reports every so many windows, by terms that nobody has signed.
_RARELY: Final = 1000


async def _another_gpu(field: Field) -> Seen:
    guest = await field.guest()
    others = field.kit.gpus(field.target.gpus)
    return await answered(guest.rogue.window(by=guest.rogue.sealer(gpus=others)))


async def _copied_telemetry(field: Field) -> Seen:
    guest, other = await field.guest(), await field.guest()
    observed = guest.rogue.observe()
    copied = replace(observed, telemetry=other.rogue.observe().telemetry)
    return await answered(guest.rogue.send(guest.rogue.seal(copied).evidence))


async def _renamed_telemetry(field: Field) -> Seen:
    guest, other = await field.guest(), await field.guest()
    rogue = guest.rogue
    sources = Telemetry.parse(other.rogue.observe().telemetry).sources
    renamed = Telemetry(session=rogue.session, seq=rogue.seq, sources=sources).encode()
    return await answered(rogue.send(rogue.seal(replace(rogue.observe(), telemetry=renamed)).evidence))


async def _reset(field: Field) -> Seen:
    """A TPM that is reset loses its key. This one is made to keep it, and was shut down in order: its count tells."""
    guest = await field.guest()
    tpm = _soft(guest)
    kept, clock = (tpm.telemetry_key, tpm.telemetry_public, tpm.boot), tpm.clock
    tpm.reset()
    tpm.clock, tpm.safe = clock, True
    tpm.telemetry_key, tpm.telemetry_public, tpm.boot = kept
    guest.rogue.replay_log()
    guest.rogue.reseal()
    return await answered(guest.rogue.window())


async def _new_key(field: Field) -> Seen:
    guest = await field.guest()
    _soft(guest).reset()
    guest.rogue.replay_log()
    key = guest.rogue.new_telemetry_key()
    guest.rogue.reseal()
    seen = await answered(guest.rogue.window(signer=key))
    again = await answered(guest.rogue.window())
    return again if again.admitted else Seen(seen.admitted, (*seen.codes, *again.codes), seen.message)


async def _clone(field: Field) -> Seen:
    """A snapshot of the host is put back; its operator has kept what the host would have forgotten of the chain."""
    guest = await field.guest()
    snapshot = deepcopy(_soft(guest).__dict__ | {"authority": None})
    await guest.settle(2)
    snapshot["authority"] = _soft(guest).authority
    _soft(guest).__dict__.update(snapshot)
    guest.rogue.reseal()
    return await answered(guest.rogue.window())


async def _other_terms(field: Field) -> Seen:
    guest = await field.guest()
    own = _rarely(guest)
    terms = replace(guest.rogue.terms, terms=own, digest=terms_digest(own.encode()))
    return await answered(guest.rogue.window(by=guest.rogue.sealer(terms=terms)))


async def _no_reports(field: Field) -> Seen:
    guest = await field.guest()
    terms = replace(guest.rogue.terms, terms=_rarely(guest))
    return await answered(guest.rogue.window(by=guest.rogue.sealer(terms=terms)))


async def _comes_back(field: Field) -> Seen:
    guest = await field.guest()
    failed = await answered(guest.rogue.window(by=guest.rogue.sealer(gpus=field.kit.gpus(field.target.gpus))))
    if failed.admitted:
        raise NotShown("a failure", "the session did not fail")
    guest.failed = True
    try:
        again = await field.enrol_again(guest)
    except WeighbridgeError as error:
        return refused(error)
    return await answered(again.honest())


HOST_ATTACKS: Final = (
    Attack(
        name="splice-gpu",
        rows=("A08", "A13"),
        does="shows the reports of another host's genuine GPUs over the right nonce",
        expected=(Code.GPU_UNEXPECTED,),
        play=_another_gpu,
    ),
    Attack(
        name="splice-telemetry",
        rows=("A58",),
        does="signs the telemetry of another session as its own",
        expected=(Code.TELEMETRY_SESSION,),
        play=_copied_telemetry,
    ),
    Attack(
        name="splice-readings",
        rows=("A58", "A08"),
        does="signs what another host's GPUs read, under its own session's name",
        expected=(Code.TELEMETRY_DEVICE,),
        play=_renamed_telemetry,
    ),
    Attack(
        name="reset",
        rows=("A49", "A75"),
        does="resets the TPM and brings its registers back to the values that they had",
        expected=(Code.TPM_RESET,),
        play=_reset,
    ),
    Attack(
        name="reset-key",
        rows=("A75",),
        does="goes on after a reset with a new telemetry key, in its own name and in the old one's",
        expected=(Code.TELEMETRY_KEY_MISMATCH, Code.COSE_SIGNATURE),
        play=_new_key,
    ),
    Attack(
        name="clone",
        rows=("A50",),
        does="puts a snapshot of the host back and goes on at the head of the chain",
        expected=(Code.TPM_CLOCK, Code.WINDOW_INTERVAL),
        play=_clone,
    ),
    Attack(
        name="downgrade-terms",
        rows=("A64", "A79"),
        does="seals by terms of its own, which ask for GPU reports every thousandth window",
        expected=(Code.WINDOW_TERMS,),
        play=_other_terms,
    ),
    Attack(
        name="downgrade-evidence",
        rows=("A79", "A09"),
        does="leaves GPU reports out under the terms that demand them",
        expected=(Code.EVIDENCE_ABSENT, Code.GPU_MISSING),
        play=_no_reports,
    ),
    Attack(
        name="come-back",
        rows=("A78", "A72"),
        does="opens a new session after one that failed, with the same TPM and GPUs",
        expected=(Code.SUBJECT_FAILED,),
        play=_comes_back,
    ),
)


def _soft(guest: Guest) -> SoftTpm:
    return cast("SoftTpm", guest.rogue.tpm)


def _rarely(guest: Guest) -> Terms:
    return replace(guest.rogue.terms.terms, gpu_every=_RARELY)
