"""Has a driver judge a corpus, and compares what it says with what has to be said.

A case has *passed* when every step came out as it has to. What the driver says it cannot do is *skipped*, and told; so
is what the caller leaves out. Neither counts as passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from weighbridge.verifier.conformance.process import NoAnswer
from weighbridge.verifier.conformance.steps import Answered

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from weighbridge.verifier.conformance.corpus import Corpus, Item
    from weighbridge.verifier.conformance.process import Driver
    from weighbridge.verifier.conformance.steps import Said

__all__ = ["Compared", "Ended", "Finding", "run"]

Compared = Literal["all", "code", "outcome"]
"""What has to be the same: everything that is said, the outcome and the first code, or the outcome alone."""
Ended = Literal["passed", "failed", "unsupported", "left out"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one case: ``why`` it failed, or what was missing."""

    id: str
    rows: tuple[str, ...]
    ended: Ended
    why: str = ""


def run(
    corpus: Corpus, names: Collection[str], driver: Driver, *, compared: Compared, without: Collection[str]
) -> Iterator[Finding]:
    """What came of each of the cases called ``names``; those that require a capability of ``without`` are left out.

    Raises:
        EnvironmentFault: the corpus cannot be read, or the driver cannot be started.
    """
    for name in names:
        item = corpus.item(name)
        missing = sorted(set(item.requires) & set(without))
        if missing:
            yield Finding(name, item.rows, "left out", ", ".join(missing))
        else:
            yield _judged(name, item, driver, compared)


def _judged(name: str, item: Item, driver: Driver, compared: Compared) -> Finding:
    try:
        answered = Answered.model_validate_json(driver.ask(item.line))
    except NoAnswer as error:
        return Finding(name, item.rows, "failed", str(error))
    except ValidationError as error:
        return Finding(name, item.rows, "failed", f"not an answer: {error.errors()[0]['msg']}")
    if answered.id != name:
        return Finding(name, item.rows, "failed", f"an answer to another case: {answered.id}")
    if answered.unsupported:
        unknown = sorted(set(answered.unsupported) - set(item.requires))
        if unknown:
            return Finding(name, item.rows, "failed", f"it lacks what is not required: {', '.join(unknown)}")
        return Finding(name, item.rows, "unsupported", ", ".join(answered.unsupported))
    why = _difference(item.expected.said, answered.said, compared)
    return Finding(name, item.rows, "failed" if why else "passed", why)


def _difference(wanted: tuple[Said, ...], got: tuple[Said, ...], compared: Compared) -> str:
    """Where the first step is that came out otherwise than it has to; empty if none did."""
    if len(wanted) != len(got):
        return f"{len(got)} steps answered of {len(wanted)}"
    for number, (one, other) in enumerate(zip(wanted, got, strict=True), 1):
        if _compared(one, compared) != _compared(other, compared):
            return f"step {number} of {len(wanted)}: {_words(other)}; it has to be {_words(one)}"
    return ""


def _compared(said: Said, compared: Compared) -> object:
    match compared:
        case "all":
            return said
        case "code":
            return said.outcome, said.codes[:1]
        case "outcome":
            return said.outcome


def _words(said: Said) -> str:
    codes = f" {', '.join(said.codes)}" if said.codes else ""
    place = "" if said.window is None else f", window {said.window}"
    device = "" if said.device is None else f", device {said.device[:8]}…"
    return f"{said.outcome}{codes} (exit {said.exit}{place}{device})"
