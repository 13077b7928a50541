"""The production policy: what it admits, and everything that has to be there for that; the others that are shipped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.world import EMULATED
from weighbridge.verifier import anchors as default_anchors

if TYPE_CHECKING:
    from corpus.arena import Arena, Options
    from weighbridge.policy.values.reference import Reference
    from weighbridge.verifier.core import Answer, Opened


def genuine(**changes: object) -> Options:
    """Options of a world in which nothing is emulated as far as anchors and telemetry can tell."""
    options: Options = {"policy": "production", "platforms": ("tpm", "nvidia"), "source": "nvml"}
    return {**options, **changes}  # type: ignore[typeddict-item] # tests name options


def _window(arena: Arena, options: Options) -> Answer:
    world = arena.world(**options)
    world.open_session()
    return world.window()


def without(reference: Reference, check: str) -> Reference:
    return replace(reference, unchecked={key: text for key, text in reference.unchecked.items() if key != check})


def case_001_forged_hierarchy_with_its_anchors(arena: Arena) -> Answer:
    return _window(arena, genuine())


def case_002_emulated_tpm(arena: Arena) -> Answer:
    return _window(arena, genuine(platforms=(EMULATED, "nvidia")))


def case_003_emulated_gpus(arena: Arena) -> Answer:
    return _window(arena, genuine(platforms=("tpm", EMULATED)))


def case_004_emulated_telemetry(arena: Arena) -> Answer:
    return _window(arena, genuine(source="emulated"))


def case_005_no_reasons(arena: Arena) -> Answer:
    return _window(arena, genuine(unchecked=False))


def case_006_one_reason_missing(arena: Arena) -> Answer:
    return _window(arena, genuine(reference=lambda made: without(made, "gpu_revocation")))


def case_007_no_reference_of_the_gpu(arena: Arena) -> Answer:
    return _window(arena, genuine(reference=lambda made: replace(made, gpu_measurements={})))


def case_008_other_reference_of_the_gpu(arena: Arena) -> Answer:
    def changed(made: Reference) -> Reference:
        return replace(made, gpu_measurements=dict.fromkeys(made.gpu_measurements, ("00" * 32,)))

    return _window(arena, genuine(reference=changed))


def case_009_model_not_among_the_references(arena: Arena) -> Answer:
    return _window(arena, genuine(reference=lambda made: replace(made, models={})))


def case_010_default_anchors(arena: Arena) -> Opened:
    return arena.enrol(arena.world(**genuine(anchors=default_anchors.default())))


def case_011_everything_emulated(arena: Arena) -> Answer:
    return _window(arena, genuine(platforms=(EMULATED, EMULATED), source="emulated"))


def case_012_held_window(arena: Arena) -> Answer:
    world = arena.world(**genuine())
    world.open_session()
    sealed = world.host.seal()
    world.clock.advance(10)
    return world.deliver(sealed)


def _unknown_gpu(made: Reference) -> Reference:
    return replace(made, gpu_measurements={})


def _unknown_model(made: Reference) -> Reference:
    return replace(made, models={})


def case_013_audit(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="audit_only"))


def case_014_audit_of_an_unknown_gpu(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="audit_only", reference=_unknown_gpu))


def case_015_policy_for_another_machine(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="azure_snp_h100"))


def case_016_unknown_model_on_azure(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="azure_snp_h100", reference=_unknown_model))


def case_017_host_that_shows_no_boot(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="bare_metal_tpm_h100"))


def case_018_unknown_gpu_on_bare_metal(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="bare_metal_tpm_h100", reference=_unknown_gpu))


def case_019_unknown_model_on_bare_metal(arena: Arena) -> Answer:
    return _window(arena, genuine(policy="bare_metal_tpm_h100", reference=_unknown_model))


def case_020_unknown_gpu_in_development(arena: Arena) -> Answer:
    return _window(arena, {"policy": "insecure_development", "reference": _unknown_gpu})


def case_021_unknown_model_in_development(arena: Arena) -> Answer:
    return _window(arena, {"policy": "insecure_development", "reference": _unknown_model})
