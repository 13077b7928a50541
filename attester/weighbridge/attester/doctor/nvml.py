"""NVML as questions with answers: a name and arguments in, a plain value or an :class:`NvmlFault` out.

Only calls whose names begin with ``nvmlInit``, ``nvmlShutdown``, ``nvmlSystemGet`` or ``nvmlDeviceGet`` are made:
nothing is set. Whatever NVML says is the host's word; no byte of it is signed, save the attestation report.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.doctor.host import printable

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ERRORS", "Nvml", "NvmlFault", "NvmlMeaning", "integers"]

_FUNCTION_NOT_FOUND: Final = 13
_UNKNOWN: Final = 999
_ASKS: Final = ("nvmlInit", "nvmlShutdown", "nvmlSystemGet", "nvmlDeviceGet")


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
    """NVML refused: the number of its error and what that means. Caught by each check; never leaves the doctor."""

    def __init__(self, call: str, number: int) -> None:
        super().__init__(call, number)
        self.call: str = call
        self.number: int = number
        self.meaning: NvmlMeaning = ERRORS.get(number, ERRORS[_UNKNOWN])

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.call}: {self.meaning.text} (NVML {self.number})"


@final
class Nvml:
    """A loaded and initialised NVML. A context manager.

    Args:
        module: ``pynvml``, or what stands in for it.
    """

    __slots__ = ("_error", "_module")

    def __init__(self, module: object) -> None:
        self._module = module
        error = getattr(module, "NVMLError", None)
        # Another package of this name has no such class: then every call is one that is not known.
        self._error: type[Exception] = error if isinstance(error, type) and issubclass(error, Exception) else NvmlFault
        self.call("nvmlInit")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(NvmlFault):  # nothing is asked any more
            self.call("nvmlShutdown")

    def call(self, name: str, *arguments: object) -> object:
        """What the call returns, in whatever type.

        Raises:
            NvmlFault: NVML's error; 13 where driver or ``nvidia-ml-py`` do not know the call.
            ValueError: a call that would change something.
        """
        if not name.startswith(_ASKS):
            raise ValueError(f"{name} does not only ask")
        function = getattr(self._module, name, None)
        if function is None:
            raise NvmlFault(name, _FUNCTION_NOT_FOUND)
        try:
            return function(*arguments)
        except self._error as error:
            number = getattr(error, "value", _UNKNOWN)
            raise NvmlFault(name, number if isinstance(number, int) else _UNKNOWN) from error

    def text(self, name: str, *arguments: object) -> str:
        """A string, which older versions return as bytes."""
        value = self.call(name, *arguments)
        return printable(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))

    def number(self, name: str, *arguments: object) -> int:
        """An integer.

        Raises:
            NvmlFault: also for something else.
        """
        value = self.call(name, *arguments)
        if not isinstance(value, int):
            raise NvmlFault(name, _UNKNOWN)
        return value

    def filled(self, name: str, structure: str) -> object:
        """The structure of the class ``structure`` of the module, which the call has filled in.

        Raises:
            NvmlFault: NVML's error, which such a call returns instead of raising it.
        """
        make = getattr(self._module, structure, None)
        if make is None:
            raise NvmlFault(name, _FUNCTION_NOT_FOUND)
        value = make()
        if number := self.number(name, ctypes.byref(value)):
            raise NvmlFault(name, number)
        return value

    def fields(self, name: str, wanted: tuple[str, ...], *arguments: object) -> tuple[int, ...]:
        """The integers called ``wanted`` in the structure that the call returns.

        Raises:
            NvmlFault: also where one is missing.
        """
        return integers(name, self.call(name, *arguments), wanted)


def integers(name: str, structure: object, wanted: tuple[str, ...]) -> tuple[int, ...]:
    """The integers called ``wanted`` in what the call ``name`` returned.

    Raises:
        NvmlFault: one is missing.
    """
    found = tuple(getattr(structure, field, None) for field in wanted)
    numbers = tuple(value for value in found if isinstance(value, int))
    if len(numbers) != len(wanted):
        raise NvmlFault(name, _UNKNOWN)
    return numbers
