"""Asks policies of other verifiers beside one of ours: a window is admitted when ours does, and none of them refuses.

They are not checked as ours are: whatever one of them lets pass, ours and the invariants stand. Each profile's policies
run together in a worker of their own, within the limits of every policy, and see no reference values of ours.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, final

from weighbridge.policy.adapters.profiles import BY_NAME, Profile
from weighbridge.policy.engine import Decision, Denial, Limits, Outcome, Prepared
from weighbridge.policy.engines.prepared import place_and_error
from weighbridge.policy.engines.process import Worker, WorkerCrashed, WorkerFault, WorkerRefused, WorkerTimeout
from weighbridge.policy.engines.workbench import Undefined, load_request, read_value, spawn
from weighbridge.policy.policy_set import PolicyModule
from weighbridge.proto import strict
from weighbridge.proto.errors import Code, MalformedEvidence, PolicyDenied

if TYPE_CHECKING:
    from types import TracebackType

    from weighbridge.policy.adapters.module import ForeignModule, ProfileName
    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["Beside", "beside"]

_PREAMBLE: Final = "weighbridge/preamble.rego"
_HINT: Final = "it refuses what it does not see: docs/policy-adapters.md has what each profile is told"
_DETAIL_MAX: Final = 300
_UNDEFINED: Final = ("an answer", "undefined")


def beside(prepared: Prepared, policy: PolicySet, limits: Limits) -> Prepared:
    """``prepared`` with the foreign modules of ``policy`` beside it; itself where there are none.

    Raises:
        PolicyDenied: ``POLICY_INVALID``: one does not load. ``prepared`` is closed then.
        EnvironmentFault: no worker can be started.
    """
    if not policy.foreign:
        return prepared
    groups: dict[tuple[ProfileName, bool], list[ForeignModule]] = {}
    for module in policy.foreign:
        groups.setdefault((module.profile, module.v0), []).append(module)
    asked: list[_Asked] = []
    try:
        for (name, v0), modules in sorted(groups.items()):
            asked.append(_Asked(name, _request(BY_NAME[name], modules, policy.foreign_values, v0=v0), limits))
    except BaseException:
        prepared.close()
        for each in asked:
            each.close()
        raise
    return Beside(prepared, tuple(asked))


@dataclass(frozen=True, slots=True)
class _Refusal:
    outcome: Outcome
    denial: Denial


class _Asked:
    """The policies of one profile, loaded."""

    def __init__(self, name: ProfileName, request: bytes, limits: Limits) -> None:
        self.name: ProfileName = name
        self.profile: Profile = BY_NAME[name]
        self._request: bytes = request
        self._limits: Limits = limits
        self._lock: threading.Lock = threading.Lock()
        try:
            self._worker: Worker | None = self._load()
        except WorkerFault as fault:
            place, error = place_and_error(str(fault)) if isinstance(fault, WorkerRefused) else ("", str(fault))
            raise PolicyDenied(
                Code.POLICY_INVALID,
                f"the {name} policy does not load: {error[:_DETAIL_MAX]}",
                where=place or f"foreign/{name}",
                hint="policies of before OPA 1.0 go into the folder v0, or are given by --foreign-v0",
            ) from fault

    def refusals(self, document: PolicyInput) -> tuple[_Refusal, ...]:
        """Why the policies refuse; empty where they consent."""
        found: list[_Refusal] = []
        with self._lock:
            for question in self.profile.questions(document):
                refusal = self._refusal(question.input, question.device, document)
                if refusal is not None:
                    found.append(refusal)
        return tuple(found)

    def close(self) -> None:
        """End the worker. May be called again."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def _refusal(self, question: strict.JsonValue, device: str | None, document: PolicyInput) -> _Refusal | None:
        now = strict.decimal(document.received_ns, what="received_ns")
        query = self.profile.query.encode()
        request = b"D" + now.to_bytes(8, "big") + len(query).to_bytes(2, "big") + query + strict.json_encode(question)
        outcome: Outcome = "deny"
        try:
            if self._worker is None:
                self._worker = self._load()
            answer = read_value(
                self._worker.exchange(request, seconds=self._limits.decide_seconds, reply_max=self._limits.reply_max)
            )
            reasons = _UNDEFINED if isinstance(answer, Undefined) else self.profile.refuses(answer)
        except WorkerFault as fault:
            self._worker = None
            outcome = _outcome_of(fault)
            reasons = ("an answer", str(fault)[:_DETAIL_MAX])
        except MalformedEvidence as error:
            reasons = ("an answer", str(error)[:_DETAIL_MAX])
        if reasons is None:
            return None
        expected, got = reasons
        code = Code.POLICY_FOREIGN if outcome == "deny" else _CODES[outcome]
        message = f"the {self.name} policy does not consent"
        return _Refusal(outcome, Denial(code.value, document.window.seq, device, expected, got, _HINT, message))

    def _load(self) -> Worker:
        worker = spawn(self._limits)
        _ = worker.exchange(self._request, seconds=self._limits.load_seconds, reply_max=self._limits.syntax_max)
        return worker


@final
class Beside:
    """One of our policies, and others that must consent. Made by :func:`beside`."""

    def __init__(self, prepared: Prepared, asked: tuple[_Asked, ...]) -> None:
        self._prepared: Prepared = prepared
        self._asked: tuple[_Asked, ...] = asked

    def decide(self, document: PolicyInput) -> Decision:
        """Our decision, and a denial for each policy that does not consent.

        Where one gave no answer in time, or died, nothing was judged, unless ours denies anyway.

        Raises:
            EnvironmentFault: as that of our policy.
        """
        decision = self._prepared.decide(document)
        if decision.outcome not in {"allow", "deny"}:
            return decision
        refusals = [refusal for asked in self._asked for refusal in asked.refusals(document)]
        if not refusals:
            return decision
        failed = next((refusal for refusal in refusals if refusal.outcome != "deny"), None)
        denials = (*decision.denials, *(refusal.denial for refusal in refusals))
        if failed is not None and decision.outcome == "allow":
            detail = f"{failed.denial.message}: {failed.denial.got}"
            return replace(decision, outcome=failed.outcome, denials=denials, detail=detail)
        return replace(decision, outcome="deny", denials=tuple(sorted(denials, key=repr)))

    def close(self) -> None:
        """Close ours and theirs. May be called again."""
        self._prepared.close()
        for asked in self._asked:
            asked.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_CODES: Final[dict[Outcome, Code]] = {
    "timeout": Code.POLICY_TIMEOUT,
    "crashed": Code.POLICY_CRASHED,
}


def _outcome_of(fault: WorkerFault) -> Outcome:
    """What a fault says: no time, no process, or an error of the policy's own, which refuses."""
    match fault:
        case WorkerTimeout():
            return "timeout"
        case WorkerCrashed():
            return "crashed"
        case WorkerRefused():
            return "deny"
        case _:  # pragma: no cover - there are no other kinds
            raise fault


def _request(profile: Profile, modules: list[ForeignModule], values: strict.JsonObject, *, v0: bool) -> bytes:
    texts = [PolicyModule(module.name, _packaged(module.text)) for module in modules]
    if profile.preamble:
        texts.append(PolicyModule(_PREAMBLE, profile.preamble.encode()))
    return load_request(texts, {}, syntax=False, v0=v0, values=values)


def _packaged(text: bytes) -> bytes:
    """Intel's policies have no package of their own; elsewhere it is this one."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    return text if first.startswith(b"package ") else b"package policy\n" + text
