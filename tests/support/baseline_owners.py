"""Owners of GPUs who sign baseline sets, with keys of their own, over profiles that nobody has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from fakes.soft_tpm import derive_key
from support.owners import BEGINNING, DAY, FOREVER
from support.world import NOON
from weighbridge.proto import cose
from weighbridge.proto.baseline import (
    SET_TYP,
    BaselineSet,
    Bound,
    CalibrationRun,
    Deviation,
    Explained,
    Gross,
    Profile,
    Reported,
    Term,
)
from weighbridge.proto.digest import sha256
from weighbridge.proto.profile import FEATURES, REGRESSORS
from weighbridge.proto.scope import Scope
from weighbridge.verifier.anchors import Anchor
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.keys import sign_es256

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric import ec

    from weighbridge.verifier.anchors import Purpose

GPU = sha256(b"a GPU")
MODEL = sha256(b"a model's manifest")


def made_up(
    device: bytes | None = GPU,
    model: bytes | None = MODEL,
    *,
    driver: str = "580.95.05",
    workload: str = "chat",
    channel: str = "power",
    base_mw: int = 420_000,
    centre: int = 0,
    smallest_mw: int | None = 12_000,
    unit_ns: int = 10_000_000_000,
) -> Profile:
    """A profile whose features are independent of each other, and all ``centre`` millionths off."""
    identity = tuple(1_000_000 if row == column else 0 for row in range(FEATURES) for column in range(row, FEATURES))
    return Profile(
        device=device,
        scope=Scope(gpu_model="H100", driver=driver, engine="vllm 0.11", model=model, workload=workload),
        origin="session",
        source="nvml",
        channel=channel,
        unit_ns=unit_ns,
        period_ns=100_000_000,
        channels=(Reported(channel, 1_000_000_000, unit_ns // 100_000_000),),
        explained=Explained(base_mw, 900, tuple(Term(name, 2, 0, 1_000) for name in REGRESSORS)),
        centre=(centre,) * FEATURES,
        scale=(1_000_000,) * FEATURES,
        precision=identity,
        runs=tuple(
            sorted((CalibrationRun(sha256(b"run %d" % n), 30_000, (30_000, 34_000)) for n in range(12)), key=_recording)
        ),
        bounds=(Bound("runs", 1_800, 77_000, 12, "runs-exchangeable"),),
        gross=Gross((570, 370, 180), 140, 10_076, 396, "devices-alike"),
        evidence_ppm=10_000,
        delta_ppm=100_000,
        deviations=(Deviation(1, None), Deviation(2, smallest_mw)),
    )


def _recording(run: CalibrationRun) -> bytes:
    return run.recording


@dataclass
class BaselineOwner:
    """An owner. Sets are valid from a day before noon until ten days after, unless a test says otherwise."""

    name: str = "Acme Power"
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = derive_key(f"baseline owner {self.name}")

    def anchor(
        self, purpose: Purpose = "baseline-owner", *, not_before: datetime = BEGINNING, not_after: datetime = FOREVER
    ) -> Anchor:
        spki = cose.spki(self.key.public_key())
        return Anchor(purpose, self.name, "weighbridge", spki, not_before, not_after, "a test")

    def content(
        self,
        profiles: Iterable[Profile] | None = None,
        *,
        number: int = 1,
        name: str = "inference",
        note: str = "",
        **changes: datetime,
    ) -> BaselineSet:
        """A set; ``changes`` are ``issued`` and the bounds of its validity."""
        times = {"issued": NOON - DAY, "not_before": NOON - DAY, "not_after": NOON + 10 * DAY, **changes}
        chosen = [made_up()] if profiles is None else profiles
        return BaselineSet(
            owner=self.name,
            name=name,
            number=number,
            issued_ns=nanoseconds(times["issued"]),
            not_before_ns=nanoseconds(times["not_before"]),
            not_after_ns=nanoseconds(times["not_after"]),
            profiles=tuple(sorted(chosen, key=lambda profile: profile.digest)),
            note=note,
        )

    def sign(self, content: BaselineSet) -> bytes:
        """The file that is handed out."""
        return content.sign(
            kid=cose.thumbprint(self.key.public_key()), signer=lambda signed: sign_es256(self.key, signed)
        )

    def sign_anyway(self, content: BaselineSet) -> bytes:
        """The same of a set that makes no sense, which no tool of ours signs."""
        return cose.sign(
            content.encode(),
            kid=cose.thumbprint(self.key.public_key()),
            typ=SET_TYP,
            signer=lambda signed: sign_es256(self.key, signed),
        )
