"""Whether a host is one of those that an owner's host set describes: quoted registers, the TPM's firmware, the time.

A set matches when each register that it names was quoted and holds one of its accepted values, its TPM's firmware is an
accepted one, and the owner vouches for the set at that time. A host may be what several sets describe: those that say
most of it come first, and what each proves decides between them (:mod:`.host_appraisal`). Where none matches, the
nearest explains what is different.

Not looked at here: which files ran (``verifier.boot``), and registers that a set does not name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from weighbridge.policy.values.host_sets import HostSet

__all__ = ["Differing", "HostMatch", "matches"]


class Differing(NamedTuple):
    """A register that holds none of the accepted values; ``got`` is ``None`` where it was not quoted."""

    pcr: int
    expected: tuple[bytes, ...]
    got: bytes | None


@dataclass(frozen=True, slots=True)
class HostMatch:
    """What was found.

    Attributes:
        status: ``absent`` where there is no host set at all.
        host: the set that matches, or the nearest one; ``None`` where there is none.
        differing: of the nearest set, by register.
        firmware: the TPM's firmware version, where the nearest set does not accept it.
        outside: when it was, where the nearest set is not valid then.
    """

    status: Literal["match", "mismatch", "absent"]
    host: HostSet | None
    differing: tuple[Differing, ...] = ()
    firmware: int | None = None
    outside: datetime | None = None

    @property
    def matching(self) -> HostSet | None:
        """The set that matches: of one that does not, nothing is taken over."""
        return self.host if self.status == "match" else None

    @property
    def expired(self) -> HostSet | None:
        """The set of which nothing but its time keeps the host from matching."""
        return self.host if self.outside is not None and not self.differing and self.firmware is None else None

    def reasons(self) -> tuple[str, ...]:
        """Why it does not match, a sentence each, for people; none where it does."""
        if self.host is None:
            return ("there is no host set to compare with",)
        told = [
            f"PCR {item.pcr} is {'not quoted' if item.got is None else item.got.hex()}, not "
            + (item.expected[0].hex() if len(item.expected) == 1 else f"one of {len(item.expected)} accepted values")
            for item in self.differing
        ]
        if self.firmware is not None:
            accepted = ", ".join(f"{version:#x}" for version in self.host.firmware or ())
            told.append(f"the TPM's firmware is {self.firmware:#x}, not {accepted}")
        if self.outside is not None:
            told.append(
                f"the set is valid from {strict.time_encode(self.host.not_before)} to "
                f"{strict.time_encode(self.host.not_after)}, not at {strict.time_encode(self.outside)}"
            )
        return tuple(told)


def matches(hosts: Iterable[HostSet], pcrs: Mapping[int, bytes], firmware: int, at: datetime) -> tuple[HostMatch, ...]:
    """Each of ``hosts`` that describes a host; where none does, only how the nearest one differs.

    Args:
        hosts: verified sets, in any order.
        pcrs: the quoted registers of the SHA-256 bank, 32 bytes each. Those of another bank match nothing.
        firmware: the TPM's firmware version, of the quote.
        at: the verifier's receipt time.

    Returns:
        At least one. Those with most registers come first, of these those that name the attester's files, then those
        that name files, then those that name the TPM's firmware; then by owner, name, and the newest number.
    """
    compared = [_compare(host, pcrs, firmware, at) for host in sorted(hosts, key=_weakness)]
    matching = tuple(found for found in compared if found.status == "match")
    if matching:
        return matching
    return (min(compared, key=_distance, default=HostMatch("absent", None)),)


def _weakness(host: HostSet) -> tuple[int, bool, bool, bool, str, str, int, str]:
    """Sorts sets by how little they say of a host, and those that say the same by their names."""
    said = -len(host.pcrs), not host.attester, not host.files, host.firmware is None
    return *said, host.owner, host.name, -host.number, host.digest


def _distance(found: HostMatch) -> int:
    return len(found.differing) + (found.firmware is not None) + (found.outside is not None)


def _compare(host: HostSet, pcrs: Mapping[int, bytes], firmware: int, at: datetime) -> HostMatch:
    differing = tuple(
        Differing(index, accepted, pcrs.get(index))
        for index, accepted in sorted(host.pcrs.items())
        if pcrs.get(index) not in accepted
    )
    other_firmware = None if host.firmware is None or firmware in host.firmware else firmware
    outside = None if host.valid(at) else at
    matches = not differing and other_firmware is None and outside is None
    return HostMatch("match" if matches else "mismatch", host, differing, other_firmware, outside)
