"""Runs every check, each within a time limit. A check that hangs or breaks hides none of the other areas.

Areas run one after the other, each in a thread of its own: a driver that never answers keeps the thread and nothing
else, and ends with the process.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final

from weighbridge.attester.doctor.catalogue import AREAS
from weighbridge.attester.doctor.findings import Finding, Report, fail, skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.attester.doctor.findings import Area
    from weighbridge.attester.doctor.host import Host

__all__ = ["PATIENCE", "diagnose"]

# Making the attestation key takes seconds on slow TPMs; a GPU's first report one or two.
PATIENCE: Final = 20.0


def diagnose(host: Host, *, areas: Sequence[Area] = AREAS, patience: float = PATIENCE) -> Report:
    """One finding for each check of ``areas``, in their order. Raises nothing.

    Args:
        host: what is looked at.
        areas: which checks.
        patience: seconds for one check, after which it counts as failed and the rest of its area is skipped.
    """
    return Report(tuple(finding for area in areas for finding in _examine(area, host, patience)))


def _examine(area: Area, host: Host, patience: float) -> Iterator[Finding]:
    found: queue.Queue[Finding | str] = queue.Queue()
    threading.Thread(target=_work, args=(area, host, found), name=f"doctor {area.name}", daemon=True).start()
    for number, check in enumerate(area.ids):
        try:
            finding = found.get(timeout=patience)
        except queue.Empty:
            finding = f"no answer within {patience:g} s"
        if not isinstance(finding, str) and finding.id != check:
            finding = f"the check answered for {finding.id}"
        if isinstance(finding, str):
            yield fail(check, finding, "Look for the device in the kernel's log, and run this again.")
            for left in area.ids[number + 1 :]:
                yield skip(left, "not reached")
            return
        yield finding


def _work(area: Area, host: Host, found: queue.Queue[Finding | str]) -> None:
    try:
        for finding in area.examine(host):
            found.put(finding)
        found.put("the check ended without a word")
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding: the others are looked at all the same
        found.put(f"the check itself broke: {type(error).__name__}: {error}")
