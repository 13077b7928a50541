"""What a window has of each enrolled GPU, and what that is compared with: found once, for all who ask of it.

The verifier's memory is asked about samples before they are appraised (:mod:`.appraisal`), and keeps them afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.verifier.telemetry.samples.series import Sampled, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from weighbridge.proto.profile import Profile
    from weighbridge.proto.telemetry import Source
    from weighbridge.verifier.baselines import Baselines
    from weighbridge.verifier.gpu.report import VerifiedGpuReport
    from weighbridge.verifier.procedure import VerifiedWindow
    from weighbridge.verifier.session import Enrolled

    _Chosen = tuple[Profile | None, bytes | None]

__all__ = ["Presented", "presented_by", "presented_to"]


@dataclass(frozen=True, slots=True)
class Presented:
    """The samples of one GPU in one window.

    Attributes:
        report: of the GPU, at enrolment.
        driver: its version there, if that says it.
        profile: by which it is judged, if there is one. It says which source counts, and how that samples.
        baseline: digest of the signed set that has it.
        sampled: by that source.
    """

    report: VerifiedGpuReport
    driver: str | None
    profile: Profile | None
    baseline: bytes | None
    sampled: Sampled

    @property
    def device(self) -> bytes:
        """The GPU's identity."""
        return self.report.identity

    @property
    def source(self) -> Source | None:
        """The samples as they were sent; ``None`` for none."""
        return self.sampled.source


def presented_by(
    window: VerifiedWindow, *, enrolled: Enrolled, baselines: Baselines, at: datetime
) -> tuple[Presented, ...]:
    """Of each enrolled GPU, by identity, what ``window`` has of it, with the profile for it that is in force ``at``.

    Switches compute nothing and are left out.
    """

    def choose(report: VerifiedGpuReport, driver: str | None) -> _Chosen:
        return baselines.choose(report.identity, enrolled.terms.model, at, driver=driver) or (None, None)

    return _presented(window, enrolled, choose)


def presented_to(
    window: VerifiedWindow, *, enrolled: Enrolled, profiles: Mapping[bytes, Profile]
) -> tuple[Presented, ...]:
    """As :func:`presented_by`, to those of ``profiles``, by GPU, whatever set they are in."""
    return _presented(window, enrolled, lambda report, _: (profiles.get(report.identity), None))


def _presented(
    window: VerifiedWindow, enrolled: Enrolled, choose: Callable[[VerifiedGpuReport, str | None], _Chosen]
) -> tuple[Presented, ...]:
    found: list[Presented] = []
    for report in sorted((gpu for gpu in enrolled.gpus if gpu.kind == "gpu"), key=lambda gpu: gpu.identity):
        driver = report.report.driver_version
        profile, baseline = choose(report, driver)
        source = source_of(window.telemetry, report.identity, None if profile is None else profile.source)
        found.append(Presented(report, driver, profile, baseline, Sampled.of(source)))
    return tuple(found)
