"""Where the appraisal of a session's telemetry stands, as a verifier keeps it for itself (:mod:`..kept_position`).

Of a profile its digest is kept: profiles are in the baselines that records name, and stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, NoneType
from typing import Final

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.proto.profile import Profile
from weighbridge.proto.telemetry import Channel, Event, EventKind, Source
from weighbridge.verifier.telemetry.detector.scoring import UnitScore
from weighbridge.verifier.telemetry.past import digest_of
from weighbridge.verifier.telemetry.physics import Finding
from weighbridge.verifier.telemetry.samples.units import UnitBuilder
from weighbridge.verifier.telemetry.state import TelemetryState

__all__ = ["NAMES", "Profiles", "integers", "profiles_of", "with_profiles", "without_profiles"]

Profiles = Callable[[bytes, bytes], Profile | None]
"""The profile of a GPU with this digest, if there is one."""

NAMES: Final[Mapping[str, object]] = {
    "Channel": Channel,
    "Event": Event,
    "EventKind": EventKind,
    "Finding": Finding,
    "Mapping": Mapping,
    "Profile": NoneType,
    "Sequence": Sequence,
    "Source": Source,
    "UnitBuilder": UnitBuilder,
    "UnitScore": UnitScore,
}
"""What a state is made of and its modules import for type checkers only, for :func:`.form_of`. It has no profile."""


def integers(state: TelemetryState) -> int:
    """About how many integers are written of ``state``: those of samples, of which there may be many."""
    return sum(
        (0 if device.builder is None else device.builder.begun.values) + sum(len(power) for _, power in device.recent)
        for device in state.devices.values()
    )


def profiles_of(state: TelemetryState) -> dict[bytes, bytes]:
    """The digests of the profiles by which GPUs are judged."""
    return {device: digest_of(of.profile) for device, of in state.devices.items() if of.profile is not None}


def without_profiles(state: TelemetryState) -> TelemetryState:
    """``state`` as it is written."""
    return replace(state, devices={device: replace(of, profile=None) for device, of in state.devices.items()})


def with_profiles(state: TelemetryState, named: Mapping[bytes, bytes], profiles: Profiles) -> TelemetryState:
    """``state`` as it was: each GPU with the profile of the digest in ``named``.

    Raises:
        MalformedEvidence: ``FIELD_RANGE``: ``profiles`` does not know one.
    """
    devices = dict(state.devices)
    for device, digest in named.items():
        profile = profiles(device, digest)
        if profile is None or device not in devices:
            raise MalformedEvidence(
                Code.FIELD_RANGE, "a profile that is not in force", where=f"position.{device.hex()}", got=digest
            )
        devices[device] = replace(devices[device], profile=profile)
    return replace(state, devices=MappingProxyType(devices))
