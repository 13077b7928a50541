"""NVML as questions with answers: a name and arguments in, a plain value or an :class:`NvmlFault` out.

Only calls whose names begin with ``nvmlInit``, ``nvmlShutdown``, ``nvmlSystemGet`` or ``nvmlDeviceGet`` are made, and
those of GPM that take samples, so nothing is set, but for the one thing that :meth:`Nvml.accept_work` says. Whatever
NVML says is the host's word; no byte of it is signed, save the attestation report.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.gpu.nvml_errors import FUNCTION_NOT_FOUND, UNKNOWN, NvmlFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["Nvml", "integers"]

_ASKS: Final = ("nvmlInit", "nvmlShutdown", "nvmlSystemGet", "nvmlDeviceGet")
_SAMPLING: Final = ("nvmlDeviceGet", "nvmlGpmQueryDeviceSupport", "nvmlGpmSample", "nvmlGpmMetricsGet")
_ACCEPT: Final = "nvmlSystemSetConfComputeGpusReadyState"


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
        return self._call(name, *arguments)

    def function(self, name: str) -> Callable[..., int] | None:
        """The library's own function, which returns NVML's error, for what is asked many times a second.

        ``None`` where this driver has none of that name, or the module shows no library. It is nobody else's: whatever
        is prepared of it changes no other call.

        Raises:
            ValueError: a call that would change something.
        """
        if not name.startswith(_SAMPLING):
            raise ValueError(f"{name} does not only ask")
        library = getattr(self._module, "nvmlLib", None)
        if not isinstance(library, ctypes.CDLL):
            return None
        try:
            return library[name]
        except AttributeError:
            return None

    def accept_work(self) -> None:
        """Set the ready state: from now on the GPUs take work, in confidential computing.

        Raises:
            NvmlFault: NVML's error.
        """
        self._call(_ACCEPT, 1)

    def _call(self, name: str, *arguments: object) -> object:
        function = getattr(self._module, name, None)
        if function is None:
            raise NvmlFault(name, FUNCTION_NOT_FOUND)
        try:
            return function(*arguments)
        except self._error as error:
            number = getattr(error, "value", UNKNOWN)
            raise NvmlFault(name, number if isinstance(number, int) else UNKNOWN) from error

    def text(self, name: str, *arguments: object) -> str:
        """A string, which older versions return as bytes; printable, so that it cannot steer a terminal."""
        value = self.call(name, *arguments)
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        return text if text.isprintable() else ascii(text)[1:-1]

    def number(self, name: str, *arguments: object) -> int:
        """An integer.

        Raises:
            NvmlFault: also for something else.
        """
        value = self.call(name, *arguments)
        if not isinstance(value, int):
            raise NvmlFault(name, UNKNOWN)
        return value

    def filled(self, name: str, structure: str) -> object:
        """The structure of the class ``structure`` of the module, which the call has filled in.

        Raises:
            NvmlFault: NVML's error, which such a call returns instead of raising it.
        """
        make = getattr(self._module, structure, None)
        if make is None:
            raise NvmlFault(name, FUNCTION_NOT_FOUND)
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
        raise NvmlFault(name, UNKNOWN)
    return numbers
