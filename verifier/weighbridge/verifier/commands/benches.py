"""Sets up what judges each tenant's sessions, from the files that are configured, and keeps looking at them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.proto.errors import Code, MalformedEvidence
from weighbridge.verifier.baseline_watch import BaselineKeeper
from weighbridge.verifier.bench import Bench, keys_of
from weighbridge.verifier.collateral.store import CollateralStore
from weighbridge.verifier.commands.basis import admitting_for_all, read_basis, require_attesters, require_own
from weighbridge.verifier.observed import ObservedPolicy
from weighbridge.verifier.policy_watch import PolicyWatch
from weighbridge.verifier.reference_watch import ReferenceWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.policy.engine import Prepared
    from weighbridge.policy.policy_set import PolicySet
    from weighbridge.verifier.commands.basis import Basis
    from weighbridge.verifier.deployment import Deployment
    from weighbridge.verifier.observed import Observer
    from weighbridge.verifier.settings.model import Settings

__all__ = ["OpenBench", "read_bases"]

_NO_COLLATERAL: Final = (
    "no collateral: of GPUs neither revocation nor makers' manifests are known; `weighbridge collateral fetch` gets "
    "them, --collateral DIR judges by them"
)


def read_bases(settings: Settings) -> tuple[Basis, ...]:
    """By what each tenant is judged; nothing of any state is opened yet.

    Raises:
        WeighbridgeError: as :func:`.read_basis`; ``DUPLICATE_KEY``: two of the tenants are one, or have an
            authority of attesters in common, or STATE's own; ``FIELD_MISSING``: it is not said whose hosts attest.
    """
    found: dict[str, Basis] = {}
    admitting: set[bytes] = set()
    all_ = admitting_for_all(settings)
    for number, judging in enumerate(settings.judged()):
        basis = read_basis(judging)
        if basis.requirements.tenant in found:
            raise MalformedEvidence(
                Code.DUPLICATE_KEY,
                "two of the tenants are one",
                where=f"tenants.{number}.requirements",
                got=basis.requirements.tenant,
            )
        own = keys_of(basis.attesters or ())
        where = f"tenants.{number}.attester_ca" if settings.tenants else "judging.attester_ca"
        require_attesters(judging, settings, where=where)
        require_own(own, all_=all_, others=frozenset(admitting), where=where)
        admitting |= own
        found[basis.requirements.tenant] = basis
    return tuple(found.values())


@final
@dataclass(frozen=True, slots=True)
class OpenBench:
    """A tenant's bench, and who keeps it up.

    Attributes:
        bench: what judges.
        watch: what looks at the files.
        watched: whether there are any that may be read again.
        policy: the digest of the policy in force.
        unknown: what is not known, for the operator; may be empty.
    """

    bench: Bench
    watch: ReferenceWatch
    watched: bool
    policy: bytes
    unknown: str

    @classmethod
    def open(cls, basis: Basis, opened: Deployment, *, note: Callable[[str], None], observer: Observer) -> Self:
        """The bench of one tenant. Whoever has it closes :attr:`watch`.

        Raises:
            WeighbridgeError: a file cannot be taken, a policy does not load, or there is none for this tenant.
        """
        judging, tenant = basis.judging, basis.requirements.tenant
        engine = judging.engine.open()

        def load(policy: PolicySet) -> Prepared:
            return ObservedPolicy(engine.load(policy), observer)

        policies = PolicyWatch(
            judging.policy_bundles,
            own=basis.policy,
            anchors=basis.anchors,
            store=opened.store,
            load=load,
            report=note,
        )
        watch = ReferenceWatch(
            judging.sets,
            own=basis.reference,
            anchors=basis.anchors,
            store=opened.store,
            policies=policies,
            manifests=basis.manifests,
            report=note,
            collateral=None if judging.collateral is None else CollateralStore.open(judging.collateral),
            baselines=BaselineKeeper(anchors=basis.anchors, store=opened.store, archive=opened.archive),
        )
        try:
            appraiser = watch.open(datetime.now(UTC))
            # Before any attester is asked for anything that nobody could judge.
            judges = policies.in_force.of(tenant)
        except BaseException:
            watch.close()
            raise
        for other in policies.in_force.besides(tenant):
            note(f"weighbridge: warning: the policy for {other} judges nothing: the tenant is {tenant}")
        watched = bool(judging.sets or judging.policy_bundles)
        return cls(
            bench=Bench(
                requirements=basis.requirements,
                anchors=basis.anchors,
                appraiser=appraiser,
                renewal=watch,
                attesters=basis.attesters,
            ),
            watch=watch,
            watched=watched,
            policy=judges.policy.digest,
            unknown=_NO_COLLATERAL if basis.requirements.gpus and judging.collateral is None else "",
        )
