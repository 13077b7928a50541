"""The host as the doctor sees it: files below a root, a TPM, NVML, the clocks. Everything that tests replace is here.

Reading is bounded and never raises: a file that cannot be read is an :class:`Unreadable`, with the reason.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import socket
import stat
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from weighbridge.attester.tpm.options import AkChoice, TpmOptions
from weighbridge.attester.tpm.transport import connect
from weighbridge.attester.weights.protection import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.attester.tpm.transport import Channel

__all__ = ["AttestationKeySource", "Host", "KernelClock", "Unreadable"]

_TEXT_MAX: Final = 64 * 1024
_DEFAULT_DEVICE: Final = "dev/tpmrm0"
_CONNECT_PATIENCE: Final = 5.0
# linux/timex.h: struct timex on 64-bit machines; `status` and `maxerror` are what is read of it.
_TIMEX_WORDS: Final = 26
_MAXERROR_WORD: Final = 3
_STATUS_WORD: Final = 5
_STATUS_MASK: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why there is no content. ``denied``: another user may see it."""

    reason: str
    absent: bool
    denied: bool


@dataclass(frozen=True, slots=True)
class KernelClock:
    """What adjtimex(2) says. ``error_us`` is the kernel's bound of the wall clock's error, microseconds."""

    status: int
    error_us: int


class AttestationKeySource(Protocol):
    """The part of :class:`~weighbridge.attester.tpm.interface.TpmDevice` that is asked for."""

    def attestation_key(self) -> bytes:
        """The TPMT_PUBLIC of the AK."""
        ...

    def close(self) -> None:
        """Let the TPM go."""
        ...


def _open_tpm(tcti: str, ak: AkChoice) -> AttestationKeySource:
    from weighbridge.attester.tpm.device import Tpm  # noqa: PLC0415 - needs libtss2, which is what is being found out

    return Tpm.open(tcti, TpmOptions(ak=ak))


def _load_nvml() -> object:
    return importlib.import_module("pynvml")


def _reach(place: tuple[str, int]) -> None:
    with socket.create_connection(place, timeout=_CONNECT_PATIENCE):
        pass


def _kernel_clock() -> KernelClock | None:
    """The kernel's state of the wall clock; nothing is adjusted. ``None`` where the call is refused."""
    buffer = (ctypes.c_int64 * _TIMEX_WORDS)()
    # No mode is set in the structure: the call only reads.
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
        return None
    return KernelClock(status=buffer[_STATUS_WORD] & _STATUS_MASK, error_us=buffer[_MAXERROR_WORD])


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host, and what is asked about it.

    ``root`` is prefixed to every path of the operating system (``/sys``, ``/proc``, ``/dev``, ``/run``), for a host
    that is mounted elsewhere, as in a container; ``state`` and ``model`` are taken as they are.
    """

    tcti: str | None = None
    ak: AkChoice = field(default_factory=AkChoice)
    state: Path | None = None
    model: Path | None = None
    root: Path = Path("/")
    verifier: tuple[str, int] | None = None

    open_channel: Callable[[str], Channel] = connect
    open_tpm: Callable[[str, AkChoice], AttestationKeySource] = _open_tpm
    load_nvml: Callable[[], object] = _load_nvml
    connect: Callable[[tuple[str, int]], None] = _reach
    kernel_clock: Callable[[], KernelClock | None] = _kernel_clock
    version_of: Callable[[str], str] = metadata.version
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    kernel: Kernel = field(default_factory=Kernel)

    @property
    def tpm(self) -> str:
        """How to reach the TPM: as asked for, else the kernel's resource manager."""
        return self.tcti or f"device:{self.path(_DEFAULT_DEVICE)}"

    def path(self, name: str) -> Path:
        """The place of ``name``, relative to the root."""
        return self.root / name

    def exists(self, name: str) -> bool:
        """Whether there is something at ``name``; ``False`` also where that cannot be seen."""
        return os.path.lexists(self.path(name))

    def names(self, name: str) -> tuple[str, ...]:
        """What is in the directory ``name``, sorted; nothing where it cannot be read."""
        try:
            return tuple(sorted(os.listdir(self.path(name))))  # noqa: PTH208 - names, as the kernel gives them
        except OSError:
            return ()

    def read(self, name: str, *, limit: int = _TEXT_MAX) -> bytes | Unreadable:
        """The content of the file ``name``, or why there is none. Files longer than ``limit`` bytes count as such."""
        try:
            # Without waiting: a name may turn out to be a pipe.
            handle = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    return Unreadable("not a file", absent=False, denied=False)
                data = b""
                while len(data) <= limit and (more := file.read(limit + 1 - len(data))):
                    data += more
        except OSError as error:
            return Unreadable(
                error.strerror or str(error),
                absent=error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENODEV},
                denied=error.errno in {errno.EACCES, errno.EPERM},
            )
        if len(data) > limit:
            return Unreadable(f"longer than {limit} bytes", absent=False, denied=False)
        return data

    def text(self, name: str) -> str | None:
        """The content of a small file as one stripped line of printable characters, ``None`` where there is none."""
        data = self.read(name)
        if isinstance(data, Unreadable):
            return None
        return printable(data.decode("utf-8", "replace").strip())


def printable(text: str) -> str:
    """``text`` that cannot steer a terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]
