"""What the physical record of one window says of each enrolled GPU, given all that came before it in the session.

*The host says so*: no reading is signed by a sensor. The residual can contradict and corroborate; it can never vouch
for weights. Pure: the same windows, profiles and history give the same appraisal, to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from weighbridge.verifier.telemetry.history import NOTHING, History
from weighbridge.verifier.telemetry.state import DeviceAppraisal, DeviceState, TelemetryState, Word, worst

if TYPE_CHECKING:
    from datetime import datetime

    from weighbridge.proto.baseline import Profile
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled

__all__ = [
    "NOTHING",
    "Choice",
    "DeviceAppraisal",
    "DeviceState",
    "History",
    "NoBaselines",
    "TelemetryAppraisal",
    "TelemetryState",
    "Word",
    "appraise_telemetry",
    "worst",
]


class Choice(Protocol):
    """Where profiles come from: the baselines in force, or those that a record names."""

    def choose(self, device: bytes, model: bytes, at: datetime) -> tuple[Profile, bytes] | None:
        """The profile for ``device`` running ``model``, and the digest of the signed set that has it."""
        ...


class NoBaselines:
    """A :class:`Choice` where no owner has signed anything."""

    def choose(self, device: bytes, model: bytes, at: datetime) -> tuple[Profile, bytes] | None:
        """None."""
        del device, model, at
        return None


@dataclass(frozen=True, slots=True)
class TelemetryAppraisal:
    """What the physical record of one window says.

    Attributes:
        verdict: of the worst of its GPUs.
        devices: each enrolled GPU, by identity; switches compute nothing and are not among them.
        state: where the record stands behind this window.
        history: what was remembered when it came.
    """

    verdict: Word
    devices: tuple[DeviceAppraisal, ...]
    state: TelemetryState
    history: History = NOTHING


def appraise_telemetry(
    window: VerifiedWindow,
    state: TelemetryState,
    *,
    enrolled: Enrolled,
    baselines: Choice,
    history: History,
    at: datetime,
) -> TelemetryAppraisal:
    """The appraisal of ``window``. Never raises for what the evidence contains."""
    raise NotImplementedError
