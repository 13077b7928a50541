"""Rows A51, A52, A54 and A77: what was loaded beside, instead of, or before what was declared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import Forgery, claim, seal
from support.models import plain
from support.world import LOG_PCR, manifest
from weighbridge.proto import measurement_log
from weighbridge.proto.manifest import Manifest, encode_manifests
from weighbridge.proto.measurement_log import AttesterStart, ModelLoad, ModelUnload

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.verifier.core import Answer, Opened

# A model that shares no file with the declared one, so that there is nothing to compare file by file.
OTHER = Manifest.build("another", [plain("other.bin", b"other")])


def _extend(world: World, what: Manifest) -> None:
    """Extend the log's register as a load would, and log nothing."""
    record = measurement_log.make_record(
        ModelLoad(what.digest, what.name), recnum=99, pcr=LOG_PCR, algs=world.host.tpm.banks
    )
    world.host.tpm.extend(LOG_PCR, dict(record.digests))


# -- A51 ---------------------------------------------------------------------------------------------------------------


def case_001_second_model(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.load(OTHER)
    return arena.submit(world, seal(world.host))


def case_002_extended_and_not_logged(arena: Arena) -> Answer:
    world = arena.settled()
    _extend(world, OTHER)
    return arena.submit(world, seal(world.host))


def case_003_loaded_and_unloaded_between_windows(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.load(OTHER)
    world.host.log.append(ModelUnload(load=len(world.host.log.entries) - 1))
    return arena.submit(world, seal(world.host))


def case_004_exchanged_after_the_window(arena: Arena) -> Answer:
    """The declared model unloaded, another one in its place."""
    world = arena.settled()
    world.host.log.append(ModelUnload(load=0))
    world.host.log.load(OTHER)
    return arena.submit(world, seal(world.host))


def case_005_declared_model_not_loaded(arena: Arena) -> Answer:
    world = arena.world()
    world.host.enrol(world.verifier)
    return arena.submit(world, seal(world.host))


def case_006_declared_model_unloaded(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.append(ModelUnload(load=0))
    return arena.submit(world, seal(world.host))


def case_007_loaded_before_the_session(arena: Arena) -> Opened:
    world = arena.world()
    world.host.log.load(OTHER)
    return arena.enrol(world)


def case_008_one_tensor_changed(arena: Arena) -> Answer:
    world = arena.world()
    world.host.enrol(world.verifier)
    world.host.log.load(manifest(weights=b"Weights"))
    return arena.submit(world, seal(world.host))


def case_009_declared_model_loaded_twice(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.load(world.host.model)
    return world.window()


# -- A52 ---------------------------------------------------------------------------------------------------------------


def case_010_record_dropped(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.load(OTHER)
    return arena.submit(world, seal(world.host, Forgery(records=lambda records: records[:-1])))


def case_011_record_dropped_and_signed_so(arena: Arena) -> Answer:
    """The header, too, speaks of the log without the load; the register does not."""
    world = arena.settled()
    world.host.log.load(OTHER, hide=True)
    return arena.submit(world, seal(world.host))


def case_012_record_edited(arena: Arena) -> Answer:
    world = arena.settled()
    event = ModelLoad(world.host.model.digest, world.host.model.name)
    world.host.log.load(OTHER)
    renamed = measurement_log.make_record(event, recnum=1, pcr=LOG_PCR, algs=world.host.tpm.banks)
    return arena.submit(world, seal(world.host, Forgery(records=lambda _: (renamed,))))


def case_013_record_edited_and_signed_so(arena: Arena) -> Answer:
    world = arena.settled()
    event = ModelLoad(world.host.model.digest, world.host.model.name)
    world.host.log.load(OTHER)
    world.host.log.entries[-1] = measurement_log.make_record(event, recnum=1, pcr=LOG_PCR, algs=world.host.tpm.banks)
    return arena.submit(world, seal(world.host))


def case_014_records_out_of_order(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.append(AttesterStart("0.1.0", bytes(16)))
    world.host.log.append(AttesterStart("0.1.0", bytes(15) + b"\x01"))
    return arena.submit(world, seal(world.host, Forgery(records=lambda records: records[::-1])))


def case_015_records_sent_again(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(records=lambda _: world.host.log.records())))


def case_016_head_of_another_log(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(log_head=bytes(32))))


def case_017_length_of_another_log(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, claim(log_length=7)))


def case_018_record_of_another_register(arena: Arena) -> Answer:
    world = arena.settled()
    event = AttesterStart("0.1.0", bytes(16))
    record = measurement_log.make_record(event, recnum=1, pcr=14, algs=world.host.tpm.banks)
    world.host.log.entries.append(record)
    return arena.submit(world, seal(world.host))


def case_019_unloads_what_is_not_loaded(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.append(ModelUnload(load=5))
    return arena.submit(world, seal(world.host))


# -- A54 ---------------------------------------------------------------------------------------------------------------


def case_020_manifest_left_out(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.load(OTHER)
    return arena.submit(world, seal(world.host, Forgery(manifests=lambda _: [])))


def case_021_manifest_exchanged(arena: Arena) -> Answer:
    """The log names one manifest, the evidence carries another: nothing else signs it."""
    world = arena.settled()
    world.host.log.load(OTHER)
    third = manifest("a third", weights=b"third")
    return arena.submit(world, seal(world.host, Forgery(manifests=lambda _: [third])))


def case_022_manifest_that_nobody_loaded(arena: Arena) -> Answer:
    world = arena.settled()
    return arena.submit(world, seal(world.host, Forgery(manifests=lambda _: [OTHER])))


def case_023_manifest_twice(arena: Arena) -> Answer:
    world = arena.world()
    world.open_session()
    return arena.submit(world, seal(world.host, Forgery(manifests=lambda manifests: [*manifests, *manifests])))


# -- A77 ---------------------------------------------------------------------------------------------------------------


def case_024_restart_hides_a_load(arena: Arena) -> Opened:
    """Another model loaded after the session, the attester restarted, its log begun anew."""
    world = arena.settled()
    world.host.log.load(OTHER, hide=True)
    world.host.log.entries.clear()
    return arena.enrol(world)


def case_025_restart_with_the_load_left_out(arena: Arena) -> Opened:
    world = arena.settled()
    world.host.log.load(OTHER, hide=True)
    world.host.log.append(AttesterStart("0.1.0", bytes(16)))
    return arena.enrol(world)


def case_026_log_shorter_than_ledgered(arena: Arena) -> Opened:
    """A register that was set back with the TPM's state: the log explains it, the ledger remembers more."""
    world = arena.settled()
    world.host.log.append(AttesterStart("0.1.0", bytes(16)))
    world.window()
    for bank, values in world.host.tpm.pcrs.items():
        values[LOG_PCR] = bytes(len(values[0]))
        del bank
    first = world.host.log.entries[:1]
    world.host.log.entries[:] = first
    world.host.tpm.extend(LOG_PCR, dict(first[0].digests))
    return arena.enrol(world)


def case_027_restart_without_a_word(arena: Arena) -> Opened:
    """An honest restart: the whole log again, and nothing else was loaded."""
    world = arena.settled()
    world.host.log.append(AttesterStart("0.1.0", bytes(16)))
    return arena.enrol(world)


def case_028_baseline_with_a_record_edited(arena: Arena) -> Opened:
    world = arena.world()
    world.host.log.load(world.host.model)
    kept = world.host.log.entries[0]
    assert isinstance(kept.event, ModelLoad)
    event = replace(kept.event, name="renamed")
    world.host.log.entries[0] = measurement_log.make_record(event, recnum=0, pcr=LOG_PCR, algs=world.host.tpm.banks)
    return arena.enrol(world)


def case_029_enrolled_with_a_manifest_that_nobody_loaded(arena: Arena) -> Opened:
    """The log names the manifests, and the quote signs the log: what neither names is not taken along."""
    world = arena.world()
    world.host.log.load(world.host.model)
    manifests = encode_manifests([world.host.model, OTHER])
    return arena.enrol(world, edit=lambda proof: replace(proof, manifests=manifests))


def case_030_enrolled_with_a_manifest_left_out(arena: Arena) -> Opened:
    """Nobody could say later how the model that is loaded differs from the declared one."""
    world = arena.world()
    world.host.log.load(world.host.model)
    return arena.enrol(world, edit=lambda proof: replace(proof, manifests=encode_manifests([])))
