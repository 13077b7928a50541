"""A checked policy on whatever evaluates it: from a window's document to the decision. The same for every engine."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, Protocol, Self, final, runtime_checkable

from weighbridge.policy.checker.check import AUTHOR_PACKAGE
from weighbridge.policy.claims import trust_claims
from weighbridge.policy.engine import Decision, each
from weighbridge.policy.engines.output import failure, read_answer
from weighbridge.policy.engines.process import WorkerCrashed, WorkerFault, WorkerRefused, WorkerTimeout
from weighbridge.proto import strict
from weighbridge.proto.digest import sha256
from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Limits
    from weighbridge.policy.engines.output import Output
    from weighbridge.policy.policy_set import PolicySet

__all__ = ["Evaluator", "ForSeveral", "PreparedPolicy", "place_and_error", "query_of"]

# Seconds for which documents are asked about one by one, after that failed for several.
_APART: Final = 60.0
# "--> file:line:column" opens, and "error: …" ends, what a person needs of regorus's message; OPA's is in one line.
_PLACE: Final = re.compile(r"--> ([^\n]+?:[0-9]+):[0-9]+")
_ERROR: Final = re.compile(r"^error: ([^\n]*)", re.MULTILINE)
_OPA: Final = re.compile(
    r"(?:\w+_error: |bundle activation failed: |[0-9]+ errors? occurred:\s+)*([^\n:]+:[0-9]+)(?::[0-9]+)?: (.*)",
    re.DOTALL,
)


class Evaluator(Protocol):
    """Something in which a policy is loaded."""

    def evaluate(self, query: bytes, document: bytes, *, now_ns: int) -> bytes:
        """The value of one expression, as ``{"result": [{"expressions": [{"value": …}]}]}``; ``{}`` when undefined.

        Args:
            query: the expression.
            document: the input, JSON.
            now_ns: what ``time.now_ns()`` gives.

        Raises:
            WorkerFault: none, an error, or one out of form.
        """
        ...

    def close(self) -> None:
        """Let go of processes and files. May be called again."""
        ...


@runtime_checkable
class ForSeveral(Evaluator, Protocol):
    """An evaluator that can be asked about several documents at once, at less than what each by itself costs."""

    def evaluate_all(self, query: bytes, documents: Sequence[tuple[bytes, int]]) -> Sequence[bytes]:
        """As :meth:`evaluate`, for each document with its time.

        Raises:
            WorkerFault: as there, of any of them: nothing is said of the others.
        """
        ...


@final
class PreparedPolicy:
    """A checked policy, loaded; made by an engine's ``load``. Threads may share it.

    Args:
        evaluator: where it is loaded; closed with this.
        policy: what is loaded.
        limits: for the input; the evaluator keeps those of time and space.
        optional: the optional rules that the policy defines.
        engine: name and version, for the decision.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        policy: PolicySet,
        limits: Limits,
        optional: tuple[str, ...],
        engine: tuple[str, str],
    ) -> None:
        self._evaluator: Evaluator = evaluator
        self._policy: PolicySet = policy
        self._limits: Limits = limits
        self._optional: tuple[str, ...] = optional
        self._engine: tuple[str, str] = engine
        self._digests: tuple[bytes, bytes] = (policy.digest, policy.reference_digest)
        self._query: bytes = query_of(optional)
        self._apart_until: float = 0.0

    def decide(self, document: PolicyInput) -> Decision:
        """The decision on one window. Whatever the policy or the engine does ends in an outcome, not an exception.

        Raises:
            MalformedEvidence: the document holds a value that evidence must not have (see ``to_json``).
            RuntimeError: after :meth:`close`.
            EnvironmentFault: a worker had to be replaced, and none can be started.
        """
        data = document.to_json()
        return self._decision(document, data, self._evaluate(data, document))

    def decide_all(self, documents: Sequence[PolicyInput]) -> Sequence[Decision | WeighbridgeError]:
        """See :meth:`.Several.decide_all`: the engine is asked once, where it can be.

        Where anything is not as usual, each window is asked about by itself, and says what: nobody else has its fault.

        Raises:
            RuntimeError: after :meth:`close`.
        """
        try:
            written = [document.to_json() for document in documents]
            answers = self._together(list(zip(written, map(_now, documents), strict=True)))
        except WeighbridgeError:
            answers, written = (), []
        if not answers:
            return each(self.decide, documents)
        return [
            self._decision(document, data, read_answer(answer, self._optional, document))
            for document, data, answer in zip(documents, written, answers, strict=True)
        ]

    def _together(self, asked: Sequence[tuple[bytes, int]]) -> Sequence[bytes]:
        """The answers about several documents; none where they have to be asked about one by one."""
        evaluator = self._evaluator
        if not isinstance(evaluator, ForSeveral) or time.monotonic() < self._apart_until:
            return ()
        if sum(len(data) for data, _ in asked) > self._limits.input_max:
            return ()
        try:
            return evaluator.evaluate_all(self._query, asked)
        except WorkerFault:
            # What takes too long together, or fails for one of them, would again the next time.
            self._apart_until = time.monotonic() + _APART
            return ()

    def _decision(self, document: PolicyInput, data: bytes, output: Output) -> Decision:
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
        """Let go of the engine's processes. May be called again."""
        self._evaluator.close()

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
        try:
            answer = self._evaluator.evaluate(self._query, data, now_ns=_now(document))
        except WorkerFault as fault:
            return _failed(fault, seq)
        return read_answer(answer, self._optional, document)


def _now(document: PolicyInput) -> int:
    return strict.decimal(document.received_ns, what="received_ns")


def query_of(optional: tuple[str, ...]) -> bytes:
    """The one expression that a decision is read from."""
    rules = ", ".join(f"data.{AUTHOR_PACKAGE}.{name}" for name in ("allow", "deny", *optional))
    return f"[{rules}]".encode()


def place_and_error(message: str) -> tuple[str, str]:
    """Of an engine's message the place (``file:line``, or nothing) and what is wrong there."""
    place, error = _PLACE.search(message), _ERROR.search(message)
    if place or error:
        return place.group(1) if place else "", error.group(1) if error else message
    found = _OPA.fullmatch(message)
    return (found.group(1), " ".join(found.group(2).split())) if found else ("", message)


def _failed(fault: WorkerFault, seq: int) -> Output:
    match fault:
        case WorkerTimeout():
            return failure("timeout", str(fault), seq)
        case WorkerRefused():
            place, error = place_and_error(str(fault))
            return failure("error", f"{place}: {error}" if place else error, seq)
        case WorkerCrashed():
            return failure("crashed", str(fault), seq)
        case _:  # pragma: no cover - there are no other kinds
            raise fault
