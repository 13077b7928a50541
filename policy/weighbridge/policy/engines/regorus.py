"""The engine ``regorus`` (microsoft/regorus, build gordon-to-regorus), in a worker process of its own.

``load`` bounds, parses in the worker, checks the syntax tree here, and keeps the loaded worker; ``decide`` is one
exchange with it. After a crash, a timeout or an error the worker is replaced before the next decision: an engine that
has panicked gives wrong answers afterwards. One decision at a time per prepared policy; prepare more for more.
"""

from __future__ import annotations

import re
import threading
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self, final

from weighbridge.policy.checker.check import AUTHOR_PACKAGE, OPTIONAL_RULES, CheckerFinding, check, rule_names
from weighbridge.policy.checker.syntax import Module, parse
from weighbridge.policy.claims import trust_claims
from weighbridge.policy.document import PolicyInput
from weighbridge.policy.engine import DEFAULT_LIMITS, Decision, Limits
from weighbridge.policy.engines.output import Output, failure, read_answer
from weighbridge.policy.engines.process import Worker, WorkerCrashed, WorkerFault, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.workbench import load_request, spawn
from weighbridge.policy.policy_set import LIBRARY, PolicySet
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import Code, PolicyDenied

__all__ = ["RegorusEngine", "RegorusPrepared"]

_DISTRIBUTION: Final = "gordon-to-regorus"
# "--> file:line:column" opens, and "error: …" ends, what a person needs of the engine's message.
_PLACE: Final = re.compile(r"--> ([^\n]+?:[0-9]+):[0-9]+")
_ERROR: Final = re.compile(r"error: ([^\n]*)")


@final
class RegorusEngine:
    """Evaluates policies with regorus. Holds nothing: each prepared policy has its own process."""

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
        worker, modules = _load(policy, limits)
        worker.close()
        return _findings(modules)

    def load(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> RegorusPrepared:
        """Check ``policy`` and load it into a worker.

        Raises:
            PolicyDenied: ``POLICY_INVALID`` with file and line: it does not parse, or the checker refuses it.
            EnvironmentFault: no worker can be started.
        """
        worker, modules = _load(policy, limits)
        try:
            _check(modules)
        except BaseException:
            worker.close()
            raise
        optional = tuple(name for name in OPTIONAL_RULES if name in rule_names(modules))
        return RegorusPrepared(
            worker, policy=policy, limits=limits, optional=optional, engine=(self.name, self.version)
        )


@final
class RegorusPrepared:
    """A checked policy in a loaded worker; made by :meth:`RegorusEngine.load`. Threads take turns."""

    def __init__(
        self, worker: Worker, *, policy: PolicySet, limits: Limits, optional: tuple[str, ...], engine: tuple[str, str]
    ) -> None:
        self._worker: Worker | None = worker
        self._policy: PolicySet = policy
        self._limits: Limits = limits
        self._optional: tuple[str, ...] = optional
        self._engine: tuple[str, str] = engine
        self._digests: tuple[bytes, bytes] = (policy.digest, policy.reference_digest)
        self._closed: bool = False
        self._lock: threading.Lock = threading.Lock()
        rules = ", ".join(f"data.{AUTHOR_PACKAGE}.{name}" for name in ("allow", "deny", *optional))
        self._query: bytes = f"[{rules}]".encode()

    def decide(self, document: PolicyInput) -> Decision:
        """The decision on one window. Whatever the policy or the engine does ends in an outcome, not an exception.

        Raises:
            MalformedEvidence: the document holds a value that evidence must not have (see ``to_json``).
            RuntimeError: after :meth:`close`.
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        data = document.to_json()
        output = self._evaluate(data, document)
        policy_digest, reference_digest = self._digests
        return Decision(
            outcome=output.outcome,
            denials=output.denials,
            warnings=output.warnings,
            unchecked=output.unchecked,
            obligations=output.obligations,
            trust_claims=output.claims or trust_claims(document),
            policy_digest=policy_digest,
            reference_digest=reference_digest,
            input_digest=sha256(data),
            engine=self._engine[0],
            engine_version=self._engine[1],
            detail=output.detail,
        )

    def close(self) -> None:
        """End the worker. May be called again."""
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _evaluate(self, data: bytes, document: PolicyInput) -> Output:
        """``data`` is the document as JSON; taken apart from it so that tests can give the engine other bytes."""
        seq = document.window.seq
        if len(data) > self._limits.input_max:
            return failure("error", f"the input has {len(data)} bytes, more than {self._limits.input_max}", seq)
        now = strict.decimal(document.received_ns, what="received_ns")
        request = b"D" + now.to_bytes(8, "big") + len(self._query).to_bytes(2, "big") + self._query + data
        with self._lock:
            try:
                answer = self._ready().exchange(
                    request, seconds=self._limits.decide_seconds, reply_max=self._limits.reply_max
                )
            except WorkerFault as fault:
                self._worker = None
                return _failed(fault, seq)
        return read_answer(answer, self._optional, document)

    def _ready(self) -> Worker:
        if self._closed:
            raise RuntimeError("the prepared policy is closed")
        if self._worker is not None and not self._worker.alive:
            self._worker.close()
            self._worker = None
        if self._worker is None:
            # NOTE: not checked again: the modules are the same bytes.
            self._worker = spawn(self._limits)
            _ = self._worker.exchange(
                _request(self._policy), seconds=self._limits.load_seconds, reply_max=self._limits.syntax_max
            )
        return self._worker


def _request(policy: PolicySet) -> bytes:
    return load_request(policy.modules, policy.document())


def _load(policy: PolicySet, limits: Limits) -> tuple[Worker, tuple[Module, ...]]:
    request = _request(policy)
    worker = spawn(limits)
    try:
        tree = worker.exchange(request, seconds=limits.load_seconds, reply_max=limits.syntax_max)
        return worker, parse(tree)
    except WorkerRefused as refused:
        place, error = _PLACE.search(str(refused)), _ERROR.search(str(refused))
        raise PolicyDenied(
            Code.POLICY_INVALID,
            f"the policy does not load: {error.group(1) if error else str(refused)[:200]}",
            where=place.group(1) if place else "",
        ) from refused
    except WorkerFault as fault:
        raise PolicyDenied(Code.POLICY_INVALID, f"the policy does not load: {fault}") from fault
    except BaseException:
        worker.close()
        raise


def _findings(modules: tuple[Module, ...]) -> tuple[CheckerFinding, ...]:
    try:
        return check(modules, LIBRARY)
    except RecursionError as error:
        raise PolicyDenied(Code.POLICY_INVALID, "the policy is nested too deeply", hint="split it") from error


def _check(modules: tuple[Module, ...]) -> None:
    findings = _findings(modules)
    if not findings:
        return
    first = findings[0]
    more = f" ({len(findings) - 1} more)" if len(findings) > 1 else ""
    raise PolicyDenied(
        Code.POLICY_INVALID,
        f"{first.message}{more}",
        where=f"{first.module}:{first.line}",
        clause=f"checker {first.check}",
        hint=first.hint,
    )


def _failed(fault: WorkerFault, seq: int) -> Output:
    match fault:
        case WorkerTimeout():
            return failure("timeout", str(fault), seq)
        case WorkerRefused():
            place, error = _PLACE.search(str(fault)), _ERROR.search(str(fault))
            text = error.group(1) if error else str(fault)
            return failure("error", f"{place.group(1)}: {text}" if place else text, seq)
        case WorkerCrashed():
            return failure("crashed", str(fault), seq)
        case _:  # pragma: no cover - there are no other kinds
            raise fault
