"""Which manifests a report needs: the ids by which NVIDIA's service hands them out, and what is signed in them.

========================================================================= ==============================
id of NVIDIA's service                                                    for
========================================================================= ==============================
``NV_GPU_DRIVER_GH100_<driver>``                                          a driver on Hopper
``NV_GPU_CC_DRIVER_<chip>_<driver>``                                      a driver on a later chip
``NV_GPU_VBIOS_<project>_<project SKU>_<chip SKU>_<VBIOS without dots>``  a GPU's VBIOS
``NV_SWITCH_BIOS_5612_0002_890_<VBIOS without dots>``                     an LS10 switch's
========================================================================= ==============================

In a manifest only chip, kind and version are signed. So a manifest is looked up by these (:attr:`Wanted.id`), and the
service's id is for whoever fetches it: there it is a claim of the server's, which :func:`check_named` holds against
what is signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, NotAuthentic

if TYPE_CHECKING:
    from weighbridge.proto.spdm.report import Report
    from weighbridge.verifier.gpu.chain import VerifiedGpuChain
    from weighbridge.verifier.gpu.rim.swid import RimKind
    from weighbridge.verifier.gpu.rim.verify import VerifiedRim

__all__ = ["Wanted", "check_named", "wanted"]

_HOPPER: Final = "GH100"
_DRIVER_PREFIXES: Final = ("NV_GPU_DRIVER", "NV_GPU_CC_DRIVER")
_SWITCH_BOARD: Final = "5612_0002_890"
# Kinds of device of a fleet, by versions and board.
_KNOWN_MAX: Final = 256
# What a device reports becomes part of an address and of a file's name.
_PART: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.]{0,31}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A manifest that is needed.

    Attributes:
        kind: of what it states measurements.
        id: as :attr:`.VerifiedRim.id`.
        service_id: as NVIDIA's service calls it.
    """

    kind: RimKind
    id: str
    service_id: str


def wanted(report: Report, chain: VerifiedGpuChain) -> tuple[Wanted, ...]:
    """The manifests for the device that signed ``report``: driver's and VBIOS's, or a switch's alone.

    One whose id cannot be formed, since the report lacks what is in it or has something else there, is left out.

    Args:
        report: authentic, else the answer is worth as much as the report.
        chain: the device's.
    """
    chip = chain.architecture.replace("_", "")
    if chain.kind == "switch":
        return _of_switch(chip, report.vbios_version)
    board = report.project, report.project_sku, report.chip_sku
    return _of_gpu(chip, report.driver_version, report.vbios_version, board)


@lru_cache(maxsize=_KNOWN_MAX)
def _of_switch(chip: str, vbios_version: str | None) -> tuple[Wanted, ...]:
    vbios = _part(vbios_version)
    name = f"NV_SWITCH_BIOS_{_SWITCH_BOARD}_{_short(vbios)}" if vbios else ""
    return (Wanted("switch", f"{chip} switch {vbios}", name),) if name else ()


@lru_cache(maxsize=_KNOWN_MAX)
def _of_gpu(
    chip: str, driver_version: str | None, vbios_version: str | None, named: tuple[str | None, ...]
) -> tuple[Wanted, ...]:
    found: list[Wanted] = []
    driver, vbios = _part(driver_version), _part(vbios_version)
    if driver:
        name = f"{_DRIVER_PREFIXES[chip != _HOPPER]}_{chip}_{driver}"
        found.append(Wanted("driver", f"{chip} driver {driver}", name))
    board = list(map(_part, named))
    if vbios and all(board):
        name = f"NV_GPU_VBIOS_{'_'.join(board)}_{_short(vbios)}".upper()
        found.append(Wanted("vbios", f"{chip} vbios {vbios}", name))
    return tuple(found)


def check_named(rim: VerifiedRim, service_id: str) -> None:
    """Require that ``rim`` may be what was asked for as ``service_id``: its chip, where named, its kind and version.

    Of a VBIOS's id the board is not compared: it is in no signed byte.

    Raises:
        NotAuthentic: ``RIM_VERSION``.
    """
    if rim.kind == "driver":
        fits = service_id in {f"{prefix}_{rim.product}_{rim.version}" for prefix in _DRIVER_PREFIXES}
    else:
        prefix = "NV_GPU_VBIOS_" if rim.kind == "vbios" else "NV_SWITCH_BIOS_"
        fits = service_id.startswith(prefix) and service_id.endswith(f"_{_short(rim.version)}")
    if not fits:
        raise NotAuthentic(
            Code.RIM_VERSION,
            "the manifest is not the one of this name",
            where="rim",
            expected=service_id,
            got=rim.id,
            hint="Fetch it again, or rename the file.",
        )


def _part(text: str | None) -> str:
    return text if text is not None and _PART.fullmatch(text) else ""


def _short(version: str) -> str:
    return version.replace(".", "")
