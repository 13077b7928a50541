"""What NVML's errors mean, and what to do about each (nvml.h, nvmlReturn_t)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weighbridge.proto.errors import Code, EnvironmentFault

__all__ = ["ERRORS", "FUNCTION_NOT_FOUND", "NOT_SUPPORTED", "UNKNOWN", "NvmlFault", "NvmlMeaning"]

NOT_SUPPORTED: Final = 3
FUNCTION_NOT_FOUND: Final = 13
UNKNOWN: Final = 999
# The driver is not loaded, its library is not there, there is no GPU.
_ABSENT: Final = frozenset({9, 12, 28})
_TIMEOUT: Final = 10


@dataclass(frozen=True, slots=True)
class NvmlMeaning:
    """What an error of NVML says, and what to do about it."""

    text: str
    todo: str


_SUPPORT: Final = "Use a GPU and a driver that know this call: Hopper or newer, driver 550 or newer."
_RESET: Final = "Stop what uses the GPU, then nvidia-smi --gpu-reset, or restart the host; nvidia-smi -q says more."
_REPORT: Final = "Report it with the driver's version."
_AGAIN: Final = "Try again; if it stays, look for NVRM in the kernel's log."
# nvml.h, nvmlReturn_t.
ERRORS: Final = {
    1: NvmlMeaning("NVML was not initialised", _REPORT),
    2: NvmlMeaning("an argument is not valid", _REPORT),
    3: NvmlMeaning("not supported by this GPU, its mode or its driver", _SUPPORT),
    4: NvmlMeaning("no permission", "Give this user the device files /dev/nvidia*, or run as root."),
    5: NvmlMeaning("NVML was initialised twice", _REPORT),
    6: NvmlMeaning("not found", _AGAIN),
    7: NvmlMeaning("a buffer is too small", "Update nvidia-ml-py: pip install -U nvidia-ml-py."),
    8: NvmlMeaning("the GPU's power cables are not attached", "Attach them."),
    9: NvmlMeaning("the driver is not loaded", "Load it: modprobe nvidia; if that fails, install the driver again."),
    10: NvmlMeaning("the GPU did not answer in time", _AGAIN),
    11: NvmlMeaning(
        "the GPU's interrupts do not arrive", "Look for NVRM in the kernel's log; check the BIOS and PCIe."
    ),
    12: NvmlMeaning(
        "libnvidia-ml.so.1 is not there",
        "Install the NVIDIA driver; in a container, start it with the NVIDIA runtime (--gpus all).",
    ),
    13: NvmlMeaning("the driver does not know this call", "Update the driver: 550 or newer."),
    14: NvmlMeaning("the GPU's inforom is corrupted", "Ask the maker for a replacement."),
    15: NvmlMeaning("the GPU fell off the bus", "Restart the host; if it returns, look at power and PCIe."),
    16: NvmlMeaning("the GPU needs a reset", _RESET),
    17: NvmlMeaning(
        "the operating system refuses access to the GPU", "Look for NVRM in the kernel's log; check cgroups."
    ),
    18: NvmlMeaning(
        "driver and library have different versions", "Restart the host: the driver was updated under the running one."
    ),
    19: NvmlMeaning("the GPU is in use", _AGAIN),
    20: NvmlMeaning("memory ran out", "Free memory of the host."),
    21: NvmlMeaning("there is no data", _AGAIN),
    22: NvmlMeaning("not with ECC on a virtual GPU", _SUPPORT),
    23: NvmlMeaning("the GPU's resources ran out", "Stop what uses the GPU."),
    24: NvmlMeaning("the frequency is not supported", _REPORT),
    25: NvmlMeaning(
        "a structure's version is not supported", "Bring nvidia-ml-py and driver to the same CUDA version."
    ),
    26: NvmlMeaning("the call is no longer supported", "Update nvidia-ml-py: pip install -U nvidia-ml-py."),
    27: NvmlMeaning("the GPU is not ready", "Wait for the driver; nvidia-smi conf-compute -grs shows the ready state."),
    28: NvmlMeaning("there is no GPU", "Give this machine a GPU: lspci -d 10de: shows those it has."),
    29: NvmlMeaning("the GPU's state does not allow it", _RESET),
    30: NvmlMeaning("this kind of reset is not supported", _REPORT),
    999: NvmlMeaning("an error that the driver does not explain", "Look for NVRM in the kernel's log."),
}


class NvmlFault(Exception):
    """NVML refused: the number of its error and what that means. Leaves neither the doctor nor a GPU source."""

    def __init__(self, call: str, number: int) -> None:
        super().__init__(call, number)
        self.call: str = call
        self.number: int = number
        self.meaning: NvmlMeaning = ERRORS.get(number, ERRORS[UNKNOWN])

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.call}: {self.meaning.text} (NVML {self.number})"

    def environment_fault(self, where: str, *, hint: str = "") -> EnvironmentFault:
        """The same as a fault of this machine: ``GPU_ABSENT``, ``GPU_TIMEOUT`` or ``GPU_FAILED``.

        ``where`` is the device; ``hint`` says more than NVML's number does, where that is known.
        """
        absent = Code.GPU_ABSENT if self.number in _ABSENT else Code.GPU_FAILED
        code = Code.GPU_TIMEOUT if self.number == _TIMEOUT else absent
        return EnvironmentFault(code, self.text, where=where, hint=hint or self.meaning.todo)
