"""What the NVIDIA driver says of itself and its GPUs, for the scope of a recording. The host's word, like all of NVML.

What the GPUs of a host have not in common is not said: a recording speaks of one stack.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from weighbridge.attester.gpu.nvml_calls import Nvml
from weighbridge.attester.gpu.nvml_errors import NvmlFault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DriverStack", "driver_stack"]

_T = TypeVar("_T")
_MW_PER_W: Final = 1000


@dataclass(frozen=True, slots=True)
class DriverStack:
    """Each ``None`` where it is not said, or differs between GPUs. The limit is the one in force, whole watts."""

    gpu_model: str | None = None
    driver: str | None = None
    vbios: str | None = None
    power_limit_w: int | None = None

    def texts(self) -> dict[str, str]:
        """What is said, by the names of a scope's fields."""
        said = {"gpu_model": self.gpu_model, "driver": self.driver, "vbios": self.vbios}
        return {name: text for name, text in said.items() if text is not None}


def driver_stack(load: Callable[[], object] | None = None) -> DriverStack:
    """What this host's driver says; nothing where there is none.

    Args:
        load: imports what stands for ``pynvml``; the module itself by default.
    """
    try:
        module = (load or (lambda: importlib.import_module("pynvml")))()
        with Nvml(module) as nvml:
            handles = [
                nvml.call("nvmlDeviceGetHandleByIndex", index) for index in range(nvml.number("nvmlDeviceGetCount"))
            ]
            watts = _common(handles, lambda handle: nvml.number("nvmlDeviceGetEnforcedPowerLimit", handle))
            return DriverStack(
                gpu_model=_common(handles, lambda handle: nvml.text("nvmlDeviceGetName", handle)),
                driver=_common([None], lambda _: nvml.text("nvmlSystemGetDriverVersion")),
                vbios=_common(handles, lambda handle: nvml.text("nvmlDeviceGetVbiosVersion", handle)),
                power_limit_w=None if watts is None else watts // _MW_PER_W or None,
            )
    except (ImportError, NvmlFault):
        return DriverStack()


def _common(handles: list[object], ask: Callable[[object], _T]) -> _T | None:
    """What all of them answer alike."""
    try:
        answers = {ask(handle) for handle in handles}
    except NvmlFault:
        return None
    return answers.pop() if len(answers) == 1 else None
