"""What came of one step of a case, in the words of the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from weighbridge.proto.errors import Code, ExitCode, WeighbridgeError
from weighbridge.verifier.bundle_verdict import BundleVerdict
from weighbridge.verifier.core import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.policy.engine import Denial

__all__ = ["Outcome", "Result", "accepted", "enrolled", "of_answer", "of_bundle", "of_error"]

Outcome = Literal["affirmed", "held", "indeterminate", "denied", "refused", "enrolled", "accepted"]
_EXITS = {"affirmed": ExitCode.AFFIRMED, "denied": ExitCode.DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it. ``codes`` are all that were told, each once, the first one decisive; ``exit`` the command's.

    A window that is denied is reported with exit 5, whatever the class of the error that denied it; one that is held,
    with exit 6: so does ``weighbridge verify bundle``. What is refused without a verdict has the exit of its error.
    ``device`` is the identity, in hexadecimal, of the GPU that the first code is about, if it is about one.
    """

    outcome: Outcome
    codes: tuple[Code, ...]
    exit: ExitCode
    window: int | None
    device: str | None = None


def of_answer(answer: Answer) -> Result:
    """The verdict on a window."""
    verdict = answer.verdict
    return Result(
        outcome=verdict.outcome,
        codes=_distinct(verdict.denials),
        exit=_EXITS.get(verdict.outcome, ExitCode.INDETERMINATE),
        window=verdict.seq,
        device=_device(verdict.denials),
    )


def of_bundle(verdict: BundleVerdict) -> Result:
    """What became of a recorded session: the first window that was denied, or the last one."""
    last = verdict.verdicts[-1]
    if verdict.admitted:
        return Result(outcome="accepted", codes=(), exit=ExitCode.AFFIRMED, window=last.seq)
    if not verdict.denied:
        codes = _distinct(last.denials)
        return Result(
            outcome=last.outcome,
            codes=codes,
            exit=ExitCode.INDETERMINATE,
            window=last.seq,
            device=_device(last.denials),
        )
    denials = [denial for each in verdict.denied for denial in each.denials]
    return Result(
        outcome="denied",
        codes=_distinct(denials),
        exit=ExitCode.DENIED,
        window=verdict.denied[0].seq,
        device=_device(denials),
    )


def of_error(error: WeighbridgeError) -> Result:
    """A refusal without a verdict."""
    return Result(outcome="refused", codes=(error.code,), exit=error.exit_code, window=None)


def enrolled() -> Result:
    """An enrolment."""
    return Result(outcome="enrolled", codes=(), exit=ExitCode.AFFIRMED, window=None)


def accepted() -> Result:
    """Whatever else was in order."""
    return Result(outcome="accepted", codes=(), exit=ExitCode.AFFIRMED, window=None)


def _distinct(denials: Iterable[Denial]) -> tuple[Code, ...]:
    return tuple(dict.fromkeys(Code(denial.code) for denial in denials))


def _device(denials: Iterable[Denial]) -> str | None:
    return next((denial.device for denial in denials), None)
