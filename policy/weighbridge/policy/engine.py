"""What a policy engine is, and what it answers.

Only an exact ``true`` of ``allow`` together with an empty ``deny`` and well-formed output is ``allow``. Undefined,
an error, a timeout, a dead engine, two engines that differ and anything else that is not understood are outcomes of
their own and none of them admits. A :class:`Decision` has no truth value, so that ``if decision:`` cannot be written by
mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol, Self, runtime_checkable

from weighbridge.policy.document import PolicyInput
from weighbridge.policy.policy_set import PolicySet
from weighbridge.proto.errors import WeighbridgeError

if TYPE_CHECKING:
    from weighbridge.policy.checker.findings import CheckerFinding

__all__ = [
    "DEFAULT_LIMITS",
    "Advice",
    "Decision",
    "Denial",
    "Limits",
    "Obligation",
    "ObligationKind",
    "Outcome",
    "PolicyEngine",
    "Prepared",
    "Revision",
    "Several",
    "TrustClaims",
    "Unchecked",
    "decide_all",
    "each",
]

Outcome = Literal["allow", "deny", "undefined", "error", "timeout", "crashed", "disagree"]
TrustClaims = Mapping[str, Mapping[str, int]]
"""Submodule to AR4SI claim to value (draft-ietf-rats-ar4si-10 §2.3)."""


@dataclass(frozen=True, slots=True)
class Denial:
    """One reason for refusing, as data. ``window`` is a sequence number, ``device`` a GPU identity or ``None``.

    ``sticks``: whether it speaks against the host, whose attestation key and GPUs then stay refused until somebody
    clears them. A policy says otherwise where the host may come again: each window is judged anew.
    """

    code: str
    window: int | None
    device: str | None
    expected: str | None
    got: str | None
    hint: str | None
    message: str
    sticks: bool = True


@dataclass(frozen=True, slots=True)
class Advice:
    """Something worth saying that refuses nothing. ``device`` is a GPU identity or ``None``."""

    code: str
    message: str
    device: str | None = None


ObligationKind = Literal["spot_check", "reattest"]


@dataclass(frozen=True, slots=True)
class Obligation:
    """What an admission costs: ``spot_check`` in the next window, or to be attested anew within ``seconds``.

    ``seconds`` belongs to ``reattest`` alone: a result token then says so by its end. Obligations never admit.
    """

    kind: ObligationKind
    seconds: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A check that was left out, and the reason somebody wrote for it."""

    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class Revision:
    """Which signed bundle a policy came in. ``digest`` is the SHA-256 of the signed file, hex; no tenant: everybody's.

    The bundle's signature is not part of a decision: whoever put the policy in force has verified it.
    """

    owner: str
    name: str
    number: int
    digest: str
    tenant: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a policy and on its evaluation. Times in seconds of wall clock, sizes in bytes."""

    load_seconds: float = 5.0
    decide_seconds: float = 1.0
    memory: int = 512 * 1024 * 1024
    input_max: int = 8 * 1024 * 1024
    reply_max: int = 1024 * 1024
    syntax_max: int = 32 * 1024 * 1024


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says about one window, with everything needed to show later why.

    ``detail`` is for people: the engine's words on an error, empty otherwise. ``denials`` is empty exactly when
    ``outcome`` is ``allow``. ``revision`` is ``None`` for a policy that came in no signed bundle.
    """

    outcome: Outcome
    denials: tuple[Denial, ...]
    warnings: tuple[Advice, ...]
    unchecked: tuple[Unchecked, ...]
    obligations: tuple[Obligation, ...]
    trust_claims: TrustClaims
    policy_digest: bytes
    reference_digest: bytes
    input_digest: bytes
    engine: str
    engine_version: str
    detail: str = ""
    revision: Revision | None = None

    @property
    def allowed(self) -> bool:
        """True for the outcome ``allow`` and for nothing else."""
        return self.outcome == "allow"

    @property
    def obliges_spot_check(self) -> bool:
        """Whether a spot check is due in the next window, whatever the terms say."""
        return any(item.kind == "spot_check" for item in self.obligations)

    @property
    def reattest_within(self) -> int | None:
        """In how many seconds the host is to be attested anew at the latest; ``None`` where the policy demands none."""
        return min((item.seconds for item in self.obligations if item.seconds is not None), default=None)

    def __bool__(self) -> NoReturn:
        """A decision has no truth value.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Decision has no truth value: compare its outcome")


class Prepared(Protocol):
    """A policy set, checked and loaded."""

    def decide(self, document: PolicyInput) -> Decision:
        """The decision on one window. Never raises for what the policy does."""
        ...

    def close(self) -> None:
        """Let go of the engine's resources. May be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Several(Prepared, Protocol):
    """A policy set that can be asked about several windows at once, at less than what each by itself costs."""

    def decide_all(self, documents: Sequence[PolicyInput]) -> Sequence[Decision | WeighbridgeError]:
        """For each window what :meth:`decide` returns or raises, as if it were asked about that one alone."""
        ...


def decide_all(policy: Prepared, documents: Sequence[PolicyInput]) -> Sequence[Decision | WeighbridgeError]:
    """For each window what ``policy`` decides, or the error that it raises: at once, if it knows how."""
    if len(documents) > 1 and isinstance(policy, Several):
        return policy.decide_all(documents)
    return each(policy.decide, documents)


def each(
    decide: Callable[[PolicyInput], Decision], documents: Sequence[PolicyInput]
) -> list[Decision | WeighbridgeError]:
    """For each window what ``decide`` returns or raises, one after the other."""
    found: list[Decision | WeighbridgeError] = []
    for document in documents:
        try:
            found.append(decide(document))
        except WeighbridgeError as error:
            found.append(error)
    return found


class PolicyEngine(Protocol):
    """Something that evaluates Rego."""

    @property
    def name(self) -> str:
        """The engine's name, as recorded in verdicts."""
        ...

    @property
    def version(self) -> str:
        """The engine's exact version, as recorded in verdicts."""
        ...

    def check(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> tuple[CheckerFinding, ...]:
        """Everything that there is against ``policy``: the checker's findings, and the engine's own.

        Raises:
            PolicyDenied: ``POLICY_INVALID``: it does not parse within the limits.
            EnvironmentFault: the engine cannot be started.
        """
        ...

    def load(self, policy: PolicySet, limits: Limits = DEFAULT_LIMITS) -> Prepared:
        """Check ``policy`` and load it.

        Raises:
            PolicyDenied: ``POLICY_INVALID`` with file and line.
        """
        ...
