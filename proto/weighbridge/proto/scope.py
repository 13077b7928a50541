"""The stack that recordings were made on and that a baseline therefore speaks of: one is not compared with another.

A GPU's power at the same work differs between units by more than between models, and between releases of a driver or
an engine by more than from run to run. Which unit it is stands beside, with the readings (the source's ``device``).

>>> Scope(gpu_model="H100", driver="580.159.04", engine="vllm 0.11", workload="chat").to_json()["model"] is None
True
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

from weighbridge.proto import limits, strict
from weighbridge.proto.errors import Code, MalformedEvidence

__all__ = ["Scope"]

_TEXT_MAX: Final = 128
_POWER_MAX: Final = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What was the same in all runs. *Said by whoever recorded them*: nothing here is proven by hardware.

    Attributes:
        gpu_model: as the driver names it.
        driver: its version.
        vbios: of the GPU, ``None`` where it is not said.
        engine: the inference server and its version.
        model: digest of the manifest of what was served, 32 bytes, ``None`` where it is not said.
        workload: the owner's name for the kind of work.
        power_limit_mw: enforced by the driver, ``None`` where it is not said.
    """

    gpu_model: str
    driver: str
    vbios: str | None = None
    engine: str
    model: bytes | None = None
    workload: str
    power_limit_mw: int | None = None

    def __post_init__(self) -> None:
        """Refuse what :meth:`from_json` would refuse."""
        for text in (self.gpu_model, self.driver, self.engine, self.workload, self.vbios or "-"):
            if not 0 < len(text.encode()) <= _TEXT_MAX or not text.isprintable():
                raise ValueError(f"1 to {_TEXT_MAX} printable bytes: {text!r}")
        if self.vbios == "":
            raise ValueError("a VBIOS that is not said is None")
        if self.model is not None and len(self.model) != limits.DIGEST_SIZE:
            raise ValueError(f"a digest has {limits.DIGEST_SIZE} bytes")
        if self.power_limit_mw is not None and not 0 < self.power_limit_mw <= _POWER_MAX:
            raise ValueError("a power limit is positive")

    def to_json(self) -> strict.JsonObject:
        """Every field, absent ones as null; the digest in lower-case hexadecimal."""
        return {
            "gpu_model": self.gpu_model,
            "driver": self.driver,
            "vbios": self.vbios,
            "engine": self.engine,
            "model": None if self.model is None else self.model.hex(),
            "workload": self.workload,
            "power_limit_mw": self.power_limit_mw,
        }

    @classmethod
    def from_json(cls, value: strict.JsonValue, *, where: str) -> Self:
        """Read a scope.

        Raises:
            MalformedEvidence: ``FIELD_TYPE``, ``FIELD_MISSING``, ``FIELD_UNKNOWN``, ``NOT_HEX`` or ``FIELD_RANGE``.
        """
        if not isinstance(value, dict):
            raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="object")
        names = {field.name for field in fields(cls)}
        for code, different in (
            (Code.FIELD_MISSING, names - value.keys()),
            (Code.FIELD_UNKNOWN, value.keys() - names),
        ):
            if different:
                raise MalformedEvidence(code, "not the fields of a scope", where=where, got=min(different))
        model = _text(value["model"], f"{where}.model", optional=True)
        power = value["power_limit_mw"]
        if power is not None and (isinstance(power, bool) or not isinstance(power, int)):
            raise MalformedEvidence(
                Code.FIELD_TYPE, "wrong type", where=f"{where}.power_limit_mw", expected="integer or null"
            )
        try:
            return cls(
                gpu_model=_text(value["gpu_model"], f"{where}.gpu_model") or "",
                driver=_text(value["driver"], f"{where}.driver") or "",
                vbios=_text(value["vbios"], f"{where}.vbios", optional=True),
                engine=_text(value["engine"], f"{where}.engine") or "",
                model=None if model is None else strict.hex_decode(model, what=f"{where}.model"),
                workload=_text(value["workload"], f"{where}.workload") or "",
                power_limit_mw=power,
            )
        except ValueError as error:
            raise MalformedEvidence(Code.FIELD_RANGE, str(error), where=where) from error


def _text(value: strict.JsonValue, where: str, *, optional: bool = False) -> str | None:
    if value is None and optional:
        return None
    if not isinstance(value, str):
        raise MalformedEvidence(Code.FIELD_TYPE, "wrong type", where=where, expected="text")
    return value
