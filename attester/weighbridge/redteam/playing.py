"""Plays attacks one after the other, and says what each came to and what is left behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weighbridge.proto.errors import ExitCode, WeighbridgeError
from weighbridge.redteam.attack import Harmed, NotShown, Status, status_of
from weighbridge.redteam.chain_attacks import CHAIN_ATTACKS
from weighbridge.redteam.gate_attacks import GATE_ATTACKS
from weighbridge.redteam.host_attacks import HOST_ATTACKS
from weighbridge.redteam.party_attacks import PARTY_ATTACKS
from weighbridge.redteam.peer_attacks import FLOODS, PEER_ATTACKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.redteam.attack import Attack
    from weighbridge.redteam.field import Field

__all__ = ["ATTACKS", "Played", "Result", "exit_status", "play"]

ATTACKS: Final[tuple[Attack, ...]] = (
    *CHAIN_ATTACKS,
    *HOST_ATTACKS,
    *PEER_ATTACKS,
    *PARTY_ATTACKS,
    *GATE_ATTACKS,
    *FLOODS,
)
"""In the order in which they are played: floods last, since they use up what a peer may have."""
_ATTACK_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Result:
    """How one attack ended. ``stage`` is what was not accepted where it is not shown."""

    attack: Attack
    status: Status
    codes: tuple[str, ...]
    message: str
    seconds: float
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Played:
    """All results, and what the deployment will remember: sessions, attestation keys that failed, requests."""

    results: tuple[Result, ...]
    sessions: tuple[bytes, ...]
    failed: tuple[bytes, ...]
    openings: int
    windows: int


async def play(field: Field, attacks: Sequence[Attack], *, told: Callable[[Result], None] = lambda _: None) -> Played:
    """Play ``attacks`` on ``field``; ``told`` hears of each result as it comes.

    Raises:
        EnvironmentFault: ``PEER_UNREACHABLE`` or ``PEER_REFUSED``: the deployment cannot be reached at all.
    """
    line = await field.line(field.channels.take())
    await line.disconnect()
    results: list[Result] = []
    for attack in attacks:
        results.append(await _one(field, attack))
        told(results[-1])
    return Played(tuple(results), tuple(field.sessions), tuple(field.failed), field.openings, field.windows)


def exit_status(results: Sequence[Result]) -> ExitCode:
    """0 where every attack was refused as expected.

    ``DENIED`` where one was admitted, or harmed somebody else; else ``INDETERMINATE`` where one was not shown, not
    played, or refused by another check than the one that is meant.
    """
    found = {result.status for result in results}
    if found & {Status.ADMITTED, Status.HARMFUL}:
        return ExitCode.DENIED
    return ExitCode.AFFIRMED if found == {Status.REFUSED} else ExitCode.INDETERMINATE


async def _one(field: Field, attack: Attack) -> Result:
    began = time.monotonic()

    def result(status: Status, codes: tuple[str, ...], message: str, stage: str = "") -> Result:
        return Result(attack, status, codes, message, time.monotonic() - began, stage)

    try:
        async with asyncio.timeout(_ATTACK_S), field.cleared():
            seen = await attack.play(field)
    except NotShown as error:
        codes = () if error.code is None else (error.code,)
        return result(Status.NOT_SHOWN, codes, error.message, error.stage)
    except Harmed as error:
        return result(Status.HARMFUL, (), str(error))
    except TimeoutError:
        return result(Status.NOT_PLAYED, (), f"not done after {_ATTACK_S:g} s")
    except WeighbridgeError as error:
        return result(Status.NOT_PLAYED, (error.code.value,), str(error))
    return result(status_of(attack, seen), seen.codes, seen.message)
