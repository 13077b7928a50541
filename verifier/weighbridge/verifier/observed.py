"""What whoever judges tells of its own work, for figures: how long stages took, what came of windows, what was refused.

Nothing is decided by it, and nothing waits for it: an observer only counts. What is told is of closed sets, so that no
peer can make the figures grow: stages, outcomes, codes, and the tenants that are configured.

Example::

    with timed(observer, Stage.VERIFY):
        ...
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, final

from weighbridge.policy.engine import decide_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from weighbridge.policy.document import PolicyInput
    from weighbridge.policy.engine import Decision, Prepared
    from weighbridge.proto.errors import Code, WeighbridgeError

__all__ = ["UNOBSERVED", "ObservedPolicy", "Observer", "Restored", "Stage", "timed"]


class Stage(StrEnum):
    """Where the time goes. ``turn``, ``ledger`` and ``store`` are of all windows that are settled together."""

    AUTHENTICATE = "authenticate"
    """Parsed, and found to be of its session: the outermost signature."""
    VERIFY = "verify"
    """Every other signature and binding."""
    APPRAISE = "appraise"
    """Weights, host, samples, and the policy's answer."""
    POLICY = "policy"
    """The policy's answer alone."""
    TURN = "turn"
    """Until this process may write."""
    LEDGER = "ledger"
    """Contents and leaves, durable."""
    STORE = "store"
    """What sessions are known to be, durable."""
    ANSWER = "answer"
    """The token of one window."""


class Restored(StrEnum):
    """What a session was made from that a process did not remember."""

    KEPT = "kept"
    """From where it stood lately, and the windows since."""
    WHOLE = "whole"
    """From its first window: nothing had been kept yet."""
    UNFIT = "unfit"
    """From its first window: what was kept is damaged, of another version, or not what ledger and records say."""


class Observer(Protocol):
    """Is told. Never raises."""

    def took(self, stage: Stage, seconds: float) -> None:
        """``stage`` took so long. In the thread that judges."""
        ...

    def judged(self, *, tenant: str, outcome: str, held: bool, codes: Iterable[str], late_ns: int | None) -> None:
        """A judgement was recorded. In the thread that judges.

        Args:
            tenant: whose session it was.
            outcome: of the verdict.
            held: whether the window came too late.
            codes: of all denials; a policy's own among them.
            late_ns: from the end of the window's interval to its receipt; ``None``: it was not verified.
        """
        ...

    def refused(self, code: Code) -> None:
        """Something was refused without a judgement. In any thread."""
        ...

    def restored(self, how: Restored, windows: int) -> None:
        """A session was made anew, and ``windows`` of it replayed for that. In the thread that judges."""
        ...

    def removed(self, *, windows: int, challenges: int) -> None:
        """Rows of sessions that ended long ago were taken out of the store. In the thread that judges."""
        ...


@final
class _Unobserved:
    """Forgets what it is told."""

    __slots__ = ()

    def took(self, stage: Stage, seconds: float) -> None:
        """See :meth:`Observer.took`."""

    def judged(self, *, tenant: str, outcome: str, held: bool, codes: Iterable[str], late_ns: int | None) -> None:
        """See :meth:`Observer.judged`."""

    def refused(self, code: Code) -> None:
        """See :meth:`Observer.refused`."""

    def restored(self, how: Restored, windows: int) -> None:
        """See :meth:`Observer.restored`."""

    def removed(self, *, windows: int, challenges: int) -> None:
        """See :meth:`Observer.removed`."""


UNOBSERVED: Final[Observer] = _Unobserved()
"""Where nobody wants figures."""


@final
class timed:  # noqa: N801 - read as a word where it is used
    """Tells ``observer`` how long the block took, however it was left: as many equal parts of it as it was for."""

    __slots__ = ("_began", "_observer", "_parts", "_stage")

    def __init__(self, observer: Observer, stage: Stage, *, parts: int = 1) -> None:
        self._observer = observer
        self._stage = stage
        self._parts = parts
        self._began = 0.0

    def __enter__(self) -> None:
        """Begin."""
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell."""
        took = time.perf_counter() - self._began
        for _ in range(self._parts):
            self._observer.took(self._stage, took / self._parts)


@final
class ObservedPolicy:
    """A loaded policy whose answers are timed."""

    __slots__ = ("_observer", "_policy")

    def __init__(self, policy: Prepared, observer: Observer) -> None:
        self._policy = policy
        self._observer = observer

    def decide(self, document: PolicyInput) -> Decision:
        """See :meth:`.Prepared.decide`."""
        with timed(self._observer, Stage.POLICY):
            return self._policy.decide(document)

    def decide_all(self, documents: Sequence[PolicyInput]) -> Sequence[Decision | WeighbridgeError]:
        """See :meth:`.Several.decide_all`. The time is told once for each, in equal parts."""
        with timed(self._observer, Stage.POLICY, parts=len(documents)):
            return decide_all(self._policy, documents)

    def close(self) -> None:
        """See :meth:`.Prepared.close`."""
        self._policy.close()

    def __enter__(self) -> ObservedPolicy:
        """See :meth:`.Prepared.__enter__`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See :meth:`.Prepared.__exit__`."""
        self.close()
