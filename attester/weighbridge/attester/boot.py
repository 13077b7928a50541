"""This host's logs of its boot, and of what ran since: read as they are, for a verifier to replay.

They are files of Linux, shown to root only, and they grow while they are read: the kernel's list with every new file
that is run or read, systemd's log with every phase of the boot. A quote comes first, then the list is read, and what is
sent is exactly what leads to the quoted register (:meth:`RuntimeList.since`): the kernel appends before it extends, so
the list is never shorter than the register.

Nothing is proven by reading: what the logs are worth, the verifier says.
"""

from __future__ import annotations

import fcntl
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, final

from weighbridge.proto import limits
from weighbridge.proto.boot import BootLogs
from weighbridge.proto.errors import Code, EnvironmentFault
from weighbridge.proto.eventlog import ima
from weighbridge.proto.tpm.constants import digest, digest_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weighbridge.proto.tpm.constants import HashAlgorithm

__all__ = ["IMA_PCR", "BootFiles", "RuntimeList"]

# CONFIG_IMA_MEASURE_PCR_IDX, which no distribution changes.
IMA_PCR: Final = 10

_FIRMWARE: Final = Path("sys/kernel/security/tpm0/binary_bios_measurements")
_USERSPACE: Final = Path("run/log/systemd/tpm2-measure.log")
_RUNTIME: Final = Path("sys/kernel/security/ima/binary_runtime_measurements")
_LEGACY: Final = b"ima"
# PCR, SHA-1 template hash, length of the template's name; digest in the data of the original template.
_HEAD: Final = 4 + 20 + 4
_SHA1_SIZE: Final = 20
# How long systemd may hold its log: it extends the TPM meanwhile.
_LOCK_PATIENCE: Final = 5.0
_LOCK_DELAY: Final = 0.02
# Of how many places in the list the register's value is kept in mind, so that a window need not read it from the start.
_PLACES_MAX: Final = 8


@final
@dataclass(frozen=True, slots=True)
class BootFiles:
    """The logs below ``root``, which is ``/`` but for tests and containers."""

    root: Path = Path("/")

    def any_there(self) -> bool:
        """Whether there is one of the logs. Nothing is read; what may not be looked at may be there."""
        for path in (_FIRMWARE, _USERSPACE, _RUNTIME):
            try:
                (self.root / path).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                pass
            return True
        return False

    def runtime(self) -> RuntimeList | None:
        """The kernel's list; ``None`` if IMA keeps none.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``.
        """
        path = self.root / _RUNTIME
        opened = _open(path, what="IMA's list")
        if opened is None:
            return None
        opened.close()
        return RuntimeList(path)

    def read(self) -> BootLogs:
        """What firmware and systemd logged; without the kernel's list, which is read after a quote.

        Where one differs before and after a quote, the quote is to be made again.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE``, or ``TOO_LARGE`` for more than one message carries.
        """
        firmware = _read(self.root / _FIRMWARE, what="firmware's log")
        userspace = _read(self.root / _USERSPACE, what="systemd's log", locked=True)
        if userspace is not None:
            # A record that is still being written has no end yet (RFC 7464 §2.4).
            userspace = userspace[: userspace.rfind(b"\n") + 1]
        return BootLogs(firmware=firmware, userspace=userspace, runtime=None)


@final
class RuntimeList:
    """IMA's list, read piece by piece as the windows of a session go on. Not for several threads.

    Where the list was left is the caller's to know, by an offset: what was read for a window that was not sealed is
    read again for the next. Implements :class:`weighbridge.attester.tpm.interface.RegisterHistory` of PCR 10.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[HashAlgorithm, int], bytes] = {}

    def since(self, offset: int, quoted: bytes, bank: HashAlgorithm) -> bytes:
        """The entries from ``offset`` on that lead to the ``quoted`` value of PCR 10, and none of those behind them.

        Args:
            offset: how many bytes earlier calls returned, in all.
            quoted: PCR 10 in ``bank``, by a quote that was made before this call.
            bank: not SHA-1.

        Raises:
            EnvironmentFault: ``RUNTIME_LOG`` if no number of entries leads there, ``TOO_LARGE`` for more than a
                message carries, ``FILE_UNREADABLE``.
            ValueError: no entry begins at ``offset``.
        """
        value = self._value_at(offset, bank)
        data = b""
        if value != quoted:
            data = self._tail(offset)
            end = next((end for end, reached in _steps(data, value, bank) if reached == quoted), None)
            if end is None:
                raise EnvironmentFault(
                    Code.RUNTIME_LOG,
                    "IMA's list does not lead to the PCR that was quoted",
                    where=str(self._path),
                    expected=quoted,
                    got=f"{len(data)} bytes from {offset} on",
                    hint="Something else extended PCR 10, or a kernel before 5.8 pads SHA-1 digests in this bank. "
                    "Reboot; if it comes back, leave the list out: --boot-logs none.",
                )
            data = data[:end]
        if len(data) > limits.RUNTIME_LOG_MAX:
            raise EnvironmentFault(
                Code.TOO_LARGE,
                "IMA's list has grown by more than one message carries",
                where=str(self._path),
                expected=f"<= {limits.RUNTIME_LOG_MAX} bytes",
                got=f"{len(data)} bytes",
                hint="Have IMA measure less (its policy), or start the attester earlier after the boot.",
            )
        self._keep(offset, value, bank)
        self._keep(offset + len(data), quoted, bank)
        return data

    def after(self, value: bytes, bank: HashAlgorithm) -> Iterator[bytes]:
        """See :class:`weighbridge.attester.tpm.interface.RegisterHistory`."""
        # The newest place that is known first: what is looked for is most often there.
        for offset, start in [*reversed(self._known(bank)), (0, bytes(digest_size(bank)))]:
            values = itertools.chain((start,), (step for _, step in _steps(self._tail(offset), start, bank)))
            # This takes the values up to the one that is looked for, and leaves the rest.
            if value in values:
                yield from values
                return

    def _known(self, bank: HashAlgorithm) -> list[tuple[int, bytes]]:
        return [(offset, value) for (kept, offset), value in self._places.items() if kept is bank]

    def _keep(self, offset: int, value: bytes, bank: HashAlgorithm) -> None:
        self._places.pop((bank, offset), None)
        self._places[bank, offset] = value
        while len(self._places) > _PLACES_MAX:
            self._places.pop(next(iter(self._places)))

    def _value_at(self, offset: int, bank: HashAlgorithm) -> bytes:
        """What PCR 10 held after the first ``offset`` bytes of the list."""
        start = bytes(digest_size(bank))
        if offset == 0:
            return start
        if (bank, offset) in self._places:
            return self._places[bank, offset]
        for end, value in _steps(self._tail(0), start, bank):
            if end == offset:
                return value
        raise ValueError(f"no entry begins at {offset}")

    def _tail(self, offset: int) -> bytes:
        """The list from ``offset`` on; it may end within an entry."""
        opened = _open(self._path, what="IMA's list")
        if opened is None:
            raise _unreadable("IMA's list", self._path, "it is gone")
        with opened as file:
            try:
                file.seek(offset)
                return file.read(limits.EVENT_LOG_MAX)
            except OSError as error:
                raise _unreadable("IMA's list", self._path, error.strerror or str(error)) from error


def _steps(data: bytes, value: bytes, bank: HashAlgorithm) -> Iterator[tuple[int, bytes]]:
    """Where each whole entry of ``data`` ends, and what PCR 10 holds after it, beginning with ``value``."""
    end = 0
    while (entry := _entry(data, end)) is not None:
        end, pcr, extended = entry
        if pcr == IMA_PCR:
            measured = b"\xff" * digest_size(bank) if extended is None else digest(bank, extended)
            value = digest(bank, value, measured)
        yield end, value


def _entry(data: bytes, start: int) -> tuple[int, int, bytes | None] | None:
    """Where the entry at ``start`` ends, its PCR, and what the kernel hashed for it: ``None`` for a violation.

    ``None`` in all where ``data`` ends before it does. Lengths are not bounded but by the data.
    """
    name_at = start + _HEAD
    if name_at > len(data):
        return None
    name_size = int.from_bytes(data[name_at - 4 : name_at], "little")
    name = data[name_at : name_at + name_size]
    place = name_at + name_size
    # The original template has no length of its data: a digest, then a name with its length.
    skipped = _SHA1_SIZE if name == _LEGACY else 0
    content_at = place + skipped + 4
    size = int.from_bytes(data[content_at - 4 : content_at], "little")
    end = content_at + size
    if content_at > len(data) or end > len(data):
        return None
    template_data = data[place:end] if skipped else data[content_at:end]
    violation = not any(data[start + 4 : start + 4 + _SHA1_SIZE])
    hashed = ima.hashed_bytes(name.decode("ascii", "replace"), template_data)
    return end, int.from_bytes(data[start : start + 4], "little"), None if violation else hashed


def _open(path: Path, *, what: str) -> BinaryIO | None:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(what, path, error.strerror or str(error)) from error


def _read(path: Path, *, what: str, locked: bool = False) -> bytes | None:
    opened = _open(path, what=what)
    if opened is None:
        return None
    with opened as file:
        try:
            if locked:
                _await_writer(file)
            data = file.read(limits.BOOT_LOG_MAX + 1)
        except OSError as error:
            raise _unreadable(what, path, error.strerror or str(error)) from error
    if len(data) > limits.BOOT_LOG_MAX:
        raise EnvironmentFault(
            Code.TOO_LARGE,
            f"{what} is larger than one message carries",
            where=str(path),
            expected=f"<= {limits.BOOT_LOG_MAX} bytes",
            hint="Leave the logs out: --boot-logs none.",
        )
    return data


def _await_writer(file: BinaryIO) -> None:
    """Wait until systemd, which locks its log from the extension to the end of the record, is not writing.

    After a while what is there is read as it is: a writer that hangs must not stop a session.
    """
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(_LOCK_DELAY)
        else:
            return


def _unreadable(what: str, path: Path, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.FILE_UNREADABLE,
        f"cannot read {what}: {reason}",
        where=str(path),
        hint="The logs of a boot are shown to root only: give the attester CAP_DAC_READ_SEARCH, or leave them out with "
        "--boot-logs none, and a verifier that wants to know what booted will refuse this host.",
    )
