"""Authors of policies who sign bundles, and a verifier whose policies come in such files, replaced while it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from fakes.soft_tpm import derive_key
from support.gate import Shared
from support.owners import BEGINNING, DAY, FOREVER
from support.world import NOON
from weighbridge.proto import cose
from weighbridge.proto.policy_bundle import PolicyBundle
from weighbridge.verifier.anchors import Anchor, TrustAnchors
from weighbridge.verifier.clock import nanoseconds
from weighbridge.verifier.keys import sign_es256
from weighbridge.verifier.policy_watch import PolicyWatch
from weighbridge.verifier.reference_watch import ReferenceWatch
from weighbridge.verifier.session import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from corpus.arena import Arena
    from support.world import Engines, World
    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicySet

ADMITS = b"""package weighbridge.policy

import data.weighbridge.lib
import rego.v1

default allow := false

allow if {
	count(deny) == 0
	lib.schema_known
	lib.fresh
}

deny contains d if some d in lib.always
"""
"""Demands no more than the library always does."""

LIMITS = (
    ADMITS
    + b"""
deny contains d if {
	input.work.requests > data.author.most
	d := lib.denial("TOO_BUSY", null, "too many requests", null, null, null)
}
"""
)
"""Denies a window of more requests than the author's own data say; the hosts of these tests have one request."""


@dataclass
class Author:
    """Whoever writes policies. Bundles are valid from a day before noon until ten days after, unless a test says so."""

    name: str = "Acme Safety"
    tenant: str | None = None
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = derive_key(f"author {self.name}")

    def anchor(self, *, not_before: datetime = BEGINNING, not_after: datetime = FOREVER) -> Anchor:
        spki = cose.spki(self.key.public_key())
        return Anchor(
            "policy-author", self.name, "weighbridge", spki, not_before, not_after, "a test", tenant=self.tenant
        )

    def content(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        number: int = 1,
        name: str = "gate",
        tenant: str | None = None,
        **changes: datetime,
    ) -> PolicyBundle:
        """A bundle of ``files``, else of one that admits; ``changes`` are ``issued`` and the bounds."""
        times = {"issued": NOON - DAY, "not_before": NOON - DAY, "not_after": NOON + 10 * DAY, **changes}
        return PolicyBundle(
            owner=self.name,
            name=name,
            tenant=tenant,
            number=number,
            issued_ns=nanoseconds(times["issued"]),
            not_before_ns=nanoseconds(times["not_before"]),
            not_after_ns=nanoseconds(times["not_after"]),
            files=tuple(sorted((files or {"gate.rego": ADMITS}).items())),
        )

    def sign(self, content: PolicyBundle) -> bytes:
        """The file that is handed out."""
        return content.sign(
            kid=cose.thumbprint(self.key.public_key()), signer=lambda signed: sign_es256(self.key, signed)
        )


@dataclass
class PolicyGate:
    """A world that is judged by signed policies, and their files: one for everybody, more by their names."""

    world: World
    engines: Engines
    author: Author = field(default_factory=Author)
    own: PolicySet | None = None
    lines: list[str] = field(default_factory=list)
    loaded: list[PolicySet] = field(default_factory=list)
    trusted: list[Author] = field(default_factory=list)

    @classmethod
    def make(cls, arena: Arena) -> Self:
        """A gate to a world of its own, which nothing has started yet."""
        return cls(arena.world(), arena.engines)

    @property
    def anchors(self) -> TrustAnchors:
        return TrustAnchors(tuple(author.anchor() for author in (self.author, *self.trusted)))

    def path(self, name: str = "gate.policy") -> Path:
        return self.world.directory / name

    def put(self, data: bytes, name: str = "gate.policy") -> Path:
        """Put a file in place, in one step."""
        staging = self.path("staging")
        staging.write_bytes(data)
        return staging.replace(self.path(name))

    def publish(self, content: PolicyBundle, name: str = "gate.policy") -> Path:
        """Put a bundle by the gate's author in place."""
        return self.put(self.author.sign(content), name)

    def load(self, policy: PolicySet) -> Prepared:
        self.loaded.append(policy)
        return Shared(self.engines.load(policy))

    def start(self, *paths: Path, load: Callable[[PolicySet], Prepared] | None = None) -> PolicyWatch:
        """The verifier as it comes up with the bundles that are there."""
        world = self.world
        policies = PolicyWatch(
            paths or [self.path()],
            own=self.own,
            anchors=self.anchors,
            store=world.store,
            load=load or self.load,
            report=self.lines.append,
        )
        watch = ReferenceWatch(
            [],
            own=world.reference,
            anchors=self.anchors,
            store=world.store,
            policies=policies,
            manifests=world.models,
            report=self.lines.append,
        )
        world.restart(watch.open(world.clock.at)).follow(watch)
        return policies

    def opened(self, content: PolicyBundle | None = None) -> PolicyWatch:
        """A session with one good window under ``content``."""
        self.publish(content or self.author.content())
        policies = self.start()
        self.world.open_session()
        assert self.world.window().verdict.opens
        return policies

    def state(self) -> SessionState:
        with self.world.store.transaction() as tx:
            row = tx.session(self.world.host.session)
        assert row is not None
        return row.state
