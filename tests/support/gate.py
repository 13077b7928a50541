"""A verifier whose model only its owner's reference set accepts, and that set's file, replaced while it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from support.owners import Issuer, Owner
from support.world import reference_for
from weighbridge.policy import policy_set
from weighbridge.policy.values.reference import Reference
from weighbridge.verifier.anchors import TrustAnchors
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.policy_watch import PolicyWatch
from weighbridge.verifier.reference_watch import ReferenceWatch
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from corpus.arena import Arena
    from support.world import Engines, World
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Prepared
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.proto.reference_set import ReferenceSet

LAB = Issuer()


@dataclass(frozen=True)
class Shared:
    """A prepared policy that others use as well: whoever closes it only stops using it."""

    prepared: Prepared

    def decide(self, document: PolicyInput) -> Decision:
        return self.prepared.decide(document)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@dataclass
class Gate:
    """A world whose model only its owner's set accepts, and that file."""

    world: World
    engines: Engines
    path: Path
    owner: Owner = field(default_factory=Owner)
    lines: list[str] = field(default_factory=list)
    own_models: bool = False
    collateral: CollateralStore | None = None

    @classmethod
    def make(cls, arena: Arena, *, own_models: bool = False) -> Self:
        """A gate to a world of its own, which nothing has started yet."""
        world = arena.world()
        return cls(world, arena.engines, world.directory / "models.set", own_models=own_models)

    @property
    def anchors(self) -> TrustAnchors:
        return TrustAnchors((self.owner.anchor(), LAB.anchor(), Owner("Beta").anchor()))

    def publish(self, content: ReferenceSet) -> None:
        """Put a signed set in place, in one step."""
        self.put(self.owner.sign(content))

    def put(self, data: bytes) -> None:
        staging = self.path.with_name("staging")
        staging.write_bytes(data)
        staging.replace(self.path)

    def load(self, policy: PolicySet) -> Prepared:
        return Shared(self.engines.load(policy))

    def prepare(self, reference: Reference) -> Prepared:
        return self.load(policy_set.shipped(self.world.policy, reference=reference))

    def policies(self, prepare: Callable[[Reference], Prepared] | None = None) -> PolicyWatch:
        """The world's shipped policy for everybody."""
        return PolicyWatch(
            [],
            own=policy_set.shipped(self.world.policy, reference=Reference({}, {}, {})),
            anchors=self.anchors,
            store=self.world.store,
            load=self.load if prepare is None else lambda policy: prepare(policy.reference),
            report=self.lines.append,
        )

    def start(self, *paths: Path, prepare: Callable[[Reference], Prepared] | None = None) -> ReferenceWatch:
        """The verifier as it comes up with the sets that are there."""
        world = self.world
        own = reference_for(world.host.gpus, list(world.models.values()) if self.own_models else [])
        watch = ReferenceWatch(
            [self.path, *paths],
            own=own,
            anchors=self.anchors,
            store=world.store,
            policies=self.policies(prepare),
            manifests=world.models,
            report=self.lines.append,
            collateral=self.collateral,
        )
        appraiser = watch.open(world.clock.at)
        world.prepared, world.reference = appraiser.policy, appraiser.reference
        world.restart(appraiser).follow(watch)
        return watch

    def opened(self, content: ReferenceSet) -> ReferenceWatch:
        """A session with one good window under ``content``."""
        self.publish(content)
        watch = self.start()
        self.world.open_session()
        assert self.world.window().verdict.opens
        return watch

    def state(self) -> SessionState:
        with self.world.store.transaction() as tx:
            row = tx.session(self.world.host.session)
        assert row is not None
        return row.state
