"""Proves that the GPUs and switches of a host in protected-PCIe mode are all there, and wired to each other alone.

In that mode (PPCIE) GPUs send plain text over NVLink: what holds the switches together with the GPUs is attested, or it
is not protected. The devices say whom they are wired to, in signed bytes, by PDI; who has which PDI the provisioner's
certificate says (:mod:`.chain`). The procedure of :func:`check_topology`:

1. nothing is claimed where no GPU's signed mode is PPCIE; where one GPU's is, every GPU's is;
2. every device has a PDI in its certificate, and no two have the same; a switch reports its own alike;
3. each GPU names the same switches (SWITCH_PDI: one for each of its links, in reversed byte order, zero where a link
   leads nowhere), at least one;
4. these are exactly the switches that are attested here: none is missing, and none is beside them;
5. each switch names exactly the GPUs that are attested here (SWITCH_GPU_PDIS: eight, then the port of each).

How many there are follows from what they name, never from a constant: seven GPUs of eight are refused because the
switches name the eighth. Seen on a genuine HGX of 8 H200 and 4 LS_10: byte orders and sizes are as there.

Not proven: that a link is up, encrypted or fast; anything about NVLink in another mode, where GPUs encrypt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import Code, NotAuthentic
from weighbridge.proto.spdm.opaque import OpaqueType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.verifier.gpu.report import VerifiedGpuReport

__all__ = ["Topology", "check_topology"]

_PDI_SIZE: Final = 8
_NOWHERE: Final = bytes(_PDI_SIZE)
_SWITCH_GPUS: Final = 8
_SWITCH_PORTS: Final = 64
_CLAUSE: Final = "protected PCIe: every GPU and every NVSwitch of the host attests"


@dataclass(frozen=True, slots=True)
class Topology:
    """PDIs of the GPUs and switches that name each other and nobody else.

    They identify devices as serial numbers do: not for export.
    """

    gpus: frozenset[bytes]
    switches: frozenset[bytes]


def check_topology(devices: Sequence[VerifiedGpuReport]) -> Topology | None:
    """How the devices are wired where they are in protected-PCIe mode, ``None`` where no GPU says that it is.

    Args:
        devices: all of one host, verified for one nonce, each once, in any order.

    Raises:
        NotAuthentic: ``GPU_TOPOLOGY``, or ``GPU_MODE`` where the GPUs are in different modes.
    """
    gpus = [device for device in devices if device.kind == "gpu"]
    switches = [device for device in devices if device.kind == "switch"]
    # 1.
    claiming = sum(gpu.mode.is_ppcie for gpu in gpus)
    if not claiming:
        return None
    if claiming != len(gpus):
        raise NotAuthentic(
            Code.GPU_MODE,
            "some GPUs of the host are in protected-PCIe mode and some are not",
            where="gpus",
            expected=f"{len(gpus)} of {len(gpus)}",
            got=f"{claiming} of {len(gpus)}",
            clause=_CLAUSE,
        )
    # 2.
    there = Topology(_pdis(gpus), _pdis(switches))
    if len(there.gpus) != len(gpus) or len(there.switches) != len(switches):
        raise _wrong("two devices have the same PDI", "gpus")
    for switch in switches:
        if switch.report.opaque.get(OpaqueType.SWITCH_PDI) != switch.chain.pdi:
            raise _wrong("the switch reports another PDI than its certificate", _name(switch))
    # 3. and 4.
    for gpu in gpus:
        _compare(_switches_of(gpu), there.switches, _name(gpu), "switches")
    # 5.
    for switch in switches:
        _compare(_gpus_of(switch), there.gpus, _name(switch), "GPUs")
    return there


def _pdis(devices: Sequence[VerifiedGpuReport]) -> frozenset[bytes]:
    found: set[bytes] = set()
    for device in devices:
        if device.chain.pdi is None:
            raise _wrong("the device's certificate names no PDI", _name(device))
        found.add(device.chain.pdi)
    return frozenset(found)


def _switches_of(gpu: VerifiedGpuReport) -> frozenset[bytes]:
    value = gpu.report.opaque.get(OpaqueType.SWITCH_PDI)
    if value is None or len(value) % _PDI_SIZE:
        raise _wrong("the GPU does not say which switches it is wired to", _name(gpu))
    named = frozenset(item[::-1] for item in _split(value) if item != _NOWHERE)
    if not named:
        raise _wrong("the GPU is wired to no switch", _name(gpu))
    return named


def _gpus_of(switch: VerifiedGpuReport) -> frozenset[bytes]:
    value = switch.report.opaque.get(OpaqueType.SWITCH_GPU_PDIS)
    if value is None or len(value) != _SWITCH_GPUS * _PDI_SIZE + _SWITCH_PORTS:
        raise _wrong("the switch does not say which GPUs it is wired to", _name(switch))
    return frozenset(item for item in _split(value[:-_SWITCH_PORTS]) if item != _NOWHERE)


def _split(value: bytes) -> list[bytes]:
    return [value[offset : offset + _PDI_SIZE] for offset in range(0, len(value), _PDI_SIZE)]


def _compare(named: frozenset[bytes], there: frozenset[bytes], where: str, what: str) -> None:
    """PDIs are counted in the message, not shown: it may be read by others than the host's owner."""
    if named == there:
        return
    absent, beside = len(named - there), len(there - named)
    told = [f"{absent} of the {what} that it is wired to did not attest"] if absent else []
    told += [f"it is not wired to {beside} of those that attested"] if beside else []
    raise _wrong(
        ", and ".join(told),
        where,
        expected=f"exactly the {len(there)} {what} that attested",
        got=f"{len(named)} {what}",
    )


def _name(device: VerifiedGpuReport) -> str:
    return f"{device.kind} {device.identity.hex()[:16]}"


def _wrong(message: str, where: str, *, expected: object = None, got: object = None) -> NotAuthentic:
    return NotAuthentic(
        Code.GPU_TOPOLOGY,
        message,
        where=where,
        expected=expected,
        got=got,
        clause=_CLAUSE,
        hint="Send the evidence of every GPU and every NVSwitch of the host, or take the GPUs out of this mode.",
    )
