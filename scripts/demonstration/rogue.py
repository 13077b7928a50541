"""The red team's dishonest attester on one of the demonstration's hosts, for the acts that tamper with hardware."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from stage import AUDIENCE, TENANT

from weighbridge.attester.client import GrpcTransport
from weighbridge.attester.enrolling import Identity
from weighbridge.attester.gpu.emulated import EmulatedGpus, Firmware
from weighbridge.attester.keys import load_channel, load_serving
from weighbridge.attester.trust import TrustedVerifiers
from weighbridge.redteam.rogue import ForgetfulLog, Rogue

if TYPE_CHECKING:
    from stage import Host, Stage

    from weighbridge.attester.tpm.device import Tpm

__all__ = ["ForgetfulLog", "Rogue", "change_driver", "open_rogue", "swap_gpu"]

# As reports count, from 1: the manifest's index 22, one of the driver's.
_CHANGED = 23


class _ChangedDriver(Firmware):
    """The same versions and the same firmware, but for one measurement of the driver's."""

    def measurement(self, index: int) -> bytes:
        """See :meth:`Firmware.measurement`."""
        return hashlib.sha384(b"a changed driver").digest() if index == _CHANGED else Firmware.measurement(self, index)


async def open_rogue(stage: Stage, host: Host, *, tpm: Tpm, log: ForgetfulLog) -> Rogue:
    """Enrol as the real attester on ``host`` does.

    Raises:
        WeighbridgeError: what the verifier refuses with.
    """
    channel = load_channel(host.state)
    transport = GrpcTransport(
        f"127.0.0.1:{stage.port}", authority=(stage.state / "tls" / "ca.pem").read_bytes(), channel=channel
    )
    identity = Identity(
        tenant=TENANT,
        audience=AUDIENCE,
        cnf=load_serving(host.state).cnf,
        peer=channel.peer,
        model=stage.manifest.digest,
    )
    trusted = TrustedVerifiers.load((stage.state / "anchors.json").read_bytes())
    gpus = EmulatedGpus.open(host.gpus, 2)
    line = await transport.connect()
    try:
        return await Rogue.open(line, identity, tpm=tpm, gpus=gpus, log=log, trusted=trusted, model=stage.model)
    except BaseException:
        await line.disconnect()
        raise


def swap_gpu(rogue: Rogue, number: int, host: Host) -> None:
    """Put another genuine device of the same vendor in the place of one that is enrolled."""
    spare = EmulatedGpus.open(host.gpus, 3)
    *devices, last = spare.devices
    devices[number] = last
    _exchange(rogue, EmulatedGpus(spare.vendor, devices))


def change_driver(rogue: Rogue, number: int, host: Host) -> None:
    """Have a GPU sign what it measured of a changed driver."""
    gpus = EmulatedGpus.open(host.gpus, 2)
    devices = list(gpus.devices)
    devices[number] = replace(devices[number], firmware=_ChangedDriver())
    _exchange(rogue, EmulatedGpus(gpus.vendor, devices))


def _exchange(rogue: Rogue, gpus: EmulatedGpus) -> None:
    rogue.gpus = gpus
    rogue.reseal()
