"""The host's measurement log: one per boot, on disk before it is in the PCR, continued when the attester restarts.

Layout of the directory, all files written whole and synced::

    lock                                  held by the one attester process
    manifests/<digest>.cbor               every manifest that a record names
    log/<generation>-<boot>/start.cbor    the PCR's value in every bank before the first record
    log/<generation>-<boot>/<recnum>.cbor one record each

Write order of :meth:`MeasurementLog.append`: manifest, record, PCR. So after a crash at most one record, the last, is
not in the PCR yet; opening the log extends it. A register that the log does not explain is an error, never a new log.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, Self

from weighbridge.attester.durable import make_directory, read_file, write_fault, write_file
from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence
from weighbridge.proto.manifest import Manifest
from weighbridge.proto.measurement_log import (
    HEAD_ZERO,
    Event,
    Loaded,
    ModelLoad,
    Protection,
    Record,
    bank_value,
    head,
    loaded,
    make_record,
    parse_record,
)
from weighbridge.proto.tpm.constants import HashAlgorithm, digest_size
from weighbridge.proto.tpm.pcr import PcrBank, PcrSelection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Baseline", "LogPosition", "MeasurementLog", "PcrDevice"]

_START_TYPE: Final = "weighbridge/v1/log-start"
_BOOT: Final = re.compile(r"[A-Za-z0-9._]{1,64}")
_LOG_NAME: Final = re.compile(r"([0-9]{8})-([A-Za-z0-9._]{1,64})")
_START: Final = "start.cbor"

Values = dict[HashAlgorithm, bytes]


class PcrDevice(Protocol):
    """What the log needs of a TPM."""

    def active_banks(self) -> Sequence[HashAlgorithm]:
        """The banks that are allocated, SHA-256 among them."""
        ...

    def extend(self, pcr: int, digests: Mapping[HashAlgorithm, bytes]) -> None:
        """Extend ``pcr`` in all banks of ``digests`` by one command."""
        ...

    def read_pcrs(self, selection: PcrSelection) -> Mapping[int, bytes]:
        """The values of one bank's registers, by PCR number."""
        ...


class Baseline(StrEnum):
    """What the register must hold before the first record of a boot.

    ``ZERO``: nothing extended it. ``FOUND``: whatever is there is written down; the verifier has to explain it from
    the boot's own logs, or refuses.
    """

    ZERO = "zero"
    FOUND = "found"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the log goes: the number of its records and its head, as a window's header states them."""

    length: int
    head: bytes


class MeasurementLog:
    """The log of this boot. Safe to use from several threads.

    States: *open*; *broken* once a TPM failed so that the register's value is unknown: everything but reading is
    refused until the log is opened again. Durable in both: every record that was ever extended.
    """

    def __init__(self, directory: Path, device: PcrDevice, *, pcr: int, lock: int) -> None:
        """Not for callers: use :meth:`open`."""
        self._manifests = directory / "manifests"
        self._logs = directory / "log"
        self._device = device
        self._pcr = pcr
        self._lock_handle = lock
        self._guard = threading.RLock()
        self._broken = False
        self._folder = self._logs
        self._records: list[Record] = []
        self._head = HEAD_ZERO
        self._banks = tuple(device.active_banks())
        self._start: Values = {}
        self._values: Values = {}

    @classmethod
    def open(
        cls, directory: Path, device: PcrDevice, *, pcr: int, boot: str, baseline: Baseline = Baseline.ZERO
    ) -> Self:
        """This boot's log: continued where there is one, else begun.

        Args:
            directory: the attester's state directory; made when absent.
            device: the TPM.
            pcr: the register; nobody else may extend it.
            boot: what identifies this boot, such as the TPM's ``resetCount.restartCount``.
            baseline: what the register may hold when the log begins.

        Raises:
            EnvironmentFault: ``STATE_LOCKED`` while another process has it; ``STATE_CORRUPT`` when files are damaged
                or do not explain the register; ``BASELINE_UNEXPLAINED`` when there is no log, yet the register is not
                zero; a file or TPM code.
        """
        if not _BOOT.fullmatch(boot):
            raise ValueError(f"not a name for a boot: {boot!r}")
        for part in (directory, directory / "manifests", directory / "log"):
            make_directory(part)
        lock = _lock(directory / "lock")
        try:
            log = cls(directory, device, pcr=pcr, lock=lock)
            log._enter(boot, baseline)
        except BaseException:
            os.close(lock)
            raise
        return log

    def close(self) -> None:
        """Let another process open the log. The log stays on disk as it is."""
        with self._guard:
            self._broken = True
            if self._lock_handle >= 0:
                os.close(self._lock_handle)
                self._lock_handle = -1

    @property
    def pcr(self) -> int:
        """The register that the log extends."""
        return self._pcr

    @property
    def start(self) -> Mapping[HashAlgorithm, bytes]:
        """The register's value in every bank before the first record."""
        return dict(self._start)

    @property
    def position(self) -> LogPosition:
        """How far the log goes now."""
        with self._guard:
            return LogPosition(len(self._records), self._head)

    def records(self, first: int = 0) -> tuple[Record, ...]:
        """The records from number ``first`` on."""
        with self._guard:
            return tuple(self._records[first:])

    def loaded(self) -> tuple[Loaded, ...]:
        """Every model loaded since boot and not unloaded."""
        return loaded(self.records())

    def manifest(self, digest: bytes) -> Manifest:
        """The manifest that a record names.

        Raises:
            EnvironmentFault: ``FILE_UNREADABLE`` or ``STATE_CORRUPT``.
        """
        path = self._manifests / f"{digest.hex()}.cbor"
        try:
            manifest = Manifest.unpack(read_file(path, limit=limits.MANIFEST_PACKED_MAX, what="manifest"))
        except MalformedEvidence as error:
            raise _corrupt(path, str(error)) from error
        if manifest.digest != digest:
            raise _corrupt(path, "the manifest has another digest")
        return manifest

    def append_load(self, manifest: Manifest, *, protection: Protection = "none", root: bytes | None = None) -> Record:
        """Log that the model of ``manifest`` is about to be loaded, and keep the manifest. As :meth:`append`.

        Args:
            manifest: with its tables.
            protection: what the kernel enforces beneath all of its files.
            root: what names that, 32 bytes; ``None`` without protection.
        """
        write_file(self._manifests / f"{manifest.digest.hex()}.cbor", manifest.pack())
        return self.append(ModelLoad(manifest.digest, manifest.name, protection, root))

    def append(self, event: Event) -> Record:
        """Write the record of ``event`` to disk, then extend the register; on return both are done.

        Raises:
            EnvironmentFault: ``DISK_FULL``, ``FILE_UNWRITABLE`` or a TPM code: then the log is as before. If the
                register's value is unknown after a failure, the log is *broken*: ``STATE_CORRUPT`` from then on.
                ``TOO_LARGE`` when the log is longer than a window can carry.
            MalformedEvidence: for an event that no verifier would parse.
            NotAuthentic: ``LOG_EVENT`` for the unloading of what is not loaded.
        """
        with self._guard:
            if self._broken:
                raise _corrupt(self._folder, "the log is closed, or the register's value became unknown")
            if len(self._records) >= limits.LOG_RECORDS_MAX:
                raise EnvironmentFault(
                    Code.TOO_LARGE,
                    "the measurement log is full",
                    where=str(self._folder),
                    expected=f"<= {limits.LOG_RECORDS_MAX} records",
                    hint="reboot to begin a new log",
                )
            record = make_record(event, recnum=len(self._records), pcr=self._pcr, algs=self._banks)
            loaded([*self._records, record])
            path = self._path(record.recnum)
            write_file(path, record.raw)
            # If power fails here, the next `open` finds one record beyond the register and extends it.
            try:
                self._device.extend(self._pcr, dict(record.digests))
            except EnvironmentFault:
                if not self._was_extended(record, path):
                    raise
            self._commit(record)
            return record

    def _commit(self, record: Record) -> None:
        self._values = self._advance(self._values, [record])
        self._head = head([record], after=self._head)
        self._records.append(record)

    def _was_extended(self, record: Record, path: Path) -> bool:
        """Whether the register was extended although the TPM reported a failure; withdraws the record if not."""
        self._broken = True
        found = self._read()
        if found == self._values:
            try:
                path.unlink()
            except OSError as error:
                raise write_fault(path, error) from error
            self._broken = False
            return False
        if found != self._advance(self._values, [record]):
            self._refuse(found)
        self._broken = False
        return True

    def _enter(self, boot: str, baseline: Baseline) -> None:
        found = self._read()
        newest = self._newest()
        if newest is not None:
            generation, name = newest
            self._folder = self._logs / f"{generation:08d}-{name}"
            self._load()
            # A suspended TPM resumes with its counters moved and its registers kept: then the old log goes on.
            if name == boot or (self._records and found == self._values):
                self._complete(found)
                return
            self._forget()
        zero = {alg: bytes(digest_size(alg)) for alg in self._banks}
        if baseline is Baseline.ZERO and found != zero:
            raise EnvironmentFault(
                Code.BASELINE_UNEXPLAINED,
                f"PCR {self._pcr} was extended, and there is no log of it",
                where=str(self._logs),
                expected=zero[HashAlgorithm.SHA256],
                got=found[HashAlgorithm.SHA256],
                hint="restore the state directory of this boot; if systemd measures into this PCR, let the attester "
                "read the boot's logs (`weighbridge-attester doctor` says whether it can); else reset the TPM: reboot",
            )
        self._begin(0 if newest is None else newest[0] + 1, boot, found)

    def _newest(self) -> tuple[int, str] | None:
        matches = [_LOG_NAME.fullmatch(path.name) for path in self._logs.iterdir() if (path / _START).exists()]
        return max(((int(match[1]), match[2]) for match in matches if match), default=None)  # lenient: eight digits

    def _begin(self, generation: int, boot: str, found: Values) -> None:
        self._folder = self._logs / f"{generation:08d}-{boot}"
        make_directory(self._folder)
        values = {alg.value: value for alg, value in found.items()}
        # Without this file the folder is no log: a crash before it leaves nothing to be explained.
        write_file(self._folder / _START, cbor.encode({0: _START_TYPE, 1: self._pcr, 2: values}))
        self._start = dict(found)
        self._values = dict(found)

    def _load(self) -> None:
        try:
            self._start = self._read_start()
            self._values = dict(self._start)
            for path in sorted(self._folder.glob("[0-9]*.cbor")):
                record = parse_record(read_file(path, limit=limits.LOG_RECORD_MAX, what="record"))
                if path != self._path(record.recnum) or record.recnum != len(self._records):
                    raise _corrupt(path, f"record {len(self._records)} is missing")
                self._commit(record)
        except MalformedEvidence as error:
            raise _corrupt(self._folder, str(error)) from error

    def _read_start(self) -> Values:
        data = read_file(self._folder / _START, limit=limits.LOG_RECORD_MAX, what="log start")
        fields = cbor.read_map(cbor.decode(data, limit=limits.LOG_RECORD_MAX, what="start"), where="start")
        kind, pcr, values = fields.text(0), fields.uint(1), fields.table(2)
        fields.end()
        start = {alg: values.octets(alg, size=digest_size(alg)) for alg in HashAlgorithm if values.has(alg)}
        values.end()
        if kind != _START_TYPE or pcr != self._pcr or set(start) != set(self._banks):
            raise _corrupt(
                self._folder / _START,
                "the log is of another register, other banks or another version",
                hint="give the --log-pcr that it was begun with, or reboot and begin with an empty state directory",
            )
        return start

    def _complete(self, found: Values) -> None:
        """Require that the records lead to the register's value, after completing an append that a crash cut short."""
        if self._records and found == self._advance(self._start, self._records[:-1]):
            self._device.extend(self._pcr, dict(self._records[-1].digests))
            found = self._read()
        if found != self._values:
            self._refuse(found)

    def _refuse(self, found: Values) -> NoReturn:
        raise EnvironmentFault(
            Code.STATE_CORRUPT,
            f"the log does not explain PCR {self._pcr}",
            where=str(self._folder),
            expected=self._values[HashAlgorithm.SHA256],
            got=found[HashAlgorithm.SHA256],
            hint="something else extended the register, or the TPM was reset or exchanged: reboot to begin a new log",
        )

    def _forget(self) -> None:
        self._records, self._head, self._start, self._values = [], HEAD_ZERO, {}, {}

    def _advance(self, values: Values, records: Sequence[Record]) -> Values:
        return {alg: bank_value(value, records, alg, pcr=self._pcr) for alg, value in values.items()}

    def _read(self) -> Values:
        return {
            alg: self._device.read_pcrs(PcrSelection((PcrBank(alg, (self._pcr,)),)))[self._pcr] for alg in self._banks
        }

    def _path(self, recnum: int) -> Path:
        return self._folder / f"{recnum:08d}.cbor"


def _lock(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise write_fault(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise EnvironmentFault(
            Code.STATE_LOCKED,
            "another process holds the attester's state",
            where=str(path),
            hint="stop the other attester, or give this one a state directory of its own",
        ) from error
    return handle


def _corrupt(
    path: Path, reason: str, *, hint: str = "reboot and begin with an empty state directory"
) -> EnvironmentFault:
    return EnvironmentFault(Code.STATE_CORRUPT, reason, where=str(path), hint=hint)
