"""What every engine does before it evaluates: regorus parses, our checker judges the syntax tree."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from weighbridge.policy.checker.check import OPTIONAL_RULES, check, rule_names
from weighbridge.policy.checker.findings import CheckerFinding, errors
from weighbridge.policy.checker.syntax import parse
from weighbridge.policy.engines.prepared import place_and_error
from weighbridge.policy.engines.process import WorkerFault, WorkerRefused
from weighbridge.policy.engines.workbench import load_request, spawn
from weighbridge.policy.policy_set import LIBRARY
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, PolicyDenied

if TYPE_CHECKING:
    from weighbridge.policy.checker.syntax import Module
    from weighbridge.policy.engine import Limits
    from weighbridge.policy.engines.process import Worker
    from weighbridge.policy.policy_set import AuthorData, PolicyModule, PolicySet

__all__ = ["checked", "compiler_findings", "findings_in", "loaded", "not_loaded", "optional_rules", "parsed", "refuse"]


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")
# Policies that one process has in force, or tries, at a time.
_KEPT_MAX: Final = 8


class _Kept(Generic[_Key, _Value]):
    """What came of the last few, by exactly what it came of. Reference values change under a policy that does not."""

    def __init__(self) -> None:
        self._lock: threading.Lock = threading.Lock()
        self._known: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        with self._lock:
            return self._known.get(key)

    def put(self, key: _Key, value: _Value) -> None:
        with self._lock:
            self._known[key] = value
            while len(self._known) > _KEPT_MAX:
                _ = self._known.popitem(last=False)


_SYNTAX: Final[_Kept[tuple[PolicyModule, ...], tuple[Module, ...]]] = _Kept()
_FINDINGS: Final[_Kept[tuple[tuple[tuple[str, bytes], ...], bytes | None], tuple[CheckerFinding, ...]]] = _Kept()


def checked(policy: PolicySet, limits: Limits) -> tuple[Module, ...]:
    """The syntax of a policy that parses and has passed the checker: what any other engine asks for first.

    Raises:
        PolicyDenied: ``POLICY_INVALID`` with file and line.
        EnvironmentFault: no worker can be started.
    """
    worker, modules = parsed(policy, limits)
    worker.close()
    refuse(findings_in(modules, policy.data))
    return modules


def optional_rules(modules: tuple[Module, ...]) -> tuple[str, ...]:
    """The optional rules that the author defines, in the order in which they are asked for."""
    names = rule_names(modules)
    return tuple(name for name in OPTIONAL_RULES if name in names)


def loaded(worker: Worker, request: bytes, limits: Limits) -> Worker:
    """``worker`` with what ``request`` loads; closed when it cannot be.

    Raises:
        WorkerFault: it cannot.
    """
    try:
        _ = worker.exchange(request, seconds=limits.load_seconds, reply_max=limits.syntax_max)
    except BaseException:
        worker.close()
        raise
    return worker


def refuse(findings: tuple[CheckerFinding, ...]) -> None:
    """Go on only where there is no error among the findings.

    Raises:
        PolicyDenied: ``POLICY_INVALID`` with the first of them.
    """
    refusing = errors(findings)
    if not refusing:
        return
    first = refusing[0]
    more = f" ({len(refusing) - 1} more)" if len(refusing) > 1 else ""
    raise PolicyDenied(
        Code.POLICY_INVALID,
        f"{first.message}{more}",
        where=f"{first.module}:{first.line}",
        clause=f"checker {first.check}",
        hint=first.safe,
    )


def not_loaded(fault: WorkerFault) -> PolicyDenied:
    """The refusal of a policy that an engine does not load."""
    if not isinstance(fault, WorkerRefused):
        return PolicyDenied(Code.POLICY_INVALID, f"the policy does not load: {fault}")
    place, error = place_and_error(str(fault))
    hint = "`weighbridge policy check` shows the line"
    return PolicyDenied(Code.POLICY_INVALID, f"the policy does not load: {error[:200]}", where=place, hint=hint)


def parsed(policy: PolicySet, limits: Limits, request: bytes | None = None) -> tuple[Worker, tuple[Module, ...]]:
    """A worker of regorus with ``policy`` loaded, and its syntax. Not checked.

    Args:
        policy: what is loaded.
        limits: of the worker.
        request: what loads it, where that is made already.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: the engine cannot parse it, or not within the limits.
        EnvironmentFault: no worker can be started.
    """
    worker = spawn(limits)
    try:
        if request is None:
            request = load_request(policy.modules, policy.document(), syntax=False)
        _ = worker.exchange(request, seconds=limits.load_seconds, reply_max=limits.syntax_max)
        return worker, _syntax(worker, policy, limits)
    except WorkerFault as fault:
        raise not_loaded(fault) from fault
    except BaseException:
        worker.close()
        raise


def _syntax(worker: Worker, policy: PolicySet, limits: Limits) -> tuple[Module, ...]:
    syntax = _SYNTAX.get(policy.modules)
    if syntax is None:
        syntax = parse(worker.exchange(b"S", seconds=limits.load_seconds, reply_max=limits.syntax_max))
        _SYNTAX.put(policy.modules, syntax)
    return syntax


def findings_in(modules: tuple[Module, ...], data: AuthorData | None) -> tuple[CheckerFinding, ...]:
    """Everything that the checker has against a policy and what it looks at in the author's own data.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: it is nested too deeply to be looked at.
    """
    exact = tuple((module.name, module.text) for module in modules), None if data is None else data.text
    found = _FINDINGS.get(exact)
    if found is not None:
        return found
    try:
        found = check(modules, LIBRARY, None if data is None else data.content())
    except RecursionError as error:
        raise PolicyDenied(Code.POLICY_INVALID, "the policy is nested too deeply", hint="split it") from error
    _FINDINGS.put(exact, found)
    return found


def compiler_findings(message: str, policy: PolicySet) -> tuple[CheckerFinding, ...]:
    """OPA's words on every place that it does not compile, as findings."""
    names = "|".join(re.escape(module.name) for module in policy.modules)
    places = re.findall(rf"(?:^|: |\n)({names}):([0-9]+)(?::[0-9]+)?: ([^\n]*)", message)
    found = [
        CheckerFinding(name, strict.decimal(line, what="line"), 1, "opa-compiler", text, "")
        for name, line, text in places
    ]
    return tuple(found) or (CheckerFinding(LIBRARY, 1, 1, "opa-compiler", message[:200], ""),)
