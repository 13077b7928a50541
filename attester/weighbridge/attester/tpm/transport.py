"""How to reach a TPM: TCTI strings, and connections that never wait without a limit, unlike libtss2's own.

Accepted: ``device:/dev/tpmrm0`` (also ``/dev/tpm0``) and ``swtpm:path=SOCKET``. An emulator serves one client: a
second one is accepted by the socket's backlog and then hears nothing. Here a lock file beside the socket keeps our own
processes apart, and every answer has a time limit, so that any other client shows as ``TPM_BUSY`` within seconds.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import select
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.tpm.constants import CommandCode
from weighbridge.proto.tpm.wire import u16, u32

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Channel", "DeviceChannel", "SocketChannel", "check_device", "connect", "emulator_path"]

_DEVICE: Final = "device:"
_EMULATOR: Final = "swtpm:path="
_HEADER: Final = 10
_RESPONSE_MAX: Final = 4096
_TAG_NO_SESSIONS: Final = 0x8001
_RC_SUCCESS: Final = 0
# Startup's "already done".
_RC_INITIALIZE: Final = 0x100
# The longest command of an emulator, creating an RSA key, takes well below a second.
_PATIENCE: Final = 30.0
_FIRST_PATIENCE: Final = 3.0
# Linux drivers/char/tpm/tpm2-cmd.c gives the longest command, making a key, 300 s; none of ours takes a tenth of that.
_DEVICE_PATIENCE: Final = 60.0
_STARTUP_CLEAR: Final = u16(0)
_TPMRM: Final = "The kernel's is /dev/tpmrm0."


class Channel(Protocol):
    """A connection to a TPM: one command, then one response, each within a limited time."""

    @property
    def emulated(self) -> bool:
        """Whether the other end is an emulator of which this is the only client."""
        ...

    def startup(self) -> None:
        """``TPM2_Startup`` after an emulator's reset.

        Raises:
            EnvironmentFault: ``TPM_ABSENT``, ``TPM_BUSY`` or ``TPM_FAILED``.
            RuntimeError: this is no emulator.
        """
        ...

    def transmit(self, data: bytes) -> None:
        """Send one command.

        Raises:
            EnvironmentFault: ``TPM_ABSENT`` or ``TPM_BUSY``; the connection is of no use any more.
        """
        ...

    def receive(self) -> bytes:
        """One whole response.

        Raises:
            EnvironmentFault: ``TPM_ABSENT``, ``TPM_BUSY`` or ``TPM_FAILED``; the connection is of no use any more.
        """
        ...

    def close(self) -> None:
        """Let the TPM go; again does nothing."""
        ...


def connect(tcti: str) -> Channel:
    """A connection to the TPM that ``tcti`` names.

    Raises:
        EnvironmentFault: ``TPM_ABSENT`` or ``TPM_BUSY``.
    """
    path = emulator_path(tcti)
    return DeviceChannel(Path(tcti.removeprefix(_DEVICE))) if path is None else SocketChannel(path)


def emulator_path(tcti: str) -> Path | None:
    """The socket in ``swtpm:path=SOCKET``, or ``None`` for a ``device:``.

    Raises:
        EnvironmentFault: ``TPM_ABSENT`` for any other string.
    """
    if tcti.startswith(_EMULATOR) and tcti != _EMULATOR:
        return Path(tcti.removeprefix(_EMULATOR))
    if tcti.startswith(_DEVICE) and tcti != _DEVICE:
        return None
    raise EnvironmentFault(
        Code.TPM_ABSENT,
        "not a known way to reach a TPM",
        got=tcti,
        hint="Use device:/dev/tpmrm0, or swtpm:path=SOCKET for an emulator.",
    )


def check_device(tcti: str) -> None:
    """Require that the device of a ``device:`` string can be opened, now; says nothing of what it is.

    Raises:
        EnvironmentFault: ``TPM_ABSENT`` or ``TPM_BUSY``.
    """
    DeviceChannel(Path(tcti.removeprefix(_DEVICE))).close()


@final
class DeviceChannel:
    """The kernel's device, opened for as long as this lives: what is loaded through ``tpmrm`` is flushed on closing."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path) -> None:
        """Open the device.

        Raises:
            EnvironmentFault: ``TPM_ABSENT`` or ``TPM_BUSY``.
        """
        self._path = path
        try:
            # Non-blocking: else `write` would return when the TPM is done, however long that takes.
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise _unreachable(error, path) from error
        if not stat.S_ISCHR(os.fstat(self._descriptor).st_mode):
            self.close()
            raise EnvironmentFault(Code.TPM_ABSENT, "not a device", where=str(path))

    @property
    def emulated(self) -> bool:
        """See :class:`Channel`."""
        return False

    def startup(self) -> None:
        """See :class:`Channel`."""
        raise RuntimeError("only an emulator is started by its client")

    def transmit(self, data: bytes) -> None:
        """See :class:`Channel`."""
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise self._gone(error) from error
        if written != len(data):
            raise EnvironmentFault(Code.TPM_FAILED, "device takes half a command", where=str(self._path))

    def receive(self) -> bytes:
        """See :class:`Channel`."""
        deadline = time.monotonic() + _DEVICE_PATIENCE
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        data = b""
        while len(data) < _HEADER or len(data) < int.from_bytes(data[2:6]) <= _RESPONSE_MAX:
            # Older kernels drop what is left of a response that is not read at once: ask for all of it.
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1_000):
                raise EnvironmentFault(
                    Code.TPM_BUSY,
                    "TPM does not answer",
                    where=str(self._path),
                    hint="Look for its driver's messages: journalctl -k -g tpm. Power the machine off and on again.",
                )
            try:
                more = os.read(self._descriptor, _RESPONSE_MAX)
            except OSError as error:
                raise self._gone(error) from error
            if not more:
                raise EnvironmentFault(
                    Code.TPM_ABSENT, "device gives no answer: it is no TPM", where=str(self._path), hint=_TPMRM
                )
            data += more
        return data

    def close(self) -> None:
        """See :class:`Channel`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _gone(self, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(
            Code.TPM_ABSENT,
            f"TPM no longer answers: {error.strerror or error}",
            where=str(self._path),
            hint="Look for its driver's messages: journalctl -k -g tpm.",
        )


def _unreachable(error: OSError, path: Path) -> EnvironmentFault:
    where = str(path)
    match error.errno:
        case errno.EBUSY:
            return EnvironmentFault(
                Code.TPM_BUSY, "another program has the TPM", where=where, hint="Use /dev/tpmrm0, which can be shared."
            )
        case errno.EACCES | errno.EPERM:
            return EnvironmentFault(
                Code.TPM_ABSENT, "no permission to use the TPM", where=where, hint=_permission(path)
            )
        case _:
            return EnvironmentFault(
                Code.TPM_ABSENT,
                f"no TPM there: {error.strerror or error}",
                where=where,
                hint="Is it switched on in the firmware, or its emulator running?",
            )


def _permission(path: Path) -> str:
    """Who may use it: /dev/tpmrm0 belongs to a group, /dev/tpm0 to root and the TPM's own daemon."""
    try:
        status = path.stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return "Run as root, or as a user of the group that owns it, most often tss."
    if not status.st_mode & stat.S_IWGRP:
        return f"Nobody but its owner may, {status.st_uid}: use /dev/tpmrm0, or run as root."
    return f"Add this user to the group {group}: usermod -aG {group} USER; then log in again."


@final
class SocketChannel:
    """An exclusive connection to an emulator's command socket. A context manager; not for several threads."""

    __slots__ = ("_lock", "_path", "_socket")

    def __init__(self, path: Path) -> None:
        """Take the lock, connect, and see that the TPM answers.

        Raises:
            EnvironmentFault: ``TPM_ABSENT`` or ``TPM_BUSY``.
        """
        self._path = path
        self._lock = _take_lock(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            try:
                self._socket.connect(str(path))
            except OSError as error:
                raise _unreachable(error, path) from error
            self.startup()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def emulated(self) -> bool:
        """See :class:`Channel`."""
        return True

    def startup(self) -> None:
        """``TPM2_Startup(CLEAR)``, as firmware does on a real machine; harmless where it was done already.

        Raises:
            EnvironmentFault: ``TPM_BUSY`` if there is no answer, ``TPM_FAILED`` if it is a refusal.
        """
        self.transmit(command(CommandCode.STARTUP, _STARTUP_CLEAR))
        answer = self._receive(_FIRST_PATIENCE)
        rc = int.from_bytes(answer[6:_HEADER])
        if rc not in (_RC_SUCCESS, _RC_INITIALIZE):
            raise EnvironmentFault(Code.TPM_FAILED, "TPM does not start", where=str(self._path), got=f"{rc:#x}")

    def shutdown(self) -> None:
        """``TPM2_Shutdown(CLEAR)``: the clock stays safe over the next start."""
        self.transmit(command(CommandCode.SHUTDOWN, _STARTUP_CLEAR))
        self._receive(_FIRST_PATIENCE)

    def transmit(self, data: bytes) -> None:
        """Send one command.

        Raises:
            EnvironmentFault: ``TPM_ABSENT`` or ``TPM_BUSY``.
        """
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._gone() from error

    def receive(self) -> bytes:
        """One whole response.

        Raises:
            EnvironmentFault: ``TPM_ABSENT`` if the emulator is gone, ``TPM_BUSY`` if it stays silent.
        """
        return self._receive(_PATIENCE)

    def close(self) -> None:
        """Let the socket go, then the lock."""
        self._socket.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _receive(self, patience: float) -> bytes:
        try:
            self._socket.settimeout(patience)
            header = self._exactly(_HEADER)
            size = int.from_bytes(header[2:6])
            if not _HEADER <= size <= _RESPONSE_MAX:
                raise EnvironmentFault(Code.TPM_FAILED, "not a TPM's response", where=str(self._path), got=header)
            return header + self._exactly(size - _HEADER)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise self._gone() from error

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise self._gone()
            data += more
        return data

    def _silent(self) -> EnvironmentFault:
        # The answer may still come and would be taken for that to the next command: the connection is of no use.
        self._socket.close()
        return EnvironmentFault(
            Code.TPM_BUSY,
            "TPM does not answer",
            where=str(self._path),
            hint="An emulator serves one client at a time: is another attester using it?",
        )

    def _gone(self) -> EnvironmentFault:
        return EnvironmentFault(
            Code.TPM_ABSENT,
            "TPM no longer answers",
            where=str(self._path),
            hint="The emulator ended: start it again, then the attester.",
        )


def command(code: CommandCode, parameters: bytes) -> bytes:
    """A command without sessions (TPM 2.0 Part 1 §18.2)."""
    return u16(_TAG_NO_SESSIONS) + u32(_HEADER + len(parameters)) + u32(code) + parameters


def _take_lock(path: Path) -> int:
    """An exclusive lock on a file beside the socket; released when the process ends, however it ends."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unreachable(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise EnvironmentFault(
            Code.TPM_BUSY,
            "another attester has the TPM",
            where=str(lock),
            hint="An emulator serves one client at a time: stop the other attester.",
        ) from error
    return descriptor
