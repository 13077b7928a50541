"""What an attack is, what a deployment answered to it, and what that comes to.

An attack counts as refused only where the same thing undeviated was accepted before: a verifier that refuses everything
has shown nothing. Where the honest part is not accepted, the attack is *not shown*, and the report says what stood in
the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from weighbridge.attester.refusal import VerdictNotice
from weighbridge.proto.errors import Code, EnvironmentFault, WeighbridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from weighbridge.attester.client import Answer
    from weighbridge.redteam.field import Field

__all__ = ["Attack", "Harmed", "Needs", "NotShown", "Seen", "Status", "answered", "honest", "refused", "status_of"]

By = Literal["verifier", "relying party", "gate"]
Needs = Literal["attesters", "relying-party", "gate"]


class Status(StrEnum):
    """What an attack came to."""

    REFUSED = "refused"
    """By a check that is meant to."""
    OTHERWISE = "refused otherwise"
    """By another check than expected: safe this time, and worth a look."""
    ADMITTED = "ADMITTED"
    """It was taken for honest."""
    HARMFUL = "HARMFUL"
    """It was refused, and a host that behaves was refused with it."""
    NOT_SHOWN = "not shown"
    """Its honest part was not accepted, or its bounds are too narrow: the check was not reached."""
    NOT_PLAYED = "not played"
    """The line broke, or took too long."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was answered to an attack. ``codes`` are those of the refusal, the foremost first; none where admitted."""

    admitted: bool
    codes: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        name: by which it is chosen.
        rows: of the list of attacks in ``tests/vectors/rows.txt``; none for what costs a verifier, and deceives nobody.
        does: in one sentence.
        expected: a refusal with one of these codes is the one that is meant.
        play: plays its honest part, then the attack.
        by: who refuses: the verifier, a relying party by what the verifier has put into a token, or a gate.
        needs: which of the deployment's ports it is played at, beside that of attesters, where one is named.
    """

    name: str
    rows: tuple[str, ...]
    does: str
    expected: tuple[Code, ...]
    play: Callable[[Field], Awaitable[Seen]]
    by: By = "verifier"
    needs: Needs = "attesters"


class NotShown(Exception):
    """The honest part of an attack was not accepted. ``code`` is that of the refusal, if there was one."""

    def __init__(self, stage: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.stage, self.message, self.code = stage, message, code


class Harmed(Exception):
    """A host that behaves was refused for what another one did."""


async def answered(sending: Awaitable[Answer]) -> Seen:
    """What a verifier makes of a window.

    Raises:
        EnvironmentFault: ``PEER_UNREACHABLE``: it did not say.
    """
    try:
        answer = await sending
    except WeighbridgeError as error:
        return refused(error)
    verdict = VerdictNotice.parse(answer.verdict)
    codes = tuple(denial.code for denial in verdict.denials)
    message = verdict.denials[0].message if verdict.denials else verdict.outcome
    return Seen(verdict.outcome == "affirmed" or answer.token is not None, codes, message)


async def honest(sending: Awaitable[Answer]) -> None:
    """Require that a verifier affirms a window.

    Raises:
        NotShown: it does not.
    """
    seen = await answered(sending)
    if not seen.admitted:
        raise NotShown("an honest window", seen.message, next(iter(seen.codes), None))


def refused(error: WeighbridgeError) -> Seen:
    """A refusal.

    Raises:
        EnvironmentFault: it is none: the line was cut.
    """
    if isinstance(error, EnvironmentFault) and error.code is Code.PEER_UNREACHABLE:
        raise error
    return Seen(admitted=False, codes=(error.code.value,), message=error.message)


def status_of(attack: Attack, seen: Seen) -> Status:
    """What ``seen`` means for ``attack``."""
    if seen.admitted:
        return Status.ADMITTED
    return Status.REFUSED if set(seen.codes) & set(attack.expected) else Status.OTHERWISE
