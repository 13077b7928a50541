"""What the document says of weights: what is declared, what the measurement log shows as loaded, and spot checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

__all__ = ["DeclaredModel", "LoadedModel", "SpotCheck", "WeightDifference", "Weights"]


@dataclass(frozen=True, slots=True)
class DeclaredModel:
    """A model that the session declares."""

    manifest: Annotated[str, "digest of its manifest, 64 hexadecimal digits: the key into data.reference.models"]
    name: Annotated[str | None, "the name written in the manifest; null where the manifest is not at hand"]
    role: Annotated[Literal["model", "adapter"], "the model must be loaded, an adapter may be"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that the measurement log shows as loaded and not unloaded. ``protection`` is the host's word."""

    manifest: Annotated[str, "digest of its manifest, 64 hexadecimal digits"]
    name: Annotated[str | None, "the name written in the manifest; null where the manifest is not at hand"]
    declared: Annotated[bool, "whether the session declares it"]
    recnum: Annotated[int, "the number of its record in the measurement log, counted from 0"]
    protection: Annotated[
        Literal["none", "fs-verity", "dm-verity", "guarded"],
        "what bound its files between measuring and loading: the kernel, a guard in the serving process, or nothing",
    ] = "none"
    root: Annotated[str | None, "what the kernel enforces, hexadecimal; null where it is not the kernel"] = None


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """One place where loaded and declared weights differ."""

    file: Annotated[str, "path within the model"]
    tensor: Annotated[str | None, "the tensor's name; null where the whole file differs"]
    kind: Annotated[str, "what kind of difference"]
    expected: Annotated[str | None, "as declared; null where there is no such thing"]
    got: Annotated[str | None, "as measured; null where there is no such thing"]


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """Whether the host showed in this window that it has the declared model's bytes; not that they are what runs."""

    status: Annotated[
        Literal["passed", "not_due", "not_issued"],
        "not_issued where one was due by the terms, but the verifier had none left, or the window is held",
    ]
    last_passed_seq: Annotated[int | None, "the session's last window that passed one; null where none did"]


@dataclass(frozen=True, slots=True)
class Weights:
    """Declared and loaded models."""

    declared: Annotated[tuple[DeclaredModel, ...], "the models that the session declares"]
    loaded: Annotated[tuple[LoadedModel, ...], "the models that the measurement log shows as loaded"]
    log_length: Annotated[int, "how many records the measurement log has"]
    baseline: Annotated[
        Literal["zero", "boot-log"],
        "how the log's beginning is explained: by a cleared register, or by what the boot's own logs say was extended "
        "into it before",
    ]
    differences: Annotated[tuple[WeightDifference, ...], "where loaded and declared weights differ"]
    spot_check: Annotated[SpotCheck, "whether the host showed that it has the model's bytes"]
