"""The GPUs of a real host, through NVML (``nvidia-ml-py``, imported as ``pynvml``).

What :meth:`NvmlGpus.open` does:

1. load and initialise NVML;
2. ask what the driver says of confidential computing: without it a GPU signs no report, and the error would not say so
   (``docs/measurements/nvml-h200.md``);
3. take every GPU that NVML shows, and read its certificates: who it is.

Each window then asks every GPU for a report and for its certificates, all at the same time, all or nothing. The report
must bear the nonce, and the certificates the identity found in 3; nothing else is looked at: what the device says is
sent as it is, and judged elsewhere.

**Time.** Each call gets ``timeout_s`` in a thread of its own (:mod:`weighbridge.attester.gpu.bounded`). A call that
is late ends in ``GPU_TIMEOUT``, and so does every later one until the driver has come back from it; then the source can
be used again. What NVML says is temporary (in use, no answer in time) is asked for again, for half of that time.

**NVSwitches** give no evidence through NVML: theirs is had through NVIDIA's NSCQ library. A host whose GPUs are joined
by switches over protected PCIe shows its GPUs alone, and verifiers that demand the whole topology refuse it.

**The ready state**, by which a driver in confidential computing keeps work away from its GPUs, is touched by
:meth:`NvmlGpus.accept_work` and nothing else.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.attester.gpu.bounded import BoundedCalls
from weighbridge.attester.gpu.nvml_calls import Nvml
from weighbridge.attester.gpu.nvml_driver import NvmlDevice, NvmlDriver
from weighbridge.attester.gpu.nvml_errors import NvmlFault
from weighbridge.proto import limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from weighbridge.proto.cc_state import CcState
    from weighbridge.proto.spdm.evidence import GpuEvidence

    _T = TypeVar("_T")

__all__ = ["TIMEOUT_S", "NvmlGpus"]

# NVIDIA's own tools give each call 30 s (nvtrust, pull request 146).
TIMEOUT_S: Final = 30.0
_DRIVER: Final = "NVML"


@final
class NvmlGpus:
    """A :class:`~weighbridge.attester.gpu.interface.GpuSource` of every GPU that NVML shows. Made by :meth:`open`."""

    def __init__(self, nvml: Nvml, driver: NvmlDriver, calls: BoundedCalls, devices: tuple[NvmlDevice, ...]) -> None:
        self._nvml = nvml
        self._driver = driver
        self._calls = calls
        self._devices = devices

    @classmethod
    def open(cls, *, load: Callable[[], object] | None = None, timeout_s: float = TIMEOUT_S) -> Self:
        """The GPUs of this host, by the procedure of the module.

        Args:
            load: imports what stands for ``pynvml``; the module itself by default.
            timeout_s: how long a device gets to answer, seconds.

        Raises:
            EnvironmentFault: ``TOOL_MISSING`` without ``nvidia-ml-py``; ``GPU_ABSENT`` without driver or GPU;
                ``GPU_CC_MODE`` where confidential computing is off; ``GPU_TIMEOUT``; ``GPU_FAILED``.
        """
        calls = BoundedCalls(timeout_s)
        # 1.
        module = _load(load or (lambda: importlib.import_module("pynvml")))
        nvml = calls.one(_DRIVER, _told(_DRIVER, lambda: Nvml(module)))
        driver = NvmlDriver(nvml, patience_s=timeout_s / 2)
        try:
            # 2.
            calls.one(_DRIVER, _told(_DRIVER, lambda: driver.refuse_off(_DRIVER)))
            # 3.
            count = calls.one(_DRIVER, _told(_DRIVER, driver.count))
            found = {f"GPU {index}": partial(driver.device, index) for index in range(count)}
            devices = tuple(calls.together({name: _told(name, work) for name, work in found.items()}))
            _check_distinct(devices)
        except BaseException:
            _shut_down(nvml, calls)
            raise
        return cls(nvml, driver, calls, devices)

    def identities(self) -> tuple[bytes, ...]:
        """See :meth:`GpuSource.identities`."""
        return tuple(sorted(device.identity for device in self._devices))

    def uuids(self) -> dict[str, bytes]:
        """The driver's own name of each device, which does not change, to its identity."""
        return {device.uuid: device.identity for device in self._devices}

    def attest(self, nonce: bytes) -> list[GpuEvidence]:
        """See :meth:`GpuSource.attest`.

        Raises:
            EnvironmentFault: ``GPU_TIMEOUT``, ``GPU_ABSENT``, ``GPU_CC_MODE`` or ``GPU_FAILED``, naming the device.
            ValueError: ``nonce`` has not 32 bytes.
        """
        if len(nonce) != limits.NONCE_SIZE:
            raise ValueError("an SPDM nonce has 32 bytes")
        wanted = {device.name: partial(self._driver.attest, device, nonce) for device in self._devices}
        return self._calls.together({name: _told(name, work) for name, work in wanted.items()})

    def cc_state(self) -> CcState | None:
        """See :meth:`GpuSource.cc_state`; ``None`` where the driver is older than the question (550).

        Raises:
            EnvironmentFault: ``GPU_TIMEOUT``; ``GPU_FAILED`` also for an answer of which no meaning is known.
        """
        return self._calls.one(_DRIVER, _told(_DRIVER, self._driver.state))

    def accept_work(self) -> None:
        """Set the ready state: the GPUs take work from now on. May be called beside other calls.

        Raises:
            EnvironmentFault: as :meth:`cc_state`.
        """
        BoundedCalls(self._calls.seconds).one("ready state", _told("ready state", self._nvml.accept_work))

    def close(self) -> None:
        """See :meth:`GpuSource.close`. A driver that hangs is left as it is."""
        _shut_down(self._nvml, self._calls)


def _load(load: Callable[[], object]) -> object:
    try:
        return load()
    except ImportError as error:
        raise EnvironmentFault(
            Code.TOOL_MISSING, f"nvidia-ml-py cannot be loaded: {error}", hint="pip install 'weighbridge[attester]'"
        ) from error


def _shut_down(nvml: Nvml, calls: BoundedCalls) -> None:
    with suppress(EnvironmentFault):
        calls.one(_DRIVER, _told(_DRIVER, lambda: nvml.call("nvmlShutdown")))


def _check_distinct(devices: tuple[NvmlDevice, ...]) -> None:
    if len({device.identity for device in devices}) != len(devices):
        raise EnvironmentFault(
            Code.GPU_FAILED,
            "two GPUs give the certificates of one",
            where=", ".join(device.name for device in devices),
            hint="Report it with the driver's version.",
        )


def _told(where: str, work: Callable[[], _T]) -> Callable[[], _T]:
    """``work``, whose errors are faults of this machine."""

    def told() -> _T:
        try:
            return work()
        except NvmlFault as fault:
            raise fault.environment_fault(where) from fault
        except MalformedEvidence as error:
            raise EnvironmentFault(
                Code.GPU_FAILED,
                f"the driver returned something else than a report and its certificates: {error}",
                where=where,
                hint="Report it with the driver's version.",
            ) from error

    return told
