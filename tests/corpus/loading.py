"""Rows A53 and A54: between measuring and loading. What the log says of it, and what a policy makes of that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from corpus.policy import genuine
from support.forge import seal
from weighbridge.proto.measurement_log import ModelHanded, ModelLoad, ModelUnload

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.measurement_log import Protection
    from weighbridge.verifier.core import Answer, Opened

WEIGHTS = "model.safetensors"
ROOT = bytes([5] * 32)


def _strict(made: Reference) -> Reference:
    """No reason for a load that nothing binds to what was measured."""
    return replace(made, unchecked={key: text for key, text in made.unchecked.items() if key != "load_binding"})


def _enrolled(arena: Arena) -> World:
    world = arena.world(**genuine(reference=_strict))
    world.host.enrol(world.verifier)
    return world


def _load(world: World, protection: Protection = "none") -> int:
    """Load the declared model; the number of the record."""
    log, model = world.host.log, world.host.model
    log.known[model.digest] = model
    root = None if protection == "none" else ROOT
    log.append(ModelLoad(model.digest, model.name, protection, root))
    return len(log.entries) - 1


def _hand(world: World, load: int, **changes: object) -> None:
    """A guard handed over all of the model's weights."""
    (entry,) = (file for file in world.host.model.files if file.path == WEIGHTS)
    event = ModelHanded(load, WEIGHTS, entry.digest, 1, entry.size, "match")
    world.host.log.append(replace(event, **changes))  # type: ignore[arg-type] # tests name fields


def _refuse(world: World, load: int) -> None:
    _hand(world, load, digest=None, tensors=0, size=0, outcome="mismatch", detail="tensor layer.weight")


def _guarded(arena: Arena) -> World:
    """A session whose model a guard handed over, and that has one good window."""
    world = _enrolled(arena)
    _hand(world, _load(world))
    assert world.window().verdict.opens
    return world


# -- what binds --------------------------------------------------------------------------------------------------------


def case_001_guarded(arena: Arena) -> Answer:
    return _guarded(arena).window()


def case_002_fs_verity(arena: Arena) -> Answer:
    world = _enrolled(arena)
    _load(world, "fs-verity")
    return world.window()


def case_003_dm_verity(arena: Arena) -> Answer:
    world = _enrolled(arena)
    _load(world, "dm-verity")
    return world.window()


def case_004_nothing(arena: Arena) -> Answer:
    world = _enrolled(arena)
    _load(world)
    return world.window()


def case_005_handed_over_in_part(arena: Arena) -> Answer:
    world = _enrolled(arena)
    _hand(world, _load(world), digest=None, size=7)
    return world.window()


def case_006_handed_over_by_another_digest(arena: Arena) -> Answer:
    """A record of a match with a file that the manifest does not have."""
    world = _enrolled(arena)
    _hand(world, _load(world), digest=ROOT)
    return world.window()


def case_007_only_the_configuration_handed_over(arena: Arena) -> Answer:
    world = _enrolled(arena)
    (entry,) = (file for file in world.host.model.files if file.kind == "plain")
    _hand(world, _load(world), path=entry.path, digest=entry.digest, tensors=0, size=entry.size)
    return world.window()


def case_008_loaded_again_with_nothing(arena: Arena) -> Answer:
    """A reload in the session: the same files, and this time nobody looked."""
    world = _guarded(arena)
    _load(world)
    return world.window()


# -- what contradicts --------------------------------------------------------------------------------------------------


def case_009_exchanged_after_measuring(arena: Arena) -> Answer:
    """Also where a written reason leaves the binding out: a contradiction is not something unproven."""
    world = arena.settled()
    _refuse(world, 0)
    return arena.submit(world, seal(world.host))


def case_010_cut_while_it_was_read(arena: Arena) -> Answer:
    world = _enrolled(arena)
    load = _load(world)
    _hand(world, load, digest=None, tensors=0, size=0, outcome="changed", detail="ends at byte 80")
    _hand(world, load)
    return world.window()


def case_011_reloaded_refused_and_unloaded_between_windows(arena: Arena) -> Answer:
    world = _guarded(arena)
    load = _load(world)
    _refuse(world, load)
    world.host.log.append(ModelUnload(load))
    return world.window()


def case_012_refused_before_the_session(arena: Arena) -> Opened:
    world = arena.world(**genuine(reference=_strict))
    _refuse(world, _load(world))
    return arena.enrol(world)


def case_013_refused_unloaded_and_loaded_again_before_the_session(arena: Arena) -> Answer:
    """What was unloaded before is over: the operator did what the denial says."""
    world = arena.world(**genuine(reference=_strict))
    load = _load(world)
    _refuse(world, load)
    world.host.log.append(ModelUnload(load))
    _hand(world, _load(world))
    world.host.enrol(world.verifier)
    return world.window()


def case_014_hands_over_what_is_not_loaded(arena: Arena) -> Answer:
    world = _guarded(arena)
    _hand(world, 99)
    return world.window()
