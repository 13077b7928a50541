"""A verifier that demands a baseline, and the files of signed sets, replaced while it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Self

from corpus.telemetry import OWNER, SERVING, demanding, enrolled
from forge.determined import determined
from support.baselines import fitted
from support.gate import Gate
from support.sensors import Undeclared
from support.world import manifest
from weighbridge.proto.baseline import SignedBaselineSet
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.baseline_watch import BaselineKeeper
from weighbridge.verifier.reference_watch import ReferenceWatch

if TYPE_CHECKING:
    from pathlib import Path

    from corpus.arena import Arena
    from support.world import World
    from weighbridge.policy.values.reference import Reference
    from weighbridge.proto.baseline import BaselineSet
    from weighbridge.proto.profile import Profile
    from weighbridge.verifier.anchors import Anchor
    from weighbridge.verifier.core import Answer

__all__ = ["HIDDEN", "NUMBER", "MeasuredGate", "honest", "poisoned"]

HIDDEN: Final = 30_000
"""Tokens a second beside what is declared: no baseline of the declared work takes that for granted."""
NUMBER: Final = 7


def honest() -> tuple[Profile, ...]:
    """The profiles of the GPUs at the work that is declared."""
    return SignedBaselineSet.parse(enrolled(SERVING)[1]).claimed.profiles


@cache
def poisoned() -> tuple[Profile, ...]:
    """The profiles of the same GPUs at the same declared work, recorded while they did the hidden work as well."""
    # Whichever case asks first: what devices draw for it is not that case's.
    with determined("devices at hidden work"):
        return fitted(enrolled(SERVING)[0], manifest().digest, work=SERVING, undeclared=HIDDEN)


@dataclass
class MeasuredGate:
    """A world under the production policy, and the file of the set that its GPUs are compared with."""

    world: World
    gate: Gate
    own: Reference
    path: Path
    trusted: list[Anchor] = field(default_factory=lambda: [OWNER.anchor()])

    @classmethod
    def make(cls, arena: Arena) -> Self:
        """A gate to a world of its own, which nothing has started yet."""
        gpus, _ = enrolled(SERVING)
        world = arena.world(
            policy="production", platforms=("tpm", "nvidia"), source="nvml", gpus=gpus, reference=demanding
        )
        world.host.work = SERVING
        gate = Gate(world, arena.engines, world.directory / "models.set", own_models=True)
        return cls(world, gate, world.reference, world.directory / "inference.baseline")

    def put(self, data: bytes, path: Path | None = None) -> Path:
        """Put a file in place, in one step."""
        staging = self.world.directory / "staging"
        staging.write_bytes(data)
        return staging.replace(path or self.path)

    def publish(self, content: BaselineSet) -> None:
        """Put a set that its owner has signed in place."""
        self.put(OWNER.sign(content))

    def start(self, *paths: Path) -> None:
        """The verifier as it comes up with the sets that are there."""
        world = self.world
        anchors = TrustAnchors((*self.gate.anchors.anchors, *self.trusted))
        watch = ReferenceWatch(
            [self.path, *paths],
            own=self.own,
            anchors=anchors,
            store=world.store,
            policies=self.gate.policies(),
            manifests=world.models,
            report=self.gate.lines.append,
            baselines=BaselineKeeper(anchors=anchors, store=world.store, archive=world.archive),
        )
        appraiser = watch.open(world.clock.at)
        world.prepared, world.reference = appraiser.policy, appraiser.reference
        world.restart(appraiser).follow(watch)

    def opened(self, *, undeclared: int = 0) -> None:
        """A session under number 7 of the honest set, whose GPUs do hidden work from the beginning."""
        self.publish(OWNER.content(honest(), number=NUMBER))
        self.start()
        self.serve(undeclared)

    def serve(self, undeclared: int = 0) -> Undeclared:
        """A session; what is returned says how much hidden work there is, and may be changed while it runs."""
        self.world.open_session()
        assert self.world.host.telemetry is not None
        sensors = Undeclared(self.world.host.telemetry, tokens=undeclared)
        self.world.host.telemetry = sensors
        return sensors

    def window(self) -> Answer:
        """The next one."""
        return self.world.window()

    @property
    def numbers(self) -> list[int]:
        """Of the sets that the reference values in force name."""
        return [item.number for item in self.world.verifier._first.appraiser.reference.baselines]

    @property
    def in_force(self) -> list[bytes]:
        """The signed files by which is judged."""
        return list(self.world.verifier._first.appraiser.baselines.files.values())

    @property
    def changes(self) -> int:
        """How many of the ledger's entries say that a set was taken."""
        records = self.world.archive.records
        return sum(records.record(index).kind == "baseline" for index in range(self.world.ledger.size))
