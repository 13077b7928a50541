"""Compares what a device measured with what its maker says it should have.

The procedure of :func:`compare`:

1. the manifests that the report needs are looked up by chip, kind and version (:mod:`.ids`), in the newest issue of
   the device's own platform (:mod:`.issues`);
2. an index that is active in two of them is a conflict: whichever were believed, the other would be ignored;
3. every active index is compared, and any of its alternatives is right. What index 35 has is not held against a device
   that says, in signed bytes, that its video decoder is disabled;
4. what the report has and no manifest claims is listed if it is not zero: drivers from 570 on measure one more index
   than the manifests of older ones know.

Which indices are active is the manifests' to say, never a constant here. SPDM counts from 1, manifests from 0; here it
is from 0.

Left to the caller: that report and chain are verified, that the manifests are valid now (:meth:`.RimSet.at`) and not
revoked, minimum versions, and the verdict. That all measurements are right does not say that confidential mode is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.verifier.gpu.rim.ids import wanted
from weighbridge.verifier.gpu.rim.swid import HASH_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.proto.spdm.report import Measurements, Report
    from weighbridge.verifier.gpu.chain import Kind, VerifiedGpuChain
    from weighbridge.verifier.gpu.rim.ids import Wanted
    from weighbridge.verifier.gpu.rim.issues import RimSet
    from weighbridge.verifier.gpu.rim.swid import RimEntry
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = ["Measured", "Mismatch", "Owner", "compare"]

Owner = Literal["driver", "vbios"]
Status = Literal["match", "mismatch", "absent"]

# Outcomes that are remembered: of a record and manifests, which no time enters.
_COMPARED_MAX: Final = 256
_NVDEC: Final = 35
_ZERO: Final = bytes(HASH_SIZE)
_NONE: Final[frozenset[int]] = frozenset()
_NO_BLOCK: Final = "the report has no measurement of this index"
_DEVELOPMENT: Final = "development mode (devtools) is on"
_OTHER_BUILD: Final = "the driver is of this version but another build, or has been changed"
_OTHER_ISSUE: Final = "the manifest has been issued again with another hash: get the newest"
_MODE: Final = "the device is in another mode: protected PCIe and single pass-through differ here"
_DECODER: Final = "the video decoder NVDEC0 is enabled"
_FIRMWARE: Final = "the firmware is of this version but of another board, or has been changed"
# Seen on genuine devices: index 9 differs by mode and by issue, 11 by mode with some VBIOS, 24 and 35 by the decoder.
_KNOWN: Final[dict[int, tuple[str, ...]]] = {9: (_OTHER_ISSUE, _MODE), 11: (_MODE,), 24: (_DECODER,), 35: (_DECODER,)}
_BY_OWNER: Final[dict[Owner, tuple[str, ...]]] = {"driver": (_DEVELOPMENT, _OTHER_BUILD), "vbios": (_FIRMWARE,)}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A measurement that is none of those it should be.

    Attributes:
        index: from 0.
        owner: whose manifest states it; a switch has a VBIOS only.
        name: NVIDIA's name of the measurement.
        expected: any of these would be right.
        got: the report's; empty where it has none of this index.
        causes: what is known to bring this about, the likeliest first. Guesses, for people.
    """

    index: int
    owner: Owner
    name: str
    expected: tuple[bytes, ...]
    got: bytes
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the comparison gave. A ``match`` is one of verified manifests with whatever report was passed in.

    Attributes:
        status: ``mismatch`` if anything differs or is claimed twice, else ``absent`` if a manifest is missing, else
            ``match``.
        driver: the driver's manifest, or ``None``; a switch needs none.
        vbios: the VBIOS's manifest, a switch's too, or ``None``.
        wanted: the ids by which NVIDIA's service hands out the needed manifests.
        missing: those of ``wanted`` that are not at hand. It may be empty while ``status`` is ``absent``: a report
            without a version needs a manifest that has no name.
        compared: how many indices were held against the device.
        mismatches: ascending by index.
        conflicts: indices that two manifests claim.
        uncovered: indices that are not zero and in no manifest; empty while a manifest is missing.
        skipped: indices that differ and are not held against the device.
    """

    status: Status
    driver: VerifiedRim | None
    vbios: VerifiedRim | None
    wanted: tuple[str, ...]
    missing: tuple[str, ...]
    compared: int
    mismatches: tuple[Mismatch, ...]
    conflicts: tuple[int, ...]
    uncovered: tuple[int, ...]
    skipped: tuple[int, ...]


def compare(report: Report, chain: VerifiedGpuChain, rims: RimSet) -> Measured:
    """How ``report``'s measurements compare with ``rims``, by the procedure in the module's docstring.

    Args:
        report: the one that ``chain``'s key has signed.
        chain: the device's, verified.
        rims: those that count now.
    """
    # 1.
    needed = wanted(report, chain)
    found = {item.kind: rims.newest(item.id, platform=chain.platform) for item in needed}
    driver, vbios = found.get("driver"), found.get("switch" if chain.kind == "switch" else "vbios")
    excused = chain.kind == "gpu" and report.nvdec0 == "disabled"
    return _compared(report.measurements, needed, driver, vbios, kind=chain.kind, excused=excused)


@lru_cache(maxsize=_COMPARED_MAX)
def _compared(
    measurements: Measurements,
    needed: tuple[Wanted, ...],
    driver: VerifiedRim | None,
    vbios: VerifiedRim | None,
    *,
    kind: Kind,
    excused: bool,
) -> Measured:
    """Steps 2 to 4, of one record and the manifests found. Devices of a kind measure the same in each report.

    ``excused``: whether the device says that its decoder is disabled.
    """
    claimed = (driver.indices if driver else _NONE) | (vbios.indices if vbios else _NONE)
    # 2.
    conflicts = tuple(sorted(driver.indices & vbios.indices)) if driver and vbios else ()
    # 3.
    values = measurements.values
    differing = [*_differing("driver", driver, values), *_differing("vbios", vbios, values)]
    left_out = {_NVDEC} if excused else _NONE
    mismatches = sorted((item for item in differing if item.index not in left_out), key=lambda item: item.index)
    # 4.
    complete = vbios is not None and (driver is not None or kind == "switch")
    uncovered = [index for index, value in values.items() if index not in claimed and value != _ZERO]
    if mismatches or conflicts:
        status: Status = "mismatch"
    else:
        status = "match" if complete else "absent"
    skipped = tuple(item.index for item in differing if item.index in left_out)
    return Measured(
        status=status,
        driver=driver,
        vbios=vbios,
        wanted=tuple(item.service_id for item in needed),
        missing=tuple(item.service_id for item in needed if (driver if item.kind == "driver" else vbios) is None),
        compared=len(claimed) - len(skipped),
        mismatches=tuple(mismatches),
        conflicts=conflicts,
        uncovered=tuple(uncovered) if complete else (),
        skipped=skipped,
    )


def _differing(owner: Owner, rim: VerifiedRim | None, values: Mapping[int, bytes]) -> list[Mismatch]:
    """Where the report has none of the manifest's hashes."""
    return [
        _mismatch(owner, entry, values.get(entry.index, b""))
        for entry in (rim.active if rim else ())
        if values.get(entry.index) not in entry.hashes
    ]


def _mismatch(owner: Owner, entry: RimEntry, got: bytes) -> Mismatch:
    causes = (*_KNOWN.get(entry.index, ()), *_BY_OWNER[owner]) if got else (_NO_BLOCK,)
    return Mismatch(entry.index, owner, entry.name, entry.hashes, got, causes)
