"""Ways in which a window's document can be wrong, with the code that policies deny it by; and odd fields for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

from weighbridge.policy import document as doc
from weighbridge.proto.errors import Code

Change = Callable[[doc.PolicyInput], doc.PolicyInput]

EMULATED = "insecure-emulated"


def gpu(**changed: object) -> Change:
    return lambda d: replace(d, gpus=(d.gpus[0], replace(d.gpus[1], **changed)))  # type: ignore[arg-type]


def weights(**changed: object) -> Change:
    return lambda d: replace(d, weights=replace(d.weights, **changed))  # type: ignore[arg-type]


def platform(**changed: object) -> Change:
    return lambda d: replace(d, platform=replace(d.platform, **changed))  # type: ignore[arg-type]


def tee(**changed: object) -> Change:
    return lambda d: platform(tee=replace(d.platform.tee, **changed))(d)  # type: ignore[arg-type]


def telemetry(**changed: object) -> Change:
    return lambda d: replace(d, telemetry=replace(d.telemetry, **changed))  # type: ignore[arg-type]


def recorded(verdict: doc.TelemetryVerdict, **changed: object) -> Change:
    """Every GPU's physical record, and all together, as ``verdict`` says."""

    def change(document: doc.PolicyInput) -> doc.PolicyInput:
        gpus = [each.identity for each in document.gpus if each.kind == "gpu"]
        devices = tuple(replace(doc.TelemetryDevice(each, verdict, None), **changed) for each in gpus)  # type: ignore[arg-type]
        return telemetry(verdict=verdict, devices=devices)(document)

    return change


def source(name: str) -> Change:
    return lambda d: telemetry(sources=(replace(d.telemetry.sources[0], platform=name),))(d)


def devices(**changed: object) -> Change:
    return lambda d: replace(d, gpus=tuple(replace(each, **changed) for each in d.gpus))  # type: ignore[arg-type]


IMPOSSIBLE = doc.TelemetryFinding("energy", "power", "implausible", "4120 J to 4180 J", "3700 J")
UNKNOWN_MODEL = "dd" * 32
DIFFERENCE = doc.GpuDifference(22, "driver", "Driver", ("aa", "bb"), "cc", "another build; or devtools")

# What both policies deny.
ALWAYS: dict[str, tuple[Code, Change]] = {
    "held": (Code.WINDOW_HELD, lambda d: replace(d, window=replace(d.window, freshness="held"))),
    "no GPU (A10)": (Code.GPU_MISSING, lambda d: replace(d, gpus=())),
    "no reference measurements (A63)": (Code.GPU_REFERENCE_ABSENT, gpu(reference="absent")),
    "other measurements": (Code.GPU_MEASUREMENT_MISMATCH, gpu(reference="mismatch")),
    "no firmware identity": (Code.GPU_FWID, gpu(fwid="missing")),
    "revoked": (Code.GPU_REVOKED, gpu(revocation="revoked")),
    "on hold": (Code.GPU_REVOKED, gpu(revocation="hold")),
    "nothing but switches": (Code.GPU_MISSING, devices(kind="switch", signed_locked=True)),
    "a switch without references": (
        Code.GPU_REFERENCE_ABSENT,
        gpu(kind="switch", signed_locked=True, fwid="missing", reference="absent"),
    ),
    "a switch with other measurements": (
        Code.GPU_MEASUREMENT_MISMATCH,
        gpu(kind="switch", signed_locked=True, reference="mismatch"),
    ),
    "the maker contradicts (A19)": (
        Code.GPU_MEASUREMENT_MISMATCH,
        gpu(reference="mismatch", reference_by="manifests", mismatches=1, differences=(DIFFERENCE,)),
    ),
    "the maker contradicts the relying party": (
        Code.GPU_MEASUREMENT_MISMATCH,
        gpu(reference="mismatch", reference_by="both", mismatches=2, differences=(DIFFERENCE, DIFFERENCE)),
    ),
    "said to match, and differs from its manifest": (
        Code.GPU_MEASUREMENT_MISMATCH,
        gpu(reference="match", mismatches=1, differences=(DIFFERENCE,)),
    ),
    "said to match, and differs nobody says where": (
        Code.GPU_MEASUREMENT_MISMATCH,
        gpu(reference="match", mismatches=1),
    ),
    "claimed by two manifests": (Code.RIM_CONFLICT, gpu(reference="mismatch", conflicts=(9,))),
    "claimed by two manifests, said to match": (Code.RIM_CONFLICT, gpu(conflicts=(9, 11))),
    "older than is accepted (A84)": (Code.GPU_OUTDATED, gpu(minimum="below")),
    "of an unknown age": (Code.GPU_OUTDATED, gpu(minimum="unknown")),
    "a switch that is not locked": (Code.GPU_MODE, gpu(kind="switch", signed_locked=False)),
    "a switch that does not say whether it is locked": (Code.GPU_MODE, gpu(kind="switch")),
    "a switch that is too old": (Code.GPU_OUTDATED, gpu(kind="switch", signed_locked=True, minimum="below")),
    "confidential computing off": (Code.GPU_CC_MODE, gpu(cc_mode_host_claim="off")),
    "nothing declared": (Code.MODEL_UNDECLARED, weights(declared=())),
    "nothing loaded": (Code.MODEL_NOT_LOADED, weights(loaded=())),
    "loaded and not declared": (
        Code.MODEL_UNDECLARED,
        lambda d: weights(loaded=(*d.weights.loaded, doc.LoadedModel(UNKNOWN_MODEL, "x", False, 2)))(d),
    ),
    "loaded, said to be declared": (
        Code.MODEL_UNDECLARED,
        lambda d: weights(loaded=(*d.weights.loaded, doc.LoadedModel(UNKNOWN_MODEL, "x", True, 2)))(d),
    ),
    "a model without reference (A63)": (
        Code.REFERENCE_ABSENT,
        weights(
            declared=(doc.DeclaredModel(UNKNOWN_MODEL, "x", "model"),),
            loaded=(doc.LoadedModel(UNKNOWN_MODEL, "x", True, 2),),
        ),
    ),
    "one bit of one tensor": (
        Code.WEIGHTS_MISMATCH,
        weights(differences=(doc.WeightDifference("model.safetensors", "layer.0", "tensor", "aa", "bb"),)),
    ),
    "booted otherwise": (Code.BOOT_MISMATCH, platform(boot_reference="mismatch", host="rack")),
    "one register differs": (
        Code.BOOT_MISMATCH,
        platform(boot_reference="mismatch", host="rack", differences=(doc.BootDifference(4, ("aa",), "bb"),)),
    ),
    "said to match, and differs": (
        Code.BOOT_MISMATCH,
        platform(boot_reference="match", differences=(doc.BootDifference(4, ("aa",), "bb"),)),
    ),
    "a violation": (Code.RUNTIME_VIOLATION, lambda d: replace(d, runtime=doc.Runtime(present=True, violations=1))),
    "telemetry contradicts": (Code.TELEMETRY_OUT_OF_BASELINE, telemetry(verdict="out_of_baseline")),
    "telemetry is impossible": (Code.TELEMETRY_IMPLAUSIBLE, telemetry(verdict="implausible")),
    "a GPU's record contradicts": (Code.TELEMETRY_OUT_OF_BASELINE, recorded("out_of_baseline", score=5_200)),
    "a GPU's record is impossible": (Code.TELEMETRY_IMPLAUSIBLE, recorded("implausible", findings=(IMPOSSIBLE,))),
    "a GPU's record was impossible": (Code.TELEMETRY_IMPLAUSIBLE, recorded("implausible")),
}

# What production denies beside.
PRODUCTION: dict[str, tuple[Code, Change]] = {
    "emulated platform": (Code.PLATFORM_EMULATED, platform(name=EMULATED)),
    "unknown platform": (Code.PLATFORM_EMULATED, platform(name="something")),
    "emulated GPU": (Code.PLATFORM_EMULATED, gpu(platform=EMULATED)),
    "emulated telemetry": (Code.PLATFORM_EMULATED, source(EMULATED)),
    "a cloud's TPM": (Code.HOST_STATE_HELD, platform(name="google-vtpm", state_held_by="host", tee=doc.Tee())),
    "Milan (A39)": (Code.PLATFORM_WEAK, tee(product="Milan")),
    "unknown generation": (Code.PLATFORM_WEAK, tee(product="")),
    "aliased memory (A39)": (Code.PLATFORM_WEAK, tee(alias_check="incomplete")),
    "TCB out of date (A41)": (
        Code.PLATFORM_WEAK,
        platform(name="intel-tdx", tee=doc.Tee("tdx", tcb_status="OutOfDate")),
    ),
    "development mode": (Code.GPU_CC_MODE, gpu(cc_mode_host_claim="devtools")),
    "development mode, admitted in nothing else": (
        Code.GPU_CC_MODE,
        gpu(cc_mode_host_claim="devtools", reference_by="both", revocation="good", signed_feature="spt"),
    ),
}

# ---------- odd fields

Place = tuple[str | int, ...]
SUBSTITUTES: tuple[object, ...] = tuple(
    json.loads('[null, true, false, 0, 7, "", "other", [], {}, [[]], {"x": 1}, [null]]')
)


def places(value: object, path: Place = ()) -> Iterator[Place]:
    if path:
        yield path
    for key, inner in items_of(value):
        yield from places(inner, (*path, key))


def items_of(value: object) -> list[tuple[str | int, object]]:
    if isinstance(value, dict):
        return list(cast("dict[str | int, object]", value).items())
    return list(enumerate(cast("list[object]", value))) if isinstance(value, list) else []


def kind_at(value: object, path: Place) -> type:
    """The type of the field at ``path``."""
    for key in path:
        value = dict(items_of(value))[key]
    return type(value)


def mutate(value: object, path: Place, substitute: object, *, own: type | None = None) -> bool:
    """Delete (``...``) or retype the field at ``path``; false where that would be another valid document.

    ``own`` is the field's type before any mutation, where there may have been one: back to it is no retyping.
    """
    for key in path[:-1]:
        value = dict(items_of(value)).get(key)
    last = path[-1]
    if last not in dict(items_of(value)):
        return False
    kind = own or type(dict(items_of(value))[last])
    holder = cast("dict[str | int, object]", value)
    if isinstance(value, list):
        # An element that is taken away leaves another valid document.
        if substitute is not ...:
            holder[last] = substitute
        return substitute is not ...
    if substitute is ...:
        del holder[last]
        return True
    # A field of its own type is another document, and null is a value of two fields.
    said = (last == "cc_mode_host_claim" and substitute is None) or (
        last == "signed_locked" and isinstance(substitute, bool | None)
    )
    if kind is type(substitute) or said:
        return False
    holder[last] = substitute
    return True
