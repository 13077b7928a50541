"""The newest measurement log of a state directory, read as it lies there: no lock is taken, no TPM is asked.

So it can be read beside a running attester, and on another machine. What is read explains itself (digests, numbers);
that the register holds what it leads to is not checked here: that takes a quote. The layout of the directory is
:mod:`weighbridge.attester.weights.state`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from weighbridge.attester.durable import read_file
from weighbridge.proto import cbor, limits
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic
from weighbridge.proto.measurement_log import Record, bank_value, check_gapless, parse_record
from weighbridge.proto.tpm.constants import HashAlgorithm, digest_size

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StoredLog", "read_newest"]

_START_TYPE: Final = "weighbridge/v1/log-start"
_LOG_NAME: Final = re.compile(r"[0-9]{8}-[A-Za-z0-9._]{1,64}")
_START: Final = "start.cbor"


@final
@dataclass(frozen=True, slots=True)
class StoredLog:
    """A log as it lies on disk: its directory, its register, what that held before the first record, the records.

    The last record may not have been extended yet: it is on disk first.
    """

    directory: Path
    pcr: int
    start: Mapping[HashAlgorithm, bytes]
    records: tuple[Record, ...]

    @property
    def from_reset(self) -> bool:
        """Whether the register held zeros in every bank when the log began."""
        return not any(any(value) for value in self.start.values())

    def values(self) -> dict[HashAlgorithm, bytes]:
        """What the register holds in every bank once all records are extended."""
        return {bank: bank_value(value, self.records, bank, pcr=self.pcr) for bank, value in self.start.items()}


def read_newest(state: Path) -> StoredLog:
    """The newest log in the state directory ``state``.

    Raises:
        EnvironmentFault: ``FILE_UNREADABLE`` when there is none or a file cannot be read; ``STATE_CORRUPT`` when the
            files are damaged or a record is missing.
    """
    logs = state / "log"
    try:
        names = [path.name for path in logs.iterdir() if _LOG_NAME.fullmatch(path.name) and (path / _START).exists()]
    except OSError as error:
        raise _absent(logs, error.strerror or str(error)) from error
    if not names:
        raise _absent(logs, "no log was begun")
    # Eight digits of generation come first: the order of names is that of the boots.
    return _read(logs / max(names))


def _read(directory: Path) -> StoredLog:
    try:
        pcr, start = _read_start(directory / _START)
        paths = sorted(directory.glob("[0-9]*.cbor"))
        records = tuple(parse_record(read_file(path, limit=limits.LOG_RECORD_MAX, what="record")) for path in paths)
        check_gapless(records, 0)
        stored = StoredLog(directory, pcr, start, records)
        stored.values()
    except (MalformedEvidence, NotAuthentic) as error:
        raise EnvironmentFault(
            Code.STATE_CORRUPT,
            f"the log is damaged: {error}",
            where=str(directory),
            hint="a record that vanished while it was read was withdrawn: try once more; else check the disk",
        ) from error
    return stored


def _read_start(path: Path) -> tuple[int, dict[HashAlgorithm, bytes]]:
    data = read_file(path, limit=limits.LOG_RECORD_MAX, what="log start")
    fields = cbor.read_map(cbor.decode(data, limit=limits.LOG_RECORD_MAX, what="start"), where="start")
    kind, pcr, values = fields.text(0), fields.uint(1, limit=limits.PCRS_MAX - 1), fields.table(2)
    fields.end()
    if kind != _START_TYPE:
        raise MalformedEvidence(
            Code.VERSION_UNSUPPORTED, "unknown version", where="start[0]", expected=_START_TYPE, got=ascii(kind)
        )
    start = {bank: values.octets(bank, size=digest_size(bank)) for bank in HashAlgorithm if values.has(bank)}
    values.end()
    return pcr, start


def _absent(logs: Path, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        Code.FILE_UNREADABLE,
        f"no measurement log here: {reason}",
        where=str(logs),
        hint="name the directory that `weighbridge-attester run --state` was given",
    )
