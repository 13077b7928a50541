"""Holds what NVIDIA's attestation service says of devices against what their own reports say.

The procedure of :func:`compare`:

1. the service speaks of exactly the session's devices of the kinds that it speaks of, each once: it is asked about GPUs
   and switches separately, so an answer may be silent about one kind, and about nothing less;
2. the kind, the model and the versions that it names are those of the device's certificates and of the report;
3. ``measres``, ``secboot`` and ``dbgstat`` are what the measurements give by the makers' manifests at hand: no signed
   field speaks of the latter two, and they follow the first. Without manifests there is nothing to hold them against.

A claim that the service does not make is not held against anything here; where the service always makes it, its absence
is a contradiction already (:mod:`.claims`). A difference does not say who is wrong.

Not shown: that the service was given this very report. None of its claims names one; it was given one of the same
device over the same nonce, and a host can have several signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from weighbridge.proto import strict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weighbridge.verifier.gpu.nras.verify import VerifiedNras, WitnessedDevice
    from weighbridge.verifier.gpu.report import VerifiedGpuReport

__all__ = ["ComparedDevice", "Difference", "Standing", "compare"]

Standing = Literal["match", "mismatch", "absent"]
# What the service says where it takes the measurements for right.
_RIGHT: Final[dict[str, strict.JsonValue]] = {"measres": "success", "secboot": True, "dbgstat": "disabled"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A claim that is not what was read here.

    Attributes:
        claim: such as ``GPU-0.x-nvidia-gpu-driver-version``.
        said: the service's word, as JSON.
        read: what is read here, and where.
    """

    claim: str
    said: str
    read: str

    def __str__(self) -> str:
        """On one line."""
        return f"{self.claim} is {self.said}; {self.read}"


@dataclass(frozen=True, slots=True)
class ComparedDevice:
    """One device of which the service spoke.

    Attributes:
        name: the service's, such as ``GPU-0``.
        report: the device's, by the serial number of its attestation certificate.
        measured: how its measurements compare with the makers' manifests at hand.
        agreed: the claims that are what was read here.
        differences: those that are not.
    """

    name: str
    report: VerifiedGpuReport
    measured: Standing
    agreed: tuple[str, ...]
    differences: tuple[Difference, ...]


def compare(
    said: VerifiedNras, reports: Sequence[VerifiedGpuReport], *, measured: Callable[[VerifiedGpuReport], Standing]
) -> tuple[ComparedDevice, ...]:
    """The devices of which the service spoke, in its order, each beside its report.

    Args:
        said: verified, over the nonce of ``reports``.
        reports: of all devices of the session; their serial numbers differ.
        measured: how a device's measurements compare with its maker's manifests.

    Raises:
        NotAuthentic: ``NRAS_SUBMODS``, where the devices are not those of the reports.
    """
    # 1.
    kinds = {device.kind for device in said.devices}
    asked = {str(_serial(report)): report for report in reports if report.kind in kinds}
    said.require_devices([_serial(report) for report in asked.values()])
    return tuple(_compared(device, asked[device.ueid or ""], measured) for device in said.devices)


def _serial(report: VerifiedGpuReport) -> int:
    return report.chain.certificates[0].serial_number


def _compared(
    device: WitnessedDevice, report: VerifiedGpuReport, measured: Callable[[VerifiedGpuReport], Standing]
) -> ComparedDevice:
    standing = measured(report)
    agreed: list[str] = []
    differences: list[Difference] = []
    if device.kind != report.kind:
        differences.append(Difference(device.name, f'"{device.kind}"', f"the certificates say {report.kind}"))
    for claim, agrees, read in (*_read(device, report), *_measured(device, standing)):
        if claim not in device.claims:
            continue
        if agrees:
            agreed.append(claim)
        else:
            said = strict.json_encode(device.claims[claim]).decode()
            differences.append(Difference(f"{device.name}.{claim}", said, read))
    return ComparedDevice(device.name, report, standing, tuple(agreed), tuple(differences))


def _read(device: WitnessedDevice, report: VerifiedGpuReport) -> Iterator[tuple[str, bool, str]]:
    """2.: each claim, whether it agrees, and what is read here."""
    chain, claims = report.chain, device.claims
    where = f"the certificates say {chain.model}"
    # Of an older version, it names the architecture alone.
    yield "hwmodel", claims.get("hwmodel") in {chain.model, chain.architecture}, where
    versions = {"x-nvidia-gpu-driver-version": report.report.driver_version}
    if report.kind == "switch":
        versions = {"x-nvidia-switch-bios-version": report.report.vbios_version}
    else:
        versions["x-nvidia-gpu-vbios-version"] = report.report.vbios_version
    for claim, version in versions.items():
        yield claim, version is not None and claims.get(claim) == version, f"the report says {version or 'nothing'}"


def _measured(device: WitnessedDevice, standing: Standing) -> Iterator[tuple[str, bool, str]]:
    """3."""
    if standing == "absent":
        return
    read = f"the measurements {standing} the manifests"
    for claim, right in _RIGHT.items():
        value = device.claims.get(claim)
        says_right = type(value) is type(right) and value == right
        yield claim, says_right == (standing == "match"), read
