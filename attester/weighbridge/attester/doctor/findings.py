"""What a check has found: a status, what was seen, and what to do. Nothing here is evidence.

Why a check is made does not depend on what it finds; that is in :mod:`weighbridge.attester.doctor.catalogue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weighbridge.attester.doctor.host import Host

__all__ = ["Area", "Finding", "Report", "Status", "fail", "fault", "guarded", "ok", "skip", "warn"]


_LOOK: Final = "Look at the named place; --json has the whole finding for a report."


class Status(StrEnum):
    """How good it is. ``fail``: the attester cannot work here. ``warn``: it can, and stricter policies will refuse."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. ``todo`` is empty where there is nothing to do."""

    id: str
    status: Status
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """Checks that look at the same thing. ``examine`` yields one finding for each of ``ids``, in their order."""

    name: str
    ids: tuple[str, ...]
    examine: Callable[[Host], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one run, in the catalogue's order."""

    findings: tuple[Finding, ...]

    def count(self, status: Status) -> int:
        """How many findings have this status."""
        return sum(finding.status is status for finding in self.findings)


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, Status.OK, found)


def warn(check: str, found: str, todo: str) -> Finding:
    """The attester works, and something is less than it could be."""
    return Finding(check, Status.WARN, found, todo)


def fail(check: str, found: str, todo: str) -> Finding:
    """The attester does not work like this."""
    return Finding(check, Status.FAIL, found, todo)


def skip(check: str, found: str, todo: str = "") -> Finding:
    """Not looked at, or not to be seen; ``found`` says why."""
    return Finding(check, Status.SKIP, found, todo)


def fault(check: str, error: WeighbridgeError, *, status: Status = Status.FAIL, todo: str = _LOOK) -> Finding:
    """What went wrong, with the hint that the error carries, or else ``todo``."""
    where = f" ({error.where})" if error.where else ""
    got = f": {error.got}" if error.got else ""
    return Finding(check, status, f"{error.code}: {error.message}{where}{got}", error.hint or todo)


def guarded(check: str, examine: Callable[[], Finding]) -> Finding:
    """What ``examine`` finds; an error that it raises, with its hint, is a failure of the check."""
    try:
        return examine()
    except WeighbridgeError as error:
        return fault(check, error)
