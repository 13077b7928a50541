"""Opens the measurement log of this boot when an attester starts, and puts the start into it.

The log begins where its register stands. That is a cleared register, or what the boot's own logs lead to: systemd
measures into the same register before us. Anything else is somebody else's, and no verifier would take it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from weighbridge.attester.weights import Baseline, MeasurementLog
from weighbridge.proto.errors import WeighbridgeError
from weighbridge.proto.eventlog.baseline import baseline
from weighbridge.proto.measurement_log import AttesterStart
from weighbridge.proto.tpm.constants import HashAlgorithm
from weighbridge.proto.tpm.pcr import PcrSelection

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.attester.configuration import Devices, SessionConfig

__all__ = ["open_log"]

_START_ID_SIZE: Final = 16


def open_log(config: SessionConfig, devices: Devices, *, notice: Callable[[str], None]) -> MeasurementLog:
    """The log of this boot, with this start in it. Closed by the caller.

    Args:
        config: names the state directory and the register.
        devices: the TPM, and the boot's logs unless they are kept back.
        notice: told why the boot's logs are of no use here, if they are not; a verifier that wants them says so later.

    Raises:
        EnvironmentFault: ``BASELINE_UNEXPLAINED``, or as :meth:`MeasurementLog.open`.
    """
    tpm, pcr = devices.tpm, config.log_pcr
    at = tpm.read_clock()
    log = MeasurementLog.open(
        config.state,
        tpm,
        pcr=pcr,
        boot=f"{at.reset_count}.{at.restart_count}",
        baseline=Baseline.FOUND if _explained(devices, pcr, notice) else Baseline.ZERO,
    )
    try:
        log.append(AttesterStart(version=config.version, start_id=secrets.token_bytes(_START_ID_SIZE)))
    except BaseException:
        log.close()
        raise
    return log


def _explained(devices: Devices, pcr: int, notice: Callable[[str], None]) -> bool:
    """Whether the boot's own logs lead to what the register holds."""
    if devices.boot is None:
        return False
    bank = HashAlgorithm.SHA256
    try:
        logs = devices.boot.read()
        return baseline(logs, pcr, bank) == devices.tpm.read_pcrs(PcrSelection.of(bank, [pcr]))[pcr]
    except WeighbridgeError as error:
        notice(f"the logs of the boot are not used: {error}")
        return False
