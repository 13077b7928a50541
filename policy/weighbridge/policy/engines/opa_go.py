"""OPA itself as an engine: the Go evaluator in the shared library of opa-golib-python-bindings, in worker processes.

It is a second opinion, and nobody's dependency: it lies in a directory that the caller names, unpacked from the package
that ``requirements/peers/opa.lock`` pins by hash, and no process of ours loads it but ``opa_worker.py``. Only policies
that have passed our checker are loaded, which regorus parses for it. Time is the receipt time, and what is not
repeatable raises, as with every engine.

What differs from regorus: OPA compiles before it evaluates, so that :meth:`OpaGoEngine.check` has OPA's own findings,
too; and Go reserves addresses for itself, so that the limit on memory is :data:`RESERVE` above what is stated.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from weighbridge.policy.adapters.beside import beside
from weighbridge.policy.engine import DEFAULT_LIMITS, Limits, Prepared
from weighbridge.policy.engines.loading import (
    checked,
    compiler_findings,
    findings_in,
    loaded,
    not_loaded,
    optional_rules,
    parsed,
)
from weighbridge.policy.engines.pool import Pool, start_all
from weighbridge.policy.engines.prepared import PreparedPolicy, query_of
from weighbridge.policy.engines.process import Program, Worker, WorkerFault, WorkerRefused
from weighbridge.policy.engines.workbench import load_request, spawn
from weighbridge.proto.errors import Code, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.policy.checker.findings import CheckerFinding
    from weighbridge.policy.policy_set import PolicyModule, PolicySet
    from weighbridge.proto import strict

__all__ = ["RESERVE", "OpaGoEngine"]

_SCRIPT: Final = Path(__file__).with_name("opa_worker.py")
_DISTRIBUTION: Final = "opa-golib-python-bindings"
# The builds that this was tried with, and OPA's own version in each.
_BUILDS: Final = MappingProxyType({"0.4.4": "1.20.2"})
RESERVE: Final = 5 << 28
"""Addresses that Go and its threads take before a policy is loaded, in bytes: 1.25 GiB, of which 40 MB are touched."""
# Two threads at once whatever the machine has, and a garbage collector that waits: documents are small.
_ENVIRONMENT: Final = MappingProxyType({"GOMAXPROCS": "2", "GOGC": "400", "GOMEMLIMIT": "256MiB"})
_INSTALL: Final = (
    "pip install --target DIRECTORY --no-deps --ignore-requires-python --require-hashes -r requirements/peers/opa.lock"
)


@final
class OpaGoEngine:
    """Evaluates policies with OPA. Holds nothing: each prepared policy has its own processes.

    Args:
        directory: where opa-golib-python-bindings is unpacked.

    Raises:
        EnvironmentFault: ``TOOL_MISSING``: it is not there, or in a version that nobody has tried.
    """

    def __init__(self, directory: Path) -> None:
        found = sorted(directory.glob("opa_golib_python_bindings-*.dist-info"))
        build = found[0].name.removesuffix(".dist-info").rpartition("-")[2] if len(found) == 1 else ""
        if build not in _BUILDS or not (directory / "opa_bindings" / "libopabridge.so").is_file():
            raise EnvironmentFault(
                Code.TOOL_MISSING,
                f"no {_DISTRIBUTION} of a version that is known here",
                where=str(directory),
                expected=", ".join(_BUILDS),
                got=build or "nothing",
                hint=_INSTALL,
            )
        self._build: str = build
        self._program: Program = Program(_SCRIPT, str(directory.resolve()), RESERVE, _ENVIRONMENT)

    @property
    def name(self) -> str:
        """``opa-go``."""
        return "opa-go"

    @property
    def version(self) -> str:
        """Build and OPA's version, as ``distribution version (OPA version)``."""
        return f"{_DISTRIBUTION} {self._build} (OPA {_BUILDS[self._build]})"

    @property
    def program(self) -> Program:
        """What runs as its worker."""
        return self._program

    def check(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> tuple[CheckerFinding, ...]:
        """Everything that our checker has against ``policy``, and what OPA's compiler has.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: it does not parse, or OPA cannot compile it within the limits.
            EnvironmentFault: no worker can be started.
        """
        worker, modules = parsed(policy, limits)
        worker.close()
        findings = findings_in(modules, policy.data)
        try:
            request = load_request(policy.modules, policy.document(), queries=(query_of(optional_rules(modules)),))
            loaded(spawn(limits, self._program), request, limits).close()
        except WorkerRefused as refused:
            findings += compiler_findings(str(refused), policy)
        except WorkerFault as fault:
            raise not_loaded(fault) from fault
        return findings

    def load(
        self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS, *, workers: int = 1, spares: int = 1
    ) -> Prepared:
        """Check ``policy`` and load it; ``workers`` and ``spares`` as with regorus.

        Raises:
            PolicyDenied: ``POLICY_INVALID`` with file and line: it does not parse, our checker refuses it, or OPA does.
            EnvironmentFault: no worker can be started.
            ValueError: no worker at all, or fewer spares than none.
        """
        if workers < 1 or spares < 0:
            raise ValueError("a prepared policy has at least one worker")
        optional = optional_rules(checked(policy, limits))
        request = load_request(policy.modules, policy.document(), queries=(query_of(optional),))

        def start() -> Worker:
            return loaded(spawn(limits, self._program), request, limits)

        try:
            started = start_all(start, workers)
        except WorkerFault as fault:
            raise not_loaded(fault) from fault
        prepared = PreparedPolicy(
            Pool(start, started, spares=spares, limits=limits),
            policy=policy,
            limits=limits,
            optional=optional,
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
            return loaded(spawn(limits, self._program), request, limits)

        return Pool(start, (start(),), spares=1, limits=limits)
