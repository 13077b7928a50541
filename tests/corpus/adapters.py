"""Row A54: adapters, declared beside the model and swapped later. What is loaded beside it counts like the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.forge import seal
from support.models import plain, safetensors
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.measurement_log import ModelUnload

if TYPE_CHECKING:
    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.core import Answer, Opened


def _adapter(weights: bytes = b"lora") -> Manifest:
    files = [
        plain("adapter_config.json", b"{}"),
        safetensors("adapter_model.safetensors", {"lora_A.weight": weights, "lora_B.weight": b"b"}),
    ]
    return Manifest.build("sql", files)


ADAPTER, SWAPPED = _adapter(), _adapter(b"LORA")


def _accepting(made: Reference) -> Reference:
    return replace(made, models={**made.models, ADAPTER.digest.hex(): made.models[next(iter(made.models))]})


def _declared(arena: Arena, *, accepted: bool = True) -> World:
    """A session that declares an adapter beside its model, before its first window."""
    world = arena.world(reference=_accepting) if accepted else arena.world()
    world.host.adapters = (ADAPTER,)
    world.models[ADAPTER.digest] = ADAPTER
    return world


def _with_adapter(arena: Arena) -> World:
    world = _declared(arena)
    world.open_session()
    world.host.log.load(ADAPTER)
    assert world.window().verdict.opens
    return world


def case_001_declared_and_loaded(arena: Arena) -> Answer:
    return _with_adapter(arena).window()


def case_002_declared_and_not_loaded(arena: Arena) -> Answer:
    world = _declared(arena)
    world.open_session()
    return world.window()


def case_003_unloaded_in_the_session(arena: Arena) -> Answer:
    world = _with_adapter(arena)
    world.host.log.append(ModelUnload(load=len(world.host.log.entries) - 1))
    return world.window()


def case_004_swapped_in_the_session(arena: Arena) -> Answer:
    """The declared adapter unloaded, another of its name and files in its place: file and tensor are named."""
    world = _with_adapter(arena)
    world.host.log.append(ModelUnload(load=len(world.host.log.entries) - 1))
    world.host.log.load(SWAPPED)
    return arena.submit(world, seal(world.host))


def case_005_reloaded_from_changed_files(arena: Arena) -> Answer:
    """Loaded once more, from the same directory, after its files were changed."""
    world = _with_adapter(arena)
    world.host.log.load(SWAPPED)
    return arena.submit(world, seal(world.host))


def case_006_not_declared(arena: Arena) -> Answer:
    world = arena.settled()
    world.host.log.load(ADAPTER)
    return arena.submit(world, seal(world.host))


def case_007_declared_and_not_accepted(arena: Arena) -> Answer:
    """Declaring is the attester's; accepting is the relying party's."""
    world = _declared(arena, accepted=False)
    world.open_session()
    return arena.submit(world, seal(world.host))


def case_008_adapter_without_its_model(arena: Arena) -> Answer:
    world = _declared(arena)
    world.host.enrol(world.verifier)
    world.host.log.load(ADAPTER)
    return arena.submit(world, seal(world.host))


def case_009_model_as_its_own_adapter(arena: Arena) -> Opened:
    world = arena.world()
    world.host.adapters = (world.host.model,)
    return arena.enrol(world)


def case_010_swapped_before_enrolment(arena: Arena) -> Opened:
    world = _declared(arena)
    world.host.log.load(world.host.model)
    world.host.log.load(SWAPPED)
    return arena.enrol(world)
