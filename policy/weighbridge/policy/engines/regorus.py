"""The engine ``regorus`` (microsoft/regorus, build gordon-to-regorus), in worker processes of its own.

``load`` bounds, parses in a worker, checks the syntax tree here, and keeps the loaded workers (:mod:`.pool`);
``decide`` is one exchange with one of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.adapters.beside import beside
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits, Prepared
from weighbridge.policy.engines.loading import findings_in, loaded, not_loaded, optional_rules, parsed, refuse
from weighbridge.policy.engines.pool import Pool
from weighbridge.policy.engines.prepared import PreparedPolicy
from weighbridge.policy.engines.process import Worker, WorkerFault
from weighbridge.policy.engines.workbench import load_request, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.policy.checker.check import CheckerFinding
    from weighbridge.policy.checker.syntax import Module
    from weighbridge.policy.policy_set import PolicyModule, PolicySet
    from weighbridge.proto import strict

__all__ = ["RegorusEngine"]

_DISTRIBUTION: Final = "gordon-to-regorus"


@final
class RegorusEngine:
    """Evaluates policies with regorus. Holds nothing: each prepared policy has its own processes."""

    @property
    def name(self) -> str:
        """``regorus``."""
        return "regorus"

    @property
    def version(self) -> str:
        """The build that is installed, as ``distribution version``."""
        return f"{_DISTRIBUTION} {version(_DISTRIBUTION)}"

    def check(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> tuple[CheckerFinding, ...]:
        """Everything that the static checker has against ``policy``.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: the engine cannot parse it, or not within the limits.
            EnvironmentFault: no worker can be started.
        """
        worker, modules = parsed(policy, limits)
        worker.close()
        return findings_in(modules, policy.data)

    def load(
        self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS, *, workers: int = 1, spares: int = 1
    ) -> Prepared:
        """Check ``policy`` and load it, with the policies written for other verifiers beside it.

        Args:
            policy: what is loaded.
            limits: of each worker and each decision.
            workers: how many decisions may run at once, each in a process of its own.
            spares: how many more processes stand loaded, for when one of those dies.

        Raises:
            PolicyDenied: ``POLICY_INVALID`` with file and line: it does not parse, or the checker refuses it.
            EnvironmentFault: no worker can be started.
            ValueError: no worker at all, or fewer spares than none.
        """
        if workers < 1 or spares < 0:
            raise ValueError("a prepared policy has at least one worker")
        request = load_request(policy.modules, policy.document(), syntax=False)

        def start() -> Worker:
            return loaded(spawn(limits), request, limits)

        first, more, modules = _parsed_beside(policy, limits, request, start=start, more=workers - 1)
        try:
            refuse(findings_in(modules, policy.data))
        except BaseException:
            for worker in (first, *more):
                worker.close()
            raise
        prepared = PreparedPolicy(
            # NOTE: not checked again when a worker is replaced: the modules are the same bytes.
            Pool(start, (first, *more), spares=spares, limits=limits),
            policy=policy,
            limits=limits,
            optional=optional_rules(modules),
            engine=(self.name, self.version),
        )
        return beside(prepared, policy, limits)

    def bench(self, modules: Sequence[PolicyModule], data: strict.JsonObject, limits: Limits = DEFAULT_LIMITS) -> Pool:
        """``modules`` and ``data`` loaded, past the checker: for tools only.

        Raises:
            WorkerFault: they do not load.
            EnvironmentFault: no worker can be started.
        """
        request = load_request(modules, data, syntax=False)

        def start() -> Worker:
            return loaded(spawn(limits), request, limits)

        return Pool(start, (start(),), spares=1, limits=limits)


def _parsed_beside(
    policy: PolicySet, limits: Limits, request: bytes, *, start: Callable[[], Worker], more: int
) -> tuple[Worker, tuple[Worker, ...], tuple[Module, ...]]:
    """The worker that parsed, ``more`` that were loaded meanwhile, and the syntax."""
    if not more:
        worker, modules = parsed(policy, limits, request)
        return worker, (), modules
    with ThreadPoolExecutor(max_workers=more) as threads:
        futures = [threads.submit(start) for _ in range(more)]
        try:
            worker, modules = parsed(policy, limits, request)
        except BaseException:
            for future in futures:
                if future.exception() is None:
                    future.result().close()
            raise
    started = [future.result() for future in futures if future.exception() is None]
    for fault in (future.exception() for future in futures):
        if fault is not None:
            for one in (worker, *started):
                one.close()
            raise not_loaded(fault) if isinstance(fault, WorkerFault) else fault
    return worker, tuple(started), modules
